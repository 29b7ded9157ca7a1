"""Goal: what a merge writes of keys with operands shows every observer the same as before, with as
few entries as may be, and both twins write the same.

Method: the value of each key as of each number, out of all versions before and after, with the
older data that the merge did not see; functions that can be combined, cannot, and fail.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import DELETE, MERGE, PUT, MergeError, marks_seen
from holdfast.compaction import retain
from holdfast.compaction.retain import (
    OPERANDS_KEPT_MAX,
    RUN_ENTRIES_MIN,
    MergeStop,
    merged_run,
    retained_tombstones,
)
from holdfast.cursor import RangeTombstones
from holdfast.merge import Merges
from tests.format.plain_table import read_table
from tests.twin.test_compaction_merge import (
    LIMITS,
    TWINS,
    Entry,
    both,
    make_builder,
    positioned,
    run,
)

MERGES = Merges({"tag": lambda value, operands: b"/".join([value or b"", *operands])})
KEYS = [b"a", b"b", b"b\x00"]
FUNCTIONS = ["append", "append", "append", "tag", "add"]
"""The last one fails on what the others make."""
OLD, NEW = 5, 30


@st.composite
def versions(draw: st.DrawFn, lower: int, upper: int, size: int) -> list[Entry]:
    places = draw(
        st.sets(st.tuples(st.sampled_from(KEYS), st.integers(lower, upper)), max_size=size)
    )
    made = []
    for key, seq in sorted(places):
        kind = draw(st.sampled_from([MERGE, MERGE, MERGE, MERGE, PUT, DELETE]))
        value = b"" if kind == DELETE else draw(st.binary(max_size=3))
        if kind == MERGE:
            function = draw(st.sampled_from(FUNCTIONS))
            operand: Any = len(value) if function == "add" else value
            value = MERGES.value_of(function, operand)
        made.append((key, seq, kind, value))
    return made


def value_at(
    entries: list[Entry], tombstones: list[tuple[bytes, bytes, int]], key: bytes, snapshot: int
) -> object:
    """Return what a reader sees: the value, None, or that it cannot be told."""
    cover = max(
        (seq for start, stop, seq in tombstones if start <= key < stop and seq <= snapshot),
        default=0,
    )
    found: list[bytes] = []
    for _, seq, kind, value in sorted(
        (each for each in entries if each[0] == key and each[1] <= snapshot),
        key=lambda each: -each[1],
    ):
        if seq < cover or kind == DELETE:
            break
        if kind == PUT:
            return folded(key, value, found) if found else value
        found.append(value)
    return folded(key, None, found) if found else None


def folded(key: bytes, base: bytes | None, found: list[bytes]) -> object:
    try:
        return MERGES.fold(key, base, found)
    except MergeError:
        return MergeError


@settings(max_examples=400, deadline=None)
@given(
    versions(OLD + 1, NEW, 50),
    versions(1, OLD, 6),
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from([*KEYS, b"c"]), st.integers(OLD + 1, NEW)),
        max_size=2,
    ),
    st.lists(st.integers(0, NEW), max_size=3),
    st.booleans(),
    st.sampled_from([1, 3, 1 << 40]),
    st.sampled_from([1, 200, 1 << 40]),
    st.sampled_from([0, 1, 2, 32]),
)
def test_every_observer_sees_the_same_before_and_after(
    entries: list[Entry],
    older: list[Entry],
    tombstones: list[tuple[bytes, bytes, int]],
    snapshots: list[int],
    bottom: bool,
    step_entries: int,
    drain_bytes: int,
    kept_max: int,
) -> None:
    tombstones = [each for each in tombstones if each[0] < each[1]]
    snapshots = sorted(snapshots)
    spans = sorted({(key, key + b"\x00\x00") for key, _, _, _ in older}) if bottom else []
    if bottom:
        # Where the keys of the ranges touch they are one range.
        spans = [(KEYS[0], b"c")] if older else []
    results = []
    for twin, builders in TWINS:
        retention = twin.Retention(
            snapshots, RangeTombstones(tombstones), bottom=bottom, older=spans, merges=MERGES
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retain, "OPERANDS_KEPT_MAX", kept_max)
            tables, _, seen = run(
                twin, builders, positioned(entries), retention,
                step_entries=step_entries, drain_bytes=drain_bytes,
            )  # fmt: skip
        results.append((tables, seen[-1]))
    assert results[0] == results[1]
    after: list[Entry] = [
        (key, trailer >> 8, trailer & 0xFF, value)
        for table in results[0][0]
        for key, trailer, value in read_table(table).entries
    ]
    assert results[0][1][1] == len(after)
    kept = retained_tombstones(tombstones, snapshots, bottom, spans)
    for key in KEYS:
        for snapshot in [*snapshots, NEW]:
            before = value_at(entries + older, tombstones, key, snapshot)
            assert before == value_at(after + older, kept, key, snapshot)


@both
def test_operands_of_a_stripe_become_one(twin: ModuleType, builders: ModuleType) -> None:
    entries = [(b"k", seq, MERGE, MERGES.value_of("add", seq)) for seq in range(1, 11)]
    retention = twin.Retention([4], RangeTombstones(), bottom=False)
    tables, _, _ = run(twin, builders, positioned(entries), retention)
    assert [
        (b"k", 10 << 8 | MERGE, MERGES.value_of("add", 5 + 6 + 7 + 8 + 9 + 10)),
        (b"k", 4 << 8 | MERGE, MERGES.value_of("add", 1 + 2 + 3 + 4)),
    ] == read_table(tables[0]).entries
    assert (10, 2) == (retention.entries_in, retention.entries_out)
    # Where nothing older lies below, the value is known.
    retention = twin.Retention([4], RangeTombstones(), bottom=True)
    tables, _, _ = run(twin, builders, positioned(entries), retention)
    assert [
        (b"k", 10 << 8 | MERGE, MERGES.value_of("add", 45)),
        (b"k", 4 << 8 | PUT, b"10"),
    ] == read_table(tables[0]).entries


@both
def test_many_operands_above_a_snapshot_become_a_value(
    twin: ModuleType, builders: ModuleType
) -> None:
    """Of a function that cannot combine them; few stay, and so do those over what is not known."""
    many = OPERANDS_KEPT_MAX + 1

    def operands(first: int, count: int) -> list[Entry]:
        return [
            (b"k", seq, MERGE, MERGES.value_of("tag", b"%d" % seq))
            for seq in range(first, first + count)
        ]

    def written(entries: list[Entry], snapshots: list[int], **options: Any) -> list[Any]:
        options = {"bottom": True, "tombstones": [], **options}
        tombstones = RangeTombstones(options.pop("tombstones"))
        retention = twin.Retention(snapshots, tombstones, merges=MERGES, **options)
        tables, _, _ = run(twin, builders, positioned(entries), retention, step_entries=3)
        return [
            (trailer >> 8, trailer & 0xFF, value)
            for _, trailer, value in read_table(tables[0]).entries
        ]

    def value(base: bytes, first: int, last: int) -> bytes:
        return b"/".join([base, *(b"%d" % seq for seq in range(first, last + 1))])

    put, delete = (b"k", 1, PUT, b"base"), (b"k", 1, DELETE, b"")
    above = operands(101, many)
    top = 100 + many
    assert [(top, PUT, value(b"base", 101, top)), (1, PUT, b"base")] == written(
        [put, *above], [50]
    ), "over a value that the snapshot sees"
    assert [(top, PUT, value(b"", 101, top))] == written([delete, *above], [50])
    assert [(top, PUT, value(b"", 101, top)), (1, DELETE, b"")] == written(
        [delete, *above], [50], bottom=False
    )
    # Over operands of the snapshot's own, that become a value too.
    below = operands(1, 3)
    assert [(top, PUT, value(b"/1/2/3", 101, top)), (3, PUT, b"/1/2/3")] == written(
        [*below, *above], [50]
    )
    assert many + 3 == len(written([*below, *above], [50], bottom=False)), "over nobody knows what"
    # Between two snapshots, with few operands above and below them.
    few = operands(301, 2)
    made = written([put, *operands(51, 2), *above, *few], [50, 60, 250])
    assert [302, 301, top, 52, 51, 1] == [seq for seq, _, _ in made]
    assert [MERGE, MERGE, PUT, MERGE, MERGE, PUT] == [kind for _, kind, _ in made]
    assert value(b"base/51/52", 101, top) == made[2][2]
    # Few stay, whatever lies below.
    assert [(seq, MERGE, entry) for _, seq, _, entry in reversed(above[1:])] + [
        (1, PUT, b"base")
    ] == written([put, *above[1:]], [50])
    # What a tombstone between hides is not below.
    assert [(top, PUT, value(b"", 101, top)), (1, PUT, b"base")] == written(
        [put, *above], [50], tombstones=[(b"k", b"l", 60)]
    )
    assert [(top, PUT, value(b"base", 101, top)), (1, PUT, b"base")] == written(
        [put, *above], [50], older=[(b"k", b"l")]
    )
    assert "compaction.merged_over_a_snapshot" in marks_seen()


@both
def test_operands_above_a_snapshot_that_cannot_be_merged_stay(
    twin: ModuleType, builders: ModuleType
) -> None:
    def only_three(value: bytes | None, operands: Any) -> bytes:
        if len(operands) > 3:
            raise ValueError("too many")
        return b"three"

    merges = Merges({"three": only_three})
    entries = [
        (b"k", seq, MERGE, merges.value_of("three", b"")) for seq in (*range(1, 4), *range(9, 60))
    ]
    retention = twin.Retention([5], RangeTombstones(), bottom=True, merges=merges)
    tables, _, _ = run(twin, builders, positioned(entries), retention)
    found = read_table(tables[0]).entries
    assert [(b"k", seq << 8 | MERGE, entry) for _, seq, _, entry in reversed(entries[3:])] == found[
        :-1
    ]
    assert (b"k", 3 << 8 | PUT, b"three") == found[-1]
    assert "compaction.merge_over_a_snapshot_failed" in marks_seen()


@both
def test_what_cannot_be_merged_stays_as_it_was(twin: ModuleType, builders: ModuleType) -> None:
    """Of an unknown function, of one that raises, and of a value that does not fit."""
    raising = Merges({"tag": lambda value, operands: operands[0][99:100] or 1 / 0})
    wrong = [(b"k", 3, MERGE, MERGES.value_of("add", 1)), (b"k", 2, PUT, b"no number")]
    for merges, entries in (
        (None, [(b"k", n, MERGE, MERGES.value_of("tag", b"%d" % n)) for n in (3, 2, 1)]),
        (raising, [(b"k", n, MERGE, MERGES.value_of("tag", b"%d" % n)) for n in (3, 2, 1)]),
        (None, wrong),
        (None, [(b"k", 3, MERGE, b""), (b"k", 2, MERGE, b"\xfe"), (b"k", 1, PUT, b"")]),
    ):
        retention = twin.Retention([], RangeTombstones(), bottom=True, merges=merges)
        tables, _, _ = run(twin, builders, positioned(entries), retention)
        assert [(key, seq << 8 | kind, value) for key, seq, kind, value in entries] == read_table(
            tables[0]
        ).entries
    assert "compaction.merge_failed" in marks_seen()


@both
def test_a_long_run_is_made_shorter_on_the_way(twin: ModuleType, builders: ModuleType) -> None:
    """Its operands are not all in memory at once, if they can be combined."""
    calls: list[int] = []

    class Counting(Merges):
        def combine(self, key: bytes, entries: Any) -> Any:
            calls.append(len(entries))
            return super().combine(key, entries)

    count = 5 * RUN_ENTRIES_MIN
    for function, longest in (("add", RUN_ENTRIES_MIN), ("tag", count)):
        merges = Counting({"tag": lambda value, operands: b"%d" % len(operands)})
        operand: Any = 1 if function == "add" else b"1"
        entries = [
            (b"k", seq, MERGE, merges.value_of(function, operand)) for seq in range(1, count + 1)
        ]
        calls.clear()
        retention = twin.Retention([], RangeTombstones(), bottom=False, merges=merges)
        tables, _, _ = run(twin, builders, positioned(entries), retention, step_entries=100)
        assert max(calls) == longest
        # Twice as long each time, so that what cannot be combined is not tried again and again.
        assert len(calls) <= 7
        found = read_table(tables[0]).entries
        assert len(found) == (1 if function == "add" else count)
        retention = twin.Retention([], RangeTombstones(), bottom=True, merges=merges)
        tables, _, _ = run(twin, builders, positioned(entries), retention, step_entries=100)
        assert [(b"k", count << 8 | PUT, b"%d" % count)] == read_table(tables[0]).entries


@both
def test_a_builder_that_failed_gets_the_same_again(twin: ModuleType, builders: ModuleType) -> None:
    entries = [(b"k", seq, MERGE, MERGES.value_of("tag", b"x" * 50)) for seq in range(1, 9)]
    retention = twin.Retention([], RangeTombstones(), bottom=False)
    cursor = positioned(entries)
    finished = make_builder(builders)
    finished.add(b"j", 1, PUT, b"")
    finished.finish(1, 0)
    with pytest.raises(ValueError, match="finished"):
        twin.merge_into(cursor, finished, retention, **LIMITS)
    builder = make_builder(builders)
    assert twin.merge_into(cursor, builder, retention, **LIMITS) == MergeStop.DONE
    assert 8 == builder.entry_count == retention.entries_in == retention.entries_out


def test_a_failure_for_want_of_memory_is_no_failure_of_the_function() -> None:
    def hungry(value: bytes | None, operands: Any) -> bytes:
        raise MemoryError

    merges = Merges({"hungry": hungry})
    with pytest.raises(MemoryError):
        merged_run(merges, b"k", [(1, MERGE, merges.value_of("hungry", b""))], is_based=True)
