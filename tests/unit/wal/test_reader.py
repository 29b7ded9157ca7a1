"""`read_log`: where a log ends, what is refused, and what is never believed."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.base import CorruptionError, FormatError, marks_seen
from holdfast.codec import checksum
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.wal.format import (
    BLOCK_BYTES,
    LINK_BYTES,
    LINK_OFFSET,
    SEGMENT_HEADER_BYTES,
    decode_segment_header,
)
from tests.unit.wal.logs import FOLDER, Log, bytes_of, contents, records, replace_bytes

BIG = b"x" * 1500


def rotated(count: int = 7, **named: Any) -> Log:
    """A log over several segments, all of it synced."""
    log = Log(**named)
    for number in range(count):
        log.append(BIG + b"%d" % number)
        log.writer.sync()
    return log


def damage(log: Log, number: int, offset: int, data: bytes | None = None) -> None:
    """Overwrite bytes of a segment, or flip a bit."""
    image = bytearray(bytes_of(log.env, number))
    data = bytes([image[offset] ^ 4]) if data is None else data
    image[offset : offset + len(data)] = data
    replace_bytes(log.env, number, bytes(image))


def places(log: Log) -> list[tuple[int, int]]:
    """(segment, offset of the header) of every record with operations."""
    found = []
    for segment in log.read():
        found += [
            (segment.number, record.payload_offset - 80)
            for record in segment.scan.records
            if record.type == 1
        ]
    return found


def refused(log: Log, **known: Any) -> CorruptionError:
    with pytest.raises(CorruptionError) as caught:
        records(log.read(**known))
    return caught.value


def test_an_unused_log_is_empty() -> None:
    log = Log(lsn_first=31)
    found = log.read(durable_lsn=30)
    assert records(found) == []
    assert (found.last_lsn, found.last_seq, found.segments, found.tail_cut) == (30, 0, [1], False)
    assert found.end == (f"{FOLDER}/00000001.wal", BLOCK_BYTES)


def test_a_new_log_is_empty() -> None:
    found = Log().read()
    assert records(found) == []
    assert (found.last_lsn, found.last_seq, found.tail_cut) == (0, 0, False)


def test_segments_come_one_at_a_time_with_their_bytes() -> None:
    log = rotated()
    segments = list(log.read())
    assert [segment.number for segment in segments] == [1, 2, 3, 4]
    assert [record[2] for record in log.written] == [
        bytes(record.payload) for segment in segments for record in segment.records()
    ]
    assert segments[0].path == f"{FOLDER}/00000001.wal"


def test_reading_gives_all_files_back_also_from_damage() -> None:
    log = rotated()
    log.writer.prepare_next()
    before = log.env.unreturned()
    records(log.read())
    assert log.env.unreturned() == before
    damage(log, log.number - 1, 20)
    before = log.env.unreturned()
    records(log.read())
    assert log.env.unreturned() == before, "nor from a segment that is only looked at"
    damage(log, 3, 20)
    before = log.env.unreturned()
    refused(log)
    assert log.env.unreturned() == before


def test_a_log_is_read_once() -> None:
    found = rotated().read()
    records(found)
    with pytest.raises(AssertionError, match="read once"):
        records(found)


def test_a_torn_tail_that_was_never_durable_is_cut() -> None:
    log = rotated(2)
    log.append(b"never synced")
    number, offset = places(log)[-1]
    damage(log, number, offset + 90)
    found = log.read(durable_lsn=2)
    assert records(found) == log.written[:2]
    assert (found.tail_cut, found.last_lsn, found.last_seq) == (True, 2, 2)
    assert marks_seen()["wal.tail_cut"]


def test_the_same_damage_is_refused_when_the_manifest_knows_better() -> None:
    log = rotated(2)
    log.append(b"synced")
    log.writer.sync()
    number, offset = places(log)[-1]
    damage(log, number, offset + 90)
    error = refused(log, durable_lsn=3)
    assert (error.file, error.offset) == (f"{FOLDER}/{number:08d}.wal", offset)
    assert "the manifest knows" in error.reason


def test_the_same_damage_is_refused_when_a_later_record_knows_better() -> None:
    log = Log()
    for value in (b"a", b"b", b"c"):
        log.append(value)
        log.writer.sync()
    number, offset = places(log)[1]
    damage(log, number, offset + 20)
    error = refused(log)
    assert (error.offset, "a later record knows" in error.reason) == (offset, True)


def test_a_hole_among_records_that_were_never_synced_is_cut() -> None:
    log = Log()
    for value in (b"a", b"b", b"c", b"d"):
        log.append(value)
    number, offset = places(log)[1]
    damage(log, number, offset, bytes(88))
    found = log.read()
    assert records(found) == log.written[:1]
    assert found.tail_cut


def test_a_record_missing_before_a_later_segment_is_refused() -> None:
    log = Log()
    for _ in range(4):
        log.append(BIG)
    assert log.writer.segments()[-1].number == 2
    # Nothing but the later segment says that these were synced: their headers were written before.
    _, offset = places(log)[1]
    damage(log, 1, offset, bytes(8192 - offset))
    error = refused(log)
    assert (error.offset, "a later segment" in error.reason) == (offset, True)


@pytest.mark.parametrize("hit", [0, 24, 700], ids=["magic", "salt", "unused"])
def test_records_behind_an_unreadable_header_prove_that_a_lost_end_record_was_durable(
    hit: int,
) -> None:
    """Found by `holdfast torture --parts flips`: an END record and the header after it changed
    places, and all of the last segment was taken for a torn tail.
    """
    log = Log()
    for _ in range(8):
        log.append(bytes(900))
    first, last = (segment.number for segment in log.writer.segments())
    assert [number for number, _ in places(log)].count(last) > 1
    offset = bytes_of(log.env, first).rindex(b"HWAL")
    damage(log, first, offset, bytes(88))
    damage(log, last, hit)
    error = refused(log)
    assert (error.offset, "a later segment" in error.reason) == (offset, True)


def test_two_records_behind_an_unreadable_header_are_enough() -> None:
    log = Log()
    for _ in range(4):
        log.append(BIG)
    offset = bytes_of(log.env, 1).rindex(b"HWAL")
    damage(log, 1, offset, bytes(88))
    damage(log, 2, 0)
    error = refused(log)
    assert (error.offset, "a later segment" in error.reason) == (offset, True)


def test_a_later_segment_with_what_the_log_has_already_does_not_continue_it() -> None:
    """Its records are not behind the end of the log, so nothing is missing."""
    log = Log()
    log.append()
    log.append()
    log.writer.close()
    later = Log(log.env, lsn_first=2, number=log.number)
    later.append(durable=True)
    found = log.read()
    assert records(found) == log.written
    assert found.orphans == [later.first]
    later.append(durable=True)
    assert "a later segment" in refused(log).reason


def test_a_missing_first_segment_is_refused() -> None:
    log = rotated()
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    assert refused(log).reason == "the segment is missing"


@pytest.mark.parametrize("number", [2, 4])
def test_a_missing_linked_segment_is_refused(number: int) -> None:
    log = rotated()
    log.env.unlink(f"{FOLDER}/{number:08d}.wal", site="test")
    error = refused(log)
    assert (error.file, error.offset) == (f"{FOLDER}/{number:08d}.wal", 0)
    assert "missing" in error.reason


@pytest.mark.parametrize("offset", [0, 9, 20, 30, 40, 50, 75, 100, 2040, 2100, 4095])
@pytest.mark.parametrize("number", [1, 3])
def test_a_damaged_header_block_of_a_linked_segment_is_refused(number: int, offset: int) -> None:
    log = rotated()
    damage(log, number, offset)
    assert refused(log).file == f"{FOLDER}/{number:08d}.wal"


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_damaged_link_of_a_used_segment_is_refused(number: int) -> None:
    log = rotated(8)
    damage(log, number, LINK_OFFSET + 30)
    error = refused(log)
    assert (error.file, error.offset) == (f"{FOLDER}/{number:08d}.wal", LINK_OFFSET)


def test_the_link_of_the_first_segment_of_a_life_was_synced_before_any_record() -> None:
    log = Log()
    log.append(b"never synced")
    damage(log, 1, LINK_OFFSET + 30)
    error = refused(log)
    assert (error.file, error.offset) == (f"{FOLDER}/00000001.wal", LINK_OFFSET)


def test_a_link_that_was_never_synced_may_be_absent() -> None:
    log = Log()
    for _ in range(3):
        log.append(BIG)
    damage(log, 2, LINK_OFFSET, bytes(LINK_BYTES))
    assert records(log.read(durable_lsn=log.writer.durable_lsn)) == log.written


def test_a_first_record_lost_behind_a_forgotten_segment_is_refused() -> None:
    """The link tells which record is missing although the segment before is gone."""
    log = Log()
    for _ in range(4):
        log.append(BIG)
        log.writer.sync()
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    log.first = 2
    assert [lsn for lsn, _, _ in records(log.read())] == [4, 5]
    damage(log, 2, BLOCK_BYTES, bytes(88))
    assert "a later record knows" in refused(log).reason
    damage(log, 2, BLOCK_BYTES, bytes(4096))
    assert records(log.read(durable_lsn=3)) == []
    assert "the manifest knows" in refused(log, durable_lsn=4).reason


@pytest.mark.parametrize("synced", [False, True])
def test_without_link_and_first_record_what_is_left_says_whether_it_was_synced(
    synced: bool,
) -> None:
    log = Log()
    for _ in range(2):
        log.append(BIG)
    log.writer.sync()
    for value in (BIG, b"a"):
        log.append(value)
    if synced:
        log.writer.sync()
    log.append(b"b")
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    log.first = 2
    damage(log, 2, LINK_OFFSET, bytes(LINK_BYTES))
    damage(log, 2, BLOCK_BYTES, bytes(88))
    if synced:
        assert refused(log, durable_lsn=3).file == f"{FOLDER}/00000002.wal"
    else:
        # As after a crash before the first sync of the segment.
        found = log.read(durable_lsn=3)
        assert records(found) == []
        assert (found.last_lsn, found.tail_cut) == (3, True)


@pytest.mark.parametrize("kept", [BLOCK_BYTES, BLOCK_BYTES + 80])
@pytest.mark.parametrize("durable_lsn", [0, 3, 5, 8])
def test_a_first_segment_that_is_empty_before_one_with_records_is_refused(
    durable_lsn: int, kept: int
) -> None:
    """A flush dropped the segment before, and this one is as it was made, or garbage: nothing says
    which record it began with. The records of the next segment prove that it had some, whatever
    their numbers are beside what the manifest knows.
    """
    log = Log()
    for _ in range(5):
        log.append(BIG)
        log.writer.sync()
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    log.first = 2
    assert [lsn for lsn, _, _ in records(log.read())] == [4, 5, 7]
    damage(log, 2, LINK_OFFSET, bytes(8192 - LINK_OFFSET))
    damage(log, 2, BLOCK_BYTES, bytes(kept - BLOCK_BYTES) + b"?" * (kept > BLOCK_BYTES))
    error = refused(log, durable_lsn=durable_lsn)
    assert error.file == f"{FOLDER}/00000002.wal"
    assert "although a later segment holds records" in error.reason


def test_an_empty_segment_before_the_very_first_record_is_refused() -> None:
    """A process that wrote nothing, and the next one, whose first record has the ordinal 1."""
    log = Log()
    log.writer.close()
    Log(log.env, number=log.number).append(durable=True)
    assert "although a later segment holds records" in refused(log).reason


def test_where_nothing_is_left_the_log_ends_at_what_the_manifest_knows() -> None:
    log = Log()
    for _ in range(2):
        log.append(BIG)
    log.writer.sync()
    log.append(BIG)
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    log.first = 2
    damage(log, 2, LINK_OFFSET, bytes(LINK_BYTES))
    damage(log, 2, BLOCK_BYTES, bytes(len(bytes_of(log.env, 2)) - BLOCK_BYTES))
    found = log.read(durable_lsn=3)
    assert records(found) == []
    assert (found.last_lsn, found.last_seq, found.tail_cut) == (3, 0, False)


def test_a_prepared_segment_is_an_orphan_whatever_is_in_it() -> None:
    log = Log()
    log.append(BIG)
    log.writer.prepare_next()
    image = bytes_of(log.env, 2)
    for data in (image, b"", image[:100], bytes(8192), image[:5000], b"\xff" * 8192):
        replace_bytes(log.env, 2, data)
        found = log.read(durable_lsn=0)
        assert records(found) == log.written
        assert (found.segments, found.orphans) == ([1], [2])


def test_files_that_are_no_segments_are_not_looked_at() -> None:
    log = rotated(2)
    for name in ("00000009.table", "9.wal", "CURRENT.1.2", "00000003.wal.bak"):
        log.env.create(f"{FOLDER}/{name}", site="test").close()
    assert records(log.read()) == log.written


def test_segments_before_the_first_are_not_looked_at() -> None:
    old = rotated(3, database_id=b"another database")
    log = Log(old.env, number=old.number)
    log.append()
    assert records(log.read()) == log.written


@pytest.mark.parametrize("number", [1, 2])
def test_a_segment_of_another_database_is_no_damage_but_an_error(number: int) -> None:
    log = rotated()
    other = rotated(database_id=b"another database")
    replace_bytes(log.env, number, bytes_of(other.env, number))
    with pytest.raises(FormatError, match="another database"):
        records(log.read())


def test_an_orphan_of_another_database_is_not_ours_to_delete() -> None:
    log = rotated(2)
    replace_bytes(log.env, 9, bytes_of(rotated(2, database_id=b"another database").env, 1))
    with pytest.raises(FormatError, match="another database"):
        records(log.read())


@pytest.mark.parametrize("number", [1, 3])
def test_a_newer_format_is_an_error_of_its_own(number: int) -> None:
    log = rotated()
    image = bytearray(bytes_of(log.env, number))
    image[8] = 3
    image[72:80] = checksum(image[:72]).to_bytes(8, "little")
    replace_bytes(log.env, number, bytes(image))
    with pytest.raises(FormatError, match="log format 3"):
        records(log.read())


@pytest.mark.parametrize(("alignment", "link"), [(512, 2048), (4096, 4096)])
def test_anything_in_the_sectors_of_a_link_is_a_link_that_is_not_there(
    alignment: int, link: int
) -> None:
    """As when it was torn: the record behind it is read, and what is known to be durable tells."""
    log = Log(alignment=alignment, segment_bytes=2 * link + 4 * alignment)
    while len(log.writer.segments()) < 2:
        log.append(b"value" * 20)
    log.writer.sync()
    log.writer.close()
    clean = bytes_of(log.env, 2)
    for start, size in ((link, alignment), (link, 1), (link + LINK_BYTES, 1)):
        damage(log, 2, start, b"\xff" * size)
        assert records(log.read()) == log.written
        error = refused(log, durable_lsn=log.writer.durable_lsn)
        assert (error.file, error.offset) == (f"{FOLDER}/00000002.wal", link)
        replace_bytes(log.env, 2, clean)
    damage(log, 2, link - 1, b"\xff")
    assert "must be zero" in refused(log).reason


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 3), (3, 4), (1, 4)])
def test_swapped_segments_are_refused(one: int, other: int) -> None:
    log = rotated()
    first, second = bytes_of(log.env, one), bytes_of(log.env, other)
    replace_bytes(log.env, one, second)
    replace_bytes(log.env, other, first)
    assert "this is segment" in refused(log).reason


def test_a_segment_of_a_fork_of_the_database_is_refused() -> None:
    """The same numbers, the same database, another history behind the same record."""
    log, fork = rotated(), Log(SimEnv(2))
    for number in range(7):
        fork.append(BIG + b"%d" % (number + 1))
        fork.writer.sync()
    replace_bytes(log.env, 2, bytes_of(fork.env, 2))
    error = refused(log)
    assert (error.file, "another record" in error.reason) == (f"{FOLDER}/00000002.wal", True)


@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("change", [-8192, -4096, -1, 1, 4096])
def test_segments_of_another_length_are_refused(number: int, change: int) -> None:
    log = rotated()
    image = bytes_of(log.env, number)
    replace_bytes(log.env, number, image[:change] if change < 0 else image + bytes(change))
    assert refused(log).file == f"{FOLDER}/{number:08d}.wal"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_older_copy_of_a_segment_is_refused(number: int) -> None:
    """The segment goes back to a time before its later records: lost writes of many sectors."""
    log = Log()
    kept: dict[int, bytes] = {}
    for _ in range(8):
        log.append(BIG)
        log.writer.sync()
        current = log.writer.segments()[-1].number
        kept.setdefault(current, bytes_of(log.env, current))
    assert len(log.writer.segments()) == 4
    replace_bytes(log.env, number, kept[number])
    assert "damaged" in str(refused(log, durable_lsn=log.writer.durable_lsn))


def test_a_missing_next_segment_does_not_hide_what_is_wrong_with_the_one_before() -> None:
    log = Log()
    log.edit = 7
    for _ in range(4):
        log.append(BIG)
    log.env.unlink(f"{FOLDER}/00000002.wal", site="test")
    error = refused(log, manifest_edit_seen=6)
    assert error.file == f"{FOLDER}/00000001.wal"
    assert error.reason == "the log knows of a manifest edit that the manifest does not hold"
    damage(log, 1, LINK_OFFSET + 30)
    error = refused(log, manifest_edit_seen=7)
    assert (error.file, error.offset) == (f"{FOLDER}/00000001.wal", LINK_OFFSET)


def test_a_log_that_knows_more_of_the_manifest_than_the_manifest_is_refused() -> None:
    log = Log()
    log.edit = 7
    log.append()
    assert records(log.read(manifest_edit_seen=7)) == log.written
    assert "manifest edit" in refused(log, manifest_edit_seen=6).reason


def test_after_a_clean_close_the_log_ends_where_it_was_recorded() -> None:
    log = rotated(3)
    durable = log.writer.durable_lsn
    assert records(log.read(durable_lsn=durable, clean=True)) == log.written
    assert "clean close" in refused(log, durable_lsn=durable - 1, clean=True).reason
    log = Log()
    log.append()
    assert "clean close" in refused(log, durable_lsn=0, clean=True).reason
    log = rotated(3)
    assert "the manifest knows" in refused(log, durable_lsn=durable + 1, clean=True).reason


def test_another_alignment_than_the_settings_say_is_refused() -> None:
    log = rotated(2)
    log.alignment = 16
    assert "alignment" in refused(log).reason


def test_a_first_segment_of_another_copy_is_refused_by_its_salt() -> None:
    log = rotated(3)
    salt = decode_segment_header(bytes_of(log.env, 1)[:BLOCK_BYTES], "f").salt
    for known in (0, salt):
        assert records(log.read(first_salt=known)) == log.written
    error = refused(log, first_salt=salt ^ 1)
    assert (error.file, error.offset) == (f"{FOLDER}/00000001.wal", 0)
    assert "another copy of the database" in error.reason


def test_sequence_numbers_do_not_go_back_between_segments() -> None:
    log = rotated(3)
    second = next(seq for _, seq, _ in log.written[2:])
    for last_seq in (1, second, 100):
        found = log.read()
        found.last_seq = last_seq
        with pytest.raises(CorruptionError, match="sequence numbers"):
            list(found)


@pytest.mark.parametrize("alignment", [8, 512])
def test_no_flipped_bit_below_the_durable_mark_goes_unnoticed(alignment: int) -> None:
    """One bit of every used byte in turn: with the manifest's mark an error, without it never a
    wrong record.
    """
    log = Log(alignment=alignment)
    for number in range(5):
        log.append(b"value %d" % number * (1 + 200 * (number % 2)))
        log.writer.sync()
    durable = log.writer.durable_lsn
    ends = {segment.number: segment.bytes_used for segment in log.writer.segments()}
    for number, end in ends.items():
        clean = bytes_of(log.env, number)
        step = 1 if alignment == 8 else 7
        for offset in range(0, end, step):
            image = bytearray(clean)
            image[offset] ^= 1 << offset % 8
            replace_bytes(log.env, number, bytes(image))
            refused(log, durable_lsn=durable)
            seen: list[Any] = []
            try:
                for record in log.read().records():
                    seen.append((record.lsn, record.seq_first, bytes(record.payload)))
            except CorruptionError:
                pass
            assert seen == log.written[: len(seen)]
        replace_bytes(log.env, number, clean)
    assert records(log.read(durable_lsn=durable)) == log.written


def test_flips_behind_the_durable_mark_are_cut_or_refused_and_never_read() -> None:
    log = Log()
    log.append(b"synced")
    log.writer.sync()
    for number in range(4):
        log.append(b"value %d" % number * 5)
    (info,) = log.writer.segments()
    clean = bytes_of(log.env, 1)
    start = places(log)[1][1]
    for offset in range(start, info.bytes_used + 64):
        image = bytearray(clean)
        image[offset] ^= 1 << offset % 8
        replace_bytes(log.env, 1, bytes(image))
        found = records(log.read(durable_lsn=1))
        assert found == log.written[: len(found)]
        assert len(found) >= 1


def test_a_read_error_is_not_taken_for_the_end() -> None:
    log = rotated(3)
    env = FaultEnv(log.env, [FaultRule(kind="read", nth=2)])
    with pytest.raises(OSError, match="Input/output"):
        records(contents(env, 1))


def test_a_short_read_is_damage() -> None:
    log = rotated(2)

    class Short:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def open(self, path: str) -> Any:
            file = self.inner.open(path)
            short = Short(file)
            short.read_at = lambda offset, count: file.read_at(offset, min(count, 6000))
            return short

    with pytest.raises(CorruptionError, match="ends before byte 8192"):
        records(contents(Short(log.env), 1))


def test_the_header_of_the_first_segment_says_so() -> None:
    header = decode_segment_header(bytes_of(rotated(1).env, 1)[:BLOCK_BYTES], "f")
    assert header.previous == 0
    assert SEGMENT_HEADER_BYTES == 80


@pytest.mark.parametrize("kept", [BLOCK_BYTES, BLOCK_BYTES + 80])
def test_an_only_segment_without_records_has_lost_what_the_manifest_knows(kept: int) -> None:
    """A flush of one keyspace dropped the segment before; the records of this one are those of
    another keyspace. It is as it was made, or garbage, and no later segment proves anything: the
    manifest says which record it began with.
    """
    log = Log()
    for _ in range(3):
        log.append(BIG)
        log.writer.sync()
    log.env.unlink(f"{FOLDER}/00000001.wal", site="test")
    log.first = 2
    assert [lsn for lsn, _, _ in records(log.read(first_lsn=4, durable_lsn=4))] == [4]
    damage(log, 2, LINK_OFFSET, bytes(8192 - LINK_OFFSET))
    damage(log, 2, BLOCK_BYTES, bytes(kept - BLOCK_BYTES) + b"?" * (kept > BLOCK_BYTES))
    error = refused(log, first_lsn=4, durable_lsn=4)
    assert (error.file, error.offset) == (f"{FOLDER}/00000002.wal", LINK_OFFSET)
    # As after a crash before the first sync of the segment, or when an earlier version wrote the
    # manifest.
    for first_lsn, durable_lsn in ((4, 3), (0, 4)):
        found = log.read(first_lsn=first_lsn, durable_lsn=durable_lsn)
        assert records(found) == []
        assert found.last_lsn == durable_lsn
