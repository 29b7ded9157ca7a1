"""Goal: the memory of a memtable that was flushed serves the next one, and is counted.

Method: write several memtables into a real database, and look at what is kept, what is charged to
the budget, and what is left when nothing waits to be flushed.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.base import PURE, marks_seen
from holdfast.engine import Database, Keyspace, compact
from holdfast.engine import engine as engine_room
from holdfast.engine.memory import (
    AHEAD_BYTES,
    COMPACTION_BYTES,
    FLUSH_BYTES,
    HOLES_BYTES,
    EngineMemory,
)
from holdfast.lsm import Tree

MIB = 1 << 20

pytestmark = [
    pytest.mark.skipif(PURE, reason="the plain memtable leaves its memory to the interpreter"),
    pytest.mark.skipif(sys.platform != "linux", reason="chunks are mapped on Linux only"),
]


def opened(folder: Path, *, memory_bytes: int = 128 * MIB) -> Database:
    return holdfast.open(
        folder / "db",
        settings=holdfast.DatabaseSettings(
            memory_bytes=memory_bytes, keyspace=holdfast.KeyspaceSettings(memtable_bytes=8 * MIB)
        ),
    )


def tree_of(database: Database) -> Tree:
    """The tree of the only keyspace."""
    (tree,) = database._engine.trees.values()
    return tree


def write_two_memtables(database: Database) -> None:
    """Fill a memtable, wait for its flush, and leave a beginning of the next one."""
    for number in range(10_000):
        database.put(b"%08d" % (number * 7919 % 10_000), bytes(1000), durability="none")
    database._engine.upkeep.wait_idle()


def test_memory_is_kept_for_the_next_memtable_and_charged(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        engine = database._engine
        write_two_memtables(database)
        engine.upkeep.wait_idle()
        engine.memory.charge()
        kept = engine.memory.spare.bytes_held
        assert 2 * MIB <= kept <= 8 * MIB
        held = sum(tree.memtable_bytes for tree in engine.trees.values())
        assert held > 0
        assert engine.pool.reserved_bytes == held + kept

        # The next chunk of the active memtable is one of them.
        for number in range(3_000):
            database.put(b"%08d" % number, bytes(1000), durability="none")
        assert engine.memory.spare.bytes_held < kept


def fill(keyspace: Keyspace, mib: int) -> None:
    for number in range(mib << 10):
        keyspace.put(b"%08d" % (number * 7919 % 10_000), bytes(900), durability="none")


def test_memory_is_made_ready_ahead_of_a_memtable_that_fills(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        engine = database._engine
        memory = engine.memory
        for number in range(512):
            database.put(b"%08d" % number, bytes(900), durability="none")
        engine.upkeep.wait_idle()
        # It may stay as small as this.
        assert memory.spare.bytes_held == 0
        fill(database, 2)
        engine.upkeep.wait_idle()
        ready = memory.spare.bytes_held
        assert 4 * MIB <= ready <= 6 * MIB
        assert not memory.is_short
        memory.spare.keep(0)
        memory.spare.keep(8 * MIB)
        assert memory.is_short
        memory.prepare()
        assert memory.spare.bytes_held == ready
        held = sum(tree.memtable_bytes for tree in engine.trees.values())
        assert engine.pool.reserved_bytes == held + ready
        # What the memtable takes is not made again, as then it is full.
        fill(database, 4)
        engine.upkeep.wait_idle()
        assert not engine.trees[0].frozen
        assert memory.spare.bytes_held < ready


def test_memory_ahead_of_several_memtables_has_one_limit(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        engine = database._engine
        for name in ("a", "b", "c"):
            fill(database.keyspace(name), 2)
        engine.upkeep.wait_idle()
        assert AHEAD_BYTES // 2 < engine.memory.spare.bytes_held <= AHEAD_BYTES
    with opened(tmp_path, memory_bytes=40 * MIB) as database:
        fill(database, 2)
        database._engine.upkeep.wait_idle()
        assert 2 * MIB <= database._engine.memory.spare.bytes_held <= 5 * MIB


def test_want_of_memory_ahead_is_nobodys_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as database:
        engine = database._engine

        def charge() -> None:
            raise MemoryError

        fill(database, 2)
        engine.upkeep.wait_idle()
        engine.memory.spare.keep(0)
        engine.memory.spare.keep(8 * MIB)
        assert engine.memory.is_short
        with monkeypatch.context() as patch:
            patch.setattr(engine.memory, "charge", charge)
            engine.upkeep.submit("memory", 0, engine.memory.prepare)
            engine.upkeep.wait_idle()
        assert engine.background_error is None
        fill(database, 8)
        database.flush()
        # The flush counts after it is installed.
        engine.upkeep.wait_idle()
        assert engine.pool.reserved_bytes == 0


def test_nothing_is_kept_when_nothing_waits_to_be_flushed(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        write_two_memtables(database)
        assert database._engine.memory.spare.bytes_held > 0
        database.flush()
        assert database._engine.memory.spare.bytes_held == 0
        assert database._engine.pool.reserved_bytes == 0
        assert database[b"00000000"] == bytes(1000)


def test_at_most_an_eighth_of_the_budget_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path, memory_bytes=36 * MIB) as database:
        write_two_memtables(database)
        assert 0 < database._engine.memory.spare.bytes_held <= 4 * MIB


def test_a_closed_database_keeps_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path)
    write_two_memtables(database)
    cursor = database.items()
    first = next(iter(cursor))
    assert database._engine.memory.spare.bytes_held > 0
    database.close()
    assert first == (b"00000000", bytes(1000))
    del cursor
    assert database._engine.memory.spare.bytes_held == 0


@pytest.mark.parametrize("memory_bytes", [128 * MIB, 4096 * MIB])
def test_what_jobs_work_with_is_charged_while_they_are_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int
) -> None:
    with opened(tmp_path, memory_bytes=memory_bytes) as database:
        engine = database._engine
        database[b"k"] = bytes(100)
        engine.upkeep.wait_idle()
        engine.memory.charge()
        before = engine.pool.reserved_bytes
        engine.busy_tables.add(1)
        engine.memory.charge()
        compaction = min(COMPACTION_BYTES, memory_bytes // 8)
        assert engine.pool.reserved_bytes == before + compaction
        engine.busy_tables.discard(1)
        seen = []
        charge = engine.memory.charge

        def charged() -> None:
            charge()
            seen.append((engine.pool.reserved_bytes, bool(engine.busy_tables)))

        engine.memory.charge = charged  # type: ignore[method-assign]
        goes_on = threading.Event()
        during(monkeypatch, engine_room, "flush_frozen", goes_on.wait)
        database[b"k"] = bytes(100)
        engine.write_path.exclusive(lambda: engine.freeze(tree_of(database)))
        charged()
        kept = tree_of(database).memtable_bytes + engine.memory.spare.bytes_held
        goes_on.set()
        assert seen == [(kept + min(FLUSH_BYTES, memory_bytes // 32), False)]
        database.flush()
        seen.clear()
        database.compact()
        assert (compaction, True) in seen
        assert seen[-1] == (0, False)


def outlives_a_flush(database: Database) -> bool:
    """Write a memtable and flush it; return whether the view that has it is still there."""
    database[b"later"] = b"1"
    view = weakref.ref(tree_of(database).view)
    database.flush()
    database._engine.upkeep.wait_idle()
    assert database[b"later"] == b"1"
    gc.collect()
    return view() is not None


def during(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, work: Callable[[], Any]) -> None:
    """Do `work` before each call of `name` in a module."""
    real = getattr(place, name)

    def call(*arguments: Any, **named: Any) -> Any:
        work()
        return real(*arguments, **named)

    monkeypatch.setattr(place, name, call)


@pytest.mark.parametrize("job", ["compact", "verify", "backup"])
def test_a_job_that_takes_long_keeps_no_memtable_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """A flush behind its back gives the memory back at once, whatever the job reads for hours."""
    with opened(tmp_path) as database:
        for number in range(2):
            database[b"%d" % number] = b"0"
            database.flush()
        database[b"in memory"] = b"0"
        outlived: list[bool] = []

        def work(*_: object) -> None:
            if not outlived:
                outlived.append(outlives_a_flush(database))

        if job == "compact":
            during(monkeypatch, compact, "run_compaction", work)
            database.compact()
        elif job == "verify":
            during(monkeypatch, engine_room, "check_tables", work)
            assert database.verify().ok
        else:
            database.backup(tmp_path / "copy", progress=work)
        assert outlived == [False]


def test_pages_that_made_room_leave_no_holes(tmp_path: Path) -> None:
    """Their memory lies between that of pages that stay."""
    with opened(tmp_path, memory_bytes=64 * MIB) as database:
        for number in range(5_000):
            database[b"%06d" % number] = random.Random(number).randbytes(16_000)
        database.flush()
        engine = database._engine
        engine.upkeep.wait_idle()
        engine.memory.give_back()
        before = marks_seen()["engine.memory_given_back"]
        for number in range(5_000):
            database.get(b"%06d" % number)
        assert engine.pool.used_bytes + engine.pool.reserved_bytes > 60 * MIB
        assert not engine.memory.has_holes
        for number in range(512):
            database.put(b"%08d" % number, bytes(900), durability="none")
        # Too little, and nothing is made ready yet.
        assert not engine.memory.has_holes
        assert marks_seen()["engine.memory_given_back"] == before
        fill(database, 14)
        engine.upkeep.wait_idle()
        assert marks_seen()["engine.memory_given_back"] > before
        assert not engine.memory.has_holes


def test_a_pool_with_room_makes_no_holes(tmp_path: Path) -> None:
    with opened(tmp_path, memory_bytes=64 * MIB) as database:
        # How much is charged at once depends on when flushes end.
        for _ in range(100):
            fill(database, 3)
            database._engine.memory.charge()
            if database._engine.pool.reserved_bytes > HOLES_BYTES:
                break
            assert not database._engine.memory.has_holes
        assert database._engine.pool.reserved_bytes > HOLES_BYTES
        assert not database._engine.memory.has_holes


def test_a_compaction_gives_the_holes_back_that_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, memory_bytes=256 * MIB) as database:
        for number in range(2):
            database[b"%d" % number] = b"0"
            database.flush()
        monkeypatch.setattr(EngineMemory, "has_holes", True)
        assert "engine.memory_given_back" not in marks_seen()
        database.compact()
        assert "engine.memory_given_back" in marks_seen()
