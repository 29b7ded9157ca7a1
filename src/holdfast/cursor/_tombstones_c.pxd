from libc.stdint cimport uint64_t


cdef class RangeTombstones:
    cdef readonly Py_ssize_t fragment_count
    # Highest sequence number <= snapshot of a tombstone over key, 0 when none. O(log n).
    cdef uint64_t c_cover(self, const unsigned char* key, Py_ssize_t size, uint64_t snapshot) noexcept
