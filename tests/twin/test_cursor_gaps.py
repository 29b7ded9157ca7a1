"""Goal: both twins of the gaps say the same, never more than is true, and stay within their bounds.

Method: random puts, deletes and scans over a small universe of keys, with what is visible kept
beside; a gap that is given must hold no key that is visible to that snapshot.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import SEQ_MAX
from holdfast.cursor import _gaps_c, _gaps_py
from holdfast.cursor._gaps_py import GAP_ENTRIES_MIN, GAP_KEY_BYTES_MAX, GAPS_MAX

MODULES = (_gaps_c, _gaps_py)
both = pytest.mark.parametrize("twin", MODULES, ids=["c", "py"])
UNIVERSE = [
    b"",
    b"\x00",
    b"a",
    b"a\x00",
    b"a\x00\x00",
    b"ab",
    b"b",
    b"ba",
    b"c",
    b"\xff",
    b"\xff\xff",
]
KEYS = st.sampled_from(UNIVERSE)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "delete"]), KEYS),
        st.tuples(st.just("scan"), KEYS, st.none() | KEYS, st.integers(0, 80), st.integers(0, 3)),
    ),
    max_size=40,
)


class History:
    """All versions of all keys."""

    def __init__(self) -> None:
        self.seq = 0
        self.versions: dict[bytes, list[tuple[int, bool]]] = {}

    def write(self, key: bytes, *, is_put: bool) -> None:
        self.seq += 1
        self.versions.setdefault(key, []).append((self.seq, is_put))

    def is_visible(self, key: bytes, snapshot: int) -> bool:
        seen = [is_put for seq, is_put in self.versions.get(key, []) if seq <= snapshot]
        return bool(seen) and seen[-1]

    def are_visible(self, lower: bytes, upper: bytes | None, snapshot: int) -> list[bytes]:
        return [
            key
            for key in UNIVERSE
            if lower <= key and (upper is None or key < upper) and self.is_visible(key, snapshot)
        ]


@given(actions=ACTIONS)
def test_a_gap_holds_nothing_visible_and_twins_agree(actions: list[Any]) -> None:
    history = History()
    sets: list[Any] = [module.Gaps() for module in MODULES]
    for action, *given_values in actions:
        if action == "scan":
            lower, upper, entries, age = given_values
            snapshot = max(history.seq - age, 0)
            if not history.are_visible(lower, upper, snapshot):
                taken = [each.note_gap(lower, upper, snapshot, entries) for each in sets]
                assert taken[0] == taken[1]
        else:
            if action == "put":
                for each in sets:
                    each.note_put(given_values[0], history.seq + 1)
            history.write(given_values[0], is_put=action == "put")
        assert len(sets[0]) == len(sets[1])
        for snapshot in range(max(history.seq - 3, 0), history.seq + 2):
            for key in (*UNIVERSE, None):
                check(history, sets, key, snapshot)


def check(history: History, sets: list[Any], key: bytes | None, snapshot: int) -> None:
    before = [each.gap_before(key, snapshot) for each in sets]
    assert before[0] == before[1]
    if before[0] is not None:
        lower, upper = before[0]
        assert key is None or lower < key
        assert upper is None or (key is not None and key <= upper)
        assert history.are_visible(lower, upper, snapshot) == []
    if key is None:
        return
    at = [each.gap_at(key, snapshot) for each in sets]
    assert at[0] == at[1]
    if at[0] is not None:
        lower, upper = at[0]
        assert lower <= key
        assert upper is None or key < upper
        assert history.are_visible(lower, upper, snapshot) == []


@both
def test_gaps_that_touch_become_one(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    assert gaps.note_gap(b"a", b"c", 5, 20)
    assert gaps.note_gap(b"c", b"d", 7, 20)
    assert (1, (b"a", b"d")) == (len(gaps), gaps.gap_at(b"b", 7))
    assert gaps.gap_at(b"b", 6) is None
    assert gaps.note_gap(b"x", None, 5, 20)
    assert gaps.note_gap(b"", b"zz", 5, 20)
    assert (1, (b"", None)) == (len(gaps), gaps.gap_at(b"", 7))


@both
def test_a_put_cuts_and_what_is_left_halves(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    gaps.note_gap(b"a", b"z", 5, 2 * GAP_ENTRIES_MIN)
    gaps.note_put(b"z", 6)
    assert gaps.gap_at(b"y", 6) == (b"a", b"z")
    gaps.note_put(b"m", 7)
    assert gaps.gap_at(b"a", 7) == (b"a", b"m")
    assert gaps.gap_at(b"m", 7) is None
    assert gaps.gap_at(b"m\x00", 7) == (b"m\x00", b"z")
    gaps.note_put(b"b", 8)
    assert (1, None) == (len(gaps), gaps.gap_at(b"b", 8))


@both
def test_a_gap_is_not_taken_beside_a_newer_put(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    gaps.note_put(b"x", 9)
    assert not gaps.note_gap(b"a", b"c", 8, 100)
    assert gaps.note_gap(b"a", b"c", 9, 100)


@both
def test_when_anything_may_come_no_gap_is_left_nor_taken(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    gaps.note_gap(b"a", b"c", 5, 100)
    gaps.note_gap(b"x", None, 5, 100)
    gaps.clear(9)
    assert (0, None) == (len(gaps), gaps.gap_at(b"b", 9))
    assert not gaps.note_gap(b"a", b"c", 8, 100)
    assert gaps.note_gap(b"a", b"c", 9, 100)
    gaps.clear(3)
    assert not len(gaps)
    assert not gaps.note_gap(b"a", b"c", 8, 100)


@both
def test_what_saves_little_or_has_no_sense_is_not_taken(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    assert not gaps.note_gap(b"a", b"b", 1, GAP_ENTRIES_MIN - 1)
    assert not gaps.note_gap(b"b", b"b", 1, 100)
    assert not gaps.note_gap(b"c", b"b", 1, 100)
    assert not gaps.note_gap(bytes(GAP_KEY_BYTES_MAX + 1), None, 1, 100)
    assert not gaps.note_gap(b"", b"x" * (GAP_KEY_BYTES_MAX + 1), 1, 100)
    assert gaps.note_gap(bytes(GAP_KEY_BYTES_MAX), b"x" * GAP_KEY_BYTES_MAX, 1, 100)
    gaps.note_put(b"w" * GAP_KEY_BYTES_MAX, 2)
    assert 0 == len(gaps)


@both
def test_the_least_useful_gap_makes_room(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    for number in range(GAPS_MAX):
        assert gaps.note_gap(b"%04d" % number, b"%04d5" % number, 1, 100 + (number != 7))
    assert GAPS_MAX == len(gaps)
    gaps.note_gap(b"9", b"99", 1, 200)
    assert GAPS_MAX == len(gaps)
    assert gaps.gap_at(b"0007", 1) is None
    assert gaps.gap_at(b"9", 1) == (b"9", b"99")
    # Cut in a full set: only one part stays.
    gaps.note_put(b"95", 2)
    assert gaps.gap_at(b"9", 2) == (b"9", b"95")
    assert gaps.gap_at(b"96", 2) is None


@both
def test_cleared_gaps_are_gone_and_older_scans_give_none(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    gaps.note_gap(b"a", b"c", 5, 100)
    gaps.clear(9)
    assert (0, None) == (len(gaps), gaps.gap_at(b"b", 9))
    assert not gaps.note_gap(b"a", b"c", 8, 100)
    assert gaps.note_gap(b"a", b"c", 9, 100)


@both
def test_wrong_arguments_are_refused(twin: ModuleType) -> None:
    gaps = twin.Gaps()
    for call in (
        lambda: gaps.note_put("a", 1),
        lambda: gaps.note_put(b"a", "1"),
        lambda: gaps.clear("1"),
        lambda: gaps.note_gap("a", b"b", 1, 100),
        lambda: gaps.note_gap(b"a", "b", 1, 100),
        lambda: gaps.gap_at("a", 1),
        lambda: gaps.gap_before("a", 1),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError, match="56 bits"):
        gaps.note_put(b"a", SEQ_MAX + 1)
    with pytest.raises(ValueError, match="56 bits"):
        gaps.clear(SEQ_MAX + 1)
    with pytest.raises(ValueError, match="negative"):
        gaps.note_gap(b"a", b"b", 1, -1)
