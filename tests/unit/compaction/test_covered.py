"""Tables under a range tombstone are dropped whole, and only those."""

from __future__ import annotations

from holdfast.base import KeyspaceSettings
from holdfast.compaction import pick_covered
from tests.unit.compaction.pretend import KEY_BYTES, Tree, key

SMALL = KeyspaceSettings(
    table_bytes=8 * KEY_BYTES, level1_bytes=32 * KEY_BYTES, level_ratio=4, level0_tables=3
)
NONE: frozenset[int] = frozenset()


def test_tables_that_lie_whole_under_a_newer_tombstone_are_dropped() -> None:
    tree = Tree(SMALL)
    deep = [tree.place(3, range(start, start + 10)) for start in (0, 10, 20)]
    middle = tree.place(1, range(5, 15))
    top = tree.place(0, range(8, 12))
    seq = tree.seq + 1
    plan = pick_covered(tree.keyspace, NONE, [(key(0), key(20), seq)])
    assert plan is not None
    assert plan.is_drop
    assert plan.input_numbers == {deep[0].number, deep[1].number, middle.number, top.number}
    tree.run(plan)
    assert [table.number for _, table in tree.keyspace.tables()] == [deep[2].number]


def test_what_is_newer_busy_or_reaches_out_stays() -> None:
    tree = Tree(SMALL)
    table = tree.place(2, range(10))
    seq = tree.seq + 1
    whole = (key(0), key(9) + b"\x00", seq)
    assert pick_covered(tree.keyspace, NONE, [whole]) is not None
    assert pick_covered(tree.keyspace, frozenset((table.number,)), [whole]) is None
    assert pick_covered(tree.keyspace, NONE, [(key(0), key(9), seq)]) is None
    assert pick_covered(tree.keyspace, NONE, [(key(1), key(20), seq)]) is None
    assert pick_covered(tree.keyspace, NONE, [(key(0), key(20), table.seq_max)]) is None
    assert pick_covered(tree.keyspace, NONE, []) is None
