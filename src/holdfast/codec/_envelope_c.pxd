from libc.stdint cimport uint64_t

# Part of the file format: see docs/format/page.md.
cdef enum:
    PAGE_TRAILER_BYTES = 16
    PAGE_COMPRESSION_NONE = 0
    PAGE_COMPRESSION_LZ4 = 1
    PAGE_COMPRESSION_ZSTD = 2
    PAGE_SEALED = 0x10
    PAGE_FIELDS_BYTES = 8

# Statuses below zero. All but PAGE_NO_MEMORY mean damage.
cdef enum:
    PAGE_TOO_SHORT = -1
    PAGE_BAD_CHECKSUM = -2
    PAGE_UNKNOWN_COMPRESSION = -3
    PAGE_RESERVED_BITS = -4
    PAGE_BODY_TOO_LONG = -5
    PAGE_LENGTHS_DIFFER = -6
    PAGE_RATIO_IMPOSSIBLE = -7
    PAGE_MALFORMED = -8
    PAGE_NO_MEMORY = -9
    PAGE_NOT_SEALED = -10
    PAGE_BAD_SEAL = -11

# The seed of the page at `offset` of the file with this 16-byte id.
cdef uint64_t page_seed_of(const unsigned char* file_id, uint64_t offset) noexcept nogil
# Verify a stored page without touching the body. Return 0, or a negative status (see the .pyx).
cdef int page_verify(const unsigned char* stored, Py_ssize_t size, uint64_t seed) noexcept nogil
# Verify and decompress into a body of `body_new`, which is the caller's. NONE and LZ4 are done
# here; for ZSTD (or any codec that needs a library) returns 1 after verification and leaves body
# NULL. Return 0 done, 1 needs the library, negative status on damage or no memory.
cdef int page_open(const unsigned char* stored, Py_ssize_t size, uint64_t seed,
                   unsigned char** body, Py_ssize_t* body_size, int* page_type) noexcept nogil
# Verify a sealed page without opening its seal. Return as page_verify.
cdef int sealed_verify(const unsigned char* stored, Py_ssize_t size, uint64_t seed) noexcept nogil
# Decompress what the seal of a page held, `size` bytes, as the fields of its trailer say, of which
# PAGE_FIELDS_BYTES are there. Return as page_open.
cdef int page_unpack(const unsigned char* payload, Py_ssize_t size, const unsigned char* fields,
                     unsigned char** body, Py_ssize_t* body_size, int* page_type) noexcept nogil
# The body of a verified page for which page_open returned 1. Its payload is what the buffer of
# `owner` begins with. Raises: CorruptionError(file, offset, reason); MemoryError.
cdef bytes page_decompress(object owner, Py_ssize_t payload_size, Py_ssize_t body_size,
                           object file, object offset)
# Seal a body into `target`, which has room for size + PAGE_TRAILER_BYTES bytes and does not overlap
# it; return the stored size. Compression is NONE or LZ4; a body that LZ4 does not shorten enough is
# stored with NONE. The stored page is target[0 : result], its checksum is the last eight bytes.
# Requires: 0 <= size <= PAGE_BYTES_MAX, 0 <= page_type <= 255.
cdef Py_ssize_t page_seal_into(const unsigned char* body, Py_ssize_t size, int page_type,
                               int compression, uint64_t seed,
                               unsigned char* target) noexcept nogil
# The same for a payload compressed by a library (ZSTD): writes only the trailer of
# PAGE_TRAILER_BYTES behind the payload that already lies in target[0 : payload_size]; return the
# stored size.
cdef Py_ssize_t page_seal_trailer(unsigned char* target, Py_ssize_t payload_size,
                                  Py_ssize_t body_size, int page_type, int compression,
                                  uint64_t seed) noexcept nogil
# Write the fields of a trailer, which are associated with the seal of a payload. Requires:
# PAGE_FIELDS_BYTES of room.
cdef void page_put_fields(unsigned char* target, Py_ssize_t body_size, int page_type,
                          int compression) noexcept nogil
# The longest payload worth storing compressed: the body without at least a sixteenth.
cdef Py_ssize_t page_payload_max(Py_ssize_t body_size) noexcept nogil
# A sentence for a negative status.
cdef str page_status_reason(int status)
# Raise what a negative status means: MemoryError or CorruptionError(file, offset, reason).
cdef int page_raise(int status, object file, object offset) except -1
