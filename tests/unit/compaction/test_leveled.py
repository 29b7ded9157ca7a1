"""The leveled strategy, driven over pretended tables until nothing is left to do."""

import random
from dataclasses import replace

import pytest

from holdfast.base import KeyspaceSettings
from holdfast.compaction import debt_bytes, pick, scores
from holdfast.compaction.plan import is_dense
from tests.unit.compaction.pretend import KEY_BYTES, SETTINGS, Tree, check_plan, key

MIB = 1 << 20
NONE: frozenset[int] = frozenset()
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
    assert sum(len(level) for level in tree.keyspace.levels[3:]) > 300


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


def scores_of(tree: Tree, *, snapshots_exist: bool = False) -> dict[int, float]:
    found = scores(tree.keyspace, NONE, snapshots_exist=snapshots_exist)
    assert found == sorted(found, key=lambda pair: -pair[0])
    return {level: score for score, level in found}


def test_a_table_of_deletes_in_level_0_is_not_waited_for_beside_one_of_puts() -> None:
    """All of level 0 together has few deletes; the two tables share no key."""
    tree = Tree(SMALL)
    tree.place(1, range(20))
    tree.flush(range(100, 180))
    tree.flush((), deleted=range(20))
    plan = pick(tree.keyspace)
    assert plan is not None
    assert (plan.level, plan.output_level, plan.reason) == (0, 1, "many deletes")
    assert plan.upper < key(100)
    assert pick(tree.keyspace, snapshots_exist=True) is None
    tree.settle()
    assert tree.read() == tree.expected


def test_range_tombstones_count_as_deletes() -> None:
    tree = Tree(SMALL)
    table = tree.place(2, range(10))
    assert not is_dense((table,))
    assert is_dense((replace(table, range_tombstone_count=1),))
    assert not is_dense((replace(table, entry_count=10_000, range_tombstone_count=1),))


def test_deletes_raise_the_score_unless_a_snapshot_needs_what_they_delete() -> None:
    tree = Tree(SMALL)
    tree.place(1, range(10))
    assert scores_of(tree)[1] == 10 / 32
    tree.place(1, range(20, 24), deleted=range(24, 30))
    assert scores_of(tree)[1] == 25 / 32
    assert scores_of(tree, snapshots_exist=True)[1] == 20 / 32


def test_debt_is_what_lies_above_the_targets() -> None:
    """Level 0 counts whole once it has more tables than it should."""
    tree = Tree(SMALL)
    for start in (0, 10, 20):
        tree.flush(range(start, start + 2))
    tree.place(1, range(100, 140))
    tree.place(2, range(100, 200))
    assert debt_bytes(tree.keyspace) == (40 - 32) * KEY_BYTES
    tree.flush(range(30, 32))
    assert debt_bytes(tree.keyspace) == (8 + 8) * KEY_BYTES


def test_tables_that_overlap_busy_ones_wait_and_the_next_level_has_its_turn() -> None:
    tree = Tree(SMALL)
    upper = tree.place(1, range(0, 400, 10))
    under = tree.place(2, range(0, 400, 2))
    plan = pick(tree.keyspace)
    assert plan is not None
    assert (plan.level, plan.input_numbers) == (2, {under.number})
    plan = pick(tree.keyspace, frozenset({999}))
    assert plan is not None
    assert pick(tree.keyspace, frozenset({under.number})) is None
    plan = pick(tree.keyspace, frozenset({upper.number}))
    assert plan is not None
    assert plan.level == 2


def test_level_0_waits_for_a_busy_level_1_and_takes_what_is_free_of_it() -> None:
    tree = Tree(SMALL)
    under = tree.place(1, range(20))
    for start in (0, 5, 200):
        tree.flush(range(start, start + 8))
    plan = pick(tree.keyspace, frozenset({under.number}))
    assert plan is not None
    assert plan.is_move
    assert [table.lower for table in plan.tables] == [key(200)]
    tree.flush(range(300, 308))
    busy = frozenset({under.number, *plan.input_numbers})
    assert pick(tree.keyspace, busy) is None


def test_more_of_the_upper_level_goes_along_when_it_costs_nothing() -> None:
    """Three tables over one of the next level go together; a fourth beside it does not."""
    tree = Tree(SMALL)
    along = [tree.place(1, range(start, start + 9)) for start in (0, 20, 40)]
    tree.place(1, range(100, 109))
    tree.place(1, range(120, 129))
    under = tree.place(2, range(5, 50, 5))
    tree.place(2, range(60, 130))
    plan = pick(tree.keyspace)
    assert plan is not None
    check_plan(tree.keyspace, plan)
    assert plan.input_numbers == {under.number, *(table.number for table in along)}


def test_tables_do_not_go_along_over_a_gap_that_the_next_level_fills() -> None:
    """Two small tables overlap nothing, but a table of the next level lies between them."""
    settings = KeyspaceSettings(
        table_bytes=256 * KEY_BYTES, level1_bytes=4 * KEY_BYTES, level_ratio=100
    )
    tree = Tree(settings)
    tree.place(1, range(2))
    tree.place(1, range(50, 52))
    tree.place(2, range(10, 40))
    plan = pick(tree.keyspace)
    assert plan is not None
    check_plan(tree.keyspace, plan)
    assert plan.is_move
    assert len(plan.tables) == 1
