"""Encoding of operations into batches and of batches into a record: the compiled twin of
`_buffer_py`.

Thread safety: none; the owner of a batch or buffer serialises calls. Large payloads are hashed
without the GIL, and the buffer counts as lent meanwhile, so that a caller who breaks the rule gets
BufferError and not torn bytes.
"""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._varint cimport varint_put, varint_size
from holdfast.wal._payload cimport (
    OP_DELETE, OP_MERGE, OP_KEY_BYTES_MAX, OP_PUT, OP_RANGE_DELETE, OP_VALUE_BYTES_MAX,
    PAYLOAD_OPERATION, PayloadWalk, operation_put, operation_size, payload_next, payload_start,
)
from holdfast.wal._record cimport HEADER_BYTES, Header, TYPE_BATCHES, header_put, header_well_formed

from holdfast.base import BATCH_BYTES_MAX, LimitError, check_key, check_value

cdef enum:
    CAPACITY_MIN = 256
    CAPACITY_KEPT = 1024 * 1024
    RELEASE_BYTES = 2 << 20          # hashing less takes less time than getting the lock back
    ALIGNMENT_MIN = 8
    ALIGNMENT_MAX = 4096
    COUNT_BYTES_MAX = 10
    # A row counts as its bytes and these; so many are added in about a millisecond at most.
    TURN_BYTES = 1 << 20
    TURN_ROW_BYTES = 256

cdef Py_ssize_t LIMIT = BATCH_BYTES_MAX
cdef unsigned char NOTHING = 0


cdef class Storage:
    """Growable memory that may be lent out as a read-only buffer; while it is, it cannot change."""

    def __cinit__(self):
        self.data = NULL
        self.capacity = 0
        self.lent = 0
        self.lent_size = 0

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.lent_size, True, flags)
        self.lent += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        self.lent -= 1

    cdef int grow(self, Py_ssize_t used, Py_ssize_t more) except -1:
        """Make room for `more` bytes behind `used`. Requires: both below 2**62, so that the sum
        cannot overflow.
        """
        cdef Py_ssize_t capacity
        cdef unsigned char* data
        if more <= self.capacity - used:
            return 0
        capacity = self.capacity * 2
        if capacity < CAPACITY_MIN:
            capacity = CAPACITY_MIN
        if capacity < used + more:
            capacity = used + more
        data = <unsigned char*>realloc(self.data, <size_t>capacity)
        if data == NULL:
            raise MemoryError()
        self.data = data
        self.capacity = capacity
        return 0

    cdef int own(self) except -1:
        """Raise while a view is alive."""
        if self.lent:
            raise BufferError("Existing exports of data: object cannot be re-sized")
        return 0

    cdef int trim(self) except -1:
        """Give back memory beyond what is worth keeping for the next use."""
        if self.capacity > CAPACITY_KEPT:
            free(self.data)
            self.data = NULL
            self.capacity = 0
        return 0


cdef inline int check_operation(int kind, Py_ssize_t key_size, Py_ssize_t value_size,
                                bint has_value) except -1:
    """Raise unless the encoder can take it; a value or key that Python code passed was already
    checked.
    """
    if kind < 0 or kind > OP_MERGE:
        raise ValueError(f"there is no kind {kind}")
    if key_size < 0 or key_size > OP_KEY_BYTES_MAX:
        raise LimitError(f"the key has {key_size} bytes; the limit is {OP_KEY_BYTES_MAX}")
    if kind == OP_DELETE:
        if has_value:
            raise ValueError("a deletion has no value")
    elif (value_size < 0
          or value_size > (OP_KEY_BYTES_MAX if kind == OP_RANGE_DELETE else OP_VALUE_BYTES_MAX)):
        raise LimitError(f"the value or stop key has {value_size} bytes, which is over its limit")
    return 0


@cython.final
cdef class _Arguments:
    """An operation as Python code passes it, checked in the order in which the plain twin does."""
    cdef int kind
    cdef uint32_t keyspace
    cdef bytes key
    cdef bytes value

    cdef const unsigned char* key_data(self) noexcept:
        return <const unsigned char*>PyBytes_AS_STRING(self.key)

    cdef Py_ssize_t key_size(self) noexcept:
        return PyBytes_GET_SIZE(self.key)

    cdef const unsigned char* value_data(self) noexcept:
        if self.value is None:
            return NULL
        return <const unsigned char*>PyBytes_AS_STRING(self.value)

    cdef Py_ssize_t value_size(self) noexcept:
        return 0 if self.value is None else PyBytes_GET_SIZE(self.value)


cdef uint32_t keyspace_of(object keyspace) except? 0xFFFFFFFF:
    if not 0 <= keyspace <= 0xFFFFFFFF:
        raise LimitError(f"the keyspace id is {keyspace}; it must fit 32 bits")
    return keyspace


cdef _Arguments check_arguments(object kind, object keyspace, object key, object value):
    cdef _Arguments result = _Arguments.__new__(_Arguments)
    if kind not in (OP_DELETE, OP_PUT, OP_RANGE_DELETE, OP_MERGE):
        raise ValueError(f"there is no kind {kind}")
    result.kind = kind
    result.keyspace = keyspace_of(keyspace)
    result.key = check_key(key)
    result.value = None
    if result.kind == OP_DELETE:
        if value is not None:
            raise ValueError("a deletion has no value")
    elif result.kind == OP_RANGE_DELETE:
        result.value = check_key(value)
    else:
        result.value = check_value(value)
    return result


cdef Py_ssize_t check_bytes_max(object bytes_max) except -1:
    if not 0 < bytes_max <= BATCH_BYTES_MAX:
        raise LimitError(f"the limit is {bytes_max}; it must lie between 1 and {BATCH_BYTES_MAX}")
    return bytes_max


cdef inline Py_ssize_t batch_bytes(uint64_t op_count, Py_ssize_t used) noexcept:
    return varint_size(op_count) + used if op_count else 0


cdef inline bytes value_of(const PayloadWalk* walk):
    if walk.value == NULL:
        return None
    return PyBytes_FromStringAndSize(<const char*>walk.value, walk.value_size)


cdef list operations_of(const unsigned char* data, Py_ssize_t size, uint64_t left):
    """Return the operations of our own encoding; with `left` 0, `data` starts with a batch's count.
    """
    cdef PayloadWalk walk
    cdef list result = []
    payload_start(&walk, data, size)
    walk.left = left
    while payload_next(&walk) == PAYLOAD_OPERATION:
        result.append((
            walk.kind,
            walk.keyspace,
            PyBytes_FromStringAndSize(<const char*>walk.key, walk.key_size),
            value_of(&walk),
        ))
    return result


cdef inline int put_pair(WriteBatch batch, uint32_t number, object key, object value) except -1:
    cdef bytes key_bytes, value_bytes
    key_bytes = key if type(key) is bytes else check_key(key)
    if PyBytes_GET_SIZE(key_bytes) > OP_KEY_BYTES_MAX:
        check_key(key_bytes)
    value_bytes = value if type(value) is bytes else check_value(value)
    if PyBytes_GET_SIZE(value_bytes) > OP_VALUE_BYTES_MAX:
        check_value(value_bytes)
    batch.c_add(OP_PUT, number,
                <const unsigned char*>PyBytes_AS_STRING(key_bytes),
                PyBytes_GET_SIZE(key_bytes),
                <const unsigned char*>PyBytes_AS_STRING(value_bytes),
                PyBytes_GET_SIZE(value_bytes))
    return 0


cdef class WriteBatch:
    """The encoded operations of one transaction, over any number of keyspaces.

    Several operations have at most `bytes_max` together; one by itself always fits. One that does
    not raises LimitError and leaves the batch as it was.
    """

    def __cinit__(self, bytes_max=BATCH_BYTES_MAX):
        self.bytes_max = check_bytes_max(bytes_max)
        self.storage = Storage.__new__(Storage)
        self.used = 0
        self.op_count = 0

    @property
    def size(self):
        """Bytes of the encoded batch; 0 when it has no operation."""
        return batch_bytes(self.op_count, self.used)

    cdef int c_add(self, int kind, uint32_t keyspace, const unsigned char* key, Py_ssize_t key_size,
                   const unsigned char* value, Py_ssize_t value_size) except -1:
        cdef Py_ssize_t more, size
        check_operation(kind, key_size, value_size, value != NULL)
        more = operation_size(kind, keyspace, key_size, value_size)
        size = batch_bytes(self.op_count + 1, self.used + more)
        if self.op_count and size > self.bytes_max:
            raise LimitError(f"the batch would have {size} bytes; the limit is {self.bytes_max}")
        self.storage.grow(self.used, more)
        # Safety: grow made room for exactly the size that operation_put writes.
        operation_put(
            self.storage.data + self.used, kind, keyspace, key, key_size, value, value_size
        )
        self.used += more
        self.op_count += 1
        return 0

    cdef const unsigned char* operations_data(self) noexcept:
        return self.storage.data if self.storage.data != NULL else &NOTHING

    def put(self, keyspace, key, value):
        """Add: the key now has this value. Raises: TypeError, LimitError."""
        put_pair(self, keyspace_of(keyspace), key, value)

    cdef int c_add_batch(self, WriteBatch other) except -1:
        cdef uint64_t op_count = self.op_count + other.op_count
        cdef Py_ssize_t size = batch_bytes(op_count, self.used + other.used)
        if op_count > 1 and size > self.bytes_max:
            raise LimitError(f"the batch would have {size} bytes; the limit is {self.bytes_max}")
        if other.used:
            self.storage.grow(self.used, other.used)
            # Safety: grow made room for exactly so many bytes. The owners of both serialise calls.
            if other.used < RELEASE_BYTES:
                memcpy(self.storage.data + self.used, other.storage.data, <size_t>other.used)
            else:
                with nogil:
                    memcpy(self.storage.data + self.used, other.storage.data, <size_t>other.used)
        self.used += other.used
        self.op_count = op_count
        return 0

    def put_many(self, keyspace, pairs):
        """Add a put of each pair of key and value. Raises: as `put`, and what the iterator of
        `pairs` raises, with nothing added.
        """
        self.c_put_many(keyspace_of(keyspace), pairs)

    cdef int c_put_many(self, uint32_t number, pairs) except -1:
        cdef Py_ssize_t left = TURN_BYTES
        cdef Py_ssize_t used = self.used, used_before
        cdef uint64_t op_count = self.op_count
        try:
            for key, value in pairs:
                if left < 0:
                    # Nothing here runs Python code: others, and signal handlers, get their turn.
                    left = TURN_BYTES
                    PyErr_CheckSignals()
                    with nogil:
                        pass
                used_before = self.used
                put_pair(self, number, key, value)
                left -= self.used - used_before + TURN_ROW_BYTES
        except BaseException:
            self.rollback((used, op_count))
            raise
        return 0

    def delete(self, keyspace, key):
        """Add: the key is now absent. Raises: TypeError, LimitError."""
        cdef _Arguments given = check_arguments(OP_DELETE, keyspace, key, None)
        self.c_add(given.kind, given.keyspace, given.key_data(), given.key_size(), NULL, 0)

    def merge(self, keyspace, key, value):
        """Add: the key has one more operand, as `merge.Merges.value_of` makes it. Raises:
        TypeError, LimitError.
        """
        cdef _Arguments given = check_arguments(OP_MERGE, keyspace, key, value)
        self.c_add(given.kind, given.keyspace, given.key_data(), given.key_size(),
                   given.value_data(), given.value_size())

    def delete_range(self, keyspace, start, stop):
        """Add: every key from `start` up to `stop`, without it, is now absent. Raises: TypeError,
        LimitError.
        """
        cdef _Arguments given = check_arguments(OP_RANGE_DELETE, keyspace, start, stop)
        self.c_add(given.kind, given.keyspace, given.key_data(), given.key_size(),
                   given.value_data(), given.value_size())

    def clear(self):
        """Forget all operations."""
        self.storage.trim()
        self.used = 0
        self.op_count = 0

    def mark(self):
        """Return the place to which `rollback` can cut the batch back."""
        return self.used, self.op_count

    def rollback(self, mark):
        """Forget the operations that were added since `mark`.

        Raises: ValueError for a mark from beyond the end.
        """
        size, op_count = mark
        if not (0 <= size <= self.used and 0 <= op_count <= self.op_count):
            raise ValueError("the mark does not lie within the batch")
        self.used = size
        self.op_count = op_count

    def payload(self):
        """Return the encoded batch; nothing when it has no operation."""
        cdef bytes result
        cdef unsigned char* target
        if self.op_count == 0:
            return b""
        result = PyBytes_FromStringAndSize(NULL, batch_bytes(self.op_count, self.used))
        # Safety: batch_bytes is the size of the count and of the operations.
        target = varint_put(<unsigned char*>PyBytes_AS_STRING(result), self.op_count)
        memcpy(target, self.storage.data, <size_t>self.used)
        return result

    def operations(self):
        """Return the operations in the order they were added."""
        return iter(operations_of(self.operations_data(), self.used, self.op_count))


cdef class RecordBuffer:
    """The payload of the record being collected, with room for its header in front.

    While a view that `seal` gave is alive, every change raises BufferError. What does not fit
    raises LimitError and leaves the buffer as it was.
    """

    def __cinit__(self, bytes_max=BATCH_BYTES_MAX):
        self.bytes_max = check_bytes_max(bytes_max)
        self.storage = Storage.__new__(Storage)
        self.size = 0
        self.op_count = 0

    cdef int c_append_op(self, int kind, uint32_t keyspace,
                         const unsigned char* key, Py_ssize_t key_size,
                         const unsigned char* value, Py_ssize_t value_size) except -1:
        cdef Py_ssize_t more
        cdef unsigned char* target
        check_operation(kind, key_size, value_size, value != NULL)
        more = 1 + operation_size(kind, keyspace, key_size, value_size)
        target = self.room(more)
        # Safety: room made room for the count of one byte and the operation.
        target[0] = 1
        operation_put(target + 1, kind, keyspace, key, key_size, value, value_size)
        self.size += more
        self.op_count += 1
        return 0

    cdef int c_append_batch(self, WriteBatch batch) except -1:
        cdef Py_ssize_t more = batch_bytes(batch.op_count, batch.used)
        cdef unsigned char* target
        if more == 0:
            return 0
        target = self.room(more)
        # Safety: room made room for the count and the operations.
        target = varint_put(target, batch.op_count)
        memcpy(target, batch.storage.data, <size_t>batch.used)
        self.size += more
        self.op_count += batch.op_count
        return 0

    cdef unsigned char* room(self, Py_ssize_t more) except NULL:
        """Return where `more` bytes may be written; nothing is changed when they do not fit."""
        if more > self.bytes_max - self.size:
            raise LimitError(
                f"the record would have {self.size + more} bytes; the limit is {self.bytes_max}"
            )
        self.storage.own()
        self.storage.grow(HEADER_BYTES + self.size, more)
        return self.storage.data + HEADER_BYTES + self.size

    cdef const unsigned char* payload_data(self) noexcept:
        return self.storage.data + HEADER_BYTES if self.storage.data != NULL else &NOTHING

    def append_op(self, kind, keyspace, key, value=None):
        """Append a batch of exactly one operation.

        Raises: TypeError or LimitError for a bad key or value; ValueError for a bad kind.
        """
        cdef _Arguments given = check_arguments(kind, keyspace, key, value)
        self.c_append_op(given.kind, given.keyspace, given.key_data(), given.key_size(),
                         given.value_data(), given.value_size())

    def append_batch(self, batch):
        """Append a copy of a batch; nothing when it has no operation."""
        if not isinstance(batch, WriteBatch):
            raise TypeError(f"a batch is a WriteBatch, not {type(batch).__name__}")
        self.c_append_batch(batch)

    def mark(self):
        """Return the place to which `rollback` can cut the buffer back."""
        return self.size, self.op_count

    def rollback(self, mark):
        """Forget what was appended since `mark`. Raises: ValueError for a mark from beyond the end.
        """
        size, op_count = mark
        if not (0 <= size <= self.size and 0 <= op_count <= self.op_count):
            raise ValueError("the mark does not lie within the buffer")
        self.storage.own()
        self.size = size
        self.op_count = op_count

    def seal(self, segment, salt, lsn, seq_first, durable_lsn, manifest_edit, chain, alignment=8):
        """Return the whole record, padded to `alignment`, and the checksum that the next record
        chains to.

        The view is of this buffer's own memory and must be released before the buffer changes
        again. Sealing changes nothing that was collected. Raises: ValueError when there is nothing
        to seal or no reader would accept the header; OverflowError for a number that is not an
        unsigned 64-bit integer.
        """
        cdef Header header
        cdef uint64_t seed = salt
        cdef Py_ssize_t size = self.size
        cdef Py_ssize_t total, unit
        cdef const unsigned char* payload
        header.segment = segment
        header.lsn = lsn
        header.seq_first = seq_first
        header.durable_lsn = durable_lsn
        header.manifest_edit = manifest_edit
        header.chain = chain
        if not ALIGNMENT_MIN <= alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
            raise ValueError(
                f"the alignment is {alignment}; it must be a power of two from 8 to 4096"
            )
        if self.op_count == 0:
            raise ValueError("a record has at least one operation")
        self.storage.own()
        # The limits of the buffer keep both below 2**31.
        header.payload_size = <uint32_t>size
        header.op_count = <uint32_t>self.op_count
        header.type = TYPE_BATCHES
        if not header_well_formed(&header):
            raise ValueError(
                f"no record has lsn {lsn}, durable lsn {durable_lsn}, sequence number {seq_first}"
            )
        unit = alignment
        total = (HEADER_BYTES + size + unit - 1) & ~(unit - 1)
        self.storage.grow(HEADER_BYTES + size, total - HEADER_BYTES - size)
        payload = self.storage.data + HEADER_BYTES
        if size < RELEASE_BYTES:
            header.payload_checksum = xxh64(payload, size, seed)
        else:
            self.storage.lent += 1
            with nogil:
                header.payload_checksum = xxh64(payload, size, seed)
            self.storage.lent -= 1
        # Safety: the memory has room for `total` bytes, header and padding included.
        header_put(self.storage.data, &header, seed)
        memset(self.storage.data + HEADER_BYTES + size, 0, <size_t>(total - HEADER_BYTES - size))
        self.storage.lent_size = total
        return memoryview(self.storage), header.checksum

    def clear(self):
        """Forget everything collected."""
        self.storage.own()
        self.storage.trim()
        self.size = 0
        self.op_count = 0

    def payload(self):
        """Return a copy of the payload."""
        return PyBytes_FromStringAndSize(<const char*>self.payload_data(), self.size)

    def operations(self):
        """Return the operations of all batches, in order."""
        return iter(operations_of(self.payload_data(), self.size, 0))
