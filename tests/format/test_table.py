"""The example of docs/format/table.md decodes to what the page says and encodes as it shows."""

import re
import struct

import pytest

from holdfast.base import DELETE, PUT, RANGE_DELETE
from holdfast.codec import Compression, checksum, open_page, page_seed
from holdfast.sstable import Footer, PageType, TableBuilder
from holdfast.sstable.format import (
    INDEX_BYTES,
    decode_index_value,
    decode_properties,
    decode_root_value,
)
from tests.format.plain_table import decode_entries, read_table

FILE_ID = bytes(range(16))
PIECES = ["data", "data", "filter", "index", "tombstones", "root", "properties", "footer"]
TYPES = {
    "data": PageType.DATA,
    "filter": PageType.FILTER,
    "index": PageType.INDEX,
    "tombstones": PageType.RANGE_TOMBSTONES,
    "root": PageType.INDEX_ROOT,
    "properties": PageType.PROPERTIES,
}
KINDS = {"PUT": PUT, "DELETE": DELETE, "RANGE_DELETE": RANGE_DELETE}


def parse(block):
    """The block's pieces in order: (name, bytes, comments), which further lines may continue."""
    pieces = []
    for line in block.splitlines():
        text, _, comment = line.partition(";")
        name, digits = text[:11].strip(), text[11:]
        if name:
            pieces.append((name, [], []))
        pieces[-1][1].append(bytes.fromhex(digits))
        pieces[-1][2].append(comment.strip())
    return [(name, b"".join(parts), comments) for name, parts, comments in pieces]


@pytest.fixture(scope="module")
def document(root):
    return (root / "docs" / "format" / "table.md").read_text()


@pytest.fixture(scope="module")
def pieces(document):
    (block,) = re.findall(r"^```example\n(.*?)^```", document, re.M | re.S)
    return parse(block)


@pytest.fixture(scope="module")
def stated(document):
    """The rows of the example's table: (key, sequence number, kind, value)."""
    rows = re.findall(r"^\| (\S+) \| (\d+) \| ([A-Z_]+) \| (\S*) ?\|$", document, re.M)
    return [(key.encode(), int(seq), KINDS[kind], value.encode()) for key, seq, kind, value in rows]


def bodies(pieces):
    """Open all pages at the offsets where they lie: (name, body, offset, stored checksum)."""
    offset = 0
    for name, stored, _ in pieces[:-1]:
        page_type, body = open_page(stored, page_seed(FILE_ID, offset), "table.md", offset)
        assert page_type == TYPES[name]
        yield name, body, offset, int.from_bytes(stored[-8:], "little")
        offset += len(stored)


def test_the_example_has_every_kind_of_page(pieces, stated):
    assert [name for name, _, _ in pieces] == PIECES
    assert [kind for _, _, kind, _ in stated] == [PUT, PUT, PUT, DELETE, PUT, RANGE_DELETE]


def test_the_pages_decode_piece_by_piece(pieces, stated):
    opened = list(bodies(pieces))
    entries = [entry for name, body, _, _ in opened if name == "data" for entry in _plain(body)]
    assert entries == stated[:5]
    assert [_plain(body) for name, body, _, _ in opened if name == "tombstones"] == [stated[5:]]
    checksums = {offset: checksum for _, _, offset, checksum in opened}
    ((key, _, value),) = _entries(opened, "root")
    limit = sum(len(stored) for _, stored, _ in pieces[:-1])
    index, bloom = decode_root_value(value, limit)
    assert (key, index.checksum) == (b"lamp/porch", checksums[index.offset])
    assert bloom.checksum == checksums[bloom.offset]
    separators = _entries(opened, "index")
    assert [(key, trailer) for key, trailer, _ in separators] == [
        (b"l", 0),
        (b"lamp/porch", 3 << 8 | PUT),
    ]
    for _, _, value in separators:
        handle = decode_index_value(value, limit)
        assert handle.checksum == checksums[handle.offset]


def test_footer_and_properties_say_what_the_page_says(pieces, document):
    size = sum(len(data) for _, data, _ in pieces)
    footer = Footer.decode(pieces[-1][1], "table.md", size)
    assert footer.encode() == pieces[-1][1]
    opened = list(bodies(pieces))
    properties = {name: value for name, _, value in _entries(opened, "properties")}
    info = decode_properties(footer, properties)
    assert (info.number, info.file_id, info.entry_count, info.delete_count) == (12, FILE_ID, 5, 1)
    assert (info.lower, info.upper, info.seq_min, info.seq_max) == (b"door/back", b"room0", 2, 7)
    names = re.findall(r"^\| (\w+) \| (?:u64|the first|the last)", document, re.M)
    assert names == [name.decode() for name in properties]


def test_the_example_reads_as_a_whole(pieces, stated):
    table = read_table(b"".join(data for _, data, _ in pieces))
    found = [(key, trailer >> 8, trailer & 0xFF, value) for key, trailer, value in table.entries]
    assert found == stated[:5]


def test_the_entries_encode_to_the_same_bytes(pieces, stated):
    builder = TableBuilder(
        FILE_ID,
        page_bytes=96,
        restart_interval=2,
        filter_bits_per_key=10,
        compression=Compression.NONE,
    )
    for entry in stated[:5]:
        builder.add(*entry)
    start, seq, _, stop = stated[5]
    builder.add_range_tombstone(start, stop, seq)
    info = builder.finish(12, 1_795_348_800_000_000)
    assert builder.take_output() == b"".join(data for _, data, _ in pieces)
    assert info.size_bytes == sum(len(data) for _, data, _ in pieces)


def test_the_comments_are_true(pieces):
    """Offsets, sizes and printable text in the comments are those of the bytes."""
    opened = list(bodies(pieces))
    for (name, stored, comments), (_, body, offset, _) in zip(pieces[:-1], opened, strict=True):
        (compression, page_type, _, size) = struct.unpack("<BBHI", stored[-16:-8])
        assert compression == 0
        said = f"NONE, type {page_type}, zero, {size} bytes of body"
        assert comments[-2:] == [said, f"checksum of the page at {offset}"], name
        assert size == len(body)
    assert f"{sum(len(data) for _, data, _ in pieces)} bytes of file" in pieces[-1][2]


def test_the_page_names_every_type_and_the_size_of_partitions(document):
    named = {
        name: int(number) for number, name in re.findall(r"type (\d), ([A-Z_]+)$", document, re.M)
    }
    assert named == {member.name: member.value for member in PageType}
    assert f"{INDEX_BYTES} bytes or more" in document


def _plain(body):
    return [
        (key, trailer >> 8, trailer & 0xFF, value) for key, trailer, value in decode_entries(body)
    ]


def _entries(opened, wanted):
    return [
        entry for name, body, _, _ in opened if name == wanted for entry in decode_entries(body)
    ]


def test_filters_with_prefixes_hold_the_documented_hashes(document, stated):
    """The filter is made again from the rules in the document, key by key and page by page."""
    hashes = dict(re.findall(r"^\| (\w+/) \| ([0-9a-f]{16}) \|$", document, re.M))
    assert set(hashes) == {"door/", "lamp/"}
    builder = TableBuilder(
        FILE_ID,
        page_bytes=96,
        restart_interval=2,
        filter_bits_per_key=10,
        compression=Compression.NONE,
        prefix_bytes=5,
    )
    for entry in stated[:5]:
        builder.add(*entry)
    builder.finish(12, 0)
    table = read_table(bytes(builder.take_output()))
    expected = bytearray(64)
    keys = {entry[0] for entry in stated[:5]}
    values = [checksum(key) for key in keys] + [int(value, 16) for value in hashes.values()]
    for value in values:
        state = value & 0xFFFFFFFF
        for _ in range(6):
            expected[state >> 26] |= 1 << (state >> 23 & 7)
            state = state * 0x9E3779B1 & 0xFFFFFFFF
    header = struct.pack("<B3xI", 6, 1)
    assert [header + bytes(expected)] == table.filters
    assert table.properties[b"prefix_bytes"] == struct.pack("<Q", 5)


@pytest.fixture(scope="module")
def ingested(document):
    (block,) = re.findall(r"^```hex\n(.*?)^```", document, re.M | re.S)
    return b"".join(bytes.fromhex(line[4:]) for line in block.splitlines())


def test_the_ingested_example_is_what_the_page_says(ingested):
    table = read_table(ingested)
    assert (table.version, table.number, table.file_id) == (2, 13, FILE_ID)
    assert table.entries == [(b"door/back", 1, b"shut"), (b"lamp/hall", 1, b"on")]
    assert table.properties[b"seq_min"] == table.properties[b"seq_max"] == bytes(8)
    assert table.page_types == [PageType.DATA, PageType.INDEX, PageType.INDEX_ROOT,
                                PageType.PROPERTIES]  # fmt: skip
    footer = Footer.decode(ingested[-128:], "table.md", len(ingested))
    assert footer.is_ingested
    assert footer.encode() == ingested[-128:]
    places = [footer.root.offset, footer.properties.offset, len(ingested) - 128]
    assert places == [0x7C, 0xBC, 0x21B]
    assert ingested[0x223] == 2
    assert ingested[0x9A : 0x9A + 10] == bytes(10)
    assert [ingested[at : at + 8] for at in (0x03, 0x1B)] == [b"\x01" + bytes(7)] * 2


def test_the_rows_encode_to_the_ingested_example(ingested):
    builder = TableBuilder(
        FILE_ID,
        page_bytes=96,
        restart_interval=2,
        filter_bits_per_key=0,
        compression=Compression.NONE,
        is_ingested=True,
    )
    builder.add(b"door/back", 0, PUT, b"shut")
    builder.add(b"lamp/hall", 0, PUT, b"on")
    builder.finish(13, 1_795_348_800_000_000)
    assert builder.take_output() == ingested
