"""Inline reading and writing of operations, shared by the kernels of the log and by those that
replay it.

The grammar is that of docs/format/wal.md: a payload is batches, a batch is a varint count and that
many operations.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from holdfast.codec._varint cimport varint_get, varint_put, varint_size

# Part of the file format. `_scan_c` checks at import that they equal what `base` says.
cdef enum:
    OP_DELETE = 0
    OP_PUT = 1
    OP_RANGE_DELETE = 2
    OP_MERGE = 3
    OP_KEY_BYTES_MAX = 65536
    OP_VALUE_BYTES_MAX = 1073741824

# What `payload_next` returns.
cdef enum:
    PAYLOAD_END = 0
    PAYLOAD_OPERATION = 1
    PAYLOAD_BAD_COUNT = -1
    PAYLOAD_EMPTY_BATCH = -2
    PAYLOAD_CUT = -3
    PAYLOAD_BAD_KIND = -4
    PAYLOAD_BAD_KEYSPACE = -5
    PAYLOAD_LONG_KEYSPACE = -6
    PAYLOAD_BAD_KEY_SIZE = -7
    PAYLOAD_LONG_KEY = -8
    PAYLOAD_BAD_VALUE_SIZE = -9
    PAYLOAD_LONG_VALUE = -10


cdef struct PayloadWalk:
    const unsigned char* at           # the next byte to read; after an error where the field starts
    const unsigned char* end
    uint64_t left                     # operations left in the current batch
    bint first                        # whether the operation last read is the first of its batch
    # The operation last read. Pointers are into the payload; value is NULL for a deletion.
    int kind
    uint32_t keyspace
    const unsigned char* key
    Py_ssize_t key_size
    const unsigned char* value
    Py_ssize_t value_size


cdef inline void payload_start(PayloadWalk* walk, const unsigned char* data,
                               Py_ssize_t size) noexcept nogil:
    """Stand before the first operation of a payload."""
    walk.at = data
    walk.end = data + size
    walk.left = 0
    walk.first = False


cdef inline int payload_next(PayloadWalk* walk) noexcept nogil:
    """Read one operation. Return PAYLOAD_OPERATION, PAYLOAD_END, or a negative status with `at` at
    what is wrong.

    Every size is compared with what remains before it is used, so hostile bytes cannot lead
    outside.
    """
    cdef const unsigned char* at
    cdef uint64_t limit, number
    walk.first = walk.left == 0
    if walk.first:
        if walk.at == walk.end:
            return PAYLOAD_END
        at = varint_get(walk.at, walk.end, &number)
        if at == NULL:
            return PAYLOAD_BAD_COUNT
        if number == 0:
            return PAYLOAD_EMPTY_BATCH
        walk.at = at
        walk.left = number
    if walk.at == walk.end:
        return PAYLOAD_CUT
    # Safety: at < end was just checked; every later read goes through varint_get or a compared
    # size.
    walk.kind = walk.at[0]
    if walk.kind > OP_MERGE:
        return PAYLOAD_BAD_KIND
    walk.at += 1
    at = varint_get(walk.at, walk.end, &number)
    if at == NULL:
        return PAYLOAD_BAD_KEYSPACE
    if number > <uint64_t>0xFFFFFFFF:
        return PAYLOAD_LONG_KEYSPACE
    walk.keyspace = <uint32_t>number
    walk.at = at
    at = varint_get(walk.at, walk.end, &number)
    if at == NULL:
        return PAYLOAD_BAD_KEY_SIZE
    if number > OP_KEY_BYTES_MAX or number > <uint64_t>(walk.end - at):
        return PAYLOAD_LONG_KEY
    walk.key = at
    walk.key_size = <Py_ssize_t>number
    walk.at = at + walk.key_size
    if walk.kind == OP_DELETE:
        walk.value = NULL
        walk.value_size = 0
    else:
        at = varint_get(walk.at, walk.end, &number)
        if at == NULL:
            return PAYLOAD_BAD_VALUE_SIZE
        limit = OP_KEY_BYTES_MAX if walk.kind == OP_RANGE_DELETE else OP_VALUE_BYTES_MAX
        if number > limit:
            return PAYLOAD_LONG_VALUE
        if number > <uint64_t>(walk.end - at):
            return PAYLOAD_LONG_VALUE
        walk.value = at
        walk.value_size = <Py_ssize_t>number
        walk.at = at + walk.value_size
    walk.left -= 1
    return PAYLOAD_OPERATION


cdef inline Py_ssize_t operation_size(int kind, uint32_t keyspace, Py_ssize_t key_size,
                                      Py_ssize_t value_size) noexcept nogil:
    """Return the encoded size. Requires: sizes within their limits, so that the sum cannot
    overflow.
    """
    cdef Py_ssize_t size = 1 + varint_size(keyspace) + varint_size(<uint64_t>key_size) + key_size
    if kind != OP_DELETE:
        size += varint_size(<uint64_t>value_size) + value_size
    return size


cdef inline unsigned char* operation_put(unsigned char* target, int kind, uint32_t keyspace,
                                         const unsigned char* key, Py_ssize_t key_size,
                                         const unsigned char* value,
                                         Py_ssize_t value_size) noexcept nogil:
    """Write an operation and return the position behind it. Requires: room for operation_size(...)
    bytes.
    """
    target[0] = <unsigned char>kind
    target = varint_put(target + 1, keyspace)
    target = varint_put(target, <uint64_t>key_size)
    memcpy(target, key, <size_t>key_size)
    target += key_size
    if kind != OP_DELETE:
        target = varint_put(target, <uint64_t>value_size)
        memcpy(target, value, <size_t>value_size)
        target += value_size
    return target
