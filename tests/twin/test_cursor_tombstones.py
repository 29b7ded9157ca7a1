"""Goal: both twins of the range tombstone kernel delete exactly the keys that a plain list of
ranges says.

Method: random sets, built at once and one by one, against a scan over the list that made them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import SEQ_MAX
from holdfast.cursor import _tombstones_c, _tombstones_py

TWINS = [pytest.param(_tombstones_c, id="c"), pytest.param(_tombstones_py, id="py")]
KEYS = st.one_of(
    st.binary(max_size=2),
    st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"b\x00", b"\xff\xff\xff"]),
)
SEQS = st.one_of(st.integers(1, 12), st.just(SEQ_MAX))
SETS = st.lists(st.tuples(KEYS, KEYS, SEQS), max_size=20)
Tombstone = tuple[bytes, bytes, int]


def covering(tombstones: list[Tombstone], key: bytes) -> list[int]:
    return sorted({seq for start, stop, seq in tombstones if start <= key < stop}, reverse=True)


def assert_same(
    kernel: ModuleType, expected: list[Tombstone], found: Any, probes: list[bytes]
) -> None:
    """Compare a set with the list of tombstones that made it, and with its twin's form."""
    for key in [
        *probes,
        *(edge for start, stop, _ in expected for edge in (start, stop, start + b"\x00")),
    ]:
        seqs = covering(expected, key)
        assert seqs == found.seqs_covering(key)
        for snapshot in (0, 1, 5, 6, 11, SEQ_MAX - 1, SEQ_MAX):
            assert max((seq for seq in seqs if seq <= snapshot), default=0) == found.cover(
                key, snapshot
            )
    canonical = _tombstones_py.RangeTombstones(expected)
    assert canonical.tombstones() == found.tombstones()
    assert canonical.bounds() == found.bounds()
    assert len(canonical) == len(found) == found.fragment_count
    assert bool(found) is (len(found) > 0)


@pytest.mark.parametrize("kernel", TWINS)
@given(tombstones=SETS, probes=st.lists(KEYS, max_size=5))
def test_a_set_built_at_once_covers_what_its_list_covers(
    kernel: ModuleType, tombstones: list[Tombstone], probes: list[bytes]
) -> None:
    assert_same(kernel, tombstones, kernel.RangeTombstones(iter(tombstones)), probes)


@pytest.mark.parametrize("kernel", TWINS)
@given(tombstones=SETS, more=SETS, probes=st.lists(KEYS, max_size=5), ascending=st.booleans())
def test_a_set_built_one_by_one_is_the_same_and_leaves_its_parents_alone(
    kernel: ModuleType,
    tombstones: list[Tombstone],
    more: list[Tombstone],
    probes: list[bytes],
    ascending: bool,
) -> None:
    if ascending:
        more = [(start, stop, 20 + index) for index, (start, stop, _) in enumerate(more)]
    steps = [kernel.RangeTombstones(tombstones)]
    for start, stop, seq in more:
        steps.append(steps[-1].with_added(start, stop, seq))
    for count in (0, len(more) // 2, len(more)):
        assert_same(kernel, tombstones + more[:count], steps[count], probes)
    last = steps[-1]
    del steps
    assert_same(kernel, tombstones + more, last, probes)


@pytest.mark.parametrize("kernel", TWINS)
@given(parts=st.lists(SETS, min_size=1, max_size=4), lower=st.none() | KEYS, upper=st.none() | KEYS)
def test_union_and_clip(
    kernel: ModuleType, parts: list[list[Tombstone]], lower: bytes | None, upper: bytes | None
) -> None:
    sets = [kernel.RangeTombstones(part) for part in parts]
    merged = sets[0].merged(sets[1:])
    union = [each for part in parts for each in part]
    assert_same(kernel, union, merged, [])
    clipped = [
        (
            start if lower is None else max(start, lower),
            stop if upper is None else min(stop, upper),
            seq,
        )
        for start, stop, seq in union
    ]
    assert_same(kernel, clipped, merged.clipped(lower, upper), [])
    assert_same(kernel, union, merged, [])


@pytest.mark.parametrize("kernel", TWINS)
def test_tombstones_of_one_sequence_number_that_touch_are_one(kernel: ModuleType) -> None:
    found = kernel.RangeTombstones(
        [(b"c", b"d", 5), (b"a", b"b", 5), (b"b", b"c", 5), (b"b", b"c", 7), (b"x", b"x", 9)]
    )
    assert [(b"a", b"d", 5), (b"b", b"c", 7)] == found.tombstones()
    assert (b"a", b"d") == found.bounds()


@pytest.mark.parametrize("kernel", TWINS)
def test_the_empty_set(kernel: ModuleType) -> None:
    empty = kernel.RangeTombstones()
    assert 0 == len(empty) == empty.fragment_count == empty.cover(b"", SEQ_MAX)
    assert [] == empty.tombstones() == empty.seqs_covering(b"a")
    assert empty.bounds() is None
    assert (
        0
        == len(empty.merged([]))
        == len(empty.clipped(None, b"z"))
        == len(empty.with_added(b"b", b"a", 1))
    )


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize(
    ("tombstone", "error"),
    [
        (("a", b"b", 1), TypeError),
        ((b"a", None, 1), TypeError),
        ((b"a", b"b", "1"), TypeError),
        ((b"a", b"b", 0), ValueError),
        ((b"a", b"b", -1), ValueError),
        ((b"a", b"b", SEQ_MAX + 1), ValueError),
    ],
)
def test_wrong_tombstones_are_refused(
    kernel: ModuleType, tombstone: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        kernel.RangeTombstones([(b"a", b"b", 3), tombstone])
    with pytest.raises(error):
        kernel.RangeTombstones([(b"a", b"b", 3)]).with_added(*tombstone)
    with pytest.raises(TypeError):
        kernel.RangeTombstones().cover("a", 1)
    with pytest.raises(TypeError):
        kernel.RangeTombstones().seqs_covering("a")


@pytest.mark.parametrize("shape", ["trim", "disjoint", "nested", "overlapping"])
def test_thousands_of_tombstones_added_one_by_one_agree_with_the_twin(shape: str) -> None:
    count = 2000

    def span(index: int) -> tuple[bytes, bytes]:
        return {
            "trim": (b"", b"%06d" % (index + 1)),
            "disjoint": (b"%06d" % (index * 7919 % count), b"%06d~" % (index * 7919 % count)),
            "nested": (b"%06d" % index, b"%06d" % (3 * count - index)),
            "overlapping": (b"%06d" % index, b"%06d" % (index + 500)),
        }[shape]

    tombstones = [(*span(index), index + 1) for index in range(count)]
    grown = _tombstones_c.RangeTombstones()
    for each in tombstones:
        grown = grown.with_added(*each)
    built = _tombstones_c.RangeTombstones(tombstones)
    assert built.tombstones() == grown.tombstones()
    twin = _tombstones_py.RangeTombstones(tombstones)
    assert twin.tombstones() == grown.tombstones()
    for probe in range(0, 3 * count, 97):
        key = b"%06d" % probe
        assert twin.seqs_covering(key) == grown.seqs_covering(key)
        for snapshot in (1, 700, 1999, SEQ_MAX):
            assert (
                twin.cover(key, snapshot)
                == grown.cover(key, snapshot)
                == built.cover(key, snapshot)
            )


@pytest.mark.parametrize("kernel", TWINS)
@given(
    tombstones=st.lists(
        st.tuples(st.binary(max_size=2), st.binary(max_size=2), st.integers(1, 30))
    ),
    lower=st.none() | st.binary(max_size=2),
    upper=st.none() | st.binary(max_size=2),
    added=st.integers(0, 5),
)
def test_the_newest_tombstone_over_a_range(
    kernel: ModuleType,
    tombstones: list[Any],
    lower: bytes | None,
    upper: bytes | None,
    added: int,
) -> None:
    one = kernel.RangeTombstones(tombstones[added:])
    for start, stop, seq in tombstones[:added]:
        one = one.with_added(start, stop, seq)
    expected = 0
    for start, stop, seq in tombstones:
        low = start if lower is None else max(start, lower)
        high = stop if upper is None else min(stop, upper)
        if low < high:
            expected = max(expected, seq)
    assert expected == one.newest_over(lower, upper)
