"""The end of a repair: what is removed, what is kept, and which manifest is in force then."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import holdfast
from holdfast.base import KeyspaceSettings, LimitError, marks_seen
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.manifest import Version, VersionEdit, VersionSet, parse_marker
from holdfast.merge import Merges
from holdfast.recovery import Loss, LossKind, Outcome, RepairReport
from holdfast.recovery.numbers import FileNumbers
from holdfast.recovery.repair_build import _remove_originals, remove_attempt
from holdfast.recovery.repair_survey import NUMBER_LEAP_MAX
from holdfast.recovery.repair_tables import Piece, Workshop
from holdfast.recovery.repair_trusted import _note_kept_segments, _note_moments, _originals, _Tables
from holdfast.recovery.restart import _remove_orphans, _settings
from holdfast.sstable import TableInfo, table_name
from tests.unit.wal.logs import Log

FOLDER, TARGET = "/db", "/new"


def info(number: int, seq: int = 5) -> TableInfo:
    return TableInfo(
        number=number, file_id=bytes(16), size_bytes=999, lower=b"a", upper=b"b", seq_min=1,
        seq_max=seq, entry_count=3, delete_count=0, range_tombstone_count=0, raw_bytes=9,
        root_checksum=0, created_us=0,
    )  # fmt: skip


def workshop(target: str = FOLDER, *names: str) -> Workshop:
    """A repair to a folder with these files."""
    env = FaultEnv(SimEnv(1))
    for folder in {FOLDER, target}:
        env.make_dir(folder, site="test")
    for name in names:
        env.create(f"{target}/{name}", site="test").close()
    return Workshop(
        env=env,
        folder=FOLDER,
        target=target,
        numbers=FileNumbers(env, 100),
        merges=Merges(None),
        report=RepairReport(FOLDER, target),
    )


def left(shop: Workshop, folder: str) -> list[str]:
    return sorted(shop.env.list_dir(folder))


OLD = ["00000001.wal", "00000002.table", "00000003.manifest", "CURRENT.1.3", "KEYS.1"]
NEW = ["00000004.table", "00000005.wal", "00000006.manifest"]


def test_an_attempt_in_place_is_removed_and_nothing_that_was_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = workshop(FOLDER, *OLD, *NEW, "00000003.table", "note")
    remove_attempt(shop, 4, OLD)
    assert left(shop, FOLDER) == sorted([*OLD, "00000003.table", "note"])
    shop = workshop(FOLDER, *OLD, *NEW, "CURRENT.2.6")
    remove_attempt(shop, 4, OLD)
    assert left(shop, FOLDER) == sorted([*OLD, *NEW, "CURRENT.2.6"]), "it may be in force"


def test_an_attempt_in_another_folder_is_removed_with_its_copies() -> None:
    shop = workshop(TARGET, "00000002.table", *NEW, "KEYS.1", "UNFINISHED", "note")
    remove_attempt(shop, 4, ["00000002.table", *OLD])
    assert left(shop, TARGET) == ["UNFINISHED", "note"]
    shop = workshop(TARGET, *NEW, "CURRENT.1.6")
    remove_attempt(shop, 4, OLD)
    assert left(shop, TARGET) == sorted([*NEW, "CURRENT.1.6"])


def test_what_cannot_be_removed_is_left_to_the_next_open() -> None:
    shop = workshop(FOLDER, *NEW)
    shop.env.add(FaultRule(kind="unlink", times=None))  # type: ignore[attr-defined]  # it is one with faults
    remove_attempt(shop, 4, [])
    assert "recovery.orphan_kept" in marks_seen()
    seen = marks_seen()["recovery.orphan_kept"]
    repaired: Any = SimpleNamespace(originals=NEW, version=Version())
    _remove_originals(shop.env, shop, repaired)
    assert marks_seen()["recovery.orphan_kept"] == seen + 1
    assert left(shop, FOLDER) == sorted(NEW)


def test_originals_go_and_so_do_tables_that_nothing_needs() -> None:
    shop = workshop(FOLDER, *OLD, *NEW, "00000007.table", "note", "KEYS.2")
    version = Version().apply(
        VersionEdit(
            keyspaces_created=((0, "default", KeyspaceSettings()),),
            next_keyspace_id=1,
            tables_added=((0, 0, info(7)),),
            flushed_seq={0: 5},
            next_number=8,
            last_seq=5,
        )
    )
    repaired: Any = SimpleNamespace(originals=["00000001.wal", "CURRENT.1.3"], version=version)
    _remove_originals(shop.env, shop, repaired)
    assert left(shop, FOLDER) == sorted(
        ["00000003.manifest", "KEYS.1", "00000005.wal", "00000006.manifest", "00000007.table"]
        + ["note", "KEYS.2"]
    )


def markers(env: SimEnv, folder: str) -> list[tuple[int, int]]:
    return [parsed for name in env.list_dir(folder) if (parsed := parse_marker(name)) is not None]


@pytest.mark.parametrize("target", [None, TARGET])
def test_the_marker_of_a_repair_is_the_next_one_or_the_first(target: str | None) -> None:
    env = SimEnv(1)
    for number in range(3):
        with holdfast.open(FOLDER, env=env) as db:
            db[b"%d" % number] = b"v"
    ((iteration, manifest),) = markers(env, FOLDER)
    path = next(f"{FOLDER}/{name}" for name in env.list_dir(FOLDER) if name.endswith(".table"))
    env.unlink(path, site="test")
    report = holdfast.repair(FOLDER, target, env=env)
    assert report.outcome is Outcome.REPAIRED_WITH_LOSS
    folder = target or FOLDER
    ((new, number),) = markers(env, folder)
    assert new == (1 if target else iteration + 1)
    assert number > manifest
    assert VersionSet.recover(env, folder).iteration == new
    assert env.unreturned() == []


# --- with a manifest


def test_tables_that_are_rebuilt_take_the_place_of_the_damaged_ones() -> None:
    shop = workshop()
    tables = _Tables(shop)
    rebuilt = Piece(info=info(100), folder=FOLDER, is_new=True)
    problems: dict[int, Any] = {2: OSError("x"), 3: OSError("y")}
    shop_any: Any = SimpleNamespace(
        problem=lambda info: problems.get(info.number),
        rebuild=lambda number, info, origin, error: rebuilt if number == 2 else None,
        report=shop.report,
    )
    tables = _Tables(shop_any)
    owner: Any = SimpleNamespace(id=4, origin=None)
    for number in (1, 2, 3):
        tables.check(owner, number, info(number))
    tables.flushed += [
        (4, Piece(info=info(101, 9), folder=FOLDER, is_new=True)),
        (4, Piece(info=info(102, 7), folder=FOLDER, is_new=True)),
        (5, Piece(info=info(103, 3), folder=FOLDER, is_new=True)),
    ]
    assert tables.kept == {table_name(1)}
    assert shop.report.tables_kept == 1
    edit = tables.edit(200)
    assert list(edit.tables_removed) == [(4, 2, 2), (4, 3, 3)]
    assert [(owner, level, each.number) for owner, level, each in edit.tables_added] == [
        (4, 2, 100), (4, 0, 101), (4, 0, 102), (5, 0, 103),
    ]  # fmt: skip
    assert (edit.flushed_seq, edit.next_number) == ({4: 9, 5: 3}, 200)


def test_what_the_repaired_database_does_not_use_is_put_aside() -> None:
    version: Any = SimpleNamespace(table_numbers=lambda: [1, 2], next_number=50)
    manifest: Any = SimpleNamespace(version=version, manifest_number=9)
    tables: Any = SimpleNamespace(kept={table_name(1)})
    edge, beyond = 50 + NUMBER_LEAP_MAX, 51 + NUMBER_LEAP_MAX
    used = [table_name(1), table_name(4), "00000008.manifest", "LOCK", table_name(edge)]
    aside = [table_name(2), "00000009.manifest", "CURRENT.1.9", "00000003.wal", table_name(beyond)]
    assert sorted(_originals([*used, *aside], manifest, tables)) == sorted(aside)


@pytest.mark.parametrize(
    ("kind", "flushed", "is_noted"),
    [
        (LossKind.OPERATIONS, (5, 7), True),
        (LossKind.OPERATIONS, (5, 5), False),
        (LossKind.ENTRIES, (5, 7), False),
        (None, (5, 7), False),
    ],
)
def test_that_keyspaces_stand_at_different_moments_is_said_when_operations_are_lost(
    kind: LossKind | None, flushed: tuple[int, int], is_noted: bool
) -> None:
    shop = workshop()
    if kind is not None:
        shop.report.lose(Loss(kind=kind, file="f", offset=0, reason="r"))
    version = Version().apply(
        VersionEdit(
            keyspaces_created=tuple((at, name, KeyspaceSettings()) for at, name in enumerate("ab")),
            flushed_seq=dict(enumerate(flushed)),
            next_keyspace_id=2,
            last_seq=9,
        )
    )
    _note_moments(shop, version)
    assert [note.partition(": ")[2] for note in shop.report.notes] == ["'a' 5, 'b' 7"] * is_noted


def test_damage_of_segments_that_are_kept_for_changes_is_a_loss_of_changes() -> None:
    shop = workshop()
    for name in ("00000002.table", "00000003.wal", "00000004.wal"):
        shop.report.damage.append(holdfast.CorruptionError(f"{FOLDER}/{name}", 7, "broken"))
    # What is needed begins with the last one: of that another loss is told.
    _note_kept_segments(shop, 4)
    (loss,) = shop.report.losses
    assert (loss.kind, loss.file, loss.offset) == (LossKind.CHANGES, f"{FOLDER}/00000003.wal", 7)
    assert loss.reason.endswith("broken")


# --- a restart


def test_settings_that_are_fixed_are_compared_with_those_of_the_first_keyspace() -> None:
    kept = holdfast.DatabaseSettings()
    version = Version().apply(
        VersionEdit(
            keyspaces_created=((0, "default", KeyspaceSettings(window_seconds=7)),),
            next_keyspace_id=1,
            settings_text=kept.to_text(),
        )
    )
    manifest: Any = SimpleNamespace(version=version)
    assert _settings(manifest, None) == kept
    given = holdfast.DatabaseSettings(keyspace=KeyspaceSettings(window_seconds=7))
    assert _settings(manifest, given) is given
    with pytest.raises(LimitError, match="window_seconds is 7 since"):
        _settings(manifest, holdfast.DatabaseSettings())
    dropped: Any = SimpleNamespace(version=replace(version, keyspaces={}))
    assert _settings(dropped, holdfast.DatabaseSettings()) == holdfast.DatabaseSettings()
    with pytest.raises(LimitError, match="wal_alignment_bytes is fixed"):
        _settings(manifest, holdfast.DatabaseSettings(wal_alignment_bytes=4096))


@pytest.mark.parametrize("kept", [0, 8192, 16384])
def test_a_restart_keeps_so_many_bytes_of_earlier_segments(kept: int) -> None:
    log = Log(number=20)
    for number in (11, 12, 13, 21):
        for suffix in ("wal", "table"):
            file = log.env.create(f"{FOLDER}/{number:08d}.{suffix}", site="test")
            file.write_at(0, bytes(8192), site="test")
            file.close()
    version_set: Any = SimpleNamespace(number=30)
    log.env.create(f"{FOLDER}/00000030.manifest", site="test").close()
    log.env.create(f"{FOLDER}/LIVE", site="test").close()
    log.env.create(f"{FOLDER}/note", site="test").close()
    _remove_orphans(log.env, FOLDER, Version(), log.writer, version_set, kept_bytes=kept)
    expected = {0: [], 8192: [13], 16384: [12, 13]}[kept]
    assert sorted(log.env.list_dir(FOLDER)) == sorted(
        [f"{number:08d}.wal" for number in [*expected, 20]] + ["00000030.manifest", "note"]
    )
