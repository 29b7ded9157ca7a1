"""Goal: `why_slow` names each cause when it is there, with the counters behind it, and no other
one.

Method: a simulated machine on which flushes or compactions do not run, or run only once writers
stop; its clock says for how long they waited.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast.base import DatabaseSettings, KeyspaceSettings, marks_seen
from holdfast.base.kernel import PURE
from holdfast.engine import Database, SlowCause, SlowReport, open_database
from holdfast.engine.history import WINDOW_SECONDS, History, Totals
from holdfast.engine.slow import explain
from holdfast.engine.stats import WAITS
from holdfast.env import SimEnv

KIB, MIB = 1024, 1024 * 1024


def opened(env: SimEnv | None = None, *, keyspace: Any = None, **settings: Any) -> Database:
    return open_database(
        "/db",
        env=SimEnv() if env is None else env,
        settings=DatabaseSettings(
            keyspace=KeyspaceSettings() if keyspace is None else keyspace, **settings
        ),
    )


def cause_of(report: SlowReport, name: str) -> SlowCause:
    (found,) = [cause for cause in report.causes if cause.name == name]
    return found


def waits_of(report: SlowReport) -> set[str]:
    return {cause.name for cause in report.causes if cause.name in WAITS} - {"sync"}


def freeze(database: Database) -> None:
    engine = database._engine
    engine.write_path.exclusive(lambda: engine.freeze(engine.trees[0]))


def without_flushes(database: Database) -> None:
    """Let flushes run only while a writer waits for them."""
    engine: Any = database._engine
    schedule, wait = engine.schedule_flush, engine._wait_for_room
    waiting = []

    def wait_for_room() -> None:
        waiting.append(True)
        wait()
        waiting.clear()

    engine._wait_for_room = wait_for_room
    engine.schedule_flush = lambda keyspace: waiting and schedule(keyspace)


def test_memtables_that_are_not_flushed() -> None:
    with opened() as database:
        without_flushes(database)
        for number in range(4):
            database[b"%d" % number] = b""
            freeze(database)
        for number in range(20):
            database[b"x%d" % number] = bytes(100_000)
        report = database.why_slow()
        cause = cause_of(report, "memtables")
        assert waits_of(report) == {"memtables"}
        # 60 ms for each MiB: pressure is three quarters.
        assert cause.seconds == pytest.approx(0.06 * 1.9e6 / MIB, rel=0.1)
        assert cause.recent_seconds == cause.seconds
        assert cause.setting == "background_bytes_per_second"
        stats = database.stats()
        assert stats.stall_seconds == pytest.approx(cause.seconds)
        (stall,) = [latency for latency in stats.latencies if latency.name == "stall"]
        assert (stall.count, stall.seconds) == (cause.recent_count, pytest.approx(cause.seconds))


def test_too_many_tables_in_level_0() -> None:
    settings = KeyspaceSettings(level0_tables=1)
    with opened(keyspace=settings) as database:
        database._engine.schedule_compaction = lambda: None  # type: ignore[method-assign]
        for number in range(4):
            database[b"%d" % number] = b""
            database.flush()
        for number in range(20):
            database[b"x%d" % number] = bytes(100_000)
        report = database.why_slow()
        assert waits_of(report) == {"level0"}
        assert cause_of(report, "level0").seconds > 0.05
        assert "4 tables" not in str(report)
        assert "level0: level 0 has too many tables" in str(report)


def test_levels_above_their_targets() -> None:
    settings = KeyspaceSettings(level0_tables=1, level1_bytes=4 * KIB, compression="none")
    with opened(keyspace=settings) as database:
        database._engine.schedule_compaction = lambda: None  # type: ignore[method-assign]
        for number in range(2):
            database.put(b"%d" % number, bytes(180_000), durability="none")
            database.flush()
        for number in range(20):
            database[b"x%d" % number] = bytes(100_000)
        report = database.why_slow()
        assert waits_of(report) == {"debt"}
        assert cause_of(report, "debt").setting == "level1_bytes"


def test_a_log_that_is_too_long() -> None:
    with opened(wal_bytes_max=8 * KIB, wal_segment_bytes=4 * KIB) as database:
        without_flushes(database)
        for number in range(200):
            database[b"%d" % number] = bytes(1000)
        report = database.why_slow()
        assert "log" in waits_of(report) <= {"log", "memtables", "segment"}
        assert cause_of(report, "log").recent_count > 0
        assert cause_of(report, "log").setting == "wal_bytes_max"


def test_memtables_that_are_most_of_the_memory() -> None:
    with opened(memory_bytes=64 * KIB, wal_bytes_max=MIB) as database:
        without_flushes(database)
        for number in range(60):
            database[b"%d" % number] = bytes(4000)
        report = database.why_slow()
        assert "memory" in waits_of(report) <= {"memory", "memtables", "segment"}
        assert cause_of(report, "memory").recent_count > 0


def test_a_segment_that_is_not_ready() -> None:
    with opened(wal_segment_bytes=4 * KIB) as database:
        database._engine._prepare_segment = lambda: None  # type: ignore[method-assign]
        for number in range(20):
            database[b"%d" % number] = bytes(1000)
        report = database.why_slow()
        assert waits_of(report) == {"segment"}
        cause = cause_of(report, "segment")
        assert cause.recent_count >= 4
        assert cause.seconds is not None
        assert cause.seconds > 0.0


def test_syncs_of_the_device() -> None:
    with opened() as database:
        assert not database.why_slow().causes
        assert "nobody waited" in str(database.why_slow())
        for number in range(10):
            database[b"%d" % number] = b""
        database.put(b"x", b"", durability="none")
        cause = cause_of(database.why_slow(), "sync")
        stats = {latency.name: latency for latency in database.stats().latencies}
        assert 10 == cause.recent_count == stats["sync"].count == stats["commit"].count
        assert stats["sync"].seconds == cause.seconds
        assert stats["commit"].seconds >= stats["sync"].seconds > 0.0


def test_a_pool_that_is_too_small(rng: random.Random) -> None:
    settings = KeyspaceSettings(compression="none", compression_last="none")
    with opened(memory_bytes=64 * KIB, keyspace=settings) as database:
        for number in range(500):
            database.put(b"%04d" % number, rng.randbytes(1000), durability="none")
        database.flush()
        for _ in range(300):
            database.get(b"%04d" % rng.randrange(500))
        database._engine.upkeep.wait_idle()
        cause = cause_of(database.why_slow(), "pool")
        stats = database.stats()
        assert cause.recent_count == stats.pages_read > 100
        assert cause.setting == "memory_bytes"
        assert stats.page_bytes_read > 16_000 * stats.pages_read / 2
        assert stats.read_amplification == stats.pages_read / 300
        assert stats.read_bytes_amplification == stats.page_bytes_read / 300
        levels = stats.keyspaces[0].levels
        assert stats.pages_read == sum(level.pages_read for level in levels)
        assert stats.page_bytes_read == sum(level.page_bytes_read for level in levels)


def test_scans_past_deleted_keys() -> None:
    with opened() as database:
        database.put_many((b"%04d" % number, b"") for number in range(500))
        assert 100 == len(list(database.keys(limit=100)))
        assert all(cause.name != "tombstones" for cause in database.why_slow().causes)
        for number in range(490):
            database.delete(b"%04d" % number, durability="none")
        assert 10 == len(list(database.items()))
        cause = cause_of(database.why_slow(), "tombstones")
        stats = database.stats()
        assert (110, 490) == (stats.rows_scanned, stats.deleted_scanned)
        assert cause.recent_count == 490
        assert cause.recent_seconds is None
        assert "4.5 deleted keys for each row" in cause.figure


def test_what_was_long_ago_is_not_recent() -> None:
    env = SimEnv()
    with opened(env) as database:
        for number in range(10):
            database[b"%d" % number] = b""
            env.sleep(1.0)
        assert 10 == cause_of(database.why_slow(), "sync").recent_count
        env.sleep(WINDOW_SECONDS - 5.5)
        assert 5 <= cause_of(database.why_slow(), "sync").recent_count <= 6
        env.sleep(10.0)
        report = database.why_slow()
        cause = cause_of(report, "sync")
        assert (0, 0.0) == (cause.recent_count, cause.recent_seconds)
        assert cause.seconds is not None
        assert cause.seconds > 0.0
        assert report.window_seconds == WINDOW_SECONDS < report.seconds_open
        assert 0.0 == database.stats().recent.writes


def test_the_worst_comes_first() -> None:
    ever = Totals(at=100.0, waits={"sync": (9, 5.0), "log": (2, 9.0), "segment": (1, 1.0)})
    recent = Totals(at=60.0, waits={"sync": (3, 2.0), "log": (0, 0.0), "segment": (0, 0.0)})
    report = explain(recent, ever)
    assert ["sync", "log", "segment"] == [cause.name for cause in report.causes]
    assert "3 times, 2.000 s; since open 9 times, 5.000 s" in str(report)


def test_rates_are_those_of_the_last_minute() -> None:
    history = History(Totals(at=0.0))
    for second in range(1, 301):
        history.note(Totals(at=float(second), writes=10 * second, pages_read=second))
    recent = history.since(Totals(at=300.5, writes=3000, pages_read=300))
    assert (60.0, 600, 60) == (recent.at, recent.writes, recent.pages_read)
    early = History(Totals(at=5.0)).since(Totals(at=7.0, writes=4))
    assert (2.0, 4) == (early.at, early.writes)


def test_what_cannot_be_counted_for_want_of_memory_is_committed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = opened()
    try:

        class Failing:
            def record(self, seconds: float) -> None:
                raise MemoryError

        engine = database._engine
        monkeypatch.setattr(engine.latencies, "sync", Failing())
        monkeypatch.setattr(engine.latencies, "commit", Failing())
        database[b"a"] = b"1"
        database[b"b"] = b"0"
        assert PURE or "engine.commit_alone_not_counted" in marks_seen()
        database.put_many({b"c": b"3"})
        assert "engine.sync_not_counted" in marks_seen()
        assert "engine.commit_not_counted" in marks_seen()
        monkeypatch.undo()
        assert b"1" == database[b"a"]
        database[b"b"] = b"2"
    finally:
        monkeypatch.undo()
        database.close()


def test_gets_are_sampled() -> None:
    with opened() as database:
        database[b"a"] = b"1"
        for _ in range(2500):
            assert b"1" == database.get(b"a")
        stats = {latency.name: latency for latency in database.stats().latencies}
        assert 2 == stats["get"].count
