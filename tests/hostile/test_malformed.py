"""Fifteen classes of malformed input that broke other storage engines, each tried on our formats.

The numbers are those of the project's list of classes; each test's docstring names the class and a
precedent. Checksums are right wherever the class is about what lies behind them.
"""

import ast
import os
import re
import subprocess
import sys
import tracemalloc

import pytest

from holdfast.base import (
    CorruptionError,
    DatabaseSettings,
    FormatError,
    pack_trailer,
)
from holdfast.bufferpool import BufferPool, Page
from holdfast.codec import checksum, encode_varint, page_seed
from holdfast.codec.zstandard import zstd_compress
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.manifest import Version, VersionEdit, decode_edit, decode_manifest, encode_edit
from holdfast.recovery import check_folder
from holdfast.sstable import FOOTER_BYTES, PageType
from holdfast.testing import fuzz, fuzz_folder, fuzz_log, fuzz_manifest, fuzz_table
from holdfast.testing.fuzz_oracle import twins
from holdfast.testing.fuzz_page import entry_page
from holdfast.testing.fuzz_table_model import Ref, Table
from holdfast.wal import read_log, segment_name
from holdfast.wal.format import BLOCK_BYTES, StopReason, decode_segment_header

HUGE = (1 << 64) - 1
FILE_ID = fuzz_table.FILE_ID
SEED = page_seed(FILE_ID, 0)

PAGES = twins("sstable._page")
FILTERS = twins("sstable._filter")
READERS = twins("sstable._reader")
ENVELOPES = twins("codec._envelope")
LZ4S = twins("codec._lz4")
SCANS = twins("wal._scan")

pages = pytest.mark.parametrize("twin", PAGES)
filters = pytest.mark.parametrize("twin", FILTERS)
readers = pytest.mark.parametrize("twin", READERS)
envelopes = pytest.mark.parametrize("twin", ENVELOPES)
scans = pytest.mark.parametrize("twin", SCANS)


def versions(count=6):
    return [(b"key%03d" % n, pack_trailer(9, 1), b"value%d" % n) for n in range(count)]


def refuse_page(twin, body, reason, page_type=PageType.DATA):
    with pytest.raises(CorruptionError, match=reason):
        twin.decode_entries(Page(body, page_type), "f", 0)


def sealed(payload, compression, size):
    """A page with this payload and body length, whose checksum is right."""
    page = payload + bytes([compression, 1, 0, 0]) + size.to_bytes(4, "little")
    return page + checksum(page, SEED).to_bytes(8, "little")


def refuse_sealed(twin, payload, compression, size, reason):
    """Refuse a page, and ask for little memory before that."""
    page = sealed(payload, compression, size)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match=reason):
            twin.open_page(page, SEED, "f", 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A frame that is a bomb is expanded as far as the page says, where that may be true.
    assert peak < 255 * 4 * len(page) + (4 << 20)


def table(index=4):
    """One of the seed tables, taken apart: several pages, filters, range tombstones."""
    return Table.parse(list(fuzz_table.seed_tables())[index])


def opened(twin, data, info=None):
    file = fuzz_table.MemoryFile(data)
    return twin.TableReader(file, fuzz_table.NUMBER, FILE_ID, BufferPool(1 << 20), info)


def first_index_entry(parts):
    (node, entry) = next(parts.entries(PageType.INDEX))
    return node, entry, node.refs[id(entry)]


def folder(index=1):
    """The files of a small database: 0 has a log only, 1 tables and a log, 2 was closed."""
    return fuzz_folder.parse_archive(list(fuzz_folder.FolderTarget().seeds())[index])


def written(machine, files, name="/db"):
    machine.make_dir(name, site="test")
    for each, content in files.items():
        file = machine.create(f"{name}/{each}", site="test")
        file.write_at(0, content, site="test")
        file.sync(site="test")
        file.close()
    machine.sync_dir(name, site="test")
    return machine


def content(machine):
    with open_database("/db", create=False, env=machine) as database:
        return {name: list(database.keyspace(name).items()) for name in database.keyspaces()}


# 1


@pages
@pytest.mark.parametrize(
    "lengths",
    [(0, HUGE, HUGE), (0, 3, HUGE - 10), (0, HUGE - 7, 8), (0, 1 << 63, 1 << 63), (HUGE, 1, 1)],
)
def test_1_lengths_whose_sum_wraps_round(twin, lengths):
    """Length and trailer wrap round so that every later check agrees: LevelDB #1310."""
    page = entry_page(versions())
    entry = page.entries[-1]
    entry.shared, entry.unshared, entry.value_size = lengths
    refuse_page(twin, page.encode(), "reaches beyond|shares more|longer than keys")


@scans
def test_1_a_payload_whose_end_wraps_round(twin):
    """Length and trailer wrap round so that every later check agrees: LevelDB #1310."""
    for size in (HUGE, HUGE - 8, 1 << 63, (1 << 64) - (1 << 16)):
        payload = b"\x01\x01\x01" + encode_varint(size) + b"key"
        with pytest.raises(ValueError, match="too long at byte"):
            twin.decode_payload(payload, 0, len(payload))


@readers
@pytest.mark.parametrize("field", ["offset", "size"])
def test_1_a_handle_whose_end_wraps_round(twin, field):
    """Length and trailer wrap round so that every later check agrees: LevelDB #1310."""
    parts = table()
    node, entry, _ = first_index_entry(parts)
    place = {"offset": 0, "size": 97} | {field: HUGE - 96}
    node.refs[id(entry)] = [Ref(None, place["offset"], place["size"], 0)]
    with pytest.raises(CorruptionError, match="a page handle"):
        opened(twin, parts.encode()).cursor().seek_first()


# 2


@envelopes
@pytest.mark.parametrize("compression", [1, 2])
def test_2_a_small_page_that_claims_a_huge_body(twin, compression):
    """A length that the file claims is allocated unchecked: LevelDB #1318, a file of 111 bytes."""
    for size in ((1 << 31) - 1, 1 << 31, (1 << 32) - 1):
        refuse_sealed(twin, bytes(20), compression, size, "body length")


@scans
def test_2_counts_and_sizes_that_no_payload_holds(twin):
    """A length that the file claims is allocated unchecked: LevelDB #1318, a file of 111 bytes."""
    put = b"\x01\x01\x01k" + encode_varint(1 << 30)
    for payload in (
        b"\x01" + put,
        encode_varint(HUGE) + put,
        encode_varint(1 << 31) + b"\x00\x00\x00",
    ):
        tracemalloc.start()
        with pytest.raises(ValueError, match="byte"):
            twin.decode_payload(payload, 0, len(payload))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 18


def test_2_an_edit_that_claims_a_huge_field():
    """A length that the file claims is allocated unchecked: LevelDB #1318, a file of 111 bytes."""
    huge = encode_varint(1 << 62)
    created = b"\x01\x01x" + huge
    for edit in (b"\x04" + huge + b"\x01", b"\x04" + bytes([len(created)]) + created):
        tracemalloc.start()
        with pytest.raises(CorruptionError):
            decode_edit(edit, "f", 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 18


# 3


@pages
@pytest.mark.parametrize("count", [7, 1 << 14, 1 << 16, 1 << 30, (1 << 30) + 1, (1 << 32) - 1])
def test_3_a_restart_array_that_is_longer_than_its_page(twin, count):
    """An offset array beyond its block, a product cut to 32 bits: RocksDB #14993, #15209."""
    page = entry_page(versions(), interval=1)
    page.count = count
    refuse_page(twin, page.encode(), "restart")


@pages
@pytest.mark.parametrize("offset", [1, 1 << 16, (1 << 32) - 1, (1 << 32) - 4])
def test_3_restart_offsets_that_are_no_entries(twin, offset):
    """An offset array beyond its block, a product cut to 32 bits: RocksDB #14993, #15209."""
    page = entry_page(versions(), interval=16)
    page.restarts = [0, offset]
    refuse_page(twin, page.encode(), "restart|minimal varint|reaches beyond")


@filters
def test_3_a_block_count_whose_product_is_cut(twin):
    """An offset array beyond its block, a product cut to 32 bits: RocksDB #14993, #15209."""
    body = bytes([6, 0, 0, 0])
    for blocks in (1 << 26, (1 << 26) + 1, 1 << 25, (1 << 32) - 1):
        for held in (0, 1):
            damaged = body + blocks.to_bytes(4, "little") + bytes(64 * held)
            assert twin.filter_check(damaged) is not None
            assert twin.filter_may_contain(damaged, 12345)


# 4


@scans
def test_4_operation_counts_whose_sum_wraps_round(twin):
    """Counts are summed in 32 bits and the original values used to fill: RocksDB #15208."""
    delete = b"\x00\x01\x01k"
    for count in ((1 << 32) + 1, HUGE, 1 << 63):
        payload = encode_varint(count) + delete
        with pytest.raises(ValueError, match="byte"):
            twin.check_payload(payload, 0, len(payload), count & 0xFFFFFFFF)
    payload = (b"\x01" + delete) * 2
    with pytest.raises(ValueError, match="do not add up"):
        twin.check_payload(payload, 0, len(payload), 1)


@pages
def test_4_key_lengths_whose_sum_is_cut(twin):
    """Counts are summed in 32 bits and the original values used to fill: RocksDB #15208."""
    page = entry_page(versions())
    page.entries[-1].shared, page.entries[-1].unshared = 3, (1 << 32) - 2
    refuse_page(twin, page.encode(), "reaches beyond")
    page = entry_page([(b"k" * 65536, 257, b""), (b"k" * 65536 + b"a", 257, b"")])
    refuse_page(twin, page.encode(), "longer than keys can be")


# 5


def test_5_nothing_is_validated_by_assert(root):
    """Validation by assert, gone in a release build: RocksDB #14993; python -O drops asserts."""
    found = []
    for target in fuzz.TARGETS.values():
        for module in target.traced:
            path = root / "src" / "holdfast" / f"{module.replace('.', '/')}.py"
            tree = ast.parse(path.read_text())
            found += [path for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    for path in (root / "src" / "holdfast").rglob("*.p[yx][xd]"):
        found += [
            path for line in path.read_text().splitlines() if line.strip().startswith("assert ")
        ]
    assert not found


def test_5_optimised_python_refuses_the_same(root):
    """Validation by assert, gone in a release build: RocksDB #14993; python -O drops asserts."""
    digests = []
    for options in ([], ["-O"]):
        command = [sys.executable, *options, "-m", "holdfast.testing.fuzz", "edit", "entries"]
        done = subprocess.run(
            [*command, "--in-process", "--executions", "150", "--corpus", "none"],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        digests.append(re.findall(r"digest (\w+)", done.stdout))
    assert digests[0] == digests[1]
    assert len(digests[0]) == 2


# 6


@pages
def test_6_lengths_that_are_wrong_one_by_one_and_right_in_sum(twin):
    """Lengths of rows are trusted because the bounds of all were checked: DuckDB #25062, #21916."""
    page = entry_page(versions(), interval=1)
    page.entries[1].value_size += 1
    page.entries[2].value_size -= 1
    with pytest.raises(CorruptionError):
        twin.decode_entries(Page(page.encode(), PageType.DATA), "f", 0)


@scans
def test_6_operations_that_are_wrong_one_by_one_and_right_in_sum(twin):
    """Lengths of rows are trusted because the bounds of all were checked: DuckDB #25062, #21916."""
    payload = b"\x02" + b"\x01\x01\x01a\x03xyz" + b"\x01\x01\x01b\x03xyz"
    shifted = payload.replace(b"a\x03xyz", b"a\x05xyz").replace(b"b\x03xyz", b"b\x01xyz")
    twin.check_payload(payload, 0, len(payload), 2)
    with pytest.raises(ValueError, match="byte"):
        twin.check_payload(shifted, 0, len(shifted), 2)


# 7


@readers
def test_7_a_forged_table_is_damaged_or_right(twin):
    """Whoever forges a file computes its checksums, too: DuckDB #25062, RocksDB #15213."""
    parts = table()
    (node, entry) = list(parts.entries(PageType.DATA))[5]
    entry.shared = 200
    reader = opened(twin, parts.encode())
    with pytest.raises(CorruptionError, match="shares"):
        cursor = reader.cursor()
        cursor.seek_first()
        while cursor.next():
            pass
    assert [error.offset for error in reader.verify()] == [node.place[0]]


@scans
def test_7_a_forged_record_is_malformed(twin):
    """Whoever forges a file computes its checksums, too: DuckDB #25062, RocksDB #15213."""
    for change in (
        {"payload": b"\x01\x07"},
        {"op_count": 99},
        {"durable_lsn": 41},
        {"seq_first": 0},
        {"zeros": b"\x01\x00\x00"},
        {"type": 7},
        {"padding": b"\x01"},
    ):
        segment = fuzz_log.Segment.parse(next(iter(fuzz_log.seed_segments())))
        for name, value in change.items():
            setattr(segment.records[0], name, value)
        data = segment.encode()
        scan = twin.scan_records(data, BLOCK_BYTES, fuzz_log.SEGMENT, fuzz_log.SALT, 0, 0, 8)
        assert scan.record_count == 0
        assert scan.stop in (StopReason.MALFORMED, StopReason.BAD_PAYLOAD)


# 8


@filters
def test_8_a_filter_without_blocks_or_probes(twin):
    """Division or modulo by a zero that the file holds: RocksDB #15213, table_size 0."""
    for body in (bytes(8), b"\x06" + bytes(7), bytes(4) + b"\x01" + bytes(3 + 64)):
        assert twin.filter_check(body) is not None
        assert twin.filter_may_contain(body, HUGE)


def test_8_settings_and_alignments_of_zero():
    """Division or modulo by a zero that the file holds: RocksDB #15213, page sizes of 0."""
    for text in ("wal_alignment_bytes = 0\n", "[keyspace]\npage_bytes = 0\nrestart_interval = 0\n"):
        with pytest.raises(ValueError, match="must lie between"):
            DatabaseSettings.from_text(text)
    segment = fuzz_log.Segment.parse(next(iter(fuzz_log.seed_segments())))
    segment.header[2] = 0
    with pytest.raises(CorruptionError, match="the alignment is 0"):
        decode_segment_header(segment.encode()[:BLOCK_BYTES], "f")


# 9


@readers
def test_9_a_file_of_another_kind_is_not_taken(twin):
    """Metadata and file disagree, a magic selects another parser: RocksDB #15213."""
    files = folder()
    foreign = {name.rpartition(".")[2]: data for name, data in files.items()}
    with pytest.raises(FormatError, match="not a Holdfast table"):
        opened(twin, foreign["manifest"])
    with pytest.raises(FormatError, match="not a Holdfast manifest"):
        decode_manifest(foreign["table"], "f")
    with pytest.raises((FormatError, CorruptionError)):
        decode_segment_header(foreign["table"].ljust(BLOCK_BYTES, b"\x00"), "f")


@readers
@pytest.mark.parametrize("change", [{"size_added": 1}, {"size_added": -1}, {"gap": b"\x00" * 16}])
def test_9_a_table_of_another_size_than_it_says(twin, change):
    """Metadata and file disagree, a magic selects another parser: RocksDB #15213."""
    parts = table()
    for name, value in change.items():
        setattr(parts, name, value)
    with pytest.raises(CorruptionError):
        reader = opened(twin, parts.encode())
        for error in reader.verify():
            raise error


# 10


@readers
def test_10_an_index_that_contradicts_its_data_is_found(twin):
    """An auxiliary structure is damaged: SQLite Magellan, CVE-2018-20346 and CVE-2019-8457."""
    parts = table()
    entries = list(parts.entries(PageType.INDEX))
    (one, first), (two, second) = entries[0], entries[1]
    one.refs[id(first)], two.refs[id(second)] = two.refs[id(second)], one.refs[id(first)]
    reader = opened(twin, parts.encode())
    reason = "a data page does not lie between its separators"
    assert reason in [error.reason for error in reader.verify()]
    for move in (reader.cursor().seek_first, lambda: reader.cursor().seek(b"key")):
        with pytest.raises(CorruptionError, match=reason):
            move()
    (root,) = parts.of_type(PageType.INDEX_ROOT)
    last = root.page.entries[-1]
    last.suffix += b"\x00"
    last.unshared += 1
    with pytest.raises(CorruptionError, match="an index page does not lie between its separators"):
        opened(twin, parts.encode()).cursor().seek_last()


@readers
def test_10_a_filter_that_denies_its_keys_is_found(twin):
    """An auxiliary structure is damaged: SQLite Magellan, CVE-2018-20346 and CVE-2019-8457."""
    parts = table()
    (page,) = parts.of_type(PageType.FILTER)
    page.body = page.body[:8] + bytes(len(page.body) - 8)
    reasons = {error.reason for error in opened(twin, parts.encode()).verify()}
    assert reasons == {"the filter denies a key of a data page"}


@readers
def test_10_properties_that_contradict_the_entries_are_found(twin):
    """An auxiliary structure is damaged: SQLite's schema, CVE-2018-8740."""
    parts = table()
    for _, entry in parts.entries(PageType.PROPERTIES):
        if entry.suffix == b"raw_bytes":
            entry.value = bytes(8)
    reasons = {error.reason for error in opened(twin, parts.encode()).verify()}
    assert reasons == {"the properties do not describe the entries of the table"}


# 11


@pytest.mark.parametrize("index", range(3))
def test_11_a_log_that_is_cut_anywhere_ends(index):
    """A cut header or padding makes a log reader loop or hide the end: LevelDB #1315."""
    whole = list(fuzz_log.seed_segments())[index]
    for size in (*range(0, len(whole), 7), *range(len(whole) - 90, len(whole))):
        data = whole[:size]
        alignment = 512 if index == 2 else 8
        for twin in SCANS:
            scan = twin.scan_records(
                data, BLOCK_BYTES, fuzz_log.SEGMENT, fuzz_log.SALT, 41, 0, alignment
            )
            assert scan.end_offset <= max(size, BLOCK_BYTES)
        machine = SimEnv()
        name = segment_name(fuzz_log.SEGMENT)
        file = machine.create(name, site="test")
        file.write_at(0, data, site="test")
        file.close()
        log = read_log(
            machine, "/", fuzz_log.SEGMENT, database_id=fuzz_log.DATABASE_ID, alignment=alignment,
            first_lsn=0, durable_lsn=0, manifest_edit_seen=99, clean=False,
        )  # fmt: skip
        with pytest.raises(CorruptionError):
            list(log.records())


def test_11_a_manifest_that_is_cut_anywhere_ends():
    """A cut header or padding makes a log reader loop or hide the end: LevelDB #1315."""
    whole = next(iter(fuzz_manifest.ManifestTarget().seeds()))
    first = decode_manifest(whole, "f").records[1].offset
    for size in range(len(whole)):
        if size < first:
            with pytest.raises(CorruptionError):
                decode_manifest(whole[:size], "f")
        else:
            manifest = decode_manifest(whole[:size], "f")
            assert manifest.end <= size
            assert manifest.is_tail_cut == (manifest.end < size)


# 12


def test_12_a_manifest_that_lists_a_table_twice():
    """Duplicate and cyclic references, keys out of order, newer versions: the classics."""
    snapshot = fuzz_manifest.seed_edits()[0]
    one = snapshot.tables_added[1]
    for added in (
        (one, one),
        (one, (1, 2, one[2])),
        (one, (2, 1, one[2])),
        (one, (1, 1, snapshot.tables_added[0][2])),
    ):
        edit = VersionEdit(
            keyspaces_created=snapshot.keyspaces_created,
            tables_added=added,
            flushed_seq={1: 900, 2: 900},
            next_number=44,
        )
        decoded = decode_edit(encode_edit(edit), "f", 0)
        with pytest.raises(ValueError, match=r"twice|overlap"):
            Version().apply(decoded)


@readers
@pytest.mark.parametrize("target", ["itself", "the root", "one page twice"])
def test_12_an_index_that_names_the_wrong_page(twin, target):
    """Duplicate and cyclic references, keys out of order, newer versions: the classics."""
    parts = table()
    node, entry, refs = first_index_entry(parts)
    (_, second) = list(parts.entries(PageType.INDEX))[1]
    if target == "one page twice":
        node.refs[id(second)] = [Ref(refs[0].node)]
        reader = opened(twin, parts.encode())
        reasons = {error.reason for error in reader.verify()}
        assert "a data page does not follow the one before it" in reasons
    else:
        node.refs[id(entry)] = [Ref(node if target == "itself" else parts.root.node)]
        reader = opened(twin, parts.encode())
        with pytest.raises(CorruptionError):
            reader.cursor().seek_first()
        assert list(reader.verify())


@pages
def test_12_keys_and_sequence_numbers_out_of_order(twin):
    """Duplicate and cyclic references, keys out of order, newer versions: the classics."""
    one, two = (b"a", pack_trailer(9, 1), b""), (b"b", pack_trailer(9, 1), b"")
    older = (b"a", pack_trailer(8, 1), b"")
    for entries in ([two, one], [one, one], [older, one]):
        refuse_page(twin, entry_page(entries).encode(), "out of order")


@scans
def test_12_segments_that_name_themselves_and_numbers_that_go_back(twin):
    """Duplicate and cyclic references, keys out of order, newer versions: the classics."""
    for number in (0, fuzz_log.SEGMENT, fuzz_log.SEGMENT - 1):
        segment = fuzz_log.Segment.parse(list(fuzz_log.seed_segments())[1])
        segment.records[-1].payload = number.to_bytes(8, "little")
        scan = twin.scan_records(
            segment.encode(), BLOCK_BYTES, fuzz_log.SEGMENT, fuzz_log.SALT, 41, 99, 8
        )
        assert (scan.stop, scan.record_count) == (StopReason.MALFORMED, 3)
    segment = fuzz_log.Segment.parse(next(iter(fuzz_log.seed_segments())))
    segment.records[1].seq_first = segment.records[0].seq_first
    scan = twin.scan_records(
        segment.encode(), BLOCK_BYTES, fuzz_log.SEGMENT, fuzz_log.SALT, 41, fuzz_log.SALT, 8
    )
    assert (scan.stop, scan.record_count) == (StopReason.MALFORMED, 1)


@readers
def test_12_files_of_a_newer_version(twin):
    """Duplicate and cyclic references, keys out of order, newer versions: the classics."""
    parts = table()
    parts.version = 3
    with pytest.raises(FormatError, match="version 3"):
        opened(twin, parts.encode())
    segment = fuzz_log.Segment.parse(next(iter(fuzz_log.seed_segments())))
    segment.header[1] = 3
    with pytest.raises(FormatError, match="log format 3"):
        decode_segment_header(segment.encode()[:BLOCK_BYTES], "f")
    with pytest.raises(FormatError, match="newer version"):
        decode_edit(b"\x1a\x00", "f", 0)


def test_12_two_markers_of_one_iteration():
    """Duplicate and cyclic references, keys out of order, newer versions: the classics."""
    for marker in ("CURRENT.1.7", "CURRENT.01.1", "CURRENT.", "CURRENT.1.1 "):
        machine = written(SimEnv(), folder() | {marker: b""})
        with pytest.raises(CorruptionError, match="marker"):
            content(machine)
        machine.cut_power()


# 13


@envelopes
def test_13_a_frame_that_expands_to_another_size(twin):
    """Decompression bombs, wrong sizes, dictionaries: bounded by what the page says."""
    bomb = zstd_compress(bytes(1 << 20))
    for size in (0, 1, 4096, (1 << 20) - 1, (1 << 20) + 1):
        refuse_sealed(twin, bomb, 2, size, "malformed|body length")
    assert twin.open_page(sealed(bomb, 2, 1 << 20), SEED, "f", 0) == (1, bytes(1 << 20))


@envelopes
def test_13_frames_that_no_writer_makes(twin):
    """Decompression bombs, wrong sizes, dictionaries: bounded by what the page says."""
    frame = zstd_compress(b"abc" * 100)
    magic = b"\x28\xb5\x2f\xfd"
    dictionary = magic + bytes([0x21]) + b"\x07" + b"\x03" + b"\x19\x00\x00abc"
    window = magic + b"\x00\xf8" + b"\x19\x00\x00abc"
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    for payload in (dictionary, window, skippable, frame + frame, skippable + frame, frame + b"x"):
        refuse_sealed(twin, payload, 2, 300 if frame in payload else 3, "malformed")


@pytest.mark.parametrize("twin", LZ4S)
def test_13_a_block_that_expands_to_another_size(twin):
    """Decompression bombs, wrong sizes, dictionaries: bounded by what the page says."""
    bomb = twin.lz4_compress(bytes(1 << 18))
    for size in (0, 1, (1 << 18) - 1, (1 << 18) + 1, len(bomb) * 255, len(bomb) * 255 + 1, 1 << 31):
        with pytest.raises(ValueError, match="malformed"):
            twin.lz4_decompress(bomb, size)
    # A distance of 0 and one from before the block: what a dictionary would be.
    for block in (b"\x1fa\x00\x00\x00\x50aaaaa", b"\x1fa\x02\x00\x00\x50aaaaa"):
        with pytest.raises(ValueError, match="malformed"):
            twin.lz4_decompress(block, 25)


# 14


@pytest.mark.parametrize("name", ["00000001.table", "00000002.wal", "00000001.manifest", "LOCK"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "dangling link"])
def test_14_files_that_are_links_pipes_or_folders(tmp_path, name, kind):
    """Path tricks: names that lead elsewhere, links, pipes that block, sparse files, pickles."""
    database = tmp_path / "db"
    with open_database(database) as handle:
        handle[b"key"] = b"value"
        handle.flush()
    found = [each for each in os.listdir(database) if each.endswith(name.rpartition(".")[2])]
    path = database / (sorted(found)[-1] if name != "LOCK" else name)
    outside = tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    else:
        outside.write_bytes(b"precious")
    before = outside.read_bytes()
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "created")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises((OSError, CorruptionError)):
        open_database(database).close()
    assert outside.read_bytes() == before
    assert not (tmp_path / "created").exists()


def test_14_names_that_are_not_ours_are_left_alone():
    """Path tricks: names that lead elsewhere, case that folds, digits of other alphabets."""
    names = ("current.9.9", "Current.9.9", "00000001.TABLE", "0000001.wal", "000000001.table",
             "\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661.wal", "99999999999999999999999.wal",
             "..table", "00000009.table ")  # fmt: skip
    machine = written(SimEnv(), folder() | dict.fromkeys(names, b"precious"))
    expected = content(written(SimEnv(), folder()))
    assert content(machine) == expected
    assert set(names) <= set(machine.list_dir("/db"))


def test_14_nothing_that_is_read_is_run(root):
    """Path tricks: a pickle anywhere runs what it likes; so would eval."""
    banned = {"pickle", "marshal", "shelve", "dill", "cPickle"}
    found = []
    for path in (root / "src" / "holdfast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = [node.func.id] if node.func.id in ("eval", "exec", "__import__") else []
            found += [f"{path}: {name}" for name in names if name in banned | {"eval", "exec"}]
    assert not found


# 15


def test_15_half_files_of_a_full_disk_are_not_taken():
    """Files that a full disk left half written are taken as whole: DuckDB #9667."""
    files = folder()
    expected = content(written(SimEnv(), files))
    tables = [name for name in files if name.endswith(".table")]
    whole = files[tables[0]]
    for size in (0, 1, 100, FOOTER_BYTES, len(whole) // 2, len(whole) - 1):
        # What no manifest names was never finished: it is removed, not read.
        machine = written(SimEnv(), files | {"00000090.table": whole[:size]})
        assert content(machine) == expected
        assert "00000090.table" not in machine.list_dir("/db")
        # What a manifest names was finished: half of it is damage.
        machine = written(SimEnv(), files | {tables[0]: whole[:size]})
        assert not check_folder(machine, "/db").ok
        with pytest.raises(CorruptionError):
            content(machine)
        machine.cut_power()


def test_15_a_half_manifest_or_segment_of_a_full_disk_is_not_taken():
    """Files that a full disk left half written are taken as whole: DuckDB #9667."""
    files = folder()
    expected = content(written(SimEnv(), files))
    manifest = next(data for name, data in files.items() if name.endswith(".manifest"))
    segment = next(data for name, data in files.items() if name.endswith(".wal"))
    for size in (0, 10, 64, 500):
        half = {"00000091.manifest": manifest[:size], "00000092.wal": segment[:size]}
        assert content(written(SimEnv(), files | half)) == expected
    for name in files:
        if name.endswith((".manifest", ".wal")):
            machine = written(SimEnv(), files | {name: files[name][: len(files[name]) // 2]})
            if name.endswith(".wal"):
                with pytest.raises(CorruptionError):
                    content(machine)
            machine.cut_power()
