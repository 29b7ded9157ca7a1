"""docs/format/manifest.md: the example's bytes are what its text says, and are written alike."""

import re
from pathlib import Path

from holdfast.base import KeyspaceSettings
from holdfast.codec import checksum
from holdfast.manifest import Version, decode_manifest, encode_edit
from holdfast.manifest.edit import Tag
from holdfast.manifest.format import Header, encode_record


def rows(root: Path, index: int) -> list[tuple[int, bytes]]:
    """The lines of an example: offset and bytes."""
    text = (root / "docs/format/manifest.md").read_text()
    block = re.findall(r"```hex\n(.*?)```", text, re.DOTALL)[index]
    lines = [line.split("  ", 1) for line in block.splitlines()]
    return [(int(offset, 16), bytes.fromhex(row)) for offset, row in lines]


def example(root: Path) -> bytes:
    lines = rows(root, 0)
    data = b"".join(row for _, row in lines)
    assert [offset for offset, _ in lines] == list(range(0, len(data), 16))
    return data


def aligned_example(root: Path) -> bytes:
    data = bytearray(0x400)
    for offset, row in rows(root, 1):
        data[offset : offset + len(row)] = row
    return bytes(data)


def test_the_example_means_what_the_text_says(root: Path) -> None:
    """Decoded, it is manifest 42 of the database 00..0f whose table 7 moved to level 2."""
    data = example(root)
    manifest = decode_manifest(data, "example")
    assert manifest.header == Header(42, bytes(range(16)), 0x1122334455667788)
    assert [record.edit_seq for record in manifest.records] == [8, 9]
    assert manifest.records[0].offset == 0x40
    assert (manifest.end, manifest.is_tail_cut) == (len(data), False)
    version = manifest.version("example")
    (keyspace,) = version.keyspaces.values()
    assert (keyspace.id, keyspace.name, keyspace.settings) == (1, "default", KeyspaceSettings())
    assert [[table.number for table in level] for level in keyspace.levels[:3]] == [[], [], [7]]
    assert (version.next_number, version.wal_first, version.durable_lsn) == (43, 5, 1000)


def test_the_example_is_written_again_alike(root: Path) -> None:
    data = example(root)
    manifest = decode_manifest(data, "example")
    out, chain = manifest.header.encode(), manifest.header.chain
    for record in manifest.records:
        piece, chain = encode_record(
            encode_edit(record.edit), record.edit_seq, chain, manifest.header.salt
        )
        out += piece
    assert out == data
    first = Version(edit_seq=7).apply(manifest.records[0].edit)
    assert first.snapshot_edit() == manifest.records[0].edit


def test_the_aligned_example_means_what_the_text_says(root: Path) -> None:
    """Decoded, it is manifest 42 in version 2 with the alignment 512; written again it is alike."""
    data = aligned_example(root)
    assert (data[8], int.from_bytes(data[12:16], "little")) == (2, 512)
    manifest = decode_manifest(data, "example")
    assert manifest.header == Header(42, bytes(range(16)), 0x1122334455667788, 512)
    assert [(record.offset, record.edit_seq) for record in manifest.records] == [
        (0x40, 8), (0x200, 9),
    ]  # fmt: skip
    assert (manifest.end, manifest.is_tail_cut) == (0x400, False)
    version = manifest.version("example")
    assert (version.next_number, version.wal_first) == (43, 6)
    assert (version.wal_first_lsn, version.durable_lsn) == (1044, 1044)
    out, chain = manifest.header.encode(), manifest.header.chain
    for record in manifest.records:
        piece, chain = encode_record(
            encode_edit(record.edit), record.edit_seq, chain, manifest.header.salt,
            offset=len(out), alignment=512,
        )  # fmt: skip
        out += piece
    assert out == data


def test_the_places_that_the_drawings_show(root: Path) -> None:
    """Read by hand, without the code under test."""
    data = example(root)
    assert data[:8] == b"HFmanif\x00"
    assert int.from_bytes(data[8:12], "little") == 1
    assert int.from_bytes(data[16:24], "little") == 42
    assert data[24:40] == bytes(range(16))
    salt = int.from_bytes(data[40:48], "little")
    assert int.from_bytes(data[56:64], "little") == checksum(data[:56])
    record = data[0x40:]
    size = int.from_bytes(record[4:8], "little")
    padded = record[40 : 40 + (size + 7) // 8 * 8]
    assert record[:4] == b"HFER"
    assert int.from_bytes(record[8:16], "little") == 8
    assert record[16:24] == data[56:64]
    assert int.from_bytes(record[24:32], "little") == checksum(padded, salt)
    assert int.from_bytes(record[32:40], "little") == checksum(record[:32], salt)
    assert padded[0] == Tag.KEYSPACE_CREATED
    assert padded[3:12] == b"\x01\x07default"


def test_the_table_of_tags_lists_every_tag(root: Path) -> None:
    text = (root / "docs/format/manifest.md").read_text()
    assert [int(tag) for tag in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == list(Tag)
