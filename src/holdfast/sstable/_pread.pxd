"""Reading from a descriptor without the interpreter, inline, see `_source_c.pyx`."""
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint64_t
from posix.types cimport off_t


cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int descriptor, void* target, size_t size, off_t offset)

cdef enum:
    FILE_ENDS = -1


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
