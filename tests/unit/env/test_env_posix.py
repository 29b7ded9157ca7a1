"""What only the real machine does: odd files, short writes, the fallbacks of other systems."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast.env import PosixEnv, data_sync, posix


@pytest.fixture
def env() -> PosixEnv:
    return PosixEnv()


def test_a_symbolic_link_is_not_followed(env: PosixEnv, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"secret")
    os.symlink(tmp_path / "target", tmp_path / "link")
    with pytest.raises(OSError, match="symbolic link"):
        env.open(str(tmp_path / "link"))
    with pytest.raises(FileExistsError):
        env.create(str(tmp_path / "link"), site="create")


def test_a_pipe_or_device_or_folder_is_refused_at_once(env: PosixEnv, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/null", str(tmp_path)):
        before = len(os.listdir("/dev/fd"))
        with pytest.raises(OSError, match="regular file"):
            env.open(path)
        assert before == len(os.listdir("/dev/fd")), "a refused file must not stay open"
    with pytest.raises(OSError, match="regular file"):
        env.lock_file(str(tmp_path / "pipe"))
    with pytest.raises(OSError, match="regular file"):
        env.lock_file(str(tmp_path))


def test_a_file_that_gets_no_other_descriptor_is_not_left_behind(
    env: PosixEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Want of descriptors is told as nothing done: a marker that is there would be in force."""
    monkeypatch.setattr(posix, "_DESCRIPTOR_MIN", 1 << 30)
    (tmp_path / "old").touch()
    before = len(os.listdir("/dev/fd"))
    for name in ("new", "old"):
        with pytest.raises(OSError):
            env.create(str(tmp_path / name), site="create")
    with pytest.raises(OSError):
        env.open(str(tmp_path / "old"))
    assert ["old"] == [path.name for path in tmp_path.iterdir()]
    assert before == len(os.listdir("/dev/fd"))


def test_no_file_gets_the_descriptor_of_a_standard_stream(
    env: PosixEnv, tmp_path: Path, root: Path
) -> None:
    program = """
import os, sys
os.closerange(0, 3)
import holdfast
with holdfast.open(sys.argv[1]) as db:
    db[b"k"] = b"v"
    try:
        print("a line for nobody" * 1000, file=sys.stderr, flush=True)
    except OSError:
        pass
    db[b"l"] = b"w"
    os._exit(0)
"""
    folder = str(tmp_path / "db.hf")
    child = subprocess.run(
        [sys.executable, "-c", program, folder],
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        check=False,
    )
    assert 0 == child.returncode
    with holdfast.open(folder, create=False) as db:
        assert {b"k": b"v", b"l": b"w"} == dict(db)

    saved = os.dup(0)
    os.close(0)
    try:
        file = env.create(str(tmp_path / "f"), site="create")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
        file.write_at(0, b"x", site="write")
        file.close()
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    assert b"x" == (tmp_path / "f").read_bytes()


def test_short_writes_are_finished(
    env: PosixEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    file = env.create(str(tmp_path / "f"), site="create")
    file.write_at(2, b"0123456789", site="write")
    assert b"\0\x000123456789" == (tmp_path / "f").read_bytes()


def test_a_write_that_makes_no_progress_is_an_error(
    env: PosixEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = env.create(str(tmp_path / "f"), site="create")
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with pytest.raises(OSError) as caught:
        file.write_at(0, b"x", site="write")
    assert errno.EIO == caught.value.errno


def test_short_reads_are_finished(
    env: PosixEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    file = env.open(str(tmp_path / "f"))
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: real(fd, min(count, 3), offset))
    assert b"123456" == file.read_at(1, 6)
    assert b"789" == file.read_at(7, 100)


def test_a_disk_that_fills_up_says_so(env: PosixEnv) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    file = posix.PosixFile("/dev/full", os.open("/dev/full", os.O_RDWR))
    with pytest.raises(OSError) as caught:
        file.write_at(0, b"x", site="write")
    assert errno.ENOSPC == caught.value.errno
    file.close()


def test_systems_without_fdatasync_or_with_a_full_sync_use_what_they_have(
    env: PosixEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    file = env.create(str(tmp_path / "f"), site="create")
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync"))
    monkeypatch.delattr(os, "fdatasync", raising=False)
    monkeypatch.setattr(posix, "_sync_data", data_sync.choose_data_sync())
    file.sync(site="sync")
    assert ["fsync"] == calls
    monkeypatch.setattr(posix, "FULL_SYNC", 51)
    monkeypatch.setattr(data_sync, "FULL_SYNC", 51)
    monkeypatch.setattr(posix, "_sync_data", data_sync.choose_data_sync())
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: calls.append(f"fcntl {command}"))
    file.sync(site="sync")
    env.sync_dir(str(tmp_path), site="sync_dir")
    assert ["fsync", "fcntl 51", "fcntl 51"] == calls


def test_descriptors_are_not_inherited(env: PosixEnv, tmp_path: Path) -> None:
    file = env.create(str(tmp_path / "f"), site="create")
    assert not os.get_inheritable(file.fileno())
    assert not os.get_inheritable(env.open(str(tmp_path / "f")).fileno())


def test_files_and_folders_are_made_for_their_owner_to_write(env: PosixEnv, tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        env.create(str(tmp_path / "f"), site="create").close()
        env.make_dir(str(tmp_path / "d"), site="make_dir")
    finally:
        os.umask(umask)
    assert 0o644 == os.stat(tmp_path / "f").st_mode & 0o777
    assert 0o755 == os.stat(tmp_path / "d").st_mode & 0o777


def test_a_wait_without_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter raises RuntimeError when there is no memory for a lock."""
    condition = posix.PosixEnv().condition(mutex := posix.PosixEnv().mutex())

    def refuse(reason: str) -> Callable[[float | None], bool]:
        def wait(timeout: float | None) -> bool:
            raise RuntimeError(reason)

        return wait

    with mutex:
        monkeypatch.setattr(condition._condition, "wait", refuse("can't allocate lock"))
        with pytest.raises(MemoryError):
            condition.wait(0.01)
        monkeypatch.setattr(condition._condition, "wait", refuse("cannot wait"))
        with pytest.raises(RuntimeError, match="cannot wait"):
            condition.wait(0.01)


def test_a_file_that_never_began_goes_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise before the first line of its construction."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    file = posix.PosixFile.__new__(posix.PosixFile)
    del file
    assert told == []
