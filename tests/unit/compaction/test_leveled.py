"""The leveled strategy, driven over pretended tables until nothing is left to do."""

import random

import pytest

from holdfast.base import KeyspaceSettings
from holdfast.compaction import Plan, pick, plan_range, scores
from holdfast.manifest import VersionEdit
from tests.unit.compaction.pretend import KEY_BYTES, KEYSPACE, SETTINGS, Tree, check_plan

MIB = 1 << 20
FLUSH_KEYS = SETTINGS.memtable_bytes // KEY_BYTES
"""Keys of a full memtable."""

SMALL = KeyspaceSettings(
    table_bytes=8 * KEY_BYTES, level1_bytes=32 * KEY_BYTES, level_ratio=4, level0_tables=3
)
"""Settings with which a few hundred keys fill several levels."""


def test_data_in_key_order_is_written_once() -> None:
    """20 GiB of ascending keys: every compaction is a move."""
    tree = Tree()
    for flush in range(640):
        tree.flush(range(flush * FLUSH_KEYS, (flush + 1) * FLUSH_KEYS))
        tree.settle()
    tree.check_rest()
    assert tree.merges == 0
    assert tree.amplification == 1
    assert len(tree.keyspace.levels[3]) > 300


def test_data_in_descending_key_order_is_written_once() -> None:
    tree = Tree()
    for flush in reversed(range(100)):
        tree.flush(range(flush * FLUSH_KEYS, (flush + 1) * FLUSH_KEYS))
        tree.settle()
    tree.check_rest()
    assert tree.amplification == 1


def test_random_overwrites_of_10_gib_are_written_less_than_12_times(seed: int) -> None:
    """160 thousand keys of 64 KiB are overwritten at random for 20 GiB."""
    rng = random.Random(seed)
    tree = Tree()
    universe = 10 * 1024 * MIB // KEY_BYTES
    for _ in range(640):
        tree.flush(rng.sample(range(universe), FLUSH_KEYS))
        tree.settle()
    tree.check_rest()
    print(f"write amplification {tree.amplification:.2f}")
    assert tree.amplification < 12


@pytest.mark.parametrize("run", range(4))
def test_random_histories_keep_every_invariant_and_come_to_rest(seed: int, run: int) -> None:
    """Flushes of all sizes and shapes; check_plan and Version.apply judge each step."""
    rng = random.Random(seed * 10 + run)
    tree = Tree(SMALL)
    clock = 0
    for _ in range(250):
        count = rng.choice([1, 2, 8, 30])
        shape = rng.random()
        if shape < 0.3:
            keys = range(clock, clock + count)
            clock += count
        elif shape < 0.6:
            start = rng.randrange(2_000)
            keys = range(start, start + count)
        else:
            keys = rng.sample(range(3_000), count)
        written = [number for number in keys if rng.random() < 0.7]
        deleted = [number for number in keys if number not in written]
        tree.flush(written, deleted)
        if rng.random() < 0.7:
            tree.settle()
    tree.settle()
    tree.check_rest()


def test_small_tables_in_key_order_are_joined_into_larger_ones() -> None:
    """A flush of one key each: the number of tables stays near what full tables would be."""
    tree = Tree(KeyspaceSettings(level1_bytes=512 * MIB))
    flushes = 1_000
    for flush in range(flushes):
        tree.flush([flush])
        tree.settle()
    tree.check_rest()
    small = SETTINGS.table_bytes // 16 // KEY_BYTES
    assert len(list(tree.keyspace.tables())) < 2 * flushes / small
    assert tree.amplification < 8


def test_level_0_takes_all_that_overlaps_in_turn_and_nothing_else() -> None:
    """Tables a-c, b-e and d-f belong together through the middle one; g-h does not."""
    tree = Tree(SMALL)
    for keys in ([10, 30], [70, 80], [20, 50], [40, 60]):
        tree.flush(range(keys[0], keys[1] + 1))
    plan = pick(tree.keyspace)
    assert plan is not None
    check_plan(tree.keyspace, plan)
    assert [table.number for table in plan.tables] == [4, 3, 1]
    assert (plan.level, plan.output_level, plan.is_move, plan.is_bottom) == (0, 1, False, True)


def test_an_older_table_of_level_0_never_stays_behind_a_newer_one(seed: int) -> None:
    """check_plan asserts it for every plan of a history with many overlaps in level 0."""
    rng = random.Random(seed)
    tree = Tree(SMALL)
    for _ in range(200):
        start = rng.randrange(400)
        tree.flush(range(start, start + rng.randrange(1, 40)))
        plan = pick(tree.keyspace)
        if plan is not None:
            check_plan(tree.keyspace, plan)
            tree.run(plan)
    tree.settle()
    tree.check_rest()


def test_a_busy_table_is_never_taken_and_a_level_gives_tables_to_one_compaction(
    seed: int,
) -> None:
    """Plans are started before the last ones end; whatever the order in which they end, the levels
    stay disjoint and readers see the same.
    """
    rng = random.Random(seed)
    tree = Tree(SMALL)
    running = []
    most = 0
    for _ in range(1_500):
        if rng.random() < 0.3:
            tree.flush(rng.sample(range(2_000), 8))
        busy = frozenset[int]().union(*(plan.input_numbers for plan in running))
        plan = pick(tree.keyspace, busy)
        if plan is not None and rng.random() < 0.7:
            check_plan(tree.keyspace, plan)
            assert busy.isdisjoint(plan.input_numbers)
            running.append(plan)
            most = max(most, len(running))
        if running and rng.random() < 0.4:
            tree.run(running.pop(rng.randrange(len(running))))
        assert tree.read() == tree.expected
    assert most >= 2


def test_a_table_with_deletes_is_rewritten_at_the_bottom_and_moved_above() -> None:
    tree = Tree(SMALL)
    for start in (0, 100, 200):
        tree.flush(range(start, start + 2), deleted=range(start + 2, start + 20))
    plan = pick(tree.keyspace)
    assert plan is not None
    assert plan.is_bottom
    assert not plan.is_move
    tree.settle()
    assert all(table.delete_count == 0 for table in tree.keyspace.levels[1])


def test_a_table_that_is_too_large_is_cut_and_not_moved() -> None:
    tree = Tree(SMALL)
    for start in (0, 100, 200):
        tree.flush(range(start, start + 20))
    plan = pick(tree.keyspace)
    assert plan is not None
    assert not plan.is_move
    tree.settle()
    assert max(table.size_bytes for table in tree.keyspace.levels[1]) <= SMALL.table_bytes


def test_deletes_raise_the_score_unless_a_snapshot_needs_what_they_delete() -> None:
    tree = Tree(SMALL)
    tree.flush(range(10))
    tree.run(next_of(tree))
    plain = {
        level: score for score, level in scores(tree.keyspace, frozenset(), snapshots_exist=False)
    }
    other = Tree(SMALL)
    other.flush(range(100, 110))
    other.run(next_of(other))
    other.flush((), deleted=range(10))
    moved = other.keyspace.levels[0][0]
    other.tables_new = {}
    other.log(
        VersionEdit(
            tables_removed=((KEYSPACE, 0, moved.number),), tables_added=((KEYSPACE, 1, moved),)
        )
    )
    without = {
        level: score for score, level in scores(other.keyspace, frozenset(), snapshots_exist=False)
    }
    held = {
        level: score for score, level in scores(other.keyspace, frozenset(), snapshots_exist=True)
    }
    assert plain[1] == 10 / 32
    assert held[1] == 20 / 32
    assert without[1] == 25 / 32


def next_of(tree: Tree) -> Plan:
    plan = plan_range(tree.keyspace, None, None).next_plan(tree.keyspace, frozenset())
    assert plan is not None
    return plan
