"""The strategies by size, by time and by age, driven over pretended tables."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from holdfast.base import KeyspaceSettings
from holdfast.compaction import strategy_of
from holdfast.manifest import KeyspaceVersion, VersionEdit
from holdfast.sstable import TableInfo
from tests.unit.compaction.pretend import KEY_BYTES, Tree, check_drop, check_plan, key

SECOND_US = 1_000_000
KEY_SECONDS = 1 << 24
"""A pretended key has 5 bytes; as the first 8 of a time in seconds each is this many."""
SMALL = KeyspaceSettings(
    table_bytes=8 * KEY_BYTES, level1_bytes=32 * KEY_BYTES, level_ratio=4, level0_tables=3
)
TIERED = replace(SMALL, compaction="size-tiered")
FIFO = replace(SMALL, compaction="fifo")
WINDOW = replace(
    SMALL, compaction="time-window", window_seconds=100 * KEY_SECONDS, key_time_unit="s"
)
BY_NAME = {s.compaction: s for s in (SMALL, TIERED, FIFO, WINDOW)}


def at(number: int) -> int:
    """The wall time, in microseconds, that a pretended key says."""
    return number * KEY_SECONDS * SECOND_US


def settle(tree: Tree, now: int = 10_000, *, snapshots_exist: bool = False) -> None:
    """Carry out every plan; each must keep the invariants."""
    for _ in range(10_000):
        plan = strategy_of(tree.keyspace.settings).pick(
            tree.keyspace, now_us=at(now), snapshots_exist=snapshots_exist
        )
        if plan is None:
            return
        if plan.is_drop:
            check_drop(tree.keyspace, plan)
        else:
            check_plan(tree.keyspace, plan)
        tree.run(plan)
    raise AssertionError("compaction does not come to rest")


@pytest.mark.parametrize("name", list(BY_NAME))
@pytest.mark.parametrize("run", range(3))
def test_random_histories_keep_every_invariant_and_come_to_rest(
    seed: int, name: str, run: int
) -> None:
    rng = random.Random(seed * 10 + run)
    tree = Tree(BY_NAME[name])
    clock = 0
    for _ in range(120):
        count = rng.choice([1, 2, 8, 30])
        shape = rng.random()
        keys: Iterable[int]
        if shape < 0.3:
            keys = range(clock, clock + count)
            clock += count
        elif shape < 0.6:
            start = rng.randrange(900)
            keys = range(start, start + count)
        else:
            keys = rng.sample(range(1_000), count)
        written = [number for number in keys if rng.random() < 0.7]
        tree.flush(written, [number for number in keys if number not in written])
        if rng.random() < 0.7:
            settle(tree, clock, snapshots_exist=rng.random() < 0.3)
            assert tree.read() == tree.expected
    settle(tree)
    assert tree.read() == tree.expected
    assert strategy_of(tree.keyspace.settings).run_count(tree.keyspace) <= 4 * SMALL.level0_tables


@pytest.mark.parametrize("name", ["size-tiered", "time-window", "fifo"])
def test_nothing_is_picked_while_its_tables_are_busy(name: str) -> None:
    tree = Tree(replace(BY_NAME[name], table_bytes=128 * KEY_BYTES))
    for _ in range(6):
        tree.flush(range(4))
    strategy = strategy_of(tree.keyspace.settings)
    assert strategy.pick(tree.keyspace, now_us=at(500)) is not None
    assert strategy.pick(tree.keyspace, tree.keyspace.numbers, now_us=at(500)) is None


def test_runs_of_one_size_are_rewritten_once_for_each_tier() -> None:
    """Four runs make one: 64 flushes make three tiers, and nothing is written a fifth time."""
    tree = Tree(replace(TIERED, level0_tables=4))
    for flush in range(64):
        tree.flush(range(flush, 64_000, 64 * 125))
        settle(tree)
        assert tree.read() == tree.expected
    assert tree.amplification == 4
    assert [len(level) for level in tree.keyspace.levels] == [0] * 6 + [64]


def test_a_run_that_is_newer_goes_above_the_older_one() -> None:
    tree = Tree(TIERED)
    tree.place(6, range(0, 400, 2))
    for start in range(3):
        tree.flush(range(start, 60, 3))
    settle(tree)
    assert [level for level, tables in enumerate(tree.keyspace.levels) if tables] == [5, 6]
    tree.place(1, [1])
    tree.flush([2])
    plan = strategy_of(TIERED).pick(tree.keyspace)
    assert plan is None


@pytest.mark.parametrize("name", ["leveled", "size-tiered"])
def test_a_queue_takes_space_for_what_is_in_it(name: str) -> None:
    """Elements come at the end and go at the front; 20 are in it at any time. A scan from the
    front meets the deletes that are there, and their number stays bounded.
    """
    tree = Tree(BY_NAME[name])
    most = 0
    for turn in range(200):
        tree.flush(range(turn * 10 + 20, turn * 10 + 30), deleted=range(turn * 10, turn * 10 + 10))
        settle(tree)
        most = max(most, sum(table.entry_count for _, table in tree.keyspace.tables()))
    assert tree.read() == tree.expected
    assert most < 200
    assert tree.amplification < 8


@pytest.mark.parametrize("name", ["leveled", "size-tiered"])
def test_deletes_stay_while_a_snapshot_may_see_past_them(name: str) -> None:
    tree = Tree(BY_NAME[name])
    tree.place(6, range(8))
    tree.flush([], deleted=range(8))
    strategy = strategy_of(tree.keyspace.settings)
    assert strategy.pick(tree.keyspace, snapshots_exist=True) is None
    plan = strategy.pick(tree.keyspace)
    assert plan is not None
    settle(tree)
    assert list(tree.keyspace.tables()) == []


def test_levels_above_the_deepest_hold_a_part_of_it() -> None:
    """What they hide of it is bounded by what they hold."""
    rng = random.Random(1)
    tree = Tree(replace(SMALL, level1_bytes=16 * KEY_BYTES))
    for _ in range(600):
        tree.flush(rng.sample(range(600), 8))
        settle(tree)
    total = sum(table.size_bytes for _, table in tree.keyspace.tables())
    assert total < 1.5 * len(tree.expected) * KEY_BYTES


def test_windows_in_order_are_written_once_and_lie_apart() -> None:
    tree = Tree(WINDOW)
    for flush in range(100):
        tree.flush(range(flush * 8, flush * 8 + 8))
        settle(tree, flush * 8)
    assert tree.merges <= 8  # small tables at the windows' borders are joined
    assert tree.amplification < 1.1
    assert len(tree.keyspace.levels[0]) <= 2
    for table in tree.keyspace.levels[1]:
        assert table.lower[:5] >= key(int.from_bytes(table.lower[:5], "big") // 100 * 100)
        first = int.from_bytes(table.lower[:5], "big") // 100
        assert (int.from_bytes(table.upper[:5], "big") - (len(table.upper) == 5)) // 100 == first


def test_a_window_is_merged_once_when_it_is_closed_and_then_left() -> None:
    """Data that comes a little out of order: tables overlap their neighbours."""
    tree = Tree(WINDOW)
    order = sorted(range(2_000), key=lambda n: n + random.Random(n).randrange(12))
    for start in range(0, 2_000, 10):
        tree.flush(order[start : start + 10])
        settle(tree, start)
    assert tree.read() == tree.expected
    assert tree.amplification <= 2.05
    before = {t.number for t in tree.keyspace.levels[1] if t.upper < key(1_800)}
    for start in range(2_000, 2_300, 10):
        tree.flush(range(start, start + 10))
        settle(tree, start)
    assert before <= {t.number for t in tree.keyspace.levels[1]}


def test_late_data_is_merged_within_its_window() -> None:
    tree = Tree(WINDOW)
    for start in range(0, 1_000, 10):
        tree.flush(range(start, start + 10))
        settle(tree, start)
    others = {t.number for t in tree.keyspace.levels[1] if not key(300) <= t.lower < key(400)}
    written = tree.written_bytes
    for turn in range(12):
        tree.flush(range(300 + turn, 400, 20))
        settle(tree, 1_000)
    assert tree.read() == tree.expected
    assert others <= {t.number for t in tree.keyspace.levels[1]}
    assert tree.written_bytes - written < 600 * KEY_BYTES


def test_keys_after_now_close_no_window() -> None:
    tree = Tree(WINDOW)
    tree.flush([5_000])
    tree.flush(range(0, 6, 2))
    tree.flush(range(1, 6, 2))
    settle(tree, 50)
    assert [t.entry_count for t in tree.keyspace.levels[0]] == [3, 3]
    assert [t.entry_count for t in tree.keyspace.levels[1]] == [1]
    tree.flush([120])
    settle(tree, 150)
    assert [t.entry_count for t in tree.keyspace.levels[1]] == [6, 1, 1]


def kept(version: KeyspaceVersion) -> list[bytes]:
    return sorted(table.lower for _, table in version.tables())


def test_windows_beyond_the_retention_go_as_whole_files() -> None:
    tree = Tree(
        replace(WINDOW, window_seconds=10 * KEY_SECONDS, retention_seconds=KEY_SECONDS * 30)
    )
    for start in range(0, 100, 10):
        tree.flush(range(start, start + 10))
        settle(tree, start)
    settle(tree, 99)
    assert kept(tree.keyspace) == [key(60), key(70), key(80), key(90)]
    settle(tree, 100, snapshots_exist=True)
    assert kept(tree.keyspace) == [key(60), key(70), key(80), key(90)]
    settle(tree, 100)
    assert kept(tree.keyspace) == [key(70), key(80), key(90)]
    assert tree.amplification == 1


def test_the_oldest_windows_go_while_there_is_too_much() -> None:
    tree = Tree(replace(WINDOW, window_seconds=10 * KEY_SECONDS, retention_bytes=35 * KEY_BYTES))
    for start in range(0, 100, 10):
        tree.flush(range(start, start + 10))
        settle(tree, start)
    assert kept(tree.keyspace) == [key(70), key(80), key(90)]


def test_a_newer_version_stays_with_the_older_one_that_it_hides() -> None:
    """A table of level 1 reaches into a window that stays; over it lies one that is old enough."""
    settings = replace(WINDOW, window_seconds=10 * KEY_SECONDS, retention_seconds=KEY_SECONDS * 30)
    tree = Tree(replace(settings, window_seconds=100 * KEY_SECONDS))
    tree.place(1, range(25))
    content = tree.tables[tree.keyspace.levels[1][0].number]
    assert set(content) == set(range(25))
    tree.flush(range(3, 8))
    tree.version = replace(tree.version, keyspaces={1: replace(tree.keyspace, settings=settings)})
    plan = strategy_of(settings).pick(tree.keyspace, now_us=at(45))
    assert plan is None or not plan.is_drop
    plan = strategy_of(settings).pick(tree.keyspace, now_us=at(60))
    assert plan is not None
    assert plan.is_drop
    check_drop(tree.keyspace, plan)
    assert len(plan.tables) == 2


def with_a_wide_table(settings: KeyspaceSettings, *numbers: int) -> Tree:
    """A window of level 1, and over it a table with keys of several windows, as one with a range
    tombstone is.
    """
    tree = Tree(settings)
    tree.place(1, range(99))
    content = {number: tree.seq + 1 for number in numbers}
    tree.seq += 1
    tree.expected.update(content)
    tree.tables_new = {}
    added = ((tree.keyspace.id, 0, tree.info(content)),)
    tree.log(VersionEdit(tables_added=added, flushed_seq={tree.keyspace.id: tree.seq}))
    return tree


def test_windows_that_a_wide_table_binds_are_not_merged_for_ever() -> None:
    """The newest runs are of similar size and share no keys: merged, they would be as before."""
    tree = with_a_wide_table(WINDOW, 50, 2_000)
    for window, count in ((2, 3), (3, 3), (4, 1), (5, 1), (6, 1)):
        tree.flush(range(window * 100, window * 100 + count))
    tree.flush([2_500])
    settle(tree)
    assert tree.read() == tree.expected
    assert len(tree.keyspace.levels[0]) <= 1


def test_a_table_that_reaches_beyond_now_does_not_end_the_retention() -> None:
    settings = replace(WINDOW, retention_seconds=100 * KEY_SECONDS)
    tree = with_a_wide_table(settings, 50, 8_000)
    for start in range(100, 6_000, 50):
        tree.flush(range(start, start + 50, 10))
        settle(tree, start + 50)
        assert len(tree.keyspace.levels[0]) <= 2 * settings.level0_tables
    assert 5_700 <= min(tree.read()) <= 5_900


def test_fifo_drops_the_oldest_first_by_age_and_by_size() -> None:
    tree = Tree(replace(FIFO, retention_seconds=100, retention_bytes=30 * KEY_BYTES))
    for turn in range(8):
        tree.now_us = turn * 10 * SECOND_US
        tree.flush(range(turn, turn + 8))
    strategy = strategy_of(tree.keyspace.settings)
    assert strategy.pick(tree.keyspace, now_us=tree.now_us, snapshots_exist=True) is None
    plan = strategy.pick(tree.keyspace, now_us=tree.now_us)
    assert plan is not None
    check_drop(tree.keyspace, plan)
    tree.run(plan)
    assert kept(tree.keyspace) == [key(5), key(6), key(7)]
    assert strategy.pick(tree.keyspace, now_us=150 * SECOND_US) is None
    plan = strategy.pick(tree.keyspace, now_us=150 * SECOND_US + 1)
    assert plan is not None
    tree.run(plan)
    assert kept(tree.keyspace) == [key(6), key(7)]
    assert (tree.merges, tree.amplification) == (0, 1)


def test_fifo_joins_small_tables_that_follow_each_other() -> None:
    tree = Tree(replace(FIFO, table_bytes=64 * KEY_BYTES))
    for turn in range(40):
        tree.flush([turn])
        settle(tree)
    assert len(tree.keyspace.levels[0]) <= 40 // 4 + 3
    assert tree.read() == tree.expected


class FewRows(Tree):
    """Tables of so little that their files are of one size."""

    def info(self, content: dict[int, int]) -> TableInfo:
        return replace(super().info(content), size_bytes=9 * KEY_BYTES)


@pytest.mark.parametrize("kind", [Tree, FewRows])
def test_small_tables_of_a_fifo_become_old_although_they_are_joined(kind: type[Tree]) -> None:
    """A flush each second, of data that may go after 20 s."""
    tree = kind(replace(FIFO, table_bytes=10_000 * KEY_BYTES, retention_seconds=20))
    strategy = strategy_of(tree.keyspace.settings)
    for turn in range(300):
        tree.now_us = turn * SECOND_US
        tree.flush([turn])
        while (plan := strategy.pick(tree.keyspace, now_us=tree.now_us)) is not None:
            tree.run(plan)
        oldest = min(tree.read())
        assert max(0, turn - 60) <= oldest
        assert oldest <= max(0, turn - 20)
        assert len(tree.keyspace.levels[0]) <= 12
    assert tree.amplification <= 4


@pytest.mark.parametrize("name", list(BY_NAME))
def test_the_cost_of_a_plan_is_not_quadratic(name: str) -> None:
    """Four times as many tables cost less than ten times as much: ten thousand are no trouble."""

    def seconds(count: int) -> float:
        tree = Tree(BY_NAME[name])
        whole = tree.keyspace
        tree.flush([0])
        table = tree.keyspace.levels[0][0]
        levels = [
            replace(table, number=n + 1, lower=key(3 * n), upper=key(3 * n + 2))
            for n in range(count)
        ]
        half = count // 2
        version = replace(
            whole, levels=((), tuple(levels[:half]), tuple(levels[half:]), (), (), (), ())
        )
        strategy = strategy_of(version.settings)
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            strategy.pick(version, now_us=at(1))
            strategy.run_count(version)
            strategy.debt_bytes(version)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(10_000) < 10 * seconds(2_500) + 0.002
