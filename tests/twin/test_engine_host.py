"""Goal: both twins of the host give snapshots with a guard only where there are limits, take them
back without waiting in a forked child, and commit at once only without a sync.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from holdfast.base import PURE
from holdfast.engine import _host_c, _host_py
from holdfast.engine._core import FORKED, READ_ONLY, CommitState
from holdfast.memtable import Memtable
from holdfast.wal import RecordBuffer, WriteBatch

# The compiled twin takes compiled collaborators only, so in plain mode the plain twin is alone.
MODULES = (_host_py,) if PURE else (_host_c, _host_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)


class Registry:
    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.age_max = self.bytes_max = 0

    def acquire(self, held: list[int], holder: object) -> object:
        held.append(3)
        return holder

    def release(self, held: list[int]) -> None:
        self.calls.append(("release", held))

    def drop(self, held: list[int]) -> bool:
        self.calls.append(("drop", held))
        return True

    def check(self, tenure: object) -> None:
        self.calls.append(("check", tenure))


def host(twin: ModuleType) -> tuple[Any, Any]:
    """A host and its engine."""
    state = CommitState(RecordBuffer(), 1 << 16, 40)
    path = SimpleNamespace(memtables={7: Memtable()}, _leader=None, thread_id=lambda: 1)
    armed: list[int] = []
    engine = SimpleNamespace(
        state=state,
        snapshots=Registry(),
        write_path=path,
        armed=armed,
        arm_interval=lambda: armed.append(1),
    )
    state.path, state.room_at = path, 1000
    return twin.HostCore(engine, 500), engine


@twins
def test_a_snapshot_has_a_guard_where_there_are_limits(twin: ModuleType) -> None:
    one, engine = host(twin)
    held: list[int] = []
    assert one.acquire(held, "me") is None
    assert [3] == held
    for limit in ("age_max", "bytes_max"):
        setattr(engine.snapshots, limit, 1)
        one.acquire([], limit)()
        assert ("check", limit) == engine.snapshots.calls[-1]
        setattr(engine.snapshots, limit, 0)


@twins
def test_a_snapshot_is_given_back_to_the_registry_but_not_in_a_forked_child(
    twin: ModuleType,
) -> None:
    one, engine = host(twin)
    one.release([3])
    assert one.drop([4])
    assert [("release", [3]), ("drop", [4])] == engine.snapshots.calls
    engine.state.flags |= FORKED
    held = [3]
    one.release(held)
    assert [] == held
    assert 2 == len(engine.snapshots.calls)


@twins
def test_what_it_says_of_the_database(twin: ModuleType) -> None:
    one, engine = host(twin)
    assert 500 == one.batch_bytes_max
    assert not one.is_read_only
    engine.state.flags |= READ_ONLY
    assert one.is_read_only


@twins
@pytest.mark.parametrize("durability", ["commit", "interval", None])
def test_what_is_to_be_durable_is_not_committed_at_once(
    twin: ModuleType, durability: str | None
) -> None:
    one, engine = host(twin)
    batch = WriteBatch()
    batch.put(7, b"k", b"v")
    assert not one.commit_at_once(batch, durability, (7,), 40)
    assert 40 == engine.state.visible_seq


@pytest.mark.skipif(PURE, reason="the plain twin of the state commits by a group each time")
@twins
@pytest.mark.parametrize("durability", ["none", "interval"])
def test_what_is_not_is_and_the_timer_is_seen_to(twin: ModuleType, durability: str) -> None:
    one, engine = host(twin)
    engine.state.interval_armed = True
    batch = WriteBatch()
    batch.put(7, b"k", b"v")
    assert one.commit_at_once(batch, durability, (7,), 40)
    assert 41 == engine.state.visible_seq
    assert (durability == "interval") == bool(engine.armed)
    assert (41, 1, b"v") == engine.write_path.memtables[7].get(b"k", 100)
    # Not behind what it does not know.
    assert not one.commit_at_once(batch, durability, (7,), 40)
