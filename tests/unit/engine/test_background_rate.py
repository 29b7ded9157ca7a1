"""Goal: `background_bytes_per_second` spreads flushes and compactions over time, and neither
writers nor who waits for a flush or the end wait because of it.

Method: a simulated machine, whose clock only moves when somebody waits.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database, open_database
from holdfast.env import SimEnv

MIB = 1 << 20
RATE = 256 * 1024
KEYSPACE = KeyspaceSettings(
    memtable_bytes=MIB, compression="none", compression_last="none", level0_tables=2
)


def opened(env: SimEnv, rate: int = RATE) -> Database:
    settings = DatabaseSettings(background_bytes_per_second=rate, keyspace=KEYSPACE)
    return open_database("/db", env=env, settings=settings)


def fill(database: Database, rng: random.Random, count: int) -> None:
    for _ in range(count):
        database.put(rng.randbytes(8), rng.randbytes(1000), durability="none")


def freeze(database: Database) -> None:
    engine = database._engine
    engine.write_path.exclusive(lambda: engine.freeze(engine.trees[0]))


def test_a_flush_in_the_background_takes_its_time(rng: random.Random) -> None:
    env = SimEnv()
    with opened(env) as database:
        fill(database, rng, 900)
        freeze(database)
        began = env.monotonic()
        database._engine.upkeep.wait_idle()
        stats = database.stats()
        assert stats.flushes == 1
        assert stats.flushed_bytes > 900_000
        # A flush gives its last piece away before it waits for it.
        assert 2.5 < env.monotonic() - began < 5.0
        assert 2.5 < stats.throttled_seconds < 5.0
        assert stats.stall_seconds == 0.0


def test_without_a_limit_nothing_waits(rng: random.Random) -> None:
    env = SimEnv()
    with opened(env, rate=0) as database:
        fill(database, rng, 1000)
        freeze(database)
        began = env.monotonic()
        database._engine.upkeep.wait_idle()
        assert env.monotonic() - began < 0.1
        assert database.stats().throttled_seconds == 0.0


def test_who_waits_for_a_flush_or_the_end_does_not_wait_for_the_rate(rng: random.Random) -> None:
    env = SimEnv()
    database = opened(env, rate=1024)
    fill(database, rng, 500)
    began = env.monotonic()
    database.flush()
    assert env.monotonic() - began < 0.5
    fill(database, rng, 500)
    freeze(database)
    began = env.monotonic()
    database.close()
    assert env.monotonic() - began < 0.5


def test_writers_are_never_slowed_by_the_rate(rng: random.Random) -> None:
    """A rate far below the load: flushes and compactions become urgent and leave it behind."""
    env = SimEnv()
    with opened(env, rate=1024) as database:
        longest = 0.0
        for _ in range(12_000):
            began = env.monotonic()
            fill(database, rng, 1)
            longest = max(longest, env.monotonic() - began)
            env.sleep(0.001)
        database._engine.upkeep.stop()
        stats = database.stats()
        assert stats.flushes >= 10
        assert stats.compactions >= 3
        assert stats.throttled_seconds > 1.0
        # What a flush takes when nothing limits it is all that anybody waits for.
        assert stats.stall_seconds < 0.5
        assert longest < 0.1


def test_the_limit_stays_with_the_database() -> None:
    env = SimEnv()
    opened(env).close()
    settings: Any = None
    with open_database("/db", env=env, settings=settings) as database:
        assert database._engine.settings.background_bytes_per_second == RATE
    assert "background_bytes_per_second" not in DatabaseSettings().to_text()
    assert "publish" not in DatabaseSettings().to_text()
    again = DatabaseSettings.from_text(
        DatabaseSettings(background_bytes_per_second=7, publish="never").to_text()
    )
    assert (7, "never") == (again.background_bytes_per_second, again.publish)


def test_a_compaction_keeps_the_rate_too(rng: random.Random) -> None:
    env = SimEnv()
    with opened(env, rate=0) as database:
        for _ in range(2):
            fill(database, rng, 900)
            database.flush()
        database._engine.upkeep.wait_idle()
        database._engine.throttle._rate = RATE
        before = database.stats()
        began = env.monotonic()
        database.compact()
        took = env.monotonic() - began
        written = database.stats().compacted_bytes_written - before.compacted_bytes_written
        assert written > 1_000_000
        assert took == pytest.approx(written / RATE, rel=0.3)
