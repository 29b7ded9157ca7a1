"""Snapshots: the registry that holds versions back, and the read-only mapping a user sees.

A snapshot is a sequence number. While it is registered, flush and compaction keep every version it
can see.

A signal handler may raise in the main thread behind every call. So a registration changes by a few
assignments without a call between them: it is never in the list without somebody who holds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from holdfast.base import DatabaseClosedError
from holdfast.base.bounds import key_range
from holdfast.cursor import UserCursor
from holdfast.engine._core import FORKED
from holdfast.env import Env

if TYPE_CHECKING:
    from holdfast.engine.keyspace import Keyspace


class SnapshotRegistry:
    """The live snapshots of a database. Thread safety: safe."""

    def __init__(self, env: Env, visible_seq: Callable[[], int]) -> None:
        self._mutex = env.mutex()
        self._visible_seq = visible_seq
        self._live: list[int] = []
        self._dropped: deque[int] = deque()

    def acquire(self, held: list[int]) -> None:
        """Register the newest visible sequence number and put it into `held`, which is empty."""
        # Reading and registering are one step, so that a compaction which lists the snapshots
        # either sees this one or works on nothing newer than it.
        with self._mutex:
            self._drain()
            taken = [self._visible_seq()]
            live = self._live + taken
            self._live = live
            held[:] = taken

    def release(self, held: list[int]) -> None:
        """Unregister the snapshot in `held` and take it out; does nothing when that is done."""
        with self._mutex:
            if held:
                live = self._live.copy()
                live.remove(held[0])
                self._live = live
                held[:] = ()

    def drop(self, seq: int) -> None:
        """Like `release`, from a finalizer: it may run while this thread holds the mutex, so it
        only queues.
        """
        self._dropped.append(seq)

    def _drain(self) -> None:
        while self._dropped:
            live = self._live.copy()
            live.remove(self._dropped[0])
            self._live = live
            del self._dropped[0]

    def live(self) -> list[int]:
        """Return the distinct live sequence numbers, ascending."""
        with self._mutex:
            self._drain()
            return sorted(set(self._live))


class SnapshotKeyspace(Mapping[bytes, bytes]):
    """A keyspace frozen at a snapshot: a read-only mapping."""

    def __init__(self, keyspace: Keyspace, snapshot: Snapshot | None) -> None:
        self._keyspace = keyspace
        self._snapshot = snapshot

    def _at(self) -> int:
        if self._snapshot is None:
            raise DatabaseClosedError("the snapshot is closed")
        return self._snapshot.seq

    def get(self, key: object, default: object = None) -> object:  # type: ignore[override]
        """Return the value of `key` as of the snapshot, or `default`."""
        value = self._keyspace.get_at(key, self._at())
        return default if value is None else value

    def get_cached(self, key: object, otherwise: object) -> object:
        """Return the value of `key` as of the snapshot, None when it is absent, or `otherwise` when
        that takes a page from a file.
        """
        return self._keyspace.get_cached(key, otherwise, self._at())

    def __getitem__(self, key: object) -> bytes:
        value = self._keyspace.get_at(key, self._at())
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._keyspace.get_at(key, self._at()) is not None

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __len__(self) -> int:
        return sum(1 for _ in self.keys())

    def get_many(self, keys: object) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        seq = self._at()
        return [self._keyspace.get_at(key, seq) for key in keys]  # type: ignore[attr-defined]

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
        return self._keyspace.cursor_at(self._at(), lower, upper, reverse, limit, what)


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
        super().__init__(keyspace, None)
        registry.acquire(self._held)

    def _at(self) -> int:
        return self.seq

    @property
    def seq(self) -> int:
        """The sequence number this snapshot reads at.

        Raises: DatabaseClosedError when it is closed.
        """
        for seq in self._held:
            return seq
        raise DatabaseClosedError("the snapshot is closed")

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
        for seq in getattr(self, "_held", ()):
            self._registry.drop(seq)
