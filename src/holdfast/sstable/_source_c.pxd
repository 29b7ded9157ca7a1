from libc.stdint cimport uint64_t
from holdfast.bufferpool._pool_c cimport Page
from holdfast.sstable._ahead cimport Ahead
from holdfast.sstable._handle cimport PageHandle


# What came of reading a page. The first that is not 0 of `failed`, `status` and `checked` counts.
cdef struct Opened:
    int failed                       # as read_whole
    int status                       # as page_open; 1: it takes a library
    int checked                      # as check_body; of a page that was opened without a library
    bint is_same                     # whether the checksum is that of its handle
    int page_type
    Py_ssize_t size                  # of the body
    unsigned char* body              # of body_new, where `status` is 0


cdef class PageSource:
    cdef readonly object file
    cdef readonly str name
    cdef readonly uint64_t limit         # where the footer starts: all pages lie before
    cdef bytes file_id
    # what its pages are sealed with, or None
    cdef object cipher
    # by which what is sealed is longer; 0: its pages are not
    cdef Py_ssize_t seal_bytes
    # of the file, or -1: then it is read through `file.read_at`
    cdef int descriptor
    # the trailer of all entries of an ingested table; 0: they have their own
    cdef uint64_t stamp
    cdef bint closed
    cdef Py_ssize_t reading              # calls that use the file right now
    # The same as `read`, with its errors. Requires: the handle lies before the limit.
    cdef Page c_read(self, const PageHandle* handle, int page_type)
    # Whether long scans read ahead: sealed pages are worth keeping, and need a descriptor as all.
    cpdef bint reads_ahead(self) noexcept
    # Read the first `count` pages that `ahead` has chosen, at least one.
    cdef int c_read_ahead(self, Ahead* ahead, Py_ssize_t count) except -1
    cdef int open_ahead(self, Ahead* ahead, Py_ssize_t count) except -1
    cdef Page read_counted(self, const PageHandle* handle, int page_type)
    cdef bytes room_for(self, const PageHandle* handle)
    cdef Page page_of(self, bytes stored, const PageHandle* handle, const Opened* opened)
    cdef int accept(self, Page page, const PageHandle* handle, const Opened* opened) except -1
    cdef int close_if_idle(self) except -1
    cdef int check_open(self) except -1


# Check that a page of the file `name` has the type of its place. Raises: CorruptionError.
cdef int require_type(Page page, int page_type, str name, uint64_t offset) except -1
