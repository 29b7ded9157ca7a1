"""Files that are cut, extended, zeroed, swapped, gone, or somebody else's.

Every answer that a damaged database gives is the right one; every error says which file it is
about; nothing hangs, and no file that is not ours is touched.
"""

from __future__ import annotations

import pytest

import holdfast
from holdfast import CorruptionError, FormatError
from holdfast.codec import checksum
from tests.hostile.folders import (
    FOLDER,
    SMALL,
    Files,
    State,
    Verdict,
    closed_database,
    crashed_database,
    examine,
    files_of,
    machine_with,
)

DATA = (".table", ".wal", ".manifest")


@pytest.fixture(scope="module")
def closed() -> tuple[Files, State]:
    return closed_database()


@pytest.fixture(scope="module")
def crashed() -> tuple[Files, list[State]]:
    return crashed_database()


@pytest.fixture(scope="module")
def other() -> Files:
    """The files of another database with the same names."""
    return closed_database(seed=2)[0]


def data_files(files: Files) -> list[str]:
    return [name for name in files if name.endswith(DATA)]


def judge(files: Files, acceptable: list[State], name: str) -> Verdict:
    """Examine for reading and for writing; errors must name the file."""
    verdicts = [examine(files, acceptable, read_only=read_only) for read_only in (True, False)]
    for verdict in verdicts:
        for error in [*verdict.errors, *verdict.report]:
            if isinstance(error, CorruptionError):
                assert error.file.startswith(FOLDER)
                assert name in error.file or name.endswith(".manifest"), (name, error)
                assert error.offset >= 0
            else:
                assert name in str(error) or name.endswith(".manifest"), (name, error)
    assert verdicts[0].kind == verdicts[1].kind or "harmless" not in {v.kind for v in verdicts}
    return verdicts[0]


def test_a_missing_file_is_named(closed: tuple[Files, State]) -> None:
    files, state = closed
    for name in data_files(files):
        left = {other: data for other, data in files.items() if other != name}
        assert judge(left, [state], name).kind == "refused", name


def test_a_missing_marker_is_damage_and_not_a_new_database(closed: tuple[Files, State]) -> None:
    left = {name: data for name, data in closed[0].items() if not name.startswith("CURRENT")}
    with pytest.raises(CorruptionError, match="no CURRENT marker"):
        holdfast.open(FOLDER, env=machine_with(left))


def test_a_missing_lock_file_is_made_anew(closed: tuple[Files, State]) -> None:
    files, state = closed
    left = {name: data for name, data in files.items() if name != "LOCK"}
    assert examine(left, [state], read_only=False).kind == "harmless"


def cuts_of(size: int) -> list[int]:
    return sorted({0, 1, 7, 8, 63, 64, 79, 127, 128, *range(0, size, 97), size - 8, size - 1})


@pytest.mark.parametrize("suffix", DATA)
def test_a_file_that_was_cut(
    closed: tuple[Files, State], crashed: tuple[Files, list[State]], suffix: str
) -> None:
    for files, acceptable in ((closed[0], [closed[1]]), (crashed[0], crashed[1][-1:])):
        for name in data_files(files):
            if not name.endswith(suffix):
                continue
            for size in cuts_of(len(files[name])):
                verdict = judge({**files, name: files[name][:size]}, acceptable, name)
                # A manifest that was cut where edits were about to be written looks like one that
                # a crash cut; the log then knows of them, or has what they said.
                assert verdict.kind == "refused" or name.endswith(".manifest"), (name, size)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 4096, b"\xff" * 8, b"HFER" * 30], ids=len)
def test_a_file_that_was_extended(closed: tuple[Files, State], tail: bytes) -> None:
    files, state = closed
    for name in data_files(files):
        verdict = judge({**files, name: files[name] + tail}, [state], name)
        assert verdict.kind == "refused" or name.endswith(".manifest"), name
        doubled = judge({**files, name: files[name] * 2}, [state], name)
        assert doubled.kind == "refused", name


def test_zeroed_sectors(closed: tuple[Files, State], crashed: tuple[Files, list[State]]) -> None:
    for files, acceptable in ((closed[0], [closed[1]]), (crashed[0], crashed[1][-1:])):
        for name in data_files(files):
            data = files[name]
            for start in range(0, len(data), 512):
                sector = data[start : start + 512]
                if sector.strip(b"\0"):
                    changed = data[:start] + bytes(len(sector)) + data[start + 512 :]
                    allowed = acceptable
                    if name.endswith(".wal") and files is crashed[0]:
                        # The last synced records may look like ones that were never written.
                        allowed = crashed[1]
                    judge({**files, name: changed}, allowed, name)
            assert judge({**files, name: bytes(len(data))}, acceptable, name).kind == "refused"


def test_two_sectors_of_a_file_that_changed_places(closed: tuple[Files, State]) -> None:
    files, state = closed
    for name in data_files(files):
        data = files[name]
        sectors = [data[start : start + 512] for start in range(0, len(data), 512)]
        for first in range(len(sectors) - 1):
            for second in range(first + 1, min(first + 4, len(sectors))):
                if sectors[first] != sectors[second]:
                    moved = sectors.copy()
                    moved[first], moved[second] = moved[second], moved[first]
                    verdict = judge({**files, name: b"".join(moved)}, [state], name)
                    assert verdict.kind != "harmless", (name, first, second)


def test_two_tables_that_changed_places(closed: tuple[Files, State]) -> None:
    files, state = closed
    tables = [name for name in files if name.endswith(".table")]
    assert len(tables) >= 3
    for first in tables:
        for second in tables:
            if first != second:
                swapped = {**files, first: files[second]}
                assert judge(swapped, [state], first).kind == "refused"


def test_a_file_of_another_database(closed: tuple[Files, State], other: Files) -> None:
    files, state = closed
    for name in data_files(files):
        assert name in other
        assert judge({**files, name: other[name]}, [state], name).kind == "refused"


def test_a_manifest_of_another_time(closed: tuple[Files, State]) -> None:
    """A marker and manifest of an earlier process life do not bring back what was then."""
    files, state = closed
    machine = machine_with(files)
    with holdfast.open(FOLDER, env=machine) as database:
        database[b"new"] = b"value"
        database.compact()
    now = files_of(machine)
    then = {name: data for name, data in files.items() if name.endswith(("manifest", ".1.1"))}
    left = {name: data for name, data in now.items() if not name.startswith("CURRENT")}
    verdict = judge({**left, **then}, [state], next(iter(then)))
    assert verdict.kind == "refused"


def mended(data: bytes, version_at: int, checked: slice, checksum_at: int, version: int) -> bytes:
    """Return data of another format version, with the right checksum."""
    changed = bytearray(data)
    changed[version_at : version_at + 4] = version.to_bytes(4, "little")
    start, stop, _ = checked.indices(len(changed))
    found = checksum(bytes(changed[start:stop]))
    at = checksum_at % len(changed)
    changed[at : at + 8] = found.to_bytes(8, "little")
    return bytes(changed)


def of_version(name: str, data: bytes, version: int) -> bytes:
    if name.endswith(".manifest"):
        return mended(data, 8, slice(0, 56), 56, version)
    if name.endswith(".wal"):
        return mended(data, 8, slice(0, 72), 72, version)
    return mended(data, len(data) - 120, slice(-128, -8), -8, version)


def test_the_helper_mends_checksums(closed: tuple[Files, State]) -> None:
    for name in data_files(closed[0]):
        assert of_version(name, closed[0][name], 1) == closed[0][name]


@pytest.mark.parametrize("version", [0, 2, 3, 2**32 - 1])
def test_another_format_version(closed: tuple[Files, State], version: int) -> None:
    files, _ = closed
    for name in data_files(files):
        # There is a version 2: of logs and manifests for other alignments than this one's, and of
        # tables for an ingest.
        error = FormatError if version > 2 else (FormatError, CorruptionError)
        changed = {**files, name: of_version(name, files[name], version)}
        for read_only in (True, False):
            with pytest.raises(error, match=name):
                holdfast.open(FOLDER, read_only=read_only, env=machine_with(changed))


def test_a_file_of_another_kind(closed: tuple[Files, State]) -> None:
    files, state = closed
    for name in data_files(files):
        for data in (b"PK\x03\x04" * 100, b"SQLite format 3\0" * 300, b"", b"#!/bin/sh\n"):
            assert judge({**files, name: data}, [state], name).kind == "refused"
        for source in data_files(files):
            if source.rpartition(".")[2] != name.rpartition(".")[2]:
                assert judge({**files, name: files[source]}, [state], name).kind == "refused"


# -- names


def test_a_marker_that_names_nothing(closed: tuple[Files, State]) -> None:
    files, state = closed
    for marker in ("CURRENT.2.999", "CURRENT.999999.1000000"):
        verdict = examine({**files, marker: b""}, [state])
        assert verdict.kind == "refused"
        assert isinstance(verdict.errors[0], CorruptionError)


def test_two_markers(closed: tuple[Files, State]) -> None:
    files, state = closed
    (manifest,) = (name for name in files if name.endswith(".manifest"))
    (marker,) = (name for name in files if name.startswith("CURRENT."))
    iteration, number = map(int, marker.split(".")[1:])
    following = f"{number + 1:08}.manifest"
    same = {**files, f"CURRENT.{iteration}.{number + 1}": b"", following: files[manifest]}
    assert examine(same, [state]).kind == "refused"
    # An older marker was only not removed yet.
    older = f"CURRENT.{iteration - 1}.900"
    assert examine({**files, older: b""}, [state]).kind == "harmless"


@pytest.mark.parametrize(
    "name",
    ["CURRENT.", "CURRENT.1", "CURRENT.0.1", "CURRENT.01.1", "CURRENT.-1.1", "CURRENT.1.1.1"],
)
def test_a_marker_with_a_name_that_is_none(closed: tuple[Files, State], name: str) -> None:
    files, state = closed
    verdict = examine({**files, name: b""}, [state])
    assert verdict.kind == "refused"
    assert name in verdict.errors[0].file


HUGE = [2**32 + 900, 10**17, 2**63 - 1, 2**64 - 1, 2**64, 10**20 - 1, 10**20, 10**40]


@pytest.mark.parametrize("kind", ["table", "wal", "manifest"])
@pytest.mark.parametrize("number", HUGE)
def test_a_file_number_that_no_database_gives(
    closed: tuple[Files, State], number: int, kind: str
) -> None:
    """Numbers go up from the highest one, so it would use up those of all later files."""
    files, state = closed
    for read_only in (True, False):
        damaged = {**files, f"{number}.{kind}": b"what is this"}
        verdict = examine(damaged, [state], read_only=read_only)
        assert verdict.kind == ("refused" if number < 10**20 else "harmless")


@pytest.mark.parametrize(
    "name", ["00000900.table", "00000900.wal", "00000900.manifest", "00000900.wal.tmp"]
)
def test_files_that_a_crash_may_leave_are_ignored(closed: tuple[Files, State], name: str) -> None:
    files, state = closed
    for data in (b"", bytes(4096), b"\xff" * 5000, files["00000002.wal"]):
        for read_only in (True, False):
            assert examine({**files, name: data}, [state], read_only=read_only).kind == "harmless"


STRANGE = [
    "notes.txt",
    "1.table",
    "000000001.table",
    "00000001.TABLE",
    ".hidden",
    "current",
    "x.wal",
]


@pytest.mark.parametrize("name", STRANGE)
def test_files_that_are_not_ours_are_left_alone(closed: tuple[Files, State], name: str) -> None:
    files, state = closed
    machine = machine_with({**files, name: b"mine"})
    with holdfast.open(FOLDER, env=machine) as database:
        assert dict(database.items()) == state["default"]
        assert database.verify().ok
    assert files_of(machine)[name] == b"mine"


@pytest.mark.parametrize("name", STRANGE)
def test_no_database_is_made_among_files_that_are_not_ours(name: str) -> None:
    machine = machine_with({name: b"mine"})
    with pytest.raises((FormatError, CorruptionError)):
        holdfast.open(FOLDER, settings=SMALL, env=machine)
    assert {found: data for found, data in files_of(machine).items() if found != "LOCK"} == {
        name: b"mine"
    }
    assert not machine.unreturned()


def test_a_damaged_page_leaves_the_rest_readable(closed: tuple[Files, State]) -> None:
    """Only what lies in the damaged page of one table is gone."""
    files, state = closed
    for name in files:
        if name.endswith(".table"):
            data = bytearray(files[name])
            data[3] ^= 1
            machine = machine_with({**files, name: bytes(data)})
            readable = damaged = 0
            with holdfast.open(FOLDER, env=machine) as database:
                for keyspace, pairs in state.items():
                    for key, value in pairs.items():
                        try:
                            assert database.keyspace(keyspace)[key] == value
                            readable += 1
                        except CorruptionError as error:
                            assert error.file == f"{FOLDER}/{name}"
                            damaged += 1
                report = database.verify()
                assert [error.file for error in report.errors] == [f"{FOLDER}/{name}"]
                database[b"new"] = b"value"
                assert b"value" == database[b"new"]
            assert damaged > 0
            assert readable >= 0.5 * (readable + damaged)
