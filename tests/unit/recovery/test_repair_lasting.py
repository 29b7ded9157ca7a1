"""What a repair leaves behind: it lasts through a power cut, and what it wrote was read back.

Small databases on a simulated machine, of which one thing is damaged or gone; the state that is
looked at is the one in which nothing that was not synced is there any more.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest

import holdfast
from holdfast.base import DatabaseSettings
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, FaultEnv, FaultRule, SimEnv
from holdfast.recovery import LOCK_NAME, UNFINISHED, LossKind, Outcome
from holdfast.recovery.repair_tables import Piece, Workshop
from holdfast.sstable import table_name
from tests.hostile.folders import files_of, machine_with

FOLDER, TARGET = "/db", "/new"
KEY = bytes(range(32))
KEYS = pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
PLACES = pytest.mark.parametrize("target", [None, TARGET], ids=["in place", "elsewhere"])


def opened(env: SimEnv, key: bytes | None = None, folder: str = FOLDER) -> Database:
    return open_database(folder, env=env, key=key)


def killed(env: SimEnv) -> SimEnv:
    """The machine as a killed process leaves it."""
    return CrashPoint(env).state("all").build()


def after_power_cut(env: SimEnv) -> SimEnv:
    """The machine without anything that was not synced."""
    return CrashPoint(env).state("none").build()


def without(env: SimEnv, suffix: str) -> SimEnv:
    for name in env.list_dir(FOLDER):
        if name.endswith(suffix) or name.startswith(suffix):
            env.unlink(f"{FOLDER}/{name}", site="test")
    return env


def logged(key: bytes | None = None) -> SimEnv:
    """A database whose only operation is in the log."""
    env = SimEnv(1)
    with opened(env, key) as database:
        database[b"k"] = b"v"
        return killed(env)


def content(env: SimEnv, key: bytes | None = None, folder: str = FOLDER) -> dict[bytes, bytes]:
    with open_database(folder, create=False, env=env, key=key) as database:
        return dict(database.items())


@KEYS
@PLACES
def test_a_repair_out_of_the_log_lasts(key: bytes | None, target: str | None) -> None:
    """Also the very first operation, and the key file of the new folder."""
    env = without(logged(key), ".manifest")
    report = holdfast.repair(FOLDER, target, key=key, env=env)
    assert {loss.kind for loss in report.losses} <= {LossKind.ORDER}
    assert env.unreturned() == []
    folder = target or FOLDER
    assert not {UNFINISHED, LOCK_NAME} & set(env.list_dir(TARGET)) if target else True
    assert content(after_power_cut(env), key, folder) == {b"k": b"v"}


def test_a_table_that_is_used_as_it_is_lasts() -> None:
    """Whoever wrote it may have been killed before the sync, and no manifest says otherwise."""
    env = SimEnv(1)
    with opened(env) as database:
        database[b"k"] = b"v"
        database.flush()
    env = machine_with(files_of(env))  # nothing of it is synced
    env.sync_dir("/", site="test")
    report = holdfast.repair(FOLDER, env=without(env, ".manifest"))
    assert (report.tables_kept, report.tables_lost) == (1, 0)
    assert [loss.kind for loss in report.losses if loss.kind is not LossKind.ORDER] == []
    assert content(after_power_cut(env)) == {b"k": b"v"}


def mixed() -> SimEnv:
    """A table whose footer is damaged, and operations of two keyspaces that only the log holds."""
    env = SimEnv(1)
    with opened(env) as database:
        database.put_many((b"%03d" % number, b"v") for number in range(20))
        database.flush()
        database[b"later"] = b"w"
        database.keyspace("other")[b"k"] = b"x"
        env = killed(env)
    files = files_of(env)
    (table,) = (name for name in files if name.endswith(".table"))
    data = files[table]
    return machine_with(files | {table: data[:-4] + b"????"})


@PLACES
@pytest.mark.parametrize("is_trusted", [True, False], ids=["with a manifest", "without one"])
def test_all_that_was_written_was_read_back(
    monkeypatch: pytest.MonkeyPatch, target: str | None, is_trusted: bool
) -> None:
    env = mixed() if is_trusted else without(mixed(), ".manifest")
    before = set(env.list_dir(FOLDER))
    read: set[str] = set()

    def check_written(self: Workshop, pieces: Iterable[Piece]) -> None:
        read.update(table_name(piece.info.number) for piece in pieces)

    monkeypatch.setattr(Workshop, "check_written", check_written)
    report = holdfast.repair(FOLDER, target, env=env)
    assert report.tables_rebuilt == 1
    folder = target or FOLDER
    made = set(env.list_dir(folder)) - before
    assert read == {name for name in made if name.endswith(".table")}
    assert len(read) == 3
    assert len(content(env, folder=folder)) == 21


def test_what_does_not_read_back_as_it_was_written_fails_the_repair() -> None:
    env = FaultEnv(without(logged(), ".manifest"))
    before = set(env.list_dir(FOLDER))
    env.add(FaultRule(kind="write", path="*.table", error=None))
    with pytest.raises(holdfast.CorruptionError):
        holdfast.repair(FOLDER, env=env)
    assert set(env.list_dir(FOLDER)) - {LOCK_NAME} == before - {LOCK_NAME}


def test_an_error_of_the_disk_is_not_taken_for_a_repair() -> None:
    env = FaultEnv(without(logged(), ".manifest"))
    env.add(FaultRule(site="repair.copy.write", error=errno.EIO))
    with pytest.raises(OSError, match="Input/output") as caught:
        holdfast.repair(FOLDER, env=env)
    assert not isinstance(caught.value, holdfast.DiskFullError)
    env.clear()
    assert content_after(env.inner) == {b"k": b"v"}


def content_after(env: SimEnv) -> dict[bytes, bytes]:
    holdfast.repair(FOLDER, env=env)
    return content(env)


# --- the new folder


def test_a_new_folder_lasts_before_anything_is_in_it() -> None:
    env = FaultEnv(without(logged(), ".manifest"))
    env.make_dir("/area", site="test")
    env.sync_dir("/", site="test")
    env.add(FaultRule(site="repair.target.begin", error=errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        holdfast.repair(FOLDER, "/area/new", env=env)
    assert after_power_cut(env.inner).list_dir("/area/new") == []


def test_what_a_repair_that_was_cut_off_left_in_the_new_folder_is_removed() -> None:
    env = without(logged(), ".manifest")
    env.make_dir(TARGET, site="test")
    for name in (UNFINISHED, "00009999.table"):
        env.create(f"{TARGET}/{name}", site="test").close()
    holdfast.repair(FOLDER, TARGET, env=env)
    assert not {UNFINISHED, "00009999.table"} & set(env.list_dir(TARGET))
    assert content(env, folder=TARGET) == {b"k": b"v"}


def test_two_repairs_do_not_write_to_one_folder() -> None:
    env = without(logged(), ".manifest")
    env.make_dir(TARGET, site="test")
    lock = env.lock_file(f"{TARGET}/{LOCK_NAME}")
    with pytest.raises(holdfast.DatabaseLockedError):
        holdfast.repair(FOLDER, TARGET, env=env)
    assert env.list_dir(TARGET) == [LOCK_NAME]
    lock.release()


def test_a_folder_without_a_database_is_left_as_it_is() -> None:
    env = SimEnv(1)
    env.make_dir(FOLDER, site="test")
    env.create(f"{FOLDER}/note", site="test").close()
    with pytest.raises(FileNotFoundError, match="no database"):
        holdfast.repair(FOLDER, env=env)
    assert env.list_dir(FOLDER) == ["note"]
    with pytest.raises(TypeError, match="a path is str, not bytes"):
        holdfast.repair(b"/db", env=env)  # type: ignore[arg-type]  # that is what is refused


# --- what is said


def test_a_marker_that_is_made_anew_is_said_and_one_that_is_there_is_not() -> None:
    note = "the marker that names the manifest was made anew"
    env = without(logged(), "CURRENT.")
    report = holdfast.repair(FOLDER, env=env)
    assert report.notes == [note]
    assert (report.outcome, report.records, report.losses) == (Outcome.REPAIRED, 1, [])
    assert content(env) == {b"k": b"v"}
    env = mixed()
    report = holdfast.repair(FOLDER, env=env)
    assert note not in report.notes
    assert report.records > 0


def with_damage(env: SimEnv, value: bytes) -> SimEnv:
    """The machine with a value in its log that is another one."""
    files = files_of(env)
    (name,) = (name for name, data in files.items() if name.endswith(".wal") and value in data)
    return machine_with(files | {name: files[name].replace(value, b"?" * len(value))})


def test_where_operations_are_lost_keyspaces_stand_where_their_tables_end() -> None:
    env = SimEnv(1)
    with opened(env) as database:
        database[b"a"] = b"1"
        database.flush()
        database.keyspace("other")[b"a"] = b"2"
        database.keyspace("other").flush()
        database[b"b"] = b"is damaged"
        database[b"c"] = b"is behind it"
        env = with_damage(killed(env), b"is damaged")
    report = holdfast.repair(FOLDER, env=env)
    assert [(loss.kind, loss.count) for loss in report.losses] == [(LossKind.OPERATIONS, 2)]
    (note,) = report.notes
    assert note.endswith(": 'default' 1, 'other' 2")


def test_damage_of_a_segment_that_is_only_kept_for_changes_is_said() -> None:
    env = SimEnv(1)
    settings = DatabaseSettings(wal_keep_bytes=1 << 20, wal_segment_bytes=4 << 10)
    for life in range(2):
        with open_database(FOLDER, env=env, settings=settings) as database:
            database[b"%d" % life] = b"of life %d" % life
            for number in range(4):
                # The log goes on in another segment, so an end is not what is damaged.
                database[b"big %d" % number] = bytes(1500)
    env = with_damage(env, b"of life 0")
    report = holdfast.repair(FOLDER, env=env)
    assert [loss.kind for loss in report.losses] == [LossKind.CHANGES]
    assert report.notes == []
    assert content(env)[b"0"] == b"of life 0"
