"""Entries that the compiled twin moves without the GIL are moved as the plain twin moves them."""

from __future__ import annotations

import random
import threading
import time
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import DELETE, KEY_BYTES_MAX, MERGE, PUT, LimitError
from holdfast.codec import Compression
from holdfast.compaction import _merge_c, _merge_py
from holdfast.compaction.retain import MergeStop
from holdfast.cursor import Cursor, RangeTombstones, _cursor_c, _cursor_py
from holdfast.memtable import _memtable_c, _memtable_py
from holdfast.sstable import TableBuilder, _builder_c, _builder_py
from tests.format.plain_table import read_table

Entry = tuple[bytes, int, int, bytes]
PLAIN = (_merge_py, _builder_py, _memtable_py, _cursor_py)
COMPILED = (_merge_c, _builder_c, _memtable_c, _cursor_c)
both = pytest.mark.parametrize("twins", [PLAIN, COMPILED], ids=["py", "c"])
Twins = tuple[ModuleType, ModuleType, ModuleType, ModuleType]
LIMITS = {"target_bytes": 1 << 40, "drain_bytes": 1 << 40, "step_entries": 1 << 40}


def make_builder(twins: Twins, compression: Compression = Compression.LZ4) -> TableBuilder:
    return twins[1].TableBuilder(
        bytes(16),
        page_bytes=256,
        restart_interval=4,
        filter_bits_per_key=10,
        prefix_bytes=2,
        compression=compression,
    )


def memtable_of(twins: Twins, entries: list[Entry], *, is_frozen: bool = True) -> Any:
    table = twins[2].Memtable()
    for key, seq, kind, value in entries:
        table.put(seq, kind, key, value)
    if is_frozen:
        table.freeze()
    return table


def merged(
    twins: Twins, cursor: Cursor, retention: Any, compression: Compression, **limits: int
) -> tuple[list[bytes], list[tuple[MergeStop, int, int, int, int]]]:
    """Merge to the end as a job does; return the tables, and each stop with the counts at it."""
    builder = make_builder(twins, compression)
    pieces: list[bytes] = []
    tables = []
    stops = []
    reason = None
    while reason != MergeStop.DONE:
        reason = twins[0].merge_into(cursor, builder, retention, **(LIMITS | limits))
        stops.append(
            (
                reason,
                retention.entries_in,
                retention.entries_out,
                retention.bytes_in,
                retention.bytes_out,
            )
        )
        if reason == MergeStop.DRAIN:
            pieces.append(builder.take_output())
        elif reason in {MergeStop.CUT, MergeStop.DONE} and builder.entry_count:
            builder.finish(1, 0)
            tables.append(b"".join([*pieces, builder.take_output()]))
            pieces = []
            builder = make_builder(twins, compression)
    return tables, stops


def drawn_entries(source: random.Random, count: int) -> list[Entry]:
    """Return many entries, few of which are operands, with short and long keys and values."""
    keys = [b"%0*d" % (source.choice([3, 4, 70]), number) for number in range(count // 3)]
    kinds = [PUT] * 12 + [DELETE] * 4 + [MERGE]
    found = {}
    for seq in range(1, count + 1):
        size = source.choice([0, 10, 40, 3000 if source.random() < 0.02 else 60])
        key = source.choice(keys)
        found[key, seq] = (key, seq, source.choice(kinds), source.randbytes(size))
    return list(found.values())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(min_value=0, max_value=1 << 32),
    target_bytes=st.sampled_from([1, 3000, 1 << 40]),
    drain_bytes=st.sampled_from([1, 1 << 40]),
    step_entries=st.sampled_from([33, 90, 1 << 40]),
    bottom=st.booleans(),
    compression=st.sampled_from([Compression.NONE, Compression.LZ4, Compression.ZSTD]),
)
def test_twins_agree_on_frozen_memtables(
    seed: int,
    target_bytes: int,
    drain_bytes: int,
    step_entries: int,
    bottom: bool,
    compression: Compression,
) -> None:
    source = random.Random(seed)
    entries = drawn_entries(source, 600)
    snapshots = sorted(source.sample(range(600), 3))
    tombstones = [(b"010", b"030", 200)] if source.random() < 0.5 else []
    older = [(b"040", b"080"), (b"1", b"15")] if bottom else []
    results = []
    for twins in (PLAIN, COMPILED):
        cursor = memtable_of(twins, entries).cursor()
        cursor.seek_first()
        retention = twins[0].Retention(
            snapshots, RangeTombstones(tombstones), bottom=bottom, older=older
        )
        results.append(
            merged(
                twins,
                cursor,
                retention,
                compression,
                target_bytes=target_bytes,
                drain_bytes=drain_bytes,
                step_entries=step_entries,
            )
        )
    assert results[0] == results[1]


@pytest.mark.parametrize("compression", list(Compression))
def test_twins_agree_on_several_batches(compression: Compression) -> None:
    """Batches of pages are sealed, and partitions of the index closed, in the middle of a merge."""
    source = random.Random(3)
    entries = [
        (b"%08d" % number, 1, PUT, source.randbytes(150) + bytes(50)) for number in range(9000)
    ]
    results = []
    for twins in (PLAIN, COMPILED):
        cursor = memtable_of(twins, entries).cursor()
        cursor.seek_first()
        retention = twins[0].Retention([], RangeTombstones(), bottom=False)
        results.append(merged(twins, cursor, retention, compression, drain_bytes=1))
    assert results[0] == results[1]
    assert len(results[0][1]) > 3
    assert len(read_table(results[0][0][0]).entries) == 9000


@both
def test_a_table_that_is_not_frozen_is_merged_as_well(twins: Twins) -> None:
    entries = [(b"%05d" % number, 1, PUT, b"v") for number in range(500)]
    cursor = memtable_of(twins, entries, is_frozen=False).cursor()
    cursor.seek_first()
    retention = twins[0].Retention([], RangeTombstones(), bottom=False)
    tables, _ = merged(twins, cursor, retention, Compression.NONE)
    assert len(read_table(tables[0]).entries) == 500


@both
def test_an_entry_that_the_builder_refuses_stays(twins: Twins) -> None:
    """The builder's error comes after many entries that went well, and nothing is lost of it."""
    entries = [(b"%05d" % number, 1, PUT, b"v") for number in range(500)]
    cursor = memtable_of(twins, entries).cursor()
    cursor.seek_first()
    retention = twins[0].Retention([], RangeTombstones(), bottom=False)
    builder = make_builder(twins)
    twins[0].merge_into(cursor, builder, retention, **(LIMITS | {"step_entries": 100}))
    builder.add(b"00300", 1, PUT, b"")
    with pytest.raises(ValueError, match="internal order"):
        twins[0].merge_into(cursor, builder, retention, **LIMITS)
    assert cursor.key == b"00100"
    assert retention.entries_in == retention.entries_out == 100
    builder = make_builder(twins)
    assert twins[0].merge_into(cursor, builder, retention, **LIMITS) == MergeStop.DONE
    assert builder.entry_count == 400


class LongKeys(Cursor):
    """Good entries, then one whose key is too long for any table."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def _first(self) -> Entry:
        return self._next()

    def _next(self) -> Entry:
        self._number += 1
        key = b"%03d" % self._number
        return key if self._number <= 100 else key + bytes(KEY_BYTES_MAX), 1, PUT, b""


@both
def test_a_key_that_is_too_long_is_refused_by_name(twins: Twins) -> None:
    cursor = twins[3].MergeCursor([LongKeys()]) if twins is COMPILED else LongKeys()
    cursor.seek_first()
    retention = twins[0].Retention([], RangeTombstones(), bottom=False)
    builder = make_builder(twins)
    with pytest.raises(LimitError, match="the key has"):
        twins[0].merge_into(cursor, builder, retention, **LIMITS)
    assert builder.entry_count == 100


class Meddler(Cursor):
    """A source that begins a second merge while it is asked for an entry."""

    def __init__(self, twins: Twins) -> None:
        super().__init__()
        self.retention = twins[0].Retention([], RangeTombstones(), bottom=False)
        self.builder = make_builder(twins)
        self.refusals: list[str] = []
        self._twins = twins

    def _first(self) -> Entry:
        return b"a", 1, PUT, b""

    def _next(self) -> None:
        with pytest.raises(ValueError) as caught:
            self._twins[0].merge_into(self, self.builder, self.retention, **LIMITS)
        self.refusals.append(str(caught.value))


@both
def test_a_retention_takes_part_in_one_merge_at_a_time(twins: Twins) -> None:
    cursor = Meddler(twins)
    cursor.seek_first()
    reason = twins[0].merge_into(cursor, cursor.builder, cursor.retention, **LIMITS)
    assert reason == MergeStop.DONE
    assert cursor.refusals == ["another merge uses this retention"]
    assert not cursor.retention.is_merging


def watched_merge(cursor: Cursor, builder: TableBuilder) -> tuple[set[int], int]:
    """Merge. Return the counts that another thread saw in between, and how often the builder
    refused to give it the output.
    """
    retention = _merge_c.Retention([], RangeTombstones(), bottom=True)
    seen: set[int] = set()
    refusals: list[str] = []
    is_over = threading.Event()
    is_there = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            is_there.set()
            count = retention.entries_in
            if retention.is_merging and count:
                seen.add(count)
                try:
                    builder.take_output()
                except ValueError as error:
                    refusals.append(str(error))
            time.sleep(0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    is_there.wait()
    try:
        assert _merge_c.merge_into(cursor, builder, retention, **LIMITS) == MergeStop.DONE
    finally:
        is_over.set()
        watcher.join()
    assert set(refusals) <= {"the builder failed before, or another thread uses it"}
    return seen, len(refusals)


def test_others_run_while_entries_of_a_memtable_move() -> None:
    """A merge of versions that nobody sees seals no page, so nothing but the moves lets them."""
    table = memtable_of(COMPILED, [(b"key", seq, PUT, b"") for seq in range(1, 300_001)])
    for _ in range(20):
        cursor = table.cursor()
        cursor.seek_first()
        builder = make_builder(COMPILED)
        seen, refusals = watched_merge(cursor, builder)
        assert builder.entry_count == 1
        if len(seen) > 2 and refusals:
            return
    raise AssertionError("no other thread ran while one merge moved its entries")
