"""What Holdfast asks of a machine: files, a clock, randomness, threads and locks.

Every other room reaches the machine only through an `Env`, so the same engine runs on the real file
system (`PosixEnv`), on a simulated disk whose power can be cut (`SimEnv`) and under injected errors
(`FaultEnv`).

Durability is stated per call, because it is the contract the crash explorer tests the engine
against:

1. What was written is volatile until a `File.sync` of that file that began after the write has
   returned.
2. `File.sync` makes the bytes of the file and the size needed to read them durable, never its name.
3. A name (created, renamed or unlinked) is volatile until an `Env.sync_dir` of its folder that
   began after it has returned. Until then any subset of the changes of a folder may survive, and a
   rename may survive in half: both names, one of them, or neither.
4. Volatile changes may survive in any combination, sector by sector; a size may survive without its
   bytes.
5. After a failed sync nothing is known about what it should have made durable, and a second sync
   proves nothing.
6. `close` and the end of the process make nothing durable.

Paths are `str`. Errors are `OSError`s with the `errno` of the operating system. A call that changes
files carries `site`, a static string that names the place in the source (`"wal.append.sync"`), by
which simulations address it.

Thread safety: every method may be called from any thread unless it says otherwise. Calls on one
file do not serialise each other: two overlapping writes at the same time leave either bytes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TypeVar

Buffer = bytes | bytearray | memoryview
Result = TypeVar("Result")

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHORTAGES = _DISK_FULL | {errno.EMFILE, errno.ENFILE}


def is_disk_full(exc: OSError) -> bool:
    """Return whether `exc` says that there is no room: the disk is full, the quota is used up, or
    the file may not become larger (RLIMIT_FSIZE, or what its file system can do).
    """
    return exc.errno in _DISK_FULL


def is_shortage(exc: OSError) -> bool:
    """Return whether `exc` says that room or file descriptors ran out: what made, opened or grew a
    file that nothing names yet may succeed later.
    """
    return exc.errno in _SHORTAGES


class SyncError(OSError):
    """What `File.write_and_sync_at` raises when all was written and the sync failed.

    Nobody may take it for a failed write: a full disk that a sync reports is no want of room that
    can be waited out.
    """


def sync_error(exc: OSError) -> SyncError:
    """Return the error for a sync that failed with `exc`, with the same words."""
    return SyncError(exc.errno, exc.strerror, exc.filename)


class ReentryError(RuntimeError):
    """A thread would wait for itself, for ever: a finalizer or a signal handler that runs in the
    middle of a call to a database calls the same database again. `what` is what it needs.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"this thread would wait for itself: {what} of the database is taken by the call in "
            "whose middle this finalizer (__del__, a weak reference's callback) or signal handler "
            "runs; let another thread do it, say one that takes work from a queue.SimpleQueue"
        )
        self.what = what

    def __reduce__(self) -> tuple[type[ReentryError], tuple[str]]:
        return type(self), (self.what,)


class File(Protocol):
    """An open regular file.

    `Env.open` gives one for reading only, `Env.create` one for reading and writing. An open file
    stays readable and writable after its name was unlinked or renamed. The owner closes it, when no
    other thread uses it any more. Every other call on a closed file raises OSError (EBADF).
    """

    @property
    def name(self) -> str:
        """The path it was opened by. Constant after construction."""
        ...

    def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset`; fewer only where the file ends.

        Sees what was written, durable or not.
        """
        ...

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        """Write all of `data` at `offset`, growing the file when needed; a gap reads as zeros.

        Durability: volatile until `sync`. After an OSError any part of `data` may have been
        written.
        """
        ...

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        """Grow the file to `size` bytes that have room on disk and read as zeros; never shrinks it.

        Durability: volatile until `sync`. With `written` the zeros are written: after that sync, a
        write within `size` changes no metadata, so its own sync is as cheap as the disk allows.
        Without, nothing goes to the disk but the metadata, and the first write of each block
        changes some again. After an OSError the file may have grown in part.
        """
        ...

    def truncate(self, size: int, *, site: str) -> None:
        """Set the size: drop what lies beyond, or grow with zeros that may have no room on disk.

        Durability: volatile until `sync`.
        """
        ...

    def sync(self, *, site: str) -> None:
        """Make durable every write that returned before this call began, and the size needed to
        read it.

        Durability: after an OSError any part may be durable, and what `read_at` returns need not be
        what is on disk. Never call it again on this file: a second sync may report success without
        having written anything.
        """
        ...

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        """`write_at`, then `sync` at `sync_site`, perhaps as one step.

        Durability: as of the two. Raises: SyncError when all was written and the sync failed;
        another OSError when the write failed, and then nothing was synced. After an exception of a
        signal handler neither is known, and an error of the disk that it took the place of is its
        context.
        """
        ...

    def size(self) -> int:
        """Return the current size in bytes."""
        ...

    def close(self) -> None:
        """Close the file; a second close does nothing. Durability: none."""
        ...

    def fileno(self) -> int:
        """Return the descriptor that kernels may `pread`, or -1 when there is none and `read_at` is
        the only way.
        """
        ...


class FileLock(Protocol):
    """A lock on a file, held until `release` or until the process ends in any way."""

    @property
    def name(self) -> str:
        """The path of the lock file. Constant after construction."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether it was not given back. A child that was forked holds no lock of its parent."""
        ...

    def release(self) -> None:
        """Give the lock back; a second release does nothing. The lock file stays."""
        ...


class Mutex(Protocol):
    """A lock that is not re-entrant. Any thread may release it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the mutex; return whether it was taken. A negative timeout waits without limit.

        Raises: ReentryError when it would wait for its own thread without limit.
        """
        ...

    def release(self) -> None:
        """Give the mutex back. Raises: RuntimeError when nobody holds it."""
        ...

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Gate(Protocol):
    """Where a thread waits until another one opens it. Made shut; it lets one through, and shuts
    behind it.
    """

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Go through; return whether it opened in time. A negative timeout waits without limit."""
        ...

    def release(self) -> None:
        """Open the gate. Raises: RuntimeError when it is open."""
        ...


class Condition(Protocol):
    """A condition variable over a mutex of the same env.

    Requires: the caller of every method holds that mutex. Waits may end early, so the caller tests
    its predicate in a loop.
    """

    def wait(self, timeout: float | None = None) -> bool:
        """Release the mutex, wait to be notified, take the mutex again; False when `timeout`
        seconds passed first.
        """
        ...

    def notify(self, n: int = 1) -> None:
        """Wake at most `n` waiters."""
        ...

    def notify_all(self) -> None:
        """Wake every waiter."""
        ...


class Task(Protocol):
    """A thread started by `Env.spawn`. It does not keep the process alive; its owner joins it."""

    @property
    def name(self) -> str:
        """The name it was spawned with. Constant after construction."""
        ...

    def join(self) -> None:
        """Wait until the function has returned.

        Raises: what the function raised, at every join; ReentryError in the thread itself.
        """
        ...


class ThreadLife:
    """Whether a thread has ended. Each thread has one, which no other thread ever has."""

    __slots__ = ("has_ended",)

    def __init__(self) -> None:
        self.has_ended = False


class Env(Protocol):
    """The machine. See the module for what is durable when."""

    def create(self, path: str, *, site: str) -> File:
        """Create an empty file and open it for reading and writing.

        Durability: the name is volatile until `sync_dir`. Raises: FileExistsError when the name is
        taken.
        """
        ...

    def open(self, path: str) -> File:
        """Open an existing file for reading.

        Raises: FileNotFoundError; OSError when it is not a regular file (symbolic link, folder,
        pipe, device).
        """
        ...

    def rename(self, source: str, target: str, *, site: str) -> None:
        """Give a file a new name in the same folder; a file that had that name is unlinked.

        Durability: volatile until `sync_dir`, and not atomic under power loss until then.
        """
        ...

    def unlink(self, path: str, *, site: str) -> None:
        """Remove a file's name. Durability: the file may come back until `sync_dir`."""
        ...

    def make_dir(self, path: str, *, site: str) -> None:
        """Create a folder.

        Durability: volatile until `sync_dir` of its parent. Raises: FileExistsError.
        """
        ...

    def list_dir(self, path: str) -> list[str]:
        """Return the names in a folder, sorted."""
        ...

    def sync_dir(self, path: str, *, site: str) -> None:
        """Make durable every change of names in the folder that returned before this call began.

        Durability: after an OSError any subset of those changes may be durable.
        """
        ...

    def file_size(self, path: str) -> int:
        """Return the size of a file by name."""
        ...

    def lock_file(self, path: str, *, shared: bool = False) -> FileLock:
        """Take the exclusive lock on `path`, creating the file when absent; never waits. With
        `shared` others may have a shared lock too, the file must be there, and nothing is written.

        The lock belongs to this process: it ends with it, however it ends, and a forked child does
        not hold it. Raises: DatabaseLockedError naming the holder; FileNotFoundError.
        """
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean something."""
        ...

    def wall_time(self) -> float:
        """Return seconds since 1970 UTC; may jump."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """Return bytes that are fit for cryptographic use, on a real machine."""
        ...

    def mutex(self) -> Mutex:
        """Return a new mutex."""
        ...

    def gate(self) -> Gate:
        """Return a new gate, which is shut."""
        ...

    def condition(self, mutex: Mutex) -> Condition:
        """Return a new condition variable over `mutex`, which this env made."""
        ...

    def spawn(self, name: str, function: Callable[[], None]) -> Task:
        """Run `function` in a new thread."""
        ...

    def thread_id(self) -> int:
        """Return a number that no other live thread has."""
        ...

    def thread_life(self) -> ThreadLife:
        """Return what says of the calling thread, for ever after, whether it has ended."""
        ...

    def uninterrupted(self, function: Callable[[], Result]) -> Result:
        """Run `function` where no signal handler can raise, and return what it returned.

        An exception of a handler is raised when the function has ended. For short steps that must
        not be left half done; the function must not rely on running in the caller's thread.
        """
        ...

    def on_fork(self, callback: Callable[[], None]) -> None:
        """Call `callback` in a child of this process right after a fork. Held weakly: its owner
        keeps it alive.

        The callback must take no lock and touch no file: other threads of the parent may have held
        them.
        """
        ...
