"""Goal: both twins of the check say whether earlier members of a commit group, or what the trees
have, changed what a transaction depends on.

Method: random writes of group members beside a plain list of them; a tree that is such a list, too.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import PURE, RANGE_DELETE, ConflictError, marks_seen
from holdfast.txn import _check_c, _check_py
from holdfast.txn.conflict import AHEAD_MIN
from holdfast.wal import WriteBatch

# The compiled twin takes compiled collaborators only, so in plain mode the plain twin is alone.
MODULES = (_check_py,) if PURE else (_check_c, _check_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

SINCE = 40
KEYS = st.sampled_from([b"", b"a", b"a\x00", b"b", b"c" * 200, b"\xff"])
KEYSPACES = st.sampled_from([3, 7])
WRITES = st.one_of(
    st.tuples(st.just("put"), KEYSPACES, KEYS, st.just(b"v")),
    st.tuples(st.just("merge"), KEYSPACES, KEYS, st.just(b"v")),
    st.tuples(st.just("delete"), KEYSPACES, KEYS),
    st.tuples(st.just("delete_range"), KEYSPACES, KEYS, KEYS).filter(lambda w: w[2] < w[3]),
)
BATCHES = st.lists(st.lists(WRITES, max_size=3), max_size=6)
BOUNDS = st.one_of(st.none(), KEYS)


class Tree:
    """Has what was written as (sequence number, kind, key, stop)."""

    def __init__(self, entries: list[tuple[int, int, bytes, bytes]]) -> None:
        self._entries = entries

    def key_change(self, key: bytes, since: int) -> int:
        return max(
            (
                seq
                for seq, kind, start, stop in self._entries
                if seq > since and (start <= key < stop if kind == RANGE_DELETE else start == key)
            ),
            default=0,
        )

    def range_change(self, lower: bytes | None, upper: bytes | None, since: int) -> Any:
        for seq, kind, start, stop in self._entries:
            end = stop if kind == RANGE_DELETE else start + b"\x00"
            if seq > since and (upper is None or start < upper) and (lower is None or lower < end):
                return (None if kind == RANGE_DELETE else start), seq
        return None


def made(writes: list[tuple[Any, ...]]) -> WriteBatch:
    batch = WriteBatch()
    for name, *rest in writes:
        getattr(batch, name)(*rest)
    return batch


def entries_of(batches: list[WriteBatch], keyspace: int) -> list[tuple[int, int, bytes, bytes]]:
    """What batches behind SINCE write in a keyspace."""
    operations = [each for batch in batches for each in batch.operations()]
    return [
        (SINCE + number, kind, key, value or b"")
        for number, (kind, where, key, value) in enumerate(operations, start=1)
        if where == keyspace
    ]


def source(keyspace: int) -> Any:
    return SimpleNamespace(id=keyspace, name=f"keyspace {keyspace}")


@twins
@given(batches=BATCHES, more=BATCHES, key=KEYS, lower=BOUNDS, upper=BOUNDS)
def test_what_is_earlier_in_the_group_is_found(
    twin: ModuleType,
    batches: list[Any],
    more: list[Any],
    key: bytes,
    lower: bytes | None,
    upper: bytes | None,
) -> None:
    group, so_far = twin.GroupWrites(SINCE + 1), []
    for some in (batches, more):
        for writes in some:
            batch = made(writes)
            so_far.append(batch)
            group.add(batch)
        assert SINCE + 1 + sum(batch.op_count for batch in so_far) == group.next_seq
        for keyspace in (3, 7, 9):
            model = Tree(entries_of(so_far, keyspace))
            assert model.key_change(key, SINCE) == group.key_change(keyspace, key)
            alone = [e[2] for e in entries_of(so_far, keyspace) if e[1] != RANGE_DELETE]
            assert group.last_key(keyspace) == max(alone, default=None)
            found = group.range_change(keyspace, lower, upper)
            if lower is None or upper is None or lower < upper:
                assert (model.range_change(lower, upper, SINCE) is None) == (found is None)
            if found is not None and found[0] is not None:
                # The newest write of that key, which may lie under a range delete.
                puts = [e for e in entries_of(so_far, keyspace) if e[1] != RANGE_DELETE]
                assert max(e[0] for e in puts if e[2] == found[0]) == found[1]


@twins
@given(
    applied=BATCHES,
    earlier=BATCHES,
    keys=st.lists(st.tuples(KEYSPACES, KEYS), max_size=3),
    ranges=st.lists(st.tuples(KEYSPACES, st.just(b"a"), BOUNDS), max_size=2),
    since=st.integers(SINCE, SINCE + 4),
)
def test_a_check_fails_when_anything_it_depends_on_changed(
    twin: ModuleType, applied: list[Any], earlier: list[Any], keys: Any, ranges: Any, since: int
) -> None:
    ranges = [each for each in ranges if each[2] is None or each[1] < each[2]]
    trees = {k: Tree(entries_of([made(w) for w in applied], k)) for k in (3, 7)}
    applied_ops = sum(made(writes).op_count for writes in applied)
    since = min(since, SINCE + applied_ops)
    group = twin.GroupWrites(SINCE + applied_ops + 1)
    for writes in earlier:
        group.add(made(writes))
    both = {k: Tree(entries_of([made(w) for w in [*applied, *earlier]], k)) for k in (3, 7)}
    changed = any(both[k].key_change(key, since) for k, key in keys) or any(
        both[k].range_change(lower, upper, since) for k, lower, upper in ranges
    )
    depends = [
        twin.Dependence(
            source(k),
            [key for where, key in keys if where == k],
            [(lower, upper) for where, lower, upper in ranges if where == k],
        )
        for k in (3, 7)
    ]
    asked = []

    def later() -> list[Any]:
        asked.append(1)
        return depends

    for given_as in (depends, later):
        check = twin.Check(since, given_as)
        for _ in range(2):
            if changed:
                with pytest.raises(ConflictError, match=r"keyspace 'keyspace [37]'"):
                    check.require_unchanged(trees.__getitem__, group)
            else:
                check.require_unchanged(trees.__getitem__, group)
    # Once at most, and not at all when nothing was committed.
    assert len(asked) == (group.next_seq - 1 != since)


@twins
def test_one_that_depends_on_much_looks_ahead(twin: ModuleType) -> None:
    tree = Tree(entries_of([made([("put", 7, b"x", b"")])], 7))
    for count in (AHEAD_MIN, AHEAD_MIN + 1):
        keys = [b"%d" % number for number in range(count - 1)]
        check = twin.Check(SINCE, [twin.Dependence(source(7), keys, [(b"y", None)])])
        assert (count > AHEAD_MIN) == check.is_large
        check.look_ahead(SINCE + 1, lambda _: tree)
        assert SINCE + (count > AHEAD_MIN) == check.since
        check.look_ahead(SINCE + 1, lambda _: tree)
    assert "txn.looked_ahead" in marks_seen()
    keys = [*keys, b"x"]
    check = twin.Check(SINCE, [twin.Dependence(source(7), keys, [])])
    with pytest.raises(ConflictError, match=r"key b'x' of keyspace 'keyspace 7' \(sequence"):
        check.look_ahead(SINCE + 1, lambda _: tree)
    assert SINCE == check.since
    assert check.hold is None
    check.hold = keys
    assert check.hold is keys
