"""Goal: replay puts back exactly what no table holds, of keyspaces that still exist, and writes
nothing.

Method: a database is left by a power cut in known states; what replay says is compared with what
was written. Numbers, reports and settings are looked at on their own.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.base import SEQ_MAX, CorruptionError, FormatError
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, SimEnv
from holdfast.lsm import ReadView
from holdfast.manifest import VersionEdit, VersionSet
from holdfast.memtable import Memtable
from holdfast.recovery import (
    FileNumbers,
    Recovery,
    Replayed,
    Report,
    check_log,
    check_manifest,
    recover_for_reading,
    recover_for_writing,
    replay,
    stored_settings,
)
from tests.model.strategies import tiny

ROOMY = tiny(memtable_bytes=1 << 20, wal_bytes_max=1 << 20)


def opened(env: SimEnv) -> Database:
    return open_database("/db", env=env, settings=ROOMY)


def killed(env: SimEnv) -> SimEnv:
    """A machine on which only the process ended."""
    return CrashPoint(env).state("all").build()


def replayed(env: SimEnv) -> Replayed:
    manifest = VersionSet.recover(env, "/db")
    return replay(env, "/db", manifest, stored_settings(manifest))


def content(memtable: Memtable) -> dict[bytes, bytes]:
    return dict(ReadView(memtable, (), ()).cursor(SEQ_MAX))


def test_everything_that_no_table_holds_comes_back_with_its_number() -> None:
    env = SimEnv()
    database = opened(env)
    database[b"flushed"] = b"1"
    database.flush()
    database[b"a"] = b"2"
    database.put_many([(b"b", b"3"), (b"c", b"4")], durability="none")
    database.delete_range(b"c", b"d")
    found = replayed(killed(env))
    assert {b"a": b"2", b"b": b"3"} == content(found.memtables[0])
    assert (2, 5) == (found.memtables[0].seq_min, found.memtables[0].seq_max)
    assert (5, 1) == (found.last_seq, len(found.memtables))
    assert 3 == found.records, "the segment holds what was flushed, too"
    assert found.payload_bytes > 10
    assert not found.is_tail_cut
    database.close()


def test_a_keyspace_is_replayed_from_where_its_tables_end() -> None:
    env = SimEnv()
    database = opened(env)
    other = database.keyspace("other")
    for number in range(6):
        database[b"%d" % number] = b"1"
        other[b"%d" % number] = b"1"
        if number == 3:
            other.flush()
    found = replayed(killed(env))
    assert 6 == len(content(found.memtables[0]))
    assert {b"4": b"1", b"5": b"1"} == content(found.memtables[other.id])
    database.close()


def test_what_belongs_to_a_dropped_keyspace_is_left_out() -> None:
    env = SimEnv()
    database = opened(env)
    database.keyspace("doomed")[b"a"] = b"1"
    database.drop_keyspace("doomed")
    database[b"b"] = b"2"
    found = replayed(killed(env))
    assert [0] == list(found.memtables)
    assert {b"b": b"2"} == content(found.memtables[0])
    assert 2 == found.last_seq
    database.close()


def test_a_clean_close_leaves_nothing_to_replay() -> None:
    env = SimEnv()
    with opened(env) as database:
        database[b"a"] = b"1"
    found = replayed(env)
    assert 0 == found.memtables[0].entry_count
    assert 1 == found.last_seq


def test_full_memtables_are_given_away_in_order() -> None:
    env = SimEnv()
    settings = tiny(wal_bytes_max=8 << 20, memtable_bytes=16 << 10, level0_tables=64)
    database = open_database("/db", env=env, settings=settings)
    for number in range(600):
        database.put(b"%03d" % number, b"x" * 1000, durability="none")
    database.sync()
    machine = killed(env)
    database.close()
    manifest = VersionSet.recover(machine, "/db")
    taken: list[Memtable] = []
    found = replay(
        machine,
        "/db",
        manifest,
        stored_settings(manifest),
        on_full=lambda _, memtable: taken.append(memtable),
    )
    assert all(memtable.frozen for memtable in taken)
    tables = [*taken, found.memtables[0]]
    spans = [(table.seq_min, table.seq_max) for table in tables if table.seq_min]
    assert spans == sorted(spans)
    assert 600 == found.last_seq


def test_a_memtable_is_full_at_its_limit_as_it_is_for_a_commit() -> None:
    env = SimEnv()
    database = opened(env)
    for number in range(20):
        database.put(b"%02d" % number, b"x" * 1000, durability="none")
    database.sync()
    machine = killed(env)
    database.close()
    manifest = VersionSet.recover(machine, "/db")
    used = replayed(machine).memtables[0].bytes_used
    for limit, taken in ((used, 1), (used + 1, 0)):
        keyspace = manifest.version.keyspaces[0]
        keyspace = replace(keyspace, settings=replace(keyspace.settings, memtable_bytes=limit))
        version = replace(manifest.version, keyspaces={0: keyspace})
        full: list[Memtable] = []
        replay(
            machine,
            "/db",
            replace(manifest, version=version),
            stored_settings(manifest),
            on_full=lambda _, memtable, full=full: full.append(memtable),  # type: ignore[misc]  # mypy cannot infer it
        )
        assert taken == len(full), limit


def test_a_torn_tail_is_cut_and_said() -> None:
    env = SimEnv()
    database = opened(env)
    database[b"a"] = b"1"
    points: list[CrashPoint] = []
    env.observer = lambda _: points.append(CrashPoint(env))
    database[b"b"] = b"x" * 3000
    env.observer = None
    torn = list(points[0].states(("torn-last",)))
    assert torn
    cut = 0
    for state in torn:
        found = replayed(state.build())
        assert b"1" == content(found.memtables[0])[b"a"]
        cut += found.is_tail_cut
    assert cut
    database.close()


def test_reading_and_replaying_write_nothing() -> None:
    env = SimEnv()
    database = opened(env)
    database[b"a"] = b"1"
    machine = killed(env)
    database.close()
    recovery = recover_for_reading(machine, "/db", None)
    assert {b"a": b"1"} == content(recovery.memtables[0])
    assert (1, None, None) == (recovery.last_seq, recovery.log, recovery.version_set)
    recovery.close()
    assert [] == machine.op_log
    assert [] == machine.unreturned()


def test_a_recovery_that_nobody_took_gives_its_files_back() -> None:
    env = SimEnv()
    database = opened(env)
    database[b"a"] = b"1"
    machine = killed(env)
    database.close()
    recovery: Recovery = recover_for_writing(machine, "/db", None, create=False)
    assert machine.unreturned()
    recovery.close()
    assert [] == machine.unreturned()
    with opened(machine) as database:
        assert b"1" == database[b"a"]


@pytest.mark.parametrize("writing", [False, True])
def test_an_absent_database_is_not_found(writing: bool) -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    before = env.op_count
    with pytest.raises(FileNotFoundError, match="/db"):
        if writing:
            recover_for_writing(env, "/db", None, create=False)
        else:
            recover_for_reading(env, "/db", None)
    assert before == env.op_count


def test_numbers_go_up() -> None:
    numbers = FileNumbers(SimEnv(), 7)
    assert [7, 8, 9] == [numbers.allocate() for _ in range(3)]
    assert 10 == numbers.next_number


def test_settings_of_a_newer_version_are_a_format_error() -> None:
    env = SimEnv()
    opened(env).close()
    manifest = VersionSet.recover(env, "/db")
    assert ROOMY == stored_settings(manifest)
    for text in ("unknown = 1\n", "memory_bytes = 'x'\n", "not toml ]"):
        version = manifest.version.apply(VersionEdit(settings_text=text))
        with pytest.raises(FormatError, match="settings"):
            stored_settings(replace(manifest, version=version))


# --- reports


def test_a_report_says_what_was_read() -> None:
    env = SimEnv()
    with opened(env) as database:
        database[b"a"] = b"1"
        database.flush()
        database[b"b"] = b"1"
        report = database.verify()
    assert report.ok
    assert (1, 1) == (report.tables, report.entries)
    assert report.records == 2
    assert report.segments == 1
    assert report.edits > 0
    assert report.table_bytes > 100
    assert str(report).startswith("no damage found: 1 tables with 1 entries")


def test_damage_of_the_log_and_of_the_manifest_is_listed() -> None:
    env = SimEnv()
    database = opened(env)
    database[b"a"] = b"1"
    database[b"b"] = b"1"
    machine = killed(env)
    database.close()
    manifest = VersionSet.recover(machine, "/db")
    report = Report()
    assert manifest == check_manifest(machine, "/db", manifest.version, report)
    check_log(machine, "/db", manifest, report)
    assert report.ok
    assert 2 == report.records

    other = manifest.version.apply(VersionEdit(settings_text="other"))
    check_manifest(machine, "/db", other, report)
    assert ["does not say" in str(error) for error in report.errors] == [True]

    damage(machine, ".wal", 4096 + 85)
    report = Report()
    check_log(machine, "/db", manifest, report)
    assert [CorruptionError] == [type(error) for error in report.errors]
    assert "1 damaged places" in str(report)

    damage(machine, ".manifest", 0)
    report = Report()
    assert check_manifest(machine, "/db", manifest.version, report) is None
    assert not report.ok


def damage(env: SimEnv, suffix: str, offset: int) -> None:
    """Change one byte of the file with this suffix."""
    (name,) = [name for name in env.list_dir("/db") if name.endswith(suffix)]
    path = f"/db/{name}"
    data = bytearray(env.open(path).read_at(0, env.file_size(path)))
    data[offset] ^= 0xFF
    env.unlink(path, site="test")
    file = env.create(path, site="test")
    file.write_at(0, data, site="test")
    file.close()
