from libc.stdint cimport uint64_t


cdef class FilterBuilder:
    cdef int _bits_per_key
    cdef uint64_t* _hashes
    cdef Py_ssize_t _count
    cdef Py_ssize_t _capacity
    cdef int c_add_hash(self, uint64_t key_hash) except -1


# Return 0 only when no key with this hash was added. A body that is not a filter answers 1.
cdef bint filter_probe(const unsigned char* body, Py_ssize_t size, uint64_t key_hash) noexcept nogil
