"""Goal: the memory of a memtable that was flushed serves the next one, and is counted.

Method: write several memtables into a real database, and look at what is kept, what is charged to
the budget, and what is left when nothing waits to be flushed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import holdfast
from holdfast.base import PURE
from holdfast.engine import Database

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


def write_two_memtables(database: Database) -> None:
    """Fill a memtable, wait for its flush, and leave a beginning of the next one."""
    for number in range(10_000):
        database.put(b"%08d" % (number * 7919 % 10_000), bytes(1000), durability="none")
    database._engine.upkeep.wait_idle()


def test_memory_is_kept_for_the_next_memtable_and_charged(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        engine = database._engine
        write_two_memtables(database)
        engine.reserve_memtables()
        kept = engine.spare.bytes_held
        assert 2 * MIB <= kept <= 8 * MIB
        held = sum(tree.memtable_bytes for tree in engine.trees.values())
        assert held > 0
        assert engine.pool.reserved_bytes == held + kept

        # The next chunk of the active memtable is one of them.
        for number in range(3_000):
            database.put(b"%08d" % number, bytes(1000), durability="none")
        assert engine.spare.bytes_held < kept


def test_nothing_is_kept_when_nothing_waits_to_be_flushed(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        write_two_memtables(database)
        assert database._engine.spare.bytes_held > 0
        database.flush()
        assert database._engine.spare.bytes_held == 0
        assert database._engine.pool.reserved_bytes == 0
        assert database[b"00000000"] == bytes(1000)


def test_at_most_an_eighth_of_the_budget_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path, memory_bytes=36 * MIB) as database:
        write_two_memtables(database)
        assert 0 < database._engine.spare.bytes_held <= 4 * MIB


def test_a_closed_database_keeps_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path)
    write_two_memtables(database)
    cursor = database.items()
    first = next(iter(cursor))
    assert database._engine.spare.bytes_held > 0
    database.close()
    assert first == (b"00000000", bytes(1000))
    del cursor
    assert database._engine.spare.bytes_held == 0
