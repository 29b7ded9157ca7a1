"""Goal: both twins of the transaction's workspace show own writes over the snapshot, remember what
was read of it, and collect a batch that has exactly what the reads saw.

Method: random calls at random savepoint depths beside a dictionary; failures of each collaborator;
a second user in the middle of a read.
"""

from __future__ import annotations

import random
import threading
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base import (
    DELETE,
    KEY_BYTES_MAX,
    MERGE,
    PURE,
    PUT,
    RANGE_DELETE,
    SEQ_MAX,
    VALUE_BYTES_MAX,
    LimitError,
)
from holdfast.env import ThreadLife, this_thread
from holdfast.txn import _workspace_c, _workspace_py
from holdfast.wal import WriteBatch

# The compiled twin takes compiled collaborators only, so in plain mode the plain twin is alone.
MODULES = (_workspace_py,) if PURE else (_workspace_c, _workspace_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

BASE = {b"a": b"1", b"b": b"2", b"\xff": b"3", b"": b"4"}
SNAPSHOT = 40
KEYSPACE = 7
KEYS = st.sampled_from([b"", b"a", b"a\x00", b"b", b"c" * 200, b"\xff"])
CALLS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=20)),
    st.tuples(st.just("__setitem__"), KEYS, st.binary(max_size=20)),
    st.tuples(st.just("put_many"), st.lists(st.tuples(KEYS, st.binary(max_size=900)), max_size=40)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("__delitem__"), KEYS),
    st.tuples(st.just("delete_span"), KEYS, KEYS).filter(lambda call: call[1] < call[2]),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("depth"), st.integers(0, 3)),
)


class RefusedError(Exception):
    pass


def workspace(
    twin: ModuleType, *, tracks: bool = True, reads_left: int = 1 << 20, bytes_max: int = 1 << 20
) -> Any:
    """A workspace over BASE; `asked` lists what was read of that, `widened` counts calls."""

    class Workspace(twin.WorkspaceCore):  # type: ignore[name-defined,misc]
        def _refuse(self) -> None:
            raise RefusedError

        def _widen(self) -> None:
            self.widened += 1
            self.state.reads_left = 1000

        def _write_or_undo(self, given: WriteBatch) -> None:
            self.undoable += 1
            self._write_all(given)

        def _merge_own(self, key: bytes) -> bytes | None:
            with pytest.raises(RuntimeError, match="in use"):
                self.state.enter()
            return b"merged " + key

    asked: list[bytes] = []

    def read_at(key: bytes, snapshot: int) -> bytes | None:
        assert SNAPSHOT == snapshot
        asked.append(key)
        return BASE.get(key)

    made = Workspace(
        twin.WorkState(SNAPSHOT, WriteBatch(bytes_max), reads_left), KEYSPACE, read_at, tracks
    )
    made.asked, made.widened, made.undoable = asked, 0, 0
    return made


@twins
@given(calls=st.lists(CALLS, max_size=30), tracks=st.booleans())
def test_reads_see_own_writes_and_the_batch_has_them(
    twin: ModuleType, calls: list[Any], tracks: bool
) -> None:
    space = workspace(twin, tracks=tracks)
    state, model, own, expected = space.state, dict(BASE), set(), []
    read: set[bytes] = set()

    def reads(key: bytes) -> None:
        if key not in own and not any(k == "span" and a <= key < b for k, a, b in spans):
            read.add(key)

    spans: list[tuple[str, bytes, bytes]] = []
    for name, *arguments in calls:
        if name == "depth":
            (state.depth,) = arguments
            continue
        key = arguments[0]
        if name == "get":
            reads(key)
            assert model.get(key) == space.get(key)
            assert (key in model) == (key in space)
            assert model.get(key, b"other") == space.get(key, b"other")
            continue
        if name == "__delitem__":
            reads(key)
            if key not in model:
                with pytest.raises(KeyError):
                    del space[key]
                continue
        getattr(space, name)(*arguments)
        if name == "put_many":
            own.update(each for each, _ in key)
            model.update(key)
            expected += [(PUT, KEYSPACE, *pair) for pair in key]
            continue
        if name == "delete_span":
            spans.append(("span", *arguments))
            expected.append((RANGE_DELETE, KEYSPACE, *arguments))
            for each in list(model):
                if arguments[0] <= each < arguments[1]:
                    del model[each]
            continue
        own.add(key)
        if "del" in name:
            model.pop(key, None)
            expected.append((DELETE, KEYSPACE, key, None))
        else:
            model[key] = arguments[1]
            expected.append((PUT, KEYSPACE, *arguments))
    assert expected == list(state.batch.operations())
    assert twin.OWN_FIRST + len(expected) == state.next_own
    assert set(space.asked) == read
    assert space.read_keys == (read if tracks else None)
    depths = [table.entry_count + len(table.range_tombstones) for table in space.tables]
    assert all(depths)
    if tracks:
        left = (1 << 20) - sum(len(key) + twin.READ_BYTES for key in read)
        assert left == state.reads_left
    keys = [*BASE, b"a\x00", b"c" * 200]
    assert [model.get(key) for key in keys] == space.get_many(keys)


@twins
@pytest.mark.parametrize(("count", "undoable"), [(0, 0), (5, 0), (10_000, 1)])
def test_many_are_undoable_where_memory_may_lack(
    twin: ModuleType, count: int, undoable: int
) -> None:
    """The plain twin knows of no memory, so it may lack each time."""
    space = workspace(twin)
    pairs = [(b"%05d" % number, b"v") for number in range(count)]
    space.put_many(pairs)
    assert (undoable if twin is _workspace_c else min(count, 1)) == space.undoable
    assert pairs == [(key, value) for _, _, key, value in space.state.batch.operations()]
    assert (1 if count else 0) == len(space.tables)
    assert [b"v"] * count == space.get_many(key for key, _ in pairs)
    with pytest.raises(LimitError, match="the batch would have"):
        space.put_many([(b"a", b"b" * 600_000)] * 2)
    space[b"a"] = b"c" * 600_000
    with pytest.raises(LimitError, match="the batch would have"):
        space.put_many([(b"a", b"b" * 600_000)])
    assert b"c" * 600_000 == space[b"a"]
    assert count + 1 == space.state.batch.op_count


@pytest.mark.skipif(PURE, reason="the plain twin knows of no memory")
@pytest.mark.parametrize("rows", [1, 5, 50])
def test_calls_for_some_rows_each_find_memory(rows: int) -> None:
    space = workspace(_workspace_c)
    keys = [b"%05d" % number for number in range(100 * rows)]
    random.Random(rows).shuffle(keys)
    for at in range(0, len(keys), rows):
        space.put_many([(key, key) for key in keys[at : at + rows]])
    assert 0 == space.undoable
    assert keys == space.get_many(keys)
    assert 1 == len(space.tables)


@twins
def test_each_depth_begins_a_table_and_the_next_write_uses_it(twin: ModuleType) -> None:
    space = workspace(twin)
    assert -1 == space.table_depth
    for depth in (0, 0, 2, 2, 1):
        space.state.depth = depth
        space[b"k%d" % depth] = b"v"
        assert depth == space.table_depth
    assert [1, 1, 1] == [len({k for k in (b"k0", b"k1", b"k2") if table.get(k, (1 << 56) - 1)})
                         for table in space.tables]  # fmt: skip


@twins
def test_what_is_refused(twin: ModuleType) -> None:
    space = workspace(twin)
    writes = [
        lambda: space.put(b"a", b"b"),
        lambda: space.delete(b"a"),
        lambda: space.delete_span(b"a", b"b"),
        lambda: space.__setitem__(b"a", b"b"),
        lambda: space.__delitem__(b"a"),
    ]
    reads = [lambda: space.get(b"a"), lambda: space[b"a"], lambda: b"a" in space]
    space.state.flags = twin.READ_ONLY
    for write in writes:
        with pytest.raises(RefusedError):
            write()
    for read in reads:
        assert read()
    space.state.flags = twin.ENDED
    for call in [*writes, *reads, lambda: space.get_many([b"a"])]:
        with pytest.raises(RefusedError):
            call()
    assert 0 == space.state.batch.op_count
    assert [] == space.tables


@twins
def test_what_is_too_long_or_of_a_wrong_type(twin: ModuleType) -> None:
    space = workspace(twin)
    long = b"k" * (KEY_BYTES_MAX + 1)
    for call in (
        lambda: space.get(long),
        lambda: space.put(long, b""),
        lambda: space.delete(long),
        lambda: space.__delitem__(long),
    ):
        with pytest.raises(LimitError, match="the key has 65537 bytes"):
            call()
    for call in (lambda: space.get("a"), lambda: space.put("a", b""), lambda: space.put(b"a", "b")):
        with pytest.raises(TypeError, match="encode it first"):
            call()
    with pytest.raises(KeyError):
        space[b"absent"]
    assert b"v" == (space.put(bytearray(b"k"), memoryview(b"v")) or space[memoryview(b"k")])
    assert VALUE_BYTES_MAX > 0


@twins
def test_a_write_that_does_not_fit_changes_nothing(twin: ModuleType) -> None:
    space = workspace(twin, bytes_max=100)
    space[b"a"] = b"x" * 50
    for call in (
        lambda: space.put(b"a", b"y" * 50),
        lambda: space.delete(b"k" * 90),
        lambda: space.delete_span(b"a" * 50, b"b" * 50),
    ):
        with pytest.raises(LimitError, match="the batch would have"):
            call()
    assert b"x" * 50 == space[b"a"]
    assert 1 == space.state.batch.op_count
    assert twin.OWN_FIRST + 1 == space.state.next_own


@twins
def test_a_memtable_that_refuses_leaves_the_batch_as_it_was(twin: ModuleType) -> None:
    space = workspace(twin)
    space[b"a"] = b"1"
    space.tables[0].freeze()
    for call in (
        lambda: space.put(b"b", b""),
        lambda: space.delete(b"b"),
        lambda: space.delete_span(b"b", b"c"),
    ):
        with pytest.raises(ValueError, match="memtable is frozen"):
            call()
    assert [(PUT, KEYSPACE, b"a", b"1")] == list(space.state.batch.operations())
    assert twin.OWN_FIRST + 1 == space.state.next_own


@twins
def test_reads_are_widened_when_they_take_too_much(twin: ModuleType) -> None:
    space = workspace(twin, reads_left=2 * (twin.READ_BYTES + 1))
    for key in (b"a", b"b", b"a", b"b"):
        space.get(key)
    assert 0 == space.widened
    space.get(b"c")
    assert 1 == space.widened
    assert {b"a", b"b", b"c"} == space.read_keys


@twins
def test_a_second_user_is_refused(twin: ModuleType) -> None:
    space = workspace(twin)
    seen = []

    def read_at(key: bytes, snapshot: int) -> bytes | None:
        for call in (
            lambda: space.get(b"b"),
            lambda: space.put(b"a", b""),
            lambda: space.delete_span(b"a", b"b"),
            space.state.enter,
        ):
            with pytest.raises(RuntimeError, match="the transaction is in use"):
                call()
        seen.append(key)
        raise KeyError(key)

    space.read_at = read_at
    with pytest.raises(KeyError):
        space.get(b"a")
    assert [b"a"] == seen
    space[b"a"] = b"it is free again"
    space.state.enter()
    space.state.leave()
    assert b"it is free again" == space[b"a"]


@twins
def test_another_thread_that_uses_it_is_noted(twin: ModuleType) -> None:
    space = workspace(twin)
    space.get(b"a")
    assert space.state.movers is None
    lives: list[ThreadLife] = []

    def use() -> None:
        space.get(b"a")
        space.get(b"a")
        lives.append(this_thread())

    for count in (1, 2):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert count == len(lives)
        assert set(lives) == space.state.movers
    # Somebody may forget those that have ended.
    space.state.movers.clear()
    space.get(b"a")
    assert not space.state.movers
    assert [b"a"] * 6 == space.asked


@twins
def test_a_thread_that_cannot_be_noted_does_not_take_the_turn(
    twin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = workspace(twin)
    real = twin.this_thread

    def fails() -> ThreadLife:
        raise MemoryError

    def use() -> None:
        monkeypatch.setattr(twin, "this_thread", fails)
        with pytest.raises(MemoryError):
            space.get(b"a")
        monkeypatch.setattr(twin, "this_thread", real)
        assert space.get(b"a") == space.get(b"a")
        used.append(True)

    used: list[bool] = []
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert used


@twins
@pytest.mark.parametrize("name", ["put", "put_many", "write_merge", "delete", "delete_span"])
def test_a_write_is_refused_when_another_thread_ends_it_before_its_turn(
    twin: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is added to the batch behind its commit would be written nowhere."""
    space = workspace(twin)
    real, arguments = twin.this_thread, (b"a",) if name == "delete" else (b"a", b"b")
    if name == "put_many":
        arguments = ([(b"a", b"b")],)
    batch = space.state.batch.op_count

    def ends() -> ThreadLife:
        space.state.flags |= twin.ENDED
        return real()

    def use() -> None:
        monkeypatch.setattr(twin, "this_thread", ends)
        with pytest.raises(RefusedError):
            getattr(space, name)(*arguments)
        monkeypatch.setattr(twin, "this_thread", real)
        used.append(True)

    used: list[bool] = []
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert used
    assert batch == space.state.batch.op_count == 0
    # The turn was given back.
    space.state.enter()


@twins
def test_a_merge_is_written_like_a_put_and_read_by_the_subclass(twin: ModuleType) -> None:
    space = workspace(twin)
    space.write_merge(bytearray(b"a"), memoryview(b"\x04x"))
    assert [(MERGE, KEYSPACE, b"a", b"\x04x")] == list(space.state.batch.operations())
    assert (twin.OWN_FIRST, MERGE, b"\x04x") == space.tables[0].get(b"a", SEQ_MAX)
    assert twin.OWN_FIRST + 1 == space.state.next_own
    assert b"merged a" == space.get(b"a") == space[b"a"]
    assert b"a" in space
    assert [b"merged a", b"2"] == space.get_many([b"a", b"b"])
    assert ([b"b"], {b"b"}) == (space.asked, space.read_keys)
    # One below a tombstone has no value, in the same table and in one below.
    space.delete_span(b"a", b"b")
    assert space.get(b"a") is None
    space.write_merge(b"a", b"\x04y")
    assert b"merged a" == space.get(b"a")
    space.state.depth = 1
    space.delete_span(b"a", b"b")
    assert space.get(b"a") is None
    space[b"a"] = b"put"
    assert b"put" == space.get(b"a")
    assert [b"b"] == space.asked
    for key, value, error in (
        ("a", b"", TypeError),
        (b"a", "x", TypeError),
        (b"k" * (KEY_BYTES_MAX + 1), b"", LimitError),
    ):
        with pytest.raises(error):
            space.write_merge(key, value)
    space.state.flags = twin.READ_ONLY
    with pytest.raises(RefusedError):
        space.write_merge(b"a", b"")
    assert 5 == space.state.batch.op_count


@twins
def test_the_guard_is_asked_before_each_read_of_the_snapshot(twin: ModuleType) -> None:
    space = workspace(twin)
    order: list[object] = space.asked
    space[b"own"] = b"1"
    space.state.guard = lambda: order.append("guard")
    assert b"1" == space.get(b"a")
    assert b"2" == space.get(b"b")
    assert b"1" == space.get(b"own")
    assert ["guard", b"a", "guard", b"b"] == order

    def refuse() -> None:
        raise KeyError("refused")

    space.state.guard = refuse
    with pytest.raises(KeyError, match="refused"):
        space.get(b"a")
    assert ["guard", b"a", "guard", b"b"] == order
    space.state.enter()


@twins
@pytest.mark.parametrize("by", ["guard", "read"])
def test_what_was_read_while_it_was_ended_is_not_shown(twin: ModuleType, by: str) -> None:
    space = workspace(twin)
    asked = []

    def end() -> None:
        space.state.flags |= twin.ENDED

    def read_at(key: bytes, snapshot: int) -> bytes:
        asked.append((key, snapshot))
        if by == "read":
            end()
        return b"what may be wrong"

    space.read_at = read_at
    if by == "guard":
        space.state.guard = end
    assert not space.has_asked
    with pytest.raises(RefusedError):
        space.get(b"a")
    assert [(b"a", SNAPSHOT)] == asked
    assert space.has_asked
    space.state.enter()


@twins
@pytest.mark.parametrize("tracks", [False, True])
def test_what_is_forgotten(twin: ModuleType, tracks: bool) -> None:
    space = workspace(twin, tracks=tracks)
    space.get(b"a")
    space[b"b"] = b"own"
    space.merged = {b"b": (1, b"")}
    space.ranges.append((None, None))
    keys, tables, ranges = space.read_keys, space.tables, space.ranges
    assert keys == ({b"a"} if tracks else None)
    space.forget()
    assert (keys, tables, ranges) == (set() if tracks else None, [], [])
    assert space.merged is None
    assert space.read_keys is keys
