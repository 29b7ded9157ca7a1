"""Symbolic links, pipes and folders in the place of files, on a real file system.

Nothing outside the folder is read or written, no open waits for a writer of a pipe, and the error
names the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast import CorruptionError, FormatError
from tests.hostile.folders import Files, State, bounded, closed_database

KINDS: dict[str, Callable[[Path, Path], object]] = {
    "a link to the file itself": lambda path, aside: path.symlink_to(aside),
    "a link to nothing": lambda path, aside: path.symlink_to(aside.with_name("nothing")),
    "a link to itself": lambda path, aside: path.symlink_to(path.name),
    "a pipe": lambda path, aside: os.mkfifo(path),
    "a folder": lambda path, aside: path.mkdir(),
    "a device": lambda path, aside: path.symlink_to("/dev/zero"),
}


@pytest.fixture(scope="module")
def closed() -> tuple[Files, State]:
    return closed_database()


@pytest.fixture
def folder(closed: tuple[Files, State], tmp_path: Path) -> Path:
    made = tmp_path / "db"
    made.mkdir()
    for name, data in closed[0].items():
        (made / name).write_bytes(data)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read_only", [True, False], ids=["for reading", "for writing"])
def test_something_else_in_the_place_of_a_file(
    folder: Path, closed: tuple[Files, State], kind: str, read_only: bool
) -> None:
    # The manifest first: an open for writing may go to a new one before a table is missed.
    for name in sorted(closed[0], key=lambda name: (".manifest" not in name, name)):
        if name.startswith("CURRENT"):
            continue
        path, aside = folder / name, folder.parent / name
        path.rename(aside)
        KINDS[kind](path, aside)
        before = aside.read_bytes()
        with bounded(), pytest.raises((CorruptionError, FormatError, OSError), match=name):
            holdfast.open(str(folder), read_only=read_only)
        assert aside.read_bytes() == before
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        aside.rename(path)
    with holdfast.open(str(folder)) as database:
        assert dict(database.items()) == closed[1]["default"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["00000900.table", "00000900.wal", "00000900.manifest"])
def test_something_else_with_the_name_of_an_orphan(
    folder: Path, closed: tuple[Files, State], kind: str, name: str
) -> None:
    """What cannot be removed stays, and what is removed is a name, never its target."""
    aside = folder.parent / "aside"
    aside.write_bytes(b"mine")
    KINDS[kind](folder / name, aside)
    with bounded():
        for read_only in (True, False):
            try:
                with holdfast.open(str(folder), read_only=read_only) as database:
                    assert dict(database.items()) == closed[1]["default"]
                    assert database.verify().ok
            except OSError as error:
                assert name in str(error)
    assert aside.read_bytes() == b"mine"


@pytest.mark.parametrize("kind", KINDS)
def test_something_else_with_the_name_of_a_marker(
    folder: Path, closed: tuple[Files, State], kind: str
) -> None:
    """A marker is a name; what it is the name of does not matter."""
    (marker,) = folder.glob("CURRENT.*")
    iteration, number = marker.name.split(".")[1:]
    KINDS[kind](folder / f"CURRENT.{int(iteration) + 1}.{number}", folder.parent / "aside")
    with bounded(), holdfast.open(str(folder)) as database:
        assert dict(database.items()) == closed[1]["default"]


def test_a_path_that_is_not_a_folder(tmp_path: Path) -> None:
    plain, pipe = tmp_path / "plain", tmp_path / "pipe"
    plain.write_bytes(b"mine")
    os.mkfifo(pipe)
    for path in plain, pipe, plain / "below":
        with bounded(), pytest.raises(OSError):
            holdfast.open(str(path))
    assert plain.read_bytes() == b"mine"


def test_a_folder_behind_a_link_is_the_same_database(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    with holdfast.open(str(link)) as database:
        with pytest.raises(holdfast.DatabaseLockedError):
            holdfast.open(str(folder))
        database[b"new"] = b"value"
    with holdfast.open(str(folder)) as database:
        assert b"value" == database[b"new"]


def test_a_folder_that_nobody_may_write_to(folder: Path, closed: tuple[Files, State]) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    folder.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            holdfast.open(str(folder))
    finally:
        folder.chmod(0o700)
    with holdfast.open(str(folder)) as database:
        assert dict(database.items()) == closed[1]["default"]
