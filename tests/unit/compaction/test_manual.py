"""Manual compaction: it ends, brings the range to the last level, and leaves the rest alone."""

import random

from holdfast.base import KeyspaceSettings
from holdfast.compaction import Plan, RangeCompaction, pick, plan_range
from tests.unit.compaction.pretend import KEY_BYTES, Tree, check_plan, key

SMALL = KeyspaceSettings(
    table_bytes=8 * KEY_BYTES, level1_bytes=32 * KEY_BYTES, level_ratio=4, level0_tables=3
)
NONE: frozenset[int] = frozenset()


def grown(rng: random.Random, flushes: int = 150) -> Tree:
    """A tree with data and deletes in several levels."""
    tree = Tree(SMALL)
    for _ in range(flushes):
        keys = rng.sample(range(2_000), 12)
        tree.flush(keys[:9], deleted=keys[9:])
        if rng.random() < 0.9:
            tree.settle()
    return tree


def run_all(tree: Tree, work: RangeCompaction) -> list[Plan]:
    plans = []
    while (plan := work.next_plan(tree.keyspace, NONE)) is not None:
        check_plan(tree.keyspace, plan)
        tree.run(plan)
        plans.append(plan)
        assert len(plans) < 1_000
    assert work.is_done
    return plans


def deepest(tree: Tree) -> int:
    return max(level for level, tables in enumerate(tree.keyspace.levels) if tables)


def test_a_whole_keyspace_ends_in_one_level_without_deletes(rng: random.Random) -> None:
    tree = grown(rng)
    last = deepest(tree)
    assert last >= 2
    run_all(tree, plan_range(tree.keyspace, None, None))
    assert [level for level, tables in enumerate(tree.keyspace.levels) if tables] == [last]
    assert all(table.delete_count == 0 for _, table in tree.keyspace.tables())
    assert tree.read() == tree.expected
    entries = sum(table.entry_count for _, table in tree.keyspace.tables())
    assert entries == len(tree.expected)


def test_a_second_time_there_is_nothing_to_do_unless_asked(rng: random.Random) -> None:
    tree = grown(rng)
    run_all(tree, plan_range(tree.keyspace, None, None))
    assert run_all(tree, plan_range(tree.keyspace, None, None)) == []
    count = len(list(tree.keyspace.tables()))
    plans = run_all(tree, plan_range(tree.keyspace, None, None, rewrite_last=True))
    assert len(plans) == count
    assert all(plan.level == plan.output_level and plan.is_bottom for plan in plans)
    assert tree.read() == tree.expected


def test_a_range_leaves_the_rest_alone(rng: random.Random) -> None:
    """Tables of deeper levels that do not touch the range stay where they are."""
    tree = grown(rng)
    tree.settle()
    run_all(tree, RangeCompaction(tree.keyspace, None, b"\x00"))
    before = {table.number: level for level, table in tree.keyspace.tables()}
    plans = run_all(tree, plan_range(tree.keyspace, key(500), key(600)))
    touched = frozenset[int]().union(*(plan.input_numbers for plan in plans))
    last = deepest(tree)
    for level, table in tree.keyspace.tables():
        if table.overlaps(key(500), key(600)):
            assert level == last
        if table.number not in touched and table.number in before:
            assert before[table.number] == level
    assert len(touched) < len(before)
    assert tree.read() == tree.expected


def test_data_in_key_order_is_moved_and_not_rewritten() -> None:
    tree = Tree(SMALL)
    for flush in range(40):
        tree.flush(range(flush * 8, flush * 8 + 8))
        tree.settle()
    written = tree.written_bytes
    plans = run_all(tree, plan_range(tree.keyspace, None, None))
    moves = [plan for plan in plans if plan.is_move]
    assert moves
    assert sum(not plan.is_move for plan in plans) <= 1
    assert tree.written_bytes - written <= 3 * SMALL.table_bytes
    assert tree.read() == tree.expected


def test_an_empty_keyspace_has_nothing_to_do() -> None:
    tree = Tree(SMALL)
    work = plan_range(tree.keyspace, None, None)
    assert work.next_plan(tree.keyspace, NONE) is None
    assert work.is_done


def test_deletes_in_a_single_level_0_table_go(rng: random.Random) -> None:
    tree = Tree(SMALL)
    tree.flush(range(5), deleted=range(5, 8))
    (plan,) = run_all(tree, plan_range(tree.keyspace, None, None))
    assert (plan.is_move, plan.is_bottom, plan.output_level) == (False, True, 1)
    assert tree.read() == tree.expected


def test_it_waits_for_running_compactions_and_goes_on_beside_writes(rng: random.Random) -> None:
    """Flushes and background compactions go on; manual compaction is blocked at times, never takes
    a busy table, and ends.
    """
    tree = grown(rng)
    work = plan_range(tree.keyspace, None, None)
    running: list[Plan] = []
    blocked = 0
    for _ in range(5_000):
        busy = NONE.union(*(plan.input_numbers for plan in running))
        plan = work.next_plan(tree.keyspace, busy) if rng.random() < 0.5 else None
        if plan is None and not work.is_done and busy:
            blocked += 1
        if plan is None and len(running) < 2:
            plan = pick(tree.keyspace, busy)
        if plan is not None:
            assert busy.isdisjoint(plan.input_numbers)
            running.append(plan)
        if rng.random() < 0.2:
            tree.flush(rng.sample(range(2_000), 9))
        if running and rng.random() < 0.5:
            tree.run(running.pop(rng.randrange(len(running))))
        assert tree.read() == tree.expected
        if work.is_done:
            break
    assert work.is_done
    assert blocked
