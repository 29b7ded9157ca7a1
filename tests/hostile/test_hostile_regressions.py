"""Bugs that damaged folders showed, each in the smallest form."""

from __future__ import annotations

import pytest

import holdfast
from holdfast import CorruptionError
from tests.hostile.folders import (
    FOLDER,
    SMALL,
    closed_database,
    closed_with_edits,
    files_of,
    machine_with,
)


def first_edit_only(data: bytes) -> bytes:
    """Return a manifest that was cut behind its first edit."""
    return data[: data.index(b"HFER", 72)]


def test_a_manifest_that_lost_all_edits_but_the_first_is_not_a_new_database() -> None:
    """It names no log; the open for writing removed all tables and segments."""
    files, _ = closed_with_edits()
    name = "00000001.manifest"
    machine = machine_with({**files, name: first_edit_only(files[name])})
    for read_only in (True, False):
        with pytest.raises(CorruptionError, match="holds data"):
            holdfast.open(FOLDER, read_only=read_only, env=machine)
    assert files_of(machine).keys() == files.keys()


def test_a_log_that_the_manifest_lost_before_any_table_was_written_is_noticed() -> None:
    machine = machine_with({})
    with holdfast.open(FOLDER, settings=SMALL, env=machine) as database:
        database[b"key"] = b"value"
        files = files_of(machine)
    name = "00000001.manifest"
    machine = machine_with({**files, name: first_edit_only(files[name])})
    with pytest.raises(CorruptionError, match="holds data"):
        holdfast.open(FOLDER, env=machine)


def test_a_creation_that_was_cut_off_before_its_log_was_named_is_finished() -> None:
    machine = machine_with({})
    with holdfast.open(FOLDER, settings=SMALL, env=machine):
        files = files_of(machine)
    name = "00000001.manifest"
    for segment in (files["00000002.wal"], bytes(8192), b"", b"\xff" * 100):
        left = {"00000002.wal": segment, "CURRENT.1.1": b"", name: first_edit_only(files[name])}
        machine = machine_with(left)
        with holdfast.open(FOLDER, env=machine) as database:
            assert 0 == len(database)
            database[b"key"] = b"value"


def test_files_whose_names_only_look_like_ours_are_not_removed() -> None:
    files, _ = closed_database()
    mine = {"x.wal": b"mine", "1.table": b"mine", "notes.manifest": b"mine"}
    machine = machine_with({**files, **mine})
    holdfast.open(FOLDER, env=machine).close()
    assert mine.items() <= files_of(machine).items()


def test_a_file_number_that_would_use_up_all_others_is_refused() -> None:
    files, _ = closed_database()
    machine = machine_with({**files, "18446744073709551615.wal": b""})
    with pytest.raises(CorruptionError, match="no database gives this number"):
        holdfast.open(FOLDER, env=machine)
    assert not machine.unreturned()
