"""Goal: both twins of the memtable are a sorted list of versions, however they grow and whoever is
reading.

Method: random histories of writes, reads and cursor moves against a sorted list; both twins side by
side for numbers that only they define; cursors that stay while the table grows and after it is
dropped.
"""

from __future__ import annotations

import bisect
import gc
import os
import random
import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import KEY_BYTES_MAX, SEQ_MAX, LimitError
from holdfast.memtable import _memtable_c, _memtable_py

TWINS = [pytest.param(_memtable_c, id="c"), pytest.param(_memtable_py, id="py")]
KEYS = st.one_of(
    st.binary(max_size=2),
    st.sampled_from(
        [b"", b"\x00", b"a", b"aaaaaaaa", b"aaaaaaaa\x00", b"aaaaaaaab", b"\xff" * 8, b"\xff" * 9]
    ),
)
SEQS = st.one_of(st.integers(1, 8), st.sampled_from([SEQ_MAX - 1, SEQ_MAX]))
WRITES = st.tuples(st.just("put"), SEQS, st.sampled_from([0, 1]), KEYS, st.binary(max_size=3))
RANGES = st.tuples(st.just("delete_range"), SEQS, KEYS, KEYS)
MOVES = st.one_of(
    st.just(("next",)),
    st.just(("next",)),
    st.just(("prev",)),
    st.just(("prev",)),
    st.just(("seek_first",)),
    st.just(("seek_last",)),
    st.tuples(st.just("seek"), KEYS, SEQS),
    st.tuples(st.just("seek_before"), KEYS),
)
GETS = st.tuples(st.just("get"), KEYS, st.one_of(st.just(0), SEQS))
Version = tuple[bytes, int, int, bytes]


class Model:
    """The versions, sorted, and a cursor that remembers the version where it stands."""

    def __init__(self) -> None:
        self.versions: dict[tuple[bytes, int], Version] = {}
        self.place: tuple[bytes, int] | None = None
        self.shown: Version | None = None

    def put(self, seq: int, kind: int, key: bytes, value: bytes) -> None:
        self.versions[key, -seq] = (key, seq, kind, value)

    def get(self, key: bytes, snapshot: int) -> tuple[int, int, bytes] | None:
        found = [
            place for place in sorted(self.versions) if place[0] == key and -place[1] <= snapshot
        ]
        return self.versions[found[0]][1:] if found else None

    def move(self, name: str, *arguments: Any) -> bool:
        order = sorted(self.versions)
        if name == "seek":
            candidates = [place for place in order if place >= (arguments[0], -arguments[1])]
        elif name == "next":
            assert self.place is not None
            candidates = [place for place in order if place > self.place]
        elif name == "seek_first":
            candidates = order
        elif name == "seek_before":
            candidates = [place for place in reversed(order) if place[0] < arguments[0]]
        elif name == "prev":
            candidates = [
                place for place in reversed(order) if self.place is not None and place < self.place
            ]
        else:
            candidates = order[::-1]
        self.place = candidates[0] if candidates else None
        self.shown = self.versions[self.place] if self.place is not None else None
        return self.place is not None


@pytest.mark.parametrize("kernel", TWINS)
@given(steps=st.lists(st.one_of(WRITES, WRITES, MOVES, GETS, RANGES), max_size=60))
def test_a_memtable_is_a_sorted_list_of_versions(kernel: ModuleType, steps: list[Any]) -> None:
    table = kernel.Memtable()
    twin = _memtable_py.Memtable()
    model = Model()
    cursor = table.cursor()
    seqs: list[int] = []
    tombstones = []
    for name, *arguments in steps:
        if name == "put":
            table.put(*arguments)
            twin.put(*arguments)
            model.put(*arguments)
            seqs.append(arguments[0])
        elif name == "delete_range":
            table.delete_range(*arguments)
            twin.delete_range(*arguments)
            if arguments[1] < arguments[2]:
                tombstones.append((arguments[1], arguments[2], arguments[0]))
                seqs.append(arguments[0])
        elif name == "get":
            assert model.get(*arguments) == table.get(*arguments)
        elif name in ("next", "prev") and model.place is None:
            with pytest.raises(ValueError, match="stands at no entry"):
                getattr(cursor, name)()
        else:
            assert model.move(name, *arguments) is getattr(cursor, name)(*arguments)
        assert (model.shown is not None) is cursor.valid
        if model.shown is not None:
            # A cursor shows the entry as it was when it moved there, even after a replacement.
            assert model.shown == (cursor.key, cursor.seq, cursor.kind, cursor.value)
        assert len(model.versions) == table.entry_count
        assert (min(seqs, default=0), max(seqs, default=0)) == (table.seq_min, table.seq_max)
        assert twin.bytes_used == table.bytes_used
    twin_set = twin.range_tombstones
    assert twin_set.tombstones() == table.range_tombstones.tombstones()
    for start, stop, seq in tombstones:
        assert table.range_tombstones.cover(start, SEQ_MAX) >= seq
        assert stop > start


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("order", ["ascending", "descending", "random", "zigzag", "series"])
@pytest.mark.parametrize("count", [1, 7, 3_000])
def test_large_tables_are_sorted_both_ways(kernel: ModuleType, order: str, count: int) -> None:
    rng = random.Random(7)
    numbers = list(range(count))
    if order == "descending":
        numbers.reverse()
    elif order == "random":
        rng.shuffle(numbers)
    elif order == "zigzag":
        numbers = [each for pair in zip(numbers, reversed(numbers)) for each in pair]
    elif order == "series":
        numbers = [series * count + each for each in numbers for series in range(3)]
    table = kernel.Memtable()
    expected = {}
    for seq, number in enumerate(numbers, 1):
        key = b"%08d" % number if number % 2 else b"shared prefix %08d" % number
        value = rng.randbytes(rng.choice([0, 1, 30, 200]))
        table.put(seq, 1, key, value)
        expected[key, -seq] = (key, seq, 1, value)
    rows = [expected[place] for place in sorted(expected)]
    assert rows == walk(table.cursor(), "seek_first", "next")
    assert rows[::-1] == walk(table.cursor(), "seek_last", "prev")
    newest = {key: (seq, kind, value) for key, seq, kind, value in reversed(rows)}
    for key in rng.sample(sorted(newest), min(200, len(newest))):
        assert newest[key] == table.get(key, SEQ_MAX)
        assert table.get(key + b"\x00", SEQ_MAX) is None
    assert table.get(b"\xff" * 20, SEQ_MAX) is None


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("seed", range(12))
def test_tables_grown_in_runs_are_searched_like_a_sorted_list(
    kernel: ModuleType, seed: int
) -> None:
    """Runs up and down from random places, keys that share long or no prefixes, many versions of a
    few.
    """
    rng = random.Random(seed)
    table = kernel.Memtable()
    order: list[tuple[bytes, int]] = []
    seq = 0
    while len(order) < 6_000:
        prefix = rng.choice(
            [b"", b"a", b"\xff", b"series/temperature/", b"series/temperature/room", b"\x00" * 9]
        )
        base = rng.randrange(1 << 20)
        step = rng.choice([0, 1, -1, 3, -70])
        width = rng.choice([0, 4, 9])
        for index in range(rng.choice([1, 5, 70, 300])):
            seq += 1
            key = prefix + b"%0*d" % (width, max(base + step * index, 0))
            table.put(seq, 1, key, b"%d" % seq)
            order.append((key, -seq))
    order.sort()
    assert [(key, -minus) for key, minus in order] == [
        row[:2] for row in walk(table.cursor(), "seek_first", "next")
    ]
    assert order[::-1] == [(row[0], -row[1]) for row in walk(table.cursor(), "seek_last", "prev")]
    cursor = table.cursor()
    for _ in range(1_500):
        key, minus = rng.choice(order)
        key = rng.choice(
            [key, key[:-1], key + b"\x00", key[: rng.randrange(len(key) + 1)] + rng.randbytes(2)]
        )
        snapshot = rng.choice([-minus, -minus - 1, -minus + 1, rng.randrange(seq), SEQ_MAX])
        at = bisect.bisect_left(order, (key, -snapshot))
        assert (at < len(order)) is cursor.seek(key, snapshot)
        if at < len(order):
            assert order[at] == (cursor.key, -cursor.seq)
        found = order[at] if at < len(order) and order[at][0] == key else None
        assert (found and (-found[1], 1, b"%d" % -found[1])) == table.get(key, snapshot)
        before = bisect.bisect_left(order, (key, -SEQ_MAX)) - 1
        assert (before >= 0) is cursor.seek_before(key)
        if before >= 0:
            assert order[before] == (cursor.key, -cursor.seq)


FULL_PAGES = [64, 64 * 64, 64 * 100]
"""So many keys that ascend end where a page of the index is full."""


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize("ascending", FULL_PAGES)
def test_gaps_behind_full_pages_are_filled_from_either_end(
    kernel: ModuleType, ascending: int
) -> None:
    rng = random.Random(ascending)
    table = kernel.Memtable()
    keys = [b"%06d" % number for number in range(ascending)]
    # Behind the last one, and behind each of some where a page ends.
    gaps = [b"%06d" % (place - 1) for place in range(64, ascending + 1, 64 * 16)] + [b"x"]
    left = [(gap, order, 300) for gap in gaps for order in (1, -1)]
    seq = 0
    for key in keys:
        seq += 1
        table.put(seq, 1, key, b"")
    while left:
        gap, order, count = left.pop(rng.randrange(len(left)))
        steps = min(count, rng.choice([1, 2, 40, 100]))
        for number in range(count, count - steps, -1):
            seq += 1
            # From both ends towards the middle.
            keys.append(gap + b"%05d" % (number if order < 0 else 10_000 - number))
            table.put(seq, 1, keys[-1], b"")
        if count > steps:
            left.append((gap, order, count - steps))
    assert sorted(keys) == [row[0] for row in walk(table.cursor(), "seek_first", "next")]
    assert all(table.get(key, SEQ_MAX) for key in keys)
    assert not any(table.get(key + b"0", SEQ_MAX) for key in keys)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system has no /proc")
@pytest.mark.parametrize("ascending", [1, *FULL_PAGES])
def test_keys_that_descend_behind_a_full_page_share_pages(ascending: int) -> None:
    """Each had one of its own, twelve times the memory."""

    def mapped_bytes() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()

    table = _memtable_c.Memtable()
    for seq in range(1, ascending + 1):
        table.put(seq, 1, b"%09d" % seq, b"")
    before, used = mapped_bytes(), table.bytes_used
    for number in range(60_000):
        table.put(ascending + number + 1, 1, b"%09d" % (10**8 - number), b"v" * 20)
    assert mapped_bytes() - before < 3 * (table.bytes_used - used)


def walk(cursor: Any, start: str, step: str) -> list[Version]:
    found = []
    at = getattr(cursor, start)()
    while at:
        found.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
        at = getattr(cursor, step)()
    return found


@pytest.mark.parametrize("kernel", TWINS)
def test_cursors_keep_working_while_the_table_grows_and_after_it_is_dropped(
    kernel: ModuleType,
) -> None:
    rng = random.Random(3)
    table = kernel.Memtable()
    written: dict[tuple[bytes, int], Version] = {}
    cursors = []
    for seq in range(1, 4_001):
        key = b"%05d" % rng.randrange(3_000)
        value = rng.randbytes(rng.choice([3, 40, 3_000]))
        table.put(seq, 1, key, value)
        written[key, -seq] = (key, seq, 1, value)
        if seq % 400 == 0:
            cursor = table.cursor()
            assert cursor.seek(key, SEQ_MAX)
            cursors.append((cursor, (cursor.key, cursor.seq, cursor.kind, cursor.value)))
    for cursor, shown in cursors:
        assert shown == (cursor.key, cursor.seq, cursor.kind, cursor.value)
    del table
    gc.collect()
    rows = [written[place] for place in sorted(written)]
    for cursor, shown in cursors:
        assert shown == (cursor.key, cursor.seq, cursor.kind, cursor.value)
        behind = []
        while cursor.next():
            behind.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
        assert rows[rows.index(shown) + 1 :] == behind
    assert rows == walk(cursors[0][0], "seek_first", "next")


@pytest.mark.parametrize("kernel", TWINS)
def test_a_replaced_value_is_seen_by_the_next_move_only(kernel: ModuleType) -> None:
    table = kernel.Memtable()
    table.put(5, 1, b"k", b"old")
    cursor = table.cursor()
    cursor.seek_first()
    table.put(5, 0, b"k", b"the new and longer value")
    assert (1, b"old") == (cursor.kind, cursor.value)
    assert (5, 0, b"the new and longer value") == table.get(b"k", 5)
    cursor.seek_first()
    assert (0, b"the new and longer value") == (cursor.kind, cursor.value)
    assert 1 == table.entry_count


@pytest.mark.parametrize("kernel", TWINS)
def test_big_keys_and_values(kernel: ModuleType) -> None:
    table = kernel.Memtable()
    key = b"k" * KEY_BYTES_MAX
    value = random.Random(1).randbytes(3 << 20)
    table.put(1, 1, key, value)
    table.put(2, 1, b"small", b"v")
    table.put(3, 1, key[:-1] + b"l", b"w" * (1 << 18))
    assert (1, 1, value) == table.get(key, 9)
    assert (2, 1, b"v") == table.get(b"small", 9)
    assert table.bytes_used > (3 << 20) + KEY_BYTES_MAX
    with pytest.raises(LimitError):
        table.put(4, 1, key + b"k", b"")
    with pytest.raises(LimitError):
        table.delete_range(4, b"a", key + b"kk")
    table.delete_range(4, b"a", key + b"\x00")
    assert 4 == table.range_tombstones.cover(key, 9)


BOUNDS = st.one_of(st.none(), KEYS)


@pytest.mark.parametrize("kernel", TWINS)
@given(keys=st.lists(KEYS, max_size=4), lower=BOUNDS, upper=BOUNDS)
def test_a_memtable_knows_the_range_of_its_keys(
    kernel: ModuleType, keys: list[bytes], lower: bytes | None, upper: bytes | None
) -> None:
    table = kernel.Memtable()
    for seq, key in enumerate(keys, start=1):
        table.put(seq, 1, key, b"")
    expected = (
        bool(keys)
        and (upper is None or min(keys) < upper)
        and (lower is None or lower <= max(keys))
    )
    assert table.overlaps(lower, upper) is expected


@pytest.mark.parametrize("kernel", TWINS)
def test_tombstones_alone_have_no_range(kernel: ModuleType) -> None:
    table = kernel.Memtable()
    table.delete_range(1, b"a", b"b")
    assert table.overlaps(None, None) is False


@pytest.mark.parametrize("kernel", TWINS)
def test_a_frozen_memtable_refuses_writes_and_is_still_read(kernel: ModuleType) -> None:
    table = kernel.Memtable()
    table.put(1, 1, b"k", b"v")
    assert not table.frozen
    table.freeze()
    table.freeze()
    assert table.frozen
    with pytest.raises(ValueError, match="frozen"):
        table.put(2, 1, b"k", b"w")
    with pytest.raises(ValueError, match="frozen"):
        table.delete_range(2, b"a", b"z")
    assert (1, 1, b"v") == table.get(b"k", 9)
    assert [(b"k", 1, 1, b"v")] == walk(table.cursor(), "seek_first", "next")


@pytest.mark.parametrize("kernel", TWINS)
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 1, b"k", b""), ValueError),
        ((-1, 1, b"k", b""), ValueError),
        ((SEQ_MAX + 1, 1, b"k", b""), ValueError),
        ((1 << 64, 1, b"k", b""), ValueError),
        ((1, 2, b"k", b""), ValueError),
        ((1, -1, b"k", b""), ValueError),
        ((1, 1, "k", b""), TypeError),
        ((1, 1, b"k", None), TypeError),
        (("1", 1, b"k", b""), TypeError),
        ((1, 1, bytearray(b"k"), b""), TypeError),
    ],
)
def test_wrong_entries_are_refused_and_change_nothing(
    kernel: ModuleType, arguments: Any, error: type[Exception]
) -> None:
    table = kernel.Memtable()
    with pytest.raises(error):
        table.put(*arguments)
    assert (0, 0, 0, 0) == (table.entry_count, table.bytes_used, table.seq_min, table.seq_max)
    assert [] == walk(table.cursor(), "seek_first", "next")


@pytest.mark.parametrize("kernel", TWINS)
def test_wrong_ranges_and_keys_are_refused(kernel: ModuleType) -> None:
    table = kernel.Memtable()
    for wrong in (
        lambda: table.delete_range(1, "a", b"b"),
        lambda: table.delete_range(1, b"a", None),
        lambda: table.get("a", 1),
        lambda: table.cursor().seek("a"),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError):
        table.delete_range(0, b"a", b"b")
    table.delete_range(1, b"b", b"b")
    table.delete_range(1, b"b", b"a")
    assert (0, 0, 0) == (len(table.range_tombstones), table.bytes_used, table.seq_max)
    assert table.get(b"a", -1) is None


@pytest.mark.parametrize("kernel", TWINS)
def test_a_set_of_tombstones_taken_earlier_does_not_change(kernel: ModuleType) -> None:
    table = kernel.Memtable()
    table.delete_range(3, b"a", b"c")
    before = table.range_tombstones
    table.delete_range(5, b"b", b"d")
    assert [(b"a", b"c", 3)] == before.tombstones()
    assert [(b"a", b"c", 3), (b"b", b"d", 5)] == table.range_tombstones.tombstones()


def test_a_seek_by_the_whole_trailer_steps_over_a_greater_kind() -> None:
    """The plain twin only: what moves a merge's sources is not seen from Python in the other."""
    table = _memtable_py.Memtable()
    table.put(5, 1, b"a", b"value")
    table.put(4, 1, b"a", b"older")
    cursor = table.cursor()
    assert cursor._seek(b"a", 5 << 8 | 1) == (b"a", 5, 1, b"value")
    assert cursor._seek(b"a", 5 << 8) == (b"a", 4, 1, b"older")


def test_a_value_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain twin only: a value of a gibibyte is too dear for a test of both."""
    monkeypatch.setattr(_memtable_py, "VALUE_BYTES_MAX", 10)
    table = _memtable_py.Memtable()
    table.put(1, 1, b"a", b"x" * 10)
    with pytest.raises(LimitError, match="the value has 11 bytes"):
        table.put(2, 1, b"a", b"x" * 11)
    assert table.entry_count == 1


def test_a_place_that_moved_while_it_was_looked_up_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A writer runs between two lines of the plain twin's reader."""
    table = _memtable_py.Memtable()
    for key in (b"b", b"d"):
        table.put(1, 1, key, key)
    searched = []

    def bisect_left(order: list[Any], place: Any) -> int:
        found = bisect.bisect_left(order, place)
        searched.append(found)
        if len(searched) == 1:
            monkeypatch.setattr(_memtable_py, "bisect_left", real)
            table.put(2, 1, b"a", b"new")
            monkeypatch.setattr(_memtable_py, "bisect_left", bisect_left)
        return found

    real = _memtable_py.bisect_left
    monkeypatch.setattr(_memtable_py, "bisect_left", bisect_left)
    assert table.get(b"d", 5) == (1, 1, b"d")
    assert searched == [1, 2, 2, 2]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system has no /proc")
def test_a_table_of_many_megabytes_gives_its_memory_back() -> None:
    """Large tables lie in huge pages that the table maps itself."""

    def mapped_bytes() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()

    keys = [b"%06d" % number for number in random.Random(3).sample(range(1 << 19), 1 << 14)]
    value = bytes(700)
    sizes = []
    for _ in range(8):
        table = _memtable_c.Memtable()
        for seq, key in enumerate(keys, 1):
            table.put(seq, 1, key, value)
        cursor = table.cursor()
        cursor.seek_first()
        found = [cursor.key]
        while cursor.next():
            found.append(cursor.key)
        assert found == sorted(keys)
        del table, cursor
        sizes.append(mapped_bytes())
    # Each table has 12 MiB.
    assert sizes[-1] - sizes[1] < 24 << 20


def fill(table: Any, count: int) -> list[bytes]:
    """Put `count` rows of 700 bytes in random order; return their keys in order."""
    keys = [b"%06d" % number for number in random.Random(count).sample(range(1 << 19), count)]
    for seq, key in enumerate(keys, 1):
        table.put(seq, 1, key, key * 100)
    return sorted(keys)


def check_filled(table: Any, keys: list[bytes]) -> None:
    cursor = table.cursor()
    cursor.seek_first()
    for key in keys:
        assert (cursor.key, cursor.value) == (key, key * 100)
        cursor.next()
    assert not cursor.valid


@pytest.mark.skipif(sys.platform != "linux", reason="chunks are mapped on Linux only")
def test_the_memory_of_a_table_that_is_gone_is_taken_by_the_next_one() -> None:
    spare = _memtable_c.SpareChunks()
    spare.keep(64 << 20)
    table = _memtable_c.Memtable(spare=spare)
    fill(table, 1 << 14)
    assert spare.bytes_held == 0
    cursor = table.cursor()
    cursor.seek_first()
    del table
    # The cursor still shows the table.
    assert spare.bytes_held == 0
    assert cursor.value == cursor.key * 100
    del cursor
    held = spare.bytes_held
    assert 8 << 20 <= held <= 16 << 20
    second = _memtable_c.Memtable(None, spare)
    keys = fill(second, 1 << 13)
    assert 0 < spare.bytes_held <= held - (4 << 20)
    check_filled(second, keys)
    # A larger one takes the rest, and then memory of its own.
    third = _memtable_c.Memtable(None, spare)
    others = fill(third, 1 << 15)
    assert spare.bytes_held == 0
    check_filled(third, others)
    check_filled(second, keys)
    del second, third
    assert spare.bytes_held > held


@pytest.mark.skipif(sys.platform != "linux", reason="chunks are mapped on Linux only")
def test_no_more_memory_is_kept_than_was_asked_for() -> None:
    spare = _memtable_c.SpareChunks()
    for bytes_max, expected in ((0, 0), (5 << 20, 4 << 20), (4 << 20, 4 << 20), (-1, 0)):
        table = _memtable_c.Memtable(spare=spare)
        spare.keep(bytes_max)
        fill(table, 1 << 14)
        del table
        assert spare.bytes_held == expected
    spare.keep(8 << 20)
    table = _memtable_c.Memtable(spare=spare)
    fill(table, 1 << 14)
    del table
    assert spare.bytes_held == 8 << 20
    spare.keep(3 << 20)
    assert spare.bytes_held == 2 << 20
    # What is left goes with the last one who knows of it.
    table = _memtable_c.Memtable(spare=spare)
    del spare
    keys = fill(table, 1 << 13)
    check_filled(table, keys)


@pytest.mark.skipif(sys.platform != "linux", reason="chunks are mapped on Linux only")
def test_memory_is_made_ready_within_the_limit() -> None:
    spare = _memtable_c.SpareChunks()
    chunk = spare.chunk_bytes
    assert chunk == 2 << 20
    # At first nothing may be kept.
    assert not spare.prepare()
    spare.keep(3 * chunk - 1)
    assert spare.prepare()
    assert spare.prepare()
    assert not spare.prepare()
    assert spare.bytes_held == 2 * chunk
    table = _memtable_c.Memtable(spare=spare)
    check_filled(table, fill(table, 1 << 13))
    assert spare.bytes_held == 0
    assert spare.prepare()


@pytest.mark.skipif(sys.platform != "linux", reason="chunks are mapped on Linux only")
def test_memory_may_be_made_ready_and_taken_by_several_threads() -> None:
    spare = _memtable_c.SpareChunks()
    spare.keep(4 * spare.chunk_bytes)
    ended = threading.Event()

    def prepare() -> None:
        while not ended.is_set():
            spare.prepare()
            assert 0 <= spare.bytes_held <= 4 * spare.chunk_bytes

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(prepare) for _ in range(2)]
        try:
            for number in range(6):
                spare.keep((number % 3 + 2) * spare.chunk_bytes)
                table = _memtable_c.Memtable(spare=spare)
                check_filled(table, fill(table, 1 << 13))
                spare.keep(0)
                assert spare.bytes_held == 0
        finally:
            ended.set()
        for job in jobs:
            job.result()


def test_the_plain_twin_makes_nothing_ready() -> None:
    """The interpreter has its memory."""
    spare = _memtable_py.SpareChunks()
    spare.keep(1 << 30)
    assert not spare.chunk_bytes
    assert not spare.prepare()
    assert spare.bytes_held == 0


@pytest.mark.parametrize("kernel", TWINS)
def test_small_tables_leave_nothing_behind(kernel: ModuleType) -> None:
    """Their memory is the allocator's, which keeps it itself."""
    spare = kernel.SpareChunks()
    spare.keep(1 << 30)
    table = kernel.Memtable(spare=spare)
    check_filled(table, fill(table, 100))
    del table
    assert spare.bytes_held == 0
