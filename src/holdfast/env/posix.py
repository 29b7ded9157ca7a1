"""`PosixEnv`: the real machine, over the standard library's system calls.

Data files are opened without following symbolic links and must be regular files, so that a planted
link or pipe is an error and not a way to read, write or hang elsewhere. All descriptors are
close-on-exec, and none is that of a standard stream, also where these are closed: who prints there
would write into a file of the database.

The lock on a database is `flock` on its LOCK file: the kernel drops it when the process ends in any
way, so what a dead process left in the file blocks nobody. The file holds "pid host time" for the
message of the next process and is never unlinked, because a lock on an unlinked file excludes
nobody. `flock` belongs to the open file description, which a forked child would share, so a hook
closes the child's copy; a child forked behind Python's back keeps the lock until it execs or ends.

Thread safety: as the protocol says. System calls that may block run without the interpreter lock.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import fcntl
import os
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import MethodType
from typing import cast

from holdfast.base import DatabaseLockedError
from holdfast.env._file import write_and_sync, write_zeros
from holdfast.env._gate import PatientGate
from holdfast.env._mutex import OwnedMutex
from holdfast.env.data_sync import FULL_SYNC, choose_data_sync
from holdfast.env.protocol import (
    Buffer,
    Condition,
    File,
    FileLock,
    Gate,
    Mutex,
    ReentryError,
    Result,
    Task,
    ThreadLife,
)

_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""O_NONBLOCK matters only for what is refused anyway: without it, opening a pipe waits for a
writer.
"""

_DESCRIPTOR_MIN = 3
"""Those below are the standard streams, whoever closed them."""

_FILE_MODE = 0o644
_FOLDER_MODE = 0o755
_WAIT_SECONDS_MAX = 0.1
_LOCK_ATTEMPTS = 16
_LOCK_TEXT_BYTES_MAX = 512

_sync_data = choose_data_sync()


def _sync_folder(descriptor: int) -> None:
    if FULL_SYNC is not None:
        fcntl.fcntl(descriptor, FULL_SYNC)
    else:
        os.fsync(descriptor)


def _open_regular(path: str, flags: int) -> int:
    """Open `path` and return the descriptor of a regular file."""
    try:
        descriptor = os.open(path, flags | _OPEN_FLAGS, _FILE_MODE)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EMLINK) and os.path.islink(path):
            raise OSError(exc.errno, "a data file must not be a symbolic link", path) from None
        if exc.errno in (errno.ENXIO, errno.EISDIR):
            raise OSError(exc.errno, "a data file must be a regular file", path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "a data file must be a regular file", path)
        if descriptor >= _DESCRIPTOR_MIN:
            return descriptor
        above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTOR_MIN)
    except BaseException:
        os.close(descriptor)
        if flags & os.O_EXCL:
            # Whoever is told that it failed counts on its not being there, as of a marker.
            os.unlink(path)
        raise
    os.close(descriptor)
    return above


class PosixFile:
    """A regular file by descriptor. Implements `File`."""

    __slots__ = ("_descriptor", "_name")

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor

    def __del__(self) -> None:
        """Close a file that had no owner yet when an exception came, such as MemoryError."""
        # A signal handler may have raised before it had a descriptor at all.
        with contextlib.suppress(AttributeError):
            self.close()

    @classmethod
    def opened(cls, name: str, flags: int) -> PosixFile:
        """Open a file. Its owner is made first: without, a descriptor would stay open."""
        file = cls(name, -1)
        file._descriptor = _open_regular(name, flags)
        return file

    @property
    def name(self) -> str:
        return self._name

    def read_at(self, offset: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, offset)
        if len(data) == count or not data:
            return data
        # One call returns less at the end of the file, but also past 2 GiB; only an empty read says
        # which.
        pieces = [data]
        done = len(data)
        while done < count:
            data = os.pread(self._descriptor, count - done, offset + done)
            if not data:
                break
            pieces.append(data)
            done += len(data)
        return b"".join(pieces)

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        done = os.pwrite(self._descriptor, data, offset)
        if done == (data.nbytes if isinstance(data, memoryview) else len(data)):
            return
        with memoryview(data) as given, given.cast("B") as view:
            while done < len(view):
                with view[done:] as rest:
                    written = os.pwrite(self._descriptor, rest, offset + done)
                if written == 0:
                    raise OSError(errno.EIO, "a write made no progress", self._name)
                done += written

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        # Extents that are allocated but unwritten turn into written ones at the first write, which
        # is a change of metadata that the next sync must wait for. Real zeros spare that.
        position = self.size()
        if not written and position < size and self._reserve(position, size - position):
            return
        write_zeros(self._descriptor, self._name, position, size)

    def _reserve(self, offset: int, count: int) -> bool:
        """Allocate without writing; return whether the system can do that here."""
        if not hasattr(os, "posix_fallocate"):
            return False
        try:
            os.posix_fallocate(self._descriptor, offset, count)
        except OSError as exc:
            if exc.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                return False
            raise
        return True

    def truncate(self, size: int, *, site: str) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self, *, site: str) -> None:
        if self._descriptor < 0:
            # Python's sync calls reject such a number with a ValueError before the system sees it.
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._name)
        _sync_data(self._descriptor)

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        write_and_sync(self._descriptor, self._name, offset, data)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        # The descriptor is forgotten first: after a failed close it is gone too, and may be another
        # file's.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def fileno(self) -> int:
        return self._descriptor


class PosixFileLock:
    """`flock` on an open lock file. Implements `FileLock`."""

    __slots__ = ("__weakref__", "_descriptor", "_name")

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_held(self) -> bool:
        return self._descriptor >= 0

    def release(self) -> None:
        # Closing the last copy of the descriptor is what gives a flock back.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class PosixCondition:
    """A condition variable of the standard library. Implements `Condition`.

    A wait of the standard library that a signal handler ends may come back without the mutex; its
    caller would then give back what another thread holds. So the main thread, in which handlers
    run, lets another thread wait, in pieces that a user who interrupts it does not notice.
    """

    __slots__ = ("_condition", "_mutex")

    def __init__(self, mutex: OwnedMutex) -> None:
        self._mutex = mutex
        self._condition = threading.Condition(mutex)  # type: ignore[arg-type]  # any lock will do

    def wait(self, timeout: float | None = None) -> bool:
        if not may_be_interrupted():
            return self._wait(timeout)
        piece = _WAIT_SECONDS_MAX if timeout is None else min(timeout, _WAIT_SECONDS_MAX)
        caller = threading.get_ident()

        def wait() -> bool:
            try:
                return self._wait(piece)
            finally:
                self._mutex.hand_to(caller)

        notified = _uninterrupted(wait)
        # To end early is allowed, and no reason to say that the time is over.
        return notified or piece != timeout

    def _wait(self, timeout: float | None) -> bool:
        try:
            return self._condition.wait(timeout)
        except RuntimeError as error:
            # So the interpreter says that there is no memory for a lock.
            if "allocate lock" in str(error):
                raise MemoryError("no memory to wait") from error
            raise

    def notify(self, n: int = 1) -> None:
        self._condition.notify(n)

    def notify_all(self) -> None:
        self._condition.notify_all()


class _Body:
    """What a thread runs. Whoever holds it weakly sees that the thread is gone.

    The thread alone holds it, also before its first instruction and after its last one: one that
    has no memory to begin with ends without having run anything.
    """

    __slots__ = ("__weakref__", "_function", "_task")

    def __init__(self, task: PosixTask, function: Callable[[], None]) -> None:
        self._task = task
        self._function = function

    def __call__(self) -> None:
        task = self._task
        task.ident = _thread.get_ident()
        task.begun.release()
        # From here on nothing but the function can fail.
        try:
            _trace_like_other_threads()
            self._function()
        except BaseException as exc:  # noqa: BLE001  join raises it
            task.error = exc
        finally:
            # A finished task must not keep its owner alive through the function it ran.
            del self._function
            # Another thread may get its number.
            task.ident = 0
            task.done.release()


class PosixTask:
    """A daemon thread. Implements `Task`.

    Not a thread of `threading`, whose start waits without end for one that had no memory to say
    that it runs.
    """

    __slots__ = ("_body", "_name", "begun", "done", "error", "ident")

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self._name = name
        self.error: BaseException | None = None
        self.ident = 0
        # Whatever the two wait for, a thread that is gone ends the wait.
        self.begun, self.done = _make_lock(), _make_lock()
        self.begun.acquire()
        self.done.acquire()
        body = _Body(self, function)
        self._body = weakref.ref(body)
        # It raises for want of memory before the thread is there or, for its result, afterwards.
        with contextlib.suppress(MemoryError, RuntimeError):
            _thread.start_new_thread(body, ())
        del body
        if not _wait_for(self.begun, self._body):
            raise MemoryError(f"no memory for the thread {name}")

    @property
    def name(self) -> str:
        return self._name

    def join(self) -> None:
        if self.ident == _thread.get_ident():
            raise ReentryError(f"the thread {self._name}")
        _wait_for(self.done, self._body)
        with contextlib.suppress(RuntimeError):
            # For other joins. One may have done it.
            self.done.release()
        if self.error is not None:
            raise self.error


class _AtItsEnd:
    """Goes with its thread, and says so."""

    __slots__ = ("_life",)

    def __init__(self, life: ThreadLife) -> None:
        self._life = life

    def __del__(self) -> None:
        self._life.has_ended = True


class _Lives(threading.local):
    def __init__(self) -> None:
        self.life = ThreadLife()
        self._end = _AtItsEnd(self.life)


_lives = _Lives()


def this_thread() -> ThreadLife:
    """Return the life of the calling thread: the same object each time."""
    return _lives.life


class PosixEnv:
    """The real machine. Implements `Env`."""

    __slots__ = ()

    def create(self, path: str, *, site: str) -> File:
        return PosixFile.opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def open(self, path: str) -> File:
        return PosixFile.opened(path, os.O_RDONLY)

    def rename(self, source: str, target: str, *, site: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str, *, site: str) -> None:
        os.unlink(path)

    def make_dir(self, path: str, *, site: str) -> None:
        os.mkdir(path, _FOLDER_MODE)

    def list_dir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def sync_dir(self, path: str, *, site: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync_folder(descriptor)
        finally:
            os.close(descriptor)

    def file_size(self, path: str) -> int:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return found.st_size

    def lock_file(self, path: str, *, shared: bool = False) -> FileLock:
        flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        for _ in range(_LOCK_ATTEMPTS):
            descriptor = _open_regular(path, flags)
            try:
                _flock(descriptor, path, shared=shared)
                if _is_named(descriptor, path):
                    if not shared:
                        _write_holder(descriptor)
                    lock = PosixFileLock(path, descriptor)
                    _locks.add(lock)
                    return lock
            except BaseException:
                os.close(descriptor)
                raise
            # Somebody unlinked the file between our open and our lock: what we hold excludes
            # nobody.
            os.close(descriptor)
        raise OSError(errno.EAGAIN, "the lock file keeps being replaced", path)

    # Each transaction asks these: a frame for each would show.
    monotonic = staticmethod(time.monotonic)
    thread_id = staticmethod(threading.get_ident)
    thread_life = staticmethod(this_thread)

    def wall_time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def mutex(self) -> Mutex:
        return OwnedMutex()

    def gate(self) -> Gate:
        return PatientGate()

    def condition(self, mutex: Mutex) -> Condition:
        if not isinstance(mutex, OwnedMutex):
            raise TypeError("a condition needs a mutex of the same env")
        return PosixCondition(mutex)

    def spawn(self, name: str, function: Callable[[], None]) -> Task:
        return PosixTask(name, function)

    def uninterrupted(self, function: Callable[[], Result]) -> Result:
        return _uninterrupted(function)

    def on_fork(self, callback: Callable[[], None]) -> None:
        kind = weakref.WeakMethod if isinstance(callback, MethodType) else weakref.ref
        living = [old for old in _fork_callbacks if old() is not None]
        _fork_callbacks[:] = [*living, kind(callback)]


def _make_lock() -> threading.Lock:
    """Return a lock. Raises: MemoryError, for which the standard library has another word."""
    try:
        return threading.Lock()
    except RuntimeError as exc:
        raise MemoryError("no memory for a lock") from exc


def may_be_interrupted() -> bool:
    """Return whether signal handlers run in this thread: Python runs them in the main thread."""
    return threading.get_ident() == threading.main_thread().ident


def _trace_like_other_threads() -> None:
    """Let debuggers and coverage see this thread, which `threading` knows nothing of."""
    trace, profile = threading.gettrace(), threading.getprofile()
    if trace is not None:
        sys.settrace(trace)
    if profile is not None:
        sys.setprofile(profile)


def _wait_for(lock: threading.Lock, body: Callable[[], object]) -> bool:
    """Take a lock that a thread opens at its end; return False when it never began.

    `body` returns what the thread runs, or None when it is gone.
    """
    while True:
        try:
            if lock.acquire(timeout=_WAIT_SECONDS_MAX):
                return True
            if body() is None:
                # It may have ended when the time was over.
                return lock.acquire(blocking=False)
        except MemoryError:
            # The thread goes on, so the wait does.
            continue


def _uninterrupted(function: Callable[[], Result]) -> Result:
    """Run `function` in a thread that no handler runs in; return or raise what came of it.

    A handler may raise here behind every call. The function begins with one call that is its only
    beginning, and what is raised from then on waits for its end.
    """
    if not may_be_interrupted():
        return function()
    result: Result | None = None
    error: BaseException | None = None
    cancelled = ended = False
    try:
        begin, end = _make_lock(), _make_lock()
    except MemoryError:
        # As without threads, below.
        return function()
    begin.acquire()
    end.acquire()

    def run() -> None:
        # What came of it is noted without asking for memory: the caller waits until it is.
        nonlocal result, error, ended
        begin.acquire()
        try:
            if not cancelled:
                result = function()
        except BaseException as exc:  # noqa: BLE001  the caller raises it
            error = exc
        finally:
            ended = True
            end.release()

    # The thread alone holds it: one that had no memory to begin with is seen to be gone.
    body = weakref.ref(run)
    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:
        # No more threads, or the interpreter is about to end: better interrupted than not at all.
        return function()
    except BaseException:
        cancelled = True
        begin.release()
        raise
    del run
    interruption: BaseException | None = None
    has_begun = True
    try:
        begin.release()
    except BaseException as exc:  # noqa: BLE001  raised below
        interruption = exc
    while has_begun and not ended:
        try:
            has_begun = _wait_for(end, body)
        except BaseException as exc:  # noqa: BLE001  raised below
            interruption = exc
    if not ended:
        # As without threads, above.
        result = function()
    if error is not None:
        raise error
    if interruption is not None:
        raise interruption
    return cast("Result", result)


def _after_fork_in_child() -> None:
    """Drop the parent's locks and tell the owners, in a process that has this one thread."""
    for lock in list(_locks):
        with contextlib.suppress(OSError):
            lock.release()
    for reference in _fork_callbacks.copy():
        callback = reference()
        if callback is not None:
            callback()


# These belong to the process and not to an env: a lock outlives the env that took it.
_locks: weakref.WeakSet[PosixFileLock] = weakref.WeakSet()
_fork_callbacks: list[weakref.ref[Callable[[], None]]] = []
os.register_at_fork(after_in_child=_after_fork_in_child)


def _flock(descriptor: int, path: str, *, shared: bool) -> None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        readers = [] if shared else _readers_of(descriptor)
        how = f"for reading by {', '.join(readers)}" if readers else ""
        raise DatabaseLockedError(
            f"{path} is locked {how or 'by ' + _describe_holder(descriptor)}"
        ) from None


def _is_named(descriptor: int, path: str) -> bool:
    """Return whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    """Leave a note for the message of the next process.

    The lock holds without it, so a full disk is no error.
    """
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    note = f"{os.getpid()} {os.uname().nodename} {since}\n".encode("ascii", "replace")
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note, 0)


def _describe_holder(descriptor: int) -> str:
    """Return what the note says about the holder.

    The note is unchecked text and may be missing or half written.
    """
    try:
        note = os.pread(descriptor, _LOCK_TEXT_BYTES_MAX, 0).decode("ascii", "replace").split()
    except OSError:
        note = []
    if len(note) != 3 or not note[0].isdigit():
        return "another process"
    pid, host, since = note
    if host != os.uname().nodename:
        return f"process {pid} on {host} since {since}"
    return f"{_describe_process(pid)} since {since}"


def _readers_of(descriptor: int) -> list[str]:
    """Return the processes that have the file locked for reading, as far as the kernel tells.

    Readers leave no note, and one of before is not of who has it now. Nobody is found out by trying
    the lock: whoever tries keeps others out meanwhile. Linux says who has it, but names no process
    of another container or machine, and files of some file systems by other numbers than `stat`.
    """
    found = os.fstat(descriptor)
    number = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    holding = [words for words in lines if words[1:2] == ["FLOCK"] and words[5:6] == [number]]
    pids = dict.fromkeys(words[4] for words in holding if words[3] == "READ")
    return [
        _describe_process(pid) if pid.isdigit() and pid != "0" else "another process"
        for pid in pids
    ]


def _describe_process(pid: str) -> str:
    command = _command_of(pid)
    return f"process {pid} ({command})" if command else f"process {pid}"


def _command_of(pid: str) -> str:
    """Return the command line of a process of this machine, or "" where it cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(_LOCK_TEXT_BYTES_MAX).split(b"\0")
    except OSError:
        return ""
    return " ".join(word.decode("utf-8", "replace") for word in words if word)
