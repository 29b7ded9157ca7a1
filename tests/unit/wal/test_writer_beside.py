"""`LogWriter.sync_beside`: the log becomes durable while others append to it."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from holdfast.base import DatabaseClosedError, DatabasePoisonedError
from holdfast.env import FaultEnv, FaultRule, SimEnv, crash_states
from tests.unit.wal.logs import FOLDER, Log, contents, records

BIG = b"x" * 1500


def syncs(log: Log, site: str) -> int:
    return sum(op.kind == "sync" and op.site == site for op in log.sim.op_log)


def hook(log: Log, work: Callable[[], object]) -> None:
    """Do `work` right behind the next sync beside the writer, before it returns."""

    def effect(call: Callable[[], object], file: object) -> None:
        call()
        work()

    log.env.add(FaultRule(kind="sync", site="wal.beside.sync", error=None, effect=effect))


def test_what_was_appended_is_durable_and_what_is_appended_later_is_not() -> None:
    log = Log()
    log.append(b"a", b"b")
    log.writer.sync_beside(2)
    assert (log.writer.durable_lsn, log.writer.durable_seq) == (1, 2)
    log.append(b"c")
    assert (log.writer.durable_lsn, log.writer.durable_seq) == (1, 2)
    log.sim.cut_power()
    for state in crash_states(log.sim, ["none"]):
        assert records(contents(state.build(), 1, durable_lsn=1)) == log.written[:1]


def test_the_next_record_says_what_was_made_durable() -> None:
    log = Log()
    log.append()
    log.writer.sync_beside(1)
    log.append()
    scan = next(iter(log.read())).scan
    assert [record.durable_lsn for record in scan.records] == [0, 1]


def test_nothing_is_synced_twice() -> None:
    log = Log()
    log.append()
    log.writer.sync_beside(1)
    log.writer.sync_beside(1)
    log.writer.sync()
    assert (syncs(log, "wal.beside.sync"), syncs(log, "wal.record.sync")) == (1, 0)
    log.append(durable=True)
    log.writer.sync_beside(2)
    assert (syncs(log, "wal.beside.sync"), syncs(log, "wal.record.sync")) == (1, 1)


def test_what_comes_during_the_sync_is_not_taken_for_durable() -> None:
    log = Log(FaultEnv(SimEnv(1)))
    log.append(b"a")
    hook(log, lambda: log.append(b"b"))
    log.writer.sync_beside(1)
    assert (log.writer.written_lsn, log.writer.durable_lsn) == (2, 1)
    assert (log.writer.written_seq, log.writer.durable_seq) == (2, 1)


def test_a_writer_that_leaves_the_segment_meanwhile_leaves_its_file_open() -> None:
    log = Log(FaultEnv(SimEnv(1)))
    log.append(b"a")

    def fill() -> None:
        while len(log.writer.segments()) == 1:
            log.append(BIG)

    hook(log, fill)
    log.writer.sync_beside(1)
    assert log.sim.unreturned() == [f"{FOLDER}/00000002.wal is open"] * 2
    before = log.writer.durable_seq
    assert before > 1, "a segment is synced when it is left"
    log.writer.close()
    assert log.sim.unreturned() == []
    assert records(log.read()) == log.written


def test_a_writer_that_is_closed_meanwhile_leaves_its_file_open() -> None:
    log = Log(FaultEnv(SimEnv(1)))
    log.append(b"a")
    hook(log, log.writer.close)
    log.writer.sync_beside(1)
    assert log.sim.unreturned() == []
    with pytest.raises(DatabaseClosedError):
        log.writer.sync_beside(2)


def test_a_failed_sync_poisons_the_writer() -> None:
    log = Log(FaultEnv(SimEnv(1)))
    log.append(b"a")
    log.env.add(FaultRule(kind="sync", site="wal.beside.sync", error=errno.EIO))
    with pytest.raises(DatabasePoisonedError, match="the log failed"):
        log.writer.sync_beside(1)
    assert log.writer.poisoned
    assert log.writer.durable_lsn == 0
    log.env.clear()
    for call in (lambda: log.append(b"b"), log.writer.sync, lambda: log.writer.sync_beside(1)):
        with pytest.raises(DatabasePoisonedError):
            call()


def test_an_error_of_the_disk_is_told_to_both_files() -> None:
    """The thread that syncs beside the writer must not take the error away from it."""
    log = Log()
    log.append(b"a")
    log.writer._current.file.fail_write_back(lambda block: True, outcome="grown", is_told=False)
    with pytest.raises(DatabasePoisonedError):
        log.writer.sync_beside(1)
    # As if the writer had not seen yet what the other thread was told.
    log.writer._poison = None
    with pytest.raises(DatabasePoisonedError):
        log.writer.sync()


@pytest.mark.parametrize("leaves", [False, True])
def test_a_segment_that_was_synced_beside_is_closed_with_the_writer(leaves: bool) -> None:
    log = Log()
    log.append(b"a")
    log.writer.sync_beside(1)
    while leaves and len(log.writer.segments()) == 1:
        log.append(BIG)
    last = log.writer.segments()[-1].number
    assert log.sim.unreturned() == [f"{FOLDER}/{last:08d}.wal is open"] * 2
    log.writer.close()
    assert log.sim.unreturned() == []


def test_an_ordinal_that_was_read_before_its_number_takes_no_number_back() -> None:
    """The writer counts one behind the other, and the other thread reads between the two."""
    log = Log()
    log.append(b"a")
    log.append(b"b", durable=True)
    log.writer._synced_beside = (2, 1)
    log.append(b"c")
    assert (log.writer.durable_lsn, log.writer.durable_seq) == (2, 2)
