"""Inline varint helpers shared by kernels (LEB128, at most 10 bytes, minimal encodings only)."""
from libc.stdint cimport uint64_t


cdef inline Py_ssize_t varint_size(uint64_t value) noexcept nogil:
    cdef Py_ssize_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline unsigned char* varint_put(unsigned char* target, uint64_t value) noexcept nogil:
    """Write `value`, return the position behind it. Requires: room for varint_size(value)."""
    while value >= 0x80:
        target[0] = <unsigned char>(value | 0x80)
        value >>= 7
        target += 1
    target[0] = <unsigned char>value
    return target + 1


cdef inline const unsigned char* varint_get(const unsigned char* source,
                                            const unsigned char* end,
                                            uint64_t* value) noexcept nogil:
    """Read one varint from [source, end) and return the position behind it.

    NULL when it is cut, overlong or not minimal.
    """
    cdef uint64_t result = 0
    cdef int shift = 0
    cdef unsigned char byte
    while source < end:
        byte = source[0]
        source += 1
        if shift == 63 and byte > 1:
            return NULL
        result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift > 0:
                return NULL
            value[0] = result
            return source
        shift += 7
        if shift > 63:
            return NULL
    return NULL
