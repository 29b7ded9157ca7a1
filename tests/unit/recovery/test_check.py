"""Goal: a check counts what it reads, finds each damaged place of every file, and goes on.

Method: a database with tables in several levels and keyspaces, and a log, on a simulated machine;
one file after another is damaged, removed or made unreadable, and the report is compared with what
was done.
"""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from holdfast.base import CorruptionError, DatabaseLockedError
from holdfast.engine import open_database
from holdfast.env import CrashPoint, FaultEnv, FaultRule, SimEnv
from holdfast.manifest import Version, VersionEdit, VersionSet
from holdfast.recovery import Report, check_folder, check_log, check_manifest, check_tables
from holdfast.recovery.check import check_locked
from holdfast.sstable.format import FOOTER_BYTES
from tests.model.strategies import tiny

ROOMY = tiny(
    memory_bytes=16 << 20, memtable_bytes=1 << 20, wal_bytes_max=1 << 20, wal_segment_bytes=1 << 20
)


@pytest.fixture
def machine() -> SimEnv:
    """Two tables of two keyspaces, five log records behind them; the process was killed."""
    env = SimEnv()
    database = open_database("/db", env=env, settings=ROOMY)
    other = database.keyspace("other")
    for number in range(20):
        database[b"%02d" % number] = b"x" * 200
        other[b"%02d" % number] = b"y" * 50
    database.flush()
    other.flush()
    for number in range(5):
        database[b"later %d" % number] = b"z"
    killed = CrashPoint(env).state("all").build()
    database.close()
    return killed


def names(env: SimEnv, suffix: str) -> list[str]:
    return [f"/db/{name}" for name in sorted(env.list_dir("/db")) if name.endswith(suffix)]


def change(env: SimEnv, path: str, offset: int | None) -> None:
    """Flip the byte at `offset`, counted from the end when negative; None empties the file."""
    file = env.open(path)
    data = bytearray(file.read_at(0, env.file_size(path)))
    file.close()
    if offset is None:
        data.clear()
    else:
        data[offset] ^= 0xFF
    env.unlink(path, site="test")
    file = env.create(path, site="test")
    file.write_at(0, data, site="test")
    file.close()


def test_a_whole_database_is_counted(machine: SimEnv) -> None:
    told: list[tuple[int, int]] = []
    report = check_folder(machine, "/db", lambda *step: told.append(step))
    tables = names(machine, ".table")
    size = sum(machine.file_size(path) for path in tables)
    assert (report.ok, report.errors) == (True, [])
    assert (report.tables, report.entries, report.table_bytes) == (2, 40, size)
    # The segment holds what was flushed, too.
    assert (report.records, report.segments) == (45, len(names(machine, ".wal")))
    assert report.edits == VersionSet.recover(machine, "/db").version.edit_seq
    assert {total for _, total in told} == {size}
    assert sum(done for done, _ in told) == size - 2 * FOOTER_BYTES
    assert str(report) == (
        f"no damage found: 2 tables with 40 entries in {size} bytes, "
        f"45 log records in {report.segments} segments, {report.edits} manifest edits"
    )
    assert machine.unreturned() == []
    assert machine.op_log == []
    assert str(Report()) == (
        "no damage found: 0 tables with 0 entries in 0 bytes, "
        "0 log records in 0 segments, 0 manifest edits"
    )


def test_no_folder_without_a_database_is_checked() -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    with pytest.raises(FileNotFoundError, match="there is no database at /db"):
        check_folder(env, "/db")
    assert env.list_dir("/db") == [], "not even a lock is left"
    # A creation that was cut off left a manifest without a marker.
    env.create("/db/00000001.manifest", site="test").close()
    with pytest.raises(FileNotFoundError, match="there is no database at /db"):
        check_folder(env, "/db")
    assert env.unreturned() == []


def test_only_a_marker_is_left(machine: SimEnv) -> None:
    for name in machine.list_dir("/db"):
        if not name.startswith("CURRENT."):
            machine.unlink(f"/db/{name}", site="test")
    (error,) = check_folder(machine, "/db").errors
    assert error.file.endswith(".manifest")
    assert "does not exist" in error.reason


def test_an_open_database_is_not_checked_from_outside() -> None:
    env = SimEnv()
    with (
        open_database("/db", env=env, settings=ROOMY),
        pytest.raises(DatabaseLockedError),
    ):
        check_folder(env, "/db")


@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_page_does_not_keep_the_other_table_from_being_checked(
    machine: SimEnv, which: int
) -> None:
    path = names(machine, ".table")[which]
    change(machine, path, 20)
    report = check_folder(machine, "/db")
    assert [error.file for error in report.errors] == [path]
    assert (report.tables, report.records) == (2, 45)
    assert "1 damaged places: 2 tables" in str(report)
    assert machine.unreturned() == []


@pytest.mark.parametrize("offset", [-1, None])
def test_a_table_that_cannot_be_opened_is_damage_of_that_table(
    machine: SimEnv, offset: int | None
) -> None:
    first, second = names(machine, ".table")
    change(machine, first, offset)
    change(machine, second, 20)
    report = check_folder(machine, "/db")
    assert [error.file for error in report.errors] == [first, second]
    assert machine.unreturned() == []


def test_a_missing_table_is_named(machine: SimEnv) -> None:
    first, second = names(machine, ".table")
    machine.unlink(first, site="test")
    (error,) = check_folder(machine, "/db").errors
    assert (error.file, error.offset, error.reason) == (first, 0, "the table is missing")
    machine.unlink(second, site="test")
    assert len(check_folder(machine, "/db").errors) == 2


def test_a_table_that_cannot_be_read_is_named(machine: SimEnv) -> None:
    first, _ = names(machine, ".table")
    rule = FaultRule(kind="read", path=first, times=None, error=errno.EIO)
    report = check_folder(FaultEnv(machine, [rule]), "/db")
    size = machine.file_size(first)
    *_, error = report.errors
    assert {error.file for error in report.errors} == {first}
    assert error.offset < size
    assert error.reason.startswith("bytes ")
    assert error.reason.endswith(" cannot be read: Input/output error")
    assert report.tables == 2


def test_a_lock_that_cannot_be_taken_ends_the_check(machine: SimEnv) -> None:
    rule = FaultRule(kind="lock_file", times=None, error=errno.EACCES)
    with pytest.raises(PermissionError):
        check_folder(FaultEnv(machine, [rule]), "/db")


def test_a_table_that_may_not_be_opened_is_named(machine: SimEnv) -> None:
    """Which says nothing of the disk, so nothing is read around."""
    first, _ = names(machine, ".table")
    rule = FaultRule(kind="open", path=first, times=None, error=errno.EACCES)
    report = check_folder(FaultEnv(machine, [rule]), "/db")
    (error,) = report.errors
    assert (error.file, error.offset) == (first, 0)
    assert error.reason.startswith("it cannot be read: ")


def test_a_damaged_log_is_named_and_the_tables_are_checked_all_the_same(machine: SimEnv) -> None:
    (path,) = names(machine, ".wal")
    change(machine, path, 4096 + 85)
    change(machine, names(machine, ".table")[0], 20)
    report = check_folder(machine, "/db")
    assert [error.file for error in report.errors] == [path, names(machine, ".table")[0]]


def test_a_damaged_manifest_ends_the_check(machine: SimEnv) -> None:
    (path,) = names(machine, ".manifest")
    change(machine, path, 64)
    report = check_folder(machine, "/db")
    assert [error.file for error in report.errors] == [path]
    assert (report.tables, report.records, report.edits) == (0, 0, 0)
    assert machine.unreturned() == []


def test_what_only_a_replay_finds_is_found(machine: SimEnv) -> None:
    """The log is whole, but its operations are of a keyspace that the manifest never gave."""
    found = VersionSet.recover(machine, "/db")
    version = Version(edit_seq=found.version.edit_seq).apply(
        VersionEdit(
            next_number=found.next_number,
            wal_first=found.version.wal_first,
            settings_text=found.version.settings_text,
        )
    )
    VersionSet.create(
        machine, "/db", found.next_number, found.database_id, version, iteration=9
    ).close()
    (error,) = check_folder(machine, "/db").errors
    assert error.file == names(machine, ".wal")[0]
    assert error.offset == 0
    assert "which never existed" in error.reason


def test_settings_of_a_newer_version_are_told_as_damage_of_the_folder(machine: SimEnv) -> None:
    found = VersionSet.recover(machine, "/db")
    version = found.version.apply(VersionEdit(settings_text="unknown = 1\n"))
    VersionSet.create(
        machine, "/db", found.next_number, found.database_id, version, iteration=9
    ).close()
    (error,) = check_folder(machine, "/db").errors
    assert (error.file, error.offset) == ("/db", 0)
    assert "settings" in error.reason


def test_a_manifest_that_names_no_log_has_none_to_check(machine: SimEnv) -> None:
    found = VersionSet.recover(machine, "/db")
    report = Report()
    check_log(machine, "/db", replace(found, version=replace(found.version, wal_first=0)), report)
    assert report == Report()
    check_log(machine, "/db", found, report)
    assert (report.segments, report.records) == (1, 45)


def test_a_manifest_that_disagrees_with_memory_is_damage(machine: SimEnv) -> None:
    found = VersionSet.recover(machine, "/db")
    report = Report()
    assert check_manifest(machine, "/db", None, report) == found
    assert check_manifest(machine, "/db", found.version, report) == found
    assert (report.ok, report.edits) == (True, 2 * found.version.edit_seq)
    other = found.version.apply(VersionEdit(clean=True))
    assert check_manifest(machine, "/db", other, report) == found
    assert [(error.file, error.offset) for error in report.errors] == [("/db", 0)]


def test_tables_that_are_open_are_checked_all(machine: SimEnv) -> None:
    class Reader:
        def __init__(self, size: int, errors: list[CorruptionError]) -> None:
            self.info = type("Info", (), {"size_bytes": size, "entry_count": 3 * size})
            self.errors = errors

        def verify(self) -> list[CorruptionError]:
            return self.errors

    report = Report()
    damage = [CorruptionError("a", 1, "b"), CorruptionError("c", 2, "d")]
    check_tables([Reader(10, damage[:1]), Reader(5, []), Reader(1, damage[1:])], report)  # type: ignore[list-item]
    assert (report.tables, report.table_bytes, report.entries) == (3, 16, 48)
    assert report.errors == damage


def test_the_check_of_a_locked_database_gives_its_manifest(machine: SimEnv) -> None:
    report = Report()
    assert check_locked(machine, "/db", report) == VersionSet.recover(machine, "/db")
    assert report.ok
    change(machine, names(machine, ".manifest")[0], 100)
    assert check_locked(machine, "/db", report) is None
    assert not report.ok
