"""Builds the bytes of a table from entries in internal order: the specification of a table file's
writer.

Bytes collect in an output that the caller takes and writes; nothing here does I/O.
docs/format/table.md draws the result.

Invariants:
 1. Entries are strictly ascending in internal order; a call that raises has added nothing. One that
    fails while pages are sealed is the last: the builder then refuses every call.
 2. A data page's body has at most `page_bytes` bytes, or holds one entry.
 3. Pages are sealed in batches of SEAL_BATCH_BYTES, so that the compiled twin gives up the GIL once
    for a batch and not for each page. Index and filters take up a page when it is sealed.
 4. A filter holds the keys, and with `prefix_bytes` the prefixes, of exactly the pages that its
    index partition points to.

Thread safety: a builder belongs to one thread.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from holdfast.base import (
    DELETE,
    KEY_BYTES_MAX,
    MERGE,
    PAGE_BYTES_MAX,
    PUT,
    RANGE_DELETE,
    SEQ_MAX,
    VALUE_BYTES_MAX,
    LimitError,
    pack_trailer,
)
from holdfast.codec import Compression, PageCipher, checksum, encode_varint, page_seed, seal_page
from holdfast.sstable._filter import FilterBuilder
from holdfast.sstable.format import (
    FILE_ID_BYTES,
    FOOTER_BYTES,
    INDEX_BYTES,
    NO_PAGE,
    PREFIX_SEED,
    RESTART_BYTES,
    Footer,
    Handle,
    PageType,
    TableInfo,
    common_prefix,
    encode_properties,
    key_range,
    separator,
)

SEAL_BATCH_BYTES = 512 * 1024
"""Closed data pages are compressed and sealed once their bodies have this many bytes together."""

_TRAILER = struct.Struct("<Q")
_ENTRY_BYTES_MAX = 32
"""More than an entry needs besides its key and value, its restart included."""


class _EntryPage:
    """The body of an entry page under construction."""

    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._entries = bytearray()
        self._restarts: list[int] = []
        self._last = b""
        self.count = 0

    @property
    def size(self) -> int:
        """Bytes of the body if it were closed now; 0 when it is empty."""
        return len(self._entries) + RESTART_BYTES * (len(self._restarts) + 1) if self.count else 0

    def size_with(self, key: bytes, value: bytes) -> int:
        """Return the size of the body if this entry were appended."""
        restarts = len(self._restarts) + self._at_restart + 1
        return (
            len(self._entries)
            + len(self._entry(key, 0, b"", len(value)))
            + len(value)
            + RESTART_BYTES * restarts
        )

    def append(self, key: bytes, trailer: int, value: bytes) -> None:
        """Append an entry. Requires: internal order."""
        entry = self._entry(key, trailer, value, len(value))
        if self._at_restart:
            self._restarts.append(len(self._entries))
        self._entries += entry
        self._last = key
        self.count += 1

    def close(self) -> bytes:
        """Return the body, and begin an empty page."""
        offsets = [*self._restarts, len(self._restarts)]
        body = bytes(self._entries) + struct.pack(f"<{len(offsets)}I", *offsets)
        self._entries.clear()
        self._restarts.clear()
        self._last = b""
        self.count = 0
        return body

    @property
    def _at_restart(self) -> bool:
        return self.count % self._interval == 0

    def _entry(self, key: bytes, trailer: int, value: bytes, value_size: int) -> bytes:
        shared = 0 if self._at_restart else common_prefix(self._last, key)
        lengths = (
            encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(value_size)
        )
        return lengths + _TRAILER.pack(trailer) + key[shared:] + value


@dataclass(frozen=True, slots=True)
class _ClosedPage:
    """A data page that waits to be sealed: its body, its separator, and the hashes of its keys."""

    body: bytes
    key: bytes
    trailer: int
    hashes: list[int]


@dataclass(frozen=True, slots=True)
class _Partition:
    """A closed index partition that waits for the end of the data: its separator and the bodies of
    its two pages.
    """

    key: bytes
    trailer: int
    index: bytes
    filter: bytes | None


class TableBuilder:
    """Makes a table out of entries in internal order.

    One that `is_ingested` has puts with the number 0 only; the manifest will say what their number
    is. With a `cipher` the pages are sealed. `origin` is an encoded `TableOrigin`, or empty.
    Raises: LimitError when a setting is out of range.
    """

    def __init__(
        self,
        file_id: bytes,
        *,
        page_bytes: int,
        restart_interval: int,
        filter_bits_per_key: int,
        compression: Compression,
        prefix_bytes: int = 0,
        is_ingested: bool = False,
        cipher: PageCipher | None = None,
        origin: bytes = b"",
    ) -> None:
        if not 0 <= prefix_bytes <= KEY_BYTES_MAX:
            raise LimitError(
                f"prefix_bytes is {prefix_bytes}; it must lie between 0 and {KEY_BYTES_MAX}"
            )
        if len(file_id) != FILE_ID_BYTES:
            raise ValueError(f"a file id has {FILE_ID_BYTES} bytes, not {len(file_id)}")
        if not 1 <= page_bytes <= PAGE_BYTES_MAX // 4:
            raise LimitError(
                f"page_bytes is {page_bytes}; it must lie between 1 and {PAGE_BYTES_MAX // 4}"
            )
        if not 1 <= restart_interval <= PAGE_BYTES_MAX:
            raise LimitError(
                f"restart_interval is {restart_interval}; "
                f"it must lie between 1 and {PAGE_BYTES_MAX}"
            )
        self._file_id = bytes(file_id)
        self._page_bytes = page_bytes
        self._compression = Compression(compression)
        self._is_ingested = is_ingested
        self._cipher = cipher
        self._origin = bytes(origin)
        self._filter = FilterBuilder(filter_bits_per_key) if filter_bits_per_key else None
        self._prefix_bytes = prefix_bytes if filter_bits_per_key else 0
        self._data = _EntryPage(restart_interval)
        self._index = _EntryPage(1)
        self._hashes: list[int] = []
        self._closed: list[_ClosedPage] = []
        self._closed_bytes = 0
        self._partitions: list[_Partition] = []
        self._partition_bytes = 0
        self._partition_end = (b"", 0)
        self._tombstones: dict[tuple[bytes, int], bytes] = {}
        self._tombstone_bytes = 0
        self._tombstone_page: Handle | None = None
        self._output = bytearray()
        self._sealed_bytes = 0
        self._first: bytes | None = None
        self._last: bytes | None = None
        self._last_trailer = 0
        self._entry_count = 0
        self._delete_count = 0
        self._raw_bytes = 0
        self._seq_min = SEQ_MAX
        self._seq_max = 0
        self._finished = False
        self._is_sealing = False

    @property
    def output_size(self) -> int:
        """Sealed bytes that wait for `take_output`."""
        return len(self._output)

    @property
    def file_bytes(self) -> int:
        """Estimate of the file so far: what is sealed, and bodies of pages that are not yet. Exact
        after `finish`.
        """
        return self._sealed_bytes + self._closed_bytes + self._data.size + self._partition_bytes

    @property
    def entry_count(self) -> int:
        """Entries added, range tombstones not counted."""
        return self._entry_count

    def add(self, key: bytes, seq: int, kind: int, value: bytes) -> None:
        """Append one entry, a PUT, a DELETE or a MERGE.

        Raises: ValueError when it is not behind the last one in internal order, has another kind,
        or the table is finished; LimitError when key, value or sequence number is out of range.
        """
        self._check_open()
        if kind not in (PUT, DELETE, MERGE):
            raise ValueError(f"a table has no entries of kind {kind}")
        _check_size(key, KEY_BYTES_MAX, "key")
        _check_size(value, VALUE_BYTES_MAX, "value")
        _check_seq(seq)
        trailer = pack_trailer(seq, kind)
        if self._last is not None and not (self._last, -self._last_trailer) < (key, -trailer):
            raise ValueError("entries must be added in internal order, each once")
        if self._data.count and self._data.size_with(key, value) > self._page_bytes:
            self._close_page(key)
        if self._filter is not None and (self._data.count == 0 or key != self._last):
            self._hashes.append(checksum(key))
            self._add_prefix(key)
        self._data.append(key, trailer, value)
        if self._first is None:
            self._first = key
        self._last, self._last_trailer = key, trailer
        self._entry_count += 1
        self._delete_count += kind == DELETE
        self._count(seq, len(key) + len(value))

    def _add_prefix(self, key: bytes) -> None:
        """Hash the prefix of a key, once for each data page."""
        count = self._prefix_bytes
        if count == 0 or len(key) < count:
            return
        prefix = key[:count]
        if self._data.count == 0 or self._last is None or self._last[:count] != prefix:
            self._hashes.append(checksum(prefix, PREFIX_SEED))

    def add_range_tombstone(self, start: bytes, stop: bytes, seq: int) -> None:
        """Add a range tombstone over [start, stop), in any order. Of two with equal start and
        number the longer counts.

        Raises: ValueError when the range is empty or the table is finished; LimitError when
        something is out of range.
        """
        self._check_open()
        _check_size(start, KEY_BYTES_MAX, "key")
        _check_size(stop, KEY_BYTES_MAX, "key")
        _check_seq(seq)
        if seq == 0:
            raise LimitError("the sequence number 0 is before everything: it deletes nothing")
        if start >= stop:
            raise ValueError("a range tombstone must start before it stops")
        added = len(start) + len(stop) + _ENTRY_BYTES_MAX
        if added > PAGE_BYTES_MAX - self._tombstone_bytes:
            raise LimitError("the range tombstones of one table do not fit one page")
        self._tombstone_bytes += added
        self._tombstones[start, seq] = max(stop, self._tombstones.get((start, seq), stop))
        self._count(seq, 0)

    def take_output(self) -> memoryview:
        """Return the sealed bytes that were not taken yet, read-only; all pieces in order are the
        file.
        """
        if self._is_sealing:
            self._check_open()
        output, self._output = self._output, bytearray()
        return memoryview(output).toreadonly()

    def finish(self, number: int, created_us: int) -> TableInfo:
        """Seal what is open, write index, properties and footer, and return what the table is.

        Raises: ValueError when there are neither entries nor range tombstones, when an ingested
        table has other entries than it may, or when the table is finished.
        """
        self._check_open()
        if self._entry_count == 0 and not self._tombstones:
            raise ValueError("a table needs at least one entry or range tombstone")
        if self._is_ingested and (self._seq_max or self._delete_count or self._tombstones):
            raise ValueError("an ingested table has puts with the number 0 only")
        if self._entry_count:
            self._close_page(None)
            self._seal_closed()
            self._close_partition()
        self._is_sealing = True
        root = self._seal_index()
        spans = [(start, stop) for (start, _), stop in self._tombstones.items()]
        lower, upper = key_range(self._first, self._last, spans)
        info = TableInfo(
            number=number,
            file_id=self._file_id,
            size_bytes=0,
            lower=lower,
            upper=upper,
            seq_min=self._seq_min,
            seq_max=self._seq_max,
            entry_count=self._entry_count,
            delete_count=self._delete_count,
            range_tombstone_count=len(spans),
            raw_bytes=self._raw_bytes + sum(len(a) + len(b) for a, b in spans),
            root_checksum=root.checksum,
            created_us=created_us,
        )
        info = self._finish_file(info, root)
        self._finished, self._is_sealing = True, False
        return info

    def _check_open(self) -> None:
        if self._finished:
            raise ValueError("the table is finished")
        if self._is_sealing:
            raise ValueError("the builder failed before, or another thread uses it")

    def _count(self, seq: int, raw_bytes: int) -> None:
        self._seq_min = min(self._seq_min, seq)
        self._seq_max = max(self._seq_max, seq)
        self._raw_bytes += raw_bytes

    def _close_page(self, following: bytes | None) -> None:
        """Close the open data page, before an entry with the key `following`."""
        assert self._last is not None
        key, trailer = separator(self._last, self._last_trailer, following)
        page = _ClosedPage(self._data.close(), key, trailer, self._hashes)
        self._hashes = []
        self._closed.append(page)
        self._closed_bytes += len(page.body)
        if self._closed_bytes >= SEAL_BATCH_BYTES:
            self._seal_closed()

    def _seal_closed(self) -> None:
        self._is_sealing = True
        for page in self._closed:
            handle = self._seal(page.body, PageType.DATA, self._compression)
            self._index.append(page.key, page.trailer, handle.encode())
            if self._filter is not None:
                for value in page.hashes:
                    self._filter.add_hash(value)
            self._partition_end = page.key, page.trailer
            if self._index.size >= INDEX_BYTES:
                self._close_partition()
        self._closed.clear()
        self._closed_bytes = 0
        self._is_sealing = False

    def _close_partition(self) -> None:
        if self._index.count == 0:
            return
        key, trailer = self._partition_end
        partition = _Partition(
            key, trailer, self._index.close(), self._filter.finish() if self._filter else None
        )
        self._partitions.append(partition)
        self._partition_bytes += len(partition.index) + len(partition.filter or b"")

    def _seal_index(self) -> Handle:
        """Seal all filters, all index partitions, the range tombstones and the root; return the
        root's handle.
        """
        filters = [
            NO_PAGE if part.filter is None else self._seal(part.filter, PageType.FILTER)
            for part in self._partitions
        ]
        indexes = [self._seal(part.index, PageType.INDEX) for part in self._partitions]
        self._partition_bytes = 0
        page = _EntryPage(1)
        for (start, seq), stop in sorted(
            self._tombstones.items(), key=lambda item: (item[0][0], -item[0][1])
        ):
            page.append(start, pack_trailer(seq, RANGE_DELETE), stop)
        self._tombstone_page = (
            self._seal(page.close(), PageType.RANGE_TOMBSTONES) if self._tombstones else None
        )
        for part, index, filter_handle in zip(self._partitions, indexes, filters, strict=True):
            page.append(part.key, part.trailer, index.encode() + filter_handle.encode())
        return self._seal(page.close(), PageType.INDEX_ROOT)

    def _finish_file(self, info: TableInfo, root: Handle) -> TableInfo:
        page = _EntryPage(1)
        properties = encode_properties(info, self._compression, self._prefix_bytes, self._origin)
        for name, value in properties:
            page.append(name, 0, value)
        handle = self._seal(page.close(), PageType.PROPERTIES)
        size = self._sealed_bytes + FOOTER_BYTES
        self._emit(
            Footer(
                self._file_id,
                info.number,
                root,
                self._tombstone_page,
                handle,
                size,
                self._is_ingested,
            ).encode()
        )
        return replace(info, size_bytes=size)

    def _seal(
        self, body: bytes, page_type: PageType, compression: Compression = Compression.NONE
    ) -> Handle:
        offset = self._sealed_bytes
        seed = page_seed(self._file_id, offset)
        stored = seal_page(body, page_type, compression, seed, self._cipher, offset)
        self._emit(stored)
        return Handle(offset, len(stored), int.from_bytes(stored[-8:], "little"))

    def _emit(self, data: bytes) -> None:
        self._output += data
        self._sealed_bytes += len(data)


def _check_size(data: bytes, most: int, role: str) -> None:
    if len(data) > most:
        raise LimitError(f"the {role} has {len(data)} bytes; the limit is {most}")


def _check_seq(seq: int) -> None:
    if not 0 <= seq <= SEQ_MAX:
        raise LimitError(f"the sequence number {seq} does not have 56 bits")
