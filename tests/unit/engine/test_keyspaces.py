"""Goal: a keyspace is a mapping of its own, created and dropped durably, and atomic with others."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from holdfast.base import (
    KEY_BYTES_MAX,
    DatabaseClosedError,
    KeyspaceSettings,
    LimitError,
    marks_seen,
)
from holdfast.engine import Database, Keyspace, open_database
from holdfast.env import CrashPoint, SimEnv
from tests.model.strategies import tiny
from tests.unit.engine.test_write_path import SEEDS, spawn_all


def opened(env: SimEnv | None = None) -> Database:
    return open_database("/db", env=env or SimEnv(), settings=tiny())


def test_a_database_is_a_mutable_mapping() -> None:
    with opened() as database:
        assert isinstance(database, MutableMapping)
        database[b"a"] = b"1"
        database.update({b"b": b"2", b"c": b"3"})
        assert b"1" == database.pop(b"a")
        assert b"none" == database.pop(b"a", b"none")
        assert b"2" == database.setdefault(b"b", b"x")
        assert (b"b", b"2") == database.popitem()
        assert {b"c": b"3"} == dict(database)
        database.clear()
        assert 0 == len(database)
        with pytest.raises(KeyError):
            database.popitem()


def test_handles_are_equal_when_they_are_one() -> None:
    with opened() as database:
        other = database.keyspace("other")
        assert other is database.keyspace("other")
        assert other == database.keyspace("other")
        assert other != database
        assert database is database.keyspace("default")
        assert 2 == len({other, database, database.keyspace("other")})


def settings_of(database: Database, name: str) -> KeyspaceSettings:
    kept = database._engine.version.keyspace_named(name)
    assert kept is not None
    assert database._engine.trees[kept.id].version == kept
    assert database.keyspace(name).memtable_bytes == kept.settings.memtable_bytes
    return kept.settings


@pytest.mark.parametrize("state", ["none", "all"])
@pytest.mark.parametrize("name", ["default", "other"])
def test_settings_of_a_keyspace_that_exists_change_durably(name: str, state: str) -> None:
    env = SimEnv()
    first, second = KeyspaceSettings(level_ratio=3), KeyspaceSettings(memtable_bytes=1 << 20)
    database = opened(env)
    kept = settings_of(database, "default")
    same = database.keyspace(name, settings=first)
    same[b"k"] = b"v"
    assert settings_of(database, name) == first
    edits = database._engine.version.edit_seq
    assert same is database.keyspace(name, settings=first)
    assert database._engine.version.edit_seq == edits
    database.keyspace(name, settings=second)
    with pytest.raises(LimitError, match="compaction is 'leveled' since the keyspace was"):
        database.keyspace(name, settings=KeyspaceSettings(compaction="fifo"))
    assert settings_of(database, name) == second
    machine = CrashPoint(env).state(state).build()
    database.close()
    for _ in range(2):
        with open_database("/db", env=machine) as again:
            assert settings_of(again, name) == second
            assert again.keyspace(name)[b"k"] == b"v"
            assert name == "default" or settings_of(again, "default") == kept


def test_the_default_keyspace_has_the_settings_that_an_open_gives() -> None:
    env = SimEnv()
    with opened(env) as database:
        database.keyspace("other")
        database[b"k"] = b"v"
    larger = replace(tiny(), keyspace=replace(tiny().keyspace, memtable_bytes=1 << 20))
    with open_database("/db", env=env, settings=larger) as database:
        assert settings_of(database, "default") == larger.keyspace
        assert settings_of(database, "other") == tiny().keyspace
    with open_database("/db", env=env) as database:
        assert settings_of(database, "default") == larger.keyspace
        assert {b"k": b"v"} == dict(database)
    with open_database("/db", env=env, settings=tiny(), read_only=True) as database:
        assert settings_of(database, "default") == larger.keyspace
        # Nothing can be kept of what is given to one that is only read.
        database.keyspace("other", settings=larger.keyspace)
        assert settings_of(database, "other") == tiny().keyspace
        with pytest.raises(LimitError, match="compaction is 'leveled' since the keyspace was"):
            database.keyspace("other", settings=KeyspaceSettings(compaction="fifo"))


def test_another_size_of_memtables_holds_at_once() -> None:
    with open_database("/db", env=SimEnv()) as database:
        other = database.keyspace("other")
        for number in range(100):
            other.put(b"%d" % number, b"x" * 1000, durability="none")
        assert not database._engine.trees[other.id].version.flushed_seq
        database.keyspace("other", settings=KeyspaceSettings(memtable_bytes=50_000))
        for number in range(100):
            other.put(b"%d" % number, b"y" * 1000, durability="none")
        database._engine.upkeep.wait_idle()
        assert database._engine.trees[other.id].version.flushed_seq > 100
        assert all(other[b"%d" % number] == b"y" * 1000 for number in range(100))


def test_a_retention_can_be_given_and_taken_away() -> None:
    env = SimEnv()
    fifo = KeyspaceSettings(compaction="fifo")
    with open_database("/db", env=env) as database:
        events = database.keyspace("events", settings=fifo)
        for number in range(3):
            events[b"%d" % number] = b"x"
            events.flush()
            env.sleep(100)
        database._engine.upkeep.wait_idle()
        assert 3 == len(events)
        database.keyspace("events", settings=replace(fifo, retention_seconds=150))
        database._engine.upkeep.wait_idle()
        assert [b"2"] == list(events)
        database.keyspace("events", settings=fifo)
        env.sleep(1000)
        events[b"3"] = b"x"
        events.flush()
        database._engine.upkeep.wait_idle()
        assert [b"2", b"3"] == list(events)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_two_that_drop_a_keyspace_one_hears_that_there_is_none(seed: int) -> None:
    env = SimEnv(seed)
    with opened(env) as database:
        database.keyspace("other")[b"k"] = b"v"
        errors: list[KeyError] = []

        def drop() -> None:
            try:
                database.drop_keyspace("other")
            except KeyError as error:
                errors.append(error)

        spawn_all(env, drop, drop)
        assert [("other",)] == [error.args for error in errors]
        assert ["default"] == database.keyspaces()


def test_a_keyspace_that_is_dropped_while_it_is_looked_up_is_made_anew() -> None:
    for seed in range(30):
        env = SimEnv(seed)
        with opened(env) as database:
            database.keyspace("other")[b"old"] = b"x"
            found: list[Keyspace] = []

            def look(database: Database = database, found: list[Keyspace] = found) -> None:
                for _ in range(3):
                    found.append(database.keyspace("other"))

            spawn_all(env, look, partial(database.drop_keyspace, "other"), look)
            assert 6 == len(found)
            assert [] == list(database.keyspace("other"))
            with suppress(KeyError):
                database.drop_keyspace("other")
            with pytest.raises(KeyError, match="other"):
                database.keyspace("other", create=False)
    assert "engine.keyspace_dropped_meanwhile" in marks_seen()


@pytest.mark.parametrize("seed", SEEDS)
def test_settings_change_beside_writers_flushes_and_a_drop(seed: int) -> None:
    env = SimEnv(seed)
    choices = [replace(tiny().keyspace, level_ratio=ratio) for ratio in (2, 3, 4, 5)]
    with opened(env) as database:
        other = database.keyspace("other")

        def write() -> None:
            for number in range(60):
                database[b"%d" % (number % 20)] = b"%d" % number * 20
                with suppress(DatabaseClosedError):
                    other[b"%d" % number] = b"x" * 50

        def tune() -> None:
            for settings in choices:
                database.keyspace("default", settings=settings)
                database.keyspace("other", settings=settings)

        def drop() -> None:
            database.flush()
            database.drop_keyspace("other")

        spawn_all(env, write, tune, drop)
        assert settings_of(database, "default") == choices[-1]
        rows = dict(database)
    with open_database("/db", env=env) as database:
        assert settings_of(database, "default") == choices[-1]
        assert rows == dict(database)


@pytest.mark.parametrize("settings", [{}, [], b"", "fifo", tiny()])
@pytest.mark.parametrize("name", ["default", "other", "new"])
def test_what_are_no_settings_of_a_keyspace(name: str, settings: Any) -> None:
    with opened() as database:
        database.keyspace("other")
        with pytest.raises(TypeError, match="settings are KeyspaceSettings, not "):
            database.keyspace(name, settings=settings)
        assert database.keyspaces() == ["default", "other"]


def test_names_are_kept() -> None:
    with opened() as database:
        names = ["default", "b", "a", "\N{GREEK SMALL LETTER ALPHA}", "x" * 255]
        for name in names:
            assert name == database.keyspace(name).name
        assert sorted(names) == database.keyspaces()
        assert "'a'" in repr(database.keyspace("a"))


@pytest.mark.parametrize("name", ["", "x" * 256, "\N{GREEK SMALL LETTER ALPHA}" * 128])
def test_a_name_of_a_wrong_size_is_refused(name: str) -> None:
    with opened() as database:
        with pytest.raises(LimitError):
            database.keyspace(name)
        assert ["default"] == database.keyspaces()


def test_a_name_is_text() -> None:
    with opened() as database, pytest.raises(TypeError, match="str"):
        database.keyspace(b"name")  # type: ignore[arg-type]


def test_a_keyspace_that_is_absent_is_created_only_when_asked() -> None:
    with opened() as database:
        with pytest.raises(KeyError):
            database.keyspace("absent", create=False)
        with pytest.raises(KeyError):
            database.drop_keyspace("absent")
        assert ["default"] == database.keyspaces()


def test_the_default_keyspace_cannot_be_dropped() -> None:
    with opened() as database:
        with pytest.raises(LimitError, match="clear"):
            database.drop_keyspace("default")
        database[b"a"] = b"1"


def test_a_created_keyspace_and_a_dropped_one_survive_a_crash() -> None:
    env = SimEnv()
    database = opened(env)
    database.put(b"earlier", b"1", durability="none")
    database.keyspace("kept")
    database.keyspace("gone")[b"a"] = b"1"
    database.drop_keyspace("gone")
    with opened(CrashPoint(env).state("none").build()) as after:
        assert ["default", "kept"] == after.keyspaces()
        assert b"1" == after[b"earlier"], "an edit does not survive a commit before it"
    database.close()


def test_a_dropped_keyspace_refuses_everything() -> None:
    with opened() as database:
        doomed = database.keyspace("doomed")
        doomed.put_many({b"k%02d" % number: b"x" * 400 for number in range(40)})
        doomed.flush()
        rows = doomed.items()
        next(rows)
        database.drop_keyspace("doomed")
        for call in (
            lambda: doomed.get(b"a"),
            lambda: doomed[b"a"],
            lambda: b"a" in doomed,
            lambda: len(doomed),
            lambda: list(doomed),
            lambda: doomed.get_many([b"a"]),
            lambda: doomed.put(b"a", b"1"),
            lambda: doomed.put(b"a", b"1", durability="none"),
            lambda: doomed.put(b"a", b"1", durability="interval"),
            lambda: doomed.delete(b"a"),
            lambda: doomed.put_many([(b"a", b"1")]),
            lambda: doomed.put_many([]),
            lambda: doomed.delete_range(b"a", b"b"),
            lambda: doomed.clear(),
            lambda: doomed.items(),
        ):
            with pytest.raises(DatabaseClosedError, match="doomed"):
                call()
        assert 39 == len(list(rows)), "an iterator goes on"


def test_a_keyspace_created_again_is_another_one() -> None:
    env = SimEnv()
    with opened(env) as database:
        first = database.keyspace("again")
        first[b"a"] = b"1"
        database.drop_keyspace("again")
        second = database.keyspace("again")
        assert first is not second
        assert first.id != second.id
        assert 0 == len(second)
        second[b"b"] = b"2"
        with pytest.raises(DatabaseClosedError):
            first.get(b"a")
    with opened(env) as database:
        assert [(b"b", b"2")] == list(database.keyspace("again").items())


def test_the_files_of_a_dropped_keyspace_go() -> None:
    env = SimEnv()
    with opened(env) as database:
        doomed = database.keyspace("doomed")
        doomed.put_many({b"k%02d" % number: b"x" * 400 for number in range(40)})
        doomed.flush()
        assert tables(env) > 0
        del doomed
        database.drop_keyspace("doomed")
        database[b"a"] = b"1"
        database.flush()
        assert 1 == tables(env)


def tables(env: SimEnv) -> int:
    return sum(name.endswith(".table") for name in env.list_dir("/db"))


def test_settings_of_a_keyspace_are_its_own_and_kept() -> None:
    env = SimEnv()
    settings = KeyspaceSettings(memtable_bytes=8 << 10, page_bytes=512, compression="none")
    with opened(env) as database:
        database.keyspace("own", settings=settings)
        database.keyspace("usual")
    with open_database("/db", env=env) as database:
        versions = {
            each.name: each.settings for each in database._engine.version.keyspaces.values()
        }
        assert settings == versions["own"]
        assert tiny().keyspace == versions["usual"] == versions["default"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_keyspace_that_many_create_at_once_is_created_once(seed: int) -> None:
    env = SimEnv(seed)
    database = opened(env)
    found: list[Keyspace] = []

    def create() -> None:
        keyspace = database.keyspace("wanted")
        keyspace[b"%d" % len(found)] = b"1"
        found.append(keyspace)

    spawn_all(env, *[create] * 5)
    assert 1 == len(set(found))
    assert 2 == len(database.keyspaces())
    database.close()


# --- calls that need no machine of their own


def test_put_many_takes_mappings_and_pairs_and_is_atomic() -> None:
    with opened() as database:
        database.put_many({b"a": b"1", b"b": b"2"})
        database.put_many((bytes([letter]), b"3") for letter in b"bc")
        assert {b"a": b"1", b"b": b"3", b"c": b"3"} == dict(database)
        seq = database.stats().last_seq
        for pairs in (
            [(b"d", b"4"), ("text", b"5")],
            [(b"d", b"4"), (b"e", None)],
            [(b"d", b"4"), (b"x" * (KEY_BYTES_MAX + 1), b"")],
        ):
            with pytest.raises((TypeError, LimitError)):
                database.put_many(pairs)  # type: ignore[arg-type]
        assert (seq, 3) == (database.stats().last_seq, len(database))
        database.put_many([])
        assert seq == database.stats().last_seq


@pytest.mark.parametrize(
    ("start", "stop", "left"),
    [
        (b"b", b"d", [b"a", b"d"]),
        (None, b"c", [b"c", b"d"]),
        (b"c", None, [b"a", b"b"]),
        (None, None, []),
        (b"c", b"c", [b"a", b"b", b"c", b"d"]),
        (b"d", b"a", [b"a", b"b", b"c", b"d"]),
        (b"x", None, [b"a", b"b", b"c", b"d"]),
        (b"", b"b", [b"b", b"c", b"d"]),
    ],
)
def test_delete_range(start: bytes | None, stop: bytes | None, left: list[bytes]) -> None:
    with opened() as database:
        database.put_many({key: key for key in (b"a", b"b", b"c", b"d")})
        database.delete_range(start, stop)
        assert left == list(database)
        database.flush()
        assert left == list(database)


def test_a_range_to_the_end_takes_the_longest_key() -> None:
    with opened() as database:
        last = b"\xff" * KEY_BYTES_MAX
        database.put_many({b"a": b"1", last: b"2"})
        database.delete_range(b"b", None)
        assert [b"a"] == list(database)
        database[last] = b"3"
        database.clear()
        assert 0 == len(database)


def test_bad_keys_and_values_are_refused_before_anything_is_written() -> None:
    env = SimEnv()
    with opened(env) as database:
        before = env.op_count
        for call in (
            lambda: database.put("a", b"1"),
            lambda: database.put(b"a", "1"),
            lambda: database.__setitem__(b"a", None),
            lambda: database.delete(1),
            lambda: database.delete_range("a", b"b"),
            lambda: database.items("a"),
            lambda: database.keys(prefix="a"),
            lambda: database.get_many(["a"]),
            lambda: database.compact("a"),
        ):
            with pytest.raises(TypeError):
                call()
        for refused in (
            lambda: database.put(b"x" * (KEY_BYTES_MAX + 1), b""),
            lambda: database.get(b"x" * (KEY_BYTES_MAX + 1)),
        ):
            with pytest.raises(LimitError):
                refused()
        with pytest.raises(ValueError):
            database.items(limit=-1)
        assert before == env.op_count


@pytest.mark.parametrize("seed", SEEDS)
def test_many_threads_write_flush_compact_and_scan(seed: int) -> None:
    env = SimEnv(seed)
    database = opened(env)
    keyspaces = [database, database.keyspace("one"), database.keyspace("two")]

    def write(number: int) -> Callable[[], None]:
        def run() -> None:
            keyspace = keyspaces[number]
            for round_ in range(12):
                keyspace.put_many(
                    {b"%02d" % key: b"%d" % round_ + b"x" * 100 for key in range(20)},
                    durability=["none", "commit", "interval"][round_ % 3],
                )

        return run

    def scan() -> None:
        for _ in range(30):
            for keyspace in keyspaces:
                values = {value[:2].rstrip(b"x") for value in keyspace.values()}
                assert len(values) <= 1, "a batch is seen whole or not at all"
                backward = {value[:2].rstrip(b"x") for value in keyspace.values(reverse=True)}
                assert len(backward) <= 1
            env.sleep(0.0003)

    def keep_up() -> None:
        for number in range(6):
            keyspaces[number % 3].compact()
            database.flush()

    spawn_all(env, *[write(number) for number in range(3)], scan, keep_up, keep_up)
    for keyspace in keyspaces:
        assert {b"11"} == {value[:2] for value in keyspace.values()}
    assert database.verify().ok
    database.close()
    assert [] == env.unreturned()
    with opened(env) as database:
        for name in database.keyspaces():
            assert 20 == len(database.keyspace(name))


COMPACTIONS: list[tuple[Callable[[Database], object], set[str]]] = [
    (lambda database: database.compact(), {"default", "other"}),
    (lambda database: database.compact(b""), {"default"}),
    (lambda database: database.compact(stop=b"l"), {"default"}),
    (lambda database: database.compact(b"x"), set()),
    (lambda database: database.keyspace("other").compact(), {"other"}),
]


@pytest.mark.parametrize(("compact", "compacted"), COMPACTIONS)
def test_a_compaction_without_bounds_is_of_all_keyspaces(
    compact: Callable[[Database], object], compacted: set[str]
) -> None:
    # So that nothing is compacted in the background.
    settings = tiny(level0_tables=8)
    with open_database("/db", env=SimEnv(), settings=settings) as database:
        other = database.keyspace("other")
        for space in (database, other):
            space.put_many({b"k": b"old", b"m": b"kept"})
            database.flush()
            space[b"k"] = b"new"
            database.flush()
        compact(database)
        entries = {
            each.name: sum(level.entries for level in each.levels)
            for each in database.stats().keyspaces
        }
        assert {name: 2 if name in compacted else 3 for name in ("default", "other")} == entries


def test_a_keyspace_that_goes_while_all_are_compacted_is_passed_over() -> None:
    with opened() as database:
        other = database.keyspace("other")
        database[b"k"] = other[b"k"] = b"1"
        flush = database._engine.flush

        def flush_and_drop(keyspaces: list[int]) -> None:
            flush(keyspaces)
            database.drop_keyspace("other")

        database._engine.flush = flush_and_drop  # type: ignore[method-assign,assignment]
        database.compact()
        assert ["default"] == database.keyspaces()
