"""Salvage: what can still be read of a damaged table, page by page.

A page is believed when its checksum holds, which is seeded with the file's random id and the page's
place; so a page that is found is one of this table, at its place, whatever led to it. Handles that
can be read lead to most pages. Where an index page or the footer is gone, pages are found by
themselves: they follow each other without a gap, so the next one begins where one ends, and its end
is where a trailer stands under which the checksum holds.

Guarantees:
1. Entries come out in internal order, each as it was written; none is made up.
2. Every stretch of data that did not come out is named in `gaps`, with the keys between which the
   entries lay, as far as they are known.
3. The entries of one page are in memory at a time.

That each page tells by itself whether it is whole is what makes this possible; going through a
damaged database table by table and keeping what can be read is the idea of LevelDB's repair.

Thread safety: none; one thread salvages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from holdfast.base import PUT, CorruptionError, FormatError, pack_trailer, unpack_trailer
from holdfast.base.keys import successor
from holdfast.bufferpool import Page
from holdfast.codec import checksum, open_page, page_seed
from holdfast.env import File
from holdfast.sstable._page import decode_entries, stamp_entries
from holdfast.sstable.format import (
    FOOTER_BYTES,
    ORIGIN_PROPERTY,
    Footer,
    Handle,
    PageType,
    TableInfo,
    decode_index_value,
    decode_properties,
    decode_root_value,
)
from holdfast.sstable.opening import StoredEntry
from holdfast.sstable.origin import TableOrigin
from holdfast.sstable.sealed import page_cipher

_NUMBERLESS: Final = pack_trailer(0, PUT)
_TRAILER_BYTES: Final = 16
_TRAILER: Final = re.compile(rb"[\x00-\x02\x10-\x12][\x01-\x06]\x00\x00", re.DOTALL)
"""How the trailer of a page begins: compression, type, zero."""
_WINDOW_BYTES: Final = 1 << 20
_EFFORT: Final = 64
"""Looking for pages in a stretch of a file may take the checksum of so many times its bytes."""
_EFFORT_MIN: Final = 1 << 22
_REACH_BYTES: Final = 1 << 18
"""Behind a damaged page others are looked for that are not longer; most have 16 KiB or less."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of a table whose entries are lost."""

    offset: int
    size: int
    lower: bytes | None
    """Every lost entry has a key from here on; None when that is not known."""
    upper: bytes | None
    """Exclusive; None when that is not known."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A page that was read and verified."""

    offset: int
    size: int
    page_type: int
    first: tuple[bytes, int] = (b"", 0)
    """(key, trailer), of data pages."""
    last: tuple[bytes, int] = (b"", 0)
    count: int = 0
    is_numberless: bool = False
    """Whether all entries are puts without a number, as those of an ingested table are."""

    @property
    def end(self) -> int:
        return self.offset + self.size


class TableSalvage:
    """What is left of the table in `file`, which the manifest describes as `info` when it does.

    `stamp` is the sequence number of all entries of an ingested table that no `info` describes.
    Raises: CorruptionError when nothing says which file it is, so that no page could be verified;
    OSError.
    """

    def __init__(
        self, file: File, number: int, info: TableInfo | None = None, *, stamp: int = 0
    ) -> None:
        self._file = file
        self._cipher = page_cipher(file)
        self.number = number
        self.name = file.name
        size = file.size()
        self._limit = max(size - FOOTER_BYTES, 0)
        self._footer, is_whole = self._read_footer(size)
        if info is None and self._footer is None:
            raise CorruptionError(
                file.name, self._limit, "its footer cannot be read, and nothing else says its id"
            )
        self._file_id = info.file_id if info is not None else self._known_footer().file_id
        self.info = info
        """What is known about the table: from the manifest, else from its own properties; None when
        neither can be read."""
        self.origin: TableOrigin | None = None
        """Where it comes from, as it says itself; None when it does not or that is lost."""
        self.entry_count = 0
        """Entries that can be read."""
        self.tombstones: list[tuple[bytes, bytes, int]] = []
        """Range tombstones (start, stop, sequence number) that can be read."""
        self.lost_tombstones: int | None = 0
        """Range tombstones that cannot be read; None when it is not known whether there are any."""
        self.gaps: list[Gap] = []
        self._pages: list[_Found] = []
        self._others: list[_Found] = []
        self._data_handles: list[Handle] = []
        self._effort = 0
        self._find_all(is_whole)
        is_ingested = self._footer is not None and self._footer.is_ingested
        is_ingested = is_ingested or self._has_no_numbers()
        if info is not None:
            stamp = info.seq_max
        self._stamp = pack_trailer(stamp, PUT) if is_ingested and stamp else 0
        self.is_ingested = is_ingested
        self._judge()

    @property
    def lost_entries(self) -> int | None:
        """How many entries cannot be read; None when that is not known."""
        if self.info is None:
            return None if self.gaps else 0
        return max(self.info.entry_count - self.entry_count, 0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be read."""
        return self.entry_count == 0 and not self.tombstones

    def entries(self) -> Iterator[StoredEntry]:
        """Yield (key, trailer, value) of all entries that can be read, in internal order.

        Raises: CorruptionError, OSError when a page cannot be read that could be before.
        """
        for found in self._pages:
            yield from self._entries(found, self._read(found.offset, found.size))

    # --- finding pages

    def _known_footer(self) -> Footer:
        if self._footer is None:  # unreachable: see the constructor
            raise AssertionError("a table without footer and info is refused")
        return self._footer

    def _read_footer(self, size: int) -> tuple[Footer | None, bool]:
        """Return the footer, and whether it is whole; a damaged one as it stands."""
        try:
            data = self._file.read_at(self._limit, FOOTER_BYTES)
        except OSError:
            return None, False
        try:
            return Footer.decode(data, self.name, size), True
        except (CorruptionError, FormatError):
            return Footer.as_stored(data), False

    def _find_all(self, is_whole: bool) -> None:
        footer = self._footer
        known: dict[int, Handle] = {}
        found: dict[int, _Found] = {}
        if footer is not None and is_whole:
            for handle, kind in self._named(footer):
                known[handle.offset] = handle
                page = self._try(handle, kind)
                if page is not None:
                    found[handle.offset] = page
        at = 0
        ends = sorted((offset, handle.size) for offset, handle in known.items())
        for offset, size in [*ends, (self._limit, 0)]:
            if offset > at:
                for page in self._walk(at, offset):
                    found[page.offset] = page
            at = max(at, offset + size)
        for page in (found[offset] for offset in sorted(found)):
            (self._pages if page.page_type == PageType.DATA else self._others).append(page)
        self._read_others()

    def _named(self, footer: Footer) -> Iterator[tuple[Handle, int]]:
        """Yield the pages that handles lead to, and their types."""
        yield footer.properties, PageType.PROPERTIES
        if footer.tombstones is not None:
            yield footer.tombstones, PageType.RANGE_TOMBSTONES
        yield footer.root, PageType.INDEX_ROOT
        for _, _, value in self._entries_at(footer.root, PageType.INDEX_ROOT):
            try:
                index, filter_page = decode_root_value(value, self._limit)
            except ValueError:
                continue
            yield index, PageType.INDEX
            if filter_page is not None:
                yield filter_page, PageType.FILTER
            for _, _, data in self._entries_at(index, PageType.INDEX):
                try:
                    handle = decode_index_value(data, self._limit)
                except ValueError:
                    continue
                self._data_handles.append(handle)
                yield handle, PageType.DATA

    def _entries_at(self, handle: Handle, kind: int) -> list[StoredEntry]:
        try:
            page = self._read(handle.offset, handle.size)
            if page.page_type != kind:
                return []
            return decode_entries(page, self.name, handle.offset)
        except (CorruptionError, OSError):
            return []

    def _try(self, handle: Handle, kind: int) -> _Found | None:
        try:
            page = self._read(handle.offset, handle.size, handle.checksum)
            if page.page_type != kind:
                return None
            return self._noted(handle.offset, handle.size, page)
        except (CorruptionError, OSError):
            return None

    def _walk(self, start: int, stop: int) -> Iterator[_Found]:
        """Yield the pages between two places, of which `start` is where one begins."""
        ends = self._trailer_ends(start, stop)
        self._effort = max(_EFFORT * (stop - start), _EFFORT_MIN)
        at, first, reach = start, 0, stop - start
        while first < len(ends):
            page = self._page_from(at, ends, first, reach)
            if page is not None:
                yield page
                at, reach = page.end, stop - start
            else:
                # The page that begins here is damaged. It ends at one of these places, and if not
                # at this one, nothing is found from there; that is tried with less effort.
                at, reach = ends[first], _REACH_BYTES
            while first < len(ends) and ends[first] <= at:
                first += 1

    def _page_from(self, at: int, ends: list[int], first: int, reach: int) -> _Found | None:
        """Return the page that begins at a place and ends at one of `ends`."""
        effort = self._effort // 2
        for index in range(first, len(ends)):
            size = ends[index] - at
            effort -= size
            if size > reach or effort < 0:
                break
            page = self._try_between(at, ends[index])
            self._effort -= size
            if page is not None:
                return page
        return None

    def _trailer_ends(self, start: int, stop: int) -> list[int]:
        """Return where pages may end between two places."""
        found = []
        for base in range(start, stop, _WINDOW_BYTES):
            size = min(_WINDOW_BYTES + 3, stop - base)
            try:
                window = self._file.read_at(base, size)
            except OSError:
                continue
            at = 0
            while (match := _TRAILER.search(window, at)) is not None:
                at = match.start() + 1
                end = base + match.start() + _TRAILER_BYTES
                if end <= stop and match.start() < _WINDOW_BYTES:
                    found.append(end)
        return found

    def _try_between(self, start: int, end: int) -> _Found | None:
        size = end - start
        if size < _TRAILER_BYTES:
            return None
        try:
            stored = self._file.read_at(start, size)
            digest = checksum(memoryview(stored)[:-8], page_seed(self._file_id, start))
            if len(stored) != size or int.from_bytes(stored[-8:], "little") != digest:
                return None
            return self._noted(start, size, self._opened(stored, start))
        except (CorruptionError, OSError):
            return None

    def _read(self, offset: int, size: int, expected: int | None = None) -> Page:
        stored = self._file.read_at(offset, size)
        if len(stored) != size or (
            expected is not None and int.from_bytes(stored[-8:], "little") != expected
        ):
            raise CorruptionError(self.name, offset, "the page is not the one that is named")
        return self._opened(stored, offset)

    def _opened(self, stored: bytes, offset: int) -> Page:
        seed = page_seed(self._file_id, offset)
        kind, body = open_page(stored, seed, self.name, offset, self._cipher)
        return Page(body, kind)

    def _noted(self, offset: int, size: int, page: Page) -> _Found:
        if page.page_type != PageType.DATA:
            return _Found(offset, size, page.page_type)
        entries = decode_entries(page, self.name, offset)
        first, last = entries[0][:2], entries[-1][:2]
        is_numberless = all(trailer == _NUMBERLESS for _, trailer, _ in entries)
        return _Found(offset, size, PageType.DATA, first, last, len(entries), is_numberless)

    # --- what was found

    def _read_others(self) -> None:
        for found in self._others:
            if found.page_type not in (PageType.PROPERTIES, PageType.RANGE_TOMBSTONES):
                continue
            page = self._read(found.offset, found.size)
            try:
                entries = decode_entries(page, self.name, found.offset)
            except CorruptionError:
                continue
            if found.page_type == PageType.RANGE_TOMBSTONES:
                self.tombstones = [
                    (start, stop, unpack_trailer(trailer)[0]) for start, trailer, stop in entries
                ]
            else:
                self._read_properties({name: value for name, _, value in entries})

    def _read_properties(self, properties: dict[bytes, bytes]) -> None:
        packed = properties.get(ORIGIN_PROPERTY.encode())
        if packed is not None:
            try:
                self.origin = TableOrigin.decode(packed)
            except ValueError:
                self.origin = None
        if self.info is None and self._footer is not None:
            size = self._limit + FOOTER_BYTES
            footer = replace(self._footer, number=self.number, file_size=size)
            try:
                self.info = decode_properties(footer, properties)
            except ValueError:
                return

    def _has_no_numbers(self) -> bool:
        """Return whether the entries have no number of their own, when no footer says so: only
        those of an ingested table have none.
        """
        return bool(self._pages) and all(found.is_numberless for found in self._pages)

    def _entries(self, found: _Found, page: Page) -> list[StoredEntry]:
        if self._stamp:
            page = stamp_entries(page, self._stamp, self.name, found.offset)
        return decode_entries(page, self.name, found.offset)

    def _judge(self) -> None:
        """Keep the pages that follow each other in order, and name what lies between them."""
        kept: list[_Found] = []
        for found in self._pages:
            if self._stamp and not found.is_numberless:
                continue
            if not kept or _order(kept[-1].last) < _order(found.first):
                kept.append(found)
        self._pages = kept
        self.entry_count = sum(found.count for found in kept)
        info = self.info
        self.lost_tombstones = 0
        if info is not None:
            self.lost_tombstones = max(info.range_tombstone_count - len(self.tombstones), 0)
        elif not self.tombstones:
            self.lost_tombstones = self._hidden_tombstones()
        if info is not None and info.entry_count == self.entry_count:
            return
        end = min((found.offset for found in self._others), default=self._limit)
        end = max([end, *(found.end for found in kept)])
        if self._data_handles:
            end = max(end, *(handle.offset + handle.size for handle in self._data_handles))
        at = 0
        lower = info.lower if info is not None else None
        for found in kept:
            if found.offset > at:
                upper = successor(found.first[0])
                self.gaps.append(Gap(at, found.offset - at, lower, upper))
            at, lower = found.end, found.last[0]
        if end > at:
            self.gaps.append(Gap(at, end - at, lower, info.upper if info is not None else None))

    def _hidden_tombstones(self) -> int | None:
        """Return 0 when there were none, None when that cannot be known."""
        spans = sorted((found.offset, found.end) for found in (*self._pages, *self._others))
        at = 0
        for offset, end in spans:
            if offset != at:
                return None
            at = end
        return 0 if at == self._limit else None


def _order(bound: tuple[bytes, int]) -> tuple[bytes, int]:
    return bound[0], -bound[1]
