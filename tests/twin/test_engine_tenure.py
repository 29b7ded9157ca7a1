"""Goal: both twins of the registry know each snapshot that is held, from the moment at which it
has a number to the one at which it is given back, which is done once.
"""

from __future__ import annotations

import gc
import inspect
from types import ModuleType
from typing import Any

import pytest

from holdfast.base import PURE, marks_seen
from holdfast.engine import _tenure_c, _tenure_py
from holdfast.engine._core import CommitState
from holdfast.engine.stats import Counters
from holdfast.env import SimEnv
from holdfast.wal import RecordBuffer

# The compiled twin takes compiled collaborators only, so in plain mode the plain twin is alone.
MODULES = (_tenure_py,) if PURE else (_tenure_c, _tenure_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)


class Holder:
    pass


def registry(twin: ModuleType, last_seq: int = 5) -> Any:
    """A registry; `state` and `env` are what it was made of, `warned` counts calls."""

    class Registry(twin.RegistryCore):  # type: ignore[name-defined,misc]
        def warn(self) -> None:
            self.warned += 1
            self.leaks.clear()

        def _await_drop(self) -> None:
            # Nobody holds a number who waits.
            self.waited.append([tenure.number for tenure in self.tenures()])
            self.is_dropping = False
            self.state.visible_seq += 1

    env, state = SimEnv(), CommitState(RecordBuffer(), 1000, last_seq)
    made = Registry(env, state, Counters(ingested_user_bytes=7))
    made.env, made.state, made.warned, made.waited = env, state, 0, []
    return made


@twins
def test_nobody_gets_a_number_while_rows_are_dropped(twin: ModuleType) -> None:
    one = registry(twin)
    one.acquire(kept := [], Holder())
    one.is_dropping = True
    tenure = one.acquire(held := [], Holder())
    assert one.waited == [[1]]
    assert ([5], [6]) == (kept, held)
    assert tenure.seq == 6
    assert one.tenures()[-1] is tenure is one.tenure_of(held)
    assert [5, 6] == [each.seq for each in one.tenures()]
    one.release(held)
    one.release(kept)
    assert one.tenures() == []


@twins
def test_what_is_held_is_known_until_it_is_given_back(twin: ModuleType) -> None:
    one, holders = registry(twin), [Holder() for _ in range(4)]
    taken: list[list[int]] = [[], [], [], []]
    for one.state.visible_seq, held, holder in zip((5, 9, 9, 2), taken, holders, strict=True):
        tenure = one.acquire(held, holder)
        assert one.tenure_of(held) is tenure
    assert [[5], [9], [9], [2]] == taken
    assert [5, 9, 9, 2] == [tenure.seq for tenure in one.tenures()]
    assert [1, 2, 3, 4] == [tenure.number for tenure in one.tenures()]
    assert all(a.holder() is b for a, b in zip(one.tenures(), holders, strict=True))
    one.release(taken[1])
    # What was given back is not given back again.
    one.release(taken[1])
    assert [5, 9, 2] == [tenure.seq for tenure in one.tenures()]
    assert [[5], [], [9], [2]] == taken
    assert one.tenure_of(taken[1]) is None
    assert one.drop(taken[2])
    assert not one.drop(taken[2])
    one.release(taken[2])
    assert [5, 2] == [tenure.seq for tenure in one.tenures()]
    assert [5] == one.tenures()[0].held


@twins
def test_a_tenure_says_who_and_since_when(twin: ModuleType) -> None:
    one, holder = registry(twin), Holder()
    one.state.user_bytes = 30
    one.env.sleep(3)
    before = one.env.monotonic()
    tenure = one.acquire([], holder)
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    assert before <= tenure.began <= one.env.monotonic()
    assert 37 == tenure.bytes_before == one.written_bytes()
    assert one.env.thread_id() == tenure.thread
    assert one.env.thread_life() is tenure.life
    assert (__file__, line) == (tenure.site.file, tenure.site.line)
    assert tenure.left_at is None
    tenure.left_at = 4.0
    assert 4.0 == one.tenures()[0].left_at


@twins
def test_it_does_not_keep_its_holder(twin: ModuleType) -> None:
    one, holder = registry(twin), Holder()
    tenure = one.acquire(held := [], holder)
    assert tenure.holder() is holder
    del holder
    gc.collect()
    assert tenure.holder() is None
    # The number is held all the same.
    assert [tenure] == one.tenures()
    assert [5] == held


@twins
def test_a_number_that_was_never_registered_cannot_be_released(twin: ModuleType) -> None:
    held = [1]
    with pytest.raises(ValueError, match="not held"):
        registry(twin).release(held)
    assert [1] == held


@twins
def test_leaks_are_told_of_by_whoever_comes_next(twin: ModuleType) -> None:
    one, holder = registry(twin), Holder()
    one.acquire([], holder)
    assert 0 == one.warned
    one.leaks.append("something")
    one.acquire([], holder)
    one.acquire([], holder)
    assert 1 == one.warned


@twins
def test_nothing_is_registered_when_its_clock_fails(twin: ModuleType) -> None:
    class Broken(SimEnv):
        def monotonic(self) -> float:
            raise KeyboardInterrupt

    one = twin.RegistryCore(Broken(), CommitState(RecordBuffer(), 1000, 5), Counters())
    held: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        one.acquire(held, Holder())
    assert ([], []) == (held, one.tenures())


@twins
def test_what_is_not_a_list_or_cannot_be_known_weakly_is_refused(twin: ModuleType) -> None:
    one = registry(twin)
    with pytest.raises(TypeError):
        one.acquire([], 5)
    assert [] == one.tenures()


@pytest.mark.parametrize("calls", ["release", "drop"])
def test_one_that_is_given_back_in_the_middle_of_another_call_is_given_back(calls: str) -> None:
    """The compiled twin takes no mutex, and is never in the middle."""
    one, first, second = registry(_tenure_py), Holder(), Holder()
    one.acquire(held := [], first)

    class State:
        user_bytes = 0

        @property
        def visible_seq(self) -> int:
            getattr(one, calls)(held)
            return 9

    one._state = State()
    tenure = one.acquire([], second)
    assert ([], [tenure]) == (held, one.tenures())
    assert calls == "drop" or "engine.snapshot_ended_in_a_call" in marks_seen()
