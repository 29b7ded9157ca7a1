"""Ordered cursors over internal entries: the plain Python twin and specification of `_cursor_c`.

A *cursor* walks one ordered source of entries (key, seq, kind, value) in internal order: key
ascending, then trailer (`seq << 8 | kind`) descending, so that the newest version of a key comes
first. No two entries of one source have the same key and trailer.

A source is a subclass of `Cursor` that overrides the six hooks `_first`, `_last`, `_seek`,
`_seek_before`, `_next` and `_prev`; each returns the entry it moved to, or None past either end.
`_next` and `_prev` are only called while the cursor stands at an entry.

Invariants:
 1. A cursor is positioned by a seek. It starts, and may come to stand, at no entry (`valid` is
    false); then the entry's properties and the relative moves raise ValueError, which leaves the
    cursor as it was.
 2. An exception that leaves a hook kills the cursor: every later call and property raises that same
    exception.

Thread safety: none; one thread at a time uses a cursor and its sources.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from holdfast.base import DELETE, MERGE, PUT, RANGE_DELETE, SEQ_MAX, pack_trailer
from holdfast.cursor.entry import Entry


class Cursor:
    """One ordered source of entries. The moves return whether the cursor stands at an entry."""

    def __init__(self) -> None:
        self._entry: Entry | None = None
        self._failure: BaseException | None = None

    def seek_first(self) -> bool:
        """Move to the first entry."""
        return self._move(self._first)

    def seek_last(self) -> bool:
        """Move to the last entry."""
        return self._move(self._last)

    def seek(self, key: bytes, seq: int = SEQ_MAX) -> bool:
        """Move to the newest version of `key` that is not newer than `seq`, or else to the next
        entry after it.

        Raises: TypeError, ValueError for arguments of the wrong type or range.
        """
        _check_bytes(key, "key")
        trailer = pack_trailer(_check_seq(seq), 0xFF)
        return self._move(lambda: self._seek(key, trailer))

    def seek_before(self, key: bytes) -> bool:
        """Move to the last entry whose key is less than `key`. Raises: TypeError."""
        _check_bytes(key, "key")
        return self._move(lambda: self._seek_before(key))

    def next(self) -> bool:
        """Move to the next entry. Raises: ValueError when the cursor stands at no entry."""
        self._current()
        return self._move(self._next)

    def prev(self) -> bool:
        """Move to the previous entry. Raises: ValueError when the cursor stands at no entry."""
        self._current()
        return self._move(self._prev)

    @property
    def valid(self) -> bool:
        """Whether the cursor stands at an entry."""
        self._check_alive()
        return self._entry is not None

    @property
    def key(self) -> bytes:
        """The key of the entry. Raises: ValueError when the cursor stands at none."""
        return self._current()[0]

    @property
    def seq(self) -> int:
        """The sequence number of the entry. Raises: ValueError when the cursor stands at none."""
        return self._current()[1]

    @property
    def kind(self) -> int:
        """The kind of the entry. Raises: ValueError when the cursor stands at none."""
        return self._current()[2]

    @property
    def value(self) -> bytes:
        """The value of the entry. Raises: ValueError when the cursor stands at none."""
        return self._current()[3]

    def _first(self) -> Entry | None:
        raise NotImplementedError  # unreachable: each cursor has its own

    def _last(self) -> Entry | None:
        raise NotImplementedError  # unreachable: each cursor has its own

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        """Move to the first entry >= (key, trailer) in internal order."""
        raise NotImplementedError  # unreachable: each cursor has its own

    def _seek_before(self, key: bytes) -> Entry | None:
        raise NotImplementedError  # unreachable: each cursor has its own

    def _next(self) -> Entry | None:
        raise NotImplementedError  # unreachable: each cursor has its own

    def _prev(self) -> Entry | None:
        raise NotImplementedError  # unreachable: each cursor has its own

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _current(self) -> Entry:
        self._check_alive()
        if self._entry is None:
            raise ValueError("the cursor stands at no entry")
        return self._entry

    def _move(self, hook: Callable[[], Entry | None]) -> bool:
        self._check_alive()
        try:
            self._entry = hook()
        except BaseException as error:
            self._entry = None
            self._failure = error
            raise
        return self._entry is not None


class ListCursor(Cursor):
    """A cursor over a sequence of entries that is in internal order already.

    Raises: TypeError for a field of the wrong type; ValueError for a number out of range or entries
    out of order.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        super().__init__()
        self._entries = [(key, seq, kind, value) for key, seq, kind, value in entries]
        self._index = -1
        for key, seq, kind, value in self._entries:
            _check_bytes(key, "key")
            _check_bytes(value, "value")
            _check_seq(seq)
            if kind not in (DELETE, PUT, RANGE_DELETE, MERGE):
                raise ValueError(f"the kind {kind} is unknown")
        for before, after in itertools.pairwise(self._entries):
            if entry_order(before) >= entry_order(after):
                raise ValueError("the entries are not in internal order")

    def _first(self) -> Entry | None:
        return self._stand(0)

    def _last(self) -> Entry | None:
        return self._stand(len(self._entries) - 1)

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        return self._stand(sum(entry_order(entry) < (key, -trailer) for entry in self._entries))

    def _seek_before(self, key: bytes) -> Entry | None:
        return self._stand(sum(entry[0] < key for entry in self._entries) - 1)

    def _next(self) -> Entry | None:
        return self._stand(self._index + 1)

    def _prev(self) -> Entry | None:
        return self._stand(self._index - 1)

    def _stand(self, index: int) -> Entry | None:
        self._index = index
        return self._entries[index] if 0 <= index < len(self._entries) else None


class MergeCursor(Cursor):
    """The entries of several cursors in internal order, in both directions.

    The cursors become the merge's own: nobody else may move them. While the merge stands at an
    entry of one source, going forward every other source stands at its first entry after that one,
    going backward at its last entry before it; so the next entry is the least (greatest) of those
    where the sources stand. A change of direction seeks all other sources to their places on the
    other side of the current entry.

    An entry with the same key and trailer in two sources does not occur in a sound database; such
    entries are all yielded, in the order of the sources.
    """

    def __init__(self, cursors: Sequence[Cursor]) -> None:
        super().__init__()
        self._sources = list(cursors)
        for source in self._sources:
            if not isinstance(source, Cursor):
                raise TypeError(f"a source is a Cursor, not {type(source).__name__}")
        self._current_index = -1
        self._forward = True

    def _first(self) -> Entry | None:
        for source in self._sources:
            source.seek_first()
        return self._least()

    def _last(self) -> Entry | None:
        for source in self._sources:
            source.seek_last()
        return self._greatest()

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        for source in self._sources:
            _seek_trailer(source, key, trailer)
        return self._least()

    def _seek_before(self, key: bytes) -> Entry | None:
        for source in self._sources:
            source.seek_before(key)
        return self._greatest()

    def _next(self) -> Entry | None:
        current = self._sources[self._current_index]
        if not self._forward:
            order = _order_of(current)
            for index, source in enumerate(self._sources):
                if index != self._current_index:
                    _seek_trailer(source, current.key, pack_trailer(current.seq, current.kind))
                    # An equal entry of an earlier source comes before the current one.
                    if index < self._current_index and source.valid and _order_of(source) == order:
                        source.next()
        current.next()
        return self._least()

    def _prev(self) -> Entry | None:
        current = self._sources[self._current_index]
        if self._forward:
            order = _order_of(current)
            for index, source in enumerate(self._sources):
                if index != self._current_index:
                    if not _seek_trailer(
                        source, current.key, pack_trailer(current.seq, current.kind)
                    ):
                        source.seek_last()
                    elif index > self._current_index or _order_of(source) != order:
                        source.prev()
        current.prev()
        return self._greatest()

    def _least(self) -> Entry | None:
        self._forward = True
        live = [
            (_order_of(source), index) for index, source in enumerate(self._sources) if source.valid
        ]
        return self._stand(min(live)[1] if live else -1)

    def _greatest(self) -> Entry | None:
        self._forward = False
        live = [
            (_order_of(source), index) for index, source in enumerate(self._sources) if source.valid
        ]
        return self._stand(max(live)[1] if live else -1)

    def _stand(self, index: int) -> Entry | None:
        self._current_index = index
        if index < 0:
            return None
        source = self._sources[index]
        return source.key, source.seq, source.kind, source.value


def entry_order(entry: Entry) -> tuple[bytes, int]:
    """Return what entries are sorted by."""
    return entry[0], -pack_trailer(entry[1], entry[2])


def _order_of(cursor: Cursor) -> tuple[bytes, int]:
    return cursor.key, -pack_trailer(cursor.seq, cursor.kind)


def _seek_trailer(cursor: Cursor, key: bytes, trailer: int) -> bool:
    return cursor._move(lambda: cursor._seek(key, trailer))


def _check_bytes(value: object, role: str) -> None:
    if type(value) is not bytes:
        raise TypeError(f"a {role} is bytes, not {type(value).__name__}")


def _check_seq(seq: int) -> int:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 <= seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} does not fit 56 bits")
    return seq
