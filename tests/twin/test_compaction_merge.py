"""Both twins of the merge kernel drop what the rule allows and stop where they should."""

from __future__ import annotations

from itertools import groupby, pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import DELETE, KEY_BYTES_MAX, PUT, SEQ_MAX, CorruptionError
from holdfast.codec import Compression
from holdfast.compaction import _merge_c, _merge_py
from holdfast.compaction.retain import MergeStop, retained
from holdfast.cursor import Cursor, ListCursor, MergeCursor, RangeTombstones
from holdfast.sstable import TableBuilder, _builder_c, _builder_py
from tests.format.plain_table import read_table

Entry = tuple[bytes, int, int, bytes]
TWINS = [(_merge_py, _builder_py), (_merge_c, _builder_c)]
both = pytest.mark.parametrize(("twin", "builders"), TWINS, ids=["py", "c"])
LIMITS = {"target_bytes": 1 << 40, "drain_bytes": 1 << 40, "step_entries": 1 << 40}


def make_builder(builders: ModuleType) -> TableBuilder:
    return builders.TableBuilder(
        bytes(16),
        page_bytes=128,
        restart_interval=4,
        filter_bits_per_key=10,
        compression=Compression.NONE,
    )


def positioned(entries: list[Entry]) -> Cursor:
    cursor = ListCursor(sorted(entries, key=lambda entry: (entry[0], -entry[1])))
    cursor.seek_first()
    return cursor


def counts(retention: Any) -> tuple[int, ...]:
    return (
        retention.entries_in,
        retention.entries_out,
        retention.entries_dropped,
        retention.bytes_in,
        retention.bytes_out,
    )


def run(
    twin: ModuleType, builders: ModuleType, cursor: Cursor, retention: Any, **limits: int
) -> tuple[list[bytes], list[MergeStop], list[tuple[int, ...]]]:
    """Merge to the end as a caller does; return the tables, the stops and the counts after each."""
    builder = make_builder(builders)
    pieces: list[bytes] = []
    tables = []
    stops = []
    seen = []
    while not stops or stops[-1] != MergeStop.DONE:
        stops.append(twin.merge_into(cursor, builder, retention, **(LIMITS | limits)))
        seen.append(counts(retention))
        if stops[-1] == MergeStop.DRAIN:
            pieces.append(builder.take_output())
        elif stops[-1] in {MergeStop.CUT, MergeStop.DONE} and builder.entry_count:
            builder.finish(1, 0)
            tables.append(b"".join([*pieces, builder.take_output()]))
            pieces = []
            builder = make_builder(builders)
    return tables, stops, seen


KEYS = st.sampled_from([b"", b"a", b"aa", b"b", b"c", b"c\x00", b"d" * 70, b"e"])
SEQS = st.integers(min_value=1, max_value=25)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[list[Entry], list[tuple[bytes, bytes, int]], list[int], bool]:
    versions = draw(st.sets(st.tuples(KEYS, SEQS), max_size=60))
    kinds = st.sampled_from([PUT, PUT, DELETE])
    entries = [(key, seq, draw(kinds), draw(st.binary(max_size=90))) for key, seq in versions]
    tombstones = draw(st.lists(st.tuples(KEYS, KEYS, SEQS), max_size=4))
    snapshots = sorted(draw(st.lists(st.integers(min_value=0, max_value=26), max_size=5)))
    spans = [(start, stop, seq) for start, stop, seq in tombstones if start < stop]
    return entries, spans, snapshots, draw(st.booleans())


def expected_entries(
    entries: list[Entry],
    tombstones: list[tuple[bytes, bytes, int]],
    snapshots: list[int],
    bottom: bool,
) -> list[tuple[bytes, int, bytes]]:
    """Apply the rule key by key."""
    result = []
    ordered = sorted(entries, key=lambda entry: (entry[0], -entry[1]))
    for key, group in groupby(ordered, key=lambda entry: entry[0]):
        versions = list(group)
        covers = [seq for start, stop, seq in tombstones if start <= key < stop]
        stays = retained([(seq, kind) for _, seq, kind, _ in versions], covers, snapshots, bottom)
        for (_, seq, kind, value), stay in zip(versions, stays, strict=True):
            if stay:
                result.append((key, seq << 8 | kind, value))
    return result


@settings(max_examples=300, deadline=None)
@given(
    inputs(),
    st.sampled_from([1, 300, 1 << 40]),
    st.sampled_from([1, 200, 1 << 40]),
    st.sampled_from([1, 2, 7, 1 << 40]),
)
def test_twins_agree_with_each_other_and_with_the_rule(
    drawn: tuple[list[Entry], list[tuple[bytes, bytes, int]], list[int], bool],
    target_bytes: int,
    drain_bytes: int,
    step_entries: int,
) -> None:
    entries, tombstones, snapshots, bottom = drawn
    results = []
    for twin, builders in TWINS:
        retention = twin.Retention(snapshots, RangeTombstones(tombstones), bottom=bottom)
        limits = {
            "target_bytes": target_bytes,
            "drain_bytes": drain_bytes,
            "step_entries": step_entries,
        }
        results.append(run(twin, builders, positioned(entries), retention, **limits))
    assert results[0] == results[1]
    merged = [read_table(table) for table in results[0][0]]
    assert [entry for table in merged for entry in table.entries] == expected_entries(*drawn)
    for left, right in pairwise(merged):
        assert left.entries[-1][0] < right.entries[0][0]


@both
@given(
    kinds=st.lists(st.sampled_from([DELETE, PUT]), min_size=40, max_size=40),
    bounds=st.lists(st.integers(0, 40), max_size=8),
    snapshots=st.sampled_from([[], [20], [100]]),
)
def test_a_delete_stays_where_older_data_may_lie(
    twin: ModuleType,
    builders: ModuleType,
    kinds: list[int],
    bounds: list[int],
    snapshots: list[int],
) -> None:
    entries = [(b"%02d" % number, number + 1, kind, b"") for number, kind in enumerate(kinds)]
    ends = sorted(bounds)[: len(bounds) // 2 * 2]
    older = [(b"%02d" % lower, b"%02d" % upper) for lower, upper in zip(*[iter(ends)] * 2)]
    retention = twin.Retention(snapshots, RangeTombstones(), bottom=True, older=older)
    builder = make_builder(builders)
    builder.add(b"!", 1, PUT, b"")
    twin.merge_into(positioned(entries), builder, retention, **LIMITS)
    builder.finish(1, 0)
    kept = {key for key, _, _ in read_table(bytes(builder.take_output())).entries}
    for key, seq, kind, _ in entries:
        is_old = any(lower <= key < upper for lower, upper in older)
        is_young = bool(snapshots) and seq > snapshots[0]
        assert (key in kept) == (kind == PUT or is_old or is_young)


@both
def test_ranges_of_older_data_are_ascending_bytes(twin: ModuleType, builders: ModuleType) -> None:
    _ = builders
    for older in ([(b"b", b"a")], [(b"c", b"d"), (b"a", b"b")]):
        with pytest.raises(ValueError, match="ascending"):
            twin.Retention([], RangeTombstones(), bottom=True, older=older)
    with pytest.raises(TypeError):
        twin.Retention([], RangeTombstones(), bottom=True, older=[("a", "b")])


@both
def test_a_table_is_cut_only_between_keys(twin: ModuleType, builders: ModuleType) -> None:
    entries = [(b"key%d" % (index // 5), 10 - index % 5, PUT, b"x" * 40) for index in range(50)]
    retention = twin.Retention(range(1, 20), RangeTombstones(), bottom=False)
    tables, stops, _ = run(twin, builders, positioned(entries), retention, target_bytes=100)
    assert len(tables) == 10
    assert stops == [MergeStop.CUT] * 9 + [MergeStop.DONE]


@both
def test_what_was_dropped_is_counted(twin: ModuleType, builders: ModuleType) -> None:
    entries = [(b"a", 3, PUT, b"new"), (b"a", 2, PUT, b"older"), (b"b", 1, DELETE, b"")]
    retention = twin.Retention([], RangeTombstones(), bottom=True)
    run(twin, builders, positioned(entries), retention)
    assert counts(retention) == (3, 1, 2, 11, 4)


@both
def test_a_step_reads_no_more_than_its_budget(twin: ModuleType, builders: ModuleType) -> None:
    entries = [(b"%03d" % index, 1, PUT, b"") for index in range(10)]
    retention = twin.Retention([], RangeTombstones(), bottom=True)
    _, stops, seen = run(twin, builders, positioned(entries), retention, step_entries=4)
    assert [count[0] for count in seen] == [4, 8, 10]
    assert stops == [MergeStop.YIELD, MergeStop.YIELD, MergeStop.DONE]


@both
def test_an_unpositioned_cursor_is_done(twin: ModuleType, builders: ModuleType) -> None:
    retention = twin.Retention([], RangeTombstones(), bottom=True)
    builder = make_builder(builders)
    assert twin.merge_into(ListCursor([]), builder, retention, **LIMITS) == MergeStop.DONE


@both
def test_a_merge_of_sources_is_one_source(twin: ModuleType, builders: ModuleType) -> None:
    newer = [(b"%05d" % index, 9, PUT, b"new") for index in range(0, 3000, 3)]
    older = [(b"%05d" % index, 4, PUT, b"old" * 9) for index in range(0, 3000, 2)]
    cursor = MergeCursor([ListCursor(newer), ListCursor(older)])
    cursor.seek_first()
    retention = twin.Retention([], RangeTombstones([(b"01000", b"02000", 7)]), bottom=True)
    tables, _, _ = run(twin, builders, cursor, retention)
    found = {key: value for key, _, value in read_table(tables[0]).entries}
    expected = {key: value for key, _, _, value in older if not b"01000" <= key < b"02000"}
    assert found == expected | {key: value for key, _, _, value in newer}


class BrokenCursor(Cursor):
    """A source that fails after a few entries."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self._good = good

    def _first(self) -> Entry:
        return b"%03d" % self._good, 1, PUT, b"v"

    def _next(self) -> Entry:
        raise CorruptionError("7.table", 40, "broken on purpose")


@both
def test_a_failing_cursor_dies_of_it(twin: ModuleType, builders: ModuleType) -> None:
    cursor = BrokenCursor(1)
    cursor.seek_first()
    retention = twin.Retention([], RangeTombstones(), bottom=True)
    builder = make_builder(builders)
    for _ in range(2):
        with pytest.raises(CorruptionError, match="broken on purpose"):
            twin.merge_into(cursor, builder, retention, **LIMITS)
    with pytest.raises(CorruptionError):
        _ = cursor.valid
    assert builder.entry_count == retention.entries_in == 1


@both
def test_a_refusing_builder_leaves_the_cursor_alive(twin: ModuleType, builders: ModuleType) -> None:
    cursor = positioned([(b"a", 1, PUT, b"v")])
    retention = twin.Retention([], RangeTombstones(), bottom=True)
    builder = make_builder(builders)
    builder.add(b"z", 1, PUT, b"")
    with pytest.raises(ValueError, match="internal order"):
        twin.merge_into(cursor, builder, retention, **LIMITS)
    assert cursor.key == b"a"
    assert counts(retention) == (0, 0, 0, 0, 0)
    builder = make_builder(builders)
    assert twin.merge_into(cursor, builder, retention, **LIMITS) == MergeStop.DONE
    assert builder.entry_count == 1


@both
def test_the_longest_and_the_empty_key_are_told_apart(
    twin: ModuleType, builders: ModuleType
) -> None:
    longest = b"\xff" * KEY_BYTES_MAX
    entries = [(b"", 2, PUT, b"x"), (b"", 1, PUT, b"y"), (longest, 2, PUT, b"z")]
    retention = twin.Retention([], RangeTombstones(), bottom=True)
    tables, _, _ = run(twin, builders, positioned(entries), retention)
    assert [key for key, _, _ in read_table(tables[0]).entries] == [b"", longest]


@both
@pytest.mark.parametrize("snapshots", [[2, 1], [-1], [SEQ_MAX + 1]])
def test_snapshots_are_ascending_sequence_numbers(
    twin: ModuleType, builders: ModuleType, snapshots: list[int]
) -> None:
    with pytest.raises(ValueError):
        twin.Retention(snapshots, RangeTombstones(), bottom=True)


@both
@pytest.mark.parametrize("limit", list(LIMITS))
def test_limits_below_one_are_refused(twin: ModuleType, builders: ModuleType, limit: str) -> None:
    retention = twin.Retention([], RangeTombstones(), bottom=True)
    with pytest.raises(ValueError, match="at least 1"):
        twin.merge_into(positioned([]), make_builder(builders), retention, **(LIMITS | {limit: 0}))


@both
def test_output_is_taken_before_more_is_written(twin: ModuleType, builders: ModuleType) -> None:
    entries = [(b"%03d" % index, 1, PUT, b"x" * 60_000) for index in range(30)]

    def tables(drain_bytes: int) -> tuple[list[bytes], list[MergeStop]]:
        retention = twin.Retention([], RangeTombstones(), bottom=True)
        made, stops, _ = run(
            twin, builders, positioned(entries), retention, drain_bytes=drain_bytes
        )
        return made, stops

    whole, stops = tables(1 << 40)
    assert stops == [MergeStop.DONE]
    drained, stops = tables(1)
    assert stops == [MergeStop.DRAIN] * 3 + [MergeStop.DONE], (
        "pages are sealed half a mebibyte at once"
    )
    assert drained == whole


@both
def test_a_table_is_cut_before_the_first_key_that_is_not_below_stop(
    twin: ModuleType, builders: ModuleType
) -> None:
    """All versions of a key stay together, and DRAIN comes first, as with `target_bytes`."""
    entries = [(key, seq, PUT, b"v") for key in (b"a", b"b", b"b\x00", b"c") for seq in (2, 1)]
    for stop, count in ((None, 8), (b"", 0), (b"a", 0), (b"b", 2), (b"b\x00", 4), (b"bz", 6)):
        cursor = positioned(entries)
        retention = twin.Retention([1], RangeTombstones([]), bottom=False)
        builder = make_builder(builders)
        reason = twin.merge_into(cursor, builder, retention, **LIMITS, stop=stop)
        assert (reason, builder.entry_count) == (
            MergeStop.DONE if stop is None else MergeStop.CUT,
            count,
        )
    with pytest.raises(TypeError):
        twin.merge_into(cursor, builder, retention, **LIMITS, stop="b")


@both
def test_a_stop_inside_a_key_that_was_begun_waits_for_the_next_one(
    twin: ModuleType, builders: ModuleType
) -> None:
    cursor = positioned([(b"a", 2, PUT, b""), (b"a", 1, PUT, b""), (b"b", 3, PUT, b"")])
    retention = twin.Retention([1], RangeTombstones([]), bottom=False)
    builder = make_builder(builders)
    assert twin.merge_into(cursor, builder, retention, **(LIMITS | {"step_entries": 1})) == (
        MergeStop.YIELD
    )
    assert twin.merge_into(cursor, builder, retention, **LIMITS, stop=b"a") == MergeStop.CUT
    assert builder.entry_count == 2
