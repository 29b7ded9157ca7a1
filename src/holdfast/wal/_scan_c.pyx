"""Reading records back from the bytes of a segment: the compiled twin of `_scan_py`.

Thread safety: pure functions; results are immutable. Scans run without the GIL, so the caller must
not change the data meanwhile; a scan of changing bytes stays within them.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc

from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._fixed cimport load64
from holdfast.wal._payload cimport (
    OP_DELETE, OP_KEY_BYTES_MAX, OP_MERGE, OP_PUT, OP_RANGE_DELETE, OP_VALUE_BYTES_MAX,
    PAYLOAD_BAD_COUNT,
    PAYLOAD_BAD_KEYSPACE, PAYLOAD_BAD_KEY_SIZE, PAYLOAD_BAD_KIND, PAYLOAD_BAD_VALUE_SIZE,
    PAYLOAD_CUT, PAYLOAD_EMPTY_BATCH, PAYLOAD_END, PAYLOAD_LONG_KEY, PAYLOAD_LONG_KEYSPACE,
    PAYLOAD_LONG_VALUE, PAYLOAD_OPERATION, PayloadWalk, payload_next, payload_start,
)
from holdfast.wal._record cimport (
    END_BYTES, HEADER_BYTES, Header, MAGIC, MAX_LSN, MAX_SEQ, TYPE_BATCHES, TYPE_END, header_get,
    header_well_formed,
)

from holdfast.base import (
    DELETE, KEY_BYTES_MAX, MERGE, PUT, RANGE_DELETE, SEQ_MAX, VALUE_BYTES_MAX, require,
)
from holdfast.wal import format as layout
from holdfast.wal.format import Record, StopReason

require(
    (OP_DELETE, OP_PUT, OP_RANGE_DELETE, OP_MERGE, OP_KEY_BYTES_MAX, OP_VALUE_BYTES_MAX)
    == (DELETE, PUT, RANGE_DELETE, MERGE, KEY_BYTES_MAX, VALUE_BYTES_MAX),
    "the compiled operations are those of base",
)
require(
    (HEADER_BYTES, TYPE_BATCHES, TYPE_END, END_BYTES, MAGIC, MAX_LSN, MAX_SEQ)
    == (layout.RECORD_HEADER_BYTES, layout.RecordType.BATCHES, layout.RecordType.END,
        layout.END_PAYLOAD_BYTES, layout.RECORD_MAGIC, layout.LSN_MAX, SEQ_MAX),
    "the compiled record header is that of format",
)

# The numbers of StopReason.
cdef enum:
    GO_ON = 0
    END_OF_SEGMENT = 1
    END_OF_DATA = 2
    END_OF_ZEROS = 3
    BAD_HEADER = 4
    BAD_PAYLOAD = 5
    WRONG_SEGMENT = 6
    BROKEN_CHAIN = 7
    MALFORMED = 8
    NO_MEMORY = -1

require(
    [END_OF_SEGMENT, END_OF_DATA, END_OF_ZEROS, BAD_HEADER, BAD_PAYLOAD, WRONG_SEGMENT,
     BROKEN_CHAIN, MALFORMED] == list(StopReason),
    "the compiled stop reasons are those of format",
)

_REASONS = {
    PAYLOAD_BAD_COUNT: "a batch's operation count cannot be read",
    PAYLOAD_EMPTY_BATCH: "a batch without operations",
    PAYLOAD_CUT: "the payload ends within a batch",
    PAYLOAD_BAD_KIND: "an unknown kind",
    PAYLOAD_BAD_KEYSPACE: "a keyspace id cannot be read",
    PAYLOAD_LONG_KEYSPACE: "a keyspace id of more than 32 bits",
    PAYLOAD_BAD_KEY_SIZE: "the size of a key cannot be read",
    PAYLOAD_LONG_KEY: "a key too long",
    PAYLOAD_BAD_VALUE_SIZE: "the size of a value cannot be read",
    PAYLOAD_LONG_VALUE: "a value too long",
}


cdef class ScanResult:
    """What a scan found. Minima and maxima are 0 when there is no record."""

    def __cinit__(self):
        self.items = NULL
        self.record_count = 0
        self.capacity = 0
        self.stop_code = END_OF_DATA

    def __dealloc__(self):
        free(self.items)

    @property
    def stop(self):
        return StopReason(self.stop_code)

    @property
    def records(self):
        """A new list of the records, in the order of their offsets."""
        cdef list found = []
        for index in range(self.record_count):
            found.append(self.record(index))
        return found

    def record(self, index):
        """Return record number `index`, from 0. Raises: IndexError."""
        cdef ScanRecord* item
        cdef Py_ssize_t place = index
        if place < 0 or place >= self.record_count:
            raise IndexError(f"there is no record {index}; there are {self.record_count}")
        # Safety: place < record_count, the number of items that `add` wrote.
        item = &self.items[place]
        # What Record(...) does, without a call of Python code for each record.
        return tuple.__new__(Record, (
            item.lsn, item.seq_first, item.op_count, item.type, item.payload_offset,
            item.payload_size, item.durable_lsn, item.manifest_edit, item.header_checksum,
        ))

    cdef int add(self, const ScanRecord* record) noexcept nogil:
        """Append a record. Return 0, or NO_MEMORY."""
        cdef Py_ssize_t capacity
        cdef ScanRecord* items
        if self.record_count == self.capacity:
            # At most one record for each 8 bytes of data in memory: the product cannot overflow.
            capacity = self.capacity * 2 if self.capacity else 64
            items = <ScanRecord*>realloc(self.items, <size_t>capacity * sizeof(ScanRecord))
            if items == NULL:
                return NO_MEMORY
            self.items = items
            self.capacity = capacity
        if self.record_count == 0 or record.durable_lsn < self.durable_lsn_min:
            self.durable_lsn_min = record.durable_lsn
        if self.record_count == 0:
            self.seq_first = record.seq_first
        if record.durable_lsn > self.durable_lsn_max:
            self.durable_lsn_max = record.durable_lsn
        if record.manifest_edit > self.manifest_edit_max:
            self.manifest_edit_max = record.manifest_edit
        self.items[self.record_count] = record[0]
        self.record_count += 1
        return 0


cdef inline bint all_zero(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if data[i]:
            return False
    return True


cdef inline ScanRecord record_of(const Header* header, Py_ssize_t payload_offset) noexcept nogil:
    cdef ScanRecord record
    record.lsn = header.lsn
    record.seq_first = header.seq_first
    record.durable_lsn = header.durable_lsn
    record.manifest_edit = header.manifest_edit
    record.header_checksum = header.checksum
    record.payload_offset = payload_offset
    record.payload_size = header.payload_size
    record.op_count = header.op_count
    record.type = header.type
    return record


cdef int payload_status(const unsigned char* data, Py_ssize_t size, uint64_t* op_count,
                        const unsigned char** bad) noexcept nogil:
    """Walk a payload and count its operations. Return PAYLOAD_END, or a negative status with the
    place in `bad`.
    """
    cdef PayloadWalk walk
    cdef int status
    op_count[0] = 0
    payload_start(&walk, data, size)
    while True:
        status = payload_next(&walk)
        if status != PAYLOAD_OPERATION:
            bad[0] = walk.at
            return status
        op_count[0] += 1


cdef int scan_one(const unsigned char* data, Py_ssize_t size, uint64_t segment, uint64_t salt,
                  Py_ssize_t alignment, ScanResult result) noexcept nogil:
    """Add the record at the result's end and move on. Return GO_ON, a stop reason, or NO_MEMORY.

    Requires: HEADER_BYTES readable bytes there.
    """
    cdef Header header
    cdef ScanRecord record
    cdef Py_ssize_t offset = result.end_offset
    cdef Py_ssize_t payload_offset = offset + HEADER_BYTES
    cdef Py_ssize_t taken
    cdef const unsigned char* payload = data + payload_offset
    cdef const unsigned char* bad
    cdef uint64_t op_count
    cdef uint64_t next_segment = 0
    if not header_get(data + offset, &header, salt):
        return END_OF_ZEROS if all_zero(data + offset, HEADER_BYTES) else BAD_HEADER
    if header.segment != segment:
        return WRONG_SEGMENT
    if not header_well_formed(&header) or (result.seq_next and header.seq_first < result.seq_next):
        return MALFORMED
    if result.lsn_next and (header.lsn != result.lsn_next or header.chain != result.chain_next):
        return BROKEN_CHAIN
    # Safety: a payload size is below 2**32 and offset within the data, so no sum here overflows;
    # payload and padding are read only after they were found to lie within the data.
    taken = (HEADER_BYTES + <Py_ssize_t>header.payload_size + alignment - 1) & ~(alignment - 1)
    if taken > size - offset:
        return MALFORMED
    if xxh64(payload, header.payload_size, salt) != header.payload_checksum:
        return BAD_PAYLOAD
    if not all_zero(payload + header.payload_size, taken - HEADER_BYTES - header.payload_size):
        return BAD_PAYLOAD
    if header.type == TYPE_END:
        # Safety: header_well_formed holds an END record's payload to END_BYTES.
        next_segment = load64(payload)
        if next_segment <= segment:
            return MALFORMED
    else:
        if payload_status(payload, header.payload_size, &op_count, &bad) != PAYLOAD_END:
            return MALFORMED
        if op_count != header.op_count:
            return MALFORMED
    record = record_of(&header, payload_offset)
    if result.add(&record) < 0:
        return NO_MEMORY
    result.next_segment = next_segment
    result.end_offset = offset + taken
    result.lsn_next = header.lsn + 1
    result.chain_next = header.checksum
    result.seq_next = header.seq_first + header.op_count
    return END_OF_SEGMENT if header.type == TYPE_END else GO_ON


cdef int scan_all(const unsigned char* data, Py_ssize_t size, uint64_t segment, uint64_t salt,
                  Py_ssize_t alignment, ScanResult result) noexcept nogil:
    cdef int stop
    while result.end_offset <= size - HEADER_BYTES:
        stop = scan_one(data, size, segment, salt, alignment, result)
        if stop != GO_ON:
            return stop
    return END_OF_DATA


cdef int find_all(const unsigned char* data, Py_ssize_t size, Py_ssize_t offset, uint64_t segment,
                  uint64_t salt, Py_ssize_t alignment, uint64_t lsn,
                  ScanResult result) noexcept nogil:
    cdef Header header
    cdef ScanRecord record
    while offset <= size - HEADER_BYTES:
        if (header_get(data + offset, &header, salt) and header.segment == segment
                and header.lsn > lsn and header_well_formed(&header)):
            record = record_of(&header, offset + HEADER_BYTES)
            if result.add(&record) < 0:
                return NO_MEMORY
        offset += alignment
    return END_OF_DATA


cdef Py_ssize_t check_place(object offset, object alignment) except -1:
    if not layout.is_alignment(alignment):
        raise ValueError(f"the alignment is {alignment}; it must be a power of two from 8 to 4096")
    if offset < 0 or offset % alignment:
        raise ValueError(f"the offset is {offset}; it must be a multiple of {alignment}")
    return offset


def scan_records(data, offset, segment, salt, lsn, chain, alignment):
    """Read records from `offset` of `data` on until something is not the next record.

    `data` is a whole segment and `offset` a multiple of `alignment`. `lsn` and `chain` are what the
    first record must have; with `lsn` 0 they are taken from it. Never raises for anything that
    `data` holds: see `StopReason`. Raises: ValueError for a bad offset or alignment; OverflowError
    for a number that is not an unsigned 64-bit integer.
    """
    cdef ScanResult result = ScanResult.__new__(ScanResult)
    cdef uint64_t segment_number = segment
    cdef uint64_t seed = salt
    cdef Py_ssize_t unit
    cdef Py_buffer view
    cdef int stop
    result.lsn_next = lsn
    result.chain_next = chain
    result.end_offset = check_place(offset, alignment)
    unit = alignment
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            stop = scan_all(
                <const unsigned char*>view.buf, view.len, segment_number, seed, unit, result
            )
    finally:
        PyBuffer_Release(&view)
    if stop < 0:
        raise MemoryError()
    result.stop_code = stop
    return result


def find_later_records(data, offset, segment, salt, alignment, lsn=0):
    """Find every record header of this segment from `offset` on that is right and has an ordinal
    above `lsn`.

    For evidence behind a bad place: payloads are not looked at, and nothing is required of the
    order. Raises: as `scan_records`.
    """
    cdef ScanResult result = ScanResult.__new__(ScanResult)
    cdef uint64_t segment_number = segment
    cdef uint64_t seed = salt
    cdef uint64_t above = lsn
    cdef Py_ssize_t start = check_place(offset, alignment)
    cdef Py_ssize_t unit = alignment
    cdef Py_buffer view
    cdef int stop
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        result.end_offset = view.len
        with nogil:
            stop = find_all(
                <const unsigned char*>view.buf, view.len, start, segment_number, seed, unit, above,
                result,
            )
    finally:
        PyBuffer_Release(&view)
    if stop < 0:
        raise MemoryError()
    return result


cdef inline bytes value_of(const PayloadWalk* walk):
    if walk.value == NULL:
        return None
    return PyBytes_FromStringAndSize(<const char*>walk.value, walk.value_size)


cdef object payload_error(int status, Py_ssize_t offset):
    return ValueError(f"{_REASONS[status]} at byte {offset}")


def check_payload(data, offset, size, op_count):
    """Check the structure of the batches in `size` bytes from `offset` of `data`, and that they add
    up.

    Raises: ValueError that names the offset of what is wrong.
    """
    cdef Py_buffer view
    cdef Py_ssize_t start, count
    cdef const unsigned char* bad
    cdef uint64_t found
    cdef int status
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        check_range(view.len, offset, size)
        start = offset
        count = size
        # Safety: check_range found the payload within the data.
        status = payload_status(<const unsigned char*>view.buf + start, count, &found, &bad)
        if status < 0:
            raise payload_error(status, bad - <const unsigned char*>view.buf)
        if found != op_count:
            raise ValueError(f"the operations do not add up at byte {start + count}")
    finally:
        PyBuffer_Release(&view)


def decode_payload(data, offset, size):
    """Return the batches in `size` bytes from `offset` of `data`. Raises: ValueError as
    `check_payload`.
    """
    cdef Py_buffer view
    cdef Py_ssize_t start, count
    cdef PayloadWalk walk
    cdef int status
    cdef list batches = []
    cdef list batch = None
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        check_range(view.len, offset, size)
        start = offset
        count = size
        # Safety: check_range found the payload within the data.
        payload_start(&walk, <const unsigned char*>view.buf + start, count)
        while True:
            status = payload_next(&walk)
            if status == PAYLOAD_END:
                return batches
            if status < 0:
                raise payload_error(status, walk.at - <const unsigned char*>view.buf)
            if walk.first:
                batch = []
                batches.append(batch)
            batch.append((
                walk.kind,
                walk.keyspace,
                PyBytes_FromStringAndSize(<const char*>walk.key, walk.key_size),
                value_of(&walk),
            ))
    finally:
        PyBuffer_Release(&view)


cdef int check_range(Py_ssize_t length, object offset, object size) except -1:
    if not (0 <= offset <= length and 0 <= size <= length - offset):
        raise ValueError("the payload does not lie within the data")
    return 0
