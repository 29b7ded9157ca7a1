"""The plain face of a sealed segment: what it shows of a file, and what it stores there."""

from __future__ import annotations

import errno

import pytest

from holdfast.base import PUT, DiskFullError
from holdfast.crypto import (
    PREAMBLE_BYTES,
    SEAL_BYTES,
    FileKind,
    KeyRing,
    KeySource,
    Preamble,
    SealedEnv,
)
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.wal import LogSealing, RecordBuffer
from holdfast.wal.format import (
    LINK_BYTES,
    RECORD_HEADER_BYTES,
    SEALED_MAGIC,
    SEGMENT_HEADER_BYTES,
    decode_link,
    decode_segment_header,
    record_bytes,
)
from holdfast.wal.sealed import SealedSegment
from tests.unit.wal.logs import DATABASE_ID, FOLDER, Log, contents, records

PATH = f"{FOLDER}/00000001.wal"
PAYLOAD = 300


class SealedLog(Log):
    """A log whose segments are sealed."""

    def __init__(self, alignment: int = 8) -> None:
        self.below = FaultEnv(SimEnv(1))
        self.below.make_dir(FOLDER, site="test")
        self.below.sync_dir("/", site="test")
        self.ring = KeyRing.create(self.below, FOLDER, KeySource(bytes(range(32))))
        env = SealedEnv(self.below, self.ring, {".wal": LogSealing()})
        env.inner = self.below.inner  # type: ignore[attr-defined]  # where Log looks for it
        super().__init__(env, alignment=alignment, segment_bytes=1 << 15)

    def stored(self) -> bytes:
        return self.below.open(PATH).read_at(0, 1 << 30)

    def change(self, at: int, data: bytes) -> None:
        stored = self.stored()
        self.below.unlink(PATH, site="test")
        file = self.below.create(PATH, site="test")
        file.write_at(0, stored[:at] + data + stored[at + len(data) :], site="test")

    def face(self) -> SealedSegment:
        file = self.env.open(PATH)
        assert isinstance(file, SealedSegment)
        return file


@pytest.fixture(params=[8, 512, 4096])
def log(request: pytest.FixtureRequest) -> SealedLog:
    log = SealedLog(request.param)
    for number in range(3):
        log.append(bytes([number + 1]) * PAYLOAD, durable=True)
    return log


def offsets(log: SealedLog) -> list[tuple[int, int]]:
    """Where each record begins, and how long it is without its padding."""
    start = decode_segment_header(log.face().read_at(0, 8192), PATH).records_offset
    found = []
    for _, _, payload in log.written:
        found.append((start, RECORD_HEADER_BYTES + len(payload)))
        start += record_bytes(len(payload), log.alignment)
    return found


def test_what_is_stored_is_what_the_format_says(log: SealedLog) -> None:
    stored = log.stored()
    preamble = Preamble.decode(stored[:PREAMBLE_BYTES], FileKind.LOG, PATH, 0)
    cipher = log.ring.opened_file(preamble, PATH, 0)
    end = PREAMBLE_BYTES + SEGMENT_HEADER_BYTES + SEAL_BYTES
    plain = cipher.open(0, stored[PREAMBLE_BYTES:end], b"header")
    header = decode_segment_header(log.face().read_at(0, 8192), PATH)
    assert plain == log.face().read_at(0, SEGMENT_HEADER_BYTES)
    assert header.database_id == DATABASE_ID
    at = header.link_offset
    link = cipher.open(at, stored[at : at + LINK_BYTES + SEAL_BYTES], b"link")
    assert link == log.face().read_at(at, LINK_BYTES)
    for (start, size), (_, _, payload) in zip(offsets(log), log.written, strict=True):
        fields = stored[start : start + 8]
        assert fields == SEALED_MAGIC.to_bytes(4, "little") + len(payload).to_bytes(4, "little")
        assert cipher.open(start, stored[start + 8 : start + size], fields)[48:] == payload


def test_any_part_from_a_record_on_is_that_of_the_whole(log: SealedLog) -> None:
    """A record is read to its end to be opened when no more than its header is asked for."""
    whole = log.face().read_at(0, 1 << 20)
    assert len(whole) == len(log.stored())
    assert records(contents(log.env, 1, alignment=log.alignment)) == log.written
    for start, size in offsets(log):
        for count in (8, 9, 40, 79, 80, size, size + 1):
            assert log.face().read_at(start, count) == whole[start : start + count], count
        # Too little to know how long it is, or more than a header and not the record.
        for count in (4, 7, 81, size - 1):
            part = log.face().read_at(start, count)
            assert part.rstrip(b"\x00") == b"\xff" * len(part.rstrip(b"\x00"))
            assert part != whole[start : start + count]
    (first, _), *_ = offsets(log)
    for count in (1, 80, first - 1, first, first + 80):
        assert log.face().read_at(0, count) == whole[:count]
        part = log.face().read_at(100, max(count - 100, 0))
        assert part == whole[100 : max(count, 100)]


def test_no_more_is_read_than_what_is_missing_of_a_record(log: SealedLog) -> None:
    start, size = offsets(log)[1]
    asked: list[tuple[int, int]] = []
    read = log.below.open(PATH).read_at

    class Watched:
        name = PATH

        def read_at(self, offset: int, count: int) -> bytes:
            asked.append((offset, count))
            return read(offset, count)

    face = SealedSegment(Watched(), log.ring)  # type: ignore[arg-type]  # only read
    assert len(face.read_at(start, 80)) == 80
    assert asked[1:] == [(start, 80), (start + 80, size - 80)]
    asked.clear()
    assert face.read_at(start, size) == log.face().read_at(start, size)
    assert asked[1:] == [(start, size)]
    asked.clear()
    first, _ = offsets(log)[0]
    assert face.read_at(100, first - 20) == log.face().read_at(0, first + 80)[100:]
    assert asked[1:] == [(first, 80), (first + 80, size - 80)]
    asked.clear()
    assert len(face.read_at(0, first)) == first
    assert asked[1:] == [], "the header block alone"
    assert log.env.file_size(PATH) == len(log.stored())


def test_a_record_that_claims_more_than_the_segment_has_is_not_read_for(log: SealedLog) -> None:
    start, _ = offsets(log)[2]
    size = decode_segment_header(log.face().read_at(0, 8192), PATH).size
    sealed = SEALED_MAGIC.to_bytes(4, "little")
    for magic, claimed, is_read in (
        (sealed, size - start - 80, True),
        (sealed, size - start - 79, False),
        (b"none", 200, False),
    ):
        log.change(start, magic + claimed.to_bytes(4, "little"))
        counts: list[int] = []
        read = log.below.open(PATH).read_at

        class Watched:
            name = PATH

            def read_at(self, offset: int, count: int, read=read, counts=counts) -> bytes:
                counts.append(count)
                return read(offset, count)

        face = SealedSegment(Watched(), log.ring)  # type: ignore[arg-type]  # only read
        assert face.read_at(start, 80) == b"\xff" * 80
        assert counts[2:] == ([claimed] if is_read else [])


def test_a_header_that_does_not_open_shows_nothing_but_what_is_zero(log: SealedLog) -> None:
    length = len(log.stored())
    used = len(log.stored().rstrip(b"\x00"))
    log.change(PREAMBLE_BYTES, b"????")
    assert log.face().read_at(0, 1 << 20) == (b"\xff" * used).ljust(length, b"\x00")
    # What ends in another byte than zero does not end in zeros.
    log.change(used + 8, b"\x01")
    assert log.face().read_at(0, used + 9) == b"\xff" * (used + 9)


def test_what_stands_between_header_and_link_is_veiled(log: SealedLog) -> None:
    whole = log.face().read_at(0, 8192)
    header = decode_segment_header(whole, PATH)
    end = PREAMBLE_BYTES + SEGMENT_HEADER_BYTES + SEAL_BYTES
    link_end = header.link_offset + LINK_BYTES + SEAL_BYTES
    for at in (end, header.link_offset - 1, link_end, header.records_offset - 1):
        log.change(at, b"\x01")
        face = log.face().read_at(0, 8192)
        assert face[at] == 0xFF
        assert face[:SEGMENT_HEADER_BYTES] == whole[:SEGMENT_HEADER_BYTES]
        assert face[header.records_offset :] == whole[header.records_offset :]
        log.change(end, bytes(header.link_offset - end))
        log.change(link_end, bytes(header.records_offset - link_end))
    assert log.face().read_at(0, 8192) == whole


def test_a_link_that_does_not_open_looks_as_if_there_were_none(log: SealedLog) -> None:
    header = decode_segment_header(log.face().read_at(0, 8192), PATH)
    at = header.link_offset
    log.change(at + 20, b"????")
    block = log.face().read_at(0, header.records_offset)
    assert decode_segment_header(block, PATH) == header
    assert block[at : at + LINK_BYTES + SEAL_BYTES] == bytes(LINK_BYTES + SEAL_BYTES)
    assert decode_link(block, header) is None


def test_a_record_that_is_refused_for_want_of_room_is_wiped() -> None:
    log = SealedLog()
    log.append(b"first", durable=True)
    log.below.add(FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC))
    with pytest.raises(DiskFullError):
        log.append(b"second")
    log.append(b"third", durable=True)
    assert [lsn for lsn, _, _ in log.written] == [1, 2]
    assert records(contents(log.env, 1)) == log.written


def test_a_segment_takes_whole_records_and_zeros_and_nothing_else() -> None:
    log = SealedLog()
    log.append(b"first", durable=True)
    file = log.writer._current.file
    buffer = RecordBuffer()
    buffer.append_op(PUT, 1, b"key", b"value")
    view, _ = buffer.seal(1, 1, 2, 2, 1, 0, 1, 8)
    at = log.writer._current.position
    for part in (view[:-8], b"none" + bytes(view[4:]), bytes(view) + bytes(8)):
        with pytest.raises(AssertionError, match="written whole"):
            file.write_at(at, part, site="test")
    with pytest.raises(AssertionError, match="record or zeros"):
        file.write_at(at, bytes(79) + b"?", site="test")
    before = log.stored()
    file.write_at(at, bytes(80), site="test")
    assert log.stored() == before
    view.release()
