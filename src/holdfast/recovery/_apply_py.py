"""Applying logged operations to memtables: the one way a commit and its replay take.

Sequence numbers are implied by position: the first operation has `seq_first`, the next one more,
over all batches.

Thread safety: the caller serialises writes to the memtables.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.base import DELETE, RANGE_DELETE
from holdfast.memtable import Memtable
from holdfast.wal import RecordBuffer, RecordType, ScanResult, decode_payload


def apply_payload(
    data: bytes | memoryview,
    offset: int,
    size: int,
    seq_first: int,
    memtables: Mapping[int, Memtable],
    flushed: Mapping[int, int],
    next_keyspace_id: int,
) -> tuple[int, int]:
    """Apply the batches of a payload and return (operations, bytes of keys and values).

    An operation of a dropped keyspace (its id has no memtable and lies below `next_keyspace_id`),
    or one that
    `flushed` says is in tables already, is counted but not applied.

    Raises: ValueError, with earlier operations applied, when the payload is malformed or names a
    keyspace that never existed.
    """
    seq, user_bytes = seq_first, 0
    for batch in decode_payload(data, offset, size):
        for kind, keyspace, key, value in batch:
            memtable = memtables.get(keyspace)
            if memtable is None and keyspace >= next_keyspace_id:
                raise ValueError(f"an operation names keyspace {keyspace}, which never existed")
            if memtable is not None and seq > flushed.get(keyspace, 0):
                if kind == RANGE_DELETE:
                    memtable.delete_range(seq, key, value or b"")
                else:
                    memtable.put(seq, kind, key, b"" if kind == DELETE else (value or b""))
            user_bytes += len(key) + len(value or b"")
            seq += 1
    return seq - seq_first, user_bytes


def apply_records(
    scan: ScanResult,
    data: bytes,
    start: int,
    payload_bytes_max: int,
    memtables: Mapping[int, Memtable],
    flushed: Mapping[int, int],
    next_keyspace_id: int,
) -> tuple[int, int]:
    """Apply the records of `scan` from index `start` on, until more than `payload_bytes_max` bytes
    of payload were applied; return (index of the next record, bytes of payload).

    `data` holds the segment that was scanned. Raises: ValueError as `apply_payload`.
    """
    index, payload_bytes = start, 0
    while index < scan.record_count and payload_bytes <= payload_bytes_max:
        record = scan.record(index)
        if record.type == RecordType.BATCHES:
            apply_payload(
                data,
                record.payload_offset,
                record.payload_size,
                record.seq_first,
                memtables,
                flushed,
                next_keyspace_id,
            )
            payload_bytes += record.payload_size
        index += 1
    return index, payload_bytes


def apply_buffer(
    buffer: RecordBuffer, offset: int, seq_first: int, memtables: Mapping[int, Memtable]
) -> int:
    """Apply what `buffer` collected from payload byte `offset` on; return the bytes of keys and
    values.

    Requires: every keyspace has a memtable.
    """
    payload = buffer.payload()
    _, user_bytes = apply_payload(
        payload, offset, len(payload) - offset, seq_first, memtables, {}, 0
    )
    return user_bytes
