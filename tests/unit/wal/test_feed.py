"""`LogFeed`: batches of a log in order, from any number on, whatever a crash left of segments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.base import ChangesGoneError, CorruptionError, FormatError
from holdfast.wal import LogEnd, LogFeed, RecordBuffer, WriteBatch, segments_beyond
from holdfast.wal.format import (
    BLOCK_BYTES,
    LINK_BYTES,
    LINK_OFFSET,
    RECORD_HEADER_BYTES,
    decode_link,
    decode_segment_header,
    encode_link,
    encode_segment_header,
    segment_name,
)
from tests.unit.wal.logs import DATABASE_ID, FOLDER, Log, bytes_of, replace_bytes

BIG = b"x" * 1500


def log_of(count: int) -> Log:
    """A log over several segments, all of it synced."""
    log = Log()
    for number in range(count):
        log.append(BIG + b"%d" % number)
        log.writer.sync()
    return log


def read(log: Log, after: int | None = 0, below: int = 1 << 62) -> list[int]:
    """The sequence numbers that a feed gives of a log that nobody writes any more."""
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=after)
    return [batch.seq_first for batch in feed.read(LogEnd(below=below))]


def overwrite(log: Log, number: int, offset: int, data: bytes) -> None:
    image = bytearray(bytes_of(log.env, number))
    image[offset : offset + len(data)] = data
    replace_bytes(log.env, number, bytes(image))


def test_batches_come_from_any_number_on() -> None:
    log = log_of(8)
    assert [read(log, after) for after in (0, 3, 7, 8)] == [
        [1, 2, 3, 4, 5, 6, 7, 8], [4, 5, 6, 7, 8], [8], [],
    ]  # fmt: skip
    assert read(log, None) == read(log)


def test_a_record_without_the_link_of_its_segment_is_read() -> None:
    """A crash may take the link and leave the record: what it continues is known."""
    log = log_of(8)
    whole = read(log)
    overwrite(log, log.number - 1, LINK_OFFSET, bytes(LINK_BYTES))
    assert read(log) == whole


@pytest.mark.parametrize("is_longer", [False, True])
def test_a_segment_that_shows_what_another_file_held_is_none(is_longer: bool) -> None:
    """One that was being prepared when the power went, on a disk that shows stale bytes."""
    log = log_of(8)
    whole = read(log)
    stale = bytes_of(log.env, 2) + bytes(4096 * is_longer)
    replace_bytes(log.env, log.number, stale)
    assert read(log) == whole


def test_a_segment_that_continues_another_one_is_refused() -> None:
    """Without its link nothing but the header says what it continues."""
    log = log_of(8)
    number = log.number - 1
    block = bytes_of(log.env, number)
    header = decode_segment_header(block[:BLOCK_BYTES], "f")
    changed = encode_segment_header(replace(header, previous=1))
    overwrite(log, number, 0, changed[:LINK_OFFSET] + bytes(LINK_BYTES))
    with pytest.raises(CorruptionError, match="it continues segment 1, not") as caught:
        read(log)
    assert (caught.value.file, caught.value.offset) == (f"{FOLDER}/{number:08d}.wal", 56)


@pytest.mark.parametrize("field", ["lsn_first", "chain"])
def test_a_segment_whose_link_says_another_record_is_refused(field: str) -> None:
    log = log_of(8)
    number = log.number - 1
    block = bytes_of(log.env, number)
    header = decode_segment_header(block[:BLOCK_BYTES], "f")
    link = decode_link(block, header)
    assert link is not None
    changed: Any = {field: getattr(link, field) + 1}
    overwrite(log, number, LINK_OFFSET, encode_link(replace(link, **changed), header.salt))
    with pytest.raises(
        CorruptionError, match="it continues another record than the last"
    ) as caught:
        read(log)
    path = f"{FOLDER}/{number:08d}.wal"
    assert (caught.value.file, caught.value.offset) == (path, LINK_OFFSET)


@pytest.mark.parametrize("room", [0, 8, RECORD_HEADER_BYTES - 8])
def test_a_segment_with_no_room_for_a_record_begins_with_none(room: int) -> None:
    """No writer makes one, but its header is right. What may be behind it is not gone for that."""
    log = log_of(3)
    later = next_life(log)
    block = bytes_of(log.env, later.first)[:BLOCK_BYTES]
    header = decode_segment_header(block, "f")
    small = encode_segment_header(replace(header, size=BLOCK_BYTES + room))
    image = small[:LINK_OFFSET] + block[LINK_OFFSET:] + bytes(room)
    replace_bytes(log.env, later.first, image)
    assert [read(log, after) for after in (None, 0, 2, 3)] == [
        [1, 2, 3], [1, 2, 3], [3], [],
    ]  # fmt: skip
    for name in set(log.env.list_dir(FOLDER)) - {segment_name(later.first)}:
        log.env.unlink(f"{FOLDER}/{name}", site="test")
    assert [read(log, after) for after in (None, 0, 3)] == [[], [], []]


def test_a_segment_that_is_removed_behind_the_listing_of_the_folder_is_passed_over() -> None:
    log = log_of(8)
    names = log.env.list_dir(FOLDER)
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    log.env.list_dir = lambda folder: names
    assert read(log, None) == [3, 4, 5, 6, 7, 8]
    assert read(log, 2) == [3, 4, 5, 6, 7, 8]
    with pytest.raises(ChangesGoneError, match="it is kept from 3 on"):
        read(log, 1)


def test_a_feed_does_not_begin_with_a_segment_without_its_link() -> None:
    log = log_of(8)
    overwrite(log, 1, LINK_OFFSET, bytes(LINK_BYTES))
    assert read(log, None) == [3, 4, 5, 6, 7, 8]
    assert read(log, 4) == [5, 6, 7, 8]
    with pytest.raises(ChangesGoneError, match="it is kept from 3 on"):
        read(log, 0)


def test_a_feed_begins_before_a_segment_without_room_for_a_record() -> None:
    """Nothing says with which batch it begins."""
    log = log_of(8)
    number = log.number - 1
    block = bytes_of(log.env, number)[:BLOCK_BYTES]
    header = decode_segment_header(block, "f")
    short = encode_segment_header(replace(header, size=BLOCK_BYTES))
    link = block[LINK_OFFSET : LINK_OFFSET + LINK_BYTES]
    image = short[:LINK_OFFSET] + link + short[LINK_OFFSET + LINK_BYTES :]
    replace_bytes(log.env, number, image)
    assert read(log, 4) == [5, 6]


def test_a_segment_that_is_missing_or_damaged_is_told() -> None:
    log = log_of(8)
    overwrite(log, 2, BLOCK_BYTES + 100, b"???")
    with pytest.raises(CorruptionError) as caught:
        read(log)
    assert caught.value.file == f"{FOLDER}/00000002.wal"
    log.env.unlink(f"{FOLDER}/00000002.wal", site="test")
    with pytest.raises(ChangesGoneError, match="segment 2 was removed"):
        read(log)
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    with pytest.raises(ChangesGoneError, match="it is kept from"):
        read(log)
    assert read(log, None)[-1] == 8


def fed(feed: LogFeed, end: LogEnd) -> list[int]:
    return [batch.seq_first for batch in feed.read(end)]


def live(log: Log, durable: int, below: int = 1 << 62) -> LogEnd:
    """How far a log that is written may be read, when so many records are durable."""
    used = {info.number: info.bytes_used for info in log.writer.segments()}
    return LogEnd(below=below, durable_lsn=durable, bytes_used=used)


def test_segments_from_a_number_on_are_left_alone() -> None:
    log = log_of(8)
    assert [read(log, 0, below) for below in (1, 2, 3)] == [[], [1, 2], [1, 2, 3, 4]]
    assert [read(log, None, below) for below in (1, 2, 3)] == [[], [1, 2], [1, 2, 3, 4]]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_of_a_log_that_is_written_only_what_is_durable_is_read_and_all_of_it_once(
    step: int,
) -> None:
    log = log_of(8)
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=0)
    lsns = [lsn for lsn, _, _ in log.written]
    found: list[int] = []
    for durable in [*range(0, lsns[-1], step), lsns[-1]]:
        found += fed(feed, live(log, durable))
        assert found == [seq for lsn, seq, _ in log.written if lsn <= durable]
        assert fed(feed, live(log, durable)) == []
    log.append(b"later", durable=True)
    assert fed(feed, live(log, log.writer.durable_lsn)) == [9]


def test_of_a_segment_that_is_written_no_more_is_read_than_what_is_new() -> None:
    log = log_of(1)
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=0)
    assert fed(feed, live(log, 1)) == [1]
    asked: list[tuple[int, int]] = []
    real = feed._bytes

    def noting(number: int, offset: int, count: int) -> bytes:
        asked.append((offset, offset + count))
        return real(number, offset, count)

    feed._bytes = noting  # type: ignore[method-assign]
    start = log.writer.segments()[0].bytes_used
    log.append(b"new", durable=True)
    assert fed(feed, live(log, 2)) == [2]
    assert asked == [(start, log.writer.segments()[0].bytes_used)]


def test_a_feed_closes_what_it_reads() -> None:
    log = log_of(8)
    log.writer.close()
    assert read(log) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert log.sim.unreturned() == []


def test_a_feed_that_is_left_in_the_middle_of_a_record_goes_on_there() -> None:
    log = Log()
    buffer = RecordBuffer()
    for number in range(3):
        batch = WriteBatch()
        batch.put(1, b"key", b"%d" % number)
        batch.put(1, b"other", b"%d" % number)
        buffer.append_batch(batch)
    log.writer.append(buffer, 1, durable=True)
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=None)
    batches = feed.read(live(log, 1))
    assert next(batches).seq_first == 1
    batches.close()
    rest = list(feed.read(live(log, 1)))
    assert [(each.seq_first, len(each.operations)) for each in rest] == [(3, 2), (5, 2)]
    # Behind the first operation of a batch the batch is given whole.
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=3)
    assert fed(feed, live(log, 1)) == [3, 5]
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=4)
    assert fed(feed, live(log, 1)) == [5]


def test_a_durable_record_that_cannot_be_read_is_damage() -> None:
    log = log_of(2)
    end = live(log, 2)
    size = len(log.written[0][2])
    start = BLOCK_BYTES + (80 + size + 7) // 8 * 8
    overwrite(log, 1, start + 90, b"???")
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=0)
    with pytest.raises(CorruptionError, match="durable cannot be read") as caught:
        fed(feed, end)
    assert (caught.value.file, caught.value.offset) == (f"{FOLDER}/00000001.wal", start)
    # What is not known to be durable may be a torn end.
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=0)
    assert fed(feed, end._replace(durable_lsn=1)) == [1]


def test_a_linked_segment_without_its_header_is_damage() -> None:
    log = log_of(8)
    overwrite(log, 2, 0, b"???")
    with pytest.raises(CorruptionError, match="the header of the segment is damaged") as caught:
        read(log, 0)
    assert (caught.value.file, caught.value.offset) == (f"{FOLDER}/00000002.wal", 0)


def test_a_segment_that_is_being_prepared_is_no_life_of_its_own() -> None:
    """It has a header and no link, or no header, and stands behind the end of the log."""
    log = log_of(1)
    log.writer.prepare_next()
    replace_bytes(log.env, log.number, bytes(8192))
    assert [read(log, after) for after in (None, 0, 1)] == [[1], [1], []]
    overwrite(log, 1, BLOCK_BYTES + 100, b"???")
    assert read(log, 0) == []


def next_life(log: Log, lsn: int | None = None) -> Log:
    """The log of the process after this one, which found it whole up to record `lsn` - 1."""
    last = log.writer.written_lsn
    log.writer.close()
    later = Log(log.env, lsn_first=last + 1 if lsn is None else lsn, number=log.number)
    later.seq = log.seq
    return later


def test_the_next_life_goes_on_where_the_log_ended() -> None:
    log = log_of(3)
    later = next_life(log)
    end = LogEnd(below=1 << 62, durable_lsn=4, bytes_used={later.first: BLOCK_BYTES})
    assert [fed(LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=after), end)
            for after in (None, 0, 2, 3)] == [[1, 2, 3], [1, 2, 3], [3], []]  # fmt: skip
    for _ in range(2):
        later.append(BIG, durable=True)
    assert [read(log, after) for after in (None, 0, 2, 3, 4, 5)] == [
        [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [3, 4, 5], [4, 5], [5], [],
    ]  # fmt: skip
    # A feed that had come to the end of the first life goes on, too.
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=0)
    assert fed(feed, LogEnd(below=later.first)) == [1, 2, 3]
    assert fed(feed, LogEnd(below=1 << 62)) == [4, 5]


def test_a_life_that_begins_elsewhere_does_not_go_on() -> None:
    log = log_of(3)
    later = next_life(log, lsn=9)
    later.append(durable=True)
    with pytest.raises(
        ChangesGoneError, match="ends before record 5, and the next one begins with 9"
    ):
        read(log, 0)


def test_a_record_that_is_missing_within_a_life_is_damage() -> None:
    log = log_of(5)
    image = bytes_of(log.env, 1)
    end = BLOCK_BYTES + 2 * ((80 + len(log.written[0][2]) + 7) // 8 * 8)
    overwrite(log, 1, end, bytes(len(image) - end))
    with pytest.raises(CorruptionError, match="record 3 is missing, though segment 2 goes on"):
        read(log, 0)


def test_a_segment_that_begins_with_its_end_does_not_know_where_it_begins() -> None:
    """A batch that is wanted may be behind it: what leads to it says so."""
    log = log_of(2)
    later = next_life(log)
    later.writer.begin_segment()
    later.writer.begin_segment()
    later.append(b"after", durable=True)
    assert [read(log, after) for after in (None, 0, 1, 2, 3)] == [
        [1, 2, 3], [1, 2, 3], [2, 3], [3], [],
    ]  # fmt: skip
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    assert read(log, 2) == [3]
    assert read(log, None) == [3]


def test_a_feed_starts_at_the_last_segment_that_may_hold_what_is_wanted() -> None:
    """The ones before are not read: they may be damaged."""
    log = log_of(8)
    for after, first in ((0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (6, 4)):
        feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=after)
        place = feed._find(LogEnd(below=1 << 62))
        assert place is not None
        assert (after, place.number) == (after, first)
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    assert read(log, 2) == [3, 4, 5, 6, 7, 8]
    with pytest.raises(ChangesGoneError, match="it is kept from 3 on"):
        read(log, 1)
    assert LogFeed(log.env, "/", database_id=DATABASE_ID, after=0)._find(LogEnd(below=9)) is None


def test_a_segment_of_another_database_is_an_error() -> None:
    log = log_of(1)
    feed = LogFeed(log.env, FOLDER, database_id=bytes(16), after=0)
    with pytest.raises(FormatError, match="of another database"):
        fed(feed, LogEnd(below=1 << 62))


def test_a_segment_that_is_removed_while_it_is_looked_at_is_gone() -> None:
    log = log_of(8)
    feed = LogFeed(log.env, FOLDER, database_id=DATABASE_ID, after=0)
    batches = feed.read(LogEnd(below=1 << 62))
    assert next(batches).seq_first == 1
    real = log.env.file_size

    def removed(path: str) -> int:
        if path.endswith("00000002.wal"):
            raise FileNotFoundError(path)
        size: int = real(path)
        return size

    log.env.file_size = removed
    with pytest.raises(ChangesGoneError, match="segment 2 was removed"):
        list(batches)


def test_the_newest_segments_of_together_so_many_bytes_are_kept() -> None:
    log = log_of(8)
    sizes = {number: log.env.file_size(f"{FOLDER}/{number:08d}.wal") for number in range(1, 5)}
    assert set(sizes.values()) == {8192}
    for kept, beyond in (
        (0, [1, 2, 3]), (8191, [1, 2, 3]), (8192, [1, 2]), (2 * 8192 - 1, [1, 2]),
        (2 * 8192, [1]), (3 * 8192, []), (1 << 40, []),
    ):  # fmt: skip
        assert segments_beyond(log.env, FOLDER, 4, kept) == beyond
    assert segments_beyond(log.env, FOLDER, 1, 0) == []
    log.env.create(f"{FOLDER}/other.wal", site="test").close()
    log.env.list_dir = lambda folder: ["00000003.wal", "x", "00000001.wal", "00000004.wal"]
    assert segments_beyond(log.env, FOLDER, 4, 0) == [1, 3]
    assert segments_beyond(log.env, FOLDER, 5, 8192) == [1, 3]


def test_an_empty_segment_is_kept_when_any_are() -> None:
    """The power went when it was made."""
    log = log_of(8)
    replace_bytes(log.env, 9, b"")
    log.env.list_dir = lambda folder: [f"{number:08d}.wal" for number in (1, 2, 9)]
    assert segments_beyond(log.env, FOLDER, 10, 0) == [1, 2, 9]
    assert segments_beyond(log.env, FOLDER, 10, 1) == [1, 2]
