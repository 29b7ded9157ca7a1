"""Goal: both twins of the keyspace core read at the right moment, and write without a group only
when nothing has to wait.

Method: a core over a memtable of its own, whose slow path only notes what reached it; every
condition of the fast path is broken in turn.
"""

from __future__ import annotations

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
    DatabaseClosedError,
    LimitError,
)
from holdfast.engine import _core_c, _core_py
from holdfast.env import ThreadLife, this_thread
from holdfast.lsm import ReadView
from holdfast.memtable import Memtable
from holdfast.wal import RecordBuffer, WriteBatch
from tests.twin.test_lsm_view import Maker

# The compiled twin takes compiled collaborators only, so in plain mode the plain twin is alone.
MODULES = (_core_py,) if PURE else (_core_c, _core_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

LAST_SEQ = 40
KEYSPACE = 7
KEYS = st.sampled_from([b"", b"a", b"b", b"c" * 200, b"\x00", b"\xff"])
CALLS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=20)),
    st.tuples(st.just("put"), KEYS, st.binary(max_size=20)),
    st.tuples(st.just("delete"), KEYS),
)


def core(
    twin: ModuleType, *, memtable_bytes: int = 1 << 20, buffer_bytes_max: int = 1 << 16
) -> Any:
    """A core with what the engine would give it; `slow` lists what came to the slow path."""

    class Core(twin.KeyspaceCore):  # type: ignore[name-defined,misc]
        def _refuse(self) -> None:
            raise DatabaseClosedError("dropped" if self.dropped else "closed")

        def _commit(self, batch: WriteBatch, durability: str | None) -> None:
            ((kind, keyspace, key, value),) = batch.operations()
            assert KEYSPACE == keyspace
            self.slow.append((kind, key, value, durability))

        def _take(self, key: bytes) -> bytes | None:
            value = self.get(key)
            if value is not None:
                self.delete(key)
            return value  # type: ignore[no-any-return]

        def _encode_amount(self, amount: object) -> bytes:
            self.encoded.append(amount)
            return b"\x01amount"

    state = twin.CommitState(RecordBuffer(), buffer_bytes_max, LAST_SEQ)
    made = Core(state, KEYSPACE, ReadView(Memtable(), (), ()), memtable_bytes)
    made.slow = []
    made.encoded = []
    return made


def untouched(one: Any) -> bool:
    """Whether nothing was written without the slow path."""
    state = one.state
    return bool(
        state.buffer.op_count == 0
        and state.next_seq == LAST_SEQ + 1
        and state.visible_seq == LAST_SEQ
        and one.view.active.entry_count == 0
    )


@twins
def test_a_new_state_goes_on_behind_the_last_sequence_number(twin: ModuleType) -> None:
    buffer = RecordBuffer()
    state = twin.CommitState(buffer, 100, LAST_SEQ)
    assert buffer is state.buffer
    assert 100 == state.buffer_bytes_max
    assert (LAST_SEQ + 1, LAST_SEQ) == (state.next_seq, state.visible_seq)
    assert (0, 0, 0, 0) == (state.user_bytes, state.write_count, state.read_count, state.flags)
    assert state.interval_armed is False


@twins
def test_a_core_has_what_it_was_made_of(twin: ModuleType) -> None:
    one = core(twin, memtable_bytes=4321)
    assert (KEYSPACE, 4321, False) == (one.id, one.memtable_bytes, one.dropped)
    assert (one.view, LAST_SEQ) == one.read_point()


@twins
def test_a_scan_takes_bounds_as_users_write_them(twin: ModuleType) -> None:
    one = core(twin)
    for key in (b"a", b"b", b"ba", b"c"):
        one.put(key, key, durability="none")

    def keys(*bounds: Any, reverse: bool = False, limit: int | None = None) -> list[bytes]:
        return list(one._cursor(*bounds, reverse, limit, 1))

    assert [b"a", b"b", b"ba", b"c"] == keys(None, None, None)
    assert [b"b", b"ba"] == keys(b"b", b"c", None)
    assert [b"b", b"ba"] == keys(bytearray(b"b"), memoryview(b"c"), None)
    assert [b"ba", b"b"] == keys(None, None, b"b", reverse=True)
    assert [b"b"] == keys(b"b", None, None, limit=1)
    assert [(b"c", b"c")] == list(one._cursor(b"c", None, None, False, None, 0))
    for wrong, error in (("b", TypeError), (b"k" * (KEY_BYTES_MAX + 1), LimitError)):
        for bounds in ((wrong, None, None), (None, wrong, None), (None, None, wrong)):
            with pytest.raises(error, match=r"^(a|the) key (is bytes, not str|has 65537 bytes)"):
                one._cursor(*bounds, False, None, 0)
    later = one._cursor(None, None, None, False, None, 1)
    one.put(b"aa", b"", durability="none")
    assert [b"a", b"b", b"ba", b"c"] == list(later)
    one.dropped = True
    with pytest.raises(DatabaseClosedError, match="dropped"):
        one._cursor(None, None, None, False, None, 0)


@pytest.mark.parametrize("twin", TWINS)
@given(calls=st.lists(CALLS, max_size=30))
def test_unsynced_writes_are_logged_applied_and_visible_at_once(
    twin: ModuleType, calls: list[tuple[Any, ...]]
) -> None:
    one = core(twin)
    model: dict[bytes, bytes] = {}
    logged = []
    for name, key, *value in calls:
        getattr(one, name)(key, *value, durability="none")
        if name == "put":
            model[key] = value[0]
        else:
            model.pop(key, None)
        logged.append((PUT if name == "put" else DELETE, KEYSPACE, key, *(value or [None])))
        assert model.get(key) == one.get(key)
        assert LAST_SEQ + len(logged) == one.state.visible_seq
    assert [] == one.slow
    assert logged == list(one.state.buffer.operations())
    assert LAST_SEQ + len(logged) + 1 == one.state.next_seq
    assert len(logged) == one.state.write_count
    assert sum(len(op[2]) + len(op[3] or b"") for op in logged) == one.state.user_bytes
    assert sorted(model.items()) == list(one.view.cursor(one.state.visible_seq))
    for number in range(len(logged) + 1):
        expected: dict[bytes, bytes] = {}
        for kind, _, key, value in logged[:number]:
            expected.pop(key, None)
            if kind == PUT:
                expected[key] = value
        for key in model:
            assert expected.get(key) == one.get_at(key, LAST_SEQ + number)


@twins
@pytest.mark.parametrize("durability", [None, "commit", "interval", "never"])
def test_other_writes_go_through_a_group(twin: ModuleType, durability: str | None) -> None:
    one = core(twin)
    one.put(b"a", b"1", durability=durability)
    one.delete(b"a", durability=durability)
    assert [(PUT, b"a", b"1", durability), (DELETE, b"a", None, durability)] == one.slow
    assert untouched(one)


@twins
def test_a_write_that_is_begun_is_done_or_becomes_a_batch(twin: ModuleType) -> None:
    made = core(twin)
    assert made.begin_put(b"a", b"1", "none") is None
    assert made.begin_delete(b"b", "none") is None
    assert [(PUT, KEYSPACE, b"a", b"1"), (DELETE, KEYSPACE, b"b", None)] == list(
        made.state.buffer.operations()
    )
    for durability in (None, "commit", "interval", "never"):
        batch = made.begin_put(b"a", bytearray(b"2"), durability)
        assert [(PUT, KEYSPACE, b"a", b"2")] == list(batch.operations())
        batch = made.begin_delete(memoryview(b"a"), durability)
        assert [(DELETE, KEYSPACE, b"a", None)] == list(batch.operations())
    made.state.flags |= twin.BUSY
    assert made.begin_put(b"a", b"3", "none").op_count == 1
    assert made.begin_delete(b"a", "none").op_count == 1
    assert (2, []) == (made.state.buffer.op_count, made.slow)
    assert b"1" == made.get(b"a")
    for begin in (lambda: made.begin_put("a", b"1", None), lambda: made.begin_delete(1, None)):
        with pytest.raises(TypeError):
            begin()
    with pytest.raises(LimitError):
        made.begin_put(b"k" * (KEY_BYTES_MAX + 1), b"", None)
    with pytest.raises(LimitError):
        made.begin_delete(b"k" * (KEY_BYTES_MAX + 1), None)


@twins
def test_a_cached_get_is_counted_and_refused_like_any(twin: ModuleType) -> None:
    made = core(twin)
    made.put(b"a", b"1", durability="none")
    otherwise = object()
    assert [b"1", None] == [made.get_cached(key, otherwise) for key in (b"a", b"b")]
    assert made.get_cached(b"a", otherwise, LAST_SEQ) is None
    assert made.state.read_count == 3
    with pytest.raises(LimitError):
        made.get_cached(b"k" * (KEY_BYTES_MAX + 1), otherwise)
    with pytest.raises(TypeError):
        made.get_cached("a", otherwise)
    made.state.flags |= twin.CLOSED
    with pytest.raises(DatabaseClosedError):
        made.get_cached(b"a", otherwise)


@twins
def test_interval_writes_are_quick_while_the_timer_runs(twin: ModuleType) -> None:
    one = core(twin)
    one.state.interval_armed = True
    one.put(b"a", b"1", durability="interval")
    one.delete(b"b", durability="interval")
    assert [] == one.slow
    assert 2 == one.state.buffer.op_count
    one.put(b"a", b"1")
    assert 1 == len(one.slow)


@twins
def test_mapping_writes_go_through_a_group(twin: ModuleType) -> None:
    one = core(twin)
    one.put(b"here", b"1", durability="none")
    one[b"a"] = b"1"
    del one[b"here"]
    with pytest.raises(KeyError, match="absent"):
        del one[b"absent"]
    with pytest.raises(TypeError, match="encode"):
        del one["here"]
    assert [(PUT, b"a", b"1", None), (DELETE, b"here", None, None)] == one.slow


@twins
@pytest.mark.parametrize("flag", ["BUSY", "POISONED", "READ_ONLY", "CLOSING"])
def test_every_flag_ends_the_fast_path(twin: ModuleType, flag: str) -> None:
    one = core(twin)
    one.state.flags = getattr(twin, flag)
    one.put(b"a", b"1", durability="none")
    one.delete(b"a", durability="none")
    assert 2 == len(one.slow)
    assert untouched(one)
    assert one.get(b"a") is None, "reads go on"


@twins
@pytest.mark.parametrize("flag", ["CLOSED", "FORKED"])
def test_a_closed_or_forked_core_refuses(twin: ModuleType, flag: str) -> None:
    one = core(twin)
    one.state.flags = getattr(twin, flag)
    refuses(one, "closed")
    one.put(b"a", b"1", durability="none")
    assert 1 == len(one.slow), "the write path says why it cannot be written"
    assert untouched(one)


@twins
def test_a_dropped_core_refuses(twin: ModuleType) -> None:
    one = core(twin)
    one.dropped = True
    refuses(one, "dropped")
    one.put(b"a", b"1", durability="none")
    assert 1 == len(one.slow)
    assert untouched(one)


def refuses(one: Any, message: str) -> None:
    for read in (
        lambda: one.get(b"a"),
        lambda: one.get_at(b"a", 1),
        lambda: one[b"a"],
        lambda: b"a" in one,
        lambda: one.get_many([b"a"]),
        lambda: one.read_point(),
        lambda: one.__delitem__(b"a"),
    ):
        with pytest.raises(DatabaseClosedError, match=message):
            read()
    assert 0 == one.state.read_count


@twins
def test_the_flags_are_bits_of_their_own(twin: ModuleType) -> None:
    names = ["CLOSED", "FORKED", "POISONED", "BUSY", "READ_ONLY", "CLOSING"]
    values = [getattr(twin, name) for name in names]
    assert [1, 2, 4, 8, 16, 32] == values


@twins
def test_a_write_that_owes_a_pause_goes_through_a_group(twin: ModuleType) -> None:
    one = core(twin)
    assert twin.NEVER == one.state.pause_at
    one.state.pause_at = 6
    one.put(b"a", b"12", durability="none")
    one.put(b"b", b"12", durability="none")
    assert [] == one.slow
    one.put(b"c", b"12", durability="none")
    one.delete(b"a", durability="none")
    assert 2 == len(one.slow)
    assert 6 == one.state.user_bytes


@twins
def test_a_full_memtable_has_the_next_group_make_room(twin: ModuleType) -> None:
    one = core(twin)
    one.state.room_at = 1 << 20
    one.memtable_bytes = 0
    one.put(b"a", b"1", durability="none")
    assert 1 == len(one.slow)
    assert 0 == one.state.room_at


@twins
def test_a_full_buffer_goes_through_a_group(twin: ModuleType) -> None:
    one = core(twin, buffer_bytes_max=200)
    one.put(b"a", b"x" * 100, durability="none")
    assert [] == one.slow
    one.put(b"b", b"x" * 100, durability="none")
    assert 1 == len(one.slow)
    assert 1 == one.state.buffer.op_count
    one.delete(b"b", durability="none")
    assert 1 == len(one.slow)


@twins
def test_the_buffer_never_grows_beyond_its_limit(twin: ModuleType) -> None:
    one = core(twin, buffer_bytes_max=300)
    for size in range(60):
        one.put(b"k" * size, b"v" * size, durability="none")
        assert one.state.buffer.size <= 300
    assert one.slow


@twins
def test_a_full_memtable_goes_through_a_group(twin: ModuleType) -> None:
    one = core(twin, memtable_bytes=4096)
    while not one.slow:
        full = one.view.active.bytes_used >= 4096
        one.put(b"a", b"x" * 500, durability="none")
        assert full == bool(one.slow)


@twins
def test_a_write_goes_to_the_memtable_of_the_view(twin: ModuleType) -> None:
    one = core(twin)
    one.put(b"a", b"old", durability="none")
    old = one.view
    one.view = ReadView(Memtable(), (old.active,), ())
    one.put(b"a", b"new", durability="none")
    assert b"new" == one.get(b"a")
    assert b"old" == old.get(b"a", one.state.visible_seq)
    assert 1 == one.view.active.entry_count


@twins
def test_what_is_not_visible_yet_is_not_read(twin: ModuleType) -> None:
    one = core(twin)
    one.view.active.put(LAST_SEQ + 1, PUT, b"a", b"1")
    assert one.get(b"a") is None
    assert [None] == one.get_many([b"a"])
    assert b"a" not in one
    one.state.visible_seq = LAST_SEQ + 1
    assert b"1" == one.get(b"a")
    assert one.get_at(b"a", LAST_SEQ) is None


@twins
def test_reads_have_defaults_and_are_counted(twin: ModuleType) -> None:
    one = core(twin)
    one.put(b"a", b"", durability="none")
    assert b"" == one.get(b"a", b"default")
    assert b"default" == one.get(b"b", b"default")
    assert b"" == one[b"a"]
    with pytest.raises(KeyError) as caught:
        one[b"b"]
    assert (b"b",) == caught.value.args
    assert [b"", None, b""] == one.get_many([b"a", b"b", bytearray(b"a")])
    assert [] == one.get_many(iter([]))
    assert 7 == one.state.read_count


@twins
def test_keys_and_values_are_any_bytes_and_nothing_else(twin: ModuleType) -> None:
    one = core(twin)
    one.put(bytearray(b"a"), memoryview(b"1"), durability="none")
    assert b"1" == one.get(memoryview(b"a"))
    for call in (
        lambda: one.put("a", b"1", durability="none"),
        lambda: one.put(b"a", "1", durability="none"),
        lambda: one.put(b"a", None, durability="none"),
        lambda: one.delete("a", durability="none"),
        lambda: one.get("a"),
        lambda: one.get_many(["a"]),
        lambda: one.__setitem__(b"a", 1),
        lambda: "a" in one,
    ):
        with pytest.raises(TypeError):
            call()
    assert 1 == one.state.write_count
    assert [] == one.slow


@twins
def test_sizes_are_limited_before_anything_is_written(twin: ModuleType) -> None:
    one = core(twin)
    long_key = b"k" * (KEY_BYTES_MAX + 1)
    for call in (
        lambda: one.put(long_key, b"1", durability="none"),
        lambda: one.put(long_key, b"1"),
        lambda: one.delete(long_key, durability="none"),
        lambda: one.delete(long_key),
        lambda: one.get(long_key),
        lambda: one.get_many([long_key]),
    ):
        with pytest.raises(LimitError):
            call()
    assert untouched(one)
    assert [] == one.slow


@twins
def test_the_largest_key_fits(twin: ModuleType) -> None:
    one = core(twin, buffer_bytes_max=1 << 20)
    key = b"k" * KEY_BYTES_MAX
    one.put(key, b"1", durability="none")
    assert [] == one.slow
    assert b"1" == one.get(key)


@twins
def test_the_constructor_takes_the_right_types(twin: ModuleType) -> None:
    if PURE or twin is _core_py:
        pytest.skip("only the compiled twin looks at types")
    state = twin.CommitState(RecordBuffer(), 100, 0)
    view = ReadView(Memtable(), (), ())
    for arguments in [(None, 1, view, 1), (state, 1, None, 1), (state, "1", view, 1)]:
        with pytest.raises(TypeError):
            twin.KeyspaceCore(*arguments)
    with pytest.raises(TypeError):
        twin.CommitState(None, 1, 1)


@twins
def test_a_write_that_cannot_be_applied_is_not_logged(twin: ModuleType) -> None:
    one = core(twin)
    one.put(b"a", b"1", durability="none")
    size = one.state.buffer.size
    one.view.active.freeze()
    for write in (
        lambda: one.put(b"b", b"2", durability="none"),
        lambda: one.delete(b"a", durability="none"),
    ):
        with pytest.raises(ValueError, match="frozen"):
            write()
    assert (size, 1) == (one.state.buffer.size, one.state.buffer.op_count)
    assert (LAST_SEQ + 2, LAST_SEQ + 1) == (one.state.next_seq, one.state.visible_seq)
    assert b"1" == one.get(b"a")


def test_a_group_waits_for_the_write_that_is_under_way() -> None:
    """The plain twin's write without a group is several steps; the compiled one's is one."""
    one = core(_core_py)
    others: list[ThreadLife] = []
    thread = threading.Thread(target=lambda: others.append(this_thread()))
    thread.start()
    thread.join()
    one.state._turn[0] = others
    one.put(b"a", b"1", durability="none")
    assert 1 == len(one.slow), "somebody else is in the middle of such a write"
    threading.Timer(0.05, one.state._turn.clear).start()
    one.state.begin_group()
    assert not one.state._turn
    one.put(b"a", b"1", durability="none")
    assert 2 == len(one.slow), "a group leads"


def test_a_view_that_changed_around_its_number_is_read_again() -> None:
    """Another thread publishes a view between two lines of the plain twin."""
    one = core(_core_py)
    old, new = one.view, ReadView(Memtable(), (), ())
    shown = [old, new, new, new]

    class Moving(type(one)):  # type: ignore[misc]
        @property
        def view(self) -> ReadView:
            return shown.pop(0)

    one.__class__ = Moving
    assert one.read_point() == (new, LAST_SEQ)
    assert shown == []


@twins
def test_one_get_in_some_is_measured(twin: ModuleType) -> None:
    one = core(twin)
    state = one.state
    one.get(b"a")
    assert (2**64 - 1, None) == (state.sample_at, state.sampler)

    class Recorder:
        begun, ended = 0, 0

        def begin(self) -> object:
            self.begun += 1
            state.sample_at = state.read_count + 10
            return self

        def end(self, began: object) -> None:
            assert began is self
            self.ended += 1

    sampler = Recorder()
    state.sampler, state.sample_at = sampler, state.read_count + 3
    one.put(b"a", b"1", durability="none")
    reads = (
        lambda: one.get(b"a"),
        lambda: one.get_at(b"a", LAST_SEQ + 1),
        lambda: one[b"a"],
        lambda: b"1" if b"a" in one else None,
    )
    for number in range(33):
        assert b"1" == reads[number % 4]()
    assert (4, 4) == (sampler.begun, sampler.ended)
    assert one.get_many([b"a"] * 50) == [b"1"] * 50
    assert one.get_cached(b"a", None) == b"1"
    assert 4 == sampler.begun
    # Those of a batch count, and the next one of its own is measured.
    assert b"1" == one.get(b"a")
    assert 5 == sampler.begun == sampler.ended
    state.sample_at, state.sampler = 0, None
    assert b"1" == one.get(b"a")


@twins
def test_a_merge_is_logged_applied_and_visible_at_once(twin: ModuleType) -> None:
    one = core(twin)
    assert one.write_merge(bytearray(b"a"), memoryview(b"\x04x"), "none") is None
    assert one.begin_merge(b"a", b"\x04yz", "none") is None
    assert [(MERGE, KEYSPACE, b"a", b"\x04x"), (MERGE, KEYSPACE, b"a", b"\x04yz")] == list(
        one.state.buffer.operations()
    )
    for seq, value in ((LAST_SEQ + 1, b"\x04x"), (LAST_SEQ + 2, b"\x04yz")):
        assert (seq, MERGE, value) == one.view.active.get(b"a", seq)
    assert (LAST_SEQ + 3, LAST_SEQ + 2) == (one.state.next_seq, one.state.visible_seq)
    assert (2, 7) == (one.state.write_count, one.state.user_bytes)
    assert [] == one.slow


AMOUNTS = st.one_of(
    st.integers(),
    st.integers(-(1 << 64), 1 << 64),
    st.sampled_from([0, -1, (1 << 63) - 1, 1 << 63, -(1 << 63), -(1 << 63) - 1]),
)


@twins
@given(amount=AMOUNTS, head=st.binary(max_size=3))
def test_an_amount_is_encoded_here_when_it_has_64_bits(
    twin: ModuleType, amount: int, head: bytes
) -> None:
    one = core(twin)
    one.add_head = head
    one.add(b"a", amount, durability="none")
    ours = -(1 << 63) <= amount < 1 << 63
    assert ([] if ours else [amount]) == one.encoded
    value = head + b"%d" % amount if ours else b"\x01amount"
    assert [(MERGE, KEYSPACE, b"a", value)] == list(one.state.buffer.operations())
    assert (LAST_SEQ + 1, MERGE, value) == one.view.active.get(b"a", LAST_SEQ + 1)


@twins
def test_any_other_amount_is_left_to_the_merge_function(twin: ModuleType) -> None:
    class Number(int):
        pass

    one = core(twin)
    one.add(bytearray(b"a"), durability="none")
    one.add_head = b"\x01"
    one.add(b"a", True, durability="none")
    one.add(b"a", Number(5), durability="none")
    one.add(b"a", "5", durability="none")
    assert [1, True, 5, "5"] == one.encoded
    assert 4 == one.state.write_count
    one.add(b"b")
    one.add(b"b", -7, durability="commit")
    assert [
        (MERGE, b"b", b"\x011", None),
        (MERGE, b"b", b"\x01-7", "commit"),
    ] == one.slow
    with pytest.raises(TypeError, match="str"):
        one.add("b", 1, durability="none")


@twins
@pytest.mark.parametrize("durability", [None, "commit", "interval", "never"])
def test_other_merges_go_through_a_group(twin: ModuleType, durability: str | None) -> None:
    one = core(twin)
    one.write_merge(b"a", bytearray(b"\x04x"), durability)
    assert [(MERGE, b"a", b"\x04x", durability)] == one.slow
    batch = one.begin_merge(b"b", b"\x04y", durability)
    assert [(MERGE, KEYSPACE, b"b", b"\x04y")] == list(batch.operations())
    one.state.flags |= twin.BUSY
    one.write_merge(b"c", b"\x04z", "none")
    assert (MERGE, b"c", b"\x04z", "none") == one.slow[1]
    assert one.begin_merge(b"c", b"\x04z", "none").op_count == 1
    assert untouched(one)
    for key, value, error in (
        ("a", b"", TypeError),
        (b"a", "x", TypeError),
        (b"k" * (KEY_BYTES_MAX + 1), b"", LimitError),
    ):
        for write in (one.write_merge, one.begin_merge):
            with pytest.raises(error):
                write(key, value, durability)
    assert 2 == len(one.slow)


@twins
def test_a_state_without_a_write_path_commits_nothing_at_once(twin: ModuleType) -> None:
    """The compiled twin asks its write path; the plain one leaves it to a commit group."""
    one = core(twin)
    batch = WriteBatch()
    batch.put(KEYSPACE, b"a", b"1")
    memtables = {KEYSPACE: one.view.active}
    assert one.state.commit_at_once(batch, LAST_SEQ, (KEYSPACE,), memtables) is False
    assert untouched(one)
    assert 0 == one.state.flags


@twins
def test_a_cached_get_that_takes_a_page_is_not_counted(twin: ModuleType) -> None:
    one = core(twin)
    (reader,) = Maker().tables([(PUT, b"a", b"1"), (PUT, b"b", b"2")])
    one.view = ReadView(Memtable(), (), ((reader,),))
    otherwise = object()
    assert one.get_cached(b"a", otherwise) is otherwise
    assert 0 == one.state.read_count
    assert b"1" == one.get(b"a") == one.get_cached(b"a", otherwise)
    assert 2 == one.state.read_count
    # What the caller takes for a miss may be an answer too.
    assert one.get_cached(b"absent", None) is None
    assert 3 == one.state.read_count


@twins
def test_one_scan_in_some_is_told_of_before_it_reads(twin: ModuleType) -> None:
    one = core(twin)
    told: list[bytes] = []

    class Recorder:
        def scanned(self) -> None:
            told.append(b"%d" % one.state.scan_count)
            one.put(told[-1], b"", durability="none")

    def scan() -> list[bytes]:
        return list(one._cursor(None, None, None, False, None, 1))

    for _ in range(twin.SCAN_SAMPLE):
        assert [] == scan()
    one.state.sampler = Recorder()
    for _ in range(twin.SCAN_SAMPLE - 1):
        assert [] == scan()
    assert [] == told
    assert [b"122"] == scan() == told
    assert 122 == one.state.scan_count == 2 * twin.SCAN_SAMPLE


@twins
@pytest.mark.parametrize("end", ["drop", "close"])
def test_a_scan_whose_sampler_ends_the_keyspace_is_refused(twin: ModuleType, end: str) -> None:
    one = core(twin)

    class Ending:
        def scanned(self) -> None:
            if end == "drop":
                one.dropped = True
            else:
                one.state.flags |= twin.CLOSED

    one.state.sampler = Ending()
    one.state.scan_count = twin.SCAN_SAMPLE - 1
    with pytest.raises(DatabaseClosedError, match="dropped" if end == "drop" else "closed"):
        one._cursor(None, None, None, False, None, 0)
