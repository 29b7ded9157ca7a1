"""Headers and names decode to what was encoded, and nothing else decodes."""

from __future__ import annotations

from dataclasses import replace
from struct import pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import SEQ_MAX, CorruptionError, FormatError
from holdfast.codec import checksum
from holdfast.wal.format import (
    BLOCK_BYTES,
    END_PAYLOAD_BYTES,
    FRONT_BYTES_MAX,
    LINK_BYTES,
    LINK_OFFSET,
    LSN_MAX,
    RECORD_HEADER_BYTES,
    SEGMENT_BYTES_MAX,
    SEGMENT_HEADER_BYTES,
    RecordHeader,
    RecordType,
    SegmentHeader,
    SegmentLink,
    align_up,
    decode_link,
    decode_record_header,
    decode_segment_header,
    encode_link,
    encode_record_header,
    encode_segment_header,
    has_chained_records,
    is_alignment,
    is_well_formed,
    parse_segment_name,
    record_bytes,
    records_offset,
    segment_name,
    version_for,
)

HEADER = SegmentHeader(
    version=1,
    number=12,
    alignment=512,
    salt=0xFEEDFACE,
    database_id=bytes(range(16)),
    size=65536,
    previous=9,
    created_us=5,
)
LINK = SegmentLink(segment=12, previous=9, lsn_first=77, chain=123456)
u64 = st.integers(0, 2**64 - 1)


def forged(offset: int, layout: str, value: object, header: SegmentHeader = HEADER) -> bytes:
    """A header block with one field changed and the checksum made right again."""
    block = bytearray(encode_segment_header(header))
    pack_into(layout, block, offset, value)
    pack_into("<Q", block, SEGMENT_HEADER_BYTES - 8, checksum(block[: SEGMENT_HEADER_BYTES - 8]))
    return bytes(block)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "00000001.wal"),
        (12345678, "12345678.wal"),
        (123456789, "123456789.wal"),
        ((1 << 64) - 1, "18446744073709551615.wal"),
    ],
)
def test_names_have_eight_digits_or_more(number: int, name: str) -> None:
    assert segment_name(number) == name
    assert parse_segment_name(name) == number


@pytest.mark.parametrize(
    "name",
    [
        "1.wal",
        "00000000.wal",
        "000000001.wal",
        "00000001.table",
        "00000001.wal2",
        "x0000001.wal",
        "-0000001.wal",
        "0000000\u0661.wal",
        "00000001.WAL",
        "",
        ".wal",
        "18446744073709551616.wal",
        "99999999999999999999.wal",
        "00000001.wal\n",
    ],
)
def test_other_names_are_no_segments(name: str) -> None:
    assert parse_segment_name(name) is None


def test_a_segment_header_decodes_to_what_was_encoded() -> None:
    block = encode_segment_header(HEADER)
    assert len(block) == BLOCK_BYTES
    assert decode_segment_header(block, "f") == HEADER
    assert decode_link(block, HEADER) is None


def test_every_flipped_bit_of_the_header_block_is_noticed() -> None:
    link = encode_link(LINK, HEADER.salt)
    block = bytearray(encode_segment_header(HEADER))
    block[LINK_OFFSET : LINK_OFFSET + LINK_BYTES] = link
    assert decode_link(bytes(block), HEADER) == LINK
    for bit in range(BLOCK_BYTES * 8):
        block[bit // 8] ^= 1 << bit % 8
        if LINK_OFFSET <= bit // 8 < LINK_OFFSET + LINK_BYTES:
            assert decode_segment_header(bytes(block), "f") == HEADER
            assert decode_link(bytes(block), HEADER) is None
        else:
            with pytest.raises(CorruptionError):
                decode_segment_header(bytes(block), "f")
        block[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("alignment", "link", "records"),
    [(512, 2048, 4096), (1024, 2048, 4096), (2048, 2048, 4096), (4096, 4096, 8192)],
)
def test_from_512_on_the_link_has_sectors_to_itself(
    alignment: int, link: int, records: int
) -> None:
    """Every flipped bit of the header block is noticed, but in the sectors of the link it only
    makes a link that is not there.
    """
    header = replace(HEADER, version=version_for(alignment), alignment=alignment)
    assert header.version == 2
    assert (header.link_offset, header.link_end) == (link, link + alignment)
    assert (header.records_offset, records_offset(2, alignment)) == (records, records)
    block = bytearray(encode_segment_header(header))
    assert len(block) == records
    block[link : link + LINK_BYTES] = encode_link(LINK, header.salt)
    more = bytes(block).ljust(FRONT_BYTES_MAX, b"R")
    assert decode_segment_header(more, "f") == header
    assert decode_link(more, header) == LINK
    for place in [*range(0, records, 5), link - 1, link, link + alignment - 1, records - 1]:
        block[place] ^= 1 << place % 8
        if link <= place < link + alignment:
            assert decode_segment_header(bytes(block), "f") == header
            assert decode_link(bytes(block), header) is None
        else:
            with pytest.raises(CorruptionError):
                decode_segment_header(bytes(block), "f")
        block[place] ^= 1 << place % 8
    block[link : link + alignment] = b"\xff" * alignment
    assert decode_segment_header(bytes(block), "f") == header
    assert decode_link(bytes(block), header) is None


def test_segments_of_version_1_stay_as_they_were() -> None:
    for alignment in (8, 256, 512, 4096):
        header = replace(HEADER, alignment=alignment)
        assert (header.link_offset, header.link_end) == (2048, 2096)
        assert header.records_offset == records_offset(1, alignment) == 4096
        assert decode_segment_header(encode_segment_header(header), "f") == header
    assert [version_for(alignment) for alignment in (8, 256, 512, 4096)] == [1, 1, 2, 2]


def test_a_long_header_block_that_is_cut_is_damage() -> None:
    header = replace(HEADER, version=2, alignment=4096)
    block = encode_segment_header(header)
    for size in (4096, 8191):
        with pytest.raises(CorruptionError, match=f"header block, at byte {size}"):
            decode_segment_header(block[:size], "f")
    with pytest.raises(CorruptionError, match="the segment size is 8191") as caught:
        decode_segment_header(forged(48, "<Q", 8191, header), "f")
    assert caught.value.offset == 48


@pytest.mark.parametrize("alignment", [0, 7, 8, 256, 513, 8192])
def test_an_alignment_that_version_2_does_not_have_is_damage(alignment: int) -> None:
    with pytest.raises(CorruptionError, match=f"the alignment is {alignment}") as caught:
        decode_segment_header(
            forged(12, "<I", alignment, replace(HEADER, version=2, alignment=512)), "f"
        )
    assert caught.value.offset == 12


@pytest.mark.parametrize("size", [BLOCK_BYTES, SEGMENT_BYTES_MAX])
def test_the_smallest_and_the_largest_segment_have_headers(size: int) -> None:
    assert (BLOCK_BYTES, SEGMENT_BYTES_MAX) == (4096, 1 << 31)
    header = replace(HEADER, size=size)
    assert decode_segment_header(encode_segment_header(header), "f") == header


@pytest.mark.parametrize("size", [0, 1, 79, 80, 4095])
def test_a_cut_header_block_is_damage(size: int) -> None:
    with pytest.raises(CorruptionError, match="ends inside its header block"):
        decode_segment_header(encode_segment_header(HEADER)[:size], "f")


def test_another_magic_or_a_newer_version_is_no_damage() -> None:
    with pytest.raises(FormatError, match="not a Holdfast log segment"):
        decode_segment_header(forged(0, "<8s", b"\x89HFtab\r\n"), "f")
    with pytest.raises(FormatError, match="log format 3"):
        decode_segment_header(forged(8, "<I", 3), "f")


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (12, "<I", 0),
        (12, "<I", 7),
        (12, "<I", 8192),
        (16, "<Q", 0),
        (48, "<Q", 4095),
        (48, "<Q", SEGMENT_BYTES_MAX + 1),
        (56, "<Q", 12),
        (56, "<Q", 13),
    ],
)
def test_a_header_that_no_writer_makes_is_damage(offset: int, layout: str, value: int) -> None:
    with pytest.raises(CorruptionError) as caught:
        decode_segment_header(forged(offset, layout, value), "f")
    assert caught.value.offset == offset


def test_a_link_of_another_segment_is_none() -> None:
    for link in (replace(LINK, segment=13), replace(LINK, previous=8), replace(LINK, lsn_first=0),
                 replace(LINK, lsn_first=2**63)):  # fmt: skip
        block = bytes(LINK_OFFSET) + encode_link(link, HEADER.salt)
        assert decode_link(block, HEADER) is None
    for lsn_first in (1, LSN_MAX):
        link = replace(LINK, lsn_first=lsn_first)
        assert decode_link(bytes(LINK_OFFSET) + encode_link(link, HEADER.salt), HEADER) == link
    assert decode_link(bytes(LINK_OFFSET) + encode_link(LINK, HEADER.salt + 1), HEADER) is None
    assert decode_link(bytes(LINK_OFFSET) + encode_link(LINK, HEADER.salt)[:-1], HEADER) is None


@given(
    st.builds(
        RecordHeader,
        payload_size=st.integers(0, 2**32 - 1),
        segment=u64,
        lsn=u64,
        seq_first=u64,
        durable_lsn=u64,
        manifest_edit=u64,
        chain=u64,
        op_count=st.integers(0, 2**32 - 1),
        type=st.integers(0, 255),
        payload_checksum=u64,
    ),
    u64,
)
def test_record_headers_decode_to_what_was_encoded(header: RecordHeader, salt: int) -> None:
    encoded, digest = encode_record_header(header, salt)
    assert len(encoded) == RECORD_HEADER_BYTES
    assert decode_record_header(memoryview(encoded), salt) == (header, digest)
    assert decode_record_header(memoryview(encoded), salt ^ 1) is None


WELL_FORMED = RecordHeader(
    payload_size=1,
    segment=1,
    lsn=1,
    seq_first=1,
    durable_lsn=0,
    manifest_edit=0,
    chain=0,
    op_count=1,
    type=RecordType.BATCHES,
    payload_checksum=0,
)
END = WELL_FORMED._replace(type=RecordType.END, op_count=0, payload_size=END_PAYLOAD_BYTES)


@pytest.mark.parametrize(
    ("header", "change", "expected"),
    [
        (WELL_FORMED, {}, True),
        (WELL_FORMED, {"lsn": 0}, False),
        (WELL_FORMED, {"lsn": LSN_MAX}, True),
        (WELL_FORMED, {"lsn": LSN_MAX + 1}, False),
        (WELL_FORMED, {"durable_lsn": 1}, False),
        (WELL_FORMED, {"lsn": 9, "durable_lsn": 8}, True),
        (WELL_FORMED, {"lsn": 9, "durable_lsn": 10}, False),
        (WELL_FORMED, {"op_count": 0}, False),
        (WELL_FORMED, {"payload_size": 0}, False),
        (WELL_FORMED, {"seq_first": 0}, False),
        (WELL_FORMED, {"seq_first": SEQ_MAX}, True),
        (WELL_FORMED, {"seq_first": SEQ_MAX + 1}, False),
        (WELL_FORMED, {"seq_first": SEQ_MAX, "op_count": 2}, False),
        (WELL_FORMED, {"seq_first": SEQ_MAX - 1, "op_count": 2}, True),
        (WELL_FORMED, {"type": 0}, False),
        (END, {}, True),
        (END, {"op_count": 1}, False),
        (END, {"payload_size": END_PAYLOAD_BYTES - 1}, False),
        (END, {"payload_size": END_PAYLOAD_BYTES + 1}, False),
        (END, {"seq_first": 0}, True),
        (END, {"seq_first": SEQ_MAX + 1}, True),
        (END, {"seq_first": SEQ_MAX + 2}, False),
    ],
)
def test_a_header_is_well_formed_up_to_its_bounds(
    header: RecordHeader, change: dict[str, int], expected: bool
) -> None:
    assert is_well_formed(header._replace(**change)) is expected


def chained(first: dict[str, int], second: dict[str, int], gap: int = 0) -> bytes:
    """A segment with an unreadable header block and two records, up to the second one's header."""
    one, digest = encode_record_header(WELL_FORMED._replace(lsn=5, payload_size=9, **first), 77)
    plain = {"lsn": 6, "chain": digest, **second}
    two, _ = encode_record_header(WELL_FORMED._replace(**plain), 77)
    return bytes(BLOCK_BYTES + gap) + one.ljust(record_bytes(9, 512), b"\xee") + two


def test_two_neighbours_that_agree_are_records() -> None:
    assert has_chained_records(chained({}, {}), 1, 4, 512)
    assert has_chained_records(chained({}, {}, gap=512), 1, 4, 512)
    assert not has_chained_records(chained({}, {}), 1, 5, 512), "the first one is not above it"
    assert not has_chained_records(chained({}, {}), 2, 4, 512)
    assert not has_chained_records(chained({}, {})[:-1], 1, 4, 512)
    assert not has_chained_records(chained({}, {})[BLOCK_BYTES:], 1, 4, 512), "that is the header"
    for changed in ({"segment": 2}, {"lsn": 7}, {"lsn": 5}, {"chain": 8}):
        assert not has_chained_records(chained({}, changed), 1, 4, 512)
    assert not has_chained_records(chained({"segment": 2}, {}), 1, 4, 512)
    damaged = bytearray(chained({}, {}))
    damaged[-RECORD_HEADER_BYTES] ^= 1
    assert not has_chained_records(bytes(damaged), 1, 4, 512), "the second one is no record"
    assert not has_chained_records(bytes(2 * BLOCK_BYTES), 1, 4, 512)
    assert not has_chained_records(b"", 1, 4, 512)


def test_sizes_are_rounded_up_to_the_alignment() -> None:
    assert [align_up(size, 8) for size in (0, 1, 8, 9)] == [0, 8, 8, 16]
    assert record_bytes(1, 512) == 512
    assert record_bytes(433, 512) == 1024
    assert [value for value in range(-8, 9000) if is_alignment(value)] == [
        2**n for n in range(3, 13)
    ]
