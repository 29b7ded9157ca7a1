"""A call whose power is cut anywhere, and the judgement of what is left.

A case is run once, undisturbed. The power may go before each of its operations and after the last
of them; every content that the disk may have then is judged once. Verdicts are kept by content from
run to run: a run without one of the syncs is judged where it differs.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import pytest

import holdfast
from holdfast.engine import Database
from holdfast.env import CrashPoint, CrashState, Operation, SimEnv
from holdfast.recovery import UNFINISHED, check_folder, key_source
from holdfast.testing.oracle import Wrap
from tests.hostile.folders import Files, State

CLASSES = ("none", "all", "prefix", "drop-one", "only-one")
_WALL_START = 1_767_229_200.0

Prepared = tuple[SimEnv, Callable[[], object]]
"""A machine, and the call to be cut off."""


class Judge(Protocol):
    """Knows what must be left."""

    def judge(self, state: CrashState, *, is_over: bool) -> None:
        """Raise where a state of the disk is wrong. `is_over` says that the call had returned;
        what is right then is right before it, too.
        """


@dataclass(slots=True)
class Case:
    """A call, and the judge of what a cut leaves."""

    prepare: Callable[[Wrap], Prepared]
    judge: Judge
    since: str = ""
    until: str = ""
    """The sites of the first and the last operation, in their order, behind which the power goes.
    In any case it goes at the end, too.
    """
    verdicts: dict[tuple[str, bool], str] = field(default_factory=dict)


def failures(case: Case, wrap: Wrap = lambda machine: machine) -> Iterator[str]:
    """Yield what is wrong with each state that is not as it should be."""
    machine, call = case.prepare(wrap)
    moments = [CrashPoint(machine)]
    sites = ["the beginning"]

    def keep(operation: Operation) -> None:
        moments.append(CrashPoint(machine))
        sites.append(operation.site)

    machine.observer = keep
    call()
    machine.observer = None
    last = CrashPoint(machine)
    machine.cut_power()
    first = sites.index(case.since) if case.since else 0
    end = sites.index(case.until) + 1 if case.until else len(sites)
    # The end comes first: a content that is right there is right before it.
    every = [("the end", last), *zip(sites[first:end], moments[first:end], strict=True)]
    for site, moment in every:
        for state in moment.states(CLASSES, 0):
            wrong = _verdict(case, state, is_over=moment is last)
            if wrong:
                yield f"after {site}, {state.name}: {wrong}"


def _verdict(case: Case, state: CrashState, *, is_over: bool) -> str:
    if case.verdicts.get((state.content_hash, True)) == "":
        return ""
    known = case.verdicts.get((state.content_hash, is_over))
    if known is not None:
        return known
    try:
        case.judge.judge(state, is_over=is_over)
        wrong = ""
    except (AssertionError, pytest.fail.Exception, holdfast.Error, OSError):
        wrong = traceback.format_exc(limit=-3)
    case.verdicts[state.content_hash, is_over] = wrong
    return wrong


def booted(state: CrashState, life: int = 1) -> SimEnv:
    """A machine that booted from a state. All draw the same random numbers and show the same time,
    so that what becomes of them is the same more often.
    """
    machine = state.build(1000 + life)
    machine.wall_start = _WALL_START
    machine.wall_tick = 3600.0
    return machine


def bytes_of(machine: SimEnv, folder: str) -> Files:
    """The files of a folder; empty when it is absent."""
    found: Files = {}
    with suppress(FileNotFoundError):
        for name in machine.list_dir(folder):
            with suppress(IsADirectoryError):
                file = machine.open(f"{folder}/{name}")
                found[name] = file.read_at(0, file.size())
                file.close()
    return found


def content(database: Database) -> State:
    return {name: dict(database.keyspace(name).items()) for name in database.keyspaces()}


def check_opens(machine: SimEnv, folder: str, key: bytes | None, expected: State) -> None:
    """The database is whole, has this content, and can be written to."""
    report = check_folder(machine, folder, source=key_source(key))
    assert report.ok, report.errors
    with holdfast.open(folder, create=False, env=machine, key=key) as database:
        assert content(database) == expected
        database[b"probe"] = b"1"
    with holdfast.open(folder, create=False, env=machine, key=key) as database:
        assert database[b"probe"] == b"1"
    assert UNFINISHED not in machine.list_dir(folder)
