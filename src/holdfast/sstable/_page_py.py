"""Entry pages: the specification of how DATA, INDEX, INDEX_ROOT, RANGE_TOMBSTONES and PROPERTIES
pages are read.

A body is its entries, then the restart offsets (u32 each), then their count (u32). An entry is
varint shared, varint unshared, varint value size, u64 trailer, key suffix, value; its key is the
first `shared` bytes of the key before it and the suffix.

A page is checked as a whole before anything in it is used; then no move can fail. What a reader
rejects:

1. A body that is too short for its restart offsets. No entries, except in an INDEX_ROOT.
2. An entry whose lengths are not minimal varints, that reaches beyond the entries, or that shares
   more bytes than the key before it has.
3. Restart offsets other than, in order, starts of entries that share nothing; a first entry that is
   not a restart point.
4. A key longer than KEY_BYTES_MAX; entries that are not strictly ascending in internal order.
5. Kinds other than PUT, DELETE, MERGE in a DATA page, RANGE_DELETE in a RANGE_TOMBSTONES page;
   trailers in a PROPERTIES page.
6. In a DATA page of an ingested table, a trailer other than that of a PUT with the number 0.

Thread safety: pages are shared freely; a cursor belongs to one thread at a time.
"""

from __future__ import annotations

import struct
from bisect import bisect_left

from holdfast.base import (
    DELETE,
    KEY_BYTES_MAX,
    MERGE,
    PUT,
    RANGE_DELETE,
    CorruptionError,
    pack_trailer,
    unpack_trailer,
)
from holdfast.bufferpool import Page
from holdfast.codec import decode_varint
from holdfast.cursor import Cursor
from holdfast.sstable.format import RESTART_BYTES, PageType

StoredEntry = tuple[bytes, int, bytes]
"""(key, trailer, value)."""

_COUNT = struct.Struct("<I")
_TRAILER = struct.Struct("<Q")


def decode_entries(page: Page, file: str, offset: int) -> list[StoredEntry]:
    """Return the entries of a page that was read at `offset` of `file`. Raises: CorruptionError."""
    try:
        return _decode(bytes(page), page.page_type)
    except ValueError as error:
        raise CorruptionError(file, offset, str(error)) from None


def stamp_entries(page: Page, trailer: int, file: str, offset: int) -> Page:
    """Return a DATA page of an ingested table, read at `offset` of `file`, with `trailer` in all of
    its entries. Raises: CorruptionError.
    """
    decode_entries(page, file, offset)
    body = bytearray(page)
    (count,) = _COUNT.unpack_from(body, len(body) - RESTART_BYTES)
    position, end = 0, len(body) - RESTART_BYTES * (count + 1)
    while position < end:
        _, position = _decode_length(body, position)
        unshared, position = _decode_length(body, position)
        value_size, position = _decode_length(body, position)
        (stored,) = _TRAILER.unpack_from(body, position)
        if stored != pack_trailer(0, PUT):
            reason = "an entry of an ingested table is not a put with the number 0"
            raise CorruptionError(file, offset, reason)
        _TRAILER.pack_into(body, position, trailer)
        position += _TRAILER.size + unshared + value_size
    return Page(bytes(body), page.page_type)


class PageCursor(Cursor):
    """A cursor over one entry page, which it keeps alive.

    Raises: CorruptionError(file, offset of the page, reason) when the page is damaged.
    """

    def __init__(self, page: Page, file: str, offset: int) -> None:
        super().__init__()
        if not isinstance(page, Page):
            raise TypeError(f"a page is a Page, not {type(page).__name__}")
        self._entries = decode_entries(page, file, offset)
        self._index = -1

    def _first(self) -> tuple[bytes, int, int, bytes] | None:
        return self._stand(0)

    def _last(self) -> tuple[bytes, int, int, bytes] | None:
        return self._stand(len(self._entries) - 1)

    def _seek(self, key: bytes, trailer: int) -> tuple[bytes, int, int, bytes] | None:
        return self._stand(lower_bound(self._entries, key, trailer))

    def _seek_before(self, key: bytes) -> tuple[bytes, int, int, bytes] | None:
        return self._stand(bisect_left(self._entries, key, key=lambda entry: entry[0]) - 1)

    def _next(self) -> tuple[bytes, int, int, bytes] | None:
        return self._stand(self._index + 1)

    def _prev(self) -> tuple[bytes, int, int, bytes] | None:
        return self._stand(self._index - 1)

    def _stand(self, index: int) -> tuple[bytes, int, int, bytes] | None:
        self._index = index
        if not 0 <= index < len(self._entries):
            return None
        key, trailer, value = self._entries[index]
        return key, *unpack_trailer(trailer), value


def lower_bound(entries: list[StoredEntry], key: bytes, trailer: int) -> int:
    """Return the index of the first entry >= (key, trailer) in internal order."""
    return bisect_left(entries, (key, -trailer), key=lambda entry: (entry[0], -entry[1]))


def _decode(body: bytes, page_type: int) -> list[StoredEntry]:
    if len(body) < RESTART_BYTES:
        raise ValueError("an entry page is shorter than its restart count")
    (count,) = _COUNT.unpack_from(body, len(body) - RESTART_BYTES)
    if count > (len(body) - RESTART_BYTES) // RESTART_BYTES:
        raise ValueError("the restart offsets do not fit the page")
    end = len(body) - RESTART_BYTES * (count + 1)
    if count == 0 and end > 0:
        raise ValueError("a page has entries but no restart offset")
    if count == 0 and page_type != PageType.INDEX_ROOT:
        raise ValueError("the page holds no entries")
    restarts = list(struct.unpack_from(f"<{count}I", body, end))
    restarts.reverse()
    area = body[:end]
    entries: list[StoredEntry] = []
    position = 0
    while position < end:
        at_restart = bool(restarts) and restarts[-1] == position
        if at_restart:
            restarts.pop()
        elif not entries:
            raise ValueError("the first entry is not a restart point")
        entry, position = _decode_entry(
            area, position, entries[-1][0] if entries else b"", at_restart
        )
        key, trailer, _ = entry
        if not _kind_fits(page_type, trailer):
            raise ValueError("an entry has a kind that does not belong into its page")
        if entries and not (entries[-1][0], -entries[-1][1]) < (key, -trailer):
            raise ValueError("the entries are out of order")
        entries.append(entry)
    if restarts:
        raise ValueError("a restart offset is not the start of an entry")
    return entries


def _decode_entry(
    area: bytes, position: int, previous: bytes, at_restart: bool
) -> tuple[StoredEntry, int]:
    """Return the entry at `position` and the position behind it."""
    shared, position = _decode_length(area, position)
    unshared, position = _decode_length(area, position)
    value_size, position = _decode_length(area, position)
    if at_restart and shared > 0:
        raise ValueError("an entry at a restart point shares bytes with the one before it")
    if shared > len(previous):
        raise ValueError("an entry shares more bytes than the key before it has")
    if _TRAILER.size + unshared + value_size > len(area) - position:
        raise ValueError("an entry reaches beyond the entries of its page")
    if shared + unshared > KEY_BYTES_MAX:
        raise ValueError("a key is longer than keys can be")
    (trailer,) = _TRAILER.unpack_from(area, position)
    position += _TRAILER.size
    key = previous[:shared] + area[position : position + unshared]
    position += unshared
    return (key, trailer, area[position : position + value_size]), position + value_size


def _decode_length(area: bytes | bytearray, position: int) -> tuple[int, int]:
    try:
        return decode_varint(area, position)
    except ValueError:
        raise ValueError("a length of an entry is not a minimal varint") from None


def _kind_fits(page_type: int, trailer: int) -> bool:
    kind = unpack_trailer(trailer)[1]
    if page_type == PageType.DATA:
        return kind in (DELETE, PUT, MERGE)
    if page_type == PageType.RANGE_TOMBSTONES:
        return kind == RANGE_DELETE
    return page_type != PageType.PROPERTIES or trailer == 0
