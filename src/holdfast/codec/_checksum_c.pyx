"""XXH64, the 64-bit checksum of pages, records and footers: the compiled twin of `_checksum_py`.

Thread safety: pure functions. Data of RELEASE_BYTES or more is hashed without the GIL.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint64_t

from holdfast.codec._fixed cimport load32, load64

cdef extern from *:
    """
    #define XXH64_PRIME_1 UINT64_C(0x9E3779B185EBCA87)
    #define XXH64_PRIME_2 UINT64_C(0xC2B2AE3D27D4EB4F)
    #define XXH64_PRIME_3 UINT64_C(0x165667B19E3779F9)
    #define XXH64_PRIME_4 UINT64_C(0x85EBCA77C2B2AE63)
    #define XXH64_PRIME_5 UINT64_C(0x27D4EB2F165667C5)
    """
    const uint64_t PRIME_1 "XXH64_PRIME_1"
    const uint64_t PRIME_2 "XXH64_PRIME_2"
    const uint64_t PRIME_3 "XXH64_PRIME_3"
    const uint64_t PRIME_4 "XXH64_PRIME_4"
    const uint64_t PRIME_5 "XXH64_PRIME_5"

cdef enum:
    RELEASE_BYTES = 256 * 1024


def checksum(data, seed=0):
    """Return the XXH64 of a bytes-like object as an integer below 2**64.

    Raises: TypeError when `data` is not bytes-like; BufferError when it is not contiguous;
    OverflowError when `seed` is not a 64-bit unsigned integer.
    """
    cdef uint64_t start = PyNumber_Index(seed)
    cdef Py_buffer view
    cdef uint64_t result
    if type(data) is bytes and len(<bytes>data) < RELEASE_BYTES:
        return xxh64(<bytes>data, len(<bytes>data), start)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    if view.len < RELEASE_BYTES:
        result = xxh64(<const unsigned char*>view.buf, view.len, start)
    else:
        with nogil:
            result = xxh64(<const unsigned char*>view.buf, view.len, start)
    PyBuffer_Release(&view)
    return result


cdef uint64_t xxh64(const unsigned char* data, Py_ssize_t size, uint64_t seed) noexcept nogil:
    """Return the XXH64 of `size` bytes. Requires: size >= 0; data may be NULL when size is 0."""
    cdef Py_ssize_t left = size
    cdef uint64_t lane_1, lane_2, lane_3, lane_4, state
    # Safety: each loop reads as many bytes as it compares `left` with, then takes them off.
    if left >= 32:
        lane_1 = seed + PRIME_1 + PRIME_2
        lane_2 = seed + PRIME_2
        lane_3 = seed
        lane_4 = seed - PRIME_1
        while left >= 32:
            lane_1 = mix(lane_1, load64(data))
            lane_2 = mix(lane_2, load64(data + 8))
            lane_3 = mix(lane_3, load64(data + 16))
            lane_4 = mix(lane_4, load64(data + 24))
            data += 32
            left -= 32
        state = rotate(lane_1, 1) + rotate(lane_2, 7) + rotate(lane_3, 12) + rotate(lane_4, 18)
        state = fold(fold(fold(fold(state, lane_1), lane_2), lane_3), lane_4)
    else:
        state = seed + PRIME_5
    state += <uint64_t>size
    while left >= 8:
        state = rotate(state ^ mix(0, load64(data)), 27) * PRIME_1 + PRIME_4
        data += 8
        left -= 8
    if left >= 4:
        state = rotate(state ^ load32(data) * PRIME_1, 23) * PRIME_2 + PRIME_3
        data += 4
        left -= 4
    while left > 0:
        state = rotate(state ^ data[0] * PRIME_5, 11) * PRIME_1
        data += 1
        left -= 1
    state = (state ^ (state >> 33)) * PRIME_2
    state = (state ^ (state >> 29)) * PRIME_3
    return state ^ (state >> 32)


cdef inline uint64_t rotate(uint64_t value, int count) noexcept nogil:
    """Rotate left. Requires: 0 < count < 64."""
    return (value << count) | (value >> (64 - count))


cdef inline uint64_t mix(uint64_t lane, uint64_t word) noexcept nogil:
    """One round: take eight bytes into a lane."""
    return rotate(lane + word * PRIME_2, 31) * PRIME_1


cdef inline uint64_t fold(uint64_t state, uint64_t lane) noexcept nogil:
    """Take one of the four lanes into the state."""
    return (state ^ mix(0, lane)) * PRIME_1 + PRIME_4
