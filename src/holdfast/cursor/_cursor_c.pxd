"""The compiled face of cursors. Moves return 1 when positioned, 0 at the end, -1 with an exception set."""
from libc.stdint cimport uint64_t


cdef class Cursor:
    # Where the cursor stands; constant between moves. Valid memory until the next move or the cursor's end,
    # even if the source grows or its page is evicted. `at` is 1 when positioned.
    cdef bint at
    cdef const unsigned char* key_data
    cdef Py_ssize_t key_size
    cdef uint64_t trailer            # seq << 8 | kind
    cdef const unsigned char* value_data
    cdef Py_ssize_t value_size
    cdef object failure              # the exception that killed this cursor, or None

    # Overridden by sources. Sources do not check `failure`; the public methods and MergeCursor do.
    cdef int c_first(self) except -1
    cdef int c_last(self) except -1
    # First entry >= (key, trailer) in internal order.
    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1
    # Last entry whose user key < key.
    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1
    cdef int c_next(self) except -1
    cdef int c_prev(self) except -1


cdef inline int compare_keys(const unsigned char* a, Py_ssize_t a_size, const unsigned char* b, Py_ssize_t b_size) noexcept nogil:
    """Return <0, 0, >0 as a sorts before, with, after b: bytewise, the shorter first on a tie."""
    from libc.string cimport memcmp
    cdef int order = memcmp(a, b, a_size if a_size < b_size else b_size)
    if order != 0:
        return order
    return (a_size > b_size) - (a_size < b_size)


cdef class MergeCursor(Cursor):
    pass
