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
from holdfast.wal.format import RecordType, parse_segment_name, segment_name
from holdfast.wal.reader import LogContents, LogRecord, LogSegment, read_log
from holdfast.wal.writer import LogWriter, SegmentInfo

__all__ = [
    "LogContents",
    "LogRecord",
    "LogSegment",
    "LogWriter",
    "RecordBuffer",
    "RecordType",
    "ScanResult",
    "SegmentInfo",
    "WriteBatch",
    "check_payload",
    "decode_payload",
    "find_later_records",
    "parse_segment_name",
    "read_log",
    "scan_records",
    "segment_name",
]
