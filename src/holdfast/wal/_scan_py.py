"""Reading records back from the bytes of a segment: the plain twin, which is the specification.

Guarantees:
1. No field of a header is used before the header's checksum is compared, and none before its range
   is checked.
2. A record in a result is whole: checksums, padding, segment, chain and the structure of its
   payload are right.
3. Time and memory are linear in the data, whatever the data.

Thread safety: pure functions; results are immutable.
"""

from __future__ import annotations

from typing import Final

from holdfast.base import DELETE, KEY_BYTES_MAX, MERGE, PUT, RANGE_DELETE, VALUE_BYTES_MAX
from holdfast.codec import checksum
from holdfast.wal.format import (
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    Record,
    RecordHeader,
    RecordType,
    StopReason,
    align_up,
    decode_record_header,
    is_alignment,
    is_well_formed,
)

Data = bytes | bytearray | memoryview
Operation = tuple[int, int, bytes, bytes | None]

_U32_MAX: Final = (1 << 32) - 1
_U64_MAX: Final = (1 << 64) - 1
_ZERO_HEADER: Final = bytes(RECORD_HEADER_BYTES)
_MAGIC: Final = RECORD_MAGIC.to_bytes(4, "little")


class ScanResult:
    """What a scan found. Minima and maxima are 0 when there is no record."""

    __slots__ = (
        "_records",
        "chain_next",
        "durable_lsn_max",
        "durable_lsn_min",
        "end_offset",
        "lsn_next",
        "manifest_edit_max",
        "next_segment",
        "seq_first",
        "seq_next",
        "stop",
    )

    def __init__(self, end_offset: int, lsn: int, chain: int) -> None:
        self._records: list[Record] = []
        self.end_offset = end_offset
        """Where the next record would start, or where the scan met what it stopped at."""
        self.stop = StopReason.END_OF_DATA
        self.lsn_next = lsn
        """The ordinal that a record at `end_offset` must have, 0 when not known."""
        self.chain_next = chain
        self.seq_first = 0
        """The first sequence number of the first record."""
        self.seq_next = 0
        """One more than the highest sequence number, 0 when there is no record."""
        self.next_segment = 0
        """The segment that the END record names, 0 when there is none."""
        self.durable_lsn_min = 0
        self.durable_lsn_max = 0
        self.manifest_edit_max = 0

    @property
    def record_count(self) -> int:
        """How many records there are."""
        return len(self._records)

    @property
    def records(self) -> list[Record]:
        """A new list of the records, in the order of their offsets."""
        return list(self._records)

    def record(self, index: int) -> Record:
        """Return record number `index`, from 0. Raises: IndexError."""
        if not 0 <= index < len(self._records):
            raise IndexError(f"there is no record {index}; there are {len(self._records)}")
        return self._records[index]

    def _add(self, record: Record) -> None:
        if not self._records or record.durable_lsn < self.durable_lsn_min:
            self.durable_lsn_min = record.durable_lsn
        self.durable_lsn_max = max(self.durable_lsn_max, record.durable_lsn)
        self.manifest_edit_max = max(self.manifest_edit_max, record.manifest_edit)
        self.seq_first = self.seq_first if self._records else record.seq_first
        self._records.append(record)


def scan_records(
    data: Data, offset: int, segment: int, salt: int, lsn: int, chain: int, alignment: int
) -> ScanResult:
    """Read records from `offset` of `data` on until something is not the next record.

    `data` is a whole segment and `offset` a multiple of `alignment`. `lsn` and `chain` are what the
    first record must have; with `lsn` 0 they are taken from it. Never raises for anything that
    `data` holds: see `StopReason`. Raises: ValueError for a bad offset or alignment; OverflowError
    for a number that is not an unsigned 64-bit integer.
    """
    view = _check_arguments(data, offset, alignment, segment, salt, lsn, chain)
    result = ScanResult(offset, lsn, chain)
    while result.end_offset <= len(view) - RECORD_HEADER_BYTES:
        offset = result.end_offset
        stop = _scan_one(view, offset, segment, salt, alignment, result)
        if stop is not None:
            result.stop = stop
            break
    return result


def _scan_one(
    view: memoryview, offset: int, segment: int, salt: int, alignment: int, result: ScanResult
) -> StopReason | None:
    """Add the record at `offset` to the result; return why not, or why it is the last."""
    stored = view[offset : offset + RECORD_HEADER_BYTES]
    if stored == _ZERO_HEADER:
        return StopReason.END_OF_ZEROS
    decoded = decode_record_header(stored, salt)
    if decoded is None:
        return StopReason.BAD_HEADER
    header, digest = decoded
    if header.segment != segment:
        return StopReason.WRONG_SEGMENT
    if not is_well_formed(header) or (result.seq_next and header.seq_first < result.seq_next):
        return StopReason.MALFORMED
    if result.lsn_next and (header.lsn != result.lsn_next or header.chain != result.chain_next):
        return StopReason.BROKEN_CHAIN
    payload_offset = offset + RECORD_HEADER_BYTES
    end = align_up(payload_offset + header.payload_size, alignment)
    if end > len(view):
        return StopReason.MALFORMED
    payload = view[payload_offset : payload_offset + header.payload_size]
    if checksum(payload, salt) != header.payload_checksum or any(
        view[payload_offset + header.payload_size : end]
    ):
        return StopReason.BAD_PAYLOAD
    if header.type == RecordType.END:
        next_segment = int.from_bytes(payload, "little")
        if next_segment <= segment:
            return StopReason.MALFORMED
        result.next_segment = next_segment
    else:
        try:
            check_payload(payload, 0, len(payload), header.op_count)
        except ValueError:
            return StopReason.MALFORMED
    result._add(_record(header, payload_offset, digest))
    result.end_offset = end
    result.lsn_next = header.lsn + 1
    result.chain_next = digest
    result.seq_next = header.seq_first + header.op_count
    return StopReason.END_OF_SEGMENT if header.type == RecordType.END else None


def find_later_records(
    data: Data, offset: int, segment: int, salt: int, alignment: int, lsn: int = 0
) -> ScanResult:
    """Find every record header of this segment from `offset` on that is right and has an ordinal
    above `lsn`.

    For evidence behind a bad place: payloads are not looked at, and nothing is required of the
    order. Raises: as `scan_records`.
    """
    view = _check_arguments(data, offset, alignment, segment, salt, lsn, 0)
    result = ScanResult(len(view), 0, 0)
    for place in range(offset, len(view) - RECORD_HEADER_BYTES + 1, alignment):
        if view[place : place + 4] != _MAGIC:
            continue
        decoded = decode_record_header(view[place : place + RECORD_HEADER_BYTES], salt)
        if decoded is None:
            continue
        header, digest = decoded
        if header.segment == segment and header.lsn > lsn and is_well_formed(header):
            result._add(_record(header, place + RECORD_HEADER_BYTES, digest))
    return result


def check_payload(data: Data, offset: int, size: int, op_count: int) -> None:
    """Check the structure of the batches in `size` bytes from `offset` of `data`, and that they add
    up.

    Raises: ValueError that names the offset of what is wrong.
    """
    _walk(data, offset, size, op_count)


def decode_payload(data: Data, offset: int, size: int) -> list[list[Operation]]:
    """Return the batches in `size` bytes from `offset` of `data`. Raises: ValueError as
    `check_payload`.
    """
    return _walk(data, offset, size, None)


def _walk(data: Data, offset: int, size: int, op_count: int | None) -> list[list[Operation]]:
    view = _bytes_view(data)
    if not (0 <= offset <= len(view) and 0 <= size <= len(view) - offset):
        raise ValueError("the payload does not lie within the data")
    reader = _Reader(view, offset, offset + size)
    batches = []
    total = 0
    while reader.at < reader.end:
        start = reader.at
        left = reader.varint("a batch's operation count")
        if left == 0:
            raise ValueError(f"a batch without operations at byte {start}")
        total += left
        batch: list[Operation] = []
        while left:
            if reader.at == reader.end:
                raise ValueError(f"the payload ends within a batch at byte {reader.at}")
            batch.append(reader.operation())
            left -= 1
        batches.append(batch)
    if op_count is not None and total != op_count:
        raise ValueError(f"the operations do not add up at byte {reader.at}")
    return batches


class _Reader:
    """Reads one field after the other, each checked against the end."""

    def __init__(self, view: memoryview, at: int, end: int) -> None:
        self.view = view
        self.at = at
        self.end = end

    def operation(self) -> Operation:
        start = self.at
        kind = self.view[start]
        if kind not in (DELETE, PUT, RANGE_DELETE, MERGE):
            raise ValueError(f"an unknown kind at byte {start}")
        self.at += 1
        start = self.at
        keyspace = self.varint("a keyspace id")
        if keyspace > _U32_MAX:
            raise ValueError(f"a keyspace id of more than 32 bits at byte {start}")
        key = self.sized("a key", KEY_BYTES_MAX)
        if kind == DELETE:
            return kind, keyspace, key, None
        return (
            kind,
            keyspace,
            key,
            self.sized("a value", KEY_BYTES_MAX if kind == RANGE_DELETE else VALUE_BYTES_MAX),
        )

    def sized(self, what: str, limit: int) -> bytes:
        start = self.at
        size = self.varint(f"the size of {what}")
        if size > limit or size > self.end - self.at:
            raise ValueError(f"{what} too long at byte {start}")
        piece = bytes(self.view[self.at : self.at + size])
        self.at += size
        return piece

    def varint(self, what: str) -> int:
        value = 0
        for position in range(self.at, min(self.end, self.at + 10)):
            byte = self.view[position]
            value |= (byte & 0x7F) << 7 * (position - self.at)
            if byte < 0x80:
                if value > _U64_MAX or (byte == 0 and position > self.at):
                    break
                self.at = position + 1
                return value
        raise ValueError(f"{what} cannot be read at byte {self.at}")


def _record(header: RecordHeader, payload_offset: int, digest: int) -> Record:
    return Record(
        lsn=header.lsn, seq_first=header.seq_first, op_count=header.op_count, type=header.type,
        payload_offset=payload_offset, payload_size=header.payload_size,
        durable_lsn=header.durable_lsn, manifest_edit=header.manifest_edit, header_checksum=digest,
    )  # fmt: skip


def _check_arguments(data: Data, offset: int, alignment: int, *numbers: int) -> memoryview:
    view = _bytes_view(data)
    if any(not 0 <= number <= _U64_MAX for number in numbers):
        raise OverflowError("a number is not a 64-bit unsigned integer")
    if not is_alignment(alignment):
        raise ValueError(f"the alignment is {alignment}; it must be a power of two from 8 to 4096")
    if offset < 0 or offset % alignment:
        raise ValueError(f"the offset is {offset}; it must be a multiple of {alignment}")
    return view


def _bytes_view(data: Data) -> memoryview:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the data is not contiguous")
    return view.cast("B")
