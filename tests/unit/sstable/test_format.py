"""Footer, handles, properties and infos survive encoding; every damaged form is refused."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import CorruptionError, FormatError
from holdfast.codec import checksum
from holdfast.sstable.format import (
    FOOTER_BYTES,
    NO_PAGE,
    Footer,
    Handle,
    TableInfo,
    decode_handle,
    decode_index_value,
    decode_properties,
    decode_root_value,
    encode_properties,
    key_range,
    separator,
)

FOOTER = Footer(bytes(range(16)), 7, Handle(0, 50, 1), Handle(50, 40, 2), Handle(90, 30, 3), 248)
INFO = TableInfo(
    number=7,
    file_id=bytes(range(16)),
    size_bytes=248,
    lower=b"a",
    upper=b"c",
    seq_min=1,
    seq_max=9,
    entry_count=3,
    delete_count=1,
    range_tombstone_count=2,
    raw_bytes=99,
    root_checksum=1,
    created_us=1_700_000_000_000_000,
)


def resealed(data: bytes, position: int, replacement: bytes) -> bytes:
    """Return a footer with some bytes replaced and a checksum that fits."""
    changed = data[:position] + replacement + data[position + len(replacement) :]
    return changed[:-8] + struct.pack("<Q", checksum(changed[:-8]))


def test_a_footer_is_what_it_was() -> None:
    data = FOOTER.encode()
    assert len(data) == FOOTER_BYTES == 128
    assert Footer.decode(data, "7.table", 248) == FOOTER


def test_a_footer_without_range_tombstones_is_what_it_was() -> None:
    footer = dataclasses.replace(FOOTER, tombstones=None)
    assert Footer.decode(footer.encode(), "7.table", 248) == footer


@pytest.mark.parametrize("bit", range(FOOTER_BYTES * 8))
def test_every_flipped_bit_of_a_footer_is_found(bit: int) -> None:
    data = bytearray(FOOTER.encode())
    data[bit >> 3] ^= 1 << (bit & 7)
    with pytest.raises(CorruptionError):
        Footer.decode(bytes(data), "7.table", 248)


@pytest.mark.parametrize(
    ("position", "replacement", "reason"),
    [
        (8, struct.pack("<I", 0), "unknown version"),
        (12, b"\x01", "reserved"),
        (112, struct.pack("<Q", 249), "249 bytes"),
        (40, struct.pack("<QQ", 0, 0), "less than a page trailer"),
        (40, struct.pack("<QQ", 0, 15), "less than a page trailer"),
        (40, struct.pack("<QQ", 80, 41), "behind the last page"),
        (40, struct.pack("<QQ", 2**64 - 1, 2**64 - 1), "behind the last page"),
        (64, struct.pack("<QQ", 1, 0), "less than a page trailer"),
        (88, struct.pack("<QQ", 200, 20), "behind the last page"),
    ],
)
def test_impossible_footers_are_damage(position: int, replacement: bytes, reason: str) -> None:
    with pytest.raises(CorruptionError, match=reason) as caught:
        Footer.decode(resealed(FOOTER.encode(), position, replacement), "7.table", 248)
    assert (caught.value.file, caught.value.offset) == ("7.table", 120)


def test_a_footer_of_an_ingested_table_is_of_version_2() -> None:
    footer = dataclasses.replace(FOOTER, is_ingested=True)
    data = footer.encode()
    assert (data[8], FOOTER.encode()[8]) == (2, 1)
    assert Footer.decode(data, "7.table", 248) == footer == Footer.as_stored(data)


def test_a_newer_version_is_not_damage() -> None:
    newer = resealed(FOOTER.encode(), 8, struct.pack("<I", 3))
    with pytest.raises(FormatError, match="version 3"):
        Footer.decode(newer, "7.table", 248)


@pytest.mark.parametrize("size", [0, 1, 127])
def test_a_file_shorter_than_a_footer_is_damage(size: int) -> None:
    with pytest.raises(CorruptionError):
        Footer.decode(bytes(size), "7.table", size)


U64 = st.integers(min_value=0, max_value=2**64 - 1)


@given(st.builds(Handle, U64, U64, U64), st.binary(max_size=4))
def test_a_handle_is_what_it_was(handle: Handle, behind: bytes) -> None:
    encoded = handle.encode()
    assert decode_handle(encoded + behind) == (handle, len(encoded))
    for size in range(len(encoded)):
        with pytest.raises(ValueError, match=r"."):
            decode_handle(encoded[:size])


def test_index_values_hold_exactly_one_page() -> None:
    handle = Handle(10, 20, 5)
    assert decode_index_value(handle.encode(), 30) == handle
    for value, limit in [
        (handle.encode() + b"\x00", 30),
        (handle.encode(), 29),
        (Handle(10, 15, 5).encode(), 30),
        (NO_PAGE.encode(), 30),
        (b"", 30),
    ]:
        with pytest.raises(ValueError, match=r"."):
            decode_index_value(value, limit)


def test_root_values_hold_a_page_and_perhaps_a_filter() -> None:
    index, bloom = Handle(10, 20, 5), Handle(30, 88, 6)
    assert decode_root_value(index.encode() + bloom.encode(), 118) == (index, bloom)
    assert decode_root_value(index.encode() + NO_PAGE.encode(), 30) == (index, None)
    for value in (
        index.encode(),
        index.encode() + bloom.encode() + b"\x00",
        NO_PAGE.encode() + bloom.encode(),
        index.encode() + Handle(0, 0, 1).encode(),
        index.encode() + Handle(31, 88, 6).encode(),
    ):
        with pytest.raises(ValueError, match=r"."):
            decode_root_value(value, 118)


def test_properties_are_sorted_and_give_the_info_back() -> None:
    properties = encode_properties(INFO, 1)
    assert [name for name, _ in properties] == sorted(name for name, _ in properties)
    assert decode_properties(FOOTER, dict(properties) | {b"unknown": b"ignored"}) == INFO


@pytest.mark.parametrize("name", [name for name, _ in encode_properties(INFO, 1)])
def test_a_missing_or_short_property_is_refused(name: bytes) -> None:
    properties = dict(encode_properties(INFO, 1))
    if name == b"compression":
        return
    with pytest.raises(ValueError, match="missing"):
        decode_properties(FOOTER, {key: value for key, value in properties.items() if key != name})
    with pytest.raises(ValueError, match=r"."):
        decode_properties(FOOTER, properties | {name: b"zzzz"[: 4 if name != b"upper" else 0]})


@pytest.mark.parametrize(
    "change",
    [
        {"file_id": b"short"},
        {"upper": b"a"},
        {"upper": b"b" * 65538},
        {"seq_min": 10},
        {"seq_max": 2**56},
        {"delete_count": 4},
        {"range_tombstone_count": -1},
        {"entry_count": 0, "delete_count": 0, "range_tombstone_count": 0},
        {"size_bytes": 127},
        {"number": -1},
    ],
)
def test_impossible_infos_have_a_problem(change: dict[str, object]) -> None:
    assert INFO.problem() is None
    assert dataclasses.replace(INFO, **change).problem() is not None


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (None, None, True),
        (b"a", b"c", True),
        (b"c", None, False),
        (b"b\xff", None, True),
        (None, b"a", False),
        (None, b"a\x00", True),
        (b"b", b"b\x00", True),
    ],
)
def test_overlap_is_of_half_open_ranges(
    lower: bytes | None, upper: bytes | None, expected: bool
) -> None:
    assert INFO.overlaps(lower, upper) is expected


def test_a_key_range_spans_entries_and_tombstones() -> None:
    assert key_range(b"b", b"c", []) == (b"b", b"c\x00")
    assert key_range(None, None, [(b"a", b"d"), (b"b", b"c")]) == (b"a", b"d")
    assert key_range(b"b", b"c", [(b"a", b"b")]) == (b"a", b"c\x00")


@given(st.binary(max_size=6), st.binary(max_size=6), st.integers(0, 99), st.integers(0, 99))
def test_a_separator_lies_between(a: bytes, b: bytes, first: int, second: int) -> None:
    (low, negated_low), (high, negated_high) = sorted([(a, -first), (b, -second)])
    key, trailer = separator(low, -negated_low, high)
    assert (low, negated_low) <= (key, -trailer)
    assert (low, negated_low) == (high, negated_high) or (key, -trailer) < (high, negated_high)
    assert len(key) <= len(low)


def test_a_separator_is_shortened_only_between_keys() -> None:
    assert separator(b"user/0001/zzz", 9, b"user/0002/aaa") == (b"user/0002", 0)
    assert separator(b"user", 9, b"user/0002") == (b"user", 9)
    assert separator(b"user/01", 9, b"user/02") == (b"user/01", 9)
    assert separator(b"user", 9, b"user") == (b"user", 9)
    assert separator(b"user", 9, None) == (b"user", 9)
