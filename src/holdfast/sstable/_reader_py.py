"""Reads tables: the specification of opening a table, looking a key up, and walking one.

Lookup: the root names the partition, its filter may deny the key, its index page names the data
page. All of it goes by internal order, so versions of one key may span pages and partitions.

Invariants:

1. No page is used, or enters the pool, but as its source gave it (`_source_py`). A page of the pool
   is compared with the expected type only: file numbers are never reused.
2. No entry of an index or data page is used before its first and its last entry were found to lie
   between the separators around the page. So walks in both directions and lookups agree, whatever
   the file holds.
3. The index root stays in the pool while the reader is open; filters do as far as pinned pages stay
   within half the capacity.
4. The entries of an ingested table have the number that the manifest gives the table, as their
   pages come from the source. Separators stay as they are stored.
5. An answer is right or an error. A reader stays usable after an error; a cursor does not.

Thread safety: readers are shared freely; a cursor belongs to one thread at a time. A `close` while
others read lets each of them finish the page that it reads; then they get DatabaseClosedError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from holdfast.base import (
    SEQ_MAX,
    CorruptionError,
    DatabaseClosedError,
    pack_trailer,
    unpack_trailer,
)
from holdfast.bufferpool import PAGE_OVERHEAD_BYTES, BufferPool, Page
from holdfast.codec import body_room, checksum
from holdfast.cursor import Cursor
from holdfast.env import File
from holdfast.sstable._filter import filter_may_contain
from holdfast.sstable._page_py import StoredEntry, decode_entries, lower_bound
from holdfast.sstable._source_py import PageSource, require_type
from holdfast.sstable.format import (
    DATA_MISPLACED,
    FOOTER_BYTES,
    INDEX_MISPLACED,
    PREFIX_SEED,
    Handle,
    PageType,
    TableInfo,
    decode_index_value,
    decode_root_value,
)
from holdfast.sstable.opening import (
    ingested_trailer,
    read_footer,
    read_info,
    read_prefix_bytes,
    read_tombstones,
)
from holdfast.sstable.scanning import long_scan_bytes
from holdfast.sstable.verify import verify_table

Entry = tuple[bytes, int, int, bytes]
Otherwise = TypeVar("Otherwise")


class _NotCachedError(Exception):
    """A page is not in the pool, and must not be read from the file."""


class TableReader:
    """One open table. `file` becomes the reader's own once the constructor has returned.

    `info` is what the manifest says about the table; with it every figure is compared.
    Raises: FormatError when the file is no table or is newer; CorruptionError when it is damaged or
    another table.
    """

    def __init__(
        self,
        file: File,
        number: int,
        file_id: bytes,
        pool: BufferPool,
        info: TableInfo | None = None,
    ) -> None:
        self._pool = pool
        self._closed = False
        # Pages read for lookups and scans, and their stored bytes; what does not enter the pool is
        # read for other ends.
        self.pages_read = 0
        self.bytes_read = 0
        self.name = file.name
        self.number = number
        self.footer = footer = read_footer(file, number, file_id, info)
        limit = footer.file_size - FOOTER_BYTES
        self._source = PageSource(file, file_id, limit, ingested_trailer(footer, info))
        root = self.read_page(footer.root, PageType.INDEX_ROOT)
        self._root = decode_entries(root, self.name, footer.root.offset)
        properties = self._read_entries(footer.properties, PageType.PROPERTIES)
        self.info = read_info(properties, footer, self.name, info)
        self.properties = {name: value for name, _, value in properties}
        self.prefix_bytes = read_prefix_bytes(properties, footer, self.name)
        """How long the prefixes are that the filters hold, 0 when they hold none."""
        tombstones = []
        if footer.tombstones is not None:
            tombstones = self._read_entries(footer.tombstones, PageType.RANGE_TOMBSTONES)
        self.range_tombstones = read_tombstones(tombstones, footer, self.name, self.info)
        pool.put(number, footer.root.offset, root, pinned=True)

    def get(self, key: bytes, snapshot: int) -> tuple[int, int, bytes] | None:
        """Return (seq, kind, value) of the newest version of `key` that is not newer than
        `snapshot`, or None.

        Raises: CorruptionError; OSError.
        """
        return self._get(key, snapshot, cached_only=False)

    def get_cached(
        self, key: bytes, snapshot: int, otherwise: Otherwise
    ) -> tuple[int, int, bytes] | Otherwise | None:
        """Like `get`, but return `otherwise` when that takes a page from the file.

        Raises: CorruptionError.
        """
        try:
            return self._get(key, snapshot, cached_only=True)
        except _NotCachedError:
            return otherwise

    def _get(
        self, key: bytes, snapshot: int, *, cached_only: bool
    ) -> tuple[int, int, bytes] | None:
        self._check_open()
        _check_key(key)
        trailer = pack_trailer(_check_seq(snapshot), 0xFF)
        root_at = lower_bound(self._root, key, trailer)
        if root_at == len(self._root) or not self._passes(root_at, checksum(key), cached_only):
            return None
        index = self._index_entries(root_at, True, cached_only)
        index_at = lower_bound(index, key, trailer)
        entries = self._data_entries(root_at, index, index_at, True, cached_only)
        at = lower_bound(entries, key, trailer)
        if at == len(entries) or entries[at][0] != key:
            return None
        return *unpack_trailer(entries[at][1]), entries[at][2]

    def may_contain(self, key: bytes) -> bool:
        """Return False only when the table has no version of `key`. Raises: CorruptionError;
        OSError.
        """
        self._check_open()
        _check_key(key)
        root_at = lower_bound(self._root, key, pack_trailer(SEQ_MAX, 0xFF))
        return root_at < len(self._root) and self._passes(root_at, checksum(key))

    def may_contain_prefix(self, prefix: bytes) -> bool:
        """Return False only when no key of the table begins with `prefix`, of `prefix_bytes` bytes.
        Where the keys that do may reach beyond one partition, nobody is asked.

        Raises: ValueError for a prefix of another length; CorruptionError; OSError.
        """
        self._check_open()
        _check_key(prefix)
        if not self.prefix_bytes or len(prefix) != self.prefix_bytes:
            raise ValueError(f"the prefix does not have {self.prefix_bytes} bytes, or none counts")
        root_at = lower_bound(self._root, prefix, pack_trailer(SEQ_MAX, 0xFF))
        if root_at < len(self._root):
            if self._root[root_at][0].startswith(prefix):
                return True
            if self._passes(root_at, checksum(prefix, PREFIX_SEED)):
                return True
        self._pool.tables_skipped += 1
        return False

    def cursor(
        self, fill_cache: bool = True, ahead_bytes: int = 0, walked_bytes: int = 0
    ) -> TableCursor:
        """Return a cursor over all entries. Without `fill_cache` the pages it reads do not enter
        the pool; with it the data pages of a long scan do not (see `scanning`): one from either end
        has walked over `walked_bytes` of other tables. The compiled twin then reads ahead as well.

        So many `ahead_bytes` of stored pages the compiled twin then may read at once as it goes
        forward, which changes neither results nor errors; after a `close` it may come to the end of
        those. It holds them, and what at most two of them contain, beside the page that every
        cursor holds.
        """
        _ = ahead_bytes
        self._check_open()
        return TableCursor(self, fill_cache, walked_bytes)

    def verify(self, progress: Callable[[int], None] | None = None) -> Iterator[CorruptionError]:
        """Read all pages from the file and yield an error for every damage; see
        `holdfast.sstable.verify`.
        """
        self._check_open()
        return verify_table(self, self._source.use, progress)

    def close(self) -> None:
        """Drop the pages from the pool, and close the file as soon as nobody reads a page from it.
        Harmless the second time.
        """
        if not self._closed:
            self._closed = True
            self._pool.drop_file(self.number)
            self._source.close()

    def read_page(self, handle: Handle, page_type: int) -> Page:
        """Read a page from the file, whatever the pool has. Raises: CorruptionError; OSError."""
        return self._source.read(handle, page_type)

    def _index_entries(
        self, root_at: int, fill_cache: bool, cached_only: bool = False
    ) -> list[StoredEntry]:
        """Return the entries of the index page at an entry of the root. The last one is at the same
        key and trailer as that entry.
        """
        handle = self._root_handles(root_at)[0]
        page, is_new = self._load(handle, PageType.INDEX, cached_only)
        entries = decode_entries(page, self.name, handle.offset)
        last, upper = entries[-1], self._root[root_at]
        if not self._is_behind(entries[0], root_at) or last[:2] != upper[:2]:
            raise CorruptionError(self.name, handle.offset, INDEX_MISPLACED)
        if is_new and fill_cache:
            self._keep(handle, page)
        return entries

    def _data_entries(
        self,
        root_at: int,
        index: list[StoredEntry],
        index_at: int,
        fill_cache: bool,
        cached_only: bool = False,
        is_passed: bool = False,
    ) -> list[StoredEntry]:
        """Return the entries of the data page at an entry of the index page `index`. One that is
        only passed, by a long scan, does not enter the pool.
        """
        handle = self._index_handle(index[index_at][2], self._root_handles(root_at)[0])
        page, is_new = self._load(handle, PageType.DATA, cached_only)
        entries = decode_entries(page, self.name, handle.offset)
        if (
            not self._is_behind(entries[0], root_at)
            or (index_at > 0 and not _order(index[index_at - 1]) < _order(entries[0]))
            or _order(index[index_at]) < _order(entries[-1])
        ):
            raise CorruptionError(self.name, handle.offset, DATA_MISPLACED)
        if is_new and fill_cache:
            if is_passed:
                self._count(handle)
            else:
                self._keep(handle, page)
        return entries

    def _is_behind(self, entry: StoredEntry, root_at: int) -> bool:
        """Return whether `entry` lies behind the separator before that at `root_at`."""
        return root_at == 0 or _order(self._root[root_at - 1]) < _order(entry)

    def _root_handles(self, index: int) -> tuple[Handle, Handle | None]:
        """Return the handles in an entry of the root: of an index page and of its filter."""
        try:
            return decode_root_value(self._root[index][2], self._source.limit)
        except ValueError as error:
            raise CorruptionError(self.name, self.footer.root.offset, str(error)) from None

    def _index_handle(self, value: bytes, index_page: Handle) -> Handle:
        """Return the handle in the value of an entry of an index page."""
        try:
            return decode_index_value(value, self._source.limit)
        except ValueError as error:
            raise CorruptionError(self.name, index_page.offset, str(error)) from None

    def _passes(self, root_at: int, key_hash: int, cached_only: bool = False) -> bool:
        """Return whether the filter at an entry of the root lets a key or prefix pass."""
        handle = self._root_handles(root_at)[1]
        if handle is None:
            return True
        page, is_new = self._load(handle, PageType.FILTER, cached_only)
        if is_new:
            self._keep(handle, page, pinned=self._may_pin(len(page)))
        return filter_may_contain(page, key_hash)

    def _read_entries(self, handle: Handle, page_type: int) -> list[StoredEntry]:
        return decode_entries(self.read_page(handle, page_type), self.name, handle.offset)

    def _load(self, handle: Handle, page_type: int, cached_only: bool = False) -> tuple[Page, bool]:
        """Return a page, and whether it is not in the pool but was read from the file."""
        self._check_open()
        page = self._pool.get(self.number, handle.offset)
        if page is not None:
            require_type(page, page_type, self.name, handle.offset)
            return page, False
        if cached_only:
            raise _NotCachedError
        return self.read_page(handle, page_type), True

    def _keep(self, handle: Handle, page: Page, *, pinned: bool = False) -> None:
        """Count a page that was read, and give it to the pool. After a close under the read nobody
        would take it out of there again.
        """
        self._count(handle)
        if not self._closed:
            self._pool.put(self.number, handle.offset, page, pinned)
            # Another thread may have closed it since it was asked.
            if self._closed:
                self._pool.drop_file(self.number)

    def _count(self, handle: Handle) -> None:
        self.pages_read += 1
        self.bytes_read += handle.size

    def _may_pin(self, size: int) -> bool:
        pool = self._pool
        return pool.pinned_bytes + body_room(size) + PAGE_OVERHEAD_BYTES <= pool.capacity_bytes // 2

    def _check_open(self) -> None:
        if self._closed:
            raise DatabaseClosedError("the table is closed")


class TableCursor(Cursor):
    """A cursor over the entries of a table, through root, index pages and data pages."""

    def __init__(self, reader: TableReader, fill_cache: bool, walked_bytes: int) -> None:
        super().__init__()
        self._reader = reader
        self._fill_cache = fill_cache
        self._walked_before = self.walked_bytes = walked_bytes
        """Of data pages, stored, that were passed in one direction since the scan began."""
        self._is_backward = False
        self._is_long = False
        self._root = reader._root
        self._root_at = 0
        self._index: list[StoredEntry] = []
        self._index_at = 0
        self._data: list[StoredEntry] = []
        self._data_at = 0

    def _first(self) -> Entry | None:
        self._begin_scan(False, self._walked_before)
        return self._open_index(0, 0) if self._root else None

    def _last(self) -> Entry | None:
        self._begin_scan(True, self._walked_before)
        return self._open_index(len(self._root) - 1, -1) if self._root else None

    def _seek(self, key: bytes, trailer: int) -> Entry | None:
        self._begin_scan(False, 0)
        root_at = lower_bound(self._root, key, trailer)
        if root_at == len(self._root):
            return None
        self._load_index(root_at)
        self._load_data(lower_bound(self._index, key, trailer))
        data_at = lower_bound(self._data, key, trailer)
        return self._stand(data_at) if data_at < len(self._data) else self._next_page()

    def _seek_before(self, key: bytes) -> Entry | None:
        if self._seek(key, (1 << 64) - 1) is None:
            return self._last()
        return self._prev()

    def _next(self) -> Entry | None:
        if self._data_at + 1 < len(self._data):
            return self._stand(self._data_at + 1)
        return self._next_page()

    def _begin_scan(self, is_backward: bool, walked_bytes: int) -> None:
        self._is_backward = is_backward
        self.walked_bytes = walked_bytes
        self._is_long = False

    def _walk(self, is_backward: bool) -> None:
        """Prepare for the next page in a direction; a turn begins a new scan. It may have become a
        long one.
        """
        reader = self._reader
        if is_backward != self._is_backward:
            self._begin_scan(is_backward, 0)
        if self.walked_bytes > long_scan_bytes(reader._pool.capacity_bytes):
            self._is_long = reader._source.reads_ahead()

    def _next_page(self) -> Entry | None:
        self._walk(False)
        if self._index_at + 1 < len(self._index):
            return self._open_data(self._index_at + 1, 0)
        if self._root_at + 1 < len(self._root):
            return self._open_index(self._root_at + 1, 0)
        return None

    def _prev(self) -> Entry | None:
        if self._data_at > 0:
            return self._stand(self._data_at - 1)
        self._walk(True)
        if self._index_at > 0:
            return self._open_data(self._index_at - 1, -1)
        if self._root_at > 0:
            return self._open_index(self._root_at - 1, -1)
        return None

    def _open_index(self, root_at: int, side: int) -> Entry | None:
        """Stand at the first (side 0) or last (side -1) entry below an entry of the root."""
        self._load_index(root_at)
        return self._open_data(range(len(self._index))[side], side)

    def _open_data(self, index_at: int, side: int) -> Entry | None:
        self._load_data(index_at)
        return self._stand(range(len(self._data))[side])

    def _load_index(self, root_at: int) -> None:
        self._index = self._reader._index_entries(root_at, self._fill_cache)
        self._root_at = root_at

    def _load_data(self, index_at: int) -> None:
        reader = self._reader
        self._data = reader._data_entries(
            self._root_at, self._index, index_at, self._fill_cache, is_passed=self._is_long
        )
        index_page = reader._root_handles(self._root_at)[0]
        self.walked_bytes += reader._index_handle(self._index[index_at][2], index_page).size
        self._index_at = index_at

    def _stand(self, data_at: int) -> Entry:
        self._data_at = data_at
        key, trailer, value = self._data[data_at]
        return key, *unpack_trailer(trailer), value


def _order(entry: StoredEntry) -> tuple[bytes, int]:
    """Return what sorts in internal order."""
    return entry[0], -entry[1]


def _check_key(key: bytes) -> None:
    if type(key) is not bytes:
        raise TypeError(f"a key is bytes, not {type(key).__name__}")


def _check_seq(seq: int) -> int:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 <= seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} does not fit 56 bits")
    return seq
