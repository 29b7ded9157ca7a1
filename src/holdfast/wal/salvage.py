"""Salvage: what can still be read of a log, where recovery refuses it.

A record is believed when header and payload match their checksums, which are seeded with the salt
of the segment, and its ordinal says where in the log it belongs. So records behind damage are found
by themselves, and what is missing between them is known by their ordinals.

Guarantees:
1. Runs come out in the order of the log; within a run nothing is missing.
2. Of records with one ordinal those of the latest segment count: what an earlier process life
   wrote behind a torn end, the next one has written anew. Its link says from where on.
3. The bytes of one segment are in memory at a time, and for a moment two copies of them.
4. Time is linear in the bytes of a segment, whatever they are: see `_Patience`.
5. When the log is known to have gone on behind the last run, and nothing can be read of that, it is
   said: `SalvagedLog.unread`.

Where `read_log` decides whether a log can be trusted, nothing is decided here: whoever replays runs
across a gap chooses to. That records which are whole are kept is what LevelDB's repair does, too;
it goes on behind damage without asking.

Thread safety: none; one thread reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from holdfast.base import CorruptionError, FormatError
from holdfast.env import Env
from holdfast.wal._scan import ScanResult, find_later_records, scan_records
from holdfast.wal.format import (
    ALIGNMENT_MIN,
    BLOCK_BYTES,
    FRONT_BYTES_MAX,
    RECORD_HEADER_BYTES,
    SEGMENT_BYTES_MAX,
    SEGMENT_MAGIC,
    SegmentHeader,
    StopReason,
    decode_link,
    decode_segment_header,
    has_chained_records,
    is_alignment,
    parse_segment_name,
    segment_header_as_stored,
    segment_name,
)

_ZERO_BLOCK: Final = bytes(1 << 16)
_PATIENCE: Final = 4


@dataclass(frozen=True, slots=True)
class LogRun:
    """Records that follow each other without a gap, in one segment."""

    segment: int
    path: str
    offset: int
    """Where the first one stands."""
    lsn_first: int
    lsn_last: int
    seq_first: int
    """The sequence number of the first operation; where the run has none, that of the next."""
    seq_next: int
    operations: int
    salt: int
    alignment: int


@dataclass(slots=True)
class SalvagedLog:
    """What is left of a log."""

    runs: list[LogRun] = field(default_factory=list)
    """In the order of their ordinals, which do not overlap."""
    database_id: bytes = b""
    """That of the segments; empty when there is none that can be read."""
    alignment: int = 0
    durable_lsn: int = 0
    """The highest ordinal that a record knows to be durable."""
    manifest_edit: int = 0
    """The highest edit that a record knows to be durable."""
    damage: list[CorruptionError] = field(default_factory=list)
    """Every place at which something cannot be read that may have been records."""
    awaited: int = 0
    """The segment in which the log goes on behind the last run, of which nothing was read; 0 when
    it is not known to go on.
    """
    unread: CorruptionError | None = None
    """What there is to say of that segment."""

    @property
    def lsn_last(self) -> int:
        """The highest ordinal that was found, 0 when there is none."""
        return self.runs[-1].lsn_last if self.runs else 0

    @property
    def seq_last(self) -> int:
        """The highest sequence number that was found, 0 when there is none."""
        return max((run.seq_next - 1 for run in self.runs), default=0)


def salvage_log(
    env: Env,
    folder: str,
    first_segment: int = 0,
    *,
    database_id: bytes = b"",
    last_segment: int | None = None,
    is_unreadable: Callable[[str], bool] = lambda path: False,
) -> SalvagedLog:
    """Return what can be read of the segments from number `first_segment` on, in which the log
    begins if it is given. Those of another database than `database_id` are left out, if that is
    given, and are damage. `is_unreadable` says whether there is something of a file that the disk
    does not give: records may have stood there, whatever the end of the log looks like.

    Raises: FormatError for a segment of a newer version; OSError when the folder cannot be listed.
    """
    found = SalvagedLog(database_id=database_id, awaited=first_segment)
    numbers = (parse_segment_name(name) for name in env.list_dir(folder))
    for number in sorted(n for n in numbers if n is not None and n >= first_segment):
        if last_segment is not None and number > last_segment:
            break
        path = f"{folder}/{segment_name(number)}"
        try:
            data = _bytes(env, path)
            header, is_whole = _header(data, path, number, found, has_first=first_segment > 0)
        except CorruptionError as error:
            found.damage.append(error)
            if is_unreadable(path):
                found.awaited = found.awaited or number
            continue
        except OSError as error:
            found.damage.append(CorruptionError(path, 0, f"it cannot be read: {error}"))
            found.awaited = found.awaited or number
            continue
        if header is not None:
            scan = _salvage_segment(found, path, header, data, is_whole=is_whole)
            is_end = scan.stop in (StopReason.END_OF_SEGMENT, StopReason.END_OF_ZEROS)
            if is_unreadable(path) and not is_end:
                found.awaited = number
        elif is_unreadable(path):
            found.awaited = found.awaited or number
    if found.awaited:
        found.unread = CorruptionError(
            f"{folder}/{segment_name(found.awaited)}",
            0,
            "the log goes on in this segment, and what cannot be read of it is missing",
        )
    return found


class RunReader:
    """Reads runs that `salvage_log` found.

    The bytes of one segment are kept, for runs come one after the other, and a damaged segment may
    have thousands. Thread safety: none.
    """

    def __init__(self, env: Env) -> None:
        self._env = env
        self._path = ""
        self._start = 0
        self._data = b""

    def read(self, run: LogRun) -> tuple[bytes, ScanResult]:
        """Return the bytes of a run's segment and the scan of the run. Raises: CorruptionError when
        it cannot be read as it could before; OSError.
        """
        data = self._segment(run)
        scan = scan_records(data, run.offset, run.segment, run.salt, 0, 0, run.alignment)
        if scan.lsn_next <= run.lsn_last:
            raise CorruptionError(run.path, run.offset, "it reads otherwise than a moment ago")
        if scan.lsn_next > run.lsn_last + 1:
            # What follows was replaced by a later segment.
            index = scan.record_count - (scan.lsn_next - 1 - run.lsn_last)
            end = scan.record(index).payload_offset - RECORD_HEADER_BYTES
            data = data[:end]
            scan = scan_records(data, run.offset, run.segment, run.salt, 0, 0, run.alignment)
        return data, scan

    def _segment(self, run: LogRun) -> bytes:
        if run.path != self._path or run.offset < self._start:
            self._path, self._data = "", b""
            data = _bytes(self._env, run.path)
            later = find_later_records(data, run.offset, run.segment, run.salt, run.alignment)
            self._data = _padded(data, later, run.alignment)
            self._path, self._start = run.path, run.offset
        return self._data


def _bytes(env: Env, path: str) -> bytes:
    file = env.open(path)
    try:
        # Of a sealed segment the header block is read by itself: it has a size of its own.
        return file.read_at(0, min(file.size(), SEGMENT_BYTES_MAX))
    finally:
        file.close()


def _header(
    data: bytes, path: str, number: int, found: SalvagedLog, *, has_first: bool
) -> tuple[SegmentHeader | None, bool]:
    """Return the header of a segment, as it stands when it is damaged, and whether it is whole;
    None for a segment that was never used. `has_first`: it is known where the log begins. Raises:
    CorruptionError when nothing can be read with it; FormatError when it is of a newer version.
    """
    front = data[:FRONT_BYTES_MAX]
    try:
        header = decode_segment_header(front, path)
    except CorruptionError as error:
        _look_without_header(found, number, data)
        if _is_zero(data, min(BLOCK_BYTES, len(data))):
            # It was being prepared when the power went, and holds nothing.
            return None, False
        stored = segment_header_as_stored(front)
        found.damage.append(error)
        if stored is None or not is_alignment(stored.alignment):
            return None, False
        return stored, False
    except FormatError as error:
        if front.startswith(SEGMENT_MAGIC):
            raise
        _look_without_header(found, number, data)
        raise CorruptionError(path, 0, str(error)) from error
    if header.number != number:
        raise CorruptionError(path, 16, f"this is segment {header.number}")
    if found.database_id and header.database_id != found.database_id:
        raise CorruptionError(path, 32, "it is a log segment of another database")
    found.database_id = header.database_id
    found.alignment = header.alignment
    if number == found.awaited or (header.previous == 0 and not has_first):
        # What an earlier life left is in tables when the next one begins; but one that was cut off
        # before its manifest was in force, and so the manifest names an earlier segment, has begun
        # for nobody.
        found.awaited = 0
    return header, True


def _look_without_header(found: SalvagedLog, number: int, data: bytes) -> None:
    """Note whether a segment whose header cannot be read has records behind the last run."""
    if len(data) > BLOCK_BYTES and _is_zero(data, BLOCK_BYTES):
        if found.awaited == number:
            found.awaited = 0
    elif has_chained_records(data, number, found.lsn_last, found.alignment or ALIGNMENT_MIN):
        found.awaited = found.awaited or number


def _salvage_segment(
    found: SalvagedLog, path: str, header: SegmentHeader, data: bytes, *, is_whole: bool
) -> ScanResult:
    """Add the runs of a segment, whose header `is_whole` or damaged; return the last scan."""
    number = parse_segment_name(path.rpartition("/")[2]) or header.number
    link = decode_link(data[:FRONT_BYTES_MAX], header)
    if link is not None:
        # A life says so where it begins, also when no record of it is left.
        found.runs[:] = _before(found.runs, link.lsn_first)
    scan = _add_runs(found, path, number, header, data)
    if scan.stop == StopReason.END_OF_SEGMENT:
        found.awaited = scan.next_segment
    elif is_whole and len(data) < header.size and scan.stop != StopReason.END_OF_ZEROS:
        # It was cut, and not where the records end.
        found.awaited = number
    return scan


def _add_runs(
    found: SalvagedLog, path: str, number: int, header: SegmentHeader, data: bytes
) -> ScanResult:
    """Add the runs of a segment; return the scan that came to its end."""
    salt, alignment = header.salt, header.alignment
    at = header.records_offset
    scan = scan_records(data, at, number, salt, 0, 0, alignment)
    patience = _Patience(len(data))
    is_first = True
    # The headers behind the first damage: looked for once, as there may be thousands of places.
    later: ScanResult | None = None
    index = 0
    while True:
        if scan.record_count:
            _add_run(found, path, number, salt, alignment, at, scan, is_first=is_first)
            is_first = False
        end = scan.end_offset
        if scan.stop == StopReason.END_OF_SEGMENT or _is_zero(data, end):
            return scan
        if scan.stop != StopReason.BROKEN_CHAIN:
            reason = "here stand bytes that are no whole record"
            found.damage.append(CorruptionError(path, end, reason))
        if later is None:
            later = find_later_records(data, end, number, salt, alignment)
            data = _padded(data, later, alignment)
        # The next whole one may be that at which the scan stopped: one that only breaks the chain,
        # or of which only the padding was damaged.
        while True:
            if index == later.record_count:
                return scan
            if patience.is_over:
                found.damage.append(CorruptionError(path, at, "the headers here are forged"))
                found.awaited = number
                return scan
            record = later.record(index)
            at = record.payload_offset - RECORD_HEADER_BYTES
            index += 1
            if at >= end:
                scan = scan_records(data, at, number, salt, 0, 0, alignment)
                if scan.record_count:
                    break
                patience.spend(record.payload_size)


class _Patience:
    """How many bytes of records may be looked at that turn out not to be whole.

    Records do not overlap, so the payloads of those that were damaged are together no longer than
    their segment, or a few times that where a value holds a copy of the log. Only forged headers
    claim more, each of which would cost a checksum of as much as it claims.
    """

    __slots__ = ("_left",)

    def __init__(self, size: int) -> None:
        self._left = _PATIENCE * size

    def spend(self, size: int) -> None:
        """Count a payload that was looked at in vain."""
        self._left -= size

    @property
    def is_over(self) -> bool:
        """Whether more was claimed than there can be."""
        return self._left < 0


def _padded(data: bytes, later: ScanResult, alignment: int) -> bytes:
    """Return the bytes of a segment with zeros behind each record of `later`, which begin at
    multiples of the alignment.

    Behind damage a sealed segment shows what is not part of a record as 0xFF, and no checksum
    needs the padding.
    """
    mended: bytearray | None = None
    for index in range(later.record_count):
        record = later.record(index)
        end = record.payload_offset + record.payload_size
        padded = min(end + -end % alignment, len(data))
        if any(data[end:padded]):
            mended = bytearray(data) if mended is None else mended
            mended[end:padded] = bytes(padded - end)
    return data if mended is None else bytes(mended)


def _add_run(
    found: SalvagedLog,
    path: str,
    number: int,
    salt: int,
    alignment: int,
    offset: int,
    scan: ScanResult,
    *,
    is_first: bool,
) -> None:
    first, last = scan.record(0), scan.record(scan.record_count - 1)
    found.durable_lsn = max(found.durable_lsn, scan.durable_lsn_max)
    found.manifest_edit = max(found.manifest_edit, scan.manifest_edit_max)
    if is_first:
        found.runs[:] = _before(found.runs, first.lsn)
    elif found.runs and first.lsn <= found.runs[-1].lsn_last:
        # Within a segment ordinals only grow.
        return
    found.awaited = 0
    found.runs.append(
        LogRun(
            segment=number,
            path=path,
            offset=offset,
            lsn_first=first.lsn,
            lsn_last=last.lsn,
            seq_first=scan.seq_first,
            seq_next=scan.seq_next,
            operations=sum(scan.record(index).op_count for index in range(scan.record_count)),
            salt=salt,
            alignment=alignment,
        )
    )


def _before(runs: list[LogRun], lsn: int) -> Iterator[LogRun]:
    """Yield what runs have of records below an ordinal."""
    for run in runs:
        if run.lsn_last < lsn:
            yield run
        elif run.lsn_first < lsn:
            yield LogRun(
                segment=run.segment,
                path=run.path,
                offset=run.offset,
                lsn_first=run.lsn_first,
                lsn_last=lsn - 1,
                seq_first=run.seq_first,
                seq_next=run.seq_next,
                operations=run.operations,
                salt=run.salt,
                alignment=run.alignment,
            )


def _is_zero(data: bytes, start: int) -> bool:
    size = len(_ZERO_BLOCK)
    return all(
        data[at : at + size] == _ZERO_BLOCK[: len(data) - at]
        for at in range(start, len(data), size)
    )
