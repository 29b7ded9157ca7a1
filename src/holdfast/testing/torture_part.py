"""What the parts of `holdfast torture` have in common.

A part does items, one after another. What item K is depends on the seed and K alone, never on the
time, so that an item replays; the time only decides how many there are.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

FAILURES_MAX = 5
"""A part that has found so many ends."""

HANG_SECONDS = 300

Figures = dict[str, int | float | str]
"""Rows of the scoreboard: what was measured, and how much."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that the database did wrong."""

    part: str
    item: str
    """What the part's `replay` takes."""
    complaints: tuple[str, ...]


class Part(Protocol):
    """One way to torture a database."""

    name: str
    failures: list[Failure]

    @property
    def is_done(self) -> bool:
        """Whether nothing new is left to do, so that the time is better spent on other parts."""
        return False

    def step(self) -> None:
        """Do the next item."""
        ...

    def replay(self, item: str) -> None:
        """Do one item again. Raises: ValueError, KeyError, IndexError for an item that is none."""
        ...

    def figures(self) -> Figures:
        """Return what was done so far."""
        ...

    def tables(self) -> dict[str, list[list[str]]]:
        """Return tables by title, each with its headings in the first row."""
        ...


class HangError(BaseException):
    """Something took as long as if it would never end. Nothing in the engine catches it."""


@contextmanager
def bounded(seconds: int = HANG_SECONDS) -> Iterator[None]:
    """Raise HangError when the block takes too long; outside of the main thread, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(number: int, frame: FrameType | None) -> None:
        raise HangError(f"more than {seconds} s passed")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def is_going(part: Part) -> bool:
    """Return whether a part has something to do and has not found enough."""
    return not part.is_done and len(part.failures) < FAILURES_MAX


def bound_of(failures: int, trials: int) -> str:
    """Return the 95 % upper bound of a rate of which no case was seen: the rule of three."""
    if failures:
        return "none: there were some"
    return f"{3 / trials:.1e}" if trials else "none: there was no trial"
