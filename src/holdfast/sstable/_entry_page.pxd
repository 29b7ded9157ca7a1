"""Growable buffers, and entry pages that are under construction in them, inline, see
`_builder_c.pyx`.

Thread safety: that of the builder.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from holdfast.codec._fixed cimport load64, store32, store64
from holdfast.codec._varint cimport varint_put, varint_size
from holdfast.env._large cimport large_free, large_resize


cdef extern from "Python.h" nogil:
    const Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    TRAILER_BYTES = 8
    RESTART_BYTES = 4
    BUFFER_KEEP_BYTES = 8 << 20  # an emptied buffer larger than this is given back


# A growable run of bytes. size <= capacity; data is NULL while capacity is 0.
cdef struct Buffer:
    unsigned char* data
    Py_ssize_t size
    Py_ssize_t capacity


# An entry page under construction: its entries end `body`, where they begin at `start`.
cdef struct EntryPage:
    Buffer body
    Py_ssize_t start
    Buffer restarts          # u32 each, as stored
    Py_ssize_t interval
    Py_ssize_t until_restart  # entries until the next restart point, 0 when the next entry is one
    Py_ssize_t count         # entries of this page
    Buffer last              # the last key of this page


cdef inline int buffer_grow(Buffer* buffer, Py_ssize_t more) noexcept nogil:
    """Do what `buffer_reserve` says. Requires: the room is not there."""
    cdef Py_ssize_t capacity
    cdef unsigned char* grown
    if more > PY_SSIZE_T_MAX - buffer.size:
        return -1
    capacity = buffer.size + more
    if buffer.capacity <= PY_SSIZE_T_MAX // 2 and capacity < buffer.capacity * 2:
        capacity = buffer.capacity * 2
    if capacity < 64:
        capacity = 64
    grown = <unsigned char*>large_resize(buffer.data, <size_t>buffer.capacity, <size_t>capacity)
    if grown == NULL:
        return -1
    buffer.data = grown
    buffer.capacity = capacity
    return 0


cdef inline int buffer_reserve(Buffer* buffer, Py_ssize_t more) noexcept nogil:
    """Make room for `more` bytes behind the buffer's size. Return 0, or -1 when there is no memory;
    then nothing changed.
    """
    if more <= buffer.capacity - buffer.size:
        return 0
    return buffer_grow(buffer, more)


cdef inline int buffer_append(Buffer* buffer, const void* data, Py_ssize_t size) noexcept nogil:
    """Return 0, or -1 when there is no memory; then nothing changed."""
    if buffer_reserve(buffer, size) != 0:
        return -1
    # Safety: the room was just made; memcpy of 0 bytes from a null pointer is avoided.
    if size > 0:
        memcpy(buffer.data + buffer.size, data, <size_t>size)
        buffer.size += size
    return 0


cdef inline void buffer_release(Buffer* buffer) noexcept nogil:
    """Give back the memory of a buffer, which may be used again."""
    large_free(buffer.data, <size_t>buffer.capacity)
    memset(buffer, 0, sizeof(Buffer))


cdef inline void buffer_move(Buffer* into, Buffer* source) noexcept nogil:
    """Requires: `into` has no memory. Then it has that of `source`."""
    into[0] = source[0]
    memset(source, 0, sizeof(Buffer))


cdef inline void buffer_clear(Buffer* buffer) noexcept nogil:
    """Empty a buffer, and give back the memory of a large one."""
    buffer.size = 0
    if buffer.capacity > BUFFER_KEEP_BYTES:
        buffer_release(buffer)


cdef inline Py_ssize_t common_prefix(const unsigned char* a, Py_ssize_t a_size,
                                     const unsigned char* b, Py_ssize_t b_size) noexcept nogil:
    cdef Py_ssize_t size = a_size if a_size < b_size else b_size
    cdef Py_ssize_t shared = 0
    # Safety: both have `size` bytes, and every access ends at or before it.
    while 8 <= size - shared and load64(a + shared) == load64(b + shared):
        shared += 8
    while shared < size and a[shared] == b[shared]:
        shared += 1
    return shared


cdef inline Py_ssize_t page_size(const EntryPage* page) noexcept nogil:
    """Return the bytes of the body if it were closed now; 0 when it is empty."""
    return page.body.size - page.start + page.restarts.size + RESTART_BYTES if page.count > 0 else 0


cdef inline Py_ssize_t entry_size(Py_ssize_t shared, Py_ssize_t key_size,
                                  Py_ssize_t value_size) noexcept nogil:
    """Return the bytes of an entry. Requires: key and value are within their limits, so that
    nothing overflows.
    """
    cdef Py_ssize_t unshared = key_size - shared
    return (varint_size(<uint64_t>shared) + varint_size(<uint64_t>unshared)
            + varint_size(<uint64_t>value_size) + TRAILER_BYTES + unshared + value_size)


cdef inline int page_append(EntryPage* page, Py_ssize_t shared, const unsigned char* key,
                            Py_ssize_t key_size, uint64_t trailer, const unsigned char* value,
                            Py_ssize_t value_size) noexcept nogil:
    """Append an entry whose key has its first `shared` bytes in common with the last one; at a
    restart point they are not used.

    Return 0, or -1 when there is no memory; then nothing changed.
    """
    cdef bint restarts = page.until_restart == 0
    cdef unsigned char* at
    if restarts:
        shared = 0
    cdef Py_ssize_t size = entry_size(shared, key_size, value_size)
    if restarts and buffer_reserve(&page.restarts, RESTART_BYTES) != 0:
        return -1
    if buffer_reserve(&page.body, size) != 0:
        return -1
    if restarts:
        # Safety: reserved above. An offset is less than PAGE_BYTES_MAX, so it fits 32 bits.
        store32(page.restarts.data + page.restarts.size, <uint32_t>(page.body.size - page.start))
        page.restarts.size += RESTART_BYTES
        page.until_restart = page.interval
    # Safety: `size` bytes were reserved and are written: three varints, the trailer, the key's
    # rest, the value.
    at = page.body.data + page.body.size
    at = varint_put(at, <uint64_t>shared)
    at = varint_put(at, <uint64_t>(key_size - shared))
    at = varint_put(at, <uint64_t>value_size)
    store64(at, trailer)
    at += TRAILER_BYTES
    if key_size > shared:
        memcpy(at, key + shared, <size_t>(key_size - shared))
        at += key_size - shared
    if value_size > 0:
        memcpy(at, value, <size_t>value_size)
    page.body.size += size
    page.until_restart -= 1
    page.count += 1
    return 0


cdef inline int page_close(EntryPage* page) noexcept nogil:
    """Write restarts and their count behind the entries; the next page starts there. Return 0, or
    -1 when there is no memory.
    """
    cdef Py_ssize_t size = page.restarts.size
    if buffer_reserve(&page.body, size + RESTART_BYTES) != 0:
        return -1
    # Safety: reserved above.
    if size > 0:
        memcpy(page.body.data + page.body.size, page.restarts.data, <size_t>size)
    store32(page.body.data + page.body.size + size, <uint32_t>(size // RESTART_BYTES))
    page.body.size += size + RESTART_BYTES
    page.start = page.body.size
    page.restarts.size = 0
    page.until_restart = 0
    page.count = 0
    return 0
