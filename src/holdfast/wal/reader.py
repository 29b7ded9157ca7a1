"""Reading a log: from the first segment that is still needed along END records to where the log
ends.

Guarantees:
1. Records come out whole and in order, none skipped, or CorruptionError is raised: `decision.TABLE`
   is the rule.
2. Nothing on disk is changed. A torn tail is reported, not cut off: segments of an old process life
   are never written again, so the bytes do no harm.
3. The bytes of one segment are in memory at a time, besides what the caller keeps.

Thread safety: none; one thread reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from holdfast.base import CorruptionError, FormatError, mark, require
from holdfast.env import Env
from holdfast.wal._scan import ScanResult, find_later_records, scan_records
from holdfast.wal.decision import Decision, Situation, Subject, decide
from holdfast.wal.format import (
    FRONT_BYTES_MAX,
    RecordType,
    SegmentHeader,
    SegmentLink,
    StopReason,
    decode_link,
    decode_segment_header,
    has_chained_records,
    parse_segment_name,
    segment_name,
)

_FOREIGN: Final = (StopReason.WRONG_SEGMENT, StopReason.BROKEN_CHAIN, StopReason.MALFORMED)
_ZEROS: Final = bytes(1 << 16)
_PROOF_BYTES: Final = 4 << 20
"""So much of a segment with an unreadable header is searched for records."""


class LogRecord(NamedTuple):
    """A record with operations. The payload is a view of its segment's bytes and was checked."""

    segment: int
    lsn: int
    seq_first: int
    op_count: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class LogSegment:
    """The bytes of a segment and where its records are. Payloads were checked."""

    number: int
    path: str
    data: bytes
    scan: ScanResult

    def records(self) -> Iterator[LogRecord]:
        """Yield the records with operations, in order."""
        view = memoryview(self.data)
        # One by one: the garbage collector would walk a list of all of them again and again.
        for index in range(self.scan.record_count):
            record = self.scan.record(index)
            if record.type == RecordType.BATCHES:
                payload = view[record.payload_offset : record.payload_offset + record.payload_size]
                yield LogRecord(self.number, record.lsn, record.seq_first, record.op_count, payload)


@dataclass(frozen=True, slots=True)
class _Front:
    """The header block of a segment that belongs to the log."""

    path: str
    header: SegmentHeader
    link: SegmentLink | None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What is known about the record that would stand where a scan stopped."""

    missing: int
    """Its ordinal."""
    later_durable: int
    """The highest ordinal that a later record of the segment knows to be durable."""
    zeros: bool


def read_log(
    env: Env,
    folder: str,
    first_segment: int,
    *,
    database_id: bytes,
    alignment: int,
    first_lsn: int,
    durable_lsn: int,
    manifest_edit_seen: int,
    clean: bool,
    first_salt: int = 0,
) -> LogContents:
    """Return the log that starts with `first_segment`, to be read by iterating over it.

    `first_lsn`, `first_salt`, `durable_lsn`, `manifest_edit_seen` and `clean` are what the manifest
    recorded: the first record of `first_segment` and its salt (0 when unknown), the highest record
    known to be synced, the highest edit it holds, and whether the last process closed the database
    cleanly.
    """
    return LogContents(
        env,
        folder,
        first_segment,
        database_id,
        alignment,
        first_lsn,
        durable_lsn,
        manifest_edit_seen,
        clean,
        first_salt,
    )


class LogContents:
    """A log being read. Iterate over it once, by segment or by `records`; the attributes are final
    when that ended.

    Raises while iterating: CorruptionError for damage; FormatError for a segment of another
    database or of a newer version; OSError as the operating system gives it.
    """

    def __init__(
        self,
        env: Env,
        folder: str,
        first_segment: int,
        database_id: bytes,
        alignment: int,
        first_lsn: int,
        durable_lsn: int,
        manifest_edit_seen: int,
        clean: bool,
        first_salt: int = 0,
    ) -> None:
        self._env = env
        self._folder = folder
        self._first_segment = first_segment
        self._database_id = database_id
        self._alignment = alignment
        self._first_lsn = first_lsn
        self._durable_lsn = durable_lsn
        self._manifest_edit_seen = manifest_edit_seen
        self._clean = clean
        self._first_salt = first_salt
        self._started = False
        # (front, first lsn) of segments whose link cannot be read: right after a crash, if none of
        # it was synced.
        self._linkless: list[tuple[_Front, int]] = []
        self.segments: list[int] = []
        """The numbers of the log's segments, in order."""
        self.orphans: list[int] = []
        """Later segments that are not linked into the log: prepared and never used."""
        self.last_lsn = durable_lsn
        """The ordinal of the last record; the next record of the log's life is one more."""
        self.last_seq = 0
        """The last sequence number, 0 when there is no record."""
        self.chain = 0
        """The header checksum of the last record."""
        self.tail_cut = False
        """Whether bytes behind the last record were dropped as a torn tail."""
        self.end = ("", 0)
        """The path of the last segment and the byte where the log ends."""
        self.complete = False
        """Whether the log was read to its end."""

    def __iter__(self) -> Iterator[LogSegment]:
        require(not self._started, "a log is read once")
        self._started = True
        return self._read()

    def records(self) -> Iterator[LogRecord]:
        """Yield the records with operations of all segments, in order."""
        for segment in self:
            yield from segment.records()

    def _read(self) -> Iterator[LogSegment]:
        front: _Front | None = self._open(self._first_segment)
        if front is not None and self._first_salt not in {0, front.header.salt}:
            raise CorruptionError(
                front.path, 0, "it is a segment of another copy of the database, by its salt"
            )
        lsn, chain = 0, 0
        while front is not None:
            data = self._body(front)
            if front.link is not None:
                lsn, chain = front.link.lsn_first, front.link.chain
            number, salt = front.header.number, front.header.salt
            start = front.header.records_offset
            scan = scan_records(data, start, number, salt, lsn, chain, self._alignment)
            self.segments.append(number)
            if scan.record_count and scan.seq_first <= self.last_seq:
                raise CorruptionError(
                    front.path, start, "sequence numbers go back between two segments"
                )
            following = self._judge(front, data, scan)
            self.end = (front.path, scan.end_offset)
            self.chain = scan.chain_next
            self.last_seq = max(self.last_seq, scan.seq_next - 1)
            segment = LogSegment(number, front.path, data, scan)
            front, lsn, chain = following, scan.lsn_next, scan.chain_next
            # Not even this frame keeps the bytes while the next segment is read.
            del data, scan
            yield segment
            del segment
        self.orphans = self._later_numbers(self._first_segment)
        self.complete = True

    def _judge(self, front: _Front, data: bytes, scan: ScanResult) -> _Front | None:
        """Decide what follows a segment; return the front of the next one, None at the end of the
        log.

        Raises: CorruptionError.
        """
        number = front.header.number
        following: _Front | None = None
        failure: CorruptionError | None = None
        ended = scan.stop == StopReason.END_OF_SEGMENT
        if ended:
            evidence = _Evidence(scan.lsn_next, 0, zeros=True)
            try:
                following = self._open(scan.next_segment, number, scan.lsn_next, scan.chain_next)
            except CorruptionError as exc:
                failure = exc
        else:
            evidence = self._gather(front, data, scan)
        self.last_lsn = evidence.missing - 1
        if front.link is None:
            # A link is synced with the first record of its segment, or before the segment is used
            # at all.
            first = evidence.missing - scan.record_count if front.header.previous else 0
            self._linkless.append((front, first))
        durable = max(self._durable_lsn, scan.durable_lsn_max, evidence.later_durable)
        lost = [linkless for linkless, first in self._linkless if first <= durable]
        row = decide(
            Situation(
                manifest_behind=scan.manifest_edit_max > self._manifest_edit_seen,
                past_clean_end=self._clean
                and scan.record_count > 0
                and scan.lsn_next - 1 > self._durable_lsn,
                link_lost=bool(lost),
                foreign=scan.stop in _FOREIGN,
                ended=ended,
                next_whole=following is not None,
                manifest_proves=self._durable_lsn >= evidence.missing,
                later_segment_proves=not ended and self._is_continued(number, scan.lsn_next),
                later_record_proves=evidence.later_durable >= evidence.missing,
                zeros=evidence.zeros,
            )
        )
        if row.decision == Decision.REFUSE:
            if row.subject == Subject.NEXT and failure is not None:
                raise CorruptionError(
                    failure.file, failure.offset, f"{row.reason}: {failure.reason}"
                )
            if row.subject == Subject.LINK:
                raise CorruptionError(lost[0].path, lost[0].header.link_offset, row.reason)
            raise CorruptionError(front.path, scan.end_offset, row.reason)
        if row.decision == Decision.CUT_TAIL:
            mark("wal.tail_cut")
            self.tail_cut = True
        return following

    def _gather(self, front: _Front, data: bytes, scan: ScanResult) -> _Evidence:
        """Return what the bytes behind the place say where a scan stopped."""
        if _is_zero(data, scan.end_offset):
            missing = scan.lsn_next or self._first_lsn or self._durable_lsn + 1
            return _Evidence(missing, 0, zeros=True)
        later = find_later_records(
            data,
            scan.end_offset,
            front.header.number,
            front.header.salt,
            self._alignment,
            scan.lsn_next,
        )
        missing = scan.lsn_next or self._first_lsn
        if missing == 0:
            # No link and no first record. The segment before was synced up to its END record, so
            # every record of this one knows at least that END record to be durable, and the missing
            # record came right behind it.
            known = later.durable_lsn_min if later.record_count else self._durable_lsn
            missing = known + 1
        return _Evidence(missing, later.durable_lsn_max, zeros=False)

    def _is_continued(self, number: int, missing: int) -> bool:
        """Return whether a later segment that is not linked holds a record from `missing` on; any
        record, when that is 0 because nothing says which record is missing.

        Raises: FormatError when a segment of another database lies in the folder.
        """
        lsn = max(missing - 1, 0)
        for later in self._later_numbers(number):
            try:
                front = self._open(later)
                data = self._body(front)
            except CorruptionError:
                # A crash may leave a segment half prepared, and then it holds no records.
                if self._holds_records(later, lsn):
                    return True
                continue
            found = find_later_records(
                data, front.header.records_offset, later, front.header.salt, self._alignment, lsn
            )
            if found.record_count:
                return True
        return False

    def _holds_records(self, number: int, lsn: int) -> bool:
        """Return whether a segment with an unreadable header block begins with records above
        `lsn`, as far as that can be told.
        """
        file = self._env.open(f"{self._folder}/{segment_name(number)}")
        try:
            data = file.read_at(0, min(file.size(), _PROOF_BYTES))
        finally:
            file.close()
        return has_chained_records(data, number, lsn, self._alignment)

    def _later_numbers(self, number: int) -> list[int]:
        """Return the numbers above `number` of the segments in the folder that are not part of the
        log.
        """
        found = [parse_segment_name(name) for name in self._env.list_dir(self._folder)]
        return sorted(n for n in found if n is not None and n > number and n not in self.segments)

    def _open(
        self, number: int, previous: int | None = None, lsn: int = 0, chain: int = 0
    ) -> _Front:
        """Return the header block of a segment.

        `previous`, `lsn` and `chain` say what it continues, when that is known. Raises:
        CorruptionError when it is missing, damaged or another segment; FormatError.
        """
        path = f"{self._folder}/{segment_name(number)}"
        try:
            file = self._env.open(path)
        except FileNotFoundError:
            raise CorruptionError(path, 0, "the segment is missing") from None
        try:
            header = decode_segment_header(block := file.read_at(0, FRONT_BYTES_MAX), path)
            size = file.size()
        finally:
            file.close()
        if header.database_id != self._database_id:
            raise FormatError(f"{path}: a log segment of another database")
        if header.number != number:
            raise CorruptionError(path, 16, f"this is segment {header.number}")
        if header.alignment != self._alignment:
            raise CorruptionError(
                path, 12, f"the alignment is {header.alignment}, not {self._alignment}"
            )
        if size != header.size:
            raise CorruptionError(
                path, min(size, header.size), f"the file has {size} bytes, not {header.size}"
            )
        if previous is not None and header.previous != previous:
            raise CorruptionError(
                path, 56, f"it continues segment {header.previous}, not {previous}"
            )
        link = decode_link(block, header)
        if link is not None and header.previous == 0 and link.chain != header.salt:
            link = None
        if (
            previous is not None
            and link is not None
            and (link.lsn_first, link.chain) != (lsn, chain)
        ):
            raise CorruptionError(
                path,
                header.link_offset,
                "it continues another record than the last of its predecessor",
            )
        return _Front(path, header, link)

    def _body(self, front: _Front) -> bytes:
        file = self._env.open(front.path)
        try:
            data = file.read_at(0, front.header.size)
        finally:
            file.close()
        if len(data) != front.header.size:
            raise CorruptionError(
                front.path, len(data), f"the segment ends before byte {front.header.size}"
            )
        return data


def _is_zero(data: bytes, start: int) -> bool:
    """Return whether all bytes from `start` on are zero."""
    size = len(_ZEROS)
    return all(
        data[at : at + size] == _ZEROS[: len(data) - at] for at in range(start, len(data), size)
    )
