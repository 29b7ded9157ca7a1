"""`FaultEnv`: another env, with errors injected by rules and a disk that can be full.

A rule says which calls it is about (kind, site, path), at which of them it strikes, how often, with
which error, and what still happens: nothing, everything, a part of the write, or an effect of the
caller's choosing. Rules are tried in order and the first that strikes decides; each counts the
calls it is about, also those another rule decided.

Kinds are `create open rename unlink make_dir list_dir sync_dir file_size lock_file` and, of files,
`read write allocate truncate sync size`. A rename is matched by its target. Calls without a site
have the site "".

Ready-made rules for syncs that fail as those of real file systems do are in fault_sync.

`fileno` is -1, so that compiled readers go through `read_at` and meet the faults.

Thread safety: as the inner env; counts are exact.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Protocol, TypeVar, runtime_checkable

from holdfast.env.protocol import (
    Buffer,
    Condition,
    Env,
    File,
    FileLock,
    Gate,
    Mutex,
    Task,
    ThreadLife,
    sync_error,
)

Effect = Callable[[Callable[[], object], File | None], None]
"""What a failing call still does: called with the real call and, where there is one, the inner
file.
"""

_Result = TypeVar("_Result")


@runtime_checkable
class _LosesWrites(Protocol):
    def lose_writes(self, *, revert: bool) -> None: ...


def take_effect(call: Callable[[], object], file: File | None) -> None:
    """Do the call after all, so that only its success is hidden."""
    call()


def lose_writes(call: Callable[[], object], file: File | None) -> None:
    """Lose the unsynced writes and let reads still see them: ext4 and XFS after a failed sync."""
    _forget(file, revert=False)


def revert_writes(call: Callable[[], object], file: File | None) -> None:
    """Lose the unsynced writes from the cache as well: Btrfs after a failed sync."""
    _forget(file, revert=True)


def _forget(file: File | None, *, revert: bool) -> None:
    if not isinstance(file, _LosesWrites):
        raise TypeError("only a file of a SimEnv can lose its unsynced writes")
    file.lose_writes(revert=revert)


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultRule:
    """When and how calls fail. All of `kind`, `site` and `path` must match; each is a glob.

    `path` is compared with the whole path and with its last part.
    """

    kind: str = "*"
    site: str = "*"
    path: str = "*"

    nth: int = 1
    """The first matching call that fails, counted from 1."""

    times: int | None = 1
    """How many matching calls fail from the nth on; None is all of them."""

    chance: float = 1.0
    """How likely each of them fails: decided by seed, path and count, so the same under any
    interleaving.
    """

    seed: int = 0

    error: int | None = errno.EIO
    """The errno of the OSError; None claims success though nothing but `effect` was done."""

    partial: int | None = None
    """How many bytes of a write take effect before the error."""

    effect: Effect | None = None
    """What a failing call still does."""

    def matches(self, kind: str, site: str, path: str) -> bool:
        """Return whether the rule is about this call."""
        return (
            fnmatchcase(kind, self.kind)
            and fnmatchcase(site, self.site)
            and (fnmatchcase(path, self.path) or fnmatchcase(path.rpartition("/")[2], self.path))
        )

    def strikes(self, count: int, path: str) -> bool:
        """Return whether the matching call number `count` fails."""
        if count < self.nth or (self.times is not None and count >= self.nth + self.times):
            return False
        if self.chance >= 1.0:
            return True
        text = f"{self.seed}/{path}/{count}".encode()
        draw = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
        return draw < self.chance * 2**64


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that was injected."""

    kind: str
    site: str
    path: str
    error: int | None


class FaultFile:
    """A file of a `FaultEnv`. Implements `File`."""

    __slots__ = ("_env", "_inner")

    def __init__(self, env: FaultEnv, inner: File) -> None:
        self._env = env
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    def read_at(self, offset: int, count: int) -> bytes:
        inner = self._inner
        return self._env._get("read", inner.name, lambda: inner.read_at(offset, count))

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        inner, env = self._inner, self._env
        plain = bytes(data)
        rule = env._strike("write", site, inner.name)
        if rule is None:
            room = env._room(inner, offset + len(plain))
            if room is None:
                inner.write_at(offset, plain, site=site)
                return
            inner.write_at(offset, plain[: max(0, room - offset)], site=site)
            raise env._full("write", site, inner.name)
        if rule.partial is not None:
            inner.write_at(offset, plain[: rule.partial], site=site)
        _fail(rule, inner.name, lambda: inner.write_at(offset, plain, site=site), inner)

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        inner, env = self._inner, self._env

        def allocate() -> None:
            room = env._room(inner, size)
            if room is None:
                inner.allocate(size, written=written, site=site)
                return
            inner.allocate(room, written=written, site=site)
            raise env._full("allocate", site, inner.name)

        env._do("allocate", site, inner.name, allocate, inner)

    def truncate(self, size: int, *, site: str) -> None:
        inner = self._inner
        env = self._env
        env._do("truncate", site, inner.name, lambda: inner.truncate(size, site=site), inner)

    def sync(self, *, site: str) -> None:
        inner = self._inner
        self._env._do("sync", site, inner.name, lambda: inner.sync(site=site), inner)

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        self.write_at(offset, data, site=site)
        try:
            self.sync(site=sync_site)
        except OSError as exc:
            raise sync_error(exc) from exc

    def size(self) -> int:
        inner = self._inner
        return self._env._get("size", inner.name, inner.size)

    def close(self) -> None:
        self._inner.close()

    def fileno(self) -> int:
        return -1


class FaultEnv:
    """An env whose calls fail by rules. Implements `Env`.

    `rules` may be changed at any time with `add` and `clear`. `capacity_bytes`, which may be set at
    any time, is how many bytes the files of one folder may have together: a write or allocation
    beyond it does what fits and raises ENOSPC.
    """

    def __init__(
        self, inner: Env, rules: Iterable[FaultRule] = (), *, capacity_bytes: int | None = None
    ) -> None:
        self.inner = inner
        self.capacity_bytes = capacity_bytes
        self.faults: list[Fault] = []
        self._counts: list[tuple[FaultRule, list[int]]] = []
        self._guard = threading.Lock()
        for rule in rules:
            self.add(rule)

    @property
    def injected(self) -> int:
        """How many errors were injected, full disks included."""
        return len(self.faults)

    def add(self, rule: FaultRule) -> None:
        """Add a rule after the others; it counts from now."""
        with self._guard:
            self._counts.append((rule, [0]))

    def clear(self) -> None:
        """Remove all rules. What was injected stays counted."""
        with self._guard:
            self._counts.clear()

    def create(self, path: str, *, site: str) -> File:
        def create() -> File:
            return FaultFile(self, self.inner.create(path, site=site))

        return self._get("create", path, create, site)

    def open(self, path: str) -> File:
        return self._get("open", path, lambda: FaultFile(self, self.inner.open(path)))

    def rename(self, source: str, target: str, *, site: str) -> None:
        def rename() -> None:
            self.inner.rename(source, target, site=site)

        self._do("rename", site, target, rename)

    def unlink(self, path: str, *, site: str) -> None:
        self._do("unlink", site, path, lambda: self.inner.unlink(path, site=site))

    def make_dir(self, path: str, *, site: str) -> None:
        self._do("make_dir", site, path, lambda: self.inner.make_dir(path, site=site))

    def list_dir(self, path: str) -> list[str]:
        return self._get("list_dir", path, lambda: self.inner.list_dir(path))

    def sync_dir(self, path: str, *, site: str) -> None:
        self._do("sync_dir", site, path, lambda: self.inner.sync_dir(path, site=site))

    def file_size(self, path: str) -> int:
        return self._get("file_size", path, lambda: self.inner.file_size(path))

    def lock_file(self, path: str, *, shared: bool = False) -> FileLock:
        return self._get("lock_file", path, lambda: self.inner.lock_file(path, shared=shared))

    def monotonic(self) -> float:
        return self.inner.monotonic()

    def wall_time(self) -> float:
        return self.inner.wall_time()

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(seconds)

    def random_bytes(self, count: int) -> bytes:
        return self.inner.random_bytes(count)

    def mutex(self) -> Mutex:
        return self.inner.mutex()

    def gate(self) -> Gate:
        return self.inner.gate()

    def condition(self, mutex: Mutex) -> Condition:
        return self.inner.condition(mutex)

    def spawn(self, name: str, function: Callable[[], None]) -> Task:
        return self.inner.spawn(name, function)

    def thread_id(self) -> int:
        return self.inner.thread_id()

    def thread_life(self) -> ThreadLife:
        return self.inner.thread_life()

    def uninterrupted(self, function: Callable[[], _Result]) -> _Result:
        return self.inner.uninterrupted(function)

    def on_fork(self, callback: Callable[[], None]) -> None:
        self.inner.on_fork(callback)

    # --- deciding ---

    def _strike(self, kind: str, site: str, path: str) -> FaultRule | None:
        """Count a call; return the rule that makes it fail."""
        chosen: FaultRule | None = None
        with self._guard:
            for rule, count in self._counts:
                if rule.matches(kind, site, path):
                    count[0] += 1
                    if chosen is None and rule.strikes(count[0], path):
                        chosen = rule
            if chosen is not None:
                self.faults.append(Fault(kind, site, path, chosen.error))
        return chosen

    def _do(
        self, kind: str, site: str, path: str, call: Callable[[], None], file: File | None = None
    ) -> None:
        """Do a call that has no result, or fail it."""
        rule = self._strike(kind, site, path)
        if rule is None:
            call()
        else:
            _fail(rule, path, call, file)

    def _get(self, kind: str, path: str, call: Callable[[], _Result], site: str = "") -> _Result:
        """Do a call that has a result, or fail it.

        Nothing can pass for its success but doing it.
        """
        rule = self._strike(kind, site, path)
        if rule is not None and rule.error is not None:
            _fail(rule, path, call, None)
        return call()

    def _room(self, file: File, end: int) -> int | None:
        """Return the size a file can have when the disk is too full for `end`, else None."""
        size = file.size()
        if self.capacity_bytes is None or end <= size:
            return None
        parent, _, _ = file.name.rpartition("/")
        free = max(0, self.capacity_bytes - self._used_bytes(parent or "/"))
        return size + free if end - size > free else None

    def _used_bytes(self, folder: str) -> int:
        used = 0
        for name in self.inner.list_dir(folder):
            with suppress(OSError):
                used += self.inner.file_size(f"{folder}/{name}")
        return used

    def _full(self, kind: str, site: str, path: str) -> OSError:
        with self._guard:
            self.faults.append(Fault(kind, site, path, errno.ENOSPC))
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _fail(rule: FaultRule, path: str, call: Callable[[], object], file: File | None) -> None:
    """Do what a failing call still does, and raise unless it claims success."""
    if rule.effect is not None:
        rule.effect(call, file)
    if rule.error is not None:
        raise OSError(rule.error, os.strerror(rule.error), path)
