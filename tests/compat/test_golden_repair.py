"""Databases of earlier versions are repaired, and what their tables do not say is said."""

import json
import shutil
from pathlib import Path

import pytest

import holdfast
from holdfast import LossKind, Outcome
from tests.compat.test_golden import CASES, key_of

State = dict[str, dict[bytes, bytes]]
GOLDENS = pytest.mark.parametrize(
    "golden", CASES, ids=lambda path: f"{path.parent.name}-{path.name}"
)


def expected_of(golden: Path) -> State:
    plain = json.loads((golden.parent / "content.json").read_text(encoding="ascii"))
    return {
        name: {bytes.fromhex(key): bytes.fromhex(value) for key, value in rows}
        for name, rows in plain.items()
    }


def content(path: Path, key: bytes | None) -> State:
    with holdfast.open(path, create=False, key=key) as db:
        report = db.verify()
        assert report.ok, report.errors
        return {name: dict(db.keyspace(name).items()) for name in db.keyspaces()}


def damage(path: Path, at: int, count: int = 24) -> None:
    data = bytearray(path.read_bytes())
    for place in range(at, min(at + count, len(data))):
        data[place] ^= 0x5A
    path.write_bytes(data)


def check(report: holdfast.RepairReport, expected: State, found: State) -> None:
    assert {name for name in found if not name.startswith("table-")} == expected.keys()
    for name, rows in expected.items():
        for key in rows.keys() | found[name].keys():
            if rows.get(key) != found[name].get(key):
                assert any(loss.concerns(name, key) for loss in report.losses), (name, key)


@GOLDENS
def test_every_damaged_table_of_a_golden_database_loses_only_what_is_said(
    golden: Path, tmp_path: Path
) -> None:
    key, expected = key_of(golden), expected_of(golden)
    for table in sorted(golden.glob("*.table"))[::3]:
        folder = tmp_path / table.name
        shutil.copytree(golden, folder)
        damage(folder / table.name, table.stat().st_size // 3)
        report = holdfast.repair(folder, key=key)
        assert report.outcome is not Outcome.HEALTHY
        check(report, expected, content(folder, key))


@GOLDENS
def test_edits_that_can_still_be_read_name_the_keyspaces_of_old_tables(
    golden: Path, tmp_path: Path
) -> None:
    key, expected = key_of(golden), expected_of(golden)
    (manifest,) = golden.glob("*.manifest")
    size = manifest.stat().st_size
    for place in (size // 3, size // 2, size * 3 // 4):
        folder = tmp_path / str(place)
        shutil.copytree(golden, folder)
        damage(folder / manifest.name, place)
        with pytest.raises(holdfast.CorruptionError):
            holdfast.open(folder, key=key)
        report = holdfast.repair(folder, key=key)
        check(report, expected, content(folder, key))


@GOLDENS
def test_without_any_manifest_old_tables_are_kept_and_named(golden: Path, tmp_path: Path) -> None:
    """No row is gone, wherever it is now."""
    key, expected = key_of(golden), expected_of(golden)
    folder = tmp_path / "db"
    shutil.copytree(golden, folder)
    for manifest in folder.glob("*.manifest"):
        manifest.unlink()
    report = holdfast.repair(folder, key=key)
    kinds = {loss.kind for loss in report.losses}
    assert LossKind.ORDER in kinds
    # Newer tables say whose they are.
    assert (LossKind.NAMES in kinds) == (golden.parent.name != "v1-changed")
    assert LossKind.ENTRIES not in kinds
    found = content(folder, key)
    rows = {item for pairs in found.values() for item in pairs.items()}
    for pairs in expected.values():
        for item in pairs.items():
            # A sum of operands has no base in its table, and is in parts then.
            assert item in rows or golden.parent.name == "v1-merges"
