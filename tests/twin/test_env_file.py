"""Both twins of `holdfast.env._file` write all, and sync where they should, and say what failed."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.env import SyncError, _file_c, _file_py

TWINS = [pytest.param(_file_c, id="c"), pytest.param(_file_py, id="py")]


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def error_of(twin: Any, descriptor: int, offset: int, data: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:
        twin.write_and_sync(descriptor, "name", offset, data)
    return caught.value


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_all_bytes_are_written_at_their_place(twin: Any, descriptor: int, wrap: Any) -> None:
    assert twin.write_and_sync(descriptor, "name", 3, wrap(b"0123456789")) is None
    twin.write_and_sync(descriptor, "name", 5, wrap(b""))
    assert os.pread(descriptor, 100, 0) == b"\0\0\x000123456789"


def test_a_large_write_is_whole(twin: Any, descriptor: int) -> None:
    data = os.urandom(1 << 16) * 80
    twin.write_and_sync(descriptor, "name", 1, memoryview(data))
    assert os.pread(descriptor, len(data) + 2, 0) == b"\0" + data


def test_a_failed_write_is_no_failed_sync(twin: Any, descriptor: int, tmp_path: Path) -> None:
    reading = os.open(tmp_path / "f", os.O_RDONLY)
    cases = [
        (-1, 0, errno.EBADF, "Bad file descriptor"),
        (reading, 0, errno.EBADF, "Bad file descriptor"),
        (descriptor, -1, errno.EINVAL, "Invalid argument"),
    ]
    for number, offset, code, text in cases:
        error = error_of(twin, number, offset, b"x")
        assert isinstance(error, OSError)
        assert not isinstance(error, SyncError)
        assert (error.errno, str(error)) == (code, f"[Errno {code}] {text}")
    os.close(reading)


def test_a_full_disk_is_told_by_the_write(twin: Any) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    full = os.open("/dev/full", os.O_RDWR)
    error = error_of(twin, full, 0, b"x")
    os.close(full)
    assert type(error) is OSError
    assert error.errno == errno.ENOSPC


def test_a_failed_sync_says_so(twin: Any) -> None:
    """A device that takes everything has nothing to sync."""
    null = os.open("/dev/null", os.O_RDWR)
    error = error_of(twin, null, 0, b"x")
    os.close(null)
    assert type(error) is SyncError
    assert (error.errno, error.filename) == (errno.EINVAL, None)
    assert str(error) == "[Errno 22] Invalid argument"


def test_a_write_cut_short_goes_on_and_tells_why_it_cannot(twin: Any, descriptor: int) -> None:
    """Past the largest size of a file a write takes what fits, and then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        error = error_of(twin, descriptor, 4, b"0123456789")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert type(error) is OSError
    assert error.errno == errno.EFBIG
    assert os.pread(descriptor, 100, 0) == bytes(4) + b"012345"


@pytest.mark.parametrize("start", [0, 1, 4096, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("count", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_zeros_fill_the_range_and_nothing_else(
    twin: Any, descriptor: int, start: int, count: int
) -> None:
    os.pwrite(descriptor, b"\xff" * 400_003, 0)
    assert twin.write_zeros(descriptor, "name", start, start + count) is None
    read = os.pread(descriptor, 400_004, 0)
    assert read == b"\xff" * start + bytes(count) + b"\xff" * (400_003 - start - count)


def test_zeros_are_written_in_pieces_that_end_at_multiples_of_64_kib(
    twin: Any, descriptor: int
) -> None:
    """What one call writes lies in pages as large as the call (docs/adr/0042)."""
    if not os.path.exists("/proc/self/io"):
        pytest.skip("this system does not count the calls of a process")
    for start, end, pieces in [
        (0, 1 << 20, 16), (4096, 1 << 20, 16), (65_535, 131_073, 3), (7, 8, 1), (7, 7, 0),
    ]:  # fmt: skip
        before = calls_that_write()
        twin.write_zeros(descriptor, "name", start, end)
        assert calls_that_write() - before == pieces


def calls_that_write() -> int:
    with open("/proc/self/io", encoding="ascii") as file:
        return int(dict(line.split(": ") for line in file)["syscw"])


def test_zeros_make_a_file_grow(twin: Any, descriptor: int) -> None:
    twin.write_zeros(descriptor, "name", 4096, 300_000)
    assert os.pread(descriptor, 400_000, 0) == bytes(300_000)
    twin.write_zeros(descriptor, "name", 400_000, 4)
    assert os.fstat(descriptor).st_size == 300_000


def error_of_zeros(twin: Any, descriptor: int, start: int, end: int) -> OSError:
    with pytest.raises(OSError) as caught:
        twin.write_zeros(descriptor, "name", start, end)
    return caught.value


def test_zeros_that_cannot_be_written_say_why(twin: Any, descriptor: int, tmp_path: Path) -> None:
    reading = os.open(tmp_path / "f", os.O_RDONLY)
    full = os.open("/dev/full", os.O_RDWR) if os.path.exists("/dev/full") else -1
    cases = [
        (-1, 0, errno.EBADF),
        (reading, 0, errno.EBADF),
        (descriptor, -70_000, errno.EINVAL),
        (full, 0, errno.EBADF if full < 0 else errno.ENOSPC),
    ]
    for number, start, code in cases:
        error = error_of_zeros(twin, number, start, 100_000)
        assert (error.errno, str(error)) == (code, f"[Errno {code}] {os.strerror(code)}")
    os.close(reading)
    if full >= 0:
        os.close(full)


def test_zeros_go_as_far_as_the_system_lets_them(twin: Any, descriptor: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        error = error_of_zeros(twin, descriptor, 10, 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert error.errno == errno.EFBIG
    assert os.fstat(descriptor).st_size == 100_000


def test_what_is_not_bytes_is_refused_alike() -> None:
    for data in ("text", None, 7, memoryview(b"abcdef")[::2]):
        errors = [error_of(twin, -1, 0, data) for twin in (_file_c, _file_py)]
        assert type(errors[0]) is type(errors[1])
    strided = [error_of(twin, -1, 0, memoryview(b"abcdef")[::2]) for twin in (_file_c, _file_py)]
    assert str(strided[0]) == str(strided[1])
    assert isinstance(strided[0], BufferError)


@pytest.mark.parametrize("zeros", [False, True])
def test_a_system_that_takes_nothing_is_not_asked_for_ever(
    descriptor: int, zeros: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiled twin calls the system itself, which does not do so for any file."""
    asked = []

    def take_three_bytes_once(number: int, data: memoryview, offset: int) -> int:
        asked.append((number, bytes(data), offset))
        return 3 if len(asked) == 1 else 0

    monkeypatch.setattr(_file_py.os, "pwrite", take_three_bytes_once)
    data = bytes(10) if zeros else b"0123456789"
    error: Any = (
        error_of_zeros(_file_py, descriptor, 7, 17)
        if zeros
        else error_of(_file_py, descriptor, 7, data)
    )
    assert type(error) is OSError
    assert (error.errno, error.filename) == (errno.EIO, "name")
    assert str(error) == "[Errno 5] a write made no progress: 'name'"
    assert asked == [(descriptor, data, 7), (descriptor, data[3:], 10)]
