"""docs/format/wal.md: its example decodes and encodes as it says; its numbers are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.base import BATCH_BYTES_MAX, DELETE, PUT, RANGE_DELETE
from holdfast.codec import checksum
from holdfast.wal import RecordBuffer, WriteBatch, decode_payload, scan_records
from holdfast.wal import format as layout
from holdfast.wal.decision import QUESTIONS, TABLE
from holdfast.wal.format import (
    BLOCK_BYTES,
    LINK_OFFSET,
    RecordHeader,
    RecordType,
    SegmentHeader,
    SegmentLink,
    StopReason,
)

NAME = "docs/format/wal.md"
HEADER = SegmentHeader(
    version=1,
    number=7,
    alignment=8,
    salt=0x1122334455667788,
    database_id=bytes(range(16)),
    size=8192,
    previous=0,
    created_us=1767225600000000,
)
LINK = SegmentLink(segment=7, previous=0, lsn_first=41, chain=HEADER.salt)


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / NAME).read_text(encoding="ascii")


APART = SegmentHeader(
    version=2,
    number=9,
    alignment=4096,
    salt=0x0807060504030201,
    database_id=bytes(range(16)),
    size=16384,
    previous=7,
    created_us=1767225600000000,
)


@pytest.fixture(scope="module")
def image(text: str) -> bytes:
    """The segment of the example: the bytes shown, zeros elsewhere."""
    return shown(text.partition("## Example with")[0], HEADER.size)


def shown(text: str, size: int) -> bytes:
    data = bytearray(size)
    for line in re.findall(r"^[0-9a-f]{4}:(?: [0-9a-f]{2})+$", text, re.MULTILINE):
        place, _, digits = line.partition(":")
        piece = bytes.fromhex(digits)
        data[int(place, 16) : int(place, 16) + len(piece)] = piece
    return bytes(data)


def encoded() -> bytes:
    """The same segment made by the code."""
    block = bytearray(layout.encode_segment_header(HEADER))
    link = layout.encode_link(LINK, HEADER.salt)
    block[LINK_OFFSET : LINK_OFFSET + len(link)] = link
    buffer, batch = RecordBuffer(), WriteBatch()
    batch.put(1, b"key", b"value")
    batch.delete(300, b"old")
    buffer.append_batch(batch)
    buffer.append_op(RANGE_DELETE, 1, b"a", b"b")
    view, chain = buffer.seal(7, HEADER.salt, 41, 1000, 40, 12, LINK.chain, 8)
    end, _ = layout.encode_end(
        RecordHeader(
            payload_size=0,
            segment=7,
            lsn=42,
            seq_first=1003,
            durable_lsn=41,
            manifest_edit=12,
            chain=chain,
            op_count=0,
            type=RecordType.END,
            payload_checksum=0,
        ),
        HEADER.salt,
        9,
        8,
    )
    return (bytes(block) + bytes(view) + end).ljust(HEADER.size, b"\x00")


def test_the_example_is_what_the_code_writes(image: bytes) -> None:
    assert image == encoded()


def test_the_example_decodes_as_the_page_says(image: bytes) -> None:
    header = layout.decode_segment_header(image[:BLOCK_BYTES], "example")
    assert header == HEADER
    assert layout.decode_link(image[:BLOCK_BYTES], header) == LINK
    found = scan_records(image, BLOCK_BYTES, 7, header.salt, 41, header.salt, 8)
    assert (found.stop, found.next_segment, found.record_count) == (StopReason.END_OF_SEGMENT, 9, 2)
    first, end = found.records
    assert (first.lsn, first.seq_first, first.op_count, first.durable_lsn, first.manifest_edit) == (
        41,
        1000,
        3,
        40,
        12,
    )
    assert decode_payload(image, first.payload_offset, first.payload_size) == [
        [(PUT, 1, b"key", b"value"), (DELETE, 300, b"old", None)],
        [(RANGE_DELETE, 1, b"a", b"b")],
    ]
    assert (end.lsn, end.type, end.seq_first) == (42, RecordType.END, 1003)


def test_the_example_of_version_2_is_what_the_code_reads_and_writes(text: str) -> None:
    data = shown(text.partition("## Example with")[2], APART.size)
    header = layout.decode_segment_header(data[:8192], "example")
    assert header == APART
    assert (header.link_offset, header.link_end, header.records_offset) == (4096, 8192, 8192)
    link = layout.decode_link(data[:8192], header)
    assert link is not None
    assert (link.segment, link.previous, link.lsn_first) == (9, 7, 43)
    found = scan_records(data, 8192, 9, header.salt, 43, link.chain, 4096)
    assert (found.record_count, found.end_offset, found.stop) == (1, 12288, StopReason.END_OF_ZEROS)
    (record,) = found.records
    assert (record.lsn, record.seq_first, record.durable_lsn) == (43, 1003, 42)
    assert decode_payload(data, record.payload_offset, record.payload_size) == [
        [(PUT, 1, b"key", b"new")]
    ]
    block = bytearray(layout.encode_segment_header(APART))
    block[4096:4144] = layout.encode_link(link, header.salt)
    buffer = RecordBuffer()
    buffer.append_op(PUT, 1, b"key", b"new")
    view, _ = buffer.seal(9, header.salt, 43, 1003, 42, 12, link.chain, 4096)
    assert (bytes(block) + bytes(view)).ljust(APART.size, b"\x00") == data


def test_checksums_are_where_and_over_what_the_page_says(image: bytes) -> None:
    def u64(offset: int) -> int:
        return int.from_bytes(image[offset : offset + 8], "little")

    salt = HEADER.salt
    assert u64(72) == checksum(image[:72], 0)
    assert u64(2048 + 40) == checksum(image[2048 : 2048 + 40], salt)
    assert u64(4096 + 72) == checksum(image[4096 : 4096 + 72], salt)
    size = int.from_bytes(image[4100:4104], "little")
    assert u64(4096 + 64) == checksum(image[4176 : 4176 + size], salt)


def test_every_decision_of_the_code_is_a_row_of_the_page(text: str) -> None:
    table = [
        line.strip("| ").split(" | ")
        for line in text.splitlines()
        if re.match(r"\| [yn-] \|", line)
    ]
    letters = {True: "y", False: "n", None: "-"}
    assert [
        [*(letters[answer] for answer in row.answers), row.decision.value, row.reason]
        for row in TABLE
    ] == table
    for question in QUESTIONS:
        assert f"`{question}`" in text


@pytest.mark.parametrize(
    "fact",
    [
        f"versions {layout.VERSION_PLAIN} and {layout.VERSION_APART}",
        f"the alignment {layout.ALIGNMENT_MAX} it stands at byte {BLOCK_BYTES}",
        f"has {layout.FRONT_BYTES_MAX} bytes",
        f"{layout.SEGMENT_HEADER_BYTES} bytes",
        f"`{layout.SEGMENT_MAGIC.hex(' ')}`",
        f"{layout.LINK_BYTES} bytes",
        f"byte {LINK_OFFSET}",
        f"{BLOCK_BYTES} bytes",
        f"`0x{layout.RECORD_MAGIC:08X}`",
        f"`0x{layout.LINK_MAGIC:08X}`",
        f"{BATCH_BYTES_MAX} bytes",
    ],
)
def test_numbers_of_the_page_are_those_of_the_code(text: str, fact: str) -> None:
    assert fact in text
