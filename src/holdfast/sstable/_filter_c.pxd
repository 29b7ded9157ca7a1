from libc.stdint cimport uint32_t, uint64_t


cdef class FilterBuilder:
    cdef int _bits_per_key
    cdef uint64_t* _hashes
    cdef Py_ssize_t _count
    cdef Py_ssize_t _capacity
    # Return 0, or -1 when there is no memory; then nothing changed.
    cdef int c_add_hash(self, uint64_t key_hash) noexcept nogil
    # The bytes of the body over all hashes added.
    cdef Py_ssize_t c_size(self) noexcept nogil
    # Write that body and begin anew. Requires: room for c_size() bytes.
    cdef void c_finish(self, unsigned char* body) noexcept nogil
    cdef uint64_t _blocks(self) noexcept nogil


# Return 0 only when no key with this hash was added. A body that is not a filter answers 1.
cdef bint filter_probe(const unsigned char* body, Py_ssize_t size, uint64_t key_hash) noexcept nogil


cdef inline bint block_probe(const unsigned char* blocks, uint32_t block_count, int probes,
                             uint64_t key_hash) noexcept nogil:
    """As `filter_probe`, of a filter that was found to be one. It looks at all bits of the block,
    which lies in one or two lines, so that no branch depends on them.
    """
    # Safety: key_hash >> 32 < 2^32, so the block is one of them, and a bit of 9 bits lies within
    # its 64 bytes.
    cdef const unsigned char* block = blocks + (((key_hash >> 32) * block_count) >> 32) * 64
    cdef uint32_t state = <uint32_t>key_hash
    cdef uint32_t all_set = 1
    cdef int _probe
    for _probe in range(probes):
        all_set &= block[state >> 26] >> ((state >> 23) & 7)
        state *= <uint32_t>0x9E3779B1
    return all_set
