"""What a user sees of a cursor: the plain Python twin and specification of `_user_c`.

Of each key the newest version with a sequence number <= snapshot counts. The key is seen when that
version is a PUT and no tombstone with a sequence number <= snapshot that is greater than the
version's lies over it.

Invariants:
 1. Rows come in key order, ascending or descending, each key once, within [lower, upper), at most
    `limit`.
 2. Nothing is read before the first row is asked for.
 3. An exception ends the iteration for good: every later request raises that same exception, so
    that a damaged source never looks like one that ended.
 4. `owner` and the source are held until the end, a failure or `close`, whichever is first.

Thread safety: one thread at a time. A request while another one runs raises RuntimeError and harms
nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from holdfast.base import PUT, SEQ_MAX, DatabaseClosedError
from holdfast.cursor._cursor_py import Cursor
from holdfast.cursor._tombstones_py import RangeTombstones
from holdfast.cursor.entry import Columns

ITEMS = 0
KEYS = 1
VALUES = 2

Row = TypeVar("Row")
"""`tuple[bytes, bytes]` for items, `bytes` for keys and for values."""


class Owner:
    """What a cursor reads from. When it ends before the cursor, `ended` says why."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended: str | None = None


class UserCursor(Generic[Row]):
    """An iterator over (key, value), keys or values, as `what` is 0, 1 or 2.

    `tombstones` is one set or several. After `close` it yields nothing. When `owner` is an `Owner`
    that has ended, a request for rows raises DatabaseClosedError, unless the rows had ended before.

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
        if limit is not None and limit < 0:
            raise ValueError(f"the limit is {limit}; it must not be negative")
        if what not in (ITEMS, KEYS, VALUES):
            raise ValueError(f"what is {what}; it must be 0 (items), 1 (keys) or 2 (values)")
        self._source: Cursor | None = cursor
        self._sets = sets
        self._snapshot = snapshot
        self._lower = lower
        self._upper = upper
        self._reverse = reverse
        self._left = limit
        self._what = what
        self._owner = owner
        self._started = False
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
        if n < 0:
            raise ValueError(f"the count is {n}; it must not be negative")
        return self._take(n)

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
            while len(rows) < n and self._source is not None:
                row = None
                if self._left != 0:
                    row = (
                        self._backward(self._source)
                        if self._reverse
                        else self._forward(self._source)
                    )
                if row is None:
                    self._release()
                    break
                rows.append(row)
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

    def _release(self) -> None:
        self._source = None
        self._sets = []
        self._owner = None

    def _forward(self, source: Cursor) -> Any:
        if self._started:
            source.next()
        elif self._lower is None:
            source.seek_first()
        else:
            source.seek(self._lower, self._snapshot)
        self._started = True
        while source.valid:
            key, seq, kind = source.key, source.seq, source.kind
            if self._upper is not None and key >= self._upper:
                return None
            if key != self._key and seq <= self._snapshot:
                self._key = key
                if self._is_seen(key, seq, kind):
                    return self._row(key, source.value)
            source.next()
        return None

    def _backward(self, source: Cursor) -> Any:
        if self._started:
            pass
        elif self._upper is None:
            source.seek_last()
        else:
            source.seek_before(self._upper)
        self._started = True
        while source.valid:
            key = source.key
            if self._lower is not None and key < self._lower:
                return None
            # The versions of a key come oldest first.
            newest = None
            at = True
            while at and source.key == key:
                if source.seq <= self._snapshot:
                    newest = source.seq, source.kind, source.value
                at = source.prev()
            if newest is not None and self._is_seen(key, newest[0], newest[1]):
                return self._row(key, newest[2])
        return None

    def _is_seen(self, key: bytes, seq: int, kind: int) -> bool:
        if kind > PUT:
            raise ValueError(f"an entry of kind {kind} among point entries")
        return kind == PUT and all(each.cover(key, self._snapshot) <= seq for each in self._sets)

    def _row(self, key: bytes, value: bytes) -> Any:
        if self._what == KEYS:
            return key
        return value if self._what == VALUES else (key, value)


def _column(values: Sequence[bytes] | None) -> tuple[memoryview | None, memoryview | None]:
    """Return values one behind the other, and where each begins and the last one ends."""
    if values is None:
        return None, None
    offsets = array("q", [0])
    for value in values:
        offsets.append(offsets[-1] + len(value))
    return memoryview(b"".join(values)), memoryview(offsets).toreadonly()
