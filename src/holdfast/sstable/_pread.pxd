"""Reading from a descriptor without the interpreter, inline, see `_reader_c.pyx`."""
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint64_t
from posix.types cimport off_t

from holdfast.codec._envelope_c cimport page_open, page_seed_of
from holdfast.codec._fixed cimport load64
from holdfast.sstable._handle cimport CHECKSUM_BYTES, DATA, FILTER, PageHandle
from holdfast.sstable._page_c cimport page_check, page_stamp


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


# What came of reading a page. The first that is not 0 of `failed`, `opened` and `checked` counts.
cdef struct Opened:
    unsigned char* body              # malloc'd, the caller's
    Py_ssize_t size
    int page_type
    int failed                       # as read_whole
    int opened                       # as page_open; 1: it takes a library
    int checked                      # as page_check
    bint is_same                     # whether the checksum is that of its handle


cdef inline void read_and_open(int descriptor, unsigned char* stored, const PageHandle* place,
                               const unsigned char* file_id, bint is_sealed, int page_type,
                               uint64_t stamp, Opened* found) noexcept nogil:
    """Read a page, unless it is in `stored` and there is no descriptor, open and check it."""
    if descriptor >= 0:
        found.failed = read_whole(descriptor, stored, place.size, place.offset)
        if found.failed != 0:
            return
    if is_sealed:
        found.opened = 1
    else:
        found.opened = page_open(stored, place.size, page_seed_of(file_id, place.offset),
                                 &found.body, &found.size, &found.page_type)
    if found.opened < 0:
        return
    # Safety: a page that was opened has a trailer, which ends with its checksum.
    found.is_same = load64(stored + place.size - CHECKSUM_BYTES) == place.checksum
    if (found.is_same and found.opened == 0 and found.page_type == page_type
            and page_type != FILTER):
        found.checked = page_check(found.body, found.size, page_type)
        if found.checked == 0 and page_type == DATA and stamp != 0:
            found.checked = page_stamp(found.body, found.size, stamp)
