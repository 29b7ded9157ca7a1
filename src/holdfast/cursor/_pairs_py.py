"""Pairs that a user hands in, as a source of entries: the plain Python twin and specification of
`_pairs_c`.

Each pair is a PUT with the sequence number 0. They are read once, from the first to the last, and
one at a time: the next pair is asked for when the cursor moves to it.

Thread safety: as every cursor; whatever the iterable does, it does in the thread of the move.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.base import PUT, check_key, check_value
from holdfast.cursor._cursor_py import Cursor
from holdfast.cursor.entry import Entry, out_of_order


class PairCursor(Cursor):
    """A cursor over (key, value) with strictly ascending keys. It moves forward only.

    Moves raise what the iterable raises; TypeError or ValueError for what is no pair of bytes-like
    objects; LimitError for a key or value that is too long; ValueError for a key that does not
    ascend, and for a move to another place.
    """

    def __init__(self, pairs: Iterable[tuple[object, object]]) -> None:
        super().__init__()
        self._pairs = iter(pairs)
        self._begun = False

    def _first(self) -> Entry | None:
        if self._begun:
            return self._nowhere()
        self._begun = True
        return self._take(None)

    def _next(self) -> Entry | None:
        return self._take(self._current()[0])

    def _take(self, before: bytes | None) -> Entry | None:
        for pair in self._pairs:
            key, value = pair
            plain_key, plain_value = check_key(key), check_value(value)
            if before is not None and plain_key <= before:
                raise out_of_order(before, plain_key)
            return plain_key, 0, PUT, plain_value
        return None

    def _last(self) -> Entry | None:
        return self._nowhere()

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        _ = key, trailer
        return self._nowhere()

    def _seek_before(self, key: bytes) -> Entry | None:
        _ = key
        return self._nowhere()

    def _prev(self) -> Entry | None:
        return self._nowhere()

    def _nowhere(self) -> Entry | None:
        raise ValueError("pairs are read once, from the first to the last")
