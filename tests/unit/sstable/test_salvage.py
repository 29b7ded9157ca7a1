"""Salvage of damaged tables: every page that is whole, and the truth about the rest."""

import pytest

from holdfast import CorruptionError, KeyspaceSettings
from holdfast.base import DELETE, MERGE, PUT, unpack_trailer
from holdfast.codec import Compression
from holdfast.env import SimEnv
from holdfast.sstable import FOOTER_BYTES, TableOrigin, TableSalvage, TableWriter

ID = bytes(range(16))
SETTINGS = KeyspaceSettings(page_bytes=256, compression="none", prefix_bytes=3)
ORIGIN = TableOrigin(keyspace=3, name="metrics", settings=SETTINGS, replaces=(1, 5, 6))


def make_table(compression, count=300, *, is_ingested=False):
    """Return (bytes, info, entries) of a table; values do not compress into nothing."""
    env = SimEnv(1)
    entries = []
    with TableWriter(
        env, "/t", 7, ID, settings=SETTINGS, compression=compression, origin=ORIGIN.encode(),
        is_ingested=is_ingested,
    ) as writer:  # fmt: skip
        for number in range(count):
            kind = PUT if is_ingested else (PUT, PUT, DELETE, MERGE)[number % 4]
            value = b"" if kind == DELETE else b"%d " % (number * 7919) * (number % 9)
            entries.append((b"key %05d" % number, 0 if is_ingested else number + 1, kind, value))
            writer.add(*entries[-1])
        if not is_ingested:
            writer.add_range_tombstone(b"a", b"b", 1000)
        info = writer.finish()
    file = env.open("/t")
    data = file.read_at(0, file.size())
    file.close()
    return data, info, entries


def salvage(data, info=None, stamp=0):
    env = SimEnv(2)
    file = env.create("/t", site="test")
    file.write_at(0, data, site="test")
    return TableSalvage(file, 7, info, stamp=stamp)


def found_in(salvaged):
    return [(key, *unpack_trailer(trailer), value) for key, trailer, value in salvaged.entries()]


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("is_known", [True, False])
def test_a_flip_anywhere_loses_one_page_at_most_and_says_which(compression, is_known):
    """Also where index, root, properties and footer are what is damaged."""
    data, info, entries = make_table(compression)
    lost_somewhere = 0
    for at in range(0, len(data), 199):
        damaged = data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :]
        try:
            salvaged = salvage(damaged, info if is_known else None)
        except CorruptionError:
            assert not is_known
            continue
        found = found_in(salvaged)
        assert set(found) <= set(entries)
        assert found == [entry for entry in entries if entry in set(found)]
        lost = [entry for entry in entries if entry not in set(found)]
        if not is_known and not found:
            # The id in the footer is what is damaged: no page can be told from noise.
            assert salvaged.is_empty
            continue
        assert len(lost) < 30
        assert salvaged.lost_entries in (len(lost), None)
        for key, *_ in lost:
            assert any(
                (gap.lower is None or gap.lower <= key) and (gap.upper is None or key < gap.upper)
                for gap in salvaged.gaps
            )
        assert len(salvaged.tombstones) == 1 or salvaged.lost_tombstones != 0
        lost_somewhere += bool(lost)
    assert lost_somewhere > 5


def test_a_table_that_is_cut_keeps_what_is_before_the_cut():
    data, info, entries = make_table(Compression.LZ4)
    salvaged = salvage(data[: len(data) // 2], info)
    found = found_in(salvaged)
    assert found == entries[: len(found)]
    assert 50 < len(found) < 300
    assert salvaged.lost_entries == 300 - len(found)
    assert salvaged.lost_tombstones == 1
    (gap,) = salvaged.gaps
    assert (gap.lower, gap.upper) == (found[-1][0], info.upper)


def test_a_table_says_whose_it_is_and_what_it_replaced():
    data, info, _ = make_table(Compression.NONE)
    salvaged = salvage(data)
    assert salvaged.origin == ORIGIN
    assert salvaged.info == info
    assert salvaged.gaps == []
    assert salvaged.lost_entries == salvaged.lost_tombstones == 0


def test_rows_of_an_ingested_table_get_the_number_that_is_given():
    data, info, entries = make_table(Compression.LZ4, is_ingested=True)
    assert info.seq_max == 0
    damaged = data[:10] + b"\xff" + data[11:]
    found = found_in(salvage(damaged, stamp=44))
    assert found
    assert {seq for _, seq, _, _ in found} == {44}
    assert {(key, value) for key, _, _, value in found} <= {(k, v) for k, _, _, v in entries}


@pytest.mark.parametrize("is_ingested", [True, False])
def test_a_damaged_footer_hides_no_ingested_table(is_ingested):
    """Rows without a number are those of one, whatever the footer says."""
    data, _, entries = make_table(Compression.LZ4, is_ingested=is_ingested)
    for at in range(len(data) - FOOTER_BYTES, len(data), 5):
        damaged = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        salvaged = salvage(damaged, stamp=44)
        if salvaged.is_empty:
            continue  # It is the id that is damaged.
        assert salvaged.is_ingested is is_ingested
        if is_ingested:
            assert {seq for _, seq, _, _ in found_in(salvaged)} == {44}
        else:
            assert found_in(salvaged) == entries


@pytest.mark.parametrize("data", [b"", bytes(100), bytes(5000), b"\x01\x01\x00\x00" * 4000])
def test_what_is_no_table_gives_nothing(data):
    try:
        salvaged = salvage(data)
    except CorruptionError:
        return
    assert salvaged.is_empty


def test_origins_round_trip_and_damaged_ones_are_refused():
    assert TableOrigin.decode(ORIGIN.encode()) == ORIGIN
    plain = TableOrigin(keyspace=0, name="default", settings=KeyspaceSettings())
    assert TableOrigin.decode(plain.encode()) == plain
    assert plain.replacing(frozenset({9, 2})).replaces == (2, 9)
    encoded = ORIGIN.encode()
    for cut in range(len(encoded)):
        with pytest.raises(ValueError, match=r".+"):
            TableOrigin.decode(encoded[:cut])
    with pytest.raises(ValueError, match="too many"):
        TableOrigin.decode(encoded + b"\0")
    for at in range(len(encoded)):
        try:
            TableOrigin.decode(encoded[:at] + bytes([encoded[at] ^ 0x40]) + encoded[at + 1 :])
        except ValueError:
            continue
