"""`salvage_log`: what is whole is found at its place, whatever stands around it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from holdfast.base import CorruptionError, FormatError
from holdfast.codec import checksum
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.wal import RunReader, salvage, salvage_log
from holdfast.wal.format import (
    BLOCK_BYTES,
    RECORD_HEADER_BYTES,
    RecordHeader,
    RecordType,
    decode_segment_header,
    encode_record_header,
    encode_segment_header,
    record_bytes,
    segment_name,
)
from holdfast.wal.salvage import LogRun, SalvagedLog
from tests.unit.wal.logs import DATABASE_ID, FOLDER, Log, bytes_of, replace_bytes

BIG = b"x" * 1500


def log_of(count: int, *, env: Any = None, value: bytes = BIG) -> Log:
    """A log with so many durable records of one operation: of the big ones two fit a segment, and
    every END record takes an ordinal, too.
    """
    log = Log(env)
    for number in range(count):
        log.edit = 10 + number
        log.append(value + b"%d" % number, durable=True)
    return log


def salvaged(log: Log, first: int = 0, **known: Any) -> SalvagedLog:
    return salvage_log(log.env, FOLDER, first, **known)


def overwrite(log: Log, number: int, offset: int, data: bytes) -> None:
    image = bytearray(bytes_of(log.sim, number))
    image[offset : offset + len(data)] = data
    replace_bytes(log.sim, number, bytes(image))


def place(log: Log, index: int) -> tuple[int, int]:
    """Where the record of that index in its segment begins and ends, with its padding."""
    size = len(log.written[0][2])
    each = record_bytes(size, log.alignment)
    return BLOCK_BYTES + index * each, BLOCK_BYTES + (index + 1) * each


def spans(found: SalvagedLog) -> list[tuple[int, int, int]]:
    return [(run.segment, run.lsn_first, run.lsn_last) for run in found.runs]


def read_back(log: Log, found: SalvagedLog) -> list[tuple[int, int, bytes]]:
    """Every record with operations that the runs lead to."""
    records = []
    reader = RunReader(log.env)
    for run in found.runs:
        data, scan = reader.read(run)
        for record in scan.records:
            if record.op_count:
                at = record.payload_offset
                payload = data[at : at + record.payload_size]
                records.append((record.lsn, record.seq_first, bytes(payload)))
    return records


def places(found: SalvagedLog) -> list[tuple[str, int]]:
    return [(error.file.rpartition("/")[2], error.offset) for error in found.damage]


def test_a_whole_log_is_one_run_in_each_segment() -> None:
    log = log_of(5)
    found = salvaged(log)
    assert spans(found) == [(1, 1, 3), (2, 4, 6), (3, 7, 7)]
    header = decode_segment_header(bytes_of(log.env, 2), "f")
    assert found.runs[1] == LogRun(
        segment=2,
        path=f"{FOLDER}/00000002.wal",
        offset=BLOCK_BYTES,
        lsn_first=4,
        lsn_last=6,
        seq_first=3,
        seq_next=5,
        operations=2,
        salt=header.salt,
        alignment=8,
    )
    assert (found.lsn_last, found.seq_last) == (7, 5)
    assert (found.database_id, found.alignment) == (DATABASE_ID, 8)
    assert (found.durable_lsn, found.manifest_edit, found.damage) == (6, 14, [])
    assert read_back(log, found) == log.written
    log.writer.close()
    assert log.sim.unreturned() == []


def test_where_there_is_no_log_nothing_is_found() -> None:
    assert (SalvagedLog().database_id, SalvagedLog().lsn_last, SalvagedLog().seq_last) == (
        b"",
        0,
        0,
    )
    log = Log()
    found = salvaged(log)
    assert (found.runs, found.damage, found.lsn_last, found.seq_last) == ([], [], 0, 0)
    assert found.database_id == DATABASE_ID, "a segment without records says whose it is"
    nothing = salvaged(log, 2)
    assert (nothing.durable_lsn, nothing.manifest_edit, nothing.alignment) == (0, 0, 0)
    assert (nothing.runs, nothing.damage, nothing.database_id) == ([], [], b"")


def test_segments_are_read_from_the_first_to_the_last_that_is_asked_for() -> None:
    log = log_of(7)
    assert spans(salvaged(log, 2)) == [(2, 4, 6), (3, 7, 9), (4, 10, 10)]
    assert spans(salvaged(log, 2, last_segment=3)) == [(2, 4, 6), (3, 7, 9)]


@pytest.mark.parametrize("part", ["header", "payload"])
def test_records_around_a_damaged_one_are_two_runs(part: str) -> None:
    log = log_of(20, value=b"y" * 200)
    start, _ = place(log, 3)
    overwrite(log, 1, start + (24 if part == "header" else RECORD_HEADER_BYTES + 9), b"?")
    found = salvaged(log)
    assert spans(found)[:2] == [(1, 1, 3), (1, 5, spans(found)[1][2])]
    assert places(found) == [("00000001.wal", start)]
    assert read_back(log, found) == [each for each in log.written if each[0] != 4]


def test_of_several_records_between_damaged_ones_each_is_looked_at_once() -> None:
    """Their headers are found with those behind the first gap, and they are read with its run."""
    log = log_of(8, value=b"y" * 200)
    for index in (1, 5):
        overwrite(log, 1, place(log, index)[0] + RECORD_HEADER_BYTES + 9, b"?")
    found = salvaged(log)
    assert spans(found) == [(1, 1, 1), (1, 3, 5), (1, 7, 8)]
    assert places(found) == [("00000001.wal", place(log, index)[0]) for index in (1, 5)]
    assert read_back(log, found) == [each for each in log.written if each[0] not in {2, 6}]


def test_a_zeroed_record_is_damage_only_when_something_stands_behind_it() -> None:
    log = log_of(5, value=b"y" * 200)
    start, end = place(log, 2)
    overwrite(log, 1, start, bytes(end - start))
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 2), (1, 4, 5)], [("00000001.wal", start)])
    start, end = place(log, 3)
    overwrite(log, 1, start, bytes(2 * (end - start)))
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 2)], [])


def test_damage_behind_the_last_record_is_told() -> None:
    log = log_of(3, value=b"y" * 200)
    _, end = place(log, 2)
    overwrite(log, 1, end + 1000, b"?")
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 3)], [("00000001.wal", end)])


def test_what_stands_behind_an_end_record_is_nothing() -> None:
    log = log_of(3)
    size = len(bytes_of(log.env, 1))
    overwrite(log, 1, size - 8, b"?")
    found = salvaged(log)
    assert (spans(found), found.damage) == ([(1, 1, 3), (2, 4, 4)], [])


def test_a_record_that_ends_with_the_file_is_found() -> None:
    """Of a segment that was cut behind its last record, or within it."""
    log = log_of(3, value=b"y" * 200)
    start, end = place(log, 2)
    image = bytes_of(log.env, 1)
    replace_bytes(log.env, 1, image[:end])
    assert spans(salvaged(log)) == [(1, 1, 3)]
    replace_bytes(log.env, 1, image[: end - 1])
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 2)], [("00000001.wal", start)])


def test_the_last_record_of_a_cut_segment_is_found_behind_damage() -> None:
    """An END record and nothing behind it: exactly a header and its eight bytes are left."""
    log = log_of(3)
    start, end = place(log, 1)
    overwrite(log, 1, start + RECORD_HEADER_BYTES, b"??")
    image = bytes_of(log.env, 1)
    replace_bytes(log.env, 1, image[: end + RECORD_HEADER_BYTES + 8])
    assert spans(salvaged(log)) == [(1, 1, 1), (1, 3, 3), (2, 4, 4)]


@pytest.mark.parametrize("alignment", [8, 512])
def test_damaged_padding_loses_no_record(alignment: int) -> None:
    """No checksum covers it, and behind damage a sealed segment shows it as 0xFF."""
    log = Log(alignment=alignment, segment_bytes=1 << 14)
    for number in range(6):
        log.append(b"y" * 196 + b"%d" % number)
    size = len(log.written[0][2])
    for index in (1, 3, 5):
        start, end = place(log, index)
        at = start + RECORD_HEADER_BYTES + size
        assert at < end
        overwrite(log, 1, at, b"\xff" * (end - at))
    found = salvaged(log)
    assert spans(found) == [(1, 1, 1), (1, 2, 6)]
    assert places(found) == [("00000001.wal", place(log, 1)[0])]
    assert read_back(log, found) == log.written


def test_a_run_behind_another_life_is_cut_where_that_begins() -> None:
    """What an earlier life wrote behind a torn end, the next one has written anew."""
    log = log_of(5, value=b"y" * 200)
    log.writer.close()
    later = Log(log.env, lsn_first=4, number=log.number)
    later.seq = 4
    later.append(b"other", durable=True)
    found = salvaged(log)
    assert spans(found) == [(1, 1, 3), (log.number, 4, 4)]
    assert read_back(log, found) == [*log.written[:3], *later.written]
    whole = Log(log.env, lsn_first=1, number=later.number)
    whole.append(b"all", durable=True)
    assert spans(salvaged(log)) == [(later.number, 1, 1)]


@pytest.mark.parametrize("lsn", [1, 4, 5])
@pytest.mark.parametrize("has_link", [True, False])
def test_the_first_record_of_a_life_replaces_all_from_it_on(lsn: int, has_link: bool) -> None:
    log = log_of(5, value=b"y")
    log.writer.close()
    later = Log(log.env, lsn_first=lsn, number=log.number)
    later.seq = lsn
    later.append(b"other", durable=True)
    if not has_link:
        overwrite(log, later.first, BLOCK_BYTES // 2, bytes(48))
    found = salvaged(log)
    assert spans(found) == [(1, 1, lsn - 1)][: lsn - 1] + [(later.first, lsn, lsn)]
    assert read_back(log, found) == [*log.written[: lsn - 1], *later.written]


def two_lives() -> tuple[Log, Log]:
    """A life whose second record was torn and whose third was not, and the next one, which begins
    with the second.
    """
    log = log_of(3, value=b"y" * 200)
    log.writer.close()
    start, _ = place(log, 1)
    overwrite(log, 1, start + RECORD_HEADER_BYTES, b"??")
    later = Log(log.env, lsn_first=2, number=log.number)
    later.seq = 2
    return log, later


def test_what_stood_behind_a_torn_end_does_not_come_back_in_a_life_without_records() -> None:
    """It was never acknowledged, and the next open left it out."""
    log, _ = two_lives()
    found = salvaged(log)
    assert (spans(found), found.seq_last) == ([(1, 1, 1)], 1)
    assert read_back(log, found) == log.written[:1]


def test_what_stood_behind_a_torn_end_does_not_come_back_for_what_the_next_life_lost() -> None:
    log, later = two_lives()
    for number in range(3):
        later.append(b"z" * 200 + b"%d" % number, durable=True)
    for index in range(2):
        start, _ = place(later, index)
        overwrite(log, later.first, start + RECORD_HEADER_BYTES, b"??")
    found = salvaged(log)
    assert spans(found) == [(1, 1, 1), (later.first, 4, 4)]
    assert read_back(log, found) == [log.written[0], later.written[2]]
    # Where the link is lost, too, the first record that is left says what is replaced for certain.
    overwrite(log, later.first, BLOCK_BYTES // 2, bytes(48))
    assert spans(salvaged(log)) == [(1, 1, 1), (1, 3, 3), (later.first, 4, 4)]


def test_a_later_life_that_goes_on_behind_the_last_record_cuts_nothing() -> None:
    log = log_of(5, value=b"y" * 200)
    log.writer.close()
    later = Log(log.env, lsn_first=6, number=log.number)
    later.seq = 6
    later.append(b"other", durable=True)
    assert spans(salvaged(log)) == [(1, 1, 5), (log.number, 6, 6)]
    assert read_back(log, salvaged(log)) == [*log.written, *later.written]


@pytest.mark.parametrize("index", [0, 2])
def test_a_record_that_is_doubled_is_not_read_twice(index: int) -> None:
    """Within a segment ordinals grow: what stands again behind them is old, the last one, too."""
    log = log_of(3, value=b"y" * 200)
    start, end = place(log, index)
    copy = bytes_of(log.env, 1)[start:end]
    _, behind = place(log, 2)
    overwrite(log, 1, behind, copy)
    assert spans(salvaged(log)) == [(1, 1, 3)]


@pytest.mark.parametrize("index", [0, 1])
def test_a_record_that_is_doubled_behind_damage_is_not_read_twice(index: int) -> None:
    """There nothing tells what must follow, but that ordinals grow."""
    log = log_of(5, value=b"y" * 200)
    start, end = place(log, index)
    copy = bytes_of(log.env, 1)[start:end]
    overwrite(log, 1, place(log, 2)[0], b"????")
    overwrite(log, 1, place(log, 3)[0], copy)
    found = salvaged(log)
    assert spans(found) == [(1, 1, 2), (1, 5, 5)]
    assert read_back(log, found) == [*log.written[:2], log.written[4]]


def test_a_record_that_is_left_out_is_a_gap_and_no_damaged_place() -> None:
    """What follows stands where the missing one did: it is read, and the numbers tell."""
    log = log_of(4, value=b"y" * 200)
    start, end = place(log, 1)
    image = bytes_of(log.env, 1)
    replace_bytes(log.env, 1, image[:start] + image[end:] + bytes(end - start))
    found = salvaged(log)
    assert (spans(found), found.damage) == ([(1, 1, 1), (1, 3, 4)], [])


def test_records_behind_a_damaged_header_are_found_with_what_stands_there() -> None:
    """Its salt is right, whatever else is not; and its number is that of the name."""
    log = log_of(3)
    overwrite(log, 2, 56, b"?")
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 3), (2, 4, 4)], [("00000002.wal", 0)])
    assert read_back(log, found) == log.written
    overwrite(log, 2, 16, b"\x09")
    assert read_back(log, salvaged(log)) == log.written


@pytest.mark.parametrize("alignment", [7, 0, 8192])
def test_nothing_is_read_with_an_alignment_that_none_has(alignment: int) -> None:
    log = log_of(3)
    overwrite(log, 2, 12, alignment.to_bytes(4, "little"))
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 3)], [("00000002.wal", 0)])


def test_a_segment_that_was_being_prepared_is_nothing() -> None:
    log = log_of(1)
    image = bytes_of(log.env, 1)
    for torn in (bytes(8192), image[:512] + b"?" + bytes(8191 - 512), b"", image[:100]):
        replace_bytes(log.env, 9, torn)
        found = salvaged(log)
        assert (spans(found), found.damage) == ([(1, 1, 1)], [])


def test_a_segment_that_ends_within_a_long_header_block_has_no_records() -> None:
    log = Log(alignment=4096, segment_bytes=1 << 15)
    log.append(b"v", durable=True)
    for size in (8191, 8150, 8112, 4100):
        replace_bytes(log.env, 1, bytes_of(log.env, 1)[:size])
        found = salvaged(log)
        assert (found.runs, places(found)) == ([], [("00000001.wal", 0)])


def test_a_segment_without_its_header_that_holds_something_is_damage() -> None:
    log = log_of(1)
    replace_bytes(log.env, 9, bytes(8191) + b"?")
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 1)], [("00000009.wal", 0)])
    # Far behind the front, too.
    replace_bytes(log.env, 9, bytes(BLOCK_BYTES + (1 << 17)) + b"?" + bytes(99))
    assert places(salvaged(log)) == [("00000009.wal", 0)]


def changed(log: Log, segment: int, **fields: Any) -> None:
    """Give a segment a header that is right and says something else."""
    header = decode_segment_header(bytes_of(log.env, segment), "f")
    block = encode_segment_header(replace(header, **fields))
    overwrite(log, segment, 0, block[: BLOCK_BYTES // 2])


def test_a_segment_under_another_name_is_damage() -> None:
    log = log_of(3)
    changed(log, 2, number=7)
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 3)], [("00000002.wal", 16)])


def test_a_segment_of_another_database_is_damage() -> None:
    log = log_of(5)
    changed(log, 2, database_id=bytes(16))
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 3), (3, 7, 7)], [("00000002.wal", 32)])
    found = salvaged(log, database_id=bytes(16))
    assert spans(found) == [(2, 4, 6)]
    assert places(found) == [("00000001.wal", 32), ("00000003.wal", 32)]


def test_a_newer_version_is_an_error_and_another_format_is_damage() -> None:
    log = log_of(3)
    image = bytes_of(log.env, 2)
    changed_header = decode_segment_header(image, "f")
    newer = bytearray(encode_segment_header(changed_header))
    newer[8] = 9
    _seal(newer)
    overwrite(log, 2, 0, bytes(newer[:80]))
    with pytest.raises(FormatError, match="log format 9"):
        salvaged(log)
    newer[0] ^= 1
    _seal(newer)
    overwrite(log, 2, 0, bytes(newer[:80]))
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 3)], [("00000002.wal", 0)])
    assert "not a Holdfast log segment" in found.damage[0].reason


def _seal(block: bytearray) -> None:
    block[72:80] = checksum(bytes(block[:72])).to_bytes(8, "little")


def test_a_segment_that_cannot_be_read_is_damage() -> None:
    env = FaultEnv(SimEnv(1))
    log = log_of(5, env=env)
    env.add(FaultRule(kind="read", path=segment_name(2), times=None, error=errno.EIO))
    found = salvaged(log)
    assert (spans(found), places(found)) == ([(1, 1, 3), (3, 7, 7)], [("00000002.wal", 0)])


def test_a_run_that_reads_otherwise_than_before_is_damage() -> None:
    log = log_of(3, value=b"y" * 200)
    run = salvaged(log).runs[0]
    start, _ = place(log, 2)
    overwrite(log, 1, start + RECORD_HEADER_BYTES + 9, b"?")
    with pytest.raises(CorruptionError, match="otherwise than a moment ago") as caught:
        RunReader(log.env).read(run)
    assert (caught.value.file, caught.value.offset) == (run.path, run.offset)


def test_a_segment_damaged_in_many_places_is_looked_through_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Time grows with the bytes of a segment, not with records times gaps."""
    log = log_of(30, value=b"y" * 20)
    for index in range(1, 30, 2):
        start, _ = place(log, index)
        overwrite(log, 1, start + RECORD_HEADER_BYTES + 9, b"?")
    looked, read = [], []
    monkeypatch.setattr(salvage, "find_later_records", counting(looked, salvage.find_later_records))
    monkeypatch.setattr(salvage, "_bytes", counting(read, salvage._bytes))
    found = salvaged(log)
    assert [run.lsn_first for run in found.runs] == list(range(1, 31, 2))
    assert [lsn for lsn, _, _ in read_back(log, found)] == [run.lsn_first for run in found.runs]
    # Salvaged once, and read once more.
    assert len(looked) == len(read) == 2
    reader = RunReader(log.env)
    assert reader.read(found.runs[0])[0] is reader.read(found.runs[0])[0]
    assert len(looked) == len(read) == 3


@pytest.mark.parametrize("how", ["missing", "zeros", "other bytes", "cut", "no format", "unread"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_segment_in_which_the_log_goes_on_and_that_cannot_be_read_is_said(
    how: str, number: int
) -> None:
    """By the segment before it, or by whoever knows where the log begins."""
    log = log_of(5 if number == 3 else 1)
    assert salvaged(log, 1).unread is None
    image = bytes_of(log.env, number)
    env: Any = log.env
    if how == "missing":
        log.env.unlink(f"{FOLDER}/{number:08d}.wal", site="test")
    elif how == "unread":
        env = FaultEnv(log.env)
        env.add(FaultRule(kind="read", path=f"{number:08d}.wal", times=99))
    else:
        changed = {
            "zeros": bytes(BLOCK_BYTES) + image[BLOCK_BYTES:],
            "other bytes": image[:16] + b"?" * 16 + image[32:],
            "cut": image[:100],
            "no format": b"?" * BLOCK_BYTES + image[BLOCK_BYTES:],
        }[how]
        replace_bytes(log.env, number, changed)
    found = salvage_log(env, FOLDER, 1)
    assert found.unread is not None
    assert found.unread.file == f"{FOLDER}/{number:08d}.wal"
    assert found.lsn_last == (6 if number == 3 else 0)
    # A later life is no matter for whoever knows that the log begins here: it never came into
    # force. Else it is the last thing that is known: what it begins with is in tables.
    Log(log.env, number=9, lsn_first=20)
    unread = salvage_log(env, FOLDER, 1).unread
    assert unread is not None
    assert unread.file == f"{FOLDER}/{number:08d}.wal"
    assert salvage_log(env, FOLDER).unread is None


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_a_last_segment_that_was_cut_before_the_log_ended_is_not_all_of_it(kept: int) -> None:
    log = log_of(1)
    image = bytes_of(log.env, 1)
    _, end = place(log, 0)
    replace_bytes(log.env, 1, image[: end + kept])
    unread = salvaged(log).unread
    assert unread is not None
    assert unread.file == f"{FOLDER}/00000001.wal"
    # Where zeros stand behind the last record the log ended.
    replace_bytes(log.env, 1, image[: end + RECORD_HEADER_BYTES])
    assert salvaged(log).unread is None


def test_a_log_that_ends_in_a_segment_without_records_is_all_there() -> None:
    log = log_of(4)
    # The END record of the second segment is written with the first record of the third.
    log.append(BIG, durable=True)
    image = bytes_of(log.env, 3)
    for content in (image[:BLOCK_BYTES], b"?" * BLOCK_BYTES):
        replace_bytes(log.env, 3, content + bytes(len(image) - BLOCK_BYTES))
        assert salvaged(log).unread is None
    # One that no record leads to was being prepared.
    log.env.unlink(f"{FOLDER}/00000003.wal", site="test")
    log.env.unlink(f"{FOLDER}/00000002.wal", site="test")
    start, _ = place(log, 2)
    overwrite(log, 1, start, bytes(RECORD_HEADER_BYTES))
    log.env.create(f"{FOLDER}/00000002.wal", site="test").write_at(0, b"?" * 99, site="test")
    assert salvaged(log).unread is None


def test_records_behind_a_lost_header_are_said_when_the_end_before_them_is_lost_too() -> None:
    log = log_of(20, value=b"y" * 900)
    for number in range(3, log.number):
        log.env.unlink(f"{FOLDER}/{number:08d}.wal", site="test")
    data, scan = RunReader(log.env).read(salvaged(log, last_segment=1).runs[0])
    overwrite(log, 1, scan.record(scan.record_count - 1).payload_offset - 9, b"?" * 30)
    overwrite(log, 2, 0, bytes(BLOCK_BYTES))
    unread = salvaged(log).unread
    assert unread is not None
    assert unread.file == f"{FOLDER}/00000002.wal"
    # Records with ordinals of before are none that are missing.
    Log(log.env, number=9, lsn_first=99).append()
    assert salvaged(log).unread is None
    assert data


def test_forged_headers_that_claim_much_are_not_all_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would cost a checksum of what it claims: time would grow with the square of a file."""
    log = Log(segment_bytes=1 << 16)
    log.append(b"first", durable=True)
    image = bytearray(bytes_of(log.env, 1))
    _, at = place(log, 0)
    salt = log.writer._current.header.salt
    while at + 2 * RECORD_HEADER_BYTES <= len(image):
        header = RecordHeader(
            payload_size=len(image) - at - RECORD_HEADER_BYTES, segment=1, lsn=9, seq_first=9,
            durable_lsn=1, manifest_edit=0, chain=0, op_count=1, type=RecordType.BATCHES,
            payload_checksum=7,
        )  # fmt: skip
        image[at : at + RECORD_HEADER_BYTES] = encode_record_header(header, salt)[0]
        at += RECORD_HEADER_BYTES
    replace_bytes(log.env, 1, bytes(image))
    scans: list[None] = []
    monkeypatch.setattr(salvage, "scan_records", counting(scans, salvage.scan_records))
    found = salvaged(log)
    assert spans(found) == [(1, 1, 1)]
    assert 4 <= len(scans) <= 7
    assert found.damage[-1].reason == "the headers here are forged"
    assert found.unread is not None


def counting(calls: list[None], called: Callable[..., Any]) -> Callable[..., Any]:
    def count(*given: Any) -> Any:
        calls.append(None)
        return called(*given)

    return count


def test_runs_are_read_in_any_order_and_of_several_segments() -> None:
    log = log_of(40, value=b"y" * 200)
    for number in (1, 2, 3):
        start, _ = place(log, 1)
        overwrite(log, number, start + RECORD_HEADER_BYTES + 9, b"?")
    found = salvaged(log)
    assert len({run.segment for run in found.runs}) > 3
    expected = {run.lsn_first: RunReader(log.env).read(run)[1].end_offset for run in found.runs}
    reader = RunReader(log.env)
    for run in [*reversed(found.runs), *found.runs, *found.runs[::2]]:
        assert reader.read(run)[1].end_offset == expected[run.lsn_first]


def test_the_bytes_of_one_segment_are_let_go_before_another_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = log_of(7)
    runs = salvaged(log).runs
    assert len({run.segment for run in runs}) == len(runs) == 4
    reader = RunReader(log.env)
    held: list[bytes] = []
    real = salvage._bytes

    def noting(env: Any, path: str) -> bytes:
        held.append(reader._data)
        return real(env, path)

    monkeypatch.setattr(salvage, "_bytes", noting)
    for run in runs:
        reader.read(run)
    assert held == [b""] * 4


@pytest.mark.parametrize("kept", [1, RECORD_HEADER_BYTES - 1, RECORD_HEADER_BYTES])
def test_a_piece_of_a_first_record_at_the_end_of_a_cut_segment_is_damage(kept: int) -> None:
    log = log_of(1)
    replace_bytes(log.env, 1, bytes_of(log.env, 1)[: BLOCK_BYTES + kept])
    found = salvaged(log)
    assert (found.runs, places(found)) == ([], [("00000001.wal", BLOCK_BYTES)])
    replace_bytes(log.env, 1, bytes_of(log.env, 1)[:BLOCK_BYTES])
    found = salvaged(log)
    assert (found.runs, found.damage) == ([], [])


@pytest.mark.parametrize("how", ["unread", "no format", "other bytes"])
def test_a_segment_to_which_nothing_leads_is_said_until_a_record_follows(how: str) -> None:
    """The END record before it is lost as well, and nobody knows where the log begins."""
    log = log_of(4)
    start, _ = place(log, 2)
    overwrite(log, 1, start, bytes(RECORD_HEADER_BYTES))
    env: Any = FaultEnv(log.env)
    path, image = f"{FOLDER}/00000002.wal", bytes_of(log.env, 2)
    if how == "unread":
        env.add(FaultRule(kind="read", path="00000002.wal", times=None))
    else:
        first = b"?" * BLOCK_BYTES if how == "no format" else image[:16] + b"?" * 16 + image[32:64]
        replace_bytes(log.env, 2, first + image[len(first) :])
    found = salvage_log(env, FOLDER, last_segment=2)
    assert found.unread is not None
    assert found.unread.file == path
    # A record of a segment behind it says that the log is known further on.
    log.append(BIG, durable=True)
    found = salvage_log(env, FOLDER)
    assert (found.unread, found.lsn_last > 4) == (None, True)


def test_a_header_that_is_all_there_is_of_a_segment_and_no_header_is_not_the_end() -> None:
    log = log_of(5)
    replace_bytes(log.env, 3, b"?" * BLOCK_BYTES)
    found = salvage_log(log.env, FOLDER, 1)
    assert found.unread is not None
    assert found.unread.file == f"{FOLDER}/00000003.wal"


def test_the_size_in_a_damaged_header_says_nothing_of_what_was_cut() -> None:
    log = log_of(1)
    image = bytearray(bytes_of(log.env, 1))
    _, end = place(log, 0)
    image[end : end + RECORD_HEADER_BYTES] = b"?" * RECORD_HEADER_BYTES
    size_at = image.index(len(image).to_bytes(8, "little"), 0, 128)
    image[size_at + 3] ^= 1
    replace_bytes(log.env, 1, bytes(image))
    found = salvage_log(log.env, FOLDER)
    assert found.lsn_last == 1
    assert found.unread is None


def test_the_only_segment_says_by_its_records_that_it_was_used() -> None:
    """Nothing else tells how they are aligned."""
    log = log_of(3)
    image = bytes_of(log.env, 1)
    replace_bytes(log.env, 1, b"?" * BLOCK_BYTES + image[BLOCK_BYTES:])
    found = salvage_log(log.env, FOLDER, last_segment=1)
    assert found.unread is not None
    assert found.unread.file == f"{FOLDER}/00000001.wal"
