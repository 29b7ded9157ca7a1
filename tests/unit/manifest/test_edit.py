"""The codec of edits: what goes in comes out, and only what it writes is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import CorruptionError, FormatError, KeyspaceSettings
from holdfast.manifest import VersionEdit, decode_edit, encode_edit
from holdfast.sstable import TableInfo

U64 = st.integers(0, 2**64 - 1)
NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
SETTINGS = st.builds(
    KeyspaceSettings,
    memtable_bytes=st.integers(4096, 2**30),
    compression=st.sampled_from(["none", "lz4", "zstd"]),
    level_ratio=st.integers(2, 100),
)
TABLES = st.builds(
    TableInfo,
    number=U64,
    file_id=st.binary(min_size=16, max_size=16),
    size_bytes=U64,
    lower=st.binary(max_size=20),
    upper=st.binary(max_size=20),
    seq_min=U64,
    seq_max=U64,
    entry_count=U64,
    delete_count=U64,
    range_tombstone_count=U64,
    raw_bytes=U64,
    root_checksum=U64,
    created_us=U64,
)
EDITS = st.builds(
    VersionEdit,
    keyspaces_dropped=st.lists(U64, max_size=3).map(tuple),
    keyspaces_created=st.lists(st.tuples(U64, NAMES, SETTINGS), max_size=3).map(tuple),
    tables_removed=st.lists(st.tuples(U64, U64, U64), max_size=3).map(tuple),
    tables_added=st.lists(st.tuples(U64, U64, TABLES), max_size=3).map(tuple),
    flushed_seq=st.dictionaries(U64, U64, max_size=3),
    next_number=st.none() | U64,
    next_keyspace_id=st.none() | U64,
    last_seq=st.none() | U64,
    wal_first=st.none() | U64,
    wal_first_lsn=st.none() | U64,
    durable_lsn=st.none() | U64,
    clean=st.booleans(),
    settings_text=st.none() | NAMES,
)

EDIT = VersionEdit(
    keyspaces_dropped=(3,),
    keyspaces_created=((5, "metrics", KeyspaceSettings()),),
    tables_removed=((1, 2, 300),),
    flushed_seq={1: 7, 5: 2**40},
    next_number=301,
    clean=True,
)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(tag: int, body: bytes) -> bytes:
    return varint(tag) + varint(len(body)) + body


def settings_field(*pairs: tuple[bytes, bytes], count: int | None = None) -> bytes:
    """A KEYSPACE_CREATED field with these settings."""
    body = varint(9) + b"\x01k" + varint(len(pairs) if count is None else count)
    for name, value in pairs:
        body += varint(len(name)) + name + varint(len(value)) + value
    return field(4, body)


@given(EDITS)
def test_what_is_encoded_is_decoded_and_encoded_alike(edit: VersionEdit) -> None:
    payload = encode_edit(edit)
    again = decode_edit(payload, "f", 0)
    assert again == edit
    assert encode_edit(again) == payload


@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_number_that_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        encode_edit(VersionEdit(next_number=value))


def test_every_cut_is_damage_or_ends_between_fields() -> None:
    """A payload cut short is CorruptionError, except where a field ends."""
    payload = encode_edit(EDIT)
    whole = 0
    for size in range(len(payload)):
        try:
            decode_edit(payload[:size], "f", 0)
            whole += 1
        except CorruptionError as exc:
            assert exc.file == "f"
            assert 0 <= exc.offset <= size
    assert whole == 7


def test_every_flipped_bit_is_an_edit_or_an_error_of_ours() -> None:
    payload = encode_edit(EDIT)
    for index in range(len(payload) * 8):
        damaged = bytearray(payload)
        damaged[index // 8] ^= 1 << index % 8
        try:
            decode_edit(bytes(damaged), "f", 0)
        except (CorruptionError, FormatError):
            pass


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_edit_or_an_error_of_ours(data: bytes) -> None:
    try:
        decode_edit(data, "f", 0)
    except (CorruptionError, FormatError):
        pass


def test_a_critical_tag_that_is_unknown_is_newer_and_another_is_skipped() -> None:
    newer = field(12, varint(5)) + field(1000, b"whatever")
    with pytest.raises(FormatError, match="newer"):
        decode_edit(newer, "f", 0)
    skipped = field(12, varint(5)) + field(13, b"whatever") + field(13, b"") + field(22, b"")
    assert decode_edit(skipped, "f", 0) == VersionEdit(next_number=5, clean=True)


def test_a_setting_that_is_unknown_is_newer_and_one_that_is_absent_has_its_default() -> None:
    with pytest.raises(FormatError, match="shiny"):
        decode_edit(settings_field((b"shiny", b"1")), "f", 0)
    decoded = decode_edit(settings_field((b"level_ratio", b"7")), "f", 0)
    assert decoded.keyspaces_created == ((9, "k", KeyspaceSettings(level_ratio=7)),)


DAMAGED = {
    "tag 0": field(0, b""),
    "tags out of order": field(14, varint(1)) + field(12, varint(1)),
    "a number twice": field(12, varint(1)) + field(12, varint(1)),
    "clean twice": field(22, b"") + field(22, b""),
    "body too long": field(12, varint(1) + b"\x00"),
    "body too short": field(6, varint(1) + varint(1)),
    "clean with a body": field(22, b"\x00"),
    "field longer than the rest": varint(12) + varint(2**63) + b"\x01",
    "varint not minimal": varint(12) + varint(2) + b"\x81\x00",
    "varint over 64 bits": varint(12) + varint(10) + b"\xff" * 9 + b"\x02",
    "varint of 11 bytes": varint(12) + varint(11) + b"\x80" * 10 + b"\x01",
    "varint cut": varint(12) + varint(1) + b"\x80",
    "flushed out of order": field(10, b"\x02\x01") + field(10, b"\x01\x01"),
    "flushed twice": field(10, b"\x01\x01") + field(10, b"\x01\x01"),
    "name not UTF-8": field(4, b"\x09\x01\xff\x00"),
    "name longer than the field": field(4, b"\x09\x7fk"),
    "count of settings too high": settings_field((b"level_ratio", b"7"), count=2**60),
    "settings out of order": settings_field((b"page_bytes", b"4096"), (b"level_ratio", b"7")),
    "setting twice": settings_field((b"level_ratio", b"7"), (b"level_ratio", b"7")),
    "setting out of range": settings_field((b"level_ratio", b"1")),
    "setting not a number": settings_field((b"level_ratio", b"x")),
    "setting negative": settings_field((b"level_ratio", b"-7")),
    "setting with leading zero": settings_field((b"level_ratio", b"07")),
    "setting of many digits": settings_field((b"level_ratio", b"7" * 10_000)),
    "setting of another alphabet": settings_field((b"level_ratio", "\u0667".encode())),
    "compression unknown": settings_field((b"compression", b"brotli")),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_no_version_writes_is_damage(case: str) -> None:
    with pytest.raises(CorruptionError) as caught:
        decode_edit(DAMAGED[case], "f", 1000)
    assert 1000 <= caught.value.offset <= 1000 + len(DAMAGED[case])


def test_a_file_id_of_the_wrong_size_is_not_written() -> None:
    table = TableInfo(
        number=1, file_id=b"short", size_bytes=1, lower=b"", upper=b"a", seq_min=0, seq_max=0,
        entry_count=1, delete_count=0, range_tombstone_count=0, raw_bytes=0, root_checksum=0,
        created_us=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="16 bytes"):
        encode_edit(VersionEdit(tables_added=((0, 0, table),)))


@pytest.mark.parametrize(
    ("payload", "reason", "place"),
    [
        # A number whose last byte would be the tag of the field behind it.
        (b"\x0c\x01\x80\x16\x00", "a number is cut short", 102),
        # A name of five bytes in a field that has two left.
        (b"\x04\x04\x07\x05ab\x16\x00\x00\x00", "of 5 bytes does not fit the 2", 104),
    ],
)
def test_a_value_does_not_reach_into_the_next_field(
    payload: bytes, reason: str, place: int
) -> None:
    with pytest.raises(CorruptionError, match=reason) as caught:
        decode_edit(payload, "f", 100)
    assert caught.value.offset == place


def test_an_edit_that_says_nothing_is_not_clean() -> None:
    assert VersionEdit().clean is False
    assert decode_edit(b"", "f", 0) == VersionEdit()
