"""Verification: reads every page of a table from the disk and finds every damaged one.

Checked: what a reader checks of each page; that pages of all levels lie between their separators;
that no filter denies a key; that counts, sequence numbers and key range are those of the
properties; that every byte belongs to exactly one page. Damage does not end the walk: what lies
behind an unreadable index page is not reached, everything else is.

Thread safety: a verification belongs to one thread; others may use the reader meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from holdfast.base import (
    DELETE,
    PUT,
    CorruptionError,
    FormatError,
    pack_trailer,
    unpack_trailer,
)
from holdfast.bufferpool import Page
from holdfast.codec import checksum
from holdfast.env import File
from holdfast.sstable._filter import filter_may_contain
from holdfast.sstable._page import decode_entries
from holdfast.sstable.format import (
    DATA_MISPLACED,
    FOOTER_BYTES,
    INDEX_MISPLACED,
    PREFIX_SEED,
    Footer,
    Handle,
    PageType,
    TableInfo,
    decode_index_value,
    decode_root_value,
    key_range,
)
from holdfast.sstable.opening import StoredEntry, read_footer, read_info, read_tombstones

Progress = Callable[[int], None]
"""Called with the stored bytes of each page after it was checked."""

UseFile = Callable[[Callable[[File], Footer]], Footer]
"""Calls a function with the file of a table, which is not closed meanwhile."""

Bound = tuple[bytes, int]
"""(key, trailer) negated so that tuples sort in internal order."""


class VerifiableReader(Protocol):
    """What verification needs of a reader."""

    @property
    def name(self) -> str: ...

    @property
    def footer(self) -> Footer: ...

    @property
    def info(self) -> TableInfo: ...

    @property
    def prefix_bytes(self) -> int: ...

    def read_page(self, handle: Handle, page_type: int) -> Page: ...


def verify_table(
    reader: VerifiableReader, use: UseFile, progress: Progress | None
) -> Iterator[CorruptionError]:
    """Yield an error for every damage found. `use` is that of the reader's source."""
    return _Verification(reader, use, progress).run()


class _Counts:
    """What the entries seen so far amount to."""

    def __init__(self) -> None:
        self.entries = 0
        self.deletes = 0
        self.raw_bytes = 0
        self.seqs: list[int] = []
        self.first: bytes | None = None
        self.last: bytes | None = None

    def add(self, entries: list[StoredEntry]) -> None:
        if self.first is None:
            self.first = entries[0][0]
        self.last = entries[-1][0]
        self.entries += len(entries)
        self.deletes += sum(unpack_trailer(trailer)[1] == DELETE for _, trailer, _ in entries)
        self.raw_bytes += sum(len(key) + len(value) for key, _, value in entries)
        self.add_seqs(entries)

    def add_seqs(self, entries: list[StoredEntry]) -> None:
        seqs = [unpack_trailer(trailer)[0] for _, trailer, _ in entries]
        self.seqs = [min(self.seqs + seqs), max(self.seqs + seqs)]


class _Verification:
    def __init__(self, reader: VerifiableReader, use: UseFile, progress: Progress | None) -> None:
        self._reader = reader
        self._use = use
        self._progress = progress
        self._name = reader.name
        self._limit = reader.footer.file_size - FOOTER_BYTES
        self._counts = _Counts()
        self._sound = True
        self._data_end = 0
        self._others: list[tuple[int, int]] = []

    def run(self) -> Iterator[CorruptionError]:
        footer, info = self._reader.footer, self._reader.info
        try:
            self._use(lambda file: read_footer(file, footer.number, footer.file_id, info))
        except CorruptionError as error:
            yield self._found(error)
        except FormatError as error:
            yield self._damage(self._limit, str(error))
        properties = yield from self._entries(footer.properties, PageType.PROPERTIES)
        if properties is not None:
            yield from self._try(lambda: read_info(properties, footer, self._name, info))
        tombstones: list[StoredEntry] | None = []
        if footer.tombstones is not None:
            tombstones = yield from self._entries(footer.tombstones, PageType.RANGE_TOMBSTONES)
        if tombstones:
            self._counts.add_seqs(tombstones)
            yield from self._try(lambda: read_tombstones(tombstones, footer, self._name, info))
        yield from self._index(footer.root)
        if self._sound and tombstones is not None:
            yield from self._totals(tombstones)
            yield from self._layout()

    def _index(self, root: Handle) -> Iterator[CorruptionError]:
        """Walk all that the root leads to."""
        lower: Bound | None = None
        for key, trailer, value in (yield from self._entries(root, PageType.INDEX_ROOT)) or ():
            try:
                index, filter_handle = decode_root_value(value, self._limit)
            except ValueError as error:
                yield self._damage(root.offset, str(error))
            else:
                filter_page = None
                if filter_handle is not None:
                    filter_page = yield from self._page(filter_handle, PageType.FILTER)
                yield from self._partition(index, filter_page, lower, (key, -trailer))
            lower = key, -trailer

    def _partition(
        self, index: Handle, filter_page: Page | None, lower: Bound | None, upper: Bound
    ) -> Iterator[CorruptionError]:
        """Walk the pages of one partition, whose entries lie behind `lower` and up to `upper`."""
        entries = yield from self._entries(index, PageType.INDEX)
        if entries is None:
            return
        if not _behind(entries, lower) or (entries[-1][0], -entries[-1][1]) != upper:
            yield self._damage(index.offset, INDEX_MISPLACED)
        for key, trailer, value in entries:
            try:
                handle = decode_index_value(value, self._limit)
            except ValueError as error:
                yield self._damage(index.offset, str(error))
            else:
                yield from self._data(handle, filter_page, lower, (key, -trailer))
            lower = key, -trailer

    def _data(
        self, handle: Handle, filter_page: Page | None, lower: Bound | None, upper: Bound
    ) -> Iterator[CorruptionError]:
        """Check one data page."""
        if handle.offset != self._data_end:
            yield self._damage(handle.offset, "a data page does not follow the one before it")
        self._data_end = handle.offset + handle.size
        entries = yield from self._entries(handle, PageType.DATA)
        if entries is None:
            return
        # As it is stored, which is what the separator was made of.
        trailer = pack_trailer(0, PUT) if self._reader.footer.is_ingested else entries[-1][1]
        last = entries[-1][0], -trailer
        shortened = upper[1] == 0 and last[0] < upper[0]
        if not _behind(entries, lower) or not (last == upper or shortened):
            yield self._damage(handle.offset, DATA_MISPLACED)
        if filter_page is not None:
            keys = {key for key, _, _ in entries}
            if not all(filter_may_contain(filter_page, checksum(key)) for key in keys):
                yield self._damage(handle.offset, "the filter denies a key of a data page")
            count = self._reader.prefix_bytes
            prefixes = {key[:count] for key in keys if count and len(key) >= count}
            if not all(filter_may_contain(filter_page, checksum(p, PREFIX_SEED)) for p in prefixes):
                yield self._damage(handle.offset, "the filter denies a prefix of a data page")
        self._counts.add(entries)

    def _totals(self, tombstones: list[StoredEntry]) -> Iterator[CorruptionError]:
        """Compare what was counted with the properties."""
        info, counts = self._reader.info, self._counts
        spans = [(start, stop) for start, _, stop in tombstones]
        if not counts.seqs:
            yield self._damage(0, "the table holds nothing")
            return
        raw_bytes = counts.raw_bytes + sum(len(start) + len(stop) for start, stop in spans)
        found = (
            counts.entries,
            counts.deletes,
            raw_bytes,
            counts.seqs[0],
            counts.seqs[1],
            *key_range(counts.first, counts.last, spans),
        )
        stated = (
            info.entry_count,
            info.delete_count,
            info.raw_bytes,
            info.seq_min,
            info.seq_max,
            info.lower,
            info.upper,
        )
        if found != stated:
            at = self._reader.footer.properties.offset
            yield self._damage(at, "the properties do not describe the entries of the table")

    def _layout(self) -> Iterator[CorruptionError]:
        """Check that the pages cover the file, each byte once."""
        end = self._data_end
        for offset, size in sorted(self._others):
            if offset != end:
                yield self._damage(min(end, offset), "there is a gap or an overlap between pages")
                return
            end = offset + size
        if end != self._limit:
            yield self._damage(end, "there are bytes between the last page and the footer")

    def _entries(
        self, handle: Handle, page_type: PageType
    ) -> Generator[CorruptionError, None, list[StoredEntry] | None]:
        page = yield from self._page(handle, page_type)
        return None if page is None else decode_entries(page, self._name, handle.offset)

    def _page(
        self, handle: Handle, page_type: PageType
    ) -> Generator[CorruptionError, None, Page | None]:
        if page_type != PageType.DATA:
            self._others.append((handle.offset, handle.size))
        page = None
        try:
            page = self._reader.read_page(handle, page_type)
        except CorruptionError as error:
            yield self._found(error)
        if self._progress is not None:
            self._progress(handle.size)
        return page

    def _try(self, function: Callable[[], object]) -> Iterator[CorruptionError]:
        try:
            function()
        except CorruptionError as error:
            yield self._found(error)

    def _damage(self, offset: int, reason: str) -> CorruptionError:
        return self._found(CorruptionError(self._name, offset, reason))

    def _found(self, error: CorruptionError) -> CorruptionError:
        self._sound = False
        return error


def _behind(entries: list[StoredEntry], lower: Bound | None) -> bool:
    return lower is None or lower < (entries[0][0], -entries[0][1])
