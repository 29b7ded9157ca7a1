"""Goal: what scans walk over is bounded: by what they give, and once by what was written since.

Method: entries are counted, not time: those that the internal cursor of the current view holds, and
those that a user's cursor passed without a row.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.base import PURE, DatabaseSettings, KeyspaceSettings
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


def passed(database: Database, **bounds: Any) -> int:
    """Return how many entries a look for one row passes."""
    cursor: Any = database.keys(**{"limit": 1, **bounds})
    list(cursor)
    count: int = cursor.entries_passed
    return count


@pytest.mark.parametrize("reverse", [False, True])
def test_a_queue_walks_over_each_deleted_item_once(tmp_path: Path, reverse: bool) -> None:
    """Put at one end, look and delete at the other; the looks together walk about what was put,
    though memtables, level 0 and compactions hold deletes at all times.
    """
    items, waiting, total = 5_000 if PURE else 100_000, 1_000, 0
    order = range(items - 1, -1, -1) if reverse else range(items)
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for place, number in enumerate(order):
            database.put(key_of(number), b"x" * 20, durability="none")
            if place < waiting:
                continue
            cursor: Any = database.keys(limit=1, reverse=reverse)
            (first,) = cursor
            total += cursor.entries_passed
            assert first == key_of(order[place - waiting])
            database.delete(first, durability="none")
        # Each deleted item is a DELETE and a PUT, and each look may pass 16 before it notes them.
        assert total <= 2 * items + 20 * items
        assert passed(database, reverse=reverse) <= 40
        database.flush()
        assert passed(database, reverse=reverse) <= 40
        settle(database)
        (keyspace,) = database.stats().keyspaces
        assert sum(level.entries for level in keyspace.levels) <= 5 * waiting


def test_what_was_put_and_deleted_in_one_memtable_leaves_no_table(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for number in range(5_000):
            database.put(key_of(number), b"x" * 20, durability="none")
            database.delete(key_of(number), durability="none")
        settle(database)
        stats = database.stats()
        assert (0, 0) == (stats.table_bytes, stats.flushed_bytes)
    with holdfast.open(tmp_path / "db") as database:
        assert [] == list(database.keys())


def test_everything_deleted_is_walked_once_and_then_gone(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for number in range(ROWS):
            database.put(key_of(number), b"x" * 100, durability="none")
        settle(database)
        for number in range(ROWS):
            database.delete(key_of(number), durability="none")
        assert passed(database) <= 2 * ROWS
        assert passed(database) <= 40
        assert passed(database, reverse=True) <= 40
        assert passed(database, start=key_of(ROWS // 2)) <= 40
        settle(database)
        assert 0 == steps(database)


def test_what_a_range_tombstone_covers_is_dropped_unread(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for number in range(ROWS):
            database.put(key_of(number), random.Random(number).randbytes(100), durability="none")
        settle(database)
        before = database.stats()
        assert before.table_bytes > ROWS * 100
        database.delete_range(key_of(0), key_of(ROWS - LEFT))
        settle(database)
        stats = database.stats()
        assert stats.dropped_bytes > before.table_bytes // 2
        read = stats.compacted_bytes_read - before.compacted_bytes_read
        assert read < before.table_bytes - stats.dropped_bytes + 4096
        assert [key_of(number) for number in range(ROWS - LEFT, ROWS)] == list(database.keys())


def test_a_snapshot_keeps_what_a_range_tombstone_covers(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for number in range(ROWS):
            database.put(key_of(number), b"x" * 100, durability="none")
        settle(database)
        with database.snapshot() as view:
            database.delete_range(key_of(0), key_of(ROWS))
            settle(database)
            assert 0 == database.stats().dropped_bytes
            assert ROWS == sum(1 for _ in view.keys())
            assert [] == list(database.keys())
        assert [] == list(database.keys())


def test_a_snapshot_sees_what_was_deleted_since(tmp_path: Path) -> None:
    """A gap that later scans note is not one for an older snapshot."""
    with holdfast.open(tmp_path / "db", settings=SMALL) as database:
        for number in range(100):
            database.put(key_of(number), b"x", durability="none")
        with database.snapshot() as view:
            for number in range(100):
                database.delete(key_of(number), durability="none")
            assert [] == list(database.keys())
            assert 100 == sum(1 for _ in view.keys())
            database.put(key_of(50), b"new", durability="none")
            assert [key_of(50)] == list(database.keys())
            assert 100 == sum(1 for _ in view.keys(reverse=True))


@pytest.mark.skipif(PURE, reason="the plain twin walks over versions; the compiled one seeks")
def test_many_versions_of_one_key_are_not_walked(tmp_path: Path) -> None:
    """While they are in the memtable, too."""
    with holdfast.open(tmp_path / "db") as database:
        database.put(b"j", b"", durability="none")
        for number in range(ROWS):
            database.put(b"k", b"%d" % number, durability="none")
        for reverse in (False, True):
            cursor: Any = database.keys(reverse=reverse)
            assert [b"j", b"k"] == sorted(cursor)
            assert cursor.entries_passed <= 40
