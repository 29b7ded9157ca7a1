"""One process writes: a second open is refused at once and names the holder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

import holdfast
from holdfast import DatabaseLockedError
from tests.process.scripts import run, start

HOLD = """
database = holdfast.open(path, settings=TINY)
database[b"key"] = b"value"
database.put(b"unsynced", b"value", durability="none")
print("ready", flush=True)
sys.stdin.read()
"""


def test_another_process_holds_the_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with start(HOLD, path) as holder:
        assert holder.stdout.readline() == "ready\n"
        for read_only in (False, True):
            began = time.monotonic()
            with pytest.raises(
                DatabaseLockedError, match=rf"(?s)process {holder.pid} .*since \d{{4}}-"
            ):
                holdfast.open(str(path), read_only=read_only)
            assert time.monotonic() - began < 1.0
        holder.stdin.close()
        assert holder.wait(60) == 0
    with holdfast.open(str(path)) as database:
        assert dict(database.items()) == {b"key": b"value", b"unsynced": b"value"}


def test_this_process_holds_the_database(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with holdfast.open(str(path)) as database:
        for name in (str(path), f"{path}/", os.path.relpath(path), f"{path}/../db"):
            with pytest.raises(DatabaseLockedError, match=f"process {os.getpid()} "):
                holdfast.open(name)
        database[b"key"] = b"the refused opens harmed nothing"
        run("try: holdfast.open(path)\nexcept DatabaseLockedError: pass\nelse: sys.exit(3)", path)
        assert database.verify().ok
    with holdfast.open(str(path)) as database:
        assert len(database) == 1


READ = """
database = holdfast.open(path, read_only=True)
print(database[b"key"].decode(), flush=True)
sys.stdin.read()
"""


def test_readers_share_a_database_and_keep_writers_away(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with holdfast.open(str(path)) as database:
        database[b"key"] = b"value"
        run(
            "try: holdfast.open(path, read_only=True)\n"
            "except DatabaseLockedError: pass\nelse: sys.exit(3)",
            path,
        )
    with start(READ, path) as first, start(READ, path) as second:
        readers = (first, second)
        for reader in readers:
            assert reader.stdout.readline() == "value\n"
        with holdfast.open(str(path), read_only=True) as database:
            assert b"value" == database[b"key"]
            with pytest.raises(holdfast.ReadOnlyError):
                database[b"key"] = b"other"
        with pytest.raises(DatabaseLockedError, match="is locked ") as caught:
            holdfast.open(str(path))
        if sys.platform == "linux" and f":{os.stat(path / 'LOCK').st_ino} " in _locks():
            assert " is locked for reading by " in str(caught.value)
            assert all(f"process {reader.pid} " in str(caught.value) for reader in readers)
        first.kill()
        first.wait(60)
        with pytest.raises(DatabaseLockedError):
            holdfast.open(str(path))
        second.stdin.close()
        assert second.wait(60) == 0
    with holdfast.open(str(path)) as database:
        assert {b"key": b"value"} == dict(database.items())


def _locks() -> str:
    return Path("/proc/locks").read_text("ascii")


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_folder_that_cannot_be_written_to_is_read(tmp_path: Path, *, has_lock: bool) -> None:
    """As somebody without rights: root may write anywhere."""
    path = tmp_path / "db"
    with holdfast.open(str(path)) as database:
        database[b"table"] = b"1"
        database.flush()
        database[b"key"] = b"value"
    if not has_lock:
        (path / "LOCK").unlink()
    names = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    for file in (*path.iterdir(), path):
        file.chmod(0o555 if file == path else 0o444)
    body = """
    from holdfast.env import PosixEnv
    from holdfast.recovery import check_folder
    os.chdir(path)
    if os.getuid() == 0:
        # Once with rights, so that what is loaded later is there.
        holdfast.open(".", read_only=True).close(); check_folder(PosixEnv(), ".")
        if sys.argv[2] == "False":
            os.unlink("LOCK")
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    with holdfast.open(".", read_only=True) as database:
        print(sorted(database.items()))
    print(check_folder(PosixEnv(), ".").ok)
    try:
        holdfast.open(".")
    except PermissionError:
        print("refused")
    """
    process = start(body, path, has_lock)
    out, err = process.communicate(timeout=60)
    for file in (path, *path.iterdir()):
        file.chmod(0o755)
    assert out.splitlines() == ["[(b'key', b'value'), (b'table', b'1')]", "True", "refused"], err
    assert names == {file: file.stat().st_mtime_ns for file in path.iterdir()}


def test_a_killed_holder_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "db"
    for _ in range(3):
        with start(HOLD, path) as holder:
            assert holder.stdout.readline() == "ready\n"
            holder.kill()
            holder.wait(60)
        began = time.monotonic()
        with holdfast.open(str(path)) as database:
            assert b"value" == database[b"key"]
            assert database.verify().ok
        assert time.monotonic() - began < 10.0


def test_what_stands_in_the_lock_file_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "db"
    holdfast.open(str(path)).close()
    for note in (b"", b"1 here now\n", b"\xff" * 5000, b"-1 x y", b"99999999999999999999 a b"):
        (path / "LOCK").write_bytes(note)
        holdfast.open(str(path)).close()
    with start(HOLD, path) as holder:
        assert holder.stdout.readline() == "ready\n"
        for note in (b"", b"nonsense", b"\xff" * 5000):
            (path / "LOCK").write_bytes(note)
            with pytest.raises(DatabaseLockedError, match="another process"):
                holdfast.open(str(path))
        holder.stdin.close()


def test_many_processes_that_open_at_once_have_one_winner_each_time(tmp_path: Path) -> None:
    path = tmp_path / "db"
    body = """
    won = 0
    for turn in range(30):
        try:
            database = holdfast.open(path)
        except DatabaseLockedError:
            continue
        count = int(database.get(b"count", b"0"))
        database[b"count"] = b"%d" % (count + 1)
        database.close()
        won += 1
    print(won)
    """
    processes = [start(body, path) for _ in range(4)]
    won = 0
    for process in processes:
        with process:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            won += int(out)
    with holdfast.open(str(path)) as database:
        assert int(database[b"count"]) == won > 0
