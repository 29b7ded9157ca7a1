"""Goal: what a scan walks over is bounded: after a compaction by what it gives, before it by what
was written.

Method: entries are counted, not time: those that the internal cursor of the current view holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import holdfast
from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database
from holdfast.lsm import ReadView

SMALL = DatabaseSettings(
    memory_bytes=32 << 20,
    keyspace=KeyspaceSettings(memtable_bytes=1 << 20, table_bytes=1 << 20),
)
ROWS = 20_000
LEFT = 10


def key_of(number: int) -> bytes:
    return b"%08d" % number


def settle(database: Database) -> None:
    database.flush()
    database._engine.upkeep.wait_idle()


def steps(database: Database) -> int:
    """Return how many entries a whole scan walks over."""
    view: ReadView = database.read_point()[0]
    cursor: Any = view.internal_cursor()
    count = 0
    there = cursor.seek_first()
    while there:
        count += 1
        there = cursor.next()
    return count


def test_a_queue_of_deleted_keys_is_walked_at_most_once_and_gone_when_compacted(
    tmp_path: Path,
) -> None:
    """The first live key stands behind many deleted ones. Deletes that level 0 still holds are
    walked; a compaction leaves none.
    """
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for number in range(ROWS):
            database.put(key_of(number), b"x" * 100, durability="none")
        settle(database)
        for number in range(ROWS - LEFT):
            database.delete(key_of(number), durability="none")
        settle(database)
        assert [key_of(number) for number in range(ROWS - LEFT, ROWS)] == list(database.keys())
        assert LEFT <= steps(database) <= 2 * ROWS
        database.compact()
        assert [key_of(ROWS - LEFT)] == list(database.keys(limit=1))
        assert LEFT == steps(database)


def test_many_versions_of_one_key_are_one_step_for_each_table(tmp_path: Path) -> None:
    """A flush keeps the newest version of its memtable, since no snapshot wants another."""
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for number in range(ROWS):
            database.put(b"k", b"%d" % number, durability="none")
        settle(database)
        assert [(b"k", b"%d" % (ROWS - 1))] == list(database.items())
        (keyspace,) = database.stats().keyspaces
        tables = sum(level.tables for level in keyspace.levels)
        assert 1 <= tables < 50
        assert tables == steps(database)
