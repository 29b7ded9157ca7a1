from libc.stdint cimport uint64_t
from holdfast.cursor._tombstones_c cimport RangeTombstones


cdef class Memtable:
    cdef readonly Py_ssize_t bytes_used
    cdef readonly Py_ssize_t entry_count
    cdef readonly uint64_t seq_min
    cdef readonly uint64_t seq_max
    cdef readonly bint frozen
    cdef readonly RangeTombstones range_tombstones
    # Insert PUT or DELETE. Copies key and value. An equal (key, seq) replaces. Raises MemoryError with nothing inserted.
    cdef int c_put(self, uint64_t seq, int kind, const unsigned char* key, Py_ssize_t key_size,
                   const unsigned char* value, Py_ssize_t value_size) except -1
    # Newest version with seq <= snapshot. Return 1 and fill the outputs, or 0. The value stays valid while the memtable lives.
    cdef int c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t snapshot,
                   uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size) noexcept
