"""`SimEnv`: a machine in memory, deterministic by its seed, whose power can be cut at any
operation.

Every mutating call is an operation with an index. It is a point where another task may run, then a
point where the power may be cut before it, then it takes effect, is logged and shown to the
observer, and then the power may be cut after it and before its caller learns that it was done. What
may survive the cut is enumerated by `crash_states`.

A sync takes simulated time, in which other tasks run; it covers what was done before it began.

When the write of cached blocks has failed (see fault_sync), every handle that was open then reports
it at its next sync, once; of those opened later only the first to sync, and only when nobody was
told before. Such a sync does nothing.

After the cut every call raises `SimCrash`, except those that only give something back (close,
release, notify): these do nothing, so that code being unwound reaches its end with the first
exception.

Thread safety: the tasks of the env only, which run one at a time; see sim_schedule.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal, NamedTuple

from holdfast.base import DatabaseLockedError
from holdfast.env.protocol import (
    Buffer,
    Condition,
    File,
    FileLock,
    Gate,
    Mutex,
    Result,
    Task,
    ThreadLife,
    sync_error,
)
from holdfast.env.sim_disk import Disk, FileNode, os_error
from holdfast.env.sim_image import Image
from holdfast.env.sim_profile import PROFILES, Profile
from holdfast.env.sim_schedule import (
    Policy,
    Scheduler,
    SimCondition,
    SimCrash,
    SimGate,
    SimMutex,
)

_NANOSECONDS = 1_000_000_000
_SYNC_SECONDS = 100e-6
_WALL_START = 1_767_225_600.0
"""The first moment of 2026, UTC."""

_NEVER = -1


WriteBack = Literal["grown", "short", "reverted"]
"""What the failed write of cached blocks leaves: the file grew over them, or not, or cache and disk
are both as they were before.
"""


class Operation(NamedTuple):
    """One mutating call, in the order of effects."""

    number: int
    task: int
    kind: str
    site: str
    path: str
    detail: tuple[int, ...] | str = ()
    """write: offset and count; allocate, truncate: size; rename: target; syncs: operations it
    covers.
    """


class SimFile:
    """An open simulated file. Implements `File`."""

    __slots__ = ("_env", "_errors_told", "_name", "_node", "_writable")

    def __init__(self, env: SimEnv, name: str, node: FileNode, writable: bool) -> None:
        self._env = env
        self._name = name
        self._node: FileNode | None = node
        self._writable = writable
        self._errors_told = node.errors if node.error_told else node.errors - 1
        env._files.add(self)

    @property
    def name(self) -> str:
        return self._name

    def read_at(self, offset: int, count: int) -> bytes:
        self._env._scheduler.tick()
        node = self._open_node()
        if offset < 0 or count < 0:
            raise os_error(errno.EINVAL, self._name)
        return node.volatile.read(offset, count)

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        env = self._env
        index = env._begin()
        node = self._writable_node()
        if offset < 0:
            raise os_error(errno.EINVAL, self._name)
        plain = bytes(data)
        env.disk.write(node, offset, plain, index, site)
        env._done("write", site, self._name, (offset, len(plain)))

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        # Either way a crash leaves zeros or what was written since.
        env = self._env
        index = env._begin()
        env.disk.allocate(self._writable_node(), size, index, site)
        env._done("allocate", site, self._name, (size,))

    def truncate(self, size: int, *, site: str) -> None:
        env = self._env
        index = env._begin()
        node = self._writable_node()
        if size < 0:
            raise os_error(errno.EINVAL, self._name)
        env.disk.truncate(node, size, index, site)
        env._done("truncate", site, self._name, (size,))

    def sync(self, *, site: str) -> None:
        env = self._env
        node = self._open_node()
        begun = env._begin_sync()
        if self.owes_error():
            self._tell(node)
            raise os_error(errno.EIO, self._name)
        env.disk.sync(node, begun)
        env._done("sync", site, self._name, (begun,))

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        self.write_at(offset, data, site=site)
        try:
            self.sync(site=sync_site)
        except OSError as exc:
            raise sync_error(exc) from exc

    def size(self) -> int:
        self._env._scheduler.tick()
        return self._open_node().volatile.size

    def close(self) -> None:
        self._node = None
        self._env._files.discard(self)

    def fileno(self) -> int:
        return -1

    def lose_writes(self, *, revert: bool) -> None:
        """Forget the unsynced writes as a failed sync does; reads see them unless `revert`."""
        self._env._scheduler.tick()
        self._env.disk.lose(self._open_node(), revert=revert)

    def fail_write_back(
        self, failed: Callable[[int], bool], *, outcome: WriteBack, is_told: bool
    ) -> None:
        """Write the unsynced blocks of 4096 bytes, but for those that `failed` names by number.

        Every handle of the file reports the error at its next sync; this one has done so already
        when `is_told`.
        """
        self._env._scheduler.tick()
        node = self._open_node()
        if outcome == "reverted":
            self._env.disk.lose(node, revert=True)
        else:
            seed = f"{self._env.seed}/room/{node.number}/{node.errors}"
            room_seed = seed if outcome == "grown" else None
            self._env.disk.write_back(node, failed, room_seed=room_seed)
        node.errors += 1
        node.error_told = False
        if is_told:
            self._tell(node)

    def owes_error(self) -> bool:
        """Return whether the next sync reports an error of an earlier call."""
        return self._errors_told < self._open_node().errors

    def _tell(self, node: FileNode) -> None:
        self._errors_told = node.errors
        node.error_told = True

    def _open_node(self) -> FileNode:
        if self._node is None:
            raise os_error(errno.EBADF, self._name)
        return self._node

    def _writable_node(self) -> FileNode:
        if not self._writable:
            raise os_error(errno.EBADF, self._name)
        return self._open_node()


class SimFileLock:
    """A lock on a simulated file. Implements `FileLock`."""

    __slots__ = ("_env", "_name", "is_shared", "number")

    def __init__(self, env: SimEnv, name: str, number: int, *, is_shared: bool) -> None:
        self._env = env
        self._name = name
        self.number = number
        self.is_shared = is_shared

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_held(self) -> bool:
        return self in self._env._locks

    def release(self) -> None:
        if self.is_held:
            self._env._locks.remove(self)


class SimEnv:
    """A simulated machine. Implements `Env`. The thread that makes it is its main task.

    `profile` names what the disk may lose; `sector_bytes` overrides the profile's sector. The
    folder "/" exists, and relative paths are relative to it. `observer` is called after the effect
    of every operation.
    """

    def __init__(
        self, seed: int = 0, profile: str | Profile = "posix-min", sector_bytes: int | None = None
    ) -> None:
        chosen = PROFILES[profile] if isinstance(profile, str) else profile
        if sector_bytes is not None:
            chosen = replace(chosen, sector_bytes=sector_bytes)
        self.seed = seed
        self.profile = chosen
        self.disk = Disk(chosen)
        self.op_log: list[Operation] = []
        self.observer: Callable[[Operation], None] | None = None
        self.wall_start = _WALL_START
        self.wall_tick = 0.0
        """The clock on the wall shows multiples of so many seconds; 0 is as exact as it gets."""
        self._op_count = 0
        self._crash_before = _NEVER
        self._crash_after = _NEVER
        self._locks: list[SimFileLock] = []
        self._files: set[SimFile] = set()
        self._scheduler = Scheduler(seed)
        self._bytes = random.Random(f"{seed}/bytes")

    def unreturned(self) -> list[str]:
        """Say what was taken and not given back: open files, held file locks, tasks that go on.

        Passes no time and works without power.
        """
        found = [f"{file.name} is open" for file in self._files]
        found += [f"{lock.name} is locked" for lock in self._locks]
        found += [f"task {name} has not ended" for name in self._scheduler.unfinished()]
        return sorted(found)

    # --- the crash ---

    @property
    def op_count(self) -> int:
        """How many mutating operations took effect; the index of the next one."""
        return self._op_count

    @property
    def powered(self) -> bool:
        """Whether the power is on."""
        return not self._scheduler.off

    @property
    def uptime(self) -> float:
        """Seconds of simulated time since the env was made.

        Passes no time and works without power.
        """
        return self._scheduler.now / _NANOSECONDS

    def crash_at(self, index: int, *, after: bool = False) -> None:
        """Cut the power when operation `index` is about to take effect, or right after it did.

        In the task that reaches it the call raises SimCrash; so does every later call in every
        task.
        """
        if index < self._op_count:
            raise ValueError(f"operation {index} is past; the next one is {self._op_count}")
        if after:
            self._crash_after = index
        else:
            self._crash_before = index

    def cut_power(self) -> None:
        """Cut the power now.

        In the main task this also ends every other task; it raises nothing.
        """
        self._scheduler.cut_power()

    def schedule(self, policy: Policy) -> None:
        """Choose from now on by another rule which task runs; see sim_schedule."""
        self._scheduler.policy = policy

    def jump(self, seconds: float, wall_seconds: float) -> None:
        """Set the clocks without letting anybody run: that of `monotonic` forward, the one on the
        wall by so much, either way.
        """
        self._scheduler.tick()
        self._scheduler.jump(max(0.0, seconds))
        self.wall_start += wall_seconds - max(0.0, seconds)

    # --- files ---

    def create(self, path: str, *, site: str) -> File:
        index = self._begin()
        node = self.disk.new_file(Image())
        self.disk.link(path, node, index, site)
        self._done("create", site, path)
        return SimFile(self, path, node, writable=True)

    def open(self, path: str) -> File:
        self._scheduler.tick()
        return SimFile(self, path, self.disk.find_file(path), writable=False)

    def rename(self, source: str, target: str, *, site: str) -> None:
        index = self._begin()
        self.disk.rename(source, target, index, site)
        self._done("rename", site, source, target)

    def unlink(self, path: str, *, site: str) -> None:
        index = self._begin()
        self.disk.unlink(path, index, site)
        self._done("unlink", site, path)

    def make_dir(self, path: str, *, site: str) -> None:
        index = self._begin()
        self.disk.link(path, self.disk.new_folder(), index, site)
        self._done("make_dir", site, path)

    def list_dir(self, path: str) -> list[str]:
        self._scheduler.tick()
        return sorted(self.disk.find_folder(path).volatile)

    def sync_dir(self, path: str, *, site: str) -> None:
        folder = self.disk.find_folder(path)
        begun = self._begin_sync()
        self.disk.sync(folder, begun)
        self._done("sync_dir", site, path, (begun,))

    def file_size(self, path: str) -> int:
        self._scheduler.tick()
        return self.disk.find_file(path).volatile.size

    def lock_file(self, path: str, *, shared: bool = False) -> FileLock:
        self._scheduler.pause()
        folder, name = self.disk.split(path)
        if name not in folder.volatile and not shared:
            with suppress(FileExistsError):
                self.create(path, site="env.lock_file.create").close()
        node = self.disk.find_file(path)
        held = [lock for lock in self._locks if lock.number == node.number]
        if any(not (shared and lock.is_shared) for lock in held):
            raise DatabaseLockedError(f"{path} is locked by this simulated process")
        lock = SimFileLock(self, path, node.number, is_shared=shared)
        self._locks.append(lock)
        return lock

    # --- clock, randomness, threads ---

    def monotonic(self) -> float:
        self._scheduler.tick()
        return self._scheduler.now / _NANOSECONDS

    def wall_time(self) -> float:
        now = self.wall_start + self.monotonic()
        return now - now % self.wall_tick if self.wall_tick else now

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("the time to sleep must not be negative")
        self._scheduler.pause()
        self._scheduler.pass_time(seconds, "its sleep to end")

    def random_bytes(self, count: int) -> bytes:
        self._scheduler.tick()
        return self._bytes.randbytes(count)

    def mutex(self) -> Mutex:
        return SimMutex(self._scheduler)

    def gate(self) -> Gate:
        return SimGate(self._scheduler)

    def condition(self, mutex: Mutex) -> Condition:
        if not isinstance(mutex, SimMutex):
            raise TypeError("a condition needs a mutex of the same env")
        return SimCondition(self._scheduler, mutex)

    def spawn(self, name: str, function: Callable[[], None]) -> Task:
        self._scheduler.tick()
        task = self._scheduler.spawn(name, function)
        self._scheduler.pause()
        return task

    def thread_id(self) -> int:
        if self._scheduler.off:
            raise SimCrash("the power is off")
        return self._scheduler.running.number

    def thread_life(self) -> ThreadLife:
        return self._scheduler.running.life

    def uninterrupted(self, function: Callable[[], Result]) -> Result:
        """Run `function`: a simulated machine has no signals."""
        return function()

    def on_fork(self, callback: Callable[[], None]) -> None:
        """Do nothing: a simulated process never forks."""

    # --- operations ---

    def _begin(self) -> int:
        """Pass the point before an operation; return its index."""
        self._scheduler.pause()
        if self._op_count == self._crash_before:
            self._crash()
        return self._op_count

    def _begin_sync(self) -> int:
        """Let the time of a sync pass; return how many operations were done when it began."""
        begun = self._begin()
        self._scheduler.pass_time(_SYNC_SECONDS, "its sync to end")
        if self._op_count == self._crash_before:
            self._crash()
        return begun

    def _done(self, kind: str, site: str, path: str, detail: tuple[int, ...] | str = ()) -> None:
        """Log an operation that took effect and pass the point after it."""
        index = self._op_count
        operation = Operation(index, self._scheduler.running.number, kind, site, path, detail)
        self._op_count = index + 1
        self.op_log.append(operation)
        if self.observer is not None:
            self.observer(operation)
        if index == self._crash_after:
            self._crash()

    def _crash(self) -> None:
        self._scheduler.cut_power()
        raise SimCrash(f"the power was cut at operation {self._op_count}")
