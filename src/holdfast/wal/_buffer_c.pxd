from libc.stdint cimport uint32_t, uint64_t


cdef class RecordBuffer:
    cdef readonly Py_ssize_t size             # payload bytes collected
    cdef readonly uint64_t op_count           # operations collected, over all batches
    # Append a batch of exactly one operation.
    cdef int c_append_op(self, int kind, uint32_t keyspace, const unsigned char* key, Py_ssize_t key_size,
                         const unsigned char* value, Py_ssize_t value_size) except -1
