"""The compiled face of the gaps of a tree."""
from libc.stdint cimport uint64_t


# Private. Both bounds lie in one block of memory that starts at `lower`.
cdef struct Gap:
    unsigned char* lower
    Py_ssize_t lower_size
    unsigned char* upper
    Py_ssize_t upper_size            # -1: behind all keys
    uint64_t seq
    uint64_t entries


cdef class Gaps:
    cdef uint64_t _newest
    cdef int _count
    cdef Gap _gaps[32]               # sorted, disjoint

    # Cut the gap that a PUT falls into. To be called before a reader can see the PUT.
    cdef void c_note_put(self, const unsigned char* key, Py_ssize_t size, uint64_t seq) noexcept
    # A size of -1 of `upper` is behind all keys. Takes no exception: what has no memory is not
    # noted.
    cdef bint c_note_gap(self, const unsigned char* lower, Py_ssize_t lower_size,
                         const unsigned char* upper, Py_ssize_t upper_size, uint64_t seq,
                         uint64_t entries) noexcept
    # NULL, or what is valid until the next call that notes.
    cdef const Gap* c_gap_at(self, const unsigned char* key, Py_ssize_t size,
                             uint64_t snapshot) noexcept
    cdef const Gap* c_gap_before(self, const unsigned char* key, Py_ssize_t size,
                                 uint64_t snapshot) noexcept

    # Private.
    cdef void _cut(self, int place, const unsigned char* key, Py_ssize_t size) noexcept
    cdef void _remove(self, int place) noexcept
    cdef void _insert(self, int place, const Gap* gap) noexcept
