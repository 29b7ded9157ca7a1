"""Shows a log segment: header, link, records, and the operations in them (docs/format/wal.md)."""

from __future__ import annotations

from bisect import bisect_right

from holdfast.base import DELETE, MERGE, PUT, CorruptionError, FormatError
from holdfast.cli.dump_output import Output
from holdfast.env import File
from holdfast.wal import (
    FRONT_BYTES_MAX,
    RECORD_HEADER_BYTES,
    SEGMENT_MAGIC,
    Record,
    RecordType,
    ScanResult,
    SegmentHeader,
    StopReason,
    decode_link,
    decode_payload,
    decode_segment_header,
    find_later_records,
    scan_records,
    segment_header_as_stored,
)

_REASONS = {
    StopReason.END_OF_DATA: "the file ends within a record",
    StopReason.END_OF_ZEROS: "zeros where a record should be",
    StopReason.BAD_HEADER: "no record header with a right checksum",
    StopReason.BAD_PAYLOAD: "the payload does not match its checksum",
    StopReason.WRONG_SEGMENT: "a record of another segment",
    StopReason.BROKEN_CHAIN: "a record that does not continue the one before it",
    StopReason.MALFORMED: "a record whose content breaks the format",
}
_FOREIGN = (StopReason.WRONG_SEGMENT, StopReason.BROKEN_CHAIN, StopReason.MALFORMED)


def dump_log(file: File, output: Output) -> None:
    """Print a segment. Raises: FormatError for a newer version; OSError."""
    data = file.read_at(0, file.size())
    output.line("segment", file=file.name, bytes=len(data))
    header = _header(data, file.name, output)
    if header is None:
        return
    lsn, chain = _link(data, header, output)
    headers: list[int] | None = None
    offset = header.records_offset
    while True:
        scan = scan_records(data, offset, header.number, header.salt, lsn, chain, header.alignment)
        for record in scan.records:
            _record(data, record, output)
        if headers is None and scan.stop != StopReason.END_OF_SEGMENT:
            # Looked for once: a hostile file must not have it looked for at every place.
            headers = _headers(data, scan.end_offset, header)
        following = _following(headers or [], scan)
        _stop(data, scan, following, output)
        if following is None:
            return
        # What it continues is not known any more, so the first record says it.
        offset, lsn, chain = following, 0, 0


def _header(data: bytes, name: str, output: Output) -> SegmentHeader | None:
    try:
        header = decode_segment_header(data[:FRONT_BYTES_MAX], name)
    except (CorruptionError, FormatError) as error:
        if isinstance(error, FormatError) and data.startswith(SEGMENT_MAGIC):
            raise
        output.damage(getattr(error, "offset", 0), getattr(error, "reason", str(error)))
        found = segment_header_as_stored(data[:FRONT_BYTES_MAX])
        if found is None:
            return None
        header = found
    output.line(
        "header",
        version=header.version,
        number=header.number,
        previous=header.previous,
        bytes=header.size,
        alignment=header.alignment,
        salt=header.salt,
        database=header.database_id.hex(),
        created_us=header.created_us,
    )
    if header.size != len(data):
        reason = f"the file has {len(data)} bytes; its header says {header.size}"
        output.damage(min(len(data), header.size), reason)
    return header


def _link(data: bytes, header: SegmentHeader, output: Output) -> tuple[int, int]:
    """Print the link; return the ordinal and the chain that the first record must have."""
    link = decode_link(data[:FRONT_BYTES_MAX], header)
    if link is None:
        output.line("no link", offset=header.link_offset)
        return 0, 0
    output.line("link", previous=link.previous, lsn_first=link.lsn_first, chain=link.chain)
    return link.lsn_first, link.chain


def _record(data: bytes, record: Record, output: Output) -> None:
    payload = data[record.payload_offset : record.payload_offset + record.payload_size]
    offset = record.payload_offset - RECORD_HEADER_BYTES
    if record.type == RecordType.END:
        following = int.from_bytes(payload, "little")
        output.line("end", offset=offset, lsn=record.lsn, next_segment=following)
        return
    output.line(
        "record",
        offset=offset,
        lsn=record.lsn,
        seq_first=record.seq_first,
        operations=record.op_count,
        payload_bytes=record.payload_size,
        durable_lsn=record.durable_lsn,
        manifest_edit=record.manifest_edit,
    )
    seq = record.seq_first
    for batch in decode_payload(payload, 0, len(payload)):
        output.line("batch", 1, operations=len(batch))
        for kind, keyspace, key, value in batch:
            if kind == PUT:
                output.thing("put", 2, seq=seq, keyspace=keyspace, key=key, value=value)
            elif kind == MERGE:
                output.thing("merge", 2, seq=seq, keyspace=keyspace, key=key, value=value)
            elif kind == DELETE:
                output.thing("delete", 2, seq=seq, keyspace=keyspace, key=key)
            else:
                output.thing("delete range", 2, seq=seq, keyspace=keyspace, start=key, stop=value)
            seq += 1


def _headers(data: bytes, start: int, header: SegmentHeader) -> list[int]:
    """Return where right record headers of the segment stand from `start` on."""
    found = find_later_records(data, start, header.number, header.salt, header.alignment)
    return [record.payload_offset - RECORD_HEADER_BYTES for record in found.records]


def _following(headers: list[int], scan: ScanResult) -> int | None:
    """Return the first right header behind the place where a scan stopped."""
    if scan.stop == StopReason.END_OF_SEGMENT:
        return None
    at = bisect_right(headers, scan.end_offset)
    return headers[at] if at < len(headers) else None


def _stop(data: bytes, scan: ScanResult, following: int | None, output: Output) -> None:
    """Say why no record follows."""
    if scan.stop == StopReason.END_OF_SEGMENT:
        return
    place = scan.end_offset
    rest = len(data) - place - data[place:].count(0)
    if following is not None or scan.stop in _FOREIGN:
        output.damage(place, _REASONS[scan.stop])
    elif rest:
        output.line(
            "tail", offset=place, reason=f"{_REASONS[scan.stop]}: torn by a crash, or damaged"
        )
    else:
        output.line("tail", offset=place, reason="nothing was written from here on")
