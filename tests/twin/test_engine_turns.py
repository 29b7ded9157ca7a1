"""Goal: a write without a group by the plain twin, which takes several steps, comes to what the one
step of the compiled twin comes to, whatever happens between them.

Method: a core whose write is interrupted, or changed, at each line before it has its turn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from holdfast.engine import _core_py
from holdfast.env import ReentryError
from holdfast.lsm import ReadView
from tests.twin.test_engine_core import core, untouched


def test_a_group_that_begins_in_the_middle_of_its_own_threads_write_is_refused() -> None:
    """A finalizer or a signal handler may run between two lines of the plain twin, and would wait
    for the write that it interrupted.
    """
    one = core(_core_py)
    inner = one.view

    class Interrupted(type(one)):  # type: ignore[misc]
        @property
        def view(self) -> ReadView:
            self.state.begin_group()
            return inner  # type: ignore[no-any-return]  # the core is Any

    plain = one.__class__
    one.__class__ = Interrupted
    with pytest.raises(ReentryError, match="the fast way to write"):
        one.put(b"a", b"1", durability="none")
    assert _core_py.BUSY == one.state.flags
    one.__class__ = plain
    assert untouched(one)
    assert [] == one.slow
    one.state.flags = 0
    one.put(b"a", b"1", durability="none")
    assert b"1" == one.get(b"a")


@pytest.mark.parametrize(
    ("write", "given"),
    [
        ("put", (b"a", b"1")),
        ("delete", (b"a",)),
        ("add", (b"a",)),
        ("begin_put", (b"a", b"1")),
        ("begin_delete", (b"a",)),
        ("begin_merge", (b"a", b"1")),
    ],
)
def test_a_timer_that_ends_while_a_write_takes_its_turn_is_not_counted_on(
    monkeypatch: pytest.MonkeyPatch, write: str, given: tuple[bytes, ...]
) -> None:
    """Nobody would sync what the plain twin wrote; the compiled one asks and writes in one step."""
    one = core(_core_py)
    one.state.interval_armed = True
    real: Any = _core_py.KeyspaceCore._write_alone

    def ending(self: Any, *arguments: Any) -> Any:
        self.state.interval_armed = False
        return real(self, *arguments)

    monkeypatch.setattr(_core_py.KeyspaceCore, "_write_alone", ending)
    if write.startswith("begin"):
        assert getattr(one, write)(*given, "interval").op_count == 1
    else:
        getattr(one, write)(*given, durability="interval")
        assert ["interval"] == [operation[-1] for operation in one.slow]
    assert untouched(one)


def at_line(number: int, call: Callable[[], object]) -> Callable[..., Any]:
    """Return a trace function that makes a call before the line of this number that the plain
    twin's fast write comes to, from 0, up to that in which it writes.
    """
    lines: list[int] = []

    def in_it(frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and 0 not in lines:
            lines.append(frame.f_lineno)
            if len(lines) == number + 1:
                sys.settrace(None)
                call()
        return in_it

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is _core_py.KeyspaceCore._write_alone.__code__:
            lines.append(0)
        return in_it if frame.f_code is _core_py.KeyspaceCore._write_fast.__code__ else None

    return trace


@pytest.mark.parametrize("number", range(5))
def test_a_fast_write_that_is_interrupted_at_any_line_keeps_nobody_out(number: int) -> None:
    """Also right behind the step with which it takes its turn."""
    one = core(_core_py)

    def interrupt() -> None:
        raise KeyboardInterrupt

    before = sys.gettrace()
    sys.settrace(at_line(number, interrupt))
    try:
        with pytest.raises(KeyboardInterrupt):
            one.put(b"a", b"1", durability="none")
    finally:
        sys.settrace(before)
    assert not one.state._turn
    assert untouched(one)
    one.put(b"a", b"1", durability="none")
    assert [] == one.slow


@pytest.mark.parametrize("number", range(5))
def test_a_group_that_begins_at_any_line_of_its_own_threads_write_waits_for_nothing(
    number: int,
) -> None:
    one, begun = core(_core_py), []

    def begin() -> None:
        try:
            one.state.begin_group()
        except ReentryError:
            begun.append(False)
        else:
            begun.append(True)
        one.state.flags = 0

    before = sys.gettrace()
    sys.settrace(at_line(number, begin))
    try:
        one.put(b"a", b"1", durability="none")
    finally:
        sys.settrace(before)
    # It is refused once the write has its turn.
    assert begun == [number < 4]
    assert b"1" == one.get(b"a")
