"""How `LogWriter` makes its segments: filled with zeros ahead while the log is synced often, and
each at most four times as large as the one before.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest

from holdfast.base import PUT, DiskFullError, marks_seen
from holdfast.env import SimEnv
from holdfast.wal import RecordBuffer
from holdfast.wal.format import record_bytes
from holdfast.wal.writer import ZEROED_SYNC_BYTES
from tests.unit.wal.logs import FOLDER, Log, records

SEGMENT_BYTES = 4 << 20
CHUNK = bytes(32 << 10)


class NotingEnv:
    """Says of every segment whether it was filled with zeros."""

    def __init__(self) -> None:
        self.inner = SimEnv(1)
        self.zeroed: dict[str, bool] = {}
        self.refuses = False
        """Whether there is no room for another segment."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create(self, path: str, *, site: str) -> Any:
        if self.refuses:
            raise OSError(errno.ENOSPC, "no room")
        return NotingFile(self.inner.create(path, site=site), self.zeroed)


class NotingFile:
    def __init__(self, inner: Any, zeroed: dict[str, bool]) -> None:
        self.inner = inner
        self.zeroed = zeroed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def allocate(self, size: int, *, written: bool, site: str) -> None:
        self.zeroed[self.inner.name.rpartition("/")[2]] = written
        self.inner.allocate(size, written=written, site=site)


@pytest.fixture
def log() -> Log:
    return Log(NotingEnv(), segment_bytes=SEGMENT_BYTES)


def write(log: Log, count: int, *, durable: bool) -> None:
    """Append as the engine does: it asks after each group whether a segment is wanted."""
    for _ in range(count):
        log.append(CHUNK, durable=durable)
        if log.writer.needs_next:
            log.writer.prepare_next()


def names(*numbers: int) -> list[str]:
    return [f"{number:08d}.wal" for number in numbers]


def test_a_log_that_is_synced_often_has_zeros_ahead(log: Log) -> None:
    write(log, 100, durable=True)
    assert list(log.env.zeroed.items()) == [(name, True) for name in names(1, 2, 3)]
    assert log.writer.bytes_allocated == (1 << 20) + 2 * SEGMENT_BYTES


def test_a_log_that_is_not_synced_is_not_written_twice(log: Log) -> None:
    write(log, 100, durable=False)
    zeroed = log.env.zeroed
    assert zeroed.pop(names(1)[0]), "nobody knew yet"
    assert list(zeroed.items()) == [(name, False) for name in names(2, 3)]
    assert log.writer.bytes_allocated == 1 << 20
    log.writer.sync()
    assert records(log.read()) == log.written


def test_syncs_of_large_batches_are_rare_ones(log: Log) -> None:
    for _ in range(12):
        log.append(bytes(ZEROED_SYNC_BYTES), durable=True)
        if log.writer.needs_next:
            log.writer.prepare_next()
    assert not log.env.zeroed[names(2)[0]]


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("more", [0, 8])
def test_a_sync_in_just_so_many_bytes_is_often_enough(log: Log, more: int, durable: bool) -> None:
    """However it was made: with the record, or behind it."""
    size = ZEROED_SYNC_BYTES + more
    empty = RecordBuffer()
    empty.append_op(PUT, 1, b"key", bytes(size))
    log.append(bytes(2 * size - record_bytes(empty.size, 8)), durable=durable)
    log.writer.sync()
    assert log.writer.bytes_logged == size
    assert log.writer.needs_next
    log.writer.prepare_next()
    assert log.env.zeroed[names(2)[0]] == (more == 0)


def test_a_log_whose_syncs_become_frequent_gets_zeros_soon(log: Log) -> None:
    """The segment at hand and the one that was ready are left for one with zeros."""
    write(log, 40, durable=False)
    zeroed = log.env.zeroed
    assert [segment.number for segment in log.writer.segments()] == [1, 2]
    write(log, 64, durable=False)
    assert not zeroed[names(3)[0]], "it is ready"
    write(log, 32, durable=True)
    assert names(3)[0] not in log.sim.list_dir(FOLDER), "it was given up"
    assert "wal.segment_replaced" in marks_seen()
    assert zeroed[names(4)[0]]
    assert [segment.number for segment in log.writer.segments()] == [1, 2, 4]
    log.writer.sync()
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("leaves", ["for a record that does not fit", "at will"])
def test_no_room_for_the_next_one_does_not_refuse_what_fits(leaves: str) -> None:
    """The one with zeros, for which the segment at hand was to be left early, was given up."""
    env = NotingEnv()
    log = Log(env, segment_bytes=SEGMENT_BYTES)
    write(log, 40, durable=False)
    while not env.zeroed[names(log.number - 1)[0]]:
        write(log, 1, durable=True)
    assert log.number - 1 not in [segment.number for segment in log.writer.segments()]
    env.refuses = True
    with pytest.raises(DiskFullError):
        if leaves == "at will":
            log.writer.begin_segment()
        else:
            log.append(bytes(SEGMENT_BYTES), durable=True)
    log.append(CHUNK, durable=True)
    env.refuses = False
    log.append(CHUNK, durable=True)
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


def test_a_log_whose_syncs_become_rare_uses_up_its_zeros(log: Log) -> None:
    write(log, 60, durable=True)
    write(log, 180, durable=False)
    assert [segment.number for segment in log.writer.segments()] == [1, 2, 3]
    assert list(log.env.zeroed.values()) == [True, True, True, False]
    log.writer.sync()
    assert records(log.read()) == log.written


def test_segments_grow_to_their_size() -> None:
    log = Log(NotingEnv(), segment_bytes=10 << 20)
    write(log, 600, durable=False)
    sizes = [log.env.file_size(f"{FOLDER}/{name}") >> 20 for name in names(1, 2, 3, 4)]
    assert sizes == [1, 4, 10, 10]
