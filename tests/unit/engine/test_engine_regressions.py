"""Bugs that other suites found, each in the smallest form."""

import errno
import shutil

import pytest

from holdfast.base import DiskFullError, marks_seen
from holdfast.compaction import Pace
from holdfast.engine import open_database
from holdfast.engine.brake import STALL_SECONDS_MAX
from holdfast.engine.flush import write_tables
from holdfast.env import FaultEnv, FaultRule, SimEnv


def test_a_deletion_without_a_sync_is_logged_and_applied() -> None:
    env = SimEnv()
    database = open_database("/db", env=env)
    database[b"key"] = b"value"
    database.delete(b"key", durability="none")
    assert None is database.get(b"key")
    database.close()
    with open_database("/db", env=env) as database:
        assert None is database.get(b"key")


def manifests(env: SimEnv) -> list[str]:
    return [name for name in env.list_dir("/db") if name.endswith(".manifest")]


def test_a_manifest_full_of_edits_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.manifest.log.REWRITE_BYTES", 100)
    env = SimEnv()
    with open_database("/db", env=env) as database:
        first = manifests(env)
        for index in range(20):
            database[b"key"] = b"%d" % index
            database.flush()
        assert 1 == len(manifests(env))
        assert first != manifests(env)
        assert database.verify().ok
    with open_database("/db", env=env) as database:
        assert b"19" == database[b"key"]


def test_without_room_for_a_new_manifest_the_old_one_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.manifest.log.REWRITE_BYTES", 100)
    machine = SimEnv()
    env = FaultEnv(machine)
    with open_database("/db", env=env) as database:
        kept = manifests(machine)
        env.add(FaultRule(kind="create", path="*.manifest", error=errno.ENOSPC, times=None))
        for index in range(20):
            database[b"key"] = b"%d" % index
            database.flush()
        assert "engine.manifest_rewrite_full" in marks_seen()
        assert kept == manifests(machine)
    with open_database("/db", env=machine) as database:
        assert b"19" == database[b"key"]


def test_a_manifest_that_is_full_takes_no_edit_until_there_is_room_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.manifest.log.REWRITE_BYTES", 100)
    monkeypatch.setattr("holdfast.manifest.log.FULL_BYTES", 2000)
    machine = SimEnv()
    env = FaultEnv(machine)
    database = open_database("/db", env=env)
    kept = manifests(machine)
    env.add(FaultRule(kind="create", path="*.manifest", error=errno.ENOSPC, times=None))
    with pytest.raises(DiskFullError, match="no room for a new manifest"):
        for index in range(100):
            database[b"key"] = b"%d" % index
            database.flush()
    assert "engine.manifest_full" in marks_seen()
    assert 2000 < machine.file_size(f"/db/{kept[0]}") < 2500
    env.clear()
    database.flush()
    assert kept != manifests(machine)
    assert database[b"key"] == b"%d" % index
    database.close()


def test_a_manifest_that_cannot_be_removed_is_left_to_the_next_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.manifest.log.REWRITE_BYTES", 100)
    machine = SimEnv()
    env = FaultEnv(machine, [FaultRule(kind="unlink", path="*.manifest", times=None)])
    with open_database("/db", env=env) as database:
        for index in range(20):
            database[b"key"] = b"%d" % index
            database.flush()
        assert "manifest.unlink_failed" in marks_seen()
        assert len(manifests(machine)) > 1
    with open_database("/db", env=machine) as database:
        assert b"19" == database[b"key"]
        assert 1 == len(manifests(machine))


def test_what_a_crash_during_creation_left_is_removed() -> None:
    machine = SimEnv()
    machine.make_dir("/db", site="test")
    machine.create("/db/00000001.manifest", site="test").close()
    with open_database("/db", env=machine):
        assert ["00000002.manifest"] == manifests(machine)


def test_tables_that_a_reader_held_until_now_go_with_the_close() -> None:
    env = SimEnv()
    database = open_database("/db", env=env)
    for value in (b"1", b"2"):
        database[b"key"] = value
        database.flush()
    reader = database.items()
    next(reader)
    database.compact()
    reader.close()
    del reader
    database.close()
    assert 1 == len([name for name in env.list_dir("/db") if name.endswith(".table")])


def test_a_database_that_is_only_read_shows_what_only_the_log_holds(tmp_path) -> None:
    with open_database(str(tmp_path / "db")) as database:
        database[b"key"] = b"value"
        # What a process that is killed now leaves.
        shutil.copytree(tmp_path / "db", tmp_path / "killed")
    with open_database(str(tmp_path / "killed"), read_only=True) as database:
        assert [(b"key", b"value")] == list(database.items())
        assert b"value" == database.get(b"key")
        assert database.verify().ok


def test_a_slowed_writer_waits_for_each_byte_once() -> None:
    """Each put paid for all bytes since the sizes of the memtables were last looked at, so single
    puts waited some hundred times as long as one batch of the same bytes.
    """
    env = SimEnv()
    database = open_database("/db", env=env)
    engine = database._engine
    with engine.version_mutex:
        engine.brake.adopt(Pace(stop=False, seconds_per_mib=1.0))
    for number in range(512):
        database.put(b"%06d" % number, bytes(1018), durability="none")
    assert database.stats().stall_seconds == pytest.approx(0.5, rel=0.05)
    database.close()


def test_a_slowed_writer_needs_no_group_between_its_pauses() -> None:
    """Every put went through a group while writers were slowed, and took ten times as long as the
    pauses asked for.
    """
    database = open_database("/db", env=SimEnv())
    engine = database._engine
    groups = []
    make_room = engine.make_room
    engine.write_path._make_room = lambda: groups.append(1) or make_room()
    with engine.version_mutex:
        engine.brake.adopt(Pace(stop=False, seconds_per_mib=0.1))
    for number in range(512):
        database.put(b"%06d" % number, bytes(1018), durability="none")
    # A pause of a millisecond for each 10 KiB.
    assert 40 <= len(groups) <= 60
    assert database.stats().stall_seconds == pytest.approx(0.05, rel=0.05)
    with engine.version_mutex:
        # As little as the debt of one byte.
        engine.brake.adopt(Pace(stop=False, seconds_per_mib=1e-300))
    database.put(b"key", b"value", durability="none")
    database.put(b"key", b"value", durability="none")
    assert len(groups) <= 61
    database.close()


def test_a_slowed_writer_waits_a_little_and_often() -> None:
    """A large batch does not wait as long as its bytes at once: what is left is spread over those
    that follow.
    """
    env = SimEnv()
    database = open_database("/db", env=env)
    engine = database._engine
    with engine.version_mutex:
        engine.brake.adopt(Pace(stop=False, seconds_per_mib=1.0))
    database.put(b"large", bytes(1 << 20), durability="none")
    longest = 0.0
    for number in range(40):
        before = database.stats().stall_seconds
        database.put(b"%02d" % number, b"", durability="none")
        longest = max(longest, database.stats().stall_seconds - before)
    assert longest == pytest.approx(STALL_SECONDS_MAX, rel=0.05)
    assert database.stats().stall_seconds == pytest.approx(1.0, rel=0.05)
    database.close()


def test_a_flush_does_not_wait_for_what_is_frozen_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a memtable is flushed, another one is frozen: somebody else writes and flushes."""
    rounds_max = 50
    rounds = 0
    with open_database("/db", env=SimEnv()) as database:
        engine = database._engine

        def write() -> None:
            database.put(b"other", b"%d" % rounds, durability="none")
            engine.write_path.exclusive(lambda: engine.freeze(engine.trees[0]))

        def write_and_freeze(*arguments: object) -> object:
            nonlocal rounds
            if rounds < rounds_max:
                rounds += 1
                engine.env.spawn("somebody else", write).join()
            return write_tables(*arguments)

        monkeypatch.setattr("holdfast.engine.flush.write_tables", write_and_freeze)
        database[b"own"] = b"1"
        database.flush()
        done, rounds = rounds, rounds_max
        assert 0 < done < rounds_max
