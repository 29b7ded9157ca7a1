"""Goal: the figures of `stats` are those of the machine.

Method: a history on a simulated machine whose every write is listed; the bytes of log records, of
flushes and of compactions must add up to the bytes that were written at their call sites.
"""

from __future__ import annotations

import random

from holdfast.engine import Database, LevelStats, Stats, open_database
from holdfast.engine.stats import KeyspaceStats
from holdfast.env import SimEnv
from tests.model.strategies import tiny


def opened(env: SimEnv) -> Database:
    return open_database("/db", env=env, settings=tiny())


def written(env: SimEnv, *sites: str, since: int = 0) -> int:
    """The bytes that were written at call sites that begin so."""
    return sum(
        int(op.detail[1])
        for op in env.op_log[since:]
        if op.kind == "write" and op.site.startswith(sites)
    )


def churn(database: Database, rng: random.Random, count: int = 300) -> int:
    """Write at random; return the bytes of the keys and values."""
    total = 0
    for _ in range(count):
        key, value = b"k%03d" % rng.randrange(100), rng.randbytes(rng.randrange(200))
        durability = rng.choice(["commit", "none", "none", "interval"])
        if rng.random() < 0.1:
            database.delete(key, durability=durability)
            value = b""
        else:
            database.put(key, value, durability=durability)
        total += len(key) + len(value)
    return total


def settled(database: Database) -> Stats:
    """The figures when no background work runs."""
    database._engine.upkeep.wait_idle()
    return database.stats()


def test_the_amplifications_are_those_of_the_machine(rng: random.Random) -> None:
    env = SimEnv()
    database = opened(env)
    since = env.op_count
    user_bytes = churn(database, rng)
    database.flush()
    database.compact()
    stats = settled(database)
    assert user_bytes == stats.user_bytes_written
    assert 300 == stats.writes
    # END records are of the log, too; headers and links of segments are not records.
    logged = written(env, "wal.record.write", "wal.end.write", since=since)
    assert logged <= stats.wal_bytes_written < logged + 8 * 1000
    tables = written(env, "table.write", since=since)
    assert tables == stats.flushed_bytes + stats.compacted_bytes_written
    assert stats.flushes > 1
    assert stats.compactions > 1
    expected = (stats.wal_bytes_written + tables) / user_bytes
    assert abs(stats.write_amplification - expected) < 1e-9
    # Since open, with the files that the open made.
    given = written(env, "wal.", "table.", "manifest.") + sum(
        int(op.detail[0]) for op in env.op_log if op.kind == "allocate"
    )
    counted = stats.wal_disk_bytes + stats.manifest_bytes_written + tables
    assert given == counted
    assert abs(stats.disk_write_amplification - given / user_bytes) < 1e-9
    assert stats.wal_preallocated_bytes == given - written(env, "wal.", "table.", "manifest.")
    assert stats.wal_disk_bytes > stats.wal_preallocated_bytes + stats.wal_bytes_written
    assert stats.space_amplification == 1.0, "after a compaction there is one level"
    database.close()


def test_sizes_are_those_of_the_files(rng: random.Random) -> None:
    env = SimEnv()
    database = opened(env)
    other = database.keyspace("other")
    churn(database, rng)
    other[b"a"] = b"x" * 500
    database.flush()
    stats = settled(database)
    names = env.list_dir("/db")
    sizes = sum(env.file_size(f"/db/{name}") for name in names if name.endswith(".table"))
    assert sizes == stats.table_bytes
    # One more may be ready for use.
    assert sum(name.endswith(".wal") for name in names) - stats.wal_segments in (0, 1)
    assert ["default", "other"] == [keyspace.name for keyspace in stats.keyspaces]
    default = stats.keyspaces[0]
    assert sizes == sum(keyspace.table_bytes for keyspace in stats.keyspaces)
    assert sum(level.tables for level in default.levels) > 1
    assert default.sorted_runs >= 1
    assert (1, 1) == (stats.keyspaces[1].entries_estimate, stats.keyspaces[1].levels[0].tables)
    database.close()


def test_memory_and_reads_are_counted() -> None:
    env = SimEnv()
    with opened(env) as database:
        assert 0.0 == database.stats().read_amplification
        assert 0.0 == database.stats().write_amplification
        for number in range(20):
            database.put(b"%d" % number, b"x" * 100, durability="none")
        stats = database.stats()
        assert stats.memtable_bytes > 2000
        assert (20, 20) == (stats.keyspaces[0].entries_estimate, stats.last_seq)
        assert 0 == stats.wal_bytes_written, "they wait in the buffer"
        database.flush()
        stats = database.stats()
        assert 0 == stats.keyspaces[0].frozen_memtables
        assert 20 == stats.keyspaces[0].entries_estimate
        for number in range(20):
            database.get(b"%d" % number)
        database.get_many([b"1", b"2", b"absent"])
        after = database.stats()
        assert 23 == after.reads
        assert after.read_amplification == after.pages_read / 23 > 0.0
        assert after.rows_scanned == 0
        assert 20 == len(list(database.items()))
        assert database.stats().rows_scanned == 20
        assert after.pool_hits + after.pool_misses > stats.pool_hits + stats.pool_misses
        assert after.pool_bytes <= after.pool_capacity_bytes
        assert after.background_error is None
        assert not after.poisoned


def test_an_entry_and_its_delete_cancel_in_the_estimate() -> None:
    with opened(SimEnv()) as database:
        database.put_many({b"%d" % number: b"" for number in range(10)})
        database.flush()
        for number in range(4):
            database.delete(b"%d" % number)
        database.flush()
        database._engine.upkeep.wait_idle()
        assert 6 == database.stats().keyspaces[0].entries_estimate == len(database)


def test_counters_start_at_open() -> None:
    env = SimEnv()
    with opened(env) as database:
        database[b"a"] = b"1"
        database.flush()
    with opened(env) as database:
        stats = settled(database)
        assert (0, 0, 0, 0) == (
            stats.user_bytes_written,
            stats.writes,
            stats.flushes,
            stats.wal_bytes_written,
        )
        assert (1, 1) == (stats.last_seq, stats.keyspaces[0].entries_estimate)


def test_levels_add_up() -> None:
    levels = tuple(
        LevelStats(level=number, tables=tables, bytes=tables * 10, entries=0, deletes=0)
        for number, tables in enumerate([3, 0, 2, 5, 0])
    )
    keyspace = KeyspaceStats(
        name="x", entries_estimate=0, memtable_bytes=0, frozen_memtables=0, levels=levels
    )
    assert 100 == keyspace.table_bytes
    assert 5 == keyspace.sorted_runs
