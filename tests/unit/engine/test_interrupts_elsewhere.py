"""Goal: an interrupted flush, compaction, scan, close or change of keyspaces harms nothing.

Method: as in test_interrupts, at every point of a call in turn. Afterwards the database works on or
says that it is poisoned, what was acknowledged is there, and another open finds it too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import pytest

from holdfast.base import PURE, DatabaseClosedError, DatabasePoisonedError
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, SimEnv
from tests.model.strategies import tiny
from tests.unit.engine.test_interrupts import Interruptor
from tests.unit.txn.test_interrupts import OutsideOfFinalizers

ROOMS = (
    "base",
    "engine",
    "wal",
    "manifest",
    "compaction",
    "lsm",
    "sstable",
    "cursor",
    "bufferpool",
)
SETTINGS = tiny(wal_segment_bytes=4 << 10, memtable_bytes=1 << 20)
ROUNDS, KEYS = 3, 8
DROPPED = "dropped"
STRIDES = {"ingest": 3, "flush": 2, "compact": 3, "close": 11}
"""How many points lie between two that are tried, but for the deep run; else 1."""

pytestmark = [
    pytest.mark.skipif(PURE, reason="a kernel's step is one step only when it is compiled"),
    # Whoever is interrupted before it has a snapshot cannot close it.
    pytest.mark.filterwarnings("ignore:a snapshot of:ResourceWarning"),
]

Result = TypeVar("Result")


class InterruptibleEnv(SimEnv):
    """A simulated machine whose main task is interrupted as on the real one: before or after what
    runs uninterrupted, not within.
    """

    interruptor: Interruptor | None = None

    def uninterrupted(self, function: Callable[[], Result]) -> Result:
        profile = sys.getprofile()
        if profile is None or profile is not self.interruptor:
            return function()
        self.interruptor.strike()
        sys.setprofile(None)
        try:
            result = function()
        finally:
            sys.setprofile(profile)
        self.interruptor.strike()
        return result


def scan(database: Database) -> None:
    rows(database.items())


def scan_reverse(database: Database) -> None:
    rows(database.items(reverse=True))


def read_snapshot(database: Database) -> None:
    with database.snapshot() as snapshot:
        rows(snapshot.items())


def rows(found: Iterator[tuple[bytes, bytes]]) -> None:
    number = 0
    for _ in found:
        number += 1
    assert number >= KEYS


def ingest(database: Database) -> None:
    """Ingest what is there: whether it happened shows in nothing."""
    rows = [(b"key %d" % key, b"%d " % (ROUNDS - 1) * 20) for key in range(KEYS)]
    assert database.ingest(rows) == KEYS


def merge(database: Database) -> None:
    """Append nothing: whether it happened shows in nothing. The manifest is marked first."""
    database.merge(b"key 0", "append", b"")
    assert database[b"key 0"]
    rows(database.items())


CALLS: dict[str, Callable[[Database], object]] = {
    "ingest": ingest,
    "merge": merge,
    "flush": lambda database: database.flush(),
    "compact": lambda database: database.compact(),
    "create": lambda database: database.keyspace("created"),
    "drop": lambda database: database.drop_keyspace(DROPPED),
    "close": lambda database: database.close(),
    "scan": scan,
    "reverse": scan_reverse,
    "snapshot": read_snapshot,
}


def fill(database: Database) -> dict[bytes, bytes]:
    """Make some tables, and something in memory; return what there is."""
    model: dict[bytes, bytes] = {}
    other = database.keyspace(DROPPED)
    for number in range(ROUNDS):
        for key in range(KEYS):
            model[b"key %d" % key] = b"%d " % number * 20
            database[b"key %d" % key] = model[b"key %d" % key]
        other[b"key"] = b"%d" % number
        if number < ROUNDS - 1:
            database.flush()
    return model


def check(database: Database, model: dict[bytes, bytes]) -> None:
    assert model == dict(database.items())
    if DROPPED in database.keyspaces():
        # Whole or gone.
        assert {b"key": b"%d" % (ROUNDS - 1)} == dict(database.keyspace(DROPPED).items())
    if "created" in database.keyspaces():
        assert not dict(database.keyspace("created").items())


def use(database: Database, model: dict[bytes, bytes]) -> None:
    """Do all there is to do once more."""
    engine = database._engine
    engine.upkeep.wait_idle()
    assert not engine.busy_tables, "tables stay busy: compactions wait for ever"
    assert not engine.compacting
    assert not engine.snapshots.live(), "a snapshot is left that nobody can close"
    database[b"again"] = model[b"again"] = b"1"
    database.keyspace("created")
    if DROPPED in database.keyspaces():
        database.drop_keyspace(DROPPED)
    database.flush()
    database.compact()
    check(database, model)
    assert database.verify().ok


def interrupted(name: str, at: int) -> tuple[bool, bool]:
    """Interrupt one call at a point; return (was there one, poisoned)."""
    env = InterruptibleEnv(1)
    database = open_database("/db", env=env, settings=SETTINGS)
    model = fill(database)
    handle = database.keyspace(DROPPED)
    env.interruptor = interruptor = OutsideOfFinalizers(at, ROOMS)
    interruptor.run(lambda: CALLS[name](database))
    poisoned = False
    try:
        poisoned = database.stats().poisoned
        check(database, model)
        if DROPPED not in database.keyspaces():
            with pytest.raises(DatabaseClosedError):
                handle.get(b"key")
        if not poisoned:
            use(database, model)
    except DatabaseClosedError:
        assert name == "close"
    durable = CrashPoint(env).state("none").build()
    # Also a second time, and after it was interrupted.
    for _ in range(2):
        with suppress(DatabasePoisonedError):
            database.close()
    for machine in (durable, env):
        with open_database("/db", env=machine) as database:
            check(database, model)
            assert database.verify().ok
    return interruptor.struck, poisoned


def every_point(name: str, stride: int) -> tuple[int, int]:
    points = poisonings = at = 0
    struck = True
    while struck:
        struck, poisoned = interrupted(name, at)
        points += struck
        poisonings += poisoned
        at += stride
    print(f"{name}: {poisonings} of {points} points poison")
    return points, poisonings


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupted_call_harms_nothing(name: str) -> None:
    points, poisonings = every_point(name, STRIDES.get(name, 1))
    # A compiled scan has a frame of the interpreter at its beginning only.
    assert points >= (2 if name in {"scan", "reverse"} else 5)
    # A handler never strikes where the disk and memory could disagree.
    assert poisonings == 0


@pytest.mark.deep
@pytest.mark.parametrize("name", STRIDES)
def test_an_interrupted_call_harms_nothing_at_any_point(name: str) -> None:
    points, poisonings = every_point(name, 1)
    assert points > 50
    assert poisonings == 0
