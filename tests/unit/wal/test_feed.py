"""`LogFeed`: batches of a log in order, from any number on, whatever a crash left of segments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.base import ChangesGoneError, CorruptionError
from holdfast.wal import LogEnd, LogFeed
from holdfast.wal.format import (
    BLOCK_BYTES,
    LINK_BYTES,
    LINK_OFFSET,
    decode_segment_header,
    encode_segment_header,
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
