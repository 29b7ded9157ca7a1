"""Rare situations that the engine handles, each brought about in the smallest form."""

import errno

import pytest

from holdfast.base import (
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    KeyspaceSettings,
    marks_seen,
)
from holdfast.engine import open_database
from holdfast.env import FaultEnv, FaultRule, SimEnv

TINY = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=16 << 10,
    wal_bytes_max=32 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=4 << 10, page_bytes=512, table_bytes=4 << 10),
)


def seen(mark: str) -> int:
    return marks_seen().get(mark, 0)


def names(env: SimEnv, suffix: str) -> list[str]:
    return [name for name in env.list_dir("/db") if name.endswith(suffix)]


def test_a_failed_sync_poisons_and_reads_go_on() -> None:
    machine = SimEnv()
    env = FaultEnv(machine)
    database = open_database("/db", env=env)
    database[b"kept"] = b"1"
    before = seen("engine.poisoned")
    env.add(FaultRule(kind="sync", site="wal.record.sync"))
    with pytest.raises(DatabasePoisonedError):
        database[b"lost"] = b"2"
    assert before + 1 == seen("engine.poisoned")
    for write in (lambda: database.put(b"a", b"b", durability="none"), database.flush):
        with pytest.raises(DatabasePoisonedError):
            write()
    assert b"1" == database[b"kept"]
    assert b"lost" not in database
    assert database.stats().poisoned
    with pytest.raises(DatabasePoisonedError):
        database.close()
    with open_database("/db", env=machine) as database:
        assert b"1" == database[b"kept"]


def test_files_that_cannot_be_removed_are_left_to_the_next_open() -> None:
    machine = SimEnv()
    env = FaultEnv(machine, [FaultRule(kind="unlink", error=errno.EPERM, times=None)])
    segments, tables = seen("wal.unlink_failed"), seen("table.unlink_failed")
    with open_database("/db", env=env, settings=TINY) as database:
        for number in range(200):
            database[b"%04d" % (number % 10)] = b"v" * 500
        database.compact()
        expected = dict(database.items())
    assert segments < seen("wal.unlink_failed")
    assert tables < seen("table.unlink_failed")
    left = len(names(machine, ".wal")) + len(names(machine, ".table"))
    with open_database("/db", env=machine) as database:
        assert expected == dict(database.items())
        assert left > len(names(machine, ".wal")) + len(names(machine, ".table"))
        assert 1 == len(names(machine, ".wal"))


def test_a_quiet_keyspace_does_not_hold_the_log_for_ever() -> None:
    """Its memtable is far from full, but the oldest segment is needed for it alone."""
    before = seen("engine.wal_cap_freeze")
    with open_database("/db", env=SimEnv(), settings=TINY) as database:
        database.keyspace("quiet")[b"only"] = b"one"
        for number in range(300):
            database[b"%04d" % number] = b"v" * 500
        assert before < seen("engine.wal_cap_freeze")
        assert 4 * TINY.wal_bytes_max > database.stats().wal_bytes
        assert b"one" == database.keyspace("quiet")[b"only"]


def test_writers_that_wait_for_a_flush_without_room_are_told_and_go_on_later() -> None:
    stopped, full = seen("engine.write_stopped"), seen("engine.upkeep_disk_full")
    env = FaultEnv(SimEnv())
    with open_database("/db", env=env, settings=TINY) as database:
        env.add(FaultRule(kind="create", path="*.table", error=errno.ENOSPC, times=None))
        written = 0
        with pytest.raises(DiskFullError, match="room"):
            while written < 1000:
                database[b"%04d" % written] = b"v" * 500
                written += 1
        assert stopped < seen("engine.write_stopped")
        assert full < seen("engine.upkeep_disk_full")
        assert not database.stats().poisoned
        assert written == len(database)
        env.clear()
        database[b"%04d" % written] = b"v" * 500
        database.flush()
        assert written + 1 == len(database)
        assert database.verify().ok
