# Worst-case compressed size of `size` bytes.
cdef Py_ssize_t lz4_bound(Py_ssize_t size) noexcept nogil
# Return the compressed size, or -1 when `capacity` is too small.
cdef Py_ssize_t lz4_compress_into(const unsigned char* source, Py_ssize_t size,
                                  unsigned char* target, Py_ssize_t capacity) noexcept nogil
# Decompress to exactly `target_size` bytes. Return 0, or -1 when the input is malformed. Never
# reads or writes out of bounds.
cdef int lz4_decompress_into(const unsigned char* source, Py_ssize_t size,
                             unsigned char* target, Py_ssize_t target_size) noexcept nogil
