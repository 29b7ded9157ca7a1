"""Floor 3: the write-ahead log.

Batches and records (`WriteBatch`, `RecordBuffer`), the writer of segments (`LogWriter`) and their
reader (`read_log`). The bytes are specified in docs/format/wal.md; what recovery does where a log
ends is the table in `decision`.
"""

from holdfast.wal._buffer import RecordBuffer, WriteBatch
from holdfast.wal._scan import (
    ScanResult,
    check_payload,
    decode_payload,
    find_later_records,
    scan_records,
)
from holdfast.wal.feed import LogEnd, LogFeed, LoggedBatch, segments_beyond
from holdfast.wal.format import (
    BLOCK_BYTES,
    FRONT_BYTES_MAX,
    RECORD_HEADER_BYTES,
    SEGMENT_MAGIC,
    Record,
    RecordType,
    SegmentHeader,
    StopReason,
    decode_link,
    decode_segment_header,
    parse_segment_name,
    segment_header_as_stored,
    segment_name,
)
from holdfast.wal.reader import LogContents, LogRecord, LogSegment, read_log
from holdfast.wal.salvage import LogRun, RunReader, SalvagedLog, salvage_log
from holdfast.wal.sealed import LogSealing
from holdfast.wal.segment import SegmentInfo
from holdfast.wal.writer import LogWriter

__all__ = [
    "BLOCK_BYTES",
    "FRONT_BYTES_MAX",
    "RECORD_HEADER_BYTES",
    "SEGMENT_MAGIC",
    "LogContents",
    "LogEnd",
    "LogFeed",
    "LogRecord",
    "LogRun",
    "LogSealing",
    "LogSegment",
    "LogWriter",
    "LoggedBatch",
    "Record",
    "RecordBuffer",
    "RecordType",
    "RunReader",
    "SalvagedLog",
    "ScanResult",
    "SegmentHeader",
    "SegmentInfo",
    "StopReason",
    "WriteBatch",
    "check_payload",
    "decode_link",
    "decode_payload",
    "decode_segment_header",
    "find_later_records",
    "parse_segment_name",
    "read_log",
    "salvage_log",
    "scan_records",
    "segment_header_as_stored",
    "segment_name",
    "segments_beyond",
]
