"""What retention drops, and what else the strategy of a keyspace changes of the engine."""

from __future__ import annotations

import pytest

from holdfast.base import DatabaseClosedError, KeyspaceSettings, LimitError, marks_seen
from holdfast.engine import Database, open_database
from holdfast.engine._core import FORKED
from holdfast.env import SimEnv, Task
from holdfast.manifest import Version, VersionEdit
from tests.model.strategies import tiny


def key(second: int) -> bytes:
    return second.to_bytes(8, "big")


def settled(database: Database) -> None:
    database._engine.upkeep.wait_idle()


def tables(env: SimEnv) -> list[str]:
    return [name for name in env.list_dir("/db") if name.endswith(".table")]


def now(env: SimEnv) -> int:
    return int(env.wall_time())


def test_windows_beyond_the_retention_are_gone_with_their_files() -> None:
    env = SimEnv()
    today = now(env) // 100 * 100
    settings = tiny(
        compaction="time-window", window_seconds=100, key_time_unit="s", retention_seconds=450
    )
    database = open_database("/db", env=env, settings=settings)
    for window in range(10):
        for second in range(0, 100, 10):
            database[key(today - 1000 + window * 100 + second)] = bytes(100)
        database.flush()
        settled(database)
    expected = [key(second) for second in range(today - 500, today, 10)]
    assert list(database) == expected
    assert len(tables(env)) == sum(level.tables for level in database.stats().keyspaces[0].levels)
    assert database.stats().drops > 0
    assert database.stats().dropped_bytes > 0
    assert database.verify().errors == []
    database.close()
    with open_database("/db", env=env) as database:
        assert list(database) == expected


def test_a_snapshot_keeps_what_retention_would_drop() -> None:
    env = SimEnv()
    database = open_database(
        "/db", env=env, settings=tiny(compaction="fifo", retention_bytes=2_000)
    )
    database[b"old"] = b"1"
    database.flush()
    with database.snapshot() as snapshot:
        for number in range(40):
            database[b"new%02d" % number] = bytes(range(200))
            if number % 10 == 9:
                database.flush()
                settled(database)
        assert snapshot[b"old"] == b"1"
        assert list(snapshot) == [b"old"]
        assert database.stats().drops == 0
    database.compact(b"x", b"y")
    settled(database)
    assert database.get(b"old") is None
    assert database.stats().drops == 1
    assert database.stats().keyspaces[0].table_bytes <= 2_000
    database.close()


def test_a_snapshot_that_is_taken_while_retention_drops_rows_sees_none_of_them() -> None:
    """It begins when the drop is on its way to the disk, and waits for it."""
    env = SimEnv()
    database = open_database(
        "/db", env=env, settings=tiny(compaction="fifo", retention_bytes=2_000)
    )
    engine, found = database._engine, []
    real = engine.log_edit

    def read_twice() -> None:
        with database.snapshot() as snapshot:
            before = snapshot.get(b"old")
            env.sleep(1.0)
            found.append((before, snapshot.get(b"old")))

    def log_edit(edit: VersionEdit) -> Version:
        if edit.tables_removed and not edit.tables_added:
            readers.append(env.spawn("reader", read_twice))
            # Long enough to read once, if it had not to wait.
            env.sleep(0.1)
        return real(edit)

    readers: list[Task] = []
    engine.log_edit = log_edit  # type: ignore[method-assign]
    database[b"old"] = b"1"
    database.flush()
    for number in range(40):
        database[b"new%02d" % number] = bytes(range(200))
        if number % 10 == 9:
            database.flush()
            settled(database)
    for reader in readers:
        reader.join()
    assert found
    assert {before == after for before, after in found} == {True}
    assert database.stats().drops > 0
    assert "engine.snapshot_after_a_drop" in marks_seen()
    assert not engine.snapshots.is_dropping
    database.close()


def test_a_version_that_is_dropped_shows_no_older_one() -> None:
    """The same keys are written again and again: whatever is left, it is the newest."""
    env = SimEnv()
    with open_database(
        "/db", env=env, settings=tiny(compaction="fifo", retention_bytes=3_000)
    ) as database:
        for turn in range(30):
            for number in range(turn, turn + 8):
                database.put(b"%02d" % (number % 20), b"%05d" % turn * 20, durability="none")
            if turn % 3 == 0:
                del database[b"%02d" % (turn % 20)]
            database.flush()
            settled(database)
            newest = {}
            for earlier in range(turn + 1):
                for number in range(earlier, earlier + 8):
                    newest[b"%02d" % (number % 20)] = b"%05d" % earlier * 20
                if earlier % 3 == 0:
                    newest.pop(b"%02d" % (earlier % 20), None)
            for name, value in database.items():
                assert newest[name] == value


def test_the_strategy_of_a_keyspace_is_kept() -> None:
    env = SimEnv()
    with open_database("/db", env=env) as database:
        fifo = KeyspaceSettings(compaction="fifo", retention_seconds=60)
        cache = database.keyspace("cache", settings=fifo)
        cache[b"k"] = b"v"
        assert database.keyspace("cache", settings=fifo) is cache
        with pytest.raises(LimitError, match="compaction is 'fifo' since the keyspace was created"):
            database.keyspace("cache", settings=KeyspaceSettings())
        assert [k.compaction for k in database.stats().keyspaces] == ["fifo", "leveled"]
    with open_database("/db", env=env) as database:
        assert [k.compaction for k in database.stats().keyspaces] == ["fifo", "leveled"]
        assert database.keyspace("cache")[b"k"] == b"v"
    with pytest.raises(LimitError, match="compaction is 'leveled' since"):
        open_database("/db", env=env, settings=tiny(compaction="fifo"))


@pytest.mark.parametrize("name", ["leveled", "size-tiered", "time-window"])
def test_bytes_are_counted_by_keyspace_and_level(name: str) -> None:
    env = SimEnv()
    database = open_database("/db", env=env, settings=tiny(compaction=name))
    other = database.keyspace("other")
    for turn in range(12):
        for number in range(20):
            database.put(b"%03d" % (number * 7), bytes(200), durability="none")
            other.put(b"%03d" % (number + turn), bytes(100), durability="none")
        database.flush()
        settled(database)
    stats = database.stats()
    assert sum(keyspace.flushed_bytes for keyspace in stats.keyspaces) == stats.flushed_bytes
    compacted = sum(keyspace.compacted_bytes for keyspace in stats.keyspaces)
    assert compacted == stats.compacted_bytes_written > 0
    assert all(keyspace.flushed_bytes > 0 for keyspace in stats.keyspaces)
    database.close()


def test_operands_go_with_the_tables_that_hold_them() -> None:
    """What is left of a counter is what was added in the tables that are left, also for a reader
    that had merged more of it before.
    """
    env = SimEnv()
    database = open_database(
        "/db", env=env, settings=tiny(compaction="fifo", retention_bytes=6_000)
    )
    rounds = 30
    for number in range(rounds):
        for _ in range(20):
            database.add(b"total", durability="none")
        database.merge(b"rounds", "append", b"%02d " % number)
        assert int(database[b"total"]) % 20 == 0
        assert database[b"rounds"].endswith(b"%02d " % number)
        database[b"x%02d" % number] = bytes(range(256)) * 2
        database.flush()
        settled(database)
    left = database[b"rounds"].split()
    assert 1 < len(left) < rounds
    assert left == [b"%02d" % number for number in range(rounds - len(left), rounds)]
    assert database[b"total"] == b"%d" % (20 * len(left))
    assert dict(database.items(reverse=True))[b"total"] == b"%d" % (20 * len(left))
    assert database.stats().drops > 0
    database.close()
    with open_database("/db", env=env) as database:
        assert database[b"rounds"].split() == left


def test_counters_of_a_window_are_merged_with_it() -> None:
    env = SimEnv()
    today = now(env) // 100 * 100
    settings = tiny(
        compaction="time-window", window_seconds=100, key_time_unit="s", retention_seconds=450
    )
    database = open_database("/db", env=env, settings=settings)
    for window in range(10):
        for _ in range(3):
            for second in range(0, 100, 10):
                database.add(key(today - 1000 + window * 100 + second), window + 1)
            database.flush()
            settled(database)
    expected = [(key(second), (second - today + 1000) // 100 + 1) for second in
                range(today - 500, today, 10)]  # fmt: skip
    assert [(name, int(value)) for name, value in database.items()] == [
        (name, 3 * number) for name, number in expected
    ]
    assert database.stats().drops > 0
    database.close()


def test_a_child_that_was_forked_during_a_drop_does_not_wait_for_its_end() -> None:
    class Reader:
        pass

    with open_database("/db", env=SimEnv()) as database:
        engine, held, reader = database._engine, [], Reader()  # type: ignore[var-annotated]
        with engine.version_mutex, engine.snapshots.kept_out() as is_seen_by_nobody:
            assert is_seen_by_nobody
            engine.state.flags |= FORKED
            with pytest.raises(DatabaseClosedError, match="belongs to the parent process"):
                engine.snapshots.acquire(held, reader)  # type: ignore[arg-type]
            engine.state.flags &= ~FORKED
        assert held == [] == engine.snapshots.tenures()
