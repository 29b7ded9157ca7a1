"""Goal: a close keeps everything, gives everything back, and says afterwards that it is closed."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from holdfast.base import (
    CorruptionError,
    DatabaseClosedError,
    DatabaseLockedError,
    DatabasePoisonedError,
    FormatError,
    marks_seen,
)
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, FaultEnv, FaultRule, SimEnv
from holdfast.manifest import VersionSet
from tests.hostile.folders import files_of, machine_with
from tests.model.strategies import tiny
from tests.unit.engine.test_write_path import SEEDS, spawn_all


def opened(env: SimEnv) -> Database:
    return open_database("/db", env=env, settings=tiny())


def fill(database: Database, count: int = 60, durability: str = "none") -> dict[bytes, bytes]:
    pairs = {b"k%03d" % number: b"%d" % number + b"x" * 300 for number in range(count)}
    for key, value in pairs.items():
        database.put(key, value, durability=durability)
    return pairs


@pytest.mark.parametrize("durability", ["none", "interval"])
def test_a_close_keeps_what_was_not_synced(durability: str) -> None:
    env = SimEnv()
    database = opened(env)
    pairs = fill(database, 5, durability)
    database.keyspace("other").put(b"a", b"1", durability=durability)
    database.close()
    with opened(CrashPoint(env).state("none").build()) as database:
        assert pairs == dict(database.items())
        assert b"1" == database.keyspace("other")[b"a"]


def test_a_clean_close_leaves_no_log_to_replay() -> None:
    env = SimEnv()
    database = opened(env)
    fill(database)
    database.close()
    version = VersionSet.recover(env, "/db").version
    assert version.clean
    assert version.last_seq == 60
    before = env.op_count
    with opened(env) as database:
        assert 60 == len(database)
        sites = {op.site for op in env.op_log[before:]}
        assert not any(site.startswith("table.write") for site in sites), "nothing was replayed"


KEY = bytes(range(32))


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("is_garbage", [True, False])
def test_damage_that_takes_the_end_of_the_manifest_of_a_closed_database_is_told(
    key: bytes | None, *, is_garbage: bool
) -> None:
    """No log knows of the last keyspace: with the edits that end a life it was gone, silently."""
    machine = SimEnv(5)
    with open_database("/db", env=machine, settings=tiny(), key=key) as database:
        database[b"a"] = b"1"
        database.flush()
        database.keyspace("empty")
    files = files_of(machine)
    (name,) = (name for name in files if name.endswith(".manifest"))
    data = files[name]
    for start in range(0, len(data), 8):
        garbage = Random(start).randbytes(len(data) - start) if is_garbage else b""
        damaged = machine_with(files | {name: data[:start] + garbage})
        with pytest.raises((CorruptionError, FormatError)):
            open_database("/db", env=damaged, key=key, read_only=True)
    with open_database("/db", env=machine_with(files), key=key) as database:
        assert set(database.keyspaces()) == {"default", "empty"}


def test_a_life_without_edits_ends_in_the_manifest_that_it_began() -> None:
    env = SimEnv()
    opened(env).close()
    with opened(env) as database:
        assert 0 == len(database)
        before = env.op_count
    sites = [op.site for op in env.op_log[before:]]
    assert "manifest.edit.sync" in sites
    assert "manifest.create.write" not in sites
    assert VersionSet.recover(env, "/db").version.clean


@pytest.mark.parametrize(
    "error", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.ENOENT, errno.EEXIST, MemoryError]
)
def test_a_close_without_room_for_another_manifest_says_in_the_old_one_that_it_is_closed(
    error: int | type[MemoryError], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = SimEnv()
    env = FaultEnv(machine)
    database = open_database("/db", env=env, settings=tiny())
    pairs = fill(database)
    if isinstance(error, int):
        env.add(FaultRule(kind="create", site="manifest.create.write", times=None, error=error))
    else:
        monkeypatch.setattr(VersionSet, "_write_manifest", raiser(error))
    database.close()
    monkeypatch.undo()
    assert marks_seen()["engine.clean_end_appended"] == 1
    assert "00000001.manifest" in machine.list_dir("/db")
    assert VersionSet.recover(machine, "/db").version.clean
    with opened(machine) as database:
        assert pairs == dict(database.items())


def test_a_close_whose_new_manifest_the_disk_does_not_take_poisons() -> None:
    machine = SimEnv()
    env = FaultEnv(machine)
    database = open_database("/db", env=env, settings=tiny())
    pairs = fill(database, durability="commit")
    env.add(FaultRule(kind="sync", site="manifest.create.sync"))
    with pytest.raises(DatabasePoisonedError):
        database.close()
    with opened(machine) as database:
        assert pairs == dict(database.items())


def raiser(error: type[BaseException]) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_everything_is_given_back() -> None:
    env = SimEnv()
    database = opened(env)
    fill(database, durability="interval")
    rows = database.items()
    next(rows)
    assert env.unreturned()
    database.close()
    assert [] == env.unreturned()
    with opened(env) as again:
        assert 60 == len(again)


def test_a_second_close_is_harmless() -> None:
    env = SimEnv()
    database = opened(env)
    database.close()
    before = env.op_count
    database.close()
    with database:
        pass
    assert before == env.op_count


def test_a_closed_database_says_so() -> None:
    database = opened(SimEnv())
    database[b"a"] = b"1"
    other = database.keyspace("other")
    database.close()
    assert "closed" in repr(database)
    for call in (
        lambda: database[b"a"],
        lambda: database.get(b"a"),
        lambda: b"a" in database,
        lambda: database.get_many([b"a"]),
        lambda: len(database),
        lambda: database.items(),
        lambda: database.put(b"a", b"1"),
        lambda: database.put(b"a", b"1", durability="none"),
        lambda: database.put(b"a", b"1", durability="interval"),
        lambda: database.delete(b"a", durability="none"),
        lambda: database.put_many([(b"a", b"1")]),
        lambda: database.put_many([]),
        lambda: database.delete_range(b"a", b"b"),
        lambda: database.clear(),
        lambda: database.flush(),
        lambda: database.compact(),
        lambda: database.sync(),
        lambda: database.stats(),
        lambda: database.verify(),
        lambda: database.keyspaces(),
        lambda: database.keyspace("other"),
        lambda: database.keyspace("default"),
        lambda: database.drop_keyspace("other"),
        lambda: database.snapshot(),
        lambda: other.get(b"a"),
        lambda: other.put(b"a", b"1"),
    ):
        with pytest.raises(DatabaseClosedError, match="closed"):
            call()


def test_an_iterator_of_a_closed_database_fails_or_is_right() -> None:
    """What it holds in memory it may go on to give; it never ends early."""
    env = SimEnv()
    database = opened(env)
    pairs = fill(database)
    database.flush()
    rows = database.items()
    found = [next(rows)]
    database.close()
    with pytest.raises(Exception, match="closed"):
        found.extend(iter(lambda: next(rows), None))
    assert found == sorted(pairs.items())[: len(found)]
    with pytest.raises(Exception, match="closed"):
        next(rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_close_during_work_in_every_lane(seed: int) -> None:
    env = SimEnv(seed)
    database = opened(env)
    acknowledged: dict[bytes, bytes] = {}

    def write(task: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(1000):
                key = b"%d-%02d" % (task, number % 40)
                try:
                    database.put(
                        key, b"%d" % number + b"x" * 300, durability=["commit", "none"][task % 2]
                    )
                except DatabaseClosedError:
                    return
                acknowledged[key] = b"%d" % number + b"x" * 300
            raise AssertionError("the database was never closed")

        return run

    def compact() -> None:
        with pytest.raises(DatabaseClosedError):
            while True:
                database.compact()

    def close() -> None:
        env.sleep(0.02)
        database.close()

    spawn_all(env, write(0), write(1), write(2), compact, close, close)
    assert [] == env.unreturned()
    assert len(acknowledged) > 3
    with opened(env) as again:
        assert acknowledged == dict(again.items())
        assert again.verify().ok


def test_the_lock_is_held_until_the_close() -> None:
    env = SimEnv()
    database = opened(env)
    with pytest.raises(DatabaseLockedError):
        opened(env)
    database[b"a"] = b"1"
    database.close()
    opened(env).close()


def test_a_with_block_closes_after_an_error() -> None:
    env = SimEnv()
    with pytest.raises(ZeroDivisionError), opened(env) as database:
        database.put(b"a", b"1", durability="none")
        raise ZeroDivisionError
    with opened(env) as database:
        assert b"1" == database[b"a"]


def test_what_is_open_when_the_interpreter_ends_is_closed(tmp_path: Path, root: Path) -> None:
    """One that cannot be closed does not keep the others from it."""
    script = f"""
        from holdfast.engine import open_database
        from holdfast.env import SimEnv

        machines = [SimEnv(number) for number in range(4)]
        dead = [open_database("/db", env=machine) for machine in machines]
        for machine in machines:
            machine.cut_power()
        kept = [open_database({str(tmp_path)!r} + "/%d" % number) for number in range(4)]
        for database in kept:
            database.put(b"unsynced", b"1", durability="none")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=root / "src",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (ended.returncode, ended.stderr)
    for number in range(4):
        with open_database(str(tmp_path / str(number)), create=False) as database:
            assert b"1" == database[b"unsynced"]
