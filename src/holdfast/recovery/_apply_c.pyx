"""Compiled application of logged operations; `_apply_py` is the specification."""
from libc.stdint cimport uint32_t, uint64_t

from holdfast.memtable._memtable_c cimport Memtable
from holdfast.wal._buffer_c cimport RecordBuffer
from holdfast.wal._scan_c cimport ScanRecord, ScanResult
from holdfast.wal._payload cimport (
    OP_RANGE_DELETE, PAYLOAD_END, PayloadWalk, payload_next, payload_start,
)

cdef enum:
    # Part of the file format: `wal.RecordType.BATCHES`.
    RECORD_BATCHES = 1


def apply_payload(data, Py_ssize_t offset, Py_ssize_t size, uint64_t seq_first, memtables, flushed,
                  uint64_t next_keyspace_id):
    """See `_apply_py.apply_payload`."""
    cdef const unsigned char[::1] view = data
    cdef uint64_t op_count = 0, user_bytes = 0
    if offset < 0 or size < 0 or offset > view.shape[0] or size > view.shape[0] - offset:
        raise ValueError("the payload does not lie within the data")
    if size:
        # Safety: [offset, offset + size) was just checked to lie within the view.
        _apply(&view[offset], size, seq_first, memtables, flushed, next_keyspace_id, &op_count,
               &user_bytes)
    return op_count, user_bytes


def apply_records(ScanResult scan not None, data, Py_ssize_t start, Py_ssize_t payload_bytes_max,
                  memtables, flushed, uint64_t next_keyspace_id):
    """See `_apply_py.apply_records`."""
    cdef const unsigned char[::1] view = data
    cdef uint64_t op_count = 0, user_bytes = 0
    cdef Py_ssize_t index = start, payload_bytes = 0
    cdef ScanRecord* record
    if start < 0:
        raise ValueError("the index of a record is negative")
    while index < scan.record_count and payload_bytes <= payload_bytes_max:
        # Safety: 0 <= index < record_count.
        record = &scan.items[index]
        if record.type == RECORD_BATCHES and record.payload_size:
            if (record.payload_offset > view.shape[0]
                    or record.payload_size > view.shape[0] - record.payload_offset):
                raise ValueError("the payload does not lie within the data")
            _apply(&view[record.payload_offset], record.payload_size, record.seq_first, memtables,
                   flushed, next_keyspace_id, &op_count, &user_bytes)
            payload_bytes += record.payload_size
        index += 1
    return index, payload_bytes


def apply_buffer(RecordBuffer buffer not None, Py_ssize_t offset, uint64_t seq_first, memtables):
    """See `_apply_py.apply_buffer`."""
    cdef uint64_t op_count = 0, user_bytes = 0
    if offset < 0 or offset > buffer.size:
        raise ValueError("the offset does not lie within the buffer")
    if buffer.size > offset:
        # Safety: [offset, size) of the payload was just checked to lie within the buffer.
        _apply(buffer.payload_data() + offset, buffer.size - offset, seq_first, memtables, {}, 0,
               &op_count, &user_bytes)
    return user_bytes


cdef int _apply(const unsigned char* data, Py_ssize_t size, uint64_t seq, object memtables,
                object flushed, uint64_t next_keyspace_id, uint64_t* op_count,
                uint64_t* user_bytes) except -1:
    """Apply [data, data + size). The walk checks every length against the end before it is used."""
    cdef PayloadWalk walk
    cdef Memtable table = None
    cdef uint64_t flushed_seq = 0
    cdef uint32_t known = 0
    cdef bint looked_up = False
    cdef int status
    payload_start(&walk, data, size)
    while True:
        status = payload_next(&walk)
        if status == PAYLOAD_END:
            return 0
        if status < 0:
            raise ValueError(
                f"the payload is malformed at its byte {walk.at - data} (status {status})")
        # Runs of operations on one keyspace are the rule, so its memtable is looked up once a run.
        if not looked_up or walk.keyspace != known:
            table = memtables.get(walk.keyspace)
            flushed_seq = flushed.get(walk.keyspace, 0)
            known = walk.keyspace
            looked_up = True
        if table is None and walk.keyspace >= next_keyspace_id:
            raise ValueError(f"an operation names keyspace {walk.keyspace}, which never existed")
        if table is not None and seq > flushed_seq:
            if walk.kind == OP_RANGE_DELETE:
                table.delete_range(seq, walk.key[:walk.key_size], walk.value[:walk.value_size])
            else:
                table.c_put(seq, walk.kind, walk.key, walk.key_size, walk.value, walk.value_size)
        user_bytes[0] += <uint64_t>(walk.key_size + walk.value_size)
        seq += 1
        op_count[0] += 1
