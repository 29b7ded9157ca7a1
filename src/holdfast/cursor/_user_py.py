"""What a user sees of a cursor: the plain Python twin and specification of `_user_c`.

Of each key the newest version with a sequence number <= snapshot counts. The key is seen when that
version is a PUT or a MERGE and no tombstone with a sequence number <= snapshot that is greater than
the version's lies over it. The value of a MERGE is that of the visible version below it, with its
operand applied; what a tombstone deleted has no value below it.

Invariants:
 1. Rows come in key order, ascending or descending, each key once, within [lower, upper), at most
    `limit`.
 2. Nothing is read before the first row is asked for.
 3. An exception ends the iteration for good: every later request raises that same exception, so
    that a damaged source never looks like one that ended.
 4. `tally` of an `Owner` counts every row that was given, and every key that was passed over
    because it is deleted, as of the snapshot.
 5. `owner` and the source are held until the end, a failure or `close`, whichever is first.

Thread safety: one thread at a time. A request while another one runs raises RuntimeError and harms
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, Generic, TypeVar

from holdfast.base import DELETE, MERGE, PUT, SEQ_MAX, DatabaseClosedError
from holdfast.cursor._column_py import ColumnBuilder
from holdfast.cursor._cursor_py import Cursor
from holdfast.cursor._gaps_py import GAP_ENTRIES_MIN, Gaps
from holdfast.cursor._tombstones_py import RangeTombstones
from holdfast.cursor.entry import Columns, MergeSource

ITEMS = 0
KEYS = 1
VALUES = 2
GAP_LOOK_ENTRIES = 64
"""A scan without a row looks for a gap once in so many entries."""

Row = TypeVar("Row")
"""`tuple[bytes, bytes]` for items, `bytes` for keys and for values."""


class ScanTally:
    """How many rows cursors gave, and how many deleted keys they passed over on the way.

    Cursors in several threads count without a lock: a figure for people.
    """

    __slots__ = ("deleted", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.deleted = 0


class Owner:
    """What a cursor reads from. When it ends before the cursor, `ended` says why. Cursors add to
    its `tally`, if it has one.
    """

    __slots__ = ("ended", "tally")

    def __init__(self) -> None:
        self.ended: str | None = None
        self.tally: ScanTally | None = None


class Overlay:
    """Private writes that a cursor shows over its snapshot, and how far that cursor came.

    Private are the sequence numbers from `first` to `last`, above all others; `tombstones` are sets
    of private range tombstones. `reached` is the key of the last row that was given, `exhausted`
    whether the rows ended by themselves, and not by a limit, `closed` whether no row can follow.
    With a `refusal`, a request for rows raises that.
    """

    __slots__ = ("closed", "exhausted", "first", "last", "reached", "refusal", "tombstones")

    def __init__(self, first: int, last: int, tombstones: Iterable[RangeTombstones] = ()) -> None:
        for number in (first, last):
            if not 0 <= number <= SEQ_MAX:
                raise ValueError(f"the sequence number {number} does not fit 56 bits")
        self.first = first
        self.last = last
        self.tombstones = tuple(tombstones)
        for each in self.tombstones:
            if not isinstance(each, RangeTombstones):
                raise TypeError(f"tombstones are RangeTombstones, not {type(each).__name__}")
        self.reached: bytes | None = None
        self.exhausted = False
        self.closed = False
        self.refusal: Exception | None = None


class UserCursor(Generic[Row]):
    """An iterator over (key, value), keys or values, as `what` is 0, 1 or 2.

    `tombstones` is one set or several. After `close` it yields nothing. When `owner` is an `Owner`
    that has ended, a request for rows raises DatabaseClosedError, unless the rows had ended before.
    The entries of an overlay are among those of the source. With an overlay there are no gaps: what
    only private writes hide is no gap for others, and private rows may lie in one. `merges` gives
    the values of keys with MERGE entries; without it one that is met is a ValueError.

    Raises: TypeError, ValueError for arguments of the wrong type or range.
    """

    def __init__(
        self,
        cursor: Cursor,
        tombstones: RangeTombstones | Iterable[RangeTombstones] = (),
        snapshot: int = SEQ_MAX,
        lower: bytes | None = None,
        upper: bytes | None = None,
        reverse: bool = False,
        limit: int | None = None,
        what: int = ITEMS,
        owner: object = None,
        gaps: Gaps | None = None,
        overlay: Overlay | None = None,
        merges: MergeSource | None = None,
    ) -> None:
        if not isinstance(cursor, Cursor):
            raise TypeError(f"a source is a Cursor, not {type(cursor).__name__}")
        sets = [tombstones] if isinstance(tombstones, RangeTombstones) else list(tombstones)
        for each in sets:
            if not isinstance(each, RangeTombstones):
                raise TypeError(f"tombstones are RangeTombstones, not {type(each).__name__}")
        if not 0 <= snapshot <= SEQ_MAX:
            raise ValueError(f"the sequence number {snapshot} does not fit 56 bits")
        for bound in (lower, upper):
            if bound is not None and type(bound) is not bytes:
                raise TypeError(f"a bound is bytes or None, not {type(bound).__name__}")
        if limit is not None:
            limit = _integer(limit, "a limit is an int or None")
            if limit < 0:
                raise ValueError(f"the limit is {limit}; it must not be negative")
        if what not in (ITEMS, KEYS, VALUES):
            raise ValueError(f"what is {what}; it must be 0 (items), 1 (keys) or 2 (values)")
        if gaps is not None and not isinstance(gaps, Gaps):
            raise TypeError(f"gaps are Gaps, not {type(gaps).__name__}")
        if overlay is not None and not isinstance(overlay, Overlay):
            raise TypeError(f"an overlay is an Overlay, not {type(overlay).__name__}")
        if overlay is not None and gaps is not None:
            raise ValueError("a cursor with an overlay has no gaps")
        self._source: Cursor | None = cursor
        self._sets = sets
        self._snapshot = snapshot
        self._lower = lower
        self._upper = upper
        self._reverse = reverse
        self._left = limit
        self._what = what
        self._owner = owner
        self._gaps = gaps
        tally = owner.tally if isinstance(owner, Owner) else None
        self._tally = ScanTally() if tally is None else tally
        self._overlay = overlay
        self._merges = merges
        self._started = False
        # Whether the source stands behind the last row, and not at it.
        self._is_behind = False
        self.entries_passed = 0
        """Entries that were looked at and gave no row. An account of the work: the compiled twin
        passes fewer.
        """
        # Of the stretch without a row in which the cursor is: where it began (forward its lower
        # bound, in reverse its upper one), if that is known, and the entries passed in it.
        self._has_stretch = False
        self._stretch: bytes | None = None
        self._passed = 0
        # False once the stretch is known to reach to the end of the range.
        self._has_rest = True
        # Whoever uses the cursor holds this: taking an item off a list cannot be interrupted.
        self._turn = [None]
        self._failure: BaseException | None = None
        self._key: bytes | None = None

    def __iter__(self) -> UserCursor[Row]:
        return self

    def __next__(self) -> Row:
        rows: list[Row] = self._take(1)
        if not rows:
            raise StopIteration
        return rows[0]

    def next_chunk(self, n: int) -> list[Row]:
        """Return the next rows, at most `n`; none at the end. Raises: ValueError when `n` is
        negative.
        """
        count = _integer(n, "a count is an int")
        if count < 0:
            raise ValueError(f"the count is {count}; it must not be negative")
        return self._take(count)

    def next_columns(self, n: int) -> Columns:
        """Return the next rows, at most `n`, as columns; none at the end. Raises: ValueError when
        `n` is negative.
        """
        rows: list[Any] = self.next_chunk(n)
        keys = values = None
        if self._what != VALUES:
            keys = rows if self._what == KEYS else [key for key, _ in rows]
        if self._what != KEYS:
            values = rows if self._what == VALUES else [value for _, value in rows]
        return Columns(len(rows), *_column(keys), *_column(values))

    def close(self) -> None:
        """End the iteration and let go of `owner` and the source. A second close is harmless."""
        self._take_turn()
        self._release()
        self._turn.append(None)

    def _take(self, n: int) -> list[Any]:
        self._take_turn()
        rows: list[Any] = []
        try:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._source is not None and isinstance(self._owner, Owner) and self._owner.ended:
                raise DatabaseClosedError(self._owner.ended)
            if self._source is not None and self._overlay is not None and self._overlay.refusal:
                raise self._overlay.refusal.with_traceback(None)
            while len(rows) < n and self._source is not None:
                row = None
                if self._left != 0:
                    row = (
                        self._backward(self._source)
                        if self._reverse
                        else self._forward(self._source)
                    )
                if row is None:
                    if self._overlay is not None and self._left != 0:
                        self._overlay.exhausted = True
                    self._release()
                    break
                rows.append(row)
                self._tally.rows += 1
                if self._left is not None:
                    self._left -= 1
        except BaseException as error:
            self._failure = error
            self._release()
            raise
        finally:
            self._turn.append(None)
        return rows

    def _take_turn(self) -> None:
        try:
            self._turn.pop()
        except IndexError:
            raise RuntimeError("the cursor is in use") from None

    def __del__(self) -> None:
        overlay = getattr(self, "_overlay", None)
        if overlay is not None:
            overlay.closed = True

    def _release(self) -> None:
        if self._overlay is not None:
            self._overlay.closed = True
        self._source = None
        self._sets = []
        self._owner = None
        self._gaps = None
        self._merges = None

    def _forward(self, source: Cursor) -> Any:
        if self._started:
            if not self._is_behind:
                source.next()
            self._is_behind = False
            self._begin_stretch()
        else:
            self._begin_stretch(self._lower or b"")
            if not self._step_over(source, self._lower or b""):
                if self._lower is None:
                    source.seek_first()
                else:
                    source.seek(self._lower, self._newest)
        self._started = True
        while self._has_rest and source.valid:
            key, seq, kind = source.key, source.seq, source.kind
            if self._upper is not None and key >= self._upper:
                break
            if key != self._key and self._is_visible(seq):
                self._key = key
                if self._is_seen(key, seq, kind):
                    self._end_stretch(key)
                    if kind == MERGE and self._what != KEYS:
                        return self._row(key, self._merge(source, key))
                    return self._row(key, source.value)
                self._tally.deleted += 1
            # Of a key that is not decided a version may be seen yet, unless a gap holds the key.
            after = key + b"\0" if key == self._key else key
            if not (self._pass(after) and self._step_over(source, after)):
                source.next()
        self._end_stretch(self._upper)
        return None

    def _backward(self, source: Cursor) -> Any:
        if self._started:
            self._begin_stretch()
        else:
            self._begin_stretch(self._upper, is_known=True)
            if not self._step_over(source, self._upper):
                if self._upper is None:
                    source.seek_last()
                else:
                    source.seek_before(self._upper)
        self._started = True
        while self._has_rest and source.valid:
            key = source.key
            if self._lower is not None and key < self._lower:
                break
            # The versions of a key come oldest first.
            versions: list[tuple[int, int, bytes]] = []
            at = True
            while at and source.key == key:
                if self._is_visible(source.seq):
                    versions.append((source.seq, source.kind, source.value))
                at = source.prev()
            if versions:
                seq, kind, value = versions[-1]
                if self._is_seen(key, seq, kind):
                    self._end_stretch(key + b"\0")
                    if kind == MERGE and self._what != KEYS:
                        value = self._fold(key, reversed(versions))
                    return self._row(key, value)
                self._tally.deleted += 1
            if self._pass(key):
                self._step_over(source, key)
        self._end_stretch(self._lower or b"")
        return None

    def _begin_stretch(self, bound: bytes | None = None, *, is_known: bool = False) -> None:
        self._has_stretch = is_known or bound is not None
        self._stretch = bound
        self._passed = 0

    def _pass(self, bound: bytes) -> bool:
        """Count an entry that gave no row; what follows in the scan's direction begins at `bound`.
        Return whether it is time to look for a gap.
        """
        self.entries_passed += 1
        self._passed += 1
        if self._passed == GAP_ENTRIES_MIN and not self._has_stretch:
            self._has_stretch, self._stretch = True, bound
        return self._passed % GAP_LOOK_ENTRIES == GAP_ENTRIES_MIN

    def _step_over(self, source: Cursor, bound: bytes | None) -> bool:
        """Move to the other side of the gap that begins at `bound`, if there is one."""
        if self._gaps is None:
            return False
        if self._reverse:
            gap = self._gaps.gap_before(bound, self._snapshot)
            if gap is None:
                return False
            self._has_rest = gap[0] > (self._lower or b"")
            if self._has_rest:
                source.seek_before(gap[0])
            return True
        gap = self._gaps.gap_at(bound or b"", self._snapshot)
        if gap is None:
            return False
        upper = gap[1]
        self._has_rest = upper is not None and (self._upper is None or upper < self._upper)
        if upper is not None and self._has_rest:
            source.seek(upper, self._snapshot)
        return True

    def _end_stretch(self, bound: bytes | None) -> None:
        """Note the stretch without a row that ends at `bound`, when it was long."""
        if self._gaps is None or not self._has_stretch or self._passed < GAP_ENTRIES_MIN:
            return
        lower, upper = (bound, self._stretch) if self._reverse else (self._stretch, bound)
        self._gaps.note_gap(lower or b"", upper, self._snapshot, self._passed)

    def _merge(self, source: Cursor, key: bytes) -> bytes:
        """Return the value of a key whose newest visible version, a MERGE, the source stands at.
        It stands behind the key's versions that were looked at afterwards.
        """
        self._is_behind = True
        versions = []
        at = True
        while at and source.key == key:
            if self._is_visible(source.seq):
                versions.append((source.seq, source.kind, source.value))
            at = source.next()
        return self._fold(key, versions)

    def _fold(self, key: bytes, versions: Iterable[tuple[int, int, bytes]]) -> bytes:
        """Return the value of a key that has these visible versions, the newest first."""
        entries: list[bytes] = []
        cover = self._cover(key)
        last = -1
        for seq, kind, value in versions:
            if seq < cover or kind != MERGE:
                return self._folded(key, value if seq >= cover and kind == PUT else None, entries)
            if seq != last:
                entries.append(value)
            last = seq
        return self._folded(key, None, entries)

    def _folded(self, key: bytes, base: bytes | None, entries: list[bytes]) -> bytes:
        if self._merges is None:  # unreachable: then the key was not seen
            raise ValueError("nothing gives the values of MERGE entries")
        return self._merges.fold(key, base, entries)

    def _is_seen(self, key: bytes, seq: int, kind: int) -> bool:
        if kind not in (DELETE, PUT) and not (kind == MERGE and self._merges is not None):
            raise ValueError(f"an entry of kind {kind} among point entries")
        return kind != DELETE and self._cover(key) <= seq

    def _cover(self, key: bytes) -> int:
        """Return the highest number of a tombstone over a key that the user sees."""
        cover = max((each.cover(key, self._snapshot) for each in self._sets), default=0)
        overlay = self._overlay
        if overlay is not None:
            for each in overlay.tombstones:
                cover = max(cover, each.cover(key, overlay.last))
        return cover

    @property
    def _newest(self) -> int:
        """The highest sequence number that may be visible."""
        overlay = self._overlay
        return self._snapshot if overlay is None else max(self._snapshot, overlay.last)

    def _is_visible(self, seq: int) -> bool:
        overlay = self._overlay
        return seq <= self._snapshot or (
            overlay is not None and overlay.first <= seq <= overlay.last
        )

    def _row(self, key: bytes, value: bytes) -> Any:
        if self._overlay is not None:
            self._overlay.reached = key
        if self._what == KEYS:
            return key
        return value if self._what == VALUES else (key, value)


def _integer(value: Any, what: str) -> int:
    if not hasattr(type(value), "__index__"):
        raise TypeError(f"{what}, not {type(value).__name__}")
    return index(value)


def _column(values: Sequence[bytes] | None) -> tuple[memoryview | None, memoryview | None]:
    """Return values as a column."""
    if values is None:
        return None, None
    column = ColumnBuilder()
    for value in values:
        column.add(value)
    return column.finish()
