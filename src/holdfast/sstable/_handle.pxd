"""Inline decoding of page handles, see `format.py`, and reading of what they name."""
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint64_t
from posix.types cimport off_t

from holdfast.codec._envelope_c cimport PAGE_TRAILER_BYTES
from holdfast.codec._fixed cimport load64
from holdfast.codec._varint cimport varint_get


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int descriptor, void* target, size_t size, off_t offset)

cdef enum:
    # The longest body of a page.
    BODY_BYTES_MAX = 0x7FFFFFFF
    CHECKSUM_BYTES = 8
    FILE_ENDS = -1


# Where a page lies.
cdef struct PageHandle:
    uint64_t offset
    uint64_t size
    uint64_t checksum


cdef inline const unsigned char* take_handle(const unsigned char* source, const unsigned char* end,
                                             PageHandle* handle) noexcept nogil:
    """Decode one handle of an index entry and return the position behind it, or NULL."""
    source = varint_get(source, end, &handle.offset)
    if source == NULL:
        return NULL
    source = varint_get(source, end, &handle.size)
    if source == NULL or end - source < CHECKSUM_BYTES:
        return NULL
    handle.checksum = load64(source)
    return source + CHECKSUM_BYTES


cdef inline bint is_page(const PageHandle* handle, uint64_t limit) noexcept nogil:
    """Return whether this can be a page that ends at or before `limit`."""
    return (PAGE_TRAILER_BYTES <= handle.size <= <uint64_t>BODY_BYTES_MAX + PAGE_TRAILER_BYTES
            and handle.size <= limit and handle.offset <= limit - handle.size)


cdef inline int read_whole(int descriptor, unsigned char* target, size_t size,
                           uint64_t offset) noexcept nogil:
    """Fill `target` from the file. Return 0, FILE_ENDS, or the number of the system's error."""
    cdef ssize_t count
    while size > 0:
        count = pread(descriptor, target, size, <off_t>offset)
        if count == 0:
            return FILE_ENDS
        if count < 0:
            if errno != EINTR:
                return errno
            continue
        # Safety: the system read at most `size` bytes.
        target += count
        size -= count
        offset += count
    return 0
