"""Reads a whole table the slow and obvious way, following docs/format/table.md and nothing else of
the sstable room.

It checks what a reader relies on: the order of entries, separators, handles, and that each filter
covers its partition.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from holdfast.codec import checksum, decode_varint, open_page, page_seed

Entry = tuple[bytes, int, bytes]
"""(key, trailer, value)."""


@dataclass
class PlainTable:
    number: int
    file_id: bytes
    version: int
    root_checksum: int
    entries: list[Entry] = field(default_factory=list)
    tombstones: list[Entry] = field(default_factory=list)
    properties: dict[bytes, bytes] = field(default_factory=dict)
    partitions: int = 0
    data_pages: list[list[Entry]] = field(default_factory=list)
    filters: list[bytes] = field(default_factory=list)
    page_types: list[int] = field(default_factory=list)
    """Types of all pages in the order they lie in the file."""


def order(entry: Entry) -> tuple[bytes, int]:
    return entry[0], -entry[1]


def decode_entries(body: bytes) -> list[Entry]:
    """Return the entries of an entry page, having checked every rule of the format."""
    (count,) = struct.unpack_from("<I", body, len(body) - 4)
    end = len(body) - 4 - 4 * count
    restarts = list(struct.unpack_from(f"<{count}I", body, end))
    entries: list[Entry] = []
    seen = []
    position = 0
    key = b""
    while position < end:
        start = position
        shared, position = decode_varint(body, position)
        unshared, position = decode_varint(body, position)
        value_size, position = decode_varint(body, position)
        (trailer,) = struct.unpack_from("<Q", body, position)
        position += 8
        assert shared <= len(key)
        if start in restarts:
            assert shared == 0
            seen.append(start)
        key = key[:shared] + body[position : position + unshared]
        position += unshared
        entries.append((key, trailer, body[position : position + value_size]))
        position += value_size
    assert position == end
    assert seen == restarts
    assert not entries or restarts[0] == 0
    assert entries == sorted(entries, key=order)
    assert len({order(entry) for entry in entries}) == len(entries)
    return entries


def decode_handle(data: bytes, position: int) -> tuple[tuple[int, int, int], int]:
    offset, position = decode_varint(data, position)
    size, position = decode_varint(data, position)
    (stored,) = struct.unpack_from("<Q", data, position)
    return (offset, size, stored), position + 8


def may_contain(body: bytes, key: bytes, seed: int = 0) -> bool:
    probes, blocks = struct.unpack_from("<B3xI", body)
    assert len(body) == 8 + 64 * blocks
    value = checksum(key, seed)
    block = 8 + 64 * ((value >> 32) * blocks >> 32)
    state = value & 0xFFFFFFFF
    for _ in range(probes):
        bit = state >> 23
        if not body[block + bit // 8] >> bit % 8 & 1:
            return False
        state = state * 0x9E3779B1 % 2**32
    return True


def read_table(data: bytes) -> PlainTable:
    """Return everything in the table. Raises AssertionError where the file breaks its format."""
    magic, version, zero, file_id, number = struct.unpack_from("<8sII16sQ", data, len(data) - 128)
    handles = [struct.unpack_from("<QQQ", data, len(data) - 88 + 24 * index) for index in range(3)]
    size, stored = struct.unpack_from("<QQ", data, len(data) - 16)
    assert (magic, zero, size) == (b"HFtable\x00", 0, len(data))
    assert stored == checksum(data[-128:-8])
    table = PlainTable(number, file_id, version, handles[0][2])
    pages: dict[int, tuple[int, int]] = {}

    def page(handle: tuple[int, int, int], expected: int) -> bytes:
        offset, stored_size, stored_checksum = handle
        raw = data[offset : offset + stored_size]
        assert int.from_bytes(raw[-8:], "little") == stored_checksum
        page_type, body = open_page(raw, page_seed(file_id, offset), "plain", offset)
        assert page_type == expected
        pages[offset] = (stored_size, page_type)
        return body

    root, tombstones, properties = handles
    if tombstones != (0, 0, 0):
        table.tombstones = decode_entries(page(tombstones, 5))
    table.properties = {key: value for key, _, value in decode_entries(page(properties, 6))}
    length = int.from_bytes(table.properties.get(b"prefix_bytes", b""), "little")
    previous: Entry | None = None
    for part_key, part_trailer, value in decode_entries(page(root, 3)):
        table.partitions += 1
        index, position = decode_handle(value, 0)
        filter_handle, position = decode_handle(value, position)
        assert position == len(value)
        body = page(filter_handle, 4) if filter_handle != (0, 0, 0) else None
        if body is not None:
            table.filters.append(body)
        separators = decode_entries(page(index, 2))
        assert (part_key, part_trailer) == separators[-1][:2]
        for separator in separators:
            handle, position = decode_handle(separator[2], 0)
            assert position == len(separator[2])
            entries = decode_entries(page(handle, 1))
            assert previous is None or order(previous) < order(entries[0])
            assert order(entries[-1]) <= order(separator)
            assert body is None or all(may_contain(body, key) for key, _, _ in entries)
            prefixes = {key[:length] for key, _, _ in entries if length and len(key) >= length}
            assert body is None or all(may_contain(body, prefix, 1) for prefix in prefixes)
            previous = separator
            table.entries += entries
            table.data_pages.append(entries)
    position = 0
    for offset, (stored_size, page_type) in sorted(pages.items()):
        assert offset == position
        position += stored_size
        table.page_types.append(page_type)
    assert position == len(data) - 128
    return table
