"""Databases that released formats wrote are opened, read, verified and written to by this version.

`tools/golden.py` wrote them, once for each version of the format.
"""

import json
import shutil
from pathlib import Path

import pytest

import holdfast

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path for path in GOLDEN.glob("*/*") if path.is_dir())


def test_there_are_golden_databases() -> None:
    assert [f"{path.parent.name}/{path.name}" for path in CASES] == ["v1/closed", "v1/crashed"]


@pytest.mark.parametrize("golden", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_golden_database_opens_and_says_what_it_said(golden: Path, tmp_path: Path) -> None:
    expected = json.loads((golden.parent / "content.json").read_text(encoding="ascii"))
    folder = tmp_path / "db"
    shutil.copytree(golden, folder)
    for read_only in (True, False, False):
        with holdfast.open(str(folder), create=False, read_only=read_only) as db:
            found = {
                name: [[key.hex(), value.hex()] for key, value in db.keyspace(name).items()]
                for name in db.keyspaces()
            }
            assert found == expected
            report = db.verify()
            assert report.ok, report.errors
    with holdfast.open(str(folder)) as db:
        db[b"new"] = b"one"
    with holdfast.open(str(folder)) as db:
        assert db[b"new"] == b"one"
