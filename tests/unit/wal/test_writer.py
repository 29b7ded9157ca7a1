"""`LogWriter`: records, rotation, preparation, and the rules after a failure of the disk."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from holdfast.base import (
    PUT,
    DatabaseClosedError,
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    marks_seen,
)
from holdfast.env import FaultEnv, FaultRule, SimEnv, crash_states, take_effect
from holdfast.wal import LogWriter, RecordBuffer, SegmentInfo
from holdfast.wal.format import (
    BLOCK_BYTES,
    END_PAYLOAD_BYTES,
    RECORD_HEADER_BYTES,
    decode_link,
    decode_segment_header,
    record_bytes,
)
from tests.unit.wal.logs import DATABASE_ID, FOLDER, Log, bytes_of, contents, records

BIG = b"x" * 1500


def faulty(*rules: FaultRule, **named: Any) -> Log:
    log = Log(FaultEnv(SimEnv(1)), **named)
    fail(log, *rules)
    return log


def fail(log: Log, *rules: FaultRule) -> None:
    """From now on these rules hold and no others."""
    log.env.clear()
    for rule in rules:
        log.env.add(rule)


def after_a_crash(log: Log) -> list[SimEnv]:
    """Disks as they may be after a loss of power now."""
    log.sim.cut_power()
    return [state.build() for state in crash_states(log.sim, ["none", "all"])]


def wal_files(log: Log) -> list[int]:
    return [
        int(name.partition(".")[0]) for name in log.sim.list_dir(FOLDER) if name.endswith(".wal")
    ]


def test_what_was_appended_is_read_back() -> None:
    log = Log()
    assert [log.append(b"a"), log.append(b"b", b"c"), log.append(b"d")] == [1, 2, 3]
    log.writer.sync()
    assert (log.writer.written_lsn, log.writer.durable_lsn) == (3, 3)
    assert (log.writer.written_seq, log.writer.durable_seq) == (4, 4)
    found = log.read(durable_lsn=3)
    assert records(found) == log.written
    assert (found.last_lsn, found.last_seq, found.segments, found.orphans) == (3, 4, [1], [])
    assert (found.tail_cut, found.complete) == (False, True)
    found = log.read(durable_lsn=0)
    assert records(found) == log.written
    assert found.last_lsn == 3, "what is there counts, not what the manifest knows"


def test_the_first_segment_is_whole_and_durable_when_the_writer_exists() -> None:
    log = Log(lsn_first=10, segment_bytes=4 << 20)
    block = bytes_of(log.env, 1)[:BLOCK_BYTES]
    header = decode_segment_header(block, "f")
    link = decode_link(block, header)
    assert (header.number, header.size, header.previous, header.database_id) == (
        1,
        1 << 20,
        0,
        DATABASE_ID,
    )
    assert link is not None
    assert (link.lsn_first, link.chain) == (10, header.salt)
    assert log.env.file_size(f"{FOLDER}/00000001.wal") == 1 << 20
    assert log.writer.segments() == [
        SegmentInfo(number=1, lsn_first=10, seq_first=0, seq_last=0, bytes_used=BLOCK_BYTES)
    ]
    log.env.cut_power()
    assert (log.writer.written_lsn, log.writer.durable_lsn) == (9, 9)
    assert (log.writer.written_seq, log.writer.durable_seq) == (0, 0)


def test_durable_follows_written_only_at_a_sync_and_is_recorded_in_the_next_record() -> None:
    log = Log()
    log.append()
    log.append()
    assert (log.writer.written_lsn, log.writer.durable_lsn) == (2, 0)
    log.writer.sync()
    log.edit = 5
    log.append()
    assert (log.writer.durable_lsn, log.writer.durable_seq, log.writer.written_seq) == (2, 2, 3)
    scan = next(iter(log.read(manifest_edit_seen=5))).scan
    assert [record.durable_lsn for record in scan.records] == [0, 0, 2]
    assert [record.manifest_edit for record in scan.records] == [0, 0, 5]


def test_a_sync_with_nothing_to_sync_touches_nothing() -> None:
    log = Log()
    log.append()
    log.writer.sync()
    before = log.sim.op_count
    log.writer.sync()
    assert log.sim.op_count == before


@pytest.mark.parametrize("alignment", [8, 512, 4096])
def test_a_full_segment_is_ended_synced_and_followed_by_the_next(alignment: int) -> None:
    log = Log(alignment=alignment, segment_bytes=16384)
    for number in range(40):
        log.append(BIG + b"%d" % number)
    assert len(log.writer.segments()) > 3
    # Every segment but the last was synced at its end.
    assert log.writer.durable_lsn >= log.writer.written_lsn - 8
    log.writer.sync()
    found = log.read(durable_lsn=log.writer.durable_lsn)
    assert records(found) == log.written
    assert found.segments == [segment.number for segment in log.writer.segments()]
    assert found.last_lsn == log.writer.written_lsn == 40 + len(found.segments) - 1
    assert marks_seen()["wal.segment_made_in_append"]


def test_the_old_segment_is_synced_before_the_next_gets_a_record() -> None:
    log = Log()
    for _ in range(6):
        log.append(BIG)
    sites = [(op.site, op.path[-12:]) for op in log.sim.op_log if op.site.startswith("wal.")]
    assert [site for site, _ in sites].count("wal.segment.link") == len(log.writer.segments()) - 1
    at = sites.index(("wal.end.write", "00000001.wal"))
    assert ("wal.segment.folder_sync", "/db") in [(site, path) for site, path in sites[:at]]
    assert sites[at : at + 4] == [
        ("wal.end.write", "00000001.wal"),
        ("wal.end.sync", "00000001.wal"),
        ("wal.segment.link", "00000002.wal"),
        ("wal.record.write", "00000002.wal"),
    ]


@pytest.mark.parametrize("over", [0, 1])
def test_a_record_that_fits_exactly_goes_into_the_segment(over: int) -> None:
    log = Log(segment_bytes=8192)
    end_bytes = record_bytes(END_PAYLOAD_BYTES, 8)
    payload_bytes = 8192 - BLOCK_BYTES - end_bytes - RECORD_HEADER_BYTES
    buffer = RecordBuffer()
    buffer.append_op(PUT, 1, b"key", bytes(1000))
    log.append(bytes(payload_bytes - (buffer.size - 1000) + over))
    assert len(log.writer.segments()) == 1 + over
    if not over:
        assert log.writer.segments()[0].bytes_used == 8192 - end_bytes
    log.writer.sync()
    assert records(log.read()) == log.written


def test_a_prepared_segment_is_used_and_no_other_is_made() -> None:
    log = Log()
    assert not log.writer.needs_next
    log.append(BIG)
    assert log.writer.needs_next
    log.writer.prepare_next()
    assert not log.writer.needs_next
    log.writer.prepare_next()
    assert wal_files(log) == [1, 2]
    before = log.sim.op_count
    for _ in range(2):
        log.append(BIG)
    assert all(op.site != "wal.segment.create" for op in log.sim.op_log[before:])
    assert [segment.number for segment in log.writer.segments()] == [1, 2]
    assert records(log.read()) == log.written


def test_after_a_rotation_the_next_segment_is_wanted_again() -> None:
    log = Log()
    for _ in range(3):
        log.append(BIG)
    assert len(log.writer.segments()) == 2
    assert log.writer.needs_next
    log.writer.prepare_next()
    assert wal_files(log) == [1, 2, 3]


def test_a_record_larger_than_a_segment_gets_one_of_its_own_size() -> None:
    log = Log()
    log.append(b"small")
    log.writer.prepare_next()
    log.append(b"x" * 100_000)
    log.append(b"small")
    # The prepared segment was too small and is gone.
    assert wal_files(log) == [1, 3]
    assert log.env.file_size(f"{FOLDER}/00000003.wal") % 4096 == 0
    log.append(b"y" * 5000)
    assert records(log.read()) == log.written


def test_the_smallest_segments_hold_at_least_one_record() -> None:
    log = Log(segment_bytes=4096)
    for number in range(5):
        log.append(b"%d" % number * 300)
    assert records(log.read()) == log.written


def test_segments_tell_their_range_and_are_forgotten_from_the_front() -> None:
    log = Log()
    for _ in range(5):
        log.append(BIG, b"")
    first, second, third = log.writer.segments()
    assert (first.number, first.seq_first, first.seq_last) == (1, 1, 4)
    assert (second.seq_first, second.seq_last, third.seq_first, third.seq_last) == (5, 8, 9, 10)
    assert (first.lsn_first, second.lsn_first, third.lsn_first) == (1, 4, 7)
    assert first.bytes_used > BLOCK_BYTES + 3000
    numbers = [first.number, second.number, third.number]
    assert [log.writer.first_needed(seq).number for seq in (3, 4, 7, 8, 100)] == [
        numbers[place] for place in (0, 1, 1, 2, 2)
    ]
    assert log.writer.forget_before(numbers[0]) == []
    assert log.writer.forget_before(numbers[1]) == [1]
    assert log.writer.forget_before(numbers[2]) == [second.number]
    assert log.writer.forget_before(100) == []
    assert log.writer.segments() == [third]
    assert isinstance(third, SegmentInfo)


def test_a_segment_that_fills_while_the_manifest_names_it_is_kept() -> None:
    log = Log()
    log.append(BIG)
    named = log.writer.first_needed(100).number
    for _ in range(4):
        log.append(BIG)
    assert named == log.writer.segments()[0].number
    assert log.writer.forget_before(named) == []
    assert log.writer.segments()[0].number == named


def test_a_log_is_read_from_the_first_segment_that_is_left() -> None:
    log = Log()
    for _ in range(7):
        log.append(BIG)
    gone = log.writer.forget_before(log.writer.first_needed(2).number)
    for number in gone:
        log.env.unlink(f"{FOLDER}/{number:08d}.wal", site="test")
    assert gone == [1]
    assert records(contents(log.env, 2)) == log.written[2:]


def test_bytes_logged_counts_records_and_ends() -> None:
    log = Log()
    for _ in range(7):
        log.append(BIG)
    used = sum(segment.bytes_used - BLOCK_BYTES for segment in log.writer.segments())
    assert log.writer.bytes_logged == used


def test_an_empty_buffer_and_an_old_sequence_number_are_refused() -> None:
    log = Log()
    log.append()
    with pytest.raises(ValueError, match="at least one operation"):
        log.writer.append(RecordBuffer(), 5)
    buffer = RecordBuffer()
    buffer.append_op(PUT, 1, b"k", b"v")
    log.append(b"a", b"b")
    for seq in (1, 2, 3):
        with pytest.raises(AssertionError, match="sequence numbers grow"):
            log.writer.append(buffer, seq)
    assert log.writer.written_lsn == 2
    assert log.writer.append(buffer, 4) == 3


def test_ordinals_start_with_1() -> None:
    assert Log(lsn_first=1).writer.written_lsn == 0
    with pytest.raises(AssertionError, match="ordinals start with 1"):
        Log(lsn_first=0)


def test_the_header_of_a_segment_says_when_it_was_made() -> None:
    log = Log()
    before = log.env.wall_time()
    log.writer.prepare_next()
    made = decode_segment_header(bytes_of(log.env, 2)[:BLOCK_BYTES], "f").created_us
    assert before * 1_000_000 - 1 <= made <= log.env.wall_time() * 1_000_000


def test_the_next_segment_is_wanted_when_an_eighth_of_the_current_one_is_used() -> None:
    log = Log(segment_bytes=BLOCK_BYTES + 8 * 1024)
    buffer = RecordBuffer()
    buffer.append_op(PUT, 1, b"key", bytes(500))
    log.append(bytes(1024 - 8 - RECORD_HEADER_BYTES - (buffer.size - 500)))
    assert log.writer.segments()[0].bytes_used == BLOCK_BYTES + 1024 - 8
    assert not log.writer.needs_next
    log = Log(segment_bytes=BLOCK_BYTES + 8 * 1024)
    log.append(bytes(1024 - RECORD_HEADER_BYTES - (buffer.size - 500)))
    assert log.writer.segments()[0].bytes_used == BLOCK_BYTES + 1024
    assert log.writer.needs_next


def test_closing_syncs_nothing_and_unlinks_what_was_only_prepared() -> None:
    log = Log()
    log.append(BIG)
    log.writer.prepare_next()
    before = log.sim.op_count
    log.writer.close()
    log.writer.close()
    assert [op.site for op in log.sim.op_log[before:]] == ["wal.segment.unlink"]
    assert wal_files(log) == [1]
    assert log.sim.unreturned() == []
    for call in (log.append, log.writer.sync):
        with pytest.raises(DatabaseClosedError):
            call()
    log.writer.prepare_next()
    assert not log.writer.needs_next
    assert wal_files(log) == [1]


@pytest.mark.parametrize("partial", [None, 0, 8, 80, 100])
def test_no_room_for_a_record_changes_nothing_and_the_next_try_takes_its_place(
    partial: int | None,
) -> None:
    log = faulty()
    log.append(b"before")
    fail(log, FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC, partial=partial))
    with pytest.raises(DiskFullError):
        log.append(b"lost" * 50)
    assert log.writer.written_lsn == 1
    assert not log.writer.poisoned
    assert records(log.read()) == log.written
    assert log.append(b"after") == 2
    log.writer.sync()
    found = log.read(durable_lsn=2)
    assert records(found) == log.written
    assert marks_seen()["wal.record_wiped"]


def test_a_full_disk_stays_full_and_then_has_room_again() -> None:
    log = faulty()
    log.append(b"before")
    fail(log, FaultRule(kind="write", error=errno.EDQUOT, times=None, partial=90))
    for _ in range(3):
        with pytest.raises(DiskFullError):
            log.append(b"lost" * 50)
    fail(log)
    assert log.append(b"after") == 2
    log.writer.sync()
    assert records(log.read(durable_lsn=2)) == log.written


def test_a_record_that_was_refused_for_lack_of_room_does_not_come_back() -> None:
    """Even when all of it was written: what DiskFullError said must stay true after a crash."""
    log = Log(FaultEnv(SimEnv(1)))
    log.append(b"before")
    fail(
        log,
        FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC, effect=take_effect),
    )
    with pytest.raises(DiskFullError):
        log.append(b"refused")
    assert records(log.read()) == log.written


def test_a_record_that_could_not_be_wiped_is_wiped_before_anything_is_written() -> None:
    """Else a crash could bring it back in place of the one that was written over it."""
    log = faulty()
    log.append(b"before")
    fail(log, FaultRule(kind="write", error=errno.ENOSPC, times=None))
    with pytest.raises(DiskFullError):
        log.append(b"refused")
    fail(log)
    at = len(log.sim.op_log)
    log.append(b"after")
    assert [op.site for op in log.sim.op_log[at:]] == [
        "wal.record.wipe",
        "wal.record.wipe_sync",
        "wal.record.write",
    ]
    at = len(log.sim.op_log)
    log.append(b"more")
    assert [op.site for op in log.sim.op_log[at:]] == ["wal.record.write"]


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("partial", [None, RECORD_HEADER_BYTES, 4096])
def test_nobody_says_of_a_record_that_stands_whole_that_it_is_refused(
    partial: int | None, reads: bool
) -> None:
    """The zeros over it are in the cache only, and a crash takes them and leaves the record."""
    log = faulty()
    log.append(b"before")
    log.writer.sync()
    is_whole = partial == 4096
    full = FaultRule(kind="write", error=errno.ENOSPC, times=2, partial=partial)
    fail(log, full, *([] if reads else [FaultRule(kind="read", times=None)]))
    with pytest.raises(DatabasePoisonedError if is_whole or not reads else DiskFullError):
        log.append(b"refused")
    assert log.writer.poisoned == (is_whole or not reads)
    fail(log)
    log.sim.cut_power()
    states = list(crash_states(log.sim, ["none", "all", "prefix", "random"]))
    found = {len(records(log.read(state.build()))) for state in states}
    assert found == ({1, 2} if is_whole else {1})


@pytest.mark.parametrize("partial", [None, 1 << 20, 2_400_000, 4 << 20])
def test_a_long_record_is_looked_at_to_its_end(partial: int | None) -> None:
    log = faulty()
    is_whole = partial == 4 << 20
    full = FaultRule(kind="write", site="wal.record.*", error=errno.ENOSPC, times=2)
    fail(log, replace(full, partial=partial))
    with pytest.raises(DatabasePoisonedError if is_whole else DiskFullError):
        log.append(bytes(range(256)) * 10_000)
    assert log.writer.poisoned == is_whole


@pytest.mark.parametrize("times", [1, 2])
def test_want_of_memory_to_read_a_refused_record_does_not_keep_it_from_being_wiped(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = faulty()
    log.append(b"before")
    log.writer.sync()

    def read_at(offset: int, count: int) -> bytes:
        raise MemoryError

    fail(log, FaultRule(kind="write", error=errno.ENOSPC, times=times, partial=4096))
    monkeypatch.setattr(type(log.writer._current.file), "read_at", lambda *_: read_at(0, 0))
    with pytest.raises(DiskFullError if times == 1 else DatabasePoisonedError):
        log.append(b"refused")
    monkeypatch.undo()
    assert log.writer.poisoned == (times == 2)
    fail(log)
    if times == 1:
        log.sim.cut_power()
        states = list(crash_states(log.sim, ["none", "all", "random"]))
        assert {len(records(log.read(state.build()))) for state in states} == {1}


def test_no_room_for_the_next_segment_does_not_keep_it_from_being_prepared() -> None:
    log = faulty()
    for _ in range(2):
        log.append(BIG)
    fail(log, FaultRule(kind="allocate", error=errno.ENOSPC))
    with pytest.raises(DiskFullError):
        log.append(BIG)
    assert log.writer.needs_next
    log.writer.prepare_next()
    assert not log.writer.needs_next
    assert wal_files(log) == [1, 3]
    log.append(BIG)
    assert wal_files(log) == [1, 3]


@pytest.mark.parametrize(
    "site",
    [
        "wal.segment.allocate",
        "wal.segment.header",
        "wal.end.write",
        "wal.segment.link",
        "wal.segment.create",
    ],
)
def test_no_room_at_any_step_of_a_rotation_can_be_tried_again(site: str) -> None:
    log = faulty()
    for _ in range(2):
        log.append(BIG)
    fail(log, FaultRule(site=site, error=errno.ENOSPC, times=2))
    for _ in range(2):
        with pytest.raises(DiskFullError):
            log.append(BIG)
        assert len(log.written) == 2
    assert not log.writer.poisoned
    log.append(BIG)
    log.writer.sync()
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
    assert len(wal_files(log)) == 2


def test_no_room_for_a_prepared_segment_leaves_nothing_behind() -> None:
    log = faulty()
    log.append(BIG)
    fail(log, FaultRule(kind="allocate", error=errno.ENOSPC))
    with pytest.raises(DiskFullError):
        log.writer.prepare_next()
    assert wal_files(log) == [1]
    assert log.writer.needs_next
    log.writer.prepare_next()
    assert wal_files(log) == [1, 3]


@pytest.mark.parametrize(
    "site",
    [
        "wal.record.write",
        "wal.record.sync",
        "wal.end.write",
        "wal.end.sync",
        "wal.segment.link",
        "wal.segment.sync",
        "wal.segment.folder_sync",
        "wal.segment.create",
        "wal.segment.allocate",
        "wal.segment.header",
    ],
)
def test_any_other_error_poisons_for_good_and_deletes_nothing(site: str) -> None:
    log = faulty()
    log.append(BIG)
    log.writer.prepare_next()
    log.append(BIG)
    log.writer.sync()
    if site.startswith("wal.segment") and site != "wal.segment.link":
        log.append(BIG)
        log.append(BIG)
        log.writer.sync()
    files = wal_files(log)
    fail(log, FaultRule(site=site, error=errno.EIO))
    with pytest.raises(DatabasePoisonedError) as caught:
        for _ in range(3):
            log.append(BIG)
            log.writer.sync()
    assert isinstance(caught.value.__cause__, OSError)
    assert log.writer.poisoned
    durable, before = log.writer.durable_lsn, log.sim.op_count
    for call in (log.append, log.writer.sync):
        with pytest.raises(DatabasePoisonedError):
            call()
    log.writer.prepare_next()
    assert not log.writer.needs_next
    log.writer.close()
    assert log.sim.op_count == before
    assert set(files) <= set(wal_files(log))
    assert log.writer.durable_lsn == durable
    kept = records(log.read(durable_lsn=durable))
    assert kept == [record for record in log.written if record in kept]
    assert len(kept) >= sum(lsn <= durable for lsn, _, _ in log.written)


def test_nothing_is_written_behind_a_failed_write() -> None:
    log = faulty()
    log.append(b"before")
    fail(log, FaultRule(site="wal.record.write", error=errno.EIO))
    before = log.sim.op_count
    with pytest.raises(DatabasePoisonedError):
        log.append(b"lost")
    assert log.sim.op_count == before


def test_a_failed_sync_with_no_room_poisons_too() -> None:
    log = faulty(FaultRule(site="wal.record.sync", error=errno.ENOSPC))
    log.append()
    with pytest.raises(DatabasePoisonedError):
        log.writer.sync()
    assert log.writer.durable_lsn == 0


def test_a_failed_wipe_poisons() -> None:
    log = faulty(
        FaultRule(site="wal.record.write", error=errno.ENOSPC),
        FaultRule(site="wal.record.wipe_sync", error=errno.EIO),
    )
    with pytest.raises(DatabasePoisonedError):
        log.append()
    assert log.writer.poisoned


def test_a_prepared_segment_that_fails_poisons_the_writer() -> None:
    log = faulty()
    log.append(BIG)
    fail(log, FaultRule(site="wal.segment.sync", error=errno.EIO))
    with pytest.raises(DatabasePoisonedError):
        log.writer.prepare_next()
    assert log.sim.unreturned() == ["/db/00000001.wal is open"] * 2
    with pytest.raises(DatabasePoisonedError):
        log.append()
    assert wal_files(log) == [1, 2]


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.EMFILE, DiskFullError), (errno.EIO, DatabasePoisonedError)]
)
def test_a_segment_that_does_not_open_a_second_time_is_closed(
    code: int, expected: type[Exception]
) -> None:
    """The file beside the writer is the first thing behind the creation. Want of descriptors may
    pass, and leaves nothing.
    """
    log = faulty()
    log.append(BIG)
    fail(log, FaultRule(kind="open", path="00000002.wal", error=code))
    with pytest.raises(expected):
        log.writer.prepare_next()
    assert log.sim.unreturned() == ["/db/00000001.wal is open"] * 2
    is_poisoned = expected is DatabasePoisonedError
    assert log.writer.poisoned is is_poisoned
    assert wal_files(log) == ([1, 2] if is_poisoned else [1])
    if not is_poisoned:
        log.writer.prepare_next()
        assert wal_files(log) == [1, 3]


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, DiskFullError), (errno.EIO, OSError)]
)
def test_a_writer_that_cannot_make_its_first_segment_does_not_exist(
    code: int, expected: type
) -> None:
    inner = SimEnv(1)
    inner.make_dir(FOLDER, site="test")
    env = FaultEnv(inner, [FaultRule(site="wal.segment.header", error=code)])
    with pytest.raises(expected):
        LogWriter(
            env,
            FOLDER,
            settings=DatabaseSettings(),
            database_id=DATABASE_ID,
            allocate_number=lambda: 1,
            lsn_first=1,
            manifest_edit=lambda: 0,
        )


def test_a_durable_append_is_a_write_and_a_sync_of_it() -> None:
    """Both ways do the same operations at the same sites, also over the end of segments."""
    logs = Log(), Log()
    for number in range(12):
        logs[0].append(BIG + b"%d" % number)
        logs[0].writer.sync()
        logs[1].append(BIG + b"%d" % number, durable=True)
        assert (
            logs[1].writer.durable_lsn == logs[1].writer.written_lsn == logs[0].writer.written_lsn
        )
        assert logs[1].writer.durable_seq == logs[1].writer.written_seq == number + 1
    assert logs[0].sim.op_log == logs[1].sim.op_log
    assert "wal.end.sync" in {operation.site for operation in logs[1].sim.op_log}


def test_a_durable_append_makes_all_before_it_durable() -> None:
    log = Log()
    log.append(b"a")
    log.append(b"b", durable=True)
    for left in after_a_crash(log):
        assert records(log.read(left, durable_lsn=2)) == log.written


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_failed_sync_of_a_durable_append_poisons_whatever_it_says(code: int) -> None:
    log = faulty(FaultRule(kind="sync", site="wal.record.sync", error=code))
    with pytest.raises(DatabasePoisonedError, match="the log failed: ") as caught:
        log.append(b"a", durable=True)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == code
    assert log.writer.poisoned
    assert "wal.record.wipe" not in {operation.site for operation in log.sim.op_log}


def test_a_full_disk_refuses_a_durable_append_and_nothing_comes_back() -> None:
    log = faulty(FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC, partial=80))
    with pytest.raises(DiskFullError):
        log.append(b"a", durable=True)
    assert not log.writer.poisoned
    fail(log)
    for left in after_a_crash(log):
        assert records(log.read(left)) == []


def test_preparing_in_another_thread_while_appending_loses_nothing() -> None:
    for seed in range(40):
        env = SimEnv(seed)
        log: list[Log] = []

        def write(log: list[Log] = log, env: SimEnv = env) -> None:
            log.append(Log(env))
            tasks = []
            for number in range(30):
                log[0].append(BIG + b"%d" % number)
                if number % 3 == 0:
                    log[0].writer.sync()
                if log[0].writer.needs_next:
                    tasks.append(env.spawn("prepare", log[0].writer.prepare_next))
            log[0].writer.sync()
            for task in tasks:
                task.join()

        env.spawn("write", write).join()
        written = log[0]
        assert records(written.read(durable_lsn=written.writer.durable_lsn)) == written.written
        written.writer.close()
        numbers = [segment.number for segment in written.writer.segments()]
        assert wal_files(written) == numbers


def test_closing_while_a_segment_is_being_prepared_waits_for_it() -> None:
    for seed in range(20):
        env = SimEnv(seed)
        made: list[Log] = []

        def run(env: SimEnv = env, made: list[Log] = made) -> None:
            log = Log(env)
            made.append(log)
            log.append(BIG)
            task = env.spawn("prepare", log.writer.prepare_next)
            log.writer.close()
            task.join()

        env.spawn("run", run).join()
        assert wal_files(made[0]) == [1]
