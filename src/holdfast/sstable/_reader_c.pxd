from libc.stdint cimport uint64_t
from holdfast.bufferpool._pool_c cimport Page
from holdfast.cursor._tombstones_c cimport RangeTombstones


cdef class TableReader:
    cdef readonly uint64_t number
    cdef readonly RangeTombstones range_tombstones
    # Newest version with seq <= snapshot. `hash` is xxh64(key, seed 0), computed once per lookup for all tables.
    # Return the page that owns the value bytes and fill the outputs, or None when absent.
    cdef Page c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash, uint64_t snapshot,
                    uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size)
