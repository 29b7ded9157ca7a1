"""Databases that released formats wrote are opened, read, verified and written to by this version.

`tools/golden.py` wrote them, once for each version of the format. Those of `v1-aligned-*` are what
version 1 made of the settings with which version 2 began.
"""

import json
import shutil
from pathlib import Path

import pytest

import holdfast
from holdfast.base import MERGE
from holdfast.cursor import Cursor
from holdfast.manifest.reader import decode_manifest

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path for path in GOLDEN.glob("*/*") if path.is_dir())
PLAIN = [path for path in CASES if not path.parent.name.startswith("sealed")]


def key_of(golden: Path) -> bytes | None:
    return None if golden in PLAIN else bytes(range(32))


def test_there_are_golden_databases() -> None:
    assert [f"{path.parent.name}/{path.name}" for path in CASES] == [
        f"{version}/{name}"
        for version in (
            "sealed-v1",
            "v1",
            "v1-aligned-4096",
            "v1-aligned-512",
            "v1-changed",
            "v1-merges",
            "v2-4096",
            "v2-512",
        )
        for name in ("closed", "crashed")
    ]


@pytest.mark.parametrize("golden", PLAIN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_golden_database_has_the_version_that_it_is_named_by(golden: Path) -> None:
    """Manifest and log, each with the alignment in its header."""
    version, _, alignment = golden.parent.name.removeprefix("v").partition("-")
    alignment = alignment.removeprefix("aligned-")
    expected = int(alignment) if alignment.isdigit() else 8
    (manifest,) = golden.glob("*.manifest")
    header = manifest.read_bytes()[:64]
    assert int.from_bytes(header[8:12], "little") == int(version)
    assert int.from_bytes(header[12:16], "little") == (expected if version == "2" else 0)
    segments = list(golden.glob("*.wal"))
    assert segments
    for segment in segments:
        header = segment.read_bytes()[:64]
        assert int.from_bytes(header[8:12], "little") == int(version)
        assert int.from_bytes(header[12:16], "little") == expected


@pytest.mark.parametrize("golden", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_golden_database_opens_and_says_what_it_said(golden: Path, tmp_path: Path) -> None:
    expected = json.loads((golden.parent / "content.json").read_text(encoding="ascii"))
    key = key_of(golden)
    folder = tmp_path / "db"
    shutil.copytree(golden, folder)
    for read_only in (True, False, False):
        with holdfast.open(str(folder), create=False, read_only=read_only, key=key) as db:
            found = {
                name: [[key.hex(), value.hex()] for key, value in db.keyspace(name).items()]
                for name in db.keyspaces()
            }
            assert found == expected
            report = db.verify()
            assert report.ok, report.errors
    with holdfast.open(str(folder), key=key) as db:
        db[b"new"] = b"one"
    with holdfast.open(str(folder), key=key) as db:
        assert db[b"new"] == b"one"


def test_a_golden_database_with_a_key_is_sealed_in_version_1() -> None:
    for golden in CASES:
        if golden in PLAIN:
            continue
        files = [*golden.glob("*.wal"), *golden.glob("*.manifest")]
        assert len(files) > 1
        assert {path.read_bytes()[:9] for path in files} == {b"HFseal\r\n\x01"}
        tails = {path.read_bytes()[-64:-55] for path in golden.glob("*.table")}
        assert tails == {b"HFseal\r\n\x01"}
        assert {path.read_bytes()[:10] for path in golden.glob("KEYS.*")} == {b"HFkeys\r\n\x01\x00"}


@pytest.mark.parametrize("name", ["closed", "crashed"])
def test_a_golden_database_keeps_settings_that_were_changed(name: str, tmp_path: Path) -> None:
    """By an edit where it crashed, and in the one snapshot of a manifest where it was closed."""
    golden = GOLDEN / "v1-changed" / name
    (manifest,) = golden.glob("*.manifest")
    records = decode_manifest(manifest.read_bytes(), manifest.name).records
    assert any(record.edit.keyspaces_changed for record in records) == (name == "crashed")
    assert (len(records) == 1) == (name == "closed")
    folder = tmp_path / "db"
    shutil.copytree(golden, folder)
    for read_only in (True, False):
        with holdfast.open(str(folder), create=False, read_only=read_only) as db:
            plain = db.keyspace("plain", create=False)
            kept = db._engine.trees[plain.id].version.settings
            assert (kept.memtable_bytes, kept.page_bytes, kept.restart_interval) == (8192, 1024, 4)


def kinds_of(cursor: Cursor) -> set[int]:
    kinds = set()
    at = cursor.seek_first()
    while at:
        kinds.add(cursor.kind)
        at = cursor.next()
    return kinds


@pytest.mark.parametrize("name", ["closed", "crashed"])
def test_a_golden_database_of_merges_has_operands(name: str, tmp_path: Path) -> None:
    """Unfolded ones, in tables, and where it crashed in the log. They fold as they did."""
    folder = tmp_path / "db"
    shutil.copytree(GOLDEN / "v1-merges" / name, folder)
    with holdfast.open(str(folder), create=False, read_only=True) as db:
        assert db.has_merges
        views = [db.keyspace(name).view for name in db.keyspaces()]
        tables = [table for view in views for level in view.levels for table in level]
        assert any(MERGE in kinds_of(table.cursor()) for table in tables)
        replayed = any(MERGE in kinds_of(view.active.cursor()) for view in views)
        assert replayed == (name == "crashed")
    with holdfast.open(str(folder)) as db:
        before = dict(db.items())
        db.add(b"count/0")
        db.compact()
        before[b"count/0"] = b"%d" % (int(before[b"count/0"]) + 1)
        assert dict(db.items()) == before
