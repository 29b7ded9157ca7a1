"""What a writer says of itself, and where its rules have their limits."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from holdfast.base import PUT, DatabaseSettings, DiskFullError
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.wal import LogWriter, RecordBuffer
from holdfast.wal.format import (
    BLOCK_BYTES,
    END_PAYLOAD_BYTES,
    LINK_BYTES,
    decode_segment_header,
    record_bytes,
)
from tests.unit.wal.logs import Log, bytes_of, records

BIG = b"x" * 1500


def faulty(*rules: FaultRule) -> Log:
    return Log(FaultEnv(SimEnv(1), list(rules)))


def test_all_bytes_that_go_to_the_disk_are_counted() -> None:
    log = Log()
    writer = log.writer
    assert writer.bytes_written == writer.bytes_allocated + BLOCK_BYTES
    for _ in range(5):
        log.append(BIG)
    # Three segments, each with its block; the first has its link in it.
    assert len(writer.segments()) == 3
    around = 3 * BLOCK_BYTES + 2 * LINK_BYTES
    assert writer.bytes_written == writer.bytes_logged + writer.bytes_allocated + around
    ends = 2 * record_bytes(END_PAYLOAD_BYTES, 8)
    assert writer.bytes_logged == 5 * record_bytes(len(log.written[0][2]), 8) + ends


def test_the_chain_is_what_the_next_record_has_to_continue() -> None:
    log = Log()
    header = decode_segment_header(bytes_of(log.env, 1)[:BLOCK_BYTES], "f")
    assert log.writer.chain == header.salt
    for _ in range(3):
        log.append()
    log.writer.sync()
    assert log.writer.chain == next(iter(log.read())).scan.chain_next


def test_how_long_appends_waited_for_segments_is_counted() -> None:
    log = faulty()
    times = iter([10.0, 12.5, 20.0, 21.0])
    log.env.monotonic = lambda: next(times, 30.0)
    assert log.writer.waits == (0, 0.0)
    for _ in range(5):
        log.append(BIG)
    assert log.writer.waits == (2, 3.5)
    log.writer.prepare_next()
    for _ in range(2):
        log.append(BIG)
    assert log.writer.waits == (2, 3.5), "one was ready"


def test_what_was_made_durable_beside_does_not_take_back_what_is_since() -> None:
    """A record says the highest ordinal, also where sequence numbers are far above ordinals."""
    log = Log()
    log.append(*[b"v"] * 50)
    log.writer.sync_beside(50)
    log.append(durable=True)
    log.append(durable=True)
    log.append()
    assert log.writer.durable_lsn == 3
    scan = next(iter(log.read())).scan
    assert [record.durable_lsn for record in scan.records] == [0, 1, 2, 3]


def test_an_empty_buffer_changes_nothing() -> None:
    """Neither is the link of the segment written, nor is another one begun."""
    log = Log()
    log.append()
    log.writer.begin_segment()
    before = log.sim.op_count
    with pytest.raises(ValueError, match="at least one operation"):
        log.writer.append(RecordBuffer(), log.seq)
    assert log.sim.op_count == before


def test_a_buffer_whose_record_was_refused_may_be_added_to() -> None:
    log = faulty(FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC))
    buffer = RecordBuffer()
    buffer.append_op(PUT, 1, b"a", b"1")
    with pytest.raises(DiskFullError) as caught:
        log.writer.append(buffer, 1)
    buffer.append_op(PUT, 1, b"b", b"2")
    log.writer.append(buffer, 1, durable=True)
    assert records(log.read()) == [(1, 1, buffer.payload())]
    del caught


@pytest.mark.parametrize("call", ["begin_segment", "append"])
def test_what_was_refused_is_wiped_before_another_segment_is_begun(call: str) -> None:
    """The END record stands where it was, and is shorter."""
    log = faulty(
        FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC),
        FaultRule(kind="write", site="wal.record.wipe", error=errno.ENOSPC),
    )
    with pytest.raises(DiskFullError):
        log.append(BIG)
    before = log.sim.op_count
    for _ in range(2):
        log.writer.begin_segment() if call == "begin_segment" else log.append(BIG)
    sites = [op.site for op in log.sim.op_log[before:]]
    assert sites[:2] == ["wal.record.wipe", "wal.record.wipe_sync"]
    assert sites.count("wal.record.wipe") == 1


def at_site(log: Log, site: str, work: Callable[[], object]) -> None:
    """Do `work` during the next call at a site."""

    def effect(call: Callable[[], object], file: object) -> None:
        call()
        work()

    log.env.add(FaultRule(site=site, error=None, effect=effect))


@pytest.mark.parametrize("site", ["wal.end.write", "wal.segment.header"])
def test_no_segment_is_prepared_while_one_is_gone_to(site: str) -> None:
    """It would not continue the right one."""
    log = faulty()
    for _ in range(2):
        log.append(BIG)
    assert log.writer.needs_next
    asked: list[bool] = []

    def prepare() -> None:
        asked.append(log.writer.needs_next)
        log.writer.prepare_next()

    at_site(log, site, prepare)
    log.append(BIG, durable=True)
    assert asked == [False]
    assert log.number == 3, "no number was taken for another segment"
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


def test_a_segment_that_is_ready_is_taken_when_the_record_just_fits() -> None:
    log = Log(segment_bytes=8192)
    log.append(BIG)
    log.writer.prepare_next()
    number = log.number - 1
    empty = RecordBuffer()
    empty.append_op(PUT, 1, b"key", b"v" * 200)
    over = empty.size - 200
    room = 8192 - BLOCK_BYTES - record_bytes(END_PAYLOAD_BYTES, 8) - record_bytes(0, 8)
    log.append(b"v" * (room - over))
    assert [segment.number for segment in log.writer.segments()] == [1, number]
    assert log.number == number + 1
    log.writer.prepare_next()
    log.append(b"v" * (room - over + 1))
    assert log.number == number + 3, "one byte more, and another one is made"


def test_the_way_to_the_next_segment_is_an_end_its_sync_and_a_link() -> None:
    log = Log()
    for _ in range(2):
        log.append(BIG)
    log.writer.prepare_next()
    before = log.sim.op_count
    log.append(BIG)
    assert [op.site for op in log.sim.op_log[before:]] == [
        "wal.end.write", "wal.end.sync", "wal.segment.link", "wal.record.write",
    ]  # fmt: skip


def test_a_segment_that_could_not_be_begun_leaves_the_one_at_hand_in_use() -> None:
    log = faulty(FaultRule(site="wal.end.write", error=errno.ENOSPC))
    log.append(b"before")
    with pytest.raises(DiskFullError):
        log.writer.begin_segment()
    log.append(b"after", durable=True)
    assert [segment.number for segment in log.writer.segments()] == [1]
    assert records(log.read()) == log.written


def test_a_segment_that_is_begun_while_one_is_prepared_is_another_one() -> None:
    """What another thread is making was begun before the call."""
    for seed in range(20):
        env = SimEnv(seed)
        made: list[Log] = []
        before: list[int] = []

        def run(env: SimEnv = env, made: list[Log] = made, before: list[int] = before) -> None:
            log = Log(env)
            made.append(log)
            log.append(BIG)
            task = env.spawn("prepare", log.writer.prepare_next)
            env.sleep(0)
            before.append(log.number)
            log.writer.begin_segment()
            log.append(b"after", durable=True)
            task.join()

        env.spawn("run", run).join()
        (log,) = made
        assert log.writer.segments()[1].number >= before[0]
        assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
        log.writer.close()
        numbers = [segment.number for segment in log.writer.segments()]
        left = [int(name[:8]) for name in env.list_dir("/db") if name.endswith(".wal")]
        assert sorted(left) == numbers


def test_a_first_segment_has_the_size_that_is_asked_for() -> None:
    env = SimEnv(1)
    env.make_dir("/db", site="test")
    writer = LogWriter(
        env,
        "/db",
        settings=DatabaseSettings(wal_segment_bytes=1 << 16),
        database_id=bytes(16),
        allocate_number=lambda: 1,
        lsn_first=1,
        manifest_edit=lambda: 0,
    )
    assert env.file_size("/db/00000001.wal") == 1 << 16
    writer.close()
