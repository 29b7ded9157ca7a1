"""What a repair says of a log that goes on where nothing can be read, and of operations that are
nobody's.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import holdfast
from holdfast import DatabaseSettings, LossKind, Outcome
from holdfast.engine import opening
from holdfast.env import SimEnv
from holdfast.manifest import Version, VersionEdit, VersionSet
from holdfast.recovery import RepairReport, check_folder
from tests.hostile.folders import FOLDER, files_of, machine_with

KEY = bytes(range(32))
SMALL = DatabaseSettings(wal_segment_bytes=8 << 10)
COUNT = 40


def killed(key: bytes | None) -> dict[str, bytes]:
    """The files of a database with durable commits in several segments, whose process was
    killed.
    """
    machine = SimEnv(1)
    database = holdfast.open(FOLDER, settings=SMALL, env=machine, key=key)
    for number in range(COUNT):
        database[b"%04d" % number] = b"x" * 900
    files = files_of(machine)
    machine.cut_power()
    opening._open_databases.discard(database)
    return files


def repaired(files: dict[str, bytes], key: bytes | None) -> tuple[RepairReport, dict[bytes, bytes]]:
    machine = machine_with(files)
    report = holdfast.repair(FOLDER, env=machine, key=key)
    with holdfast.open(FOLDER, env=machine, key=key, create=False) as database:
        return report, dict(database.items())


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "without its first block": lambda data: bytes(4096) + data[4096:],
    "other bytes": lambda data: b"\xff" * 4096 + data[4096:],
    "cut in its header": lambda data: data[:100],
    "cut behind its header": lambda data: data[:4096],
}


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("has_manifest", [True, False])
@pytest.mark.parametrize("how", DAMAGE)
def test_commits_of_the_last_segments_that_are_lost_are_said(
    how: str, has_manifest: bool, key: bytes | None
) -> None:
    files = killed(key)
    for name in sorted(name for name in files if name.endswith(".wal"))[2:]:
        changed = DAMAGE[how](files.pop(name))
        if changed is not None:
            files[name] = changed
    for name in [name for name in files if name.endswith(".manifest")]:
        if not has_manifest:
            files[name] = files[name][:70]
    report, found = repaired(files, key)
    assert 0 < len(found) < COUNT
    assert report.outcome is Outcome.REPAIRED_WITH_LOSS
    losses = [loss for loss in report.losses if loss.kind is LossKind.OPERATIONS]
    assert len(losses) == 1
    assert losses[0].concerns("default", b"%04d" % len(found))


@pytest.mark.parametrize(("next_id", "unknown"), [(1, [1, 2]), (2, [2])])
def test_operations_of_a_keyspace_that_never_existed_do_not_keep_the_rest_from_repair(
    next_id: int, unknown: list[int]
) -> None:
    """No writer makes them: an open refuses the log, and a repair gives back the others. Those of a
    keyspace that was dropped are no loss.
    """
    machine = machine_with(killed(None))
    with holdfast.open(FOLDER, env=machine) as database:
        other, third = database.keyspace("other"), database.keyspace("third")
        database[b"a"] = other[b"b"] = third[b"c"] = b"1"
        files = files_of(machine)
    machine = machine_with(files)
    read = VersionSet.recover(machine, FOLDER)
    default = read.version.keyspaces[0]
    edit = VersionEdit(
        keyspaces_created=((0, "default", default.settings),),
        tables_added=tuple((0, level, info) for level, info in default.tables()),
        flushed_seq={0: default.flushed_seq},
        last_seq=read.version.last_seq,
        next_keyspace_id=next_id,
        next_number=read.next_number,
        wal_first=read.version.wal_first,
        wal_first_lsn=read.version.wal_first_lsn,
        durable_lsn=read.version.durable_lsn,
        settings_text=read.version.settings_text,
    )
    VersionSet.create(
        machine,
        FOLDER,
        read.next_number,
        read.database_id,
        Version(edit_seq=read.version.edit_seq).apply(edit),
        iteration=9,
    ).close()
    with pytest.raises(holdfast.CorruptionError, match=f"keyspace {unknown[0]}, which never"):
        holdfast.open(FOLDER, env=machine)
    report = holdfast.repair(FOLDER, env=machine)
    (loss,) = report.losses
    assert (loss.kind, loss.count, loss.keyspace) == (LossKind.OPERATIONS, len(unknown), None)
    assert loss.file.endswith(".wal")
    assert f"by number: {', '.join(map(str, unknown))}. Nobody" in loss.reason
    assert report.set_aside is not None
    assert loss.file.rpartition("/")[2] in machine.list_dir(report.set_aside)
    assert check_folder(machine, FOLDER).ok
    with holdfast.open(FOLDER, env=machine, create=False) as database:
        assert database[b"a"] == b"1"
        assert len(dict(database.items())) == COUNT + 1
        assert database.keyspaces() == ["default"]
