"""`LogWriter.leave_full`: the sync of a full segment does not hold up those who can wait."""

from __future__ import annotations

import errno

import pytest

from holdfast.base import DatabaseClosedError, DatabasePoisonedError, DiskFullError
from holdfast.env import FaultRule
from tests.unit.wal.logs import Log, records
from tests.unit.wal.test_writer import BIG, after_a_crash, fail, faulty
from tests.unit.wal.test_writer_interrupts import InterruptingEnv

SIZE = len(BIG) + 20


def full(log: Log) -> Log:
    """Append until one more BIG record does not fit, and leave the segment."""
    while not log.writer.leave_full(SIZE):
        log.append(BIG)
    return log


def sites(log: Log) -> list[str]:
    return [operation.site for operation in log.sim.op_log if operation.site.startswith("wal.")]


def test_a_segment_with_room_is_not_left() -> None:
    log = Log()
    for _ in range(2):
        assert not log.writer.leave_full(SIZE)
        log.append(BIG)
    assert "wal.end.write" not in sites(log)


def test_the_next_append_needs_no_sync_when_it_was_made_beside() -> None:
    log = full(Log())
    assert sites(log)[-1] == "wal.end.write"
    assert log.writer.leave_full(SIZE)
    assert sites(log).count("wal.end.write") == 1
    log.writer.sync_end_beside()
    assert (log.writer.durable_lsn, log.writer.durable_seq) == (
        log.writer.written_lsn,
        log.writer.written_seq,
    )
    assert not log.writer.leave_full(SIZE)
    before = len(sites(log))
    log.append(BIG)
    assert sites(log)[before - 1 :] == ["wal.end.sync", "wal.segment.link", "wal.record.write"]
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
    log.writer.close()
    assert log.sim.unreturned() == []


def test_an_append_that_does_not_wait_makes_the_sync_itself() -> None:
    log = full(Log())
    before = len(sites(log))
    log.append(BIG, durable=True)
    assert sites(log)[before] == "wal.end.sync"
    # There is nothing left to do: the next segment is not synced in its place.
    log.append(b"later")
    before = len(sites(log))
    log.writer.sync_end_beside()
    assert len(sites(log)) == before
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("is_synced", [False, True])
def test_a_crash_on_the_way_keeps_what_is_durable_and_invents_nothing(is_synced: bool) -> None:
    log = full(Log())
    log.append(b"another", durable=True)
    full(log)
    if is_synced:
        log.writer.sync_end_beside()
    durable = log.writer.durable_lsn
    states = after_a_crash(log)
    assert is_synced or len(states) > 1
    for state in states:
        found = records(log.read(state, durable_lsn=durable))
        assert found == log.written[: len(found)]
        assert len(found) >= sum(lsn <= durable for lsn, _, _ in log.written)


def test_a_sync_of_all_is_one_of_the_segment_that_is_left() -> None:
    log = full(Log())
    log.writer.sync()
    assert log.writer.durable_lsn == log.writer.written_lsn
    assert sites(log)[-1] == "wal.record.sync"
    log.append(BIG)
    assert "wal.end.sync" not in sites(log)


def test_a_record_that_hardly_fits_the_next_segment_does_not_wait_for_more() -> None:
    """What comes meanwhile goes into the same record."""
    log = Log()
    log.append(BIG)
    assert not log.writer.leave_full(7000)
    assert sites(log)[-1] == "wal.end.write"
    log.append(b"x" * 7000)
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


def test_a_failed_sync_poisons_the_writer() -> None:
    log = full(faulty())
    fail(log, FaultRule(kind="sync", site="wal.end.sync", error=errno.EIO))
    with pytest.raises(DatabasePoisonedError, match="the log failed"):
        log.writer.sync_end_beside()
    log.env.clear()
    for call in (lambda: log.append(b"b"), lambda: log.writer.leave_full(1), log.writer.sync):
        with pytest.raises(DatabasePoisonedError):
            call()
    assert log.writer.durable_lsn == 0


@pytest.mark.parametrize("site", ["wal.end.write", "wal.segment.create", "wal.segment.allocate"])
def test_no_room_for_the_end_or_another_segment_loses_nothing(site: str) -> None:
    log = faulty()
    fail(log, FaultRule(site=site, error=errno.ENOSPC))
    with pytest.raises(DiskFullError):
        full(log)
    log.append(b"small")
    full(log)
    log.writer.sync_end_beside()
    log.append(BIG, durable=True)
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_end_that_was_interrupted_is_written_once(when: str) -> None:
    log = Log(InterruptingEnv())
    log.env.plan["wal.end.write"] = when
    with pytest.raises(KeyboardInterrupt):
        full(log)
    full(log)
    log.writer.sync_end_beside()
    log.append(BIG, durable=True)
    assert len(log.writer.segments()) == 2
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


def test_a_closed_writer_leaves_no_segment() -> None:
    log = full(Log())
    log.writer.close()
    assert log.sim.unreturned() == []
    for call in (lambda: log.writer.leave_full(1), log.writer.sync_end_beside):
        with pytest.raises(DatabaseClosedError):
            call()
    assert records(log.read()) == log.written
