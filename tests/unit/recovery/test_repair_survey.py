"""What a repair relies on: which manifest is in force, and whether the log contradicts it."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.base import CorruptionError, FormatError, KeyspaceSettings
from holdfast.codec import checksum
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.manifest import Version, VersionEdit, VersionSet, log, manifest_name
from holdfast.manifest.edit import encode_edit
from holdfast.manifest.format import Header, encode_record
from holdfast.recovery import repair_survey
from holdfast.recovery.repair_survey import (
    NUMBER_LEAP_MAX,
    _find_manifest,
    last_iteration,
    manifest_numbers,
    next_number,
    own_numbers,
    survey,
)
from holdfast.sstable import TableInfo, table_name
from holdfast.wal import SalvagedLog
from tests.unit.wal.logs import DATABASE_ID, FOLDER, Log, bytes_of, replace_bytes


def info(number: int) -> TableInfo:
    return TableInfo(
        number=number, file_id=bytes(16), size_bytes=999, lower=b"%05d" % number,
        upper=b"%05dx" % number, seq_min=1, seq_max=5, entry_count=3, delete_count=0,
        range_tombstone_count=0, raw_bytes=9, root_checksum=0, created_us=0,
    )  # fmt: skip


@pytest.fixture
def env() -> SimEnv:
    env = SimEnv(1)
    env.make_dir(FOLDER, site="test")
    return env


def made(env: SimEnv, number: int, iteration: int = 1, *tables: int, wal_first: int = 1) -> None:
    """A manifest and its marker."""
    version = Version().apply(
        VersionEdit(
            keyspaces_created=((0, "default", KeyspaceSettings()),),
            next_keyspace_id=1,
            next_number=50,
            tables_added=tuple((0, 1, info(table)) for table in tables),
            flushed_seq={0: 5},
            last_seq=5,
            wal_first=wal_first,
        )
    )
    VersionSet.create(env, FOLDER, number, DATABASE_ID, version, iteration=iteration).close()


def found(env: SimEnv) -> tuple[int | None, bool]:
    manifest, is_marked = _find_manifest(env, FOLDER, env.list_dir(FOLDER))
    return (None if manifest is None else manifest.manifest_number), is_marked


def damage(env: SimEnv, number: int) -> None:
    path = f"{FOLDER}/{manifest_name(number)}"
    data = env.open(path).read_at(0, 1 << 20)
    env.unlink(path, site="test")
    env.create(path, site="test").write_at(0, data[:70] + b"????" + data[74:], site="test")


def change(env: SimEnv, number: int, at: int, data: bytes) -> None:
    path = f"{FOLDER}/{manifest_name(number)}"
    stored = env.open(path).read_at(0, 1 << 20)
    env.unlink(path, site="test")
    changed = stored[:at] + data + stored[at + len(data) :]
    env.create(path, site="test").write_at(0, changed, site="test")


def without_markers(env: SimEnv) -> SimEnv:
    for name in env.list_dir(FOLDER):
        if name.startswith("CURRENT"):
            env.unlink(f"{FOLDER}/{name}", site="test")
    return env


def test_the_highest_marker_names_the_manifest(env: SimEnv) -> None:
    assert found(env) == (None, False)
    made(env, 5)
    made(env, 7, 2)
    assert found(env) == (7, True)
    damage(env, 7)
    assert found(env) == (None, False)


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_manifest_of_another_format_is_damage_and_one_of_a_newer_version_is_refused(
    env: SimEnv, is_readable: bool
) -> None:
    made(env, 5)
    path = f"{FOLDER}/{manifest_name(5)}"
    data = env.open(path).read_at(0, 1 << 20)
    newer = data[:8] + b"\x09" + data[9:56]
    newer += checksum(newer).to_bytes(8, "little") + data[64:]
    faults: Any = FaultEnv(env)
    for content in (b"?" + data[1:56] + b"?" * 8 + data[64:], newer):
        env.unlink(path, site="test")
        env.create(path, site="test").write_at(0, content, site="test")
        faults.clear()
        if not is_readable:
            # The second look, at what the first one said is of another format.
            faults.add(FaultRule(kind="open", path=manifest_name(5), nth=2))
            with pytest.raises(OSError, match=manifest_name(5)):
                _find_manifest(faults, FOLDER, env.list_dir(FOLDER))
        elif content is newer:
            with pytest.raises(FormatError, match="manifest version 9"):
                _find_manifest(faults, FOLDER, env.list_dir(FOLDER))
        else:
            assert _find_manifest(faults, FOLDER, env.list_dir(FOLDER)) == (None, False)


def test_the_next_number_is_above_that_of_the_manifest_whatever_that_says(env: SimEnv) -> None:
    number = 51 + NUMBER_LEAP_MAX
    header = Header(number, DATABASE_ID, 99)
    edit = encode_edit(VersionEdit(next_number=50))
    record, _ = encode_record(edit, 1, header.chain, 99)
    file = env.create(f"{FOLDER}/{manifest_name(number)}", site="test")
    file.write_at(0, header.encode() + record, site="test")
    read = VersionSet.recover_named(env, FOLDER, 1, number, has_foreign=True)
    assert (read.version.next_number, read.next_number) == (50, number + 1)


def test_a_marker_that_is_there_twice_names_none(env: SimEnv) -> None:
    made(env, 5)
    made(env, 7, 2)
    env.create(f"{FOLDER}/CURRENT.2.5", site="test").close()
    assert found(env) == (None, False)


def test_without_a_marker_the_newest_manifest_that_is_whole_counts(env: SimEnv) -> None:
    made(env, 5)
    made(env, 7, 2)
    assert found(without_markers(env)) == (7, False)
    manifest, _ = _find_manifest(env, FOLDER, env.list_dir(FOLDER))
    assert manifest is not None
    assert manifest.iteration == 0
    damage(env, 7)
    assert found(env) == (5, False)


@pytest.mark.parametrize("lacks", ["a table", "a log"])
def test_without_a_marker_a_manifest_whose_files_are_gone_hides_the_older_ones(
    env: SimEnv, lacks: str
) -> None:
    """An older one knows less, and what it names was removed since."""
    made(env, 5)
    if lacks == "a table":
        made(env, 7, 2, 3, 4)
        env.create(f"{FOLDER}/{table_name(3)}", site="test").close()
    else:
        made(env, 7, 2, wal_first=0)
    assert found(without_markers(env)) == (None, False)
    if lacks == "a table":
        env.create(f"{FOLDER}/{table_name(4)}", site="test").close()
        assert found(env) == (7, False)


def test_a_manifest_that_is_of_another_format_is_damaged(env: SimEnv) -> None:
    """A header of which more than the magic is damaged is not told from that of another file."""
    made(env, 5)
    made(env, 7, 2)
    change(env, 7, 0, b"????????????")
    with pytest.raises(FormatError, match="not a Holdfast manifest"):
        VersionSet.recover_named(env, FOLDER, 2, 7, has_foreign=True)
    assert found(env) == (None, False)
    assert found(without_markers(env)) == (5, False)


def test_a_manifest_of_a_newer_version_that_cannot_be_read_again_ends_the_repair(
    env: SimEnv,
) -> None:
    """What the disk does not give now is not damaged: no older one is taken in its place."""
    made(env, 4)
    made(env, 5)
    without_markers(env)
    header = bytearray(env.open(f"{FOLDER}/{manifest_name(5)}").read_at(0, 64))
    header[8] = 9
    header[56:64] = checksum(bytes(header[:56])).to_bytes(8, "little")
    change(env, 5, 0, bytes(header))
    machine: Any = FaultEnv(env)
    with pytest.raises(FormatError, match="manifest version 9"):
        found(machine)
    # The first call reads it, the second one looks at its magic.
    machine.add(FaultRule(kind="open", path=manifest_name(5), nth=2, error=errno.EIO))
    with pytest.raises(OSError, match=manifest_name(5)) as caught:
        found(machine)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("number", "is_trusted"), [(49, True), (50, False), (55, False), (60 + NUMBER_LEAP_MAX, True)]
)
def test_behind_a_damaged_manifest_an_older_one_counts_only_if_no_table_is_newer(
    env: SimEnv, number: int, is_trusted: bool
) -> None:
    """The damaged one may have been in force, and name what the older one does not know."""
    made(env, 5)
    made(env, 7, 2)
    without_markers(env)
    env.create(f"{FOLDER}/{table_name(number)}", site="test").close()
    assert found(env) == (7, False)
    damage(env, 7)
    assert found(env) == (5 if is_trusted else None, False)


def test_a_file_with_a_number_that_nobody_gave_is_overlooked(env: SimEnv) -> None:
    made(env, 5)
    env.create(f"{FOLDER}/{50 + NUMBER_LEAP_MAX + 1:08d}.table", site="test").close()
    assert found(env) == (5, True)


def test_numbers_far_above_all_others_are_none_of_this_database() -> None:
    names = ["00000003.wal", "00000009.table", "x", "CURRENT.1.2"]
    edge = f"{9 + NUMBER_LEAP_MAX:08d}.table"
    beyond = f"{10 + NUMBER_LEAP_MAX:08d}.table"
    assert own_numbers([*names, beyond]) == [3, 9]
    assert own_numbers([*names, edge, beyond]) == [3, 9, 9 + NUMBER_LEAP_MAX, 10 + NUMBER_LEAP_MAX]
    assert own_numbers([*names, beyond], 10) == [3, 9, 10 + NUMBER_LEAP_MAX]
    assert own_numbers([]) == []
    assert NUMBER_LEAP_MAX == log.NUMBER_LEAP_MAX == 1 << 32
    assert own_numbers([f"{NUMBER_LEAP_MAX:08d}.table"]) == [NUMBER_LEAP_MAX]
    assert own_numbers([f"{NUMBER_LEAP_MAX + 1:08d}.table"]) == []
    assert manifest_numbers([*names, "00000004.manifest"]) == [4]


def test_the_next_number_is_above_all_that_were_given() -> None:
    assert next_number([], None) == 1
    assert next_number(["00000003.wal"], None) == 4
    manifest: Any = SimpleNamespace(version=SimpleNamespace(next_number=50))
    assert next_number(["00000003.wal"], manifest) == 51
    assert next_number(["00000060.wal"], manifest) == 61


def test_the_last_iteration_is_the_highest_marker() -> None:
    assert last_iteration(["CURRENT.3.9", "CURRENT.12.5", "00000009.wal"]) == 12
    assert last_iteration(["00000009.wal"]) == 0


def surveyed(
    env: SimEnv,
    monkeypatch: pytest.MonkeyPatch,
    log: SalvagedLog,
    *,
    edit_seq: int = 5,
    clean: bool = False,
    durable: int = 9,
) -> bool:
    """Whether a manifest is relied on beside a damaged log that says this."""
    version = SimpleNamespace(wal_first=1, edit_seq=edit_seq, clean=clean, durable_lsn=durable)
    manifest: Any = SimpleNamespace(version=version, database_id=DATABASE_ID)
    asked: list[tuple[int, bytes]] = []

    def salvage(
        env: Any, folder: str, first: int = 0, *, database_id: bytes = b"", is_unreadable: Any
    ) -> SalvagedLog:
        assert not is_unreadable("f")
        asked.append((first, database_id))
        return log

    def damaged(*_: object) -> Any:
        raise CorruptionError("f", 0, "a test")

    monkeypatch.setattr(repair_survey, "_find_manifest", lambda *_: (manifest, True))
    monkeypatch.setattr(repair_survey, "salvage_log", salvage)
    monkeypatch.setattr(repair_survey, "needed_log", damaged)
    result = survey(env, FOLDER, [])
    assert (result.log, result.is_marked) == (log, True)
    is_relied_on = result.manifest is manifest
    # Without a manifest all segments are read, also those that it did not need.
    assert asked == [(1, DATABASE_ID), (0, DATABASE_ID)][: 2 - is_relied_on]
    return is_relied_on


def test_a_manifest_that_knows_less_than_the_log_is_not_relied_on(
    env: SimEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log(edit: int, last: int) -> Any:
        return SimpleNamespace(manifest_edit=edit, lsn_last=last)

    assert surveyed(env, monkeypatch, log(5, 20))
    assert not surveyed(env, monkeypatch, log(6, 1))
    assert surveyed(env, monkeypatch, log(5, 9), clean=True)
    assert not surveyed(env, monkeypatch, log(5, 10), clean=True)
    assert not surveyed(env, monkeypatch, log(6, 9), clean=True)


def test_a_log_of_another_database_is_salvaged_and_a_newer_one_is_refused(
    env: SimEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(env, 5)
    written = Log(env, number=1)
    written.append(durable=True)
    assert survey(env, FOLDER, env.list_dir(FOLDER)).log is None

    def refused(reason: str) -> None:
        def needed(*_: object) -> Any:
            raise FormatError(reason)

        monkeypatch.setattr(repair_survey, "needed_log", needed)

    refused("a log segment of another database")
    result = survey(env, FOLDER, env.list_dir(FOLDER))
    assert result.manifest is not None
    assert result.log is not None
    assert [run.lsn_last for run in result.log.runs] == [1]
    refused("log format 9")
    with pytest.raises(FormatError):
        survey(env, FOLDER, env.list_dir(FOLDER))


def test_without_a_manifest_the_whole_log_is_salvaged(env: SimEnv) -> None:
    written = Log(env, number=1)
    written.append(durable=True)
    result = survey(env, FOLDER, env.list_dir(FOLDER))
    assert (result.manifest, result.is_marked) == (None, False)
    assert result.log is not None
    assert result.log.lsn_last == 1


@pytest.mark.parametrize("has", ["nothing", "a record", "a table"])
def test_a_manifest_without_a_log_is_that_of_a_creation_only_where_there_is_nothing(
    env: SimEnv, has: str
) -> None:
    made(env, 5, wal_first=0)
    if has == "a record":
        Log(env, number=1).append(durable=True)
    elif has == "a table":
        env.create(f"{FOLDER}/{table_name(3)}", site="test").close()
    result = survey(env, FOLDER, env.list_dir(FOLDER))
    assert (result.manifest is not None) == (has == "nothing")
    assert result.is_marked


def test_a_damaged_log_is_salvaged_from_where_the_manifest_needs_it(env: SimEnv) -> None:
    made(env, 5, wal_first=2)
    written = Log(env, number=1)
    for _ in range(4):
        written.append(b"x" * 1500, durable=True)
    image = bytearray(bytes_of(env, 2))
    image[4200] ^= 1
    replace_bytes(env, 2, bytes(image))
    result = survey(env, FOLDER, env.list_dir(FOLDER))
    assert result.manifest is not None
    assert result.log is not None
    assert {run.segment for run in result.log.runs} == {2}
