"""The fixed parts of a table file: page types, handles, footer, properties and `TableInfo`.

What is written here is Part of the file format; docs/format/table.md draws it byte by byte and its
example is decoded and re-encoded by a test. Everything is a pure function of bytes: nothing here
opens a file.

Errors: `Footer.decode` raises FormatError for a file that is not a table or that a newer version
wrote, and CorruptionError for a table that is damaged. The smaller decoders raise ValueError with a
sentence, because only their caller knows the file and the offset that belong into a
CorruptionError.

Thread safety: all types are immutable.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from holdfast.base import (
    KEY_BYTES_MAX,
    PAGE_BYTES_MAX,
    SEQ_MAX,
    CorruptionError,
    FormatError,
    successor,
)
from holdfast.codec import checksum, decode_varint, encode_varint

MAGIC = b"HFtable\x00"
FORMAT_VERSION = 2
"""The newest version that is read. A table is of version 2 when it was ingested, else of 1."""
FILE_ID_BYTES = 16
PAGE_TRAILER_BYTES = 16
"""Bytes that the page envelope puts behind every stored payload."""

STORED_PAGE_BYTES_MAX = PAGE_BYTES_MAX + PAGE_TRAILER_BYTES
"""No page is longer: a body that does not shrink is stored as it is."""

INDEX_MISPLACED = "an index page does not lie between its separators"
DATA_MISPLACED = "a data page does not lie between its separators"

INDEX_BYTES = 4096
"""An index partition is closed once its body has this many bytes."""

FILTER_HEADER_BYTES = 8
FILTER_BLOCK_BYTES = 64
FILTER_PROBES_MAX = 30

RESTART_BYTES = 4
"""Bytes of one restart offset, and of the count of them that ends an entry page."""


def table_name(number: int) -> str:
    """Return the file name of table `number`."""
    return f"{number:08d}.table"


class PageType(IntEnum):
    """What a page holds. Part of the file format: the numbers are stored in the pages' trailers."""

    DATA = 1
    INDEX = 2
    INDEX_ROOT = 3
    FILTER = 4
    RANGE_TOMBSTONES = 5
    PROPERTIES = 6


_HANDLE = struct.Struct("<QQQ")
_U64 = struct.Struct("<Q")
_FOOTER = struct.Struct("<8sII16sQ24s24s24sQQ")
FOOTER_BYTES = _FOOTER.size
_SUMMED_BYTES = FOOTER_BYTES - _U64.size

if FOOTER_BYTES != 128 or _HANDLE.size != 24 or len(MAGIC) != 8:
    raise ImportError("the struct layouts of sstable/format.py do not add up to the file format")


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a page lies: its offset, its stored size with the envelope, and the checksum in its own
    trailer.

    The checksum is stored twice, here and in the page, so that a stale or misdirected page is
    caught. `NO_PAGE`, all zeros, says that there is no page.
    """

    offset: int
    size: int
    checksum: int

    def problem(self, limit: int) -> str | None:
        """Return why this cannot be a page that ends at or before `limit`, or None when it can."""
        if self.size < PAGE_TRAILER_BYTES:
            return f"a page handle has the size {self.size}, less than a page trailer"
        if self.offset > limit or self.size > limit - self.offset:
            end = self.offset + self.size
            return (
                f"a page handle points to {self.offset} to {end}, behind the last page at {limit}"
            )
        if self.size > STORED_PAGE_BYTES_MAX:
            return f"a page handle has the size {self.size}, more than a page can have"
        return None

    def encode(self) -> bytes:
        """Return the bytes of an index entry's handle."""
        return encode_varint(self.offset) + encode_varint(self.size) + _U64.pack(self.checksum)


NO_PAGE = Handle(0, 0, 0)
HANDLE_BYTES_MAX = 10 + 10 + _U64.size


def decode_handle(data: bytes, position: int = 0) -> tuple[Handle, int]:
    """Return the handle at `position` and the position behind it. Raises: ValueError."""
    offset, position = decode_varint(data, position)
    size, position = decode_varint(data, position)
    if len(data) - position < _U64.size:
        raise ValueError("a page handle is cut short")
    (stored,) = _U64.unpack_from(data, position)
    return Handle(offset, size, stored), position + _U64.size


def decode_index_value(value: bytes, limit: int) -> Handle:
    """Return the handle in the value of an INDEX entry, of a page that ends at or before `limit`.
    Raises: ValueError.
    """
    handle, position = decode_handle(value)
    if position != len(value):
        raise ValueError("an index entry has bytes behind its handle")
    _require_page(handle, limit)
    return handle


def decode_root_value(value: bytes, limit: int) -> tuple[Handle, Handle | None]:
    """Return the handles of the INDEX page and of its FILTER page, or None for no filter. Raises:
    ValueError.
    """
    index, position = decode_handle(value)
    filter_handle, position = decode_handle(value, position)
    if position != len(value):
        raise ValueError("an index root entry has bytes behind its handles")
    _require_page(index, limit)
    if filter_handle == NO_PAGE:
        return index, None
    _require_page(filter_handle, limit)
    return index, filter_handle


def _require_page(handle: Handle, limit: int) -> None:
    problem = handle.problem(limit)
    if problem is not None:
        raise ValueError(problem)


@dataclass(frozen=True, slots=True)
class Footer:
    """The last 128 bytes of a table.

    All later versions keep the magic, the version and the checksum in these places, so that a
    damaged footer is told from a newer one.
    """

    file_id: bytes
    number: int
    root: Handle
    tombstones: Handle | None
    properties: Handle
    file_size: int
    is_ingested: bool = False
    """Whether it was written before its sequence number was known: the manifest has the one number
    of all entries, which are stored with 0.
    """

    def encode(self) -> bytes:
        """Return the 128 bytes."""
        body = _FOOTER.pack(
            MAGIC,
            FORMAT_VERSION if self.is_ingested else FORMAT_VERSION - 1,
            0,
            self.file_id,
            self.number,
            _fixed(self.root),
            _fixed(self.tombstones or NO_PAGE),
            _fixed(self.properties),
            self.file_size,
            0,
        )[:_SUMMED_BYTES]
        return body + _U64.pack(checksum(body))

    @classmethod
    def as_stored(cls, data: bytes) -> Footer | None:
        """Return a damaged footer as it stands, or None when it is cut.

        For looking at damaged files: nothing of it is known to be right.
        """
        if len(data) != FOOTER_BYTES:
            return None
        _, version, _, file_id, number, root, tombstones, properties, size, _ = _FOOTER.unpack(data)
        handles = [Handle(*_HANDLE.unpack(packed)) for packed in (root, tombstones, properties)]
        found = None if handles[1] == NO_PAGE else handles[1]
        is_ingested = version == FORMAT_VERSION
        return cls(file_id, number, handles[0], found, handles[2], size, is_ingested)

    @classmethod
    def decode(cls, data: bytes, file: str, file_size: int) -> Footer:
        """Return the footer in `data`, the last 128 bytes of a file of `file_size` bytes.

        Raises: FormatError when the magic is that of another format or the version is newer;
        CorruptionError for everything else, such as a magic of zeros, or one that is all that is
        wrong.
        """
        if file_size < FOOTER_BYTES or len(data) != FOOTER_BYTES:
            raise CorruptionError(
                file, 0, f"a table has at least {FOOTER_BYTES} bytes; this file has {file_size}"
            )
        at = file_size - FOOTER_BYTES
        magic, version, zero, file_id, number, root, tombstones, properties, size, stored = (
            _FOOTER.unpack(data)
        )
        if magic != MAGIC:
            if not any(magic) or stored == checksum(MAGIC + data[len(MAGIC) : _SUMMED_BYTES]):
                raise CorruptionError(file, at, "the magic of the footer is damaged")
            raise FormatError(f"{file}: not a Holdfast table")
        if stored != checksum(data[:_SUMMED_BYTES]):
            raise CorruptionError(file, at, "the checksum of the footer does not match")
        if version > FORMAT_VERSION:
            raise FormatError(
                f"{file}: table format version {version}; this Holdfast reads {FORMAT_VERSION}"
            )
        if version == 0 or zero != 0:
            raise CorruptionError(
                file, at, "the footer has an unknown version or reserved bytes that are not zero"
            )
        if size != file_size:
            raise CorruptionError(
                file, at, f"the footer says the file has {size} bytes; it has {file_size}"
            )
        handles = [Handle(*_HANDLE.unpack(packed)) for packed in (root, tombstones, properties)]
        for handle in handles:
            problem = handle.problem(at)
            if problem is not None and not (handle is handles[1] and handle == NO_PAGE):
                raise CorruptionError(file, at, f"in the footer, {problem}")
        return cls(
            file_id,
            number,
            handles[0],
            None if handles[1] == NO_PAGE else handles[1],
            handles[2],
            size,
            version == FORMAT_VERSION,
        )


def _fixed(handle: Handle) -> bytes:
    return _HANDLE.pack(handle.offset, handle.size, handle.checksum)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """What is known about a table without reading it; the manifest stores one for each live one."""

    number: int
    file_id: bytes
    size_bytes: int
    lower: bytes
    """The first key, or the least start of a range tombstone."""
    upper: bytes
    """Exclusive: the successor of the last key, or the greatest stop of a range tombstone."""
    seq_min: int
    """Least sequence number, range tombstones counted."""
    seq_max: int
    entry_count: int
    """Point entries: puts and deletes."""
    delete_count: int
    range_tombstone_count: int
    raw_bytes: int
    """Bytes of all keys and values, and of starts and stops of range tombstones."""
    root_checksum: int
    created_us: int
    """Wall time in microseconds when the table was finished."""

    def overlaps(self, lower: bytes | None, upper: bytes | None) -> bool:
        """Return whether the key range shares a key with [lower, upper); None is unbounded."""
        return (upper is None or self.lower < upper) and (lower is None or lower < self.upper)

    def problem(self) -> str | None:
        """Return why no table can be like this, or None. For decoders of stored infos."""
        if len(self.file_id) != FILE_ID_BYTES:
            return "a table's file id does not have 16 bytes"
        if not self.lower < self.upper or len(self.upper) > KEY_BYTES_MAX + 1:
            return "a table's key range is empty or too long"
        if not 0 <= self.seq_min <= self.seq_max <= SEQ_MAX:
            return "a table's sequence numbers are out of order"
        if not 0 <= self.delete_count <= self.entry_count or self.range_tombstone_count < 0:
            return "a table's counts contradict each other"
        if self.entry_count + self.range_tombstone_count == 0:
            return "a table has neither entries nor range tombstones"
        if self.size_bytes < FOOTER_BYTES or self.number < 0:
            return "a table is smaller than its footer"
        return None


_NUMBERS = (
    "created_us",
    "delete_count",
    "entry_count",
    "range_tombstone_count",
    "raw_bytes",
    "seq_max",
    "seq_min",
)
"""Properties that hold a u64 and are named as the field of `TableInfo` they fill."""


PREFIX_PROPERTY = "prefix_bytes"
PREFIX_SEED = 1
"""Seed of the hashes of prefixes in a filter. Part of the file format."""


ORIGIN_PROPERTY = "origin"


def encode_properties(
    info: TableInfo, compression: int, prefix_bytes: int = 0, origin: bytes = b""
) -> list[tuple[bytes, bytes]]:
    """Return names and values of the PROPERTIES page, sorted by name. What the footer says is not
    repeated, nor filters without prefixes, nor an origin that is not known.
    """
    values = {name: _U64.pack(getattr(info, name)) for name in _NUMBERS}
    values |= {"lower": info.lower, "upper": info.upper, "compression": _U64.pack(compression)}
    if origin:
        values[ORIGIN_PROPERTY] = origin
    if prefix_bytes:
        values[PREFIX_PROPERTY] = _U64.pack(prefix_bytes)
    return [(name.encode(), values[name]) for name in sorted(values)]


def decode_prefix_bytes(properties: Mapping[bytes, bytes]) -> int:
    """Return how long the prefixes are that the filters hold, 0 when they hold none.

    Raises: ValueError when the property has another size or its value is out of range.
    """
    packed = properties.get(PREFIX_PROPERTY.encode())
    if packed is None:
        return 0
    if len(packed) != _U64.size:
        raise ValueError(f"the property {PREFIX_PROPERTY} does not have {_U64.size} bytes")
    count: int = _U64.unpack(packed)[0]
    if not 1 <= count <= KEY_BYTES_MAX:
        raise ValueError(f"the property {PREFIX_PROPERTY} is {count}; no key has such a prefix")
    return count


def decode_properties(footer: Footer, properties: Mapping[bytes, bytes]) -> TableInfo:
    """Return the info that footer and properties together say. Unknown names are ignored.

    Raises: ValueError when a property is missing, has the wrong size, or contradicts another.
    """
    for name in (*_NUMBERS, "lower", "upper"):
        if name.encode() not in properties:
            raise ValueError(f"the property {name} is missing")
        if name in _NUMBERS and len(properties[name.encode()]) != _U64.size:
            raise ValueError(f"the property {name} does not have {_U64.size} bytes")
    numbers = {name: _U64.unpack(properties[name.encode()])[0] for name in _NUMBERS}
    info = TableInfo(
        number=footer.number,
        file_id=footer.file_id,
        size_bytes=footer.file_size,
        lower=properties[b"lower"],
        upper=properties[b"upper"],
        root_checksum=footer.root.checksum,
        **numbers,
    )
    problem = info.problem()
    if problem is not None:
        raise ValueError(problem)
    return info


def ingested_problem(footer: Footer, info: TableInfo) -> str | None:
    """Return why no ingested table can be what its own properties say, or None when it can."""
    if footer.tombstones is not None or info.range_tombstone_count:
        return "an ingested table has range tombstones"
    if info.delete_count:
        return "an ingested table has deletes"
    if info.seq_max:
        return "an ingested table has sequence numbers of its own"
    return None


def key_range(
    first: bytes | None, last: bytes | None, spans: list[tuple[bytes, bytes]]
) -> tuple[bytes, bytes]:
    """Return (lower, upper) of a table from its first and last key and the (start, stop) of its
    range tombstones.

    Requires: at least one of them exists.
    """
    lowers = [start for start, _ in spans]
    uppers = [stop for _, stop in spans]
    if first is not None and last is not None:
        lowers.append(first)
        uppers.append(successor(last))
    return min(lowers), max(uppers)


def separator(last: bytes, last_trailer: int, following: bytes | None) -> tuple[bytes, int]:
    """Return the (key, trailer) of the index entry for a page that ends with `last`, before one
    that starts with `following`.

    The result is >= the last entry and < the following one in internal order. Where the keys differ
    it is the shortest prefix of the following key that sorts after the last one, with trailer 0, if
    that is shorter than the last key and not all of the following one; otherwise it is the last
    entry itself. The idea is LevelDB's.
    """
    if following is not None and following != last:
        shared = common_prefix(last, following)
        if shared + 1 < len(last) and shared + 1 < len(following):
            return following[: shared + 1], 0
    return last, last_trailer


def common_prefix(a: bytes, b: bytes) -> int:
    """Return how many leading bytes are equal."""
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return shared
