"""Goal: a restart makes new files out of what was read and removes the old ones and nothing else; a
failure in it leaves the database as it was.

Method: databases that were killed on a simulated machine are recovered, also under injected errors;
the folder, the version and the numbers are compared before and after.
"""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from holdfast.base import (
    CorruptionError,
    DatabaseSettings,
    DiskFullError,
    FormatError,
    LimitError,
    marks_seen,
)
from holdfast.engine import open_database
from holdfast.env import CrashPoint, FaultEnv, FaultRule, SimEnv
from holdfast.manifest import VersionSet
from holdfast.memtable import Memtable
from holdfast.recovery import (
    LOCK_NAME,
    Recovery,
    check_folder,
    recover_for_reading,
    recover_for_writing,
    replay,
    restart,
    stored_settings,
)
from holdfast.recovery.restart import _recover
from tests.model.strategies import tiny

ROOMY = tiny(
    memory_bytes=16 << 20, memtable_bytes=1 << 20, wal_bytes_max=1 << 20, wal_segment_bytes=1 << 20
)


@pytest.fixture
def machine() -> SimEnv:
    """A table, ten operations that only the log holds, and a process that was killed."""
    env = SimEnv()
    database = open_database("/db", env=env, settings=ROOMY)
    database[b"old"] = b"1"
    database.flush()
    for number in range(10):
        database[b"%d" % number] = b"2"
    killed = CrashPoint(env).state("all").build()
    database.close()
    return killed


def folder(env: SimEnv) -> dict[str, bytes]:
    found = {}
    for name in env.list_dir("/db"):
        file = env.open(f"/db/{name}")
        found[name] = file.read_at(0, env.file_size(f"/db/{name}"))
        file.close()
    return found


def kinds(env: SimEnv) -> list[str]:
    return sorted(name.rpartition(".")[2] for name in env.list_dir("/db") if name[0].isdigit())


def recover(env: object, settings: DatabaseSettings | None = None) -> Recovery:
    return recover_for_writing(env, "/db", settings, create=False)  # type: ignore[arg-type]


def add(env: SimEnv, name: str) -> None:
    file = env.create(f"/db/{name}", site="test")
    file.write_at(0, b"something", site="test")
    file.sync(site="test")
    file.close()
    env.sync_dir("/db", site="test")


def content(env: SimEnv) -> list[bytes]:
    with open_database("/db", env=env, settings=ROOMY) as database:
        return list(database)


def test_what_the_log_held_is_in_a_table_and_the_old_files_are_gone(machine: SimEnv) -> None:
    before = VersionSet.recover(machine, "/db")
    old = set(machine.list_dir("/db"))
    recovery = recover(machine)
    version = recovery.version
    assert (recovery.last_seq, version.last_seq, version.keyspaces[0].flushed_seq) == (11, 11, 11)
    assert [len(level) for level in version.keyspaces[0].levels][:2] == [2, 0]
    newest, oldest = version.keyspaces[0].levels[0]
    assert (newest.seq_min, newest.seq_max, newest.entry_count) == (2, 11, 10)
    assert oldest == before.version.keyspaces[0].levels[0][0]
    assert recovery.log is not None
    assert recovery.version_set is not None
    # Ordinals go on, and everything up to here counts as durable.
    assert (version.durable_lsn, recovery.log.written_lsn) == (11, 11)
    assert version.wal_first == recovery.log.segments()[0].number
    assert recovery.numbers.next_number == version.next_number
    assert recovery.version_set.iteration == before.iteration + 1
    assert kinds(machine) == ["manifest", "table", "table", "wal"]
    gone = {name for name in old if name.endswith((".wal", ".manifest"))}
    assert not gone & set(machine.list_dir("/db"))
    assert recovery.memtables == {}
    assert recovery.settings == ROOMY
    recovery.close()
    assert machine.unreturned() == []
    assert len(content(machine)) == 11


def test_a_record_of_the_new_log_names_the_new_manifest_s_edit(machine: SimEnv) -> None:
    for make in (machine, None):
        env = make if make is not None else SimEnv()
        if make is None:
            env.make_dir("/db", site="test")
        recovery = recover_for_writing(env, "/db", ROOMY, create=True)
        assert recovery.log is not None
        assert recovery.version_set is not None
        assert recovery.log._manifest_edit() == recovery.version_set.durable_edit > 0
        recovery.close()


def test_an_empty_log_makes_no_table(machine: SimEnv) -> None:
    recover(machine).close()
    tables = [name for name in machine.list_dir("/db") if name.endswith(".table")]
    recover(machine).close()
    assert [name for name in machine.list_dir("/db") if name.endswith(".table")] == tables


def test_orphans_are_removed_and_other_files_are_not(machine: SimEnv) -> None:
    orphans = {"00000099.table", "00000098.wal", "00000097.manifest"}
    for name in (*orphans, "notes.wal", "readme.txt"):
        add(machine, name)
    recover(machine).close()
    assert not orphans & set(machine.list_dir("/db"))
    assert {"notes.wal", "readme.txt"} <= set(machine.list_dir("/db"))
    assert kinds(machine) == ["manifest", "table", "table", "wal"]


def test_an_orphan_that_cannot_be_removed_is_left(machine: SimEnv) -> None:
    for name in ("00000098.table", "00000099.table"):
        add(machine, name)
    rule = FaultRule(kind="unlink", path="00000098.table")
    before = marks_seen().get("recovery.orphan_kept", 0)
    recover(FaultEnv(machine, [rule])).close()
    assert marks_seen()["recovery.orphan_kept"] == before + 1
    assert "00000098.table" in machine.list_dir("/db")
    assert "00000099.table" not in machine.list_dir("/db")


def test_a_folder_that_cannot_be_listed_at_the_end_keeps_its_orphans(machine: SimEnv) -> None:
    add(machine, "00000199.table")
    # The last listing is the one for orphans: recovery lists, the marker lists, then they do.
    before = marks_seen().get("recovery.orphan_kept", 0)
    recover(FaultEnv(machine, [FaultRule(kind="list_dir", nth=last_listing(machine))])).close()
    assert marks_seen()["recovery.orphan_kept"] == before + 1
    assert "00000199.table" in machine.list_dir("/db")


def last_listing(machine: SimEnv) -> int:
    """How often a restart of this folder lists it."""
    copy = CrashPoint(machine).state("all").build()
    counted = [0]

    class Counting(FaultEnv):
        def list_dir(self, path: str) -> list[str]:
            counted[0] += 1
            return super().list_dir(path)

    recover(Counting(copy, [])).close()
    return counted[0]


# --- failures


SITES = [
    ("sync", "wal.segment.sync"),
    ("create", "wal.segment.create"),
    ("sync", "manifest.create.sync"),
    ("sync_dir", "manifest.marker.folder_sync"),
]


@pytest.mark.parametrize(("kind", "site"), SITES)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_restart_that_fails_loses_nothing_and_gives_its_files_back(
    machine: SimEnv, kind: str, site: str, code: int
) -> None:
    before = folder(machine)
    rule = FaultRule(kind=kind, site=site, error=code)
    with pytest.raises((OSError, DiskFullError)):
        recover(FaultEnv(machine, [rule]))
    assert machine.unreturned() == []
    after = folder(machine)
    assert {name: after[name] for name in before} == before
    if code == errno.ENOSPC and kind != "sync_dir":
        new = {name for name in after if name not in before}
        assert not new, "an attempt on a full disk leaves nothing"
    assert len(content(machine)) == 11


def test_an_attempt_on_a_full_disk_is_removed_but_not_what_was_there(machine: SimEnv) -> None:
    number = VersionSet.recover(machine, "/db").next_number
    add(machine, "notes.wal")
    before = folder(machine)
    rule = FaultRule(kind="sync", site="wal.segment.sync", error=errno.ENOSPC)
    seen = marks_seen().get("recovery.attempt_removed", 0)
    with pytest.raises(DiskFullError):
        recover(FaultEnv(machine, [rule]))
    assert marks_seen()["recovery.attempt_removed"] == seen + 1
    assert folder(machine) == before
    # The first number that the attempt gave is the next of all.
    add(machine, f"{number:08d}.table")
    with pytest.raises(DiskFullError):
        recover(FaultEnv(machine, [rule]))
    assert f"{number:08d}.table" in machine.list_dir("/db"), "it was there before"


def test_what_an_attempt_cannot_remove_is_left(machine: SimEnv) -> None:
    before = folder(machine)
    full = FaultRule(kind="sync", site="manifest.create.sync", error=errno.ENOSPC)
    stuck = FaultRule(kind="unlink", path="*.table")
    seen = marks_seen().get("recovery.orphan_kept", 0)
    with pytest.raises(OSError, match="manifest"):
        recover(FaultEnv(machine, [full, stuck]))
    assert marks_seen()["recovery.orphan_kept"] == seen + 1
    left = set(folder(machine)) - set(before)
    assert [name.rpartition(".")[2] for name in left] == ["table"]


def test_another_error_leaves_the_attempt_to_the_next_open(machine: SimEnv) -> None:
    before = folder(machine)
    rule = FaultRule(kind="sync", site="wal.segment.sync", error=errno.EIO)
    with pytest.raises(OSError):
        recover(FaultEnv(machine, [rule]))
    assert set(folder(machine)) > set(before)


def test_an_attempt_whose_manifest_became_current_is_kept(machine: SimEnv) -> None:
    rule = FaultRule(
        kind="sync_dir", site="manifest.marker.folder_sync", error=errno.ENOSPC, times=None
    )
    with pytest.raises(OSError):
        recover(FaultEnv(machine, [rule]))
    assert len([name for name in machine.list_dir("/db") if name.startswith("CURRENT.")]) == 2
    assert len(content(machine)) == 11


# --- a new database


def test_a_new_database_has_a_default_keyspace_and_a_first_segment() -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    recovery = recover_for_writing(env, "/db", None, create=True)
    version = recovery.version
    assert [(keyspace.id, keyspace.name) for keyspace in version.keyspaces.values()] == [
        (0, "default")
    ]
    assert (
        recovery.settings == DatabaseSettings() == stored_settings(VersionSet.recover(env, "/db"))
    )
    assert (recovery.last_seq, recovery.memtables) == (0, {})
    assert recovery.log is not None
    assert (recovery.log.written_lsn, version.wal_first) == (0, 2)
    assert recovery.log.segments()[0].number == 2
    assert (version.next_number, recovery.numbers.next_number) == (3, 3)
    assert kinds(env) == ["manifest", "wal"]
    recovery.close()
    assert env.unreturned() == []


def test_a_creation_that_was_cut_off_leaves_nothing_behind() -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    add(env, "00000001.manifest")
    recover_for_writing(env, "/db", ROOMY, create=True).close()
    assert "00000001.manifest" not in env.list_dir("/db")
    assert kinds(env) == ["manifest", "wal"]


def test_no_database_is_made_among_files_of_others() -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    add(env, LOCK_NAME)
    add(env, "thesis.txt")
    with pytest.raises(FormatError, match=r"'thesis\.txt'"):
        recover_for_writing(env, "/db", None, create=True)
    assert sorted(env.list_dir("/db")) == [LOCK_NAME, "thesis.txt"]
    env.unlink("/db/thesis.txt", site="test")
    recover_for_writing(env, "/db", None, create=True).close()


@pytest.mark.parametrize(
    ("kind", "site"),
    [
        ("create", "wal.segment.create"),
        ("sync", "wal.segment.sync"),
        ("sync", "manifest.edit.sync"),
        ("write", "manifest.edit.write"),
    ],
)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_creation_that_fails_gives_its_files_back_and_may_be_repeated(
    kind: str, site: str, code: int
) -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    rule = FaultRule(kind=kind, site=site, error=code)
    with pytest.raises((OSError, DiskFullError)):
        recover_for_writing(FaultEnv(env, [rule]), "/db", ROOMY, create=True)
    assert env.unreturned() == []
    recover_for_writing(env, "/db", ROOMY, create=True).close()
    assert check_folder(env, "/db").ok


# --- settings


def test_given_settings_are_in_force_unless_they_are_fixed(machine: SimEnv) -> None:
    given = replace(ROOMY, sync_interval_ms=77)
    recovery = recover_for_reading(machine, "/db", given)
    assert recovery.settings == given
    recovery = recover(machine, given)
    assert recovery.settings == given
    recovery.close()
    assert stored_settings(VersionSet.recover(machine, "/db")) == given
    before = folder(machine)
    with pytest.raises(LimitError, match="it is 8, not 512"):
        recover(machine, replace(ROOMY, wal_alignment_bytes=512))
    assert folder(machine) == before


# --- a manifest that names no log


def forget_log(env: SimEnv, *, next_number: int | None = None) -> None:
    """Make a manifest current that lost every edit after the creation."""
    found = VersionSet.recover(env, "/db")
    version = replace(found.version, wal_first=0, keyspaces={}, durable_lsn=0, last_seq=0)
    VersionSet.create(
        env, "/db", next_number or found.next_number, found.database_id, version, iteration=9
    ).close()


def replayed(env: SimEnv) -> dict[int, Memtable]:
    manifest = VersionSet.recover(env, "/db")
    return replay(env, "/db", manifest, stored_settings(manifest)).memtables


def test_a_manifest_without_a_log_beside_a_table_or_records_is_damage(machine: SimEnv) -> None:
    forget_log(machine)
    for kind in ("wal", "table"):
        with pytest.raises(
            CorruptionError, match=f"names no log, but .*{kind} holds data"
        ) as caught:
            replayed(machine)
        assert caught.value.offset == 0
        assert caught.value.file.endswith(".manifest")
        for name in machine.list_dir("/db"):
            if name.endswith(f".{kind}"):
                machine.unlink(f"/db/{name}", site="test")
    assert replayed(machine) == {}


def test_a_manifest_without_a_log_beside_an_unused_segment_is_a_creation_cut_off() -> None:
    env = SimEnv()
    env.make_dir("/db", site="test")
    recover_for_writing(env, "/db", ROOMY, create=True).close()
    forget_log(env)
    assert replayed(env) == {}
    found = replay(env, "/db", VersionSet.recover(env, "/db"), ROOMY, on_full=lambda *_: None)
    assert (found.is_tail_cut, found.records, found.payload_bytes, found.last_lsn) == (
        False,
        0,
        0,
        0,
    )
    # Half prepared when the power went.
    add(env, "00000077.wal")
    add(env, "other.wal")
    assert replayed(env) == {}


def test_an_operation_of_a_keyspace_that_never_was_is_damage_of_its_segment(
    machine: SimEnv,
) -> None:
    found = VersionSet.recover(machine, "/db")
    version = replace(found.version, keyspaces={}, next_keyspace_id=0)
    with pytest.raises(CorruptionError, match="keyspace 0, which never existed") as caught:
        replay(machine, "/db", replace(found, version=version), ROOMY)
    assert caught.value.file.endswith(".wal")
    assert caught.value.offset == 0


def test_a_memtable_is_handed_over_when_it_is_full_and_a_new_one_takes_its_place() -> None:
    """Tables are cut by what a memtable holds, not by what the log has between two looks."""
    env = SimEnv()
    database = open_database("/db", env=env, settings=ROOMY)
    for number in range(600):
        database.put(b"%03d" % number, b"x" * 1000, durability="none")
    database.sync()
    machine = CrashPoint(env).state("all").build()
    database.close()
    found = VersionSet.recover(machine, "/db")
    keyspace = found.version.keyspaces[0]
    small = replace(keyspace, settings=replace(keyspace.settings, memtable_bytes=100_000))
    manifest = replace(found, version=replace(found.version, keyspaces={0: small}))
    taken: list[tuple[int, Memtable]] = []
    result = replay(machine, "/db", manifest, ROOMY, on_full=lambda *pair: taken.append(pair))
    assert [owner for owner, _ in taken] == [0] * len(taken)
    assert len(taken) >= 2
    for _, memtable in taken:
        assert memtable.frozen
        assert memtable.bytes_used >= 100_000
    counts = [memtable.entry_count for _, memtable in taken]
    assert sum(counts) + result.memtables[0].entry_count == 600
    assert max(counts) <= 300, "not only at the end"
    assert not result.memtables[0].frozen


def test_a_restart_without_memory_at_its_end_gives_its_files_back(
    machine: SimEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(restart, "Recovery", fail)
        with pytest.raises(MemoryError) as told:
            recover(machine)
        assert machine.unreturned() == []
        assert told.value is not None
    recover(machine).close()


def test_a_delete_over_a_table_that_the_same_restart_wrote_is_kept() -> None:
    env = SimEnv()
    database = open_database("/db", env=env, settings=ROOMY)
    database[b"deleted"] = b"v"
    for number in range(600):
        database.put(b"%03d" % number, b"x" * 1000, durability="none")
    del database[b"deleted"]
    machine = CrashPoint(env).state("all").build()
    database.close()
    found = VersionSet.recover(machine, "/db")
    keyspace = found.version.keyspaces[0]
    small = replace(keyspace, settings=replace(keyspace.settings, memtable_bytes=100_000))
    manifest = replace(found, version=replace(found.version, keyspaces={0: small}))
    recovery = _recover(machine, "/db", manifest, ROOMY, {}, None)
    assert len(recovery.version.table_numbers()) >= 2
    recovery.close()
    assert content(machine) == [b"%03d" % number for number in range(600)]
