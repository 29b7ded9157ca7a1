"""What the fuzzers found, each as the smallest input that showed it."""

import json
import struct
import time
from collections import defaultdict
from dataclasses import replace

import pytest

from holdfast.base import DELETE, CorruptionError, DatabaseSettings, KeyspaceSettings
from holdfast.bufferpool import BufferPool
from holdfast.cli.csv_table import Columns
from holdfast.cli.stats_table import live_lines
from holdfast.codec import checksum
from holdfast.engine.live_format import LIVE_HEADER_BYTES, decode_live
from holdfast.env import PosixEnv, SimEnv
from holdfast.manifest import Version, VersionEdit, encode_edit
from holdfast.manifest.format import Header, encode_record, manifest_name
from holdfast.manifest.salvage import salvage_edits
from holdfast.memtable import Memtable
from holdfast.recovery import apply_payload
from holdfast.sstable import FOOTER_BYTES, Footer, Handle, PageType
from holdfast.sstable.salvage import TableSalvage
from holdfast.testing import fuzz_live, fuzz_log, fuzz_manifest, fuzz_table, fuzz_table_model
from holdfast.wal.format import decode_segment_header


def test_settings_that_are_nested_too_deeply_are_no_settings():
    """The parser of TOML calls itself for each bracket: it ended in RecursionError."""
    for depth in (2_000, 5_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            DatabaseSettings.from_text("a=" + "[" * depth)


def test_settings_of_any_length_take_little_time():
    """The parser of TOML takes quadratic time for a long dotted name."""
    with pytest.raises(ValueError, match="the limit is 16384"):
        DatabaseSettings.from_text("a" + ".a" * (1 << 20) + " = 1")


def test_a_record_of_columns_that_is_nested_too_deeply_is_none():
    """The parser of JSON calls itself for each bracket: it ended in RecursionError."""
    with pytest.raises(ValueError, match="nested too deeply"):
        Columns.decode(b"[" * 100_000)


@pytest.mark.parametrize("name", [b"\\ud800", b"\xed\xa0\x80"])
def test_half_a_character_is_no_name_of_a_column(name):
    """JSON can spell half of a surrogate pair; an export of such a keyspace ended in
    UnicodeEncodeError.
    """
    record = b'{"format":1,"columns":["a","%s"],"key":["a"]}' % name
    with pytest.raises(ValueError, match="not Unicode text"):
        Columns.decode(record)


def test_a_page_of_a_sparse_file_is_no_longer_than_pages_can_be(tmp_path):
    """A sparse file of any size has room for a page of any size, which was allocated and read."""
    size = (1 << 36) + FOOTER_BYTES
    for root in (Handle(0, 1 << 36, 0), Handle(16, (1 << 31) + 16, 0)):
        path = tmp_path / f"{root.size}.table"
        with open(path, "wb") as file:
            file.truncate(size - FOOTER_BYTES)
            file.seek(0, 2)
            file.write(Footer(bytes(16), 1, root, None, Handle(0, 16, 0), size).encode())
        for module in fuzz_table.READERS:
            file = PosixEnv().open(str(path))
            with pytest.raises(CorruptionError, match="more than a page can have"):
                module.TableReader(file, 1, bytes(16), BufferPool(1 << 20))
            file.close()


class SparseFile(fuzz_table.MemoryFile):
    """A table behind a hole of 2**40 bytes, whose pages are all read from where they would be."""

    HOLE = 1 << 40

    def __init__(self, data):
        footer = Footer.decode(data[-FOOTER_BYTES:], "f", len(data))
        moved = replace(footer, file_size=len(data) + self.HOLE)
        super().__init__(data[:-FOOTER_BYTES] + moved.encode())

    def size(self):
        return super().size() + self.HOLE

    def read_at(self, offset, count):
        assert count < 1 << 31, "a page of any size is read"
        return super().read_at(offset - self.HOLE * (offset >= self.HOLE), count)


@pytest.mark.parametrize("module", fuzz_table.READERS)
def test_a_handle_of_an_index_is_no_longer_than_pages_can_be(module):
    """The compiled reader has its own check of the handles in index entries."""
    table = fuzz_table_model.Table.parse(next(iter(fuzz_table.seed_tables())))
    root = table.root.node
    (refs,) = root.refs.values()
    refs[0] = fuzz_table_model.Ref(None, 0, (1 << 31) + 16, 0)
    file = SparseFile(table.encode())
    reader = module.TableReader(file, fuzz_table.NUMBER, fuzz_table.FILE_ID, BufferPool(1 << 20))
    with pytest.raises(CorruptionError, match="more than a page can have"):
        reader.get(b"door/front", 99)


def test_a_sparse_segment_is_no_longer_than_segments_can_be():
    """A segment is read whole, and a sparse file may have any size."""
    block = next(iter(fuzz_log.seed_segments()))[:4096]
    header = block[:48] + (1 << 40).to_bytes(8, "little") + block[56:72]
    block = header + checksum(header).to_bytes(8, "little") + block[80:]
    with pytest.raises(CorruptionError, match="the segment size is 1099511627776"):
        decode_segment_header(block, "f")


def test_a_deletion_copies_no_value():
    """Under the sanitizers: zero bytes were copied from NULL, by a new and by a replaced entry."""
    table = Memtable()
    for _ in range(2):
        table.put(7, DELETE, b"key", b"")
    memtables = {1: table}
    apply_payload(b"\x01\x00\x01\x03key", 0, 7, 8, memtables, {}, 2)
    apply_payload(b"\x01\x00\x01\x03key", 0, 7, 8, memtables, {}, 2)
    assert table.get(b"key", 9) == (8, DELETE, b"")


@pytest.mark.parametrize(("keyspaces", "level"), [(4_000, 1), (1, 0), (1, 1)])
def test_a_long_manifest_takes_linear_time(keyspaces, level):
    """Each table was compared with each keyspace, and in level 0 with each table."""
    count = 4_000
    settings = KeyspaceSettings()
    (_, _, table), *_ = fuzz_manifest.seed_edits()[0].tables_added
    edit = VersionEdit(
        keyspaces_created=[(number, f"k{number}", settings) for number in range(keyspaces)],
        tables_added=[
            (
                number % keyspaces,
                level,
                replace(
                    table,
                    number=number + 1,
                    lower=b"%06d" % number,
                    upper=b"%06d." % number,
                    seq_min=number + 1,
                    seq_max=number + 1,
                ),
            )
            for number in range(count)
        ],
        flushed_seq=dict.fromkeys(range(keyspaces), count),
        next_number=count + 1,
        next_keyspace_id=keyspaces,
    )
    began = time.process_time()
    version = Version().apply(edit)
    assert len(version.table_numbers()) == count
    # It took 3 seconds and more, and takes a twentieth of one.
    assert time.process_time() - began < 0.8


def live_with(**changes):
    """The content of LIVE with other values in its figures, under a checksum that matches."""
    target = fuzz_live.LiveTarget()
    data = next(iter(target.seeds()))
    plain = json.loads(data[LIVE_HEADER_BYTES:])
    plain["stats"].update(changes)
    payload = json.dumps(plain).encode()
    head = [*struct.unpack_from("<8sIIQQ", data)]
    head[2] = len(payload)
    return fuzz_live.sealed(head, payload)


def test_a_figure_that_no_float_holds_is_none():
    """It ended in OverflowError, and one that rounds up to the limit was taken but not written."""
    for figure in (10**400, (1 << 64) - 1):
        with pytest.raises(ValueError, match="which is no float"):
            decode_live(live_with(seconds_open=figure))


def test_a_text_of_another_process_does_not_reach_the_terminal_as_it_is():
    """Half a surrogate pair ended in UnicodeEncodeError; names of latencies were printed raw."""
    with pytest.raises(ValueError, match="surrogates"):
        decode_live(live_with(background_error="\ud800"))
    figures = decode_live(live_with(background_error="/db-\udcff: \x1b[2J"))
    latency = replace(figures.stats.latencies[0], name="\x1b[31m")
    figures = replace(figures, stats=replace(figures.stats, latencies=(latency,)))
    text = "".join(live_lines(figures, defaultdict(float)))
    assert text.isprintable()
    assert "failed: /db-\\xff: \\x1b[2J" in text


def test_salvage_takes_the_edits_of_every_alignment():
    """It took the alignment under which most were whole, so an edit in front of damage was lost
    when as many stood behind it that look right under another one.
    """
    header = Header(42, bytes(16), 7, 512)
    data, chain = header.encode(), header.chain
    for number, alignment in ((8, 512), (9, 8)):
        encoded, chain = encode_record(
            encode_edit(VersionEdit(last_seq=number)), number, chain, header.salt,
            offset=len(data), alignment=alignment,
        )  # fmt: skip
        # The second one stands where the first one's sectors do not end.
        data = (data + encoded).ljust(1024 + 8, b"\0") if number == 8 else data + encoded
    env = SimEnv()
    file = env.create(manifest_name(42), site="test")
    file.write_at(0, data, site="test")
    file.close()
    assert [number for number, _ in salvage_edits(env, "/", [42]).edits] == [8, 9]


def test_salvage_of_an_ingested_table_steps_over_pages_that_cannot_be_of_one():
    """A page whose checksum held and whose entries had numbers of their own ended the repair."""
    tables = [fuzz_table_model.Table.parse(data) for data in fuzz_table.seed_tables()]
    table = next(t for t in tables if t.version == 2)
    pages = table.of_type(PageType.DATA)
    assert len(pages) > 2
    entry = pages[1].page.entries[0]
    entry.trailer = 7 << 8 | 1
    salvage = TableSalvage(
        fuzz_table.MemoryFile(table.encode()), table.number, stamp=fuzz_table.STAMP
    )
    entries = list(salvage.entries())
    assert len(entries) == salvage.entry_count > 0
    assert {trailer >> 8 for _, trailer, _ in entries} == {fuzz_table.STAMP}
    assert salvage.gaps
