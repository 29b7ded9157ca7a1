"""Following a log from a sequence number on, across process lives, while it is written.

Recovery reads a log once, from its first needed segment, and decides what a torn end means. A feed
reads what was decided: the segments of this process life up to what is durable, and those of
earlier lives that were kept, whose ends the first record of the next life confirms. It holds the
bytes of one segment at a time and remembers its place, so that it can be asked again when more was
written.

Guarantees:
1. Batches come out whole and in the order of their sequence numbers, none skipped: where a segment
   is missing, or bytes are damaged so that a batch is not there, an error says so.
2. Of a log that is written nothing is shown that a crash could take back: only records that are
   durable. Of one that is only read, what an open finds.

Thread safety: none; one thread reads. The log may be appended to, and segments may be removed,
meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from holdfast.base import ChangesGoneError, CorruptionError, FormatError
from holdfast.env import Env
from holdfast.wal._scan import decode_payload, scan_records
from holdfast.wal.format import (
    FRONT_BYTES_MAX,
    RECORD_HEADER_BYTES,
    Record,
    RecordType,
    SegmentHeader,
    SegmentLink,
    decode_link,
    decode_record_header,
    decode_segment_header,
    parse_segment_name,
    segment_name,
)


class LoggedBatch(NamedTuple):
    """A committed batch as the log has it."""

    seq_first: int
    operations: list[tuple[int, int, bytes, bytes | None]]
    """(kind, keyspace id, key, value), with sequence numbers from `seq_first` on."""


class LogEnd(NamedTuple):
    """How far a log may be read."""

    below: int
    """Segments from this number on are left alone."""
    durable_lsn: int = 0
    bytes_used: Mapping[int, int] = MappingProxyType({})
    """By segment that is being written or will be needed by recovery: where its records end.
    Asked for after `durable_lsn`.
    """


@dataclass(slots=True)
class _Place:
    """Where the next record stands."""

    number: int
    header: SegmentHeader
    offset: int
    lsn: int
    chain: int
    next_segment: int
    """What the END record before it names, 0 when there was none."""


class LogFeed:
    """The batches of a log behind sequence number `after`, or all that are kept; see `read`."""

    def __init__(self, env: Env, folder: str, *, database_id: bytes, after: int | None) -> None:
        self._env = env
        self._folder = folder
        self._database_id = database_id
        self._after = after
        self._seq_last = after or 0
        self._place: _Place | None = None

    def read(self, end: LogEnd) -> Iterator[LoggedBatch]:
        """Yield the batches behind those that were yielded, up to `end`.

        Raises: ChangesGoneError when the log is kept from a later batch on; CorruptionError;
        OSError.
        """
        if self._place is None:
            self._place = self._find(end)
        while self._place is not None and self._place.number < end.below:
            yield from self._read_segment(self._place, end)
            following = self._following(self._place, end)
            if following is None:
                return
            self._place = following

    def _read_segment(self, place: _Place, end: LogEnd) -> Iterator[LoggedBatch]:
        """Yield what a segment holds from a place on, and move the place behind it."""
        is_live = place.number in end.bytes_used
        limit = end.bytes_used.get(place.number, place.header.size)
        start = place.offset
        data = self._bytes(place.number, start, limit - start)
        salt = place.header.salt
        scan = scan_records(
            data, 0, place.number, salt, place.lsn, place.chain, place.header.alignment
        )
        for index in range(scan.record_count):
            record = scan.record(index)
            if is_live and record.lsn > end.durable_lsn:
                return
            if record.type == RecordType.BATCHES:
                yield from self._batches(data, record)
            is_last = index + 1 == scan.record_count
            # The next header stands right before its payload.
            behind = (
                scan.end_offset
                if is_last
                else scan.record(index + 1).payload_offset - RECORD_HEADER_BYTES
            )
            place.offset, place.lsn = start + behind, record.lsn + 1
            place.chain = record.header_checksum
            place.next_segment = scan.next_segment if is_last else 0
        if is_live and not place.next_segment and place.lsn <= end.durable_lsn:
            raise CorruptionError(
                self._path(place.number), place.offset, "a record that is durable cannot be read"
            )

    def _batches(self, data: bytes, record: Record) -> Iterator[LoggedBatch]:
        seq = record.seq_first
        for operations in decode_payload(data, record.payload_offset, record.payload_size):
            if seq + len(operations) - 1 > self._seq_last:
                self._seq_last = seq + len(operations) - 1
                yield LoggedBatch(seq, operations)
            seq += len(operations)

    def _following(self, place: _Place, end: LogEnd) -> _Place | None:
        """Return where the log goes on behind a segment that was read to its end; None when there
        is nothing yet.
        """
        if place.next_segment:
            header, link = self._front(place.next_segment)
            if header is None:
                path = self._path(place.next_segment)
                raise CorruptionError(path, 0, "the header of the segment is damaged")
            if header.previous != place.number:
                raise CorruptionError(
                    self._path(header.number),
                    56,
                    f"it continues segment {header.previous}, not {place.number}",
                )
            if link is None:
                # It has no record yet, or a crash took the link and left the record.
                link = SegmentLink(
                    segment=header.number,
                    previous=place.number,
                    lsn_first=place.lsn,
                    chain=place.chain,
                )
            if (link.lsn_first, link.chain) != (place.lsn, place.chain):
                raise CorruptionError(
                    self._path(header.number),
                    header.link_offset,
                    "it continues another record than the last of its predecessor",
                )
            return _at_start(header, link)
        if place.number in end.bytes_used:
            return None
        # The end of an earlier life. Recovery said where it was: there the next one begins.
        for number in self._numbers():
            header, link = self._listed(number) if number > place.number else (None, None)
            if header is None or link is None:
                continue
            if header.previous:
                raise CorruptionError(
                    self._path(place.number),
                    place.offset,
                    f"record {place.lsn} is missing, though segment {number} goes on",
                )
            if link.lsn_first != place.lsn:
                # Recovery has put what is missing here into tables. From then on a power cut may
                # take it from the log: the process was killed before it synced that.
                raise self._gone(
                    f"segment {place.number} ends before record {place.lsn}, and the next one "
                    f"begins with {link.lsn_first}"
                )
            return _at_start(header, link)
        return None

    def _find(self, end: LogEnd) -> _Place | None:
        """Return the start of the last segment that begins at or before the batch that is wanted.

        None when there is no segment. Raises: ChangesGoneError.
        """
        chosen: _Place | None = None
        for number in self._numbers():
            header, link = self._listed(number) if number < end.below else (None, None)
            if header is None or link is None:
                continue
            if chosen is not None:
                if self._after is None:
                    break
                # One without a record may get the batch; what leads to it says so then.
                seq_first = self._seq_first(header)
                if seq_first == 0 or seq_first > self._after + 1:
                    break
            elif self._after is not None:
                seq_first = self._seq_first(header)
                if seq_first > self._after + 1:
                    raise self._gone(f"it is kept from {seq_first} on")
            chosen = _at_start(header, link)
        return chosen

    def _seq_first(self, header: SegmentHeader) -> int:
        """Return the sequence number that a segment begins with; 0 when it has no record yet, or
        begins with its END, which does not know the numbers of earlier lives.
        """
        stored = self._bytes(header.number, header.records_offset, RECORD_HEADER_BYTES)
        if len(stored) < RECORD_HEADER_BYTES:
            return 0
        decoded = decode_record_header(memoryview(stored), header.salt)
        if decoded is None or decoded[0].type != RecordType.BATCHES:
            return 0
        return decoded[0].seq_first

    def _numbers(self) -> list[int]:
        names = self._env.list_dir(self._folder)
        return sorted(n for name in names if (n := parse_segment_name(name)) is not None)

    def _listed(self, number: int) -> tuple[SegmentHeader | None, SegmentLink | None]:
        """Like `_front`, of a segment that was in the folder a moment ago."""
        try:
            return self._front(number)
        except ChangesGoneError:
            return None, None

    def _front(self, number: int) -> tuple[SegmentHeader | None, SegmentLink | None]:
        """Return the header of a segment and its link, each None when it cannot be read.

        Raises: ChangesGoneError.
        """
        path = self._path(number)
        block = self._bytes(number, 0, FRONT_BYTES_MAX)
        try:
            header = decode_segment_header(block, path)
        except CorruptionError:
            # A segment that is being prepared, or was when the power went.
            return None, None
        try:
            size = self._env.file_size(path)
        except FileNotFoundError:
            raise self._gone(f"segment {number} was removed") from None
        if header.number != number or size != header.size:
            # Likewise: a disk may show what another file held there before.
            return None, None
        if header.database_id != self._database_id:
            raise FormatError(f"{path}: a log segment of another database")
        return header, decode_link(block, header)

    def _bytes(self, number: int, offset: int, count: int) -> bytes:
        """Return bytes of a segment. Raises: ChangesGoneError when it was removed."""
        try:
            file = self._env.open(self._path(number))
        except FileNotFoundError:
            raise self._gone(f"segment {number} was removed") from None
        try:
            return file.read_at(offset, count)
        finally:
            file.close()

    def _gone(self, why: str) -> ChangesGoneError:
        return ChangesGoneError(
            f"{self._folder}: the log does not hold all changes after {self._seq_last} any more: "
            f"{why}"
        )

    def _path(self, number: int) -> str:
        return f"{self._folder}/{segment_name(number)}"


def _at_start(header: SegmentHeader, link: SegmentLink) -> _Place:
    return _Place(
        header.number, header, header.records_offset, link.lsn_first, link.chain, next_segment=0
    )


def segments_beyond(env: Env, folder: str, below: int, bytes_max: int) -> list[int]:
    """Return which segments below number `below`, which recovery does not need, are not kept for
    feeds, ascending: all but the newest ones of together at most `bytes_max` bytes.
    """
    names = env.list_dir(folder)
    numbers = [n for name in names if (n := parse_segment_name(name)) is not None and n < below]
    numbers.sort()
    while numbers and bytes_max > 0:
        bytes_max -= env.file_size(f"{folder}/{segment_name(numbers[-1])}")
        if bytes_max >= 0:
            numbers.pop()
    return numbers
