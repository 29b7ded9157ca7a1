"""Goal: a database publishes its figures exactly while somebody asks, what is read is what was
published or nothing, and nothing that goes wrong with it is a failure of the database.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast.base import DatabaseSettings, marks_seen
from holdfast.engine import Database, Watcher, open_database, read_live
from holdfast.engine.live_format import (
    KEYSPACES_MAX,
    LiveFigures,
    decode_live,
    encode_live,
)
from holdfast.engine.live_writer import ASKED_SECONDS
from holdfast.env import FaultEnv, FaultRule, SimEnv, crash_states
from holdfast.recovery import LIVE_NAME, WATCH_NAME

FOLDER = "/db"


def opened(env: Any, publish: str = "asked") -> Database:
    return open_database(FOLDER, env=env, settings=DatabaseSettings(publish=publish))


def beat(env: SimEnv, database: Database) -> None:
    """Let a second pass and commit something."""
    env.sleep(1.5)
    database[b"k"] = b"v"


def has(env: SimEnv, name: str) -> bool:
    return name in env.list_dir(FOLDER)


def test_it_is_published_while_somebody_asks() -> None:
    env = SimEnv()
    with opened(env) as database:
        beat(env, database)
        env.sleep(1.5)
        assert not has(env, LIVE_NAME)
        watcher = Watcher(env, FOLDER)
        watcher.ask()
        assert read_live(env, FOLDER) is None
        beat(env, database)
        env.sleep(0.5)
        first = read_live(env, FOLDER)
        assert first is not None
        assert (1, 2) == (first.sequence, first.stats.writes)
        assert first.stats.keyspaces == database.stats().keyspaces
        # Without any activity too, as long as it is asked for.
        for _ in range(20):
            watcher.ask()
            env.sleep(1.0)
        later = read_live(env, FOLDER)
        assert later is not None
        assert later.sequence > 15
        assert abs(env.wall_time() - later.published) < 2.0
        watcher.close()
        env.sleep(3.0)
        assert not has(env, LIVE_NAME)
        assert not has(env, WATCH_NAME)
        beat(env, database)
        env.sleep(1.5)
        assert not has(env, LIVE_NAME)


def test_a_request_that_nobody_renews_is_over() -> None:
    env = SimEnv()
    with opened(env) as database:
        Watcher(env, FOLDER).ask()
        beat(env, database)
        env.sleep(ASKED_SECONDS + 3.0)
        assert has(env, WATCH_NAME)
        assert not has(env, LIVE_NAME)
        # It is taken over by the next one who asks.
        other = Watcher(env, FOLDER)
        other.ask()
        beat(env, database)
        env.sleep(0.5)
        assert read_live(env, FOLDER) is not None
        other.close()


def test_two_who_ask_share_a_request() -> None:
    env = SimEnv()
    with opened(env) as database:
        one, other = Watcher(env, FOLDER), Watcher(env, FOLDER)
        one.ask()
        other.ask()
        beat(env, database)
        one.close()
        other.ask()
        for _ in range(15):
            env.sleep(1.0)
            other.ask()
        assert read_live(env, FOLDER) is not None
        other.close()
        other.close()
        assert not has(env, WATCH_NAME)


def test_always_and_never() -> None:
    env = SimEnv()
    with opened(env, "always") as database:
        env.sleep(0.5)
        assert read_live(env, FOLDER) is not None
        database._engine.upkeep.wait_idle()
        env.sleep(30.0)
        found = read_live(env, FOLDER)
        assert found is not None
        assert found.sequence > 25
    assert not has(env, LIVE_NAME)
    with opened(env, "never") as database:
        Watcher(env, FOLDER).ask()
        beat(env, database)
        env.sleep(1.5)
        assert not has(env, LIVE_NAME)


def test_gets_and_scans_notice_a_request_too() -> None:
    for work in (
        lambda database: [database.get(b"k") for _ in range(1100)],
        lambda database: [list(database.keys()) for _ in range(70)],
    ):
        env = SimEnv()
        with opened(env) as database:
            watcher = Watcher(env, FOLDER)
            watcher.ask()
            env.sleep(1.5)
            work(database)
            env.sleep(0.5)
            assert read_live(env, FOLDER) is not None
            watcher.close()


def test_what_a_crash_leaves_is_removed_and_never_read() -> None:
    """A folder with both files opens, verifies and is listed as one without them."""
    env = SimEnv()
    database = opened(env, "always")
    database[b"a"] = b"1"
    env.sleep(0.5)
    Watcher(env, FOLDER).ask()
    names: set[str] = set()
    for state in crash_states(env):
        image = state.build()
        names.update(image.list_dir(FOLDER))
        with open_database(FOLDER, env=image, read_only=True) as again:
            assert b"1" == again[b"a"]
        with opened(image) as again:
            assert b"1" == again[b"a"]
            assert again.verify().ok
            assert not has(image, LIVE_NAME)
    assert {LIVE_NAME, WATCH_NAME} <= names


@pytest.mark.parametrize("name", [LIVE_NAME, WATCH_NAME])
@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(1 << 21)])
def test_rubbish_in_their_place_harms_nothing(name: str, content: bytes) -> None:
    env = SimEnv()
    with opened(env) as database:
        database[b"a"] = b"1"
    file = env.create(f"{FOLDER}/{name}", site="test")
    file.write_at(0, content, site="test")
    file.close()
    assert read_live(env, FOLDER) is None
    with open_database(FOLDER, env=env, read_only=True) as database:
        assert b"1" == database[b"a"]
    with opened(env) as database:
        assert database.verify().ok
        # Figures of another life go at an open; a request is its owner's affair.
        assert has(env, WATCH_NAME) == (name == WATCH_NAME)
        assert not has(env, LIVE_NAME)
        watcher = Watcher(env, FOLDER)
        watcher.ask()
        beat(env, database)
        env.sleep(0.5)
        assert read_live(env, FOLDER) is not None
        watcher.close()


@pytest.mark.parametrize("site", ["live.create", "live.write", "live.unlink"])
def test_a_disk_that_fails_it_harms_nothing(site: str) -> None:
    inner = SimEnv()
    env: Any = FaultEnv(inner)
    env.add(FaultRule(site=site, times=None))
    with opened(env, "always") as database:
        inner.sleep(2.0)
        database[b"a"] = b"1"
        assert not database.stats().poisoned
        assert database.stats().background_error is None


def test_what_cannot_be_collected_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    env = SimEnv()
    with opened(env) as database:

        def fail(*_: object) -> None:
            raise ValueError("no figures")

        publisher = database._engine.pulse._publisher
        monkeypatch.setattr(publisher, "_collect", fail)
        watcher = Watcher(env, FOLDER)
        watcher.ask()
        beat(env, database)
        env.sleep(0.5)
        assert "engine.publish_failed" in marks_seen()
        assert not has(env, LIVE_NAME)
        assert not database.stats().poisoned
        monkeypatch.undo()
        beat(env, database)
        env.sleep(0.5)
        assert read_live(env, FOLDER) is not None
        watcher.close()


def test_a_beat_that_fails_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    env = SimEnv()
    with opened(env) as database:

        def fail() -> None:
            raise OSError(5, "the folder cannot be read")

        monkeypatch.setattr(database._engine.pulse._publisher, "look", fail)
        beat(env, database)
        assert "engine.beat_missed" in marks_seen()
        assert b"v" == database[b"k"]


def figures(count: int, rng: random.Random) -> LiveFigures:
    env = SimEnv()
    with open_database(FOLDER, env=env) as database:
        for number in range(count):
            other = database.keyspace(f"k{number:05d}")
            if number % 7 == 0:
                other.put(b"a", rng.randbytes(100), durability="none")
        database.flush()
        stats = database.stats()
    return LiveFigures(sequence=3, published=1e9, keyspaces_left_out=0, stats=stats)


@pytest.mark.parametrize("count", [0, 3, KEYSPACES_MAX + 20])
def test_what_was_published_is_read(count: int, rng: random.Random) -> None:
    wanted = figures(count, rng)
    found = decode_live(encode_live(wanted) + b"of an earlier, longer content")
    assert (3, 1e9) == (found.sequence, found.published)
    everything = {keyspace.name: keyspace for keyspace in wanted.stats.keyspaces}
    assert len(found.stats.keyspaces) == min(count + 1, KEYSPACES_MAX)
    assert len(found.stats.keyspaces) + found.keyspaces_left_out == count + 1
    assert all(keyspace == everything[keyspace.name] for keyspace in found.stats.keyspaces)
    largest = sorted(wanted.stats.keyspaces, key=lambda keyspace: -keyspace.table_bytes)[:40]
    assert {keyspace.name for keyspace in largest} <= {each.name for each in found.stats.keyspaces}
    assert found.stats.latencies == wanted.stats.latencies
    assert found.stats.recent == wanted.stats.recent
