cimport cython
from libc.stdint cimport uint64_t


cdef struct Block                         # private: see the .pyx


@cython.final
@cython.no_gc
cdef class RangeTombstones:
    cdef readonly Py_ssize_t fragment_count
    # Private: the blocks, older first, each newer than the one before.
    cdef Block* roots[72]
    cdef int root_count
    # Highest sequence number <= snapshot of a tombstone over key, 0 when none. O(log^2 n) at worst.
    # Sequence numbers over a key are enumerated by asking again with the answer less one.
    cdef uint64_t c_cover(self, const unsigned char* key, Py_ssize_t size,
                          uint64_t snapshot) noexcept nogil
    # Highest sequence number of a tombstone over a part of [lower, upper), 0 when none. NULL is
    # unbounded.
    cdef uint64_t c_newest_over(self, const unsigned char* lower, Py_ssize_t lower_size,
                                const unsigned char* upper, Py_ssize_t upper_size) noexcept
    cdef uint64_t _seq_max(self) noexcept
