"""Goal: the entries of an ingested table have the one number that the manifest gives the table, in
every read of both twins, and a table that only claims to be ingested is damage.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import (
    DELETE,
    PURE,
    PUT,
    SEQ_MAX,
    CorruptionError,
    FormatError,
    pack_trailer,
)
from holdfast.bufferpool import Page
from holdfast.codec import Compression, checksum
from holdfast.sstable import (
    FOOTER_BYTES,
    Footer,
    PageType,
    TableInfo,
    _builder_py,
    _page_c,
    _page_py,
    decode_entries,
)
from tests.twin.test_sstable_page import encode_page
from tests.twin.test_sstable_reader import (
    FILE_ID,
    NUMBER,
    Entry,
    build,
    builders,
    footer_of,
    reader_of,
    twins,
)

SEQ = 77
DAMAGE = "an entry of an ingested table is not a put with the number 0"
ROWS: list[Entry] = [(b"key/%04d" % n, 0, PUT, b"value %d" % n * (n % 9)) for n in range(900)]
STAMPED: list[Entry] = [(key, SEQ, kind, value) for key, _, kind, value in ROWS]
COMPRESSIONS = pytest.mark.parametrize("compression", list(Compression))


def numbered(info: TableInfo, seq: int = SEQ) -> TableInfo:
    """What the manifest says of an ingested table."""
    return replace(info, seq_min=seq, seq_max=seq)


def walk(reader: Any) -> list[Entry]:
    cursor = reader.cursor()
    found = []
    more = cursor.seek_first()
    while more:
        found.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
        more = cursor.next()
    return found


def backward(reader: Any) -> list[Entry]:
    cursor = reader.cursor()
    found = []
    more = cursor.seek_last()
    while more:
        found.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
        more = cursor.prev()
    return found


def resealed(data: bytes, footer: Footer) -> bytes:
    return data[:-FOOTER_BYTES] + footer.encode()


@twins
@builders
@COMPRESSIONS
def test_every_read_gives_the_number_of_the_manifest(
    twin: Any, builder: Any, compression: Compression
) -> None:
    data, info = build(ROWS, builder=builder, compression=compression, is_ingested=True)
    assert (info.seq_min, info.seq_max) == (0, 0)
    reader = reader_of(twin, data, numbered(info))
    assert reader.info == numbered(info)
    for _ in range(4):
        # From the file, from the pool, and from the directories of pages that are hit.
        for key, seq, kind, value in STAMPED[::13]:
            assert reader.get(key, SEQ_MAX) == reader.get(key, seq) == (seq, kind, value)
            assert reader.get(key, SEQ - 1) is None
            assert reader.get(key, 0) is None
            assert reader.get(key + b"x", SEQ_MAX) is None
    assert walk(reader) == STAMPED
    assert backward(reader) == STAMPED[::-1]
    assert list(reader.verify()) == []


@twins
def test_a_seek_goes_by_the_number(twin: Any) -> None:
    data, info = build(ROWS, is_ingested=True, page_bytes=64)
    cursor = reader_of(twin, data, numbered(info)).cursor()
    for index in range(len(ROWS) - 1):
        assert cursor.seek(ROWS[index][0], SEQ)
        assert cursor.key == ROWS[index][0]
        assert cursor.seek(ROWS[index][0], SEQ - 1)
        assert cursor.key == ROWS[index + 1][0]
        assert cursor.seek_before(ROWS[index + 1][0])
        assert cursor.key == ROWS[index][0]
    assert not cursor.seek(ROWS[-1][0], SEQ - 1)


@twins
def test_without_a_manifest_the_number_is_zero(twin: Any) -> None:
    data, info = build(ROWS, is_ingested=True)
    reader = reader_of(twin, data)
    assert reader.info == info
    assert walk(reader) == ROWS
    assert list(reader.verify()) == []


@builders
def test_a_builder_refuses_what_no_ingested_table_has(builder: Any) -> None:
    for entries, tombstones in (
        ([(b"a", 1, PUT, b"")], []),
        ([(b"a", 0, DELETE, b"")], []),
        ([(b"a", 0, PUT, b"")], [(b"a", b"b", 4)]),
        ([], [(b"a", b"b", 4)]),
    ):
        with pytest.raises(ValueError, match="an ingested table has puts with the number 0 only"):
            build(entries, tombstones, builder=builder, is_ingested=True)


def forge(entries: list[Entry], compression: Compression) -> tuple[bytes, TableInfo]:
    """A table that claims to be ingested, and whose properties say so; its entries do not."""
    table = _builder_py.TableBuilder(
        FILE_ID, page_bytes=64, restart_interval=4, filter_bits_per_key=10, compression=compression
    )
    for entry in entries:
        table.add(*entry)
    table._seq_min = table._seq_max = table._delete_count = 0
    table._is_ingested = True
    info = table.finish(NUMBER, 1_700_000_000_000_000)
    return bytes(table.take_output()), info


@twins
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.LZ4, Compression.ZSTD])
@pytest.mark.parametrize("entry", [(b"b", 1, PUT, b""), (b"b", SEQ, PUT, b""), (b"b", 0, 0, b"")])
def test_an_entry_with_a_trailer_of_its_own_is_damage(
    twin: Any, compression: Compression, entry: Entry
) -> None:
    data, info = forge([(b"a", 0, PUT, b""), entry], compression)
    reader = reader_of(twin, data, numbered(info))
    for read in (lambda: reader.get(b"a", SEQ), lambda: walk(reader), lambda: backward(reader)):
        with pytest.raises(CorruptionError) as caught:
            read()
        assert (caught.value.offset, caught.value.reason) == (0, DAMAGE)
    assert DAMAGE in [error.reason for error in reader.verify()]


@twins
def test_two_versions_of_a_key_are_damage(twin: Any) -> None:
    data, info = forge([(b"a", 1, PUT, b"new"), (b"a", 0, PUT, b"old")], Compression.NONE)
    with pytest.raises(CorruptionError, match=DAMAGE):
        reader_of(twin, data, numbered(info)).get(b"a", SEQ)


@twins
def test_verify_finds_a_separator_that_no_writer_makes(twin: Any) -> None:
    """The separator of the only page has the number that readers give its entry."""
    data, info = build([(b"a", 0, PUT, b"")], is_ingested=True, filter_bits_per_key=0)
    sound = reader_of(twin, data, numbered(info))
    assert list(sound.verify()) == []
    forged, info = forge([(b"a", SEQ, PUT, b"")], Compression.NONE)
    assert list(reader_of(twin, forged, numbered(info)).verify())


@twins
@pytest.mark.parametrize(
    ("entries", "tombstones", "reason"),
    [
        ([(b"a", 3, PUT, b"")], [], "an ingested table has sequence numbers of its own"),
        ([(b"a", 0, DELETE, b"")], [], "an ingested table has deletes"),
        ([(b"a", 0, PUT, b"")], [(b"a", b"b", 1)], "an ingested table has range tombstones"),
    ],
)
def test_a_table_that_only_claims_to_be_ingested_is_damage(
    twin: Any, entries: list[Entry], tombstones: Any, reason: str
) -> None:
    data, info = build(entries, tombstones)
    forged = resealed(data, replace(footer_of(data), is_ingested=True))
    for stated in (None, info, numbered(info)):
        with pytest.raises(CorruptionError, match=reason) as caught:
            reader_of(twin, forged, stated)
        assert caught.value.offset == footer_of(data).properties.offset


@twins
def test_an_ingested_table_that_does_not_say_so_is_damage(twin: Any) -> None:
    data, info = build(ROWS, is_ingested=True)
    forged = resealed(data, replace(footer_of(data), is_ingested=False))
    with pytest.raises(CorruptionError, match="the properties differ from what the manifest says"):
        reader_of(twin, forged, numbered(info))


@twins
@pytest.mark.parametrize("seqs", [(1, 2), (0, 7)])
def test_the_manifest_must_give_one_number(twin: Any, seqs: tuple[int, int]) -> None:
    data, info = build(ROWS, is_ingested=True)
    with pytest.raises(CorruptionError, match="one sequence number"):
        reader_of(twin, data, replace(info, seq_min=seqs[0], seq_max=seqs[1]))


@twins
def test_the_manifest_must_describe_the_rest(twin: Any) -> None:
    data, info = build(ROWS, is_ingested=True)
    with pytest.raises(CorruptionError, match="the properties differ from what the manifest says"):
        reader_of(twin, data, replace(numbered(info), entry_count=899))


@twins
def test_a_version_after_that_of_ingested_tables_is_newer(twin: Any) -> None:
    data, _ = build(ROWS, is_ingested=True)
    footer = data[-FOOTER_BYTES:-8]
    footer = footer[:8] + struct.pack("<I", 3) + footer[12:]
    with pytest.raises(FormatError, match="table format version 3; this Holdfast reads 2"):
        reader_of(twin, data[:-FOOTER_BYTES] + footer + struct.pack("<Q", checksum(footer)))


PAGE_MODULES = (_page_py,) if PURE else (_page_c, _page_py)
KEYS = st.sets(st.binary(max_size=4), min_size=1, max_size=30)


@pytest.mark.parametrize("module", PAGE_MODULES)
@given(KEYS, st.integers(0, SEQ_MAX), st.integers(1, 5), st.sampled_from([1, 1, 1, 0, 257]))
def test_stamping_replaces_all_trailers_or_none(
    module: Any, keys: set[bytes], seq: int, interval: int, odd: int
) -> None:
    stored = [(key, 1, b"v" * len(key)) for key in sorted(keys)]
    stored[-1] = stored[-1][0], odd, b""
    page = Page(encode_page(stored, interval), PageType.DATA)
    trailer = pack_trailer(seq, PUT)
    if odd != 1:
        with pytest.raises(CorruptionError) as caught:
            module.stamp_entries(page, trailer, "f", 5)
        assert (caught.value.file, caught.value.offset) == ("f", 5)
        assert caught.value.reason == DAMAGE
    else:
        stamped = module.stamp_entries(page, trailer, "f", 5)
        expected = [(key, trailer, value) for key, _, value in stored]
        assert decode_entries(stamped, "f", 5) == expected
    assert decode_entries(page, "f", 5) == stored


@pytest.mark.parametrize("module", PAGE_MODULES)
def test_a_damaged_page_is_not_stamped(module: Any) -> None:
    with pytest.raises(CorruptionError, match="the page holds no entries"):
        module.stamp_entries(Page(bytes(4), PageType.DATA), 257, "f", 0)
