"""The lock of `PosixEnv` against real processes: a second one, a killed one, a forked one."""

import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import DatabaseLockedError
from holdfast.env import PosixEnv, posix

HOLDER = """
import sys
from holdfast.env import PosixEnv
lock = PosixEnv().lock_file(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "LOCK")


@pytest.fixture
def holder(path: str) -> Iterator[subprocess.Popen[str]]:
    """A second process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def run_in_child(function: object) -> int:
    """Fork; return what `function()` returned in the child, 99 when it raised."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = function()  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def try_lock(path: str) -> int:
    """Return 0 when the lock could be taken, 1 when it is held."""
    try:
        PosixEnv().lock_file(path).release()
    except DatabaseLockedError:
        return 1
    return 0


def test_a_lock_held_by_another_process_is_refused_and_names_it(
    path: str, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(DatabaseLockedError) as caught:
        PosixEnv().lock_file(path)
    message = str(caught.value)
    assert path in message
    assert f"process {holder.pid} " in message
    if os.path.exists("/proc/self/cmdline"):
        assert os.path.basename(sys.executable) in message


def test_a_lock_is_free_after_its_holder_was_killed(
    path: str, holder: subprocess.Popen[str]
) -> None:
    assert try_lock(path) == 1
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    stale = Path(path).read_text()
    assert stale.startswith(f"{holder.pid} ")
    lock = PosixEnv().lock_file(path)
    assert Path(path).read_text().startswith(f"{os.getpid()} ")
    lock.release()


def test_a_lock_held_by_this_process_is_refused(path: str) -> None:
    lock = PosixEnv().lock_file(path)
    assert try_lock(path) == 1
    lock.release()
    assert try_lock(path) == 0


def test_a_shared_lock_changes_nothing_and_needs_the_file(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        PosixEnv().lock_file(path, shared=True)
    assert not os.path.exists(path)
    Path(path).write_text("1 elsewhere 2026-01-01T00:00:00Z\n")
    os.chmod(path, 0o444)
    before = os.stat(path)
    first, second = (PosixEnv().lock_file(path, shared=True) for _ in range(2))
    after = os.stat(path)
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    first.release()
    assert not first.is_held
    assert second.is_held
    os.chmod(path, 0o644)
    assert try_lock(path) == 1
    second.release()
    assert try_lock(path) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1: FLOCK  ADVISORY  READ {pid} {file} 0 EOF", "for reading by process {pid}"),
        ("1: FLOCK  ADVISORY  READ 0 {file} 0 EOF", "for reading by another process"),
        ("1: FLOCK  ADVISORY  READ x {file} 0 EOF", "for reading by another process"),
        ("1: FLOCK  ADVISORY  WRITE 1 {file} 0 EOF", "by another process"),
        ("1: POSIX  ADVISORY  READ 1 {file} 0 EOF", "by another process"),
        ("1: FLOCK  ADVISORY  READ 1 {file}1 0 EOF", "by another process"),
        ("nonsense", "by another process"),
        (None, "by another process"),
    ],
)
def test_who_reads_is_asked_of_the_kernel_and_not_tried(
    path: str, monkeypatch: pytest.MonkeyPatch, line: str | None, message: str
) -> None:
    """A try would be a lock, which keeps others out: nobody is refused for who was refused."""
    Path(path).touch()
    reader = PosixEnv().lock_file(path, shared=True)
    found = os.stat(path)
    number = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"

    def opened(name: str, *rest: Any, **named: Any) -> Any:
        if name != "/proc/locks":
            return open(name, *rest, **named)
        if line is None:
            raise FileNotFoundError(name)
        return io.StringIO(line.format(pid=os.getpid(), file=number))

    monkeypatch.setattr(posix, "open", opened, raising=False)
    tries = []
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (tries.append(how), flock(file, how)))
    with pytest.raises(DatabaseLockedError) as caught:
        PosixEnv().lock_file(path)
    assert f"{path} is locked {message.format(pid=os.getpid())}" in str(caught.value)
    assert tries == [fcntl.LOCK_EX | fcntl.LOCK_NB]
    reader.release()


def test_releasing_twice_does_nothing_and_the_file_stays(path: str) -> None:
    lock = PosixEnv().lock_file(path)
    lock.release()
    again = PosixEnv().lock_file(path)
    lock.release()
    assert try_lock(path) == 1
    again.release()
    assert Path(path).exists()


@pytest.mark.parametrize("shared", [False, True])
def test_a_forked_child_does_not_keep_the_lock(path: str, *, shared: bool) -> None:
    Path(path).touch()
    lock = PosixEnv().lock_file(path, shared=shared)
    ready_read, ready_write = os.pipe()
    end_read, end_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end_write)
        os.write(ready_write, b"x")
        os.read(end_read, 1)
        os._exit(0)
    try:
        assert os.read(ready_read, 1) == b"x"
        assert try_lock(path) == 1
        lock.release()
        assert try_lock(path) == 0, "the living child still holds the parent's lock"
    finally:
        os.write(end_write, b"x")
        os.waitpid(pid, 0)
        for descriptor in (ready_read, ready_write, end_read, end_write):
            os.close(descriptor)


def test_the_end_of_a_forked_child_does_not_release_the_lock(path: str) -> None:
    lock = PosixEnv().lock_file(path)
    assert run_in_child(lambda: 0) == 0
    assert try_lock(path) == 1
    lock.release()


def test_a_forked_child_releasing_its_copy_does_not_release_the_lock(path: str) -> None:
    lock = PosixEnv().lock_file(path)

    def release() -> int:
        lock.release()
        return try_lock(path)

    assert run_in_child(release) == 1
    lock.release()


def test_a_forked_child_runs_the_fork_callbacks_that_are_still_alive(path: str) -> None:
    env = PosixEnv()
    calls: list[str] = []

    class Owner:
        def closed(self) -> None:
            calls.append("method")

    def function() -> None:
        calls.append("function")

    def dropped() -> None:
        calls.append("dropped")

    owner, gone = Owner(), Owner()
    for callback in (owner.closed, gone.closed, function, dropped):
        env.on_fork(callback)
    del gone, dropped, callback
    assert run_in_child(lambda: 0 if calls == ["method", "function"] else 1) == 0
    assert calls == []


def test_a_lock_is_not_inherited_by_a_started_program(path: str) -> None:
    lock = PosixEnv().lock_file(path)
    process = subprocess.Popen(["sleep", "30"], close_fds=False)
    lock.release()
    assert try_lock(path) == 0
    process.kill()
    process.wait()


def test_a_lock_file_that_is_a_symbolic_link_is_refused(path: str, tmp_path: Path) -> None:
    os.symlink(str(tmp_path / "victim"), path)
    with pytest.raises(OSError, match="symbolic link"):
        PosixEnv().lock_file(path)
    assert not (tmp_path / "victim").exists()


def test_a_lock_file_replaced_while_it_is_taken_is_taken_anew(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    unlinked: list[str] = []

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if not unlinked:
            unlinked.append(path)
            os.unlink(path)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = PosixEnv().lock_file(path)
    assert unlinked and try_lock(path) == 1
    lock.release()


def test_a_lock_file_that_keeps_being_replaced_is_given_up(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        os.unlink(path)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="keeps being replaced"):
        PosixEnv().lock_file(path)


def test_a_file_system_without_locks_says_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="no locks"):
        PosixEnv().lock_file(path)
    assert before == len(os.listdir("/dev/fd"))


def test_the_fork_hook_drops_locks_and_tells_owners(path: str) -> None:
    """The hook itself, run in this process, where its effect can be seen."""
    env = PosixEnv()
    lock = env.lock_file(path)
    calls: list[str] = []

    def callback() -> None:
        calls.append("told")

    env.on_fork(callback)
    posix._after_fork_in_child()
    assert ["told"] == calls
    assert try_lock(path) == 0
    lock.release()


@pytest.mark.parametrize("pid", [999_999_999, 0])
def test_a_note_of_a_process_that_cannot_be_seen_still_names_it(path: str, pid: int) -> None:
    lock = PosixEnv().lock_file(path)
    Path(path).write_text(f"{pid} {os.uname().nodename} 2026-01-01T00:00:00Z\n")
    with pytest.raises(DatabaseLockedError, match=f"process {pid} since 2026"):
        PosixEnv().lock_file(path)
    lock.release()


def test_a_note_that_cannot_be_read_names_nobody(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = PosixEnv().lock_file(path)

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(DatabaseLockedError, match="locked by another process"):
        PosixEnv().lock_file(path)
    lock.release()


@pytest.mark.parametrize(
    "note", [b"", b"garbage", b"\xff\xfe 1 2", b"12 otherhost then", b"x" * 4096]
)
def test_an_unreadable_note_still_gives_a_message(path: str, note: bytes) -> None:
    lock = PosixEnv().lock_file(path)
    Path(path).write_bytes(note)
    with pytest.raises(DatabaseLockedError, match="is locked by"):
        PosixEnv().lock_file(path)
    lock.release()
