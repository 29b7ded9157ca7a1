from libc.stdint cimport uint64_t


cdef class TableBuilder:
    # Append one entry in internal order (checked: LimitError or ValueError otherwise). Finished pages collect in an output buffer.
    cdef int c_add(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                   const unsigned char* value, Py_ssize_t value_size) except -1
    cdef readonly Py_ssize_t output_size      # sealed bytes waiting for take_output()
    cdef readonly uint64_t file_bytes         # estimate of the file so far, the open page included
