from libc.stdint cimport uint64_t

# The seed of the page at `offset` of the file with this 16-byte id.
cdef uint64_t page_seed_of(const unsigned char* file_id, uint64_t offset) noexcept nogil
# Verify a stored page without touching the body. Return 0, or a negative status (see the .pyx).
cdef int page_verify(const unsigned char* stored, Py_ssize_t size, uint64_t seed) noexcept nogil
# Verify and decompress into a fresh malloc'd buffer (caller frees). NONE and LZ4 are done here; for ZSTD
# (or any codec that needs a library) returns 1 after verification and leaves body NULL.
# Return 0 done, 1 needs the library, negative status on damage or no memory.
cdef int page_open(const unsigned char* stored, Py_ssize_t size, uint64_t seed,
                   unsigned char** body, Py_ssize_t* body_size, int* page_type) noexcept nogil
# A sentence for a negative status.
cdef str page_status_reason(int status)
