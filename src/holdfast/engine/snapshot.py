"""Snapshots: the registry that holds versions back, and the read-only mapping a user sees.

A snapshot is a sequence number. While it is registered (see `_tenure`), flush and compaction keep
every version it can see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from holdfast.base import DatabaseClosedError, DatabaseSettings, Error, TransactionTooOldError, mark
from holdfast.base.bounds import key_range
from holdfast.cursor import UserCursor
from holdfast.engine._core import CLOSED, FORKED, CommitState
from holdfast.engine._tenure import RegistryCore, Tenure
from holdfast.engine.stats import Counters
from holdfast.env import Env, ThreadLife, this_thread
from holdfast.txn import warn_of_leak

if TYPE_CHECKING:
    from holdfast.engine._tenure_py import Holder
    from holdfast.engine.keyspace import Keyspace

Default = TypeVar("Default")

FORKED_TEXT = "this handle belongs to the parent process; open the database again after fork"

LEFT_SECONDS = 1.0
"""So long after it was seen that its last thread has ended another one may take a snapshot over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionInfo:
    """A live transaction or snapshot; see `Database.transactions`."""

    id: int
    """The number of it since the database was opened."""
    isolation: str
    """The level: "serializable" or "snapshot"; "view" for what `db.snapshot()` gave."""
    read_only: bool
    seq: int
    """The sequence number it reads at."""
    age_seconds: float
    thread: int
    """The number of the thread that began it."""
    file: str
    line: int
    """The file and line of the user's code where it began."""
    held_bytes: int
    """Bytes of keys and values that were written since it began. No more than that of old versions
    is kept because of it.
    """


class SnapshotRegistry(RegistryCore):
    """The live snapshots of a database. Thread safety: safe.

    Those that are older than `age_max` seconds, or since which more than `bytes_max` bytes were
    written, are ended when somebody looks; 0 is no limit.
    """

    def __init__(
        self,
        env: Env,
        state: CommitState,
        counters: Counters,
        *,
        age_max: int = 0,
        bytes_max: int = 0,
    ) -> None:
        RegistryCore.__init__(self, env, state, counters)
        self._now = env.monotonic
        self._commit_state = state
        # Of whoever looks: one at a time.
        self._mutex = env.mutex()
        # Of whoever drops rows, as long as that takes.
        self._drop_mutex = env.mutex()
        self.age_max = age_max
        self.bytes_max = bytes_max

    def _sweep(self) -> None:
        """End those who are over a limit, or whom nobody will end. Requires: the mutex."""
        now, written = self._now(), self.written_bytes()
        for tenure in self.tenures():
            holder = tenure.holder()
            if holder is None:
                # A commit keeps the snapshot of a transaction that its thread has left.
                continue
            limit = self.over_limit(now - tenure.began, written - tenure.bytes_before)
            if limit is not None:
                why: Error = TransactionTooOldError(f"the {_what(holder)} was ended: {limit}")
            elif self._is_left(tenure, holder, now):
                why = DatabaseClosedError(
                    f"the {_what(holder)} was ended: the thread that began it has ended, and so "
                    "have all others that have used it"
                )
            else:
                continue
            if holder.let_go(why) and self.drop(tenure.held):
                if limit is not None:
                    mark("engine.snapshot_too_old")
                else:
                    mark("engine.snapshot_of_an_ended_thread")
                    self.leaks.append(
                        f"a {_what(holder)} of {tenure.site} was left by its thread, which ended"
                    )

    def _is_left(self, tenure: Tenure, holder: Holder, now: float) -> bool:
        """Whether the thread that began it has ended, and all others that took it over since."""
        if tenure.life is None or not tenure.life.has_ended:
            return False
        if holder.moved:
            # Whoever uses it now may hand it over, too.
            tenure.left_at = None
            return False
        if tenure.left_at is None:
            tenure.left_at = now
        return now - tenure.left_at >= LEFT_SECONDS

    def over_limit(self, age: float, held_bytes: int) -> str | None:
        """Return which limit is passed, or None."""
        if self.age_max and age > self.age_max:
            return f"it is {age:.0f} seconds old; max_transaction_age is {self.age_max}"
        if self.bytes_max and held_bytes > self.bytes_max:
            return (
                f"{held_bytes} bytes were written since it began; max_held_bytes is "
                f"{self.bytes_max}"
            )
        return None

    @property
    def has_limits(self) -> bool:
        """Whether anybody is ended for age or size."""
        return bool(self.age_max or self.bytes_max)

    def check(self, tenure: Tenure | None) -> None:
        """End the holder of a snapshot if it is over a limit."""
        if tenure is None:
            return
        age = self._now() - tenure.began
        if self.over_limit(age, self.written_bytes() - tenure.bytes_before) is not None:
            with self._mutex:
                self._sweep()

    def look(self) -> None:
        """End who is to be ended. Nobody is warned yet."""
        if self.tenures():
            with self._mutex:
                self._sweep()

    def origin_of(self, held: list[int]) -> str:
        """Return where in the user's code the snapshot in `held` was taken. Takes no mutex."""
        tenure = self.tenure_of(held)
        return "?" if tenure is None else str(tenure.site)

    def warn(self) -> None:
        """Warn of what was left. Called in threads of users only, and by nobody who holds a mutex
        or the leadership: a hook of warnings may write to this database.
        """
        while self.leaks:
            with suppress(IndexError):
                warn_of_leak(self.leaks.popleft())

    def infos(self) -> list[TransactionInfo]:
        """Return who holds what, the oldest first."""
        now, written = self._now(), self.written_bytes()
        found = []
        with self._mutex:
            self._sweep()
            for tenure in self.tenures():
                holder = tenure.holder()
                if holder is not None:
                    isolation, read_only = holder.about()
                    found.append(
                        TransactionInfo(
                            id=tenure.number,
                            isolation=isolation,
                            read_only=read_only,
                            seq=tenure.seq,
                            age_seconds=now - tenure.began,
                            thread=tenure.thread,
                            file=tenure.site.file,
                            line=tenure.site.line,
                            held_bytes=written - tenure.bytes_before,
                        )
                    )
        self.warn()
        return found

    @contextmanager
    def kept_out(self) -> Iterator[bool]:
        """Let nobody take a snapshot meanwhile, and say whether nobody has one: then rows may go
        that each of them would keep, and none sees them first and not afterwards.
        """
        with self._drop_mutex:
            self.is_dropping = True
            try:
                yield not self.live()
            finally:
                self.is_dropping = False

    def _await_drop(self) -> None:
        if self._commit_state.flags & FORKED:
            # A thread of the parent has the mutex for ever.
            raise DatabaseClosedError(FORKED_TEXT)
        mark("engine.snapshot_after_a_drop")
        with self._drop_mutex:
            pass

    def live(self) -> list[int]:
        """Return the distinct live sequence numbers, ascending. Nobody is warned yet: background
        work and whoever holds a mutex ask, and a hook of warnings is code of a user.
        """
        self.look()
        return sorted({tenure.seq for tenure in self.tenures()})


def _what(holder: Holder) -> str:
    return "snapshot" if holder.about()[0] == "view" else "transaction"


def registry_of(
    env: Env, state: CommitState, counters: Counters, settings: DatabaseSettings
) -> SnapshotRegistry:
    """Return the registry of a database."""
    return SnapshotRegistry(
        env,
        state,
        counters,
        age_max=settings.max_transaction_age,
        bytes_max=settings.max_held_bytes,
    )


class SnapshotKeyspace(Mapping[bytes, bytes]):
    """A keyspace frozen at a snapshot: a read-only mapping."""

    def __init__(self, keyspace: Keyspace, snapshot: Snapshot | None) -> None:
        self._keyspace = keyspace
        self._snapshot = snapshot

    def _at(self) -> int:
        if self._snapshot is None:
            raise DatabaseClosedError("the snapshot is closed")
        return self._snapshot.seq

    def _read(self, key: object) -> bytes | None:
        value = self._keyspace.get_at(key, self._at())
        # If it was ended meanwhile, what it saw may not have been kept.
        self._at()
        return value

    @overload
    def get(self, key: object) -> bytes | None: ...
    @overload
    def get(self, key: object, default: Default) -> bytes | Default: ...

    def get(self, key: object, default: object = None) -> object:
        """Return the value of `key` as of the snapshot, or `default`."""
        value = self._read(key)
        return default if value is None else value

    def get_cached(self, key: object, otherwise: Default) -> bytes | Default | None:
        """Return the value of `key` as of the snapshot, None when it is absent, or `otherwise` when
        that takes a page from a file.
        """
        value = self._keyspace.get_cached(key, otherwise, self._at())
        self._at()
        return value

    def __getitem__(self, key: object) -> bytes:
        value = self._read(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._read(key) is not None

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __bool__(self) -> bool:
        """Whether there is a key; asks for the first one only."""
        return next(self.keys(limit=1), None) is not None

    def __len__(self) -> int:
        return sum(1 for _ in self.keys())

    def get_many(self, keys: Iterable[object]) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        return [self._read(key) for key in keys]

    def items(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[tuple[bytes, bytes]]:
        """Iterate over (key, value) in [start, stop); see `Keyspace.items`."""
        return self._cursor(start, stop, prefix, reverse, limit, 0)

    def keys(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[bytes]:
        """Iterate over the keys in [start, stop)."""
        return self._cursor(start, stop, prefix, reverse, limit, 1)

    def values(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[bytes]:
        """Iterate over the values of the keys in [start, stop)."""
        return self._cursor(start, stop, prefix, reverse, limit, 2)

    def _cursor(
        self,
        start: object,
        stop: object,
        prefix: object,
        reverse: bool,
        limit: int | None,
        what: int,
    ) -> UserCursor[Any]:
        lower, upper = key_range(start, stop, prefix)
        rows = self._keyspace.cursor_at(self._at(), lower, upper, reverse, limit, what)
        self._at()
        return rows


class Snapshot(SnapshotKeyspace):
    """The whole database frozen at one moment; the mapping itself is the default keyspace.

    Close it (or use it as a context manager): until then it holds back every version it can see.
    """

    def __init__(
        self,
        registry: SnapshotRegistry,
        keyspace: Keyspace,
        find: Callable[[str], Keyspace],
    ) -> None:
        self._registry = registry
        self._find = find
        # The number stands in the list until it is given back. Both are one step, so of two closes
        # one gives it back: the second might take away another snapshot's equal number.
        self._held: list[int] = []
        self._refusal: Error = DatabaseClosedError("the snapshot is closed")
        self._home = this_thread()
        # The lives of other threads that have used it. One step adds to it.
        self._others: set[ThreadLife] = set()
        super().__init__(keyspace, None)
        try:
            self._tenure = registry.acquire(self._held, self)
        except BaseException:
            # Whoever was interrupted here has nothing to close.
            registry.drop(self._held)
            raise

    def _at(self) -> int:
        return self.seq

    @property
    def seq(self) -> int:
        """The sequence number this snapshot reads at.

        Raises: DatabaseClosedError when it is closed.
        """
        thread = this_thread()
        if thread is not self._home and thread not in self._others:
            self._others.add(thread)
        if self._registry.has_limits:
            self._registry.check(self._tenure)
        for seq in self._held:
            return seq
        raise self._refusal

    @property
    def moved(self) -> bool:
        """Whether another thread than the one that began it has used it, and lives."""
        for life in self._others.copy():
            if life.has_ended:
                self._others.discard(life)
        return bool(self._others)

    def let_go(self, why: Error) -> bool:
        """End; uses raise `why` from now on."""
        self._refusal = why
        return True

    def about(self) -> tuple[str, bool]:
        """Return what it is."""
        return "view", True

    def keyspace(self, name: str) -> SnapshotKeyspace:
        """Return keyspace `name` as of this snapshot. Raises: KeyError when there is none."""
        self._at()
        return SnapshotKeyspace(self._find(name), self)

    def close(self) -> None:
        """Let go of the versions; a second close is harmless."""
        if self._keyspace.state.flags & FORKED:
            # Another thread of the parent may hold the registry's mutex for ever.
            self._held[:] = ()
        else:
            self._registry.release(self._held)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(AttributeError):
            where = self._registry.origin_of(self._held)
            # Unless the registry ended it at the same time.
            if self._registry.drop(self._held) and not self._keyspace.state.flags & CLOSED:
                warn_of_leak(f"a snapshot of {where} was never closed")
