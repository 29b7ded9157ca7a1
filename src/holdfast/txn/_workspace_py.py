"""One keyspace within a transaction: the plain Python twin and specification of `_workspace_c`.

Reads are answered by the transaction's own writes, or else by the keyspace as of the snapshot; the
keys of the latter are remembered when the transaction will be validated. Writes go into a batch,
which is what a commit writes, and into memtables of the transaction's own, which is what its reads
look into.

Own writes have *private* sequence numbers, from OWN_FIRST on, above all that a database gives. Each
savepoint begins memtables of its own, so that a rollback drops them as a whole.

Thread safety: one thread at a time; a second one gets RuntimeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from holdfast.base import DELETE, MERGE, PUT, SEQ_MAX, check_key, check_value, pairs_of
from holdfast.env import ThreadLife, this_thread
from holdfast.memtable import Memtable
from holdfast.wal import WriteBatch

Default = TypeVar("Default")

OWN_FIRST = 1 << 55
"""The first private sequence number. A database that commits a million operations a second gives
this one after a thousand years.
"""

ENDED = 1
"""Flag: nothing can be done any more."""
READ_ONLY = 2
"""Flag: nothing can be written."""

READ_BYTES = 96
"""What remembering a key takes beside its bytes, about."""


class WorkState:
    """What the keyspaces of one transaction share."""

    def __init__(self, snapshot: int, batch: WriteBatch, reads_left: int) -> None:
        self.snapshot = snapshot
        self.batch = batch
        self.reads_left = reads_left
        """Bytes that remembered keys may still take before they must be widened."""
        self.next_own = OWN_FIRST
        """The private sequence number of the next own write."""
        self.depth = 0
        """How many savepoints are open."""
        self.flags = 0
        self.movers: set[ThreadLife] | None = None
        """The lives of other threads than the first one that have used the transaction, if any."""
        self._home = this_thread()
        self.guard: Callable[[], None] | None = None
        """What is called before each read of the snapshot: it may end the transaction."""
        # Whoever uses the transaction holds this: taking an item off a list is one step.
        self._turn = [None]

    def enter(self) -> None:
        """Begin a use of the transaction.

        Raises: RuntimeError when another thread or task is in the middle of one.
        """
        life = this_thread()
        if life is not self._home and (self.movers is None or life not in self.movers):
            # Before the turn is taken: memory may be wanting.
            self._meet(life)
        try:
            self._turn.pop()
        except IndexError:
            raise RuntimeError("the transaction is in use: one thread or task at a time") from None

    def _meet(self, life: ThreadLife) -> None:
        """Note that a thread has used the transaction."""
        made: set[ThreadLife] = set()
        if self.movers is None:
            self.movers = made
        self.movers.add(life)

    def leave(self) -> None:
        """End a use of the transaction."""
        self._turn.append(None)


class WorkspaceCore:
    """Reads and writes of one keyspace within a transaction.

    `read_at` reads a key of the keyspace at a sequence number.
    """

    def __init__(
        self,
        state: WorkState,
        keyspace_id: int,
        read_at: Callable[[bytes, int], bytes | None],
        tracks: bool,
    ) -> None:
        self.state = state
        self.id = keyspace_id
        self.read_at = read_at
        self.read_keys: set[bytes] | None = set() if tracks else None
        """The keys that were read from the snapshot; None when they need not be known."""
        self.has_asked = False
        """Whether a key was read from the snapshot."""
        self.tables: list[Memtable] = []
        """The own writes, oldest first."""
        self.table_depth = -1
        """The number of savepoints around the last of `tables`, -1 when there is none."""
        self.source: Any = None  # of the subclass: `txn.Source`
        """The keyspace."""
        self.ranges: list[tuple[bytes | None, bytes | None]] = []
        """The ranges that were read, of cursors that ended."""
        self.scans: list[Any] = []  # of the subclass: `reads.Scan`
        """Cursors, and what they read so far."""
        self.merged: dict[bytes, tuple[int, bytes]] | None = None
        """Values after long runs of own operands, with the number of the newest one. Most have
        none.
        """

    def forget(self) -> None:
        """Let go of everything that was read and written."""
        self.tables.clear()
        self.merged = None
        self.ranges.clear()
        if self.read_keys is not None:
            self.read_keys.clear()

    def _write_or_undo(self, given: WriteBatch) -> None:
        """Call `_write_all` with a savepoint around it."""
        raise NotImplementedError  # unreachable: each keyspace has its own

    def _refuse(self) -> None:
        """Raise the error that says why this cannot be done."""
        raise NotImplementedError  # unreachable: each transaction has its own

    def _widen(self) -> None:
        """Make what is remembered of reads smaller, by remembering more than was read."""
        raise NotImplementedError  # unreachable: each transaction has its own

    def _merge_own(self, key: bytes) -> bytes | None:
        """Return the value of a key whose newest own write is a MERGE."""
        raise NotImplementedError  # unreachable: each transaction has its own

    def _find(self, key: object) -> bytes | None:
        state = self.state
        plain = check_key(key)
        if state.flags & ENDED:
            self._refuse()
        state.enter()
        try:
            cover = 0
            for table in reversed(self.tables):
                cover = max(cover, table.range_tombstones.cover(plain, SEQ_MAX))
                found = table.get(plain, SEQ_MAX)
                if found is not None:
                    seq, kind, value = found
                    if kind == MERGE and seq >= cover:
                        return self._merge_own(plain)
                    return value if kind == PUT and seq >= cover else None
                if cover:
                    return None
            return self.read_snapshot(plain)
        finally:
            state.leave()

    def read_snapshot(self, key: bytes) -> bytes | None:
        """Return the value of `key` as of the snapshot, and remember that it was read. Requires:
        the turn.
        """
        state = self.state
        if self.read_keys is not None and key not in self.read_keys:
            self._remember(self.read_keys, key)
        self.has_asked = True
        if state.guard is not None:
            state.guard()
        seen = self.read_at(key, state.snapshot)
        if state.flags & ENDED:
            # It was ended meanwhile, and what it saw may not have been kept.
            self._refuse()
        return seen

    def _remember(self, read_keys: set[bytes], key: bytes) -> None:
        state = self.state
        state.reads_left -= len(key) + READ_BYTES
        if state.reads_left < 0:
            self._widen()
        read_keys.add(key)

    @overload
    def get(self, key: object) -> bytes | None: ...
    @overload
    def get(self, key: object, default: Default) -> bytes | Default: ...

    def get(self, key: object, default: object = None) -> object:
        """Return the value of `key`, or `default` when it is absent."""
        value = self._find(key)
        return default if value is None else value

    def __getitem__(self, key: object) -> bytes:
        value = self._find(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None

    def get_many(self, keys: Iterable[object]) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        return [self._find(key) for key in keys]

    def _write(self, kind: int, key: bytes, value: bytes) -> None:
        state = self.state
        if state.flags:
            self._refuse()
        state.enter()
        try:
            # Another thread may have ended it before the turn was taken.
            if state.flags:
                self._refuse()
            if self.table_depth != state.depth:
                self.tables.append(Memtable())
                self.table_depth = state.depth
            batch = state.batch
            mark = batch.mark()
            try:
                if kind == PUT:
                    batch.put(self.id, key, value)
                elif kind == MERGE:
                    batch.merge(self.id, key, value)
                else:
                    batch.delete(self.id, key)
                self.tables[-1].put(state.next_own, kind, key, value)
            except BaseException:
                # What is committed must not be more than what reads saw.
                batch.rollback(mark)
                raise
            state.next_own += 1
        finally:
            state.leave()

    def put(self, key: object, value: object) -> None:
        """Set `key` to `value`."""
        self._write(PUT, check_key(key), check_value(value))

    def put_many(self, pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> None:
        """Write all `pairs`; of equal keys the last wins. Of pairs that are refused none is
        written.
        """
        given = WriteBatch(self.state.batch.bytes_max)
        # What they come from may use the transaction, so that ends first.
        given.put_many(self.id, pairs_of(pairs))
        if self.state.flags:
            self._refuse()
        if given.op_count:
            self._write_or_undo(given)

    def _write_all(self, given: WriteBatch) -> None:
        """Write the puts of this keyspace that `given` has. Requires: a savepoint around it, which
        is rolled back when this raises.
        """
        for _, _, key, value in given.operations():
            self._write(PUT, key, value or b"")

    def __setitem__(self, key: object, value: object) -> None:
        self._write(PUT, check_key(key), check_value(value))

    def write_merge(self, key: object, value: object) -> None:
        """Write a MERGE entry with this value."""
        self._write(MERGE, check_key(key), check_value(value))

    def delete(self, key: object) -> None:
        """Remove `key`; nothing happens when it is absent."""
        self._write(DELETE, check_key(key), b"")

    def __delitem__(self, key: object) -> None:
        plain = check_key(key)
        if self._find(plain) is None:
            raise KeyError(key)
        self._write(DELETE, plain, b"")

    def delete_span(self, start: bytes, stop: bytes) -> None:
        """Remove every key with `start` <= key < `stop`."""
        state = self.state
        if state.flags:
            self._refuse()
        state.enter()
        try:
            # Another thread may have ended it before the turn was taken.
            if state.flags:
                self._refuse()
            if self.table_depth != state.depth:
                self.tables.append(Memtable())
                self.table_depth = state.depth
            mark = state.batch.mark()
            try:
                state.batch.delete_range(self.id, start, stop)
                self.tables[-1].delete_range(state.next_own, start, stop)
            except BaseException:
                state.batch.rollback(mark)
                raise
            state.next_own += 1
        finally:
            state.leave()
