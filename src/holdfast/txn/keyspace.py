"""A keyspace as a transaction sees it: a mutable mapping, read as of the snapshot and under the
transaction's own writes.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from holdfast.base import (
    MERGE,
    PUT,
    SEQ_MAX,
    DatabaseClosedError,
    Error,
    check_key,
    check_value,
    mark,
    successor,
)
from holdfast.base.bounds import key_range
from holdfast.cursor import Cursor, MergeCursor, MergeSource, Overlay, RangeTombstones, UserCursor
from holdfast.memtable import Memtable
from holdfast.txn._check import Check, Dependence
from holdfast.txn._workspace import ENDED, OWN_FIRST, WorkspaceCore, WorkState
from holdfast.txn.conflict import Changes
from holdfast.txn.locks import Span
from holdfast.txn.reads import Range, Scan, joined, range_bytes, widened
from holdfast.wal import WriteBatch

if TYPE_CHECKING:
    from holdfast.txn.transaction import Transaction

Default = TypeVar("Default")

ITEMS, KEYS, VALUES = 0, 1, 2

MERGED_MIN = 16
"""What comes of more own operands of a key is remembered."""

SCANS_MIN = 32
"""Cursors that ended are looked for when there are this many, and then when there are twice as many
as were left.
"""


class View(Changes, MergeSource, Protocol):
    """What a transaction reads a tree through: `lsm.ReadView` has it."""

    def internal_cursor(self, lower: bytes | None = None, upper: bytes | None = None) -> Cursor:
        """Return a cursor over all versions of the keys in [lower, upper), and perhaps others."""
        ...

    def tombstone_sets(self) -> list[RangeTombstones]:
        """Return the sets of range tombstones."""
        ...


class _NotCachedError(Exception):
    """The answer takes a page from a file."""


class Source(Protocol):
    """What a keyspace of a transaction reads from: `engine.Keyspace` is one."""

    @property
    def id(self) -> int:
        """Its number."""
        ...

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def get_at(self, key: bytes, snapshot: int) -> bytes | None:
        """Return the value of `key` as of `snapshot`."""
        ...

    def get_cached(
        self, key: object, otherwise: Default, snapshot: int | None = None
    ) -> bytes | Default | None:
        """Return the same, or `otherwise` when that takes a page from a file."""
        ...

    @property
    def has_merges(self) -> bool:
        """Whether the database is marked as one that may have MERGE entries."""
        ...

    def merge_value(self, function: str, operand: object) -> bytes:
        """Return the value of a MERGE entry that may be written now."""
        ...

    def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        """Return the value of `key` after MERGE entries, newest first, over the value `base`."""
        ...

    def read_point(self) -> tuple[View, int]:
        """Return the present view of the tree, and the newest visible sequence number."""
        ...


class TransactionKeyspace(WorkspaceCore, MutableMapping[bytes, bytes]):
    """A keyspace within a transaction: a mutable mapping of bytes to bytes.

    Reads show the keyspace as it was when the transaction began, with the transaction's own writes.
    An iterator sees the own writes that were made before it. Thread safety: one thread at a time;
    a second one gets RuntimeError.
    """

    def __init__(self, state: WorkState, source: Source, tracks: bool) -> None:
        WorkspaceCore.__init__(self, state, source.id, source.get_at, tracks)
        self.source = source

    source: Source
    ranges: list[Range]
    scans: list[Scan]
    # Most transactions never change it, so it is of the class.
    _scans_max = SCANS_MIN

    # Two handles are equal when they are one.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def owner(self) -> Transaction:
        """Return the transaction."""
        raise NotImplementedError  # unreachable: each keyspace has its own

    def _refuse(self) -> None:
        raise self.owner().refusal()

    def _widen(self) -> None:
        self.owner().widen_reads()

    @property
    def name(self) -> str:
        """The name of the keyspace."""
        return self.source.name

    # -- reading

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __bool__(self) -> bool:
        """Whether there is a key; asks for the first one only."""
        return next(self.keys(limit=1), None) is not None

    def __len__(self) -> int:
        """Count the keys, by reading all of them."""
        return sum(1 for _ in self.keys())

    def get_cached(self, key: bytes, otherwise: Default) -> bytes | Default | None:
        """Return the value of `key`, None when it is absent, or `otherwise` when that takes a page
        from a file.
        """
        read_at = self.read_at

        def read(plain: bytes, snapshot: int) -> Any:
            found = self.source.get_cached(plain, otherwise, snapshot)
            if found is otherwise:
                raise _NotCachedError
            return found

        self.read_at = read
        try:
            return self.get(key)
        except _NotCachedError:
            return otherwise
        finally:
            self.read_at = read_at

    def _merge_own(self, key: bytes) -> bytes | None:
        entries: list[bytes] = []
        newest, is_based, base = self._own_operands(key, entries)
        if not is_based:
            base = self.read_snapshot(key)
        folded = self.source.fold(key, base, entries) if entries else base
        if folded is not None and len(entries) > MERGED_MIN:
            # Numbers of own writes are not given again, so this stays true.
            if self.merged is None:
                self.merged = {}
            self.merged[key] = newest, folded
        return folded

    def _own_operands(self, key: bytes, entries: list[bytes]) -> tuple[int, bool, bytes | None]:
        """Add the own operands of a key, the newest first, down to what is known or none. Return
        the number of the newest own write, and whether own writes say what lies below and what.
        """
        newest = cover = 0
        # Where memtables could not be made one, a write may be in two of them.
        below = SEQ_MAX
        known, value_known = (self.merged or {}).get(key, (0, b""))
        for table in reversed(self.tables):
            cover = max(cover, table.range_tombstones.cover(key, SEQ_MAX))
            found = table.get(key, below)
            while found is not None and found[0] >= cover:
                seq, kind, value = found
                newest, below = newest or seq, seq - 1
                if kind != MERGE:
                    return newest, True, value if kind == PUT else None
                if seq == known:
                    return newest, True, value_known
                entries.append(value)
                found = table.get(key, below)
            if cover:
                return newest, True, None
        return newest, False, None

    def items(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[tuple[bytes, bytes]]:
        """Iterate over (key, value) with `start` <= key < `stop`, in key order or in reverse.

        `prefix` narrows to keys that begin with it, `limit` to that many rows. What counts as read
        is the range up to the last row that was given, or all of it when the rows ended.
        """
        return self._cursor(start, stop, prefix, reverse, limit, ITEMS)

    def keys(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[bytes]:
        """Iterate over the keys with `start` <= key < `stop`; see `items`."""
        return self._cursor(start, stop, prefix, reverse, limit, KEYS)

    def values(  # type: ignore[override]
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> UserCursor[bytes]:
        """Iterate over the values of the keys with `start` <= key < `stop`; see `items`."""
        return self._cursor(start, stop, prefix, reverse, limit, VALUES)

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
        state, tables = self.state, self.tables
        if state.flags & ENDED:
            self._refuse()
        state.enter()
        try:
            if state.guard is not None:
                state.guard()
            view, _ = self.source.read_point()
            if state.flags & ENDED:
                # For its age, just now: what it saw may not have been kept.
                self._refuse()
            cursor = view.internal_cursor(lower, upper)
            if tables:
                cursor = MergeCursor([*(table.cursor() for table in reversed(tables)), cursor])
            sets = [table.range_tombstones for table in tables if table.range_tombstones]
            overlay = Overlay(OWN_FIRST, state.next_own - 1, sets)
            rows: UserCursor[Any] = UserCursor(
                cursor,
                view.tombstone_sets(),
                state.snapshot,
                lower,
                upper,
                reverse,
                limit,
                what,
                view,
                # The gaps of the tree know nothing of own writes, and must not.
                gaps=None,
                overlay=overlay,
                merges=view,
            )
            self.scans.append(Scan(overlay, lower, upper, reverse=reverse))
            if len(self.scans) >= self._scans_max:
                self._settle_scans()
        finally:
            state.leave()
        return rows

    # -- writing

    def _write_or_undo(self, given: WriteBatch) -> None:
        with self.owner().savepoint():
            self._write_all(given)

    def update(self, pairs: Any = (), /, **named: object) -> None:
        """Write all `pairs`, a mapping or pairs; see `put_many`. Keyword arguments are a TypeError:
        keys are bytes.
        """
        for key in named:
            check_key(key)
        self.put_many(pairs)

    def compare_and_set(self, key: object, expected: object, new: object) -> bool:
        """Set `key` to `new` if its value is `expected`, and return whether it was. None stands for
        an absent key. The key counts as read, whatever comes of it.
        """
        wanted = None if expected is None else check_value(expected)
        value = None if new is None else check_value(new)
        plain = check_key(key)
        if self.state.flags:
            self._refuse()
        if self.get(plain) != wanted:
            return False
        if value is None:
            self.delete(plain)
        else:
            self.put(plain, value)
        return True

    def merge(self, key: object, function: str, operand: object) -> None:
        """Apply the merge function named `function` to the value of `key`, which is not read: what
        others write to it is no conflict. See `holdfast.Keyspace.merge`.
        """
        plain = check_key(key)
        if self.state.flags:
            self._refuse()
        self.write_merge(plain, self.source.merge_value(function, operand))

    def add(self, key: object, amount: int = 1) -> None:
        """Add `amount` to the number that `key` has, 0 when it is absent; see `merge`."""
        self.merge(key, "add", amount)

    @property
    def has_merges(self) -> bool:
        """Whether the database is marked as one that may have MERGE entries."""
        return self.source.has_merges

    def insert(self, key: object, value: object) -> bool:
        """Set `key` to `value` if it is absent, and return whether it was."""
        return self.compare_and_set(key, None, check_value(value))

    def delete_range(self, start: object, stop: object) -> None:
        """Remove every key with `start` <= key < `stop`, whatever their number, as one operation.

        `start` None begins at the first key. `stop` None ends after the last one, which is read.
        """
        lower, upper = key_range(start, stop, None)
        lower = b"" if lower is None else lower
        if self.state.flags:
            self._refuse()
        if upper is None:
            # No key may be longer than the longest one, so "behind the last key" need not be a key.
            last = next(self.keys(lower, reverse=True, limit=1), None)
            if last is not None:
                self.delete_span(lower, last)
                self.delete(last)
        elif lower < upper:
            self.delete_span(lower, upper)

    def clear(self) -> None:
        """Remove every key."""
        self.delete_range(None, None)

    # -- locks

    def lock(self, target: object, *, shared: bool = False, timeout: float | None = None) -> None:
        """Wait until no other transaction has a lock on `target`, a key or (start, stop), and lock
        it until this one ends, or is rolled back to a savepoint before.

        `shared` locks exclude only those that are not. Locks exclude transactions that lock, and no
        others. When nothing was read yet, the transaction reads the state after the wait.
        Raises: DeadlockError when it would wait for itself; ConflictError after `timeout` seconds,
        or when what it locks was changed since the transaction read something.
        """
        self.owner().take_lock(self.span(target), shared=shared, timeout=timeout)

    def span(self, target: object) -> Span:
        """Return what a lock on `target` covers."""
        if isinstance(target, tuple):
            start, stop = target
            lower, upper = key_range(start, stop, None)
            return Span(self.id, lower or b"", upper)
        key = check_key(target)
        return Span(self.id, key, successor(key))

    # -- for the transaction

    @property
    def has_scans(self) -> bool:
        """Whether it has cursors."""
        return bool(self.scans)

    def scans_reached(self) -> list[bytes | None]:
        """Return the key of the last row of each cursor."""
        return [scan.overlay.reached for scan in list(self.scans)]

    @property
    def has_read(self) -> bool:
        """Whether anything may have been read."""
        return self.has_asked or bool(self.scans or self.ranges)

    def require_unchanged(self, span: Span) -> None:
        """Return when nothing in `span` changed since the snapshot. Raises: ConflictError."""
        view, _ = self.source.read_point()
        depends = Dependence(self.source, [], [(span.start, span.stop)])
        Check(self.state.snapshot, [depends]).require_unchanged(lambda _: view, None)

    def _settle_scans(self) -> None:
        """Turn cursors that ended into ranges."""
        left, read = [], []
        for scan in self.scans:
            if not scan.overlay.closed:
                left.append(scan)
            elif self.read_keys is not None and (found := scan.read()) is not None:
                read.append(found)
        # In this order: where memory runs out, nothing that was read is forgotten.
        self.ranges += read
        self.scans = left
        self.state.reads_left -= range_bytes(read)
        self._scans_max = max(SCANS_MIN, 2 * len(self.scans))
        if self.state.reads_left < 0:
            self._widen()

    def ranges_read(self) -> list[Range]:
        """Return the ranges that were read, of all cursors so far."""
        open_now = (scan.read() for scan in self.scans)
        return joined([*self.ranges, *(read for read in open_now if read is not None)])

    def halve_reads(self) -> int:
        """Remember about half as much of what was read, which is more than what was read. Return
        the bytes that are left, 0 when it cannot become less.
        """
        if self.read_keys is None:
            return 0
        self.ranges = widened(self.read_keys, self.ranges)
        self.read_keys.clear()
        return range_bytes(self.ranges) if len(self.ranges) > 1 else 0

    def place(self) -> tuple[int, int]:
        """Return where the own writes end."""
        return len(self.tables), self.table_depth

    def forget_writes(self, place: tuple[int, int], own_from: int) -> None:
        """Drop the own writes behind `place`, whose numbers begin with `own_from`."""
        del self.tables[place[0] :]
        self.table_depth = place[1]
        for scan in self.scans:
            if scan.overlay.last >= own_from:
                scan.overlay.refusal = DatabaseClosedError(
                    "this iterator shows writes of a savepoint that was rolled back"
                )

    def merge_writes(self, place: tuple[int, int], depth: int) -> None:
        """Make the own writes behind `place` some of `depth`: a savepoint was released."""
        if len(self.tables) == place[0]:
            return
        if place[1] == depth:
            try:
                while len(self.tables) > place[0]:
                    self._merge_last()
            except MemoryError:
                # They stay apart: what was copied so far is twice there, which reads do not show.
                mark("txn.savepoint_not_merged")
        self.table_depth = depth

    def _merge_last(self) -> None:
        """Make the last two memtables one."""
        older, newer = self.tables[-2:]
        if newer.entry_count > older.entry_count and not older.range_tombstones:
            older, newer = newer, older
        _copy(newer, older)
        self.tables[-2:] = [older]

    def end_scans(self, refusal: Error) -> None:
        """Refuse rows of all cursors from now on."""
        for scan in self.scans:
            scan.overlay.refusal = refusal
        self.scans = []

    def __repr__(self) -> str:
        return f"<holdfast.TransactionKeyspace {self.name!r}>"


def _copy(source: Memtable, target: Memtable) -> None:
    """Put what one memtable has into another; their numbers say what is newer."""
    cursor = source.cursor()
    at = cursor.seek_first()
    while at:
        target.put(cursor.seq, cursor.kind, cursor.key, cursor.value)
        at = cursor.next()
    for start, stop, seq in sorted(source.range_tombstones.tombstones(), key=_number):
        target.delete_range(seq, start, stop)


def _number(tombstone: tuple[bytes, bytes, int]) -> int:
    return tombstone[2]
