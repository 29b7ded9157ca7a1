"""Open tables and the lives of their files."""

from pathlib import Path

import pytest

import holdfast
from holdfast import CorruptionError


def test_a_table_that_is_missing_is_damage_and_not_an_absent_database(tmp_path: Path) -> None:
    """FileNotFoundError means to a caller of open that there is no database."""
    path = str(tmp_path / "db")
    with holdfast.open(path) as db:
        db[b"k"] = b"v"
    (table,) = Path(path).glob("*.table")
    table.unlink()
    with pytest.raises(CorruptionError, match="missing") as caught:
        holdfast.open(path)
    assert caught.value.file.endswith(table.name)
