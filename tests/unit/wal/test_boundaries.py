"""Goal: what the log does at its rarest places: headers that only look right, and a writer that was
interrupted between two steps.

Method: header blocks are forged with right checksums; an exception comes behind a step that was
done, as a signal handler's does, and the same call is made again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from holdfast.base import PUT, SEQ_MAX, CorruptionError, DatabasePoisonedError, DiskFullError
from holdfast.codec import checksum
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.wal import RecordBuffer, segment_header_as_stored
from holdfast.wal.format import (
    BLOCK_BYTES,
    END_PAYLOAD_BYTES,
    LINK_BYTES,
    LINK_OFFSET,
    LSN_MAX,
    RECORD_HEADER_BYTES,
    SEGMENT_BYTES_MAX,
    SEGMENT_HEADER_BYTES,
    RecordHeader,
    RecordType,
    SegmentHeader,
    SegmentLink,
    decode_link,
    decode_record_header,
    decode_segment_header,
    encode_link,
    encode_record_header,
    encode_segment_header,
    has_chained_records,
    is_well_formed,
)
from tests.unit.wal.logs import Log, bytes_of, records, replace_bytes

BIG = b"x" * 1500
HEADER = SegmentHeader(
    version=1, number=12, alignment=512, salt=77, database_id=bytes(range(16)), size=65536,
    previous=9, created_us=5,
)  # fmt: skip


def test_a_damaged_segment_header_is_shown_as_it_stands() -> None:
    block = bytes(8) + encode_segment_header(HEADER)[8:]
    assert segment_header_as_stored(block) == HEADER
    assert segment_header_as_stored(block[:SEGMENT_HEADER_BYTES]) == HEADER
    assert segment_header_as_stored(block[: SEGMENT_HEADER_BYTES - 1]) is None
    for version, shown in ((2, 2), (9, 2), (1, 1)):
        other = block[:8] + version.to_bytes(4, "little") + block[12:]
        assert segment_header_as_stored(other) == replace(HEADER, version=shown)
    odd = block[:12] + (7).to_bytes(4, "little") + block[16:]
    assert segment_header_as_stored(odd) is None


def test_reserved_bytes_of_a_record_header_make_it_one_of_no_type() -> None:
    header = RecordHeader(8, 1, 2, 3, 1, 0, 5, 1, 1, 9)
    plain, _ = encode_record_header(header, 77)
    assert len(plain) == RECORD_HEADER_BYTES
    decoded = decode_record_header(memoryview(plain), 77)
    assert decoded is not None
    assert decoded[0] == header
    assert is_well_formed(header)
    for place in range(3):
        body = bytearray(plain[:-8])
        body[len(body) - 11 + place] = 1
        forged = bytes(body) + checksum(bytes(body), 77).to_bytes(8, "little")
        decoded = decode_record_header(memoryview(forged), 77)
        assert decoded is not None
        assert decoded[0].type == 0
        assert not is_well_formed(decoded[0])


def forge(log: Log, number: int, change: Callable[[SegmentHeader], SegmentHeader]) -> None:
    """Change the header of a segment and leave everything else, its link too."""
    data = bytes_of(log.env, number)
    block = data[:BLOCK_BYTES]
    header = decode_segment_header(block, "f")
    new = encode_segment_header(change(header))
    link = block[LINK_OFFSET : LINK_OFFSET + LINK_BYTES]
    new = new[:LINK_OFFSET] + link + new[LINK_OFFSET + LINK_BYTES :]
    replace_bytes(log.env, number, new + data[BLOCK_BYTES:])


def rotated() -> Log:
    log = Log()
    for _ in range(8):
        log.append(BIG)
    log.writer.sync()
    assert len(log.writer.segments()) >= 2
    log.writer.close()
    return log


def test_a_segment_that_continues_another_one_is_refused() -> None:
    log = rotated()
    forge(log, 2, lambda header: replace(header, previous=0))
    with pytest.raises(CorruptionError, match="it continues segment 0, not 1") as caught:
        list(log.read(durable_lsn=log.writer.durable_lsn))
    assert (caught.value.file, caught.value.offset) == ("/db/00000002.wal", 56)


def test_a_first_link_that_does_not_start_a_chain_is_no_link() -> None:
    log = Log()
    log.append()
    log.writer.sync()
    log.writer.close()
    data = bytes_of(log.env, 1)
    header = decode_segment_header(data[:BLOCK_BYTES], "f")
    link = decode_link(data[:BLOCK_BYTES], header)
    assert link == SegmentLink(segment=1, previous=0, lsn_first=1, chain=header.salt)
    encoded = encode_link(replace(link, chain=header.salt ^ 1), header.salt)
    forged = data[:LINK_OFFSET] + encoded + data[LINK_OFFSET + LINK_BYTES :]
    replace_bytes(log.env, 1, forged)
    with pytest.raises(CorruptionError) as caught:
        list(log.read(durable_lsn=1))
    assert (caught.value.file, caught.value.offset) == ("/db/00000001.wal", LINK_OFFSET)


def test_two_records_without_a_header_are_told_by_their_chain() -> None:
    log = Log()
    for _ in range(2):
        log.append(b"value")
    log.writer.close()
    data = bytes_of(log.env, 1)
    first = BLOCK_BYTES
    second = data.index(data[first : first + 4], first + 1)
    assert has_chained_records(data, 1, 0, 8)
    assert not has_chained_records(data, 2, 0, 8), "of another segment"
    assert not has_chained_records(data, 1, 1, 8), "the first is not above this ordinal"
    assert has_chained_records(data[: second + RECORD_HEADER_BYTES], 1, 0, 8)
    assert not has_chained_records(data[: second + RECORD_HEADER_BYTES - 1], 1, 0, 8)
    # Magic, segment, ordinal, chain: one that differs is enough.
    for at in (second, second + 8, second + 16, second + 48):
        broken = bytearray(data)
        broken[at] ^= 1
        assert not has_chained_records(bytes(broken), 1, 0, 8), at - second


# --- an interrupted writer


def interrupted(log: Log, name: str) -> None:
    """Let the next call of this method of the writer be done, and then raise."""
    real = getattr(log.writer, name)

    def once(*arguments: object, **named: object) -> None:
        setattr(log.writer, name, real)
        real(*arguments, **named)
        raise KeyboardInterrupt

    setattr(log.writer, name, once)


def until_full(log: Log) -> None:
    """Append until the next record needs another segment."""
    segment = log.writer._current
    while segment.header.size - log.writer._end_bytes - segment.position > 2 * len(BIG):
        log.append(BIG)
    log.append(BIG[:-200])


@pytest.mark.parametrize("step", ["_write_record", "_sync_current"])
def test_a_change_of_segments_that_was_interrupted_is_gone_on_with(step: str) -> None:
    log = Log()
    until_full(log)
    full = log.writer.segments()
    interrupted(log, step)
    with pytest.raises(KeyboardInterrupt):
        log.append(BIG)
    assert [each.number for each in log.writer.segments()] == [each.number for each in full]
    ended = log.writer.written_lsn
    before = log.sim.op_count
    log.append(BIG)
    assert log.writer.written_lsn == ended + 1, "one END record, and it is there"
    sites = [op.site for op in log.sim.op_log[before:]]
    assert sites.count("wal.end.write") == 0
    assert sites.count("wal.end.sync") == (step == "_write_record")
    log.writer.sync()
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
    log.writer.close()
    assert log.env.unreturned() == []


def test_a_close_between_two_segments_closes_both() -> None:
    log = Log()
    until_full(log)
    interrupted(log, "_write_record")
    with pytest.raises(KeyboardInterrupt):
        log.append(BIG)
    log.writer.close()
    assert log.env.unreturned() == []


def test_after_a_change_of_segments_the_next_is_prepared_as_before() -> None:
    log = Log()
    until_full(log)
    log.append(BIG)
    assert len(log.writer.segments()) == 2
    log.append(b"x" * 600)
    assert log.writer.needs_next
    log.writer.prepare_next()
    assert not log.writer.needs_next
    assert log.number == 4, "the third segment is made"
    log.writer.close()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_a_segment_whose_making_was_cut_short_is_closed(
    interruption: type[BaseException],
) -> None:
    class Stopping(FaultEnv):
        def sync_dir(self, path: str, *, site: str) -> None:
            if site == "wal.segment.folder_sync" and log.number > 2:
                raise interruption
            super().sync_dir(path, site=site)

    log = Log(SimEnv(1))
    log.writer._env = Stopping(log.env, [])
    open_before = log.env.unreturned()
    with pytest.raises((interruption, DatabasePoisonedError)):
        log.writer.prepare_next()
    assert log.env.unreturned() == open_before
    log.writer.close()
    assert log.env.unreturned() == []


def test_a_call_that_nobody_knows_the_end_of_poisons() -> None:
    log = Log()
    log.append()
    assert not log.writer.in_doubt
    log.writer._in_doubt = True
    assert log.writer.in_doubt
    with pytest.raises(DatabasePoisonedError) as caught:
        log.append()
    assert isinstance(caught.value.__cause__, InterruptedError)
    assert log.writer.poisoned
    log.writer._in_doubt = False
    with pytest.raises(DatabasePoisonedError):
        log.writer.sync()


@pytest.mark.parametrize("call", ["append", "sync"])
def test_an_exception_in_the_place_of_an_error_leaves_the_call_in_doubt(call: str) -> None:
    """A second signal handler raises while the first one's exception is looked at."""
    log = Log()
    log.append()
    writer = log.writer

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    real = writer._current.file
    writer._current.file = type("Stopped", (), {"write_at": stopped, "sync": stopped})()
    writer._interrupted_by = stopped
    with pytest.raises(KeyboardInterrupt):
        log.append() if call == "append" else writer.sync()
    assert writer.in_doubt or writer.poisoned
    writer._current.file = real
    del writer._interrupted_by
    for _ in range(2):
        with pytest.raises(DatabasePoisonedError):
            writer.sync()


@pytest.mark.parametrize("call", ["sync", "append"])
def test_what_was_refused_and_could_not_be_wiped_is_wiped_first(call: str) -> None:
    full = [
        FaultRule(kind="write", site=site, error=errno.ENOSPC)
        for site in ("wal.record.write", "wal.record.wipe")
    ]
    log = Log(FaultEnv(SimEnv(1), full))
    with pytest.raises(DiskFullError):
        log.append()
    before = log.sim.op_count
    for _ in range(2):
        log.writer.sync() if call == "sync" else log.append()
    sites = [op.site for op in log.sim.op_log[before:]]
    assert sites[:2] == ["wal.record.wipe", "wal.record.wipe_sync"]
    assert sites.count("wal.record.wipe") == 1
    assert sites.count("wal.record.write") == (0 if call == "sync" else 2)
    log.writer.close()


# --- limits


def test_the_first_and_the_last_of_every_number_are_well_formed() -> None:
    one = RecordHeader(8, 1, 1, 1, 0, 0, 5, 1, RecordType.BATCHES, 9)
    end = one._replace(payload_size=END_PAYLOAD_BYTES, op_count=0, type=RecordType.END)
    for header in (
        one,
        one._replace(lsn=LSN_MAX, durable_lsn=LSN_MAX - 1),
        one._replace(seq_first=SEQ_MAX),
        one._replace(seq_first=SEQ_MAX - 4, op_count=5),
        one._replace(payload_size=1),
        end._replace(seq_first=0),
        end._replace(seq_first=SEQ_MAX + 1),
    ):
        assert is_well_formed(header), header
    for header in (
        one._replace(lsn=0),
        one._replace(lsn=LSN_MAX + 1),
        one._replace(durable_lsn=1),
        one._replace(seq_first=0),
        one._replace(seq_first=SEQ_MAX + 1),
        one._replace(seq_first=SEQ_MAX - 3, op_count=5),
        one._replace(payload_size=0),
        one._replace(op_count=0),
        one._replace(type=3),
        end._replace(seq_first=SEQ_MAX + 2),
        end._replace(op_count=1),
        end._replace(payload_size=END_PAYLOAD_BYTES + 1),
        end._replace(lsn=0),
    ):
        assert not is_well_formed(header), header
    assert (LSN_MAX, END_PAYLOAD_BYTES, SEGMENT_BYTES_MAX) == (2**63 - 1, 8, 2**31)


def test_a_segment_has_at_least_its_block_and_at_most_two_gibibytes() -> None:
    def decode(**changes: int) -> SegmentHeader:
        plain = encode_segment_header(HEADER)
        fields = {"number": 16, "size": 48, "previous": 56}
        body = bytearray(plain)
        for name, value in changes.items():
            body[fields[name] : fields[name] + 8] = value.to_bytes(8, "little")
        end = SEGMENT_HEADER_BYTES - 8
        body[end : end + 8] = checksum(bytes(body[:end])).to_bytes(8, "little")
        return decode_segment_header(bytes(body), "f")

    for size in (BLOCK_BYTES, SEGMENT_BYTES_MAX):
        assert decode(size=size).size == size
    for size in (BLOCK_BYTES - 1, SEGMENT_BYTES_MAX + 1):
        with pytest.raises(CorruptionError, match="the segment size") as caught:
            decode(size=size)
        assert caught.value.offset == 48
    assert decode(previous=11).previous == 11
    for changes, offset in (({"previous": 12}, 56), ({"number": 0}, 16)):
        with pytest.raises(CorruptionError) as caught:
            decode(**changes)
        assert caught.value.offset == offset


def test_a_link_has_an_ordinal_of_a_record() -> None:
    block = encode_segment_header(HEADER)

    def decode(**changes: int) -> SegmentLink | None:
        link = replace(SegmentLink(segment=12, previous=9, lsn_first=5, chain=1), **changes)
        encoded = encode_link(link, HEADER.salt)
        return decode_link(
            block[:LINK_OFFSET] + encoded + block[LINK_OFFSET + LINK_BYTES :], HEADER
        )

    for lsn in (1, LSN_MAX):
        link = decode(lsn_first=lsn)
        assert link is not None
        assert link.lsn_first == lsn
    for changes in ({"lsn_first": 0}, {"lsn_first": LSN_MAX + 1}, {"segment": 11}, {"previous": 8}):
        assert decode(**changes) is None


def test_a_log_says_how_far_it_was_read() -> None:
    log = rotated()
    found = log.read(durable_lsn=2)
    assert (found.last_lsn, found.last_seq, found.chain) == (2, 0, 0)
    assert (found.complete, found.tail_cut, found.end) == (False, False, ("", 0))
    assert (found.segments, found.orphans) == ([], [])
    segments = iter(found)
    next(segments)
    assert not found.complete
    assert found.last_lsn == 3, "two records and the END"
    assert len(list(segments)) == len(log.writer.segments()) - 1
    assert found.complete
    assert (found.last_lsn, found.last_seq) == (log.writer.written_lsn, log.seq - 1)
    last = log.writer.segments()[-1]
    assert found.end == (f"/db/{last.number:08d}.wal", last.bytes_used)


def test_a_next_segment_is_wanted_when_an_eighth_is_used() -> None:
    log = Log(segment_bytes=8192 * 4)
    segment = log.writer._current
    room = segment.header.size - BLOCK_BYTES
    assert (segment.number, segment.seq_first, segment.seq_last) == (1, 0, 0)
    segment.position = BLOCK_BYTES + room // 8 - 1
    assert not log.writer.needs_next
    segment.position += 1
    assert log.writer.needs_next
    log.writer.close()
    assert not log.writer.needs_next


def test_a_record_that_just_fits_does_not_go_to_another_segment() -> None:
    for more, segments in ((0, 1), (8, 2)):
        log = Log()
        segment = log.writer._current
        room = segment.header.size - log.writer._end_bytes - segment.position
        plain = RecordBuffer()
        plain.append_op(PUT, 1, b"key", b"x" * 2000)
        log.append(b"x" * (2000 + room - RECORD_HEADER_BYTES - plain.size + more))
        assert len(log.writer.segments()) == segments
        log.writer.sync()
        assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written
        log.writer.close()
