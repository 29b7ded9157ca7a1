"""`LogWriter.begin_segment`: nothing that is appended later stands in a file of before."""

from __future__ import annotations

import errno

import pytest

from holdfast.base import DatabaseClosedError, DatabasePoisonedError, DiskFullError
from holdfast.env import FaultRule
from tests.unit.wal.logs import FOLDER, Log, records
from tests.unit.wal.test_writer import BIG, after_a_crash, fail, faulty, wal_files
from tests.unit.wal.test_writer_interrupts import InterruptingEnv


def names_after(log: Log, before: list[int]) -> list[int]:
    """The numbers of the writer's segments that were not there before."""
    return [info.number for info in log.writer.segments() if info.number not in before]


@pytest.mark.parametrize("appended", [0, 1, 2])
@pytest.mark.parametrize("prepared", [False, True])
def test_what_follows_is_in_a_segment_that_was_made_after_the_call(
    appended: int, prepared: bool
) -> None:
    """The first segment of a life and a later one, with records and without, and one is ready."""
    log = faulty()
    for _ in range(appended):
        log.append(BIG)
    if prepared:
        log.writer.prepare_next()
    before = wal_files(log)
    log.writer.begin_segment()
    log.writer.begin_segment()
    assert log.writer.durable_lsn == log.writer.written_lsn
    log.append(b"after")
    log.append(b"another", durable=True)
    assert len(names_after(log, before)) == 2
    assert log.writer.segments()[-1].number not in before
    assert not prepared or before[-1] not in wal_files(log)
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
    for state in after_a_crash(log):
        assert records(log.read(state, durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("site", ["wal.end.write", "wal.end.sync"])
def test_an_append_that_was_on_its_way_to_a_segment_of_before_does_not_get_there(
    site: str, when: str
) -> None:
    log = Log(InterruptingEnv())
    log.append(BIG)
    log.append(BIG)
    log.writer.prepare_next()
    before = [1, log.number - 1]
    log.env.plan[site] = when
    with pytest.raises(KeyboardInterrupt):
        log.append(BIG)
    log.writer.begin_segment()
    log.append(b"after", durable=True)
    assert log.writer.segments()[-1].number not in before
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("site", ["wal.end.write", "wal.segment.create", "wal.segment.allocate"])
def test_no_room_for_another_segment_loses_nothing(site: str) -> None:
    log = faulty()
    log.append(b"before")
    fail(log, FaultRule(site=site, error=errno.ENOSPC))
    with pytest.raises(DiskFullError):
        log.writer.begin_segment()
    log.append(b"between")
    log.writer.begin_segment()
    log.append(b"after", durable=True)
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


def test_a_log_that_failed_or_is_closed_begins_none() -> None:
    log = faulty()
    log.append(b"before")
    fail(log, FaultRule(site="wal.end.sync", error=errno.EIO))
    with pytest.raises(DatabasePoisonedError):
        log.writer.begin_segment()
    for call in (log.writer.begin_segment, log.writer.settle):
        with pytest.raises(DatabasePoisonedError):
            call()
    log.writer.close()
    for call in (log.writer.begin_segment, log.writer.settle):
        with pytest.raises(DatabaseClosedError):
            call()


@pytest.mark.parametrize("alignment", [8, 4096])
def test_a_segment_that_is_begun_is_no_longer_than_it_must_be(alignment: int) -> None:
    """Of the smallest ones: with sectors of 4096 bytes there is room for an END record alone."""
    log = Log(segment_bytes=4096, alignment=alignment)
    log.writer.begin_segment()
    log.writer.begin_segment()
    sizes = [log.env.file_size(f"{FOLDER}/{number:08d}.wal") for number in (1, 2, 3)]
    assert sizes == [sizes[0]] * 3


def test_a_segment_that_is_left_without_a_record_has_its_link() -> None:
    """Its first record was refused for want of room for the link, and the next one is too long for
    it: without a link its END record is damage.
    """
    log = faulty()
    for _ in range(2):
        log.append(BIG)
    fail(log, FaultRule(site="wal.segment.link", error=errno.ENOSPC))
    with pytest.raises(DiskFullError):
        log.append(BIG)
    log.append(bytes(1 << 16), durable=True)
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
