"""A merge that drops what `retain` allows shows every observer what it saw before.

The oracle reads by brute force: it knows versions, tombstones and observers, and nothing of
stripes. Small universes are walked exhaustively, larger ones drawn by Hypothesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import DELETE, PUT, SEQ_MAX
from holdfast.compaction.retain import (
    reaches_into,
    retained,
    retained_tombstones,
    stripe_of,
    united,
)

Version = tuple[int, int]


def seen(versions: Sequence[Version], covers: Sequence[int], observer: int) -> int | None:
    """Return the sequence number of the value that the observer reads, or None."""
    visible = [version for version in versions if version[0] <= observer]
    if not visible:
        return None
    seq, kind = max(visible)
    if kind == DELETE or any(seq < cover <= observer for cover in covers):
        return None
    return seq


def check_rule(
    versions: list[Version],
    covers: list[int],
    snapshots: list[int],
    bottom: bool,
    older: list[Version],
) -> int:
    """Check every observer, with `older` data below unless at the bottom; return how many versions
    were dropped.
    """
    stays = retained(versions, covers, snapshots, bottom)
    after = [version for version, stay in zip(versions, stays, strict=True) if stay]
    covers_after = [
        seq
        for _, _, seq in retained_tombstones(
            [(b"a", b"b", seq) for seq in covers], snapshots, bottom
        )
    ]
    below = [] if bottom else older
    for observer in [*snapshots, SEQ_MAX]:
        before = seen(versions + below, covers, observer)
        assert seen(after + below, covers_after, observer) == before, (
            versions,
            covers,
            snapshots,
            bottom,
            below,
            observer,
        )
    stripes = [stripe_of(seq, snapshots) for seq, _ in after]
    assert len(stripes) == len(set(stripes))
    return len(versions) - len(after)


def test_every_small_universe_reads_the_same_before_and_after() -> None:
    """Up to 4 versions and 2 tombstones in every order, up to 3 snapshots in every place, over all
    data that could lie below.
    """
    dropped = 0
    for version_count, cover_count in product(range(5), range(3)):
        events = [2 * number + 3 for number in range(version_count + cover_count)]
        for covers in combinations(events, cover_count):
            seqs = [seq for seq in reversed(events) if seq not in covers]
            for kinds in product((PUT, DELETE), repeat=version_count):
                dropped += _every_snapshot(
                    list(zip(seqs, kinds, strict=True)), list(covers), events
                )
    assert dropped > 0


def _every_snapshot(versions: list[Version], covers: list[int], events: list[int]) -> int:
    olders: list[list[Version]] = [[], [(1, PUT)], [(2, DELETE), (1, PUT)]]
    dropped = 0
    for count in range(4):
        for snapshots in combinations((1, 2, *events), count):
            dropped += check_rule(versions, covers, list(snapshots), True, [])
            for older in olders:
                check_rule(versions, covers, list(snapshots), False, older)
    return dropped


@st.composite
def universes(draw: st.DrawFn) -> tuple[list[Version], list[int], list[int], bool, list[Version]]:
    numbers = draw(st.lists(st.integers(min_value=1, max_value=60), unique=True, max_size=30))
    line = draw(st.integers(min_value=1, max_value=60))
    newer = sorted((number for number in numbers if number >= line), reverse=True)
    older = sorted((number for number in numbers if number < line), reverse=True)
    is_cover = draw(st.lists(st.booleans(), min_size=len(newer), max_size=len(newer)))
    kind = st.sampled_from([PUT, DELETE])
    versions = [(seq, draw(kind)) for seq, cover in zip(newer, is_cover, strict=True) if not cover]
    covers = [seq for seq, cover in zip(newer, is_cover, strict=True) if cover]
    snapshots = sorted(draw(st.lists(st.integers(min_value=0, max_value=61), max_size=6)))
    return versions, covers, snapshots, draw(st.booleans()), [(seq, draw(kind)) for seq in older]


@settings(max_examples=500)
@given(universes())
def test_larger_universes_read_the_same_before_and_after(
    universe: tuple[list[Version], list[int], list[int], bool, list[Version]],
) -> None:
    check_rule(*universe)


def test_the_newest_version_of_each_stripe_stays() -> None:
    versions = [(9, PUT), (8, PUT), (5, PUT), (3, PUT), (2, PUT)]
    assert retained(versions, [], [3, 5], False) == [True, False, True, True, False]


def test_a_delete_goes_only_from_the_oldest_stripe_at_the_bottom() -> None:
    assert retained([(9, DELETE)], [], [], True) == [False]
    assert retained([(9, DELETE)], [], [], False) == [True]
    assert retained([(9, DELETE)], [], [5], True) == [True]
    assert retained([(9, DELETE), (4, DELETE)], [], [5], True) == [True, False]


def test_a_covered_version_goes_only_when_no_snapshot_lies_between() -> None:
    assert retained([(4, PUT)], [6], [], False) == [False]
    assert retained([(4, PUT)], [6], [5], False) == [True]
    assert retained([(4, PUT)], [6], [4], False) == [True]
    assert retained([(4, PUT)], [6], [3, 6], False) == [False]
    assert retained([(7, PUT)], [6], [], False) == [True]


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(1, 30)),
        unique_by=lambda drawn: drawn[2],
        max_size=8,
    ),
    st.lists(st.integers(0, 31), max_size=4).map(sorted),
)
def test_tombstones_that_go_were_covered(
    drawn: list[tuple[int, int, int]], snapshots: list[int]
) -> None:
    """The highest cover of every key, as every observer sees it, is the same before and after."""
    before = [(b"%02d" % start, b"%02d" % (start + size), seq) for start, size, seq in drawn]
    after = retained_tombstones(before, snapshots, False)
    for observer, number in product([*snapshots, SEQ_MAX], range(15)):
        key = b"%02d" % number
        old, new = (
            [
                stripe_of(seq, snapshots)
                for start, stop, seq in each
                if start <= key < stop and seq <= observer
            ]
            for each in (before, after)
        )
        assert set(old) == set(new)
        assert highest(after, key, observer) == highest(before, key, observer)


def highest(tombstones: list[tuple[bytes, bytes, int]], key: bytes, observer: int) -> int:
    return max(
        (seq for start, stop, seq in tombstones if start <= key < stop and seq <= observer),
        default=0,
    )


def test_tombstones_of_one_stripe_over_one_range_become_the_newest() -> None:
    tombstones = [(b"a", b"c", 9), (b"a", b"c", 7), (b"a", b"c", 2), (b"c", b"d", 2)]
    assert retained_tombstones(tombstones, [5], False) == [
        tombstones[0],
        tombstones[2],
        tombstones[3],
    ]
    assert retained_tombstones(tombstones, [5], True) == [tombstones[0]]
    assert retained_tombstones(tombstones, [], True) == []
    older = [(b"", b"a"), (b"bb", b"bc"), (b"d", b"e")]
    assert retained_tombstones(tombstones, [], True, older) == [tombstones[0]]


def test_ranges_become_ascending_and_disjoint() -> None:
    assert united([(b"d", b"e"), (b"a", b"b"), (b"b", b"c"), (b"a", b"aa")]) == [
        (b"a", b"c"),
        (b"d", b"e"),
    ]
    ranges = [(b"a", b"c"), (b"d", b"e")]
    assert not reaches_into(ranges, b"c", b"d")
    assert not reaches_into(ranges, b"e", b"z")
    assert not reaches_into(ranges, b"", b"a")
    assert reaches_into(ranges, b"", b"a\x00")
    assert reaches_into(ranges, b"b", b"bb")
    assert reaches_into(ranges, b"c", b"d\x00")
    assert not reaches_into([], b"a", b"z")
