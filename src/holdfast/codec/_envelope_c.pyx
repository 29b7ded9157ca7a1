"""The page envelope: the compiled twin of `_envelope_py`, which describes it.

Format: docs/format/page.md.

The C functions are what table readers and builders use, without the GIL. They know NONE and LZ4;
ZSTD goes through its library, and so through the Python functions.

Thread safety: pure functions.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from holdfast.codec._body_c cimport body_free, body_new
from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._fixed cimport load16, load32, load64, store16, store32, store64
from holdfast.codec._lz4_c cimport lz4_compress_into, lz4_decompress_into

from holdfast.base.errors import CorruptionError, LimitError
from holdfast.base.limits import PAGE_BYTES_MAX
from holdfast.codec.zstandard import zstd_compress, zstd_decompress

cdef enum:
    BODY_BYTES_MAX = 0x7FFFFFFF
    LZ4_RATIO_MAX = 255
    ZSTD_RATIO_MAX = 32768
    FILE_ID_BYTES = 16
    RELEASE_BYTES = 256 * 1024

if PAGE_BYTES_MAX != BODY_BYTES_MAX:
    raise ImportError("the kernel was built with another PAGE_BYTES_MAX")


def page_seed(file_id, offset):
    """Return the checksum seed of the page at `offset` of the file with this 16-byte id.

    Raises: ValueError when the id has not 16 bytes; OverflowError when `offset` is not a 64-bit
    unsigned integer.
    """
    cdef uint64_t position = PyNumber_Index(offset)
    if not isinstance(file_id, bytes):
        raise TypeError("a file id is bytes")
    if len(<bytes>file_id) != FILE_ID_BYTES:
        raise ValueError("a file id has 16 bytes")
    return page_seed_of(<bytes>file_id, position)


def seal_page(body, page_type, compression, page_seed, cipher=None, offset=0):
    """Return the stored page: payload and trailer; sealed for `offset` if there is a `cipher`.

    Raises: LimitError when the body is longer than PAGE_BYTES_MAX; ValueError when the compression
    is unknown or the page type does not fit a byte.
    """
    cdef uint64_t seed = PyNumber_Index(page_seed)
    cdef Py_buffer view
    cdef const unsigned char* data
    cdef int method, kind
    cdef Py_ssize_t stored_size
    cdef unsigned char* target
    page_type = PyNumber_Index(page_type)
    if not 0 <= page_type <= 255:
        raise ValueError("a page type fits one byte")
    compression = PyNumber_Index(compression)
    if not PAGE_COMPRESSION_NONE <= compression <= PAGE_COMPRESSION_ZSTD:
        raise ValueError("unknown compression")
    kind = page_type
    method = compression
    PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
    try:
        if view.len > BODY_BYTES_MAX:
            raise LimitError(f"the page has {view.len} bytes; the limit is {BODY_BYTES_MAX}")
        if method == PAGE_COMPRESSION_ZSTD:
            payload = zstd_compress(body)
            if len(<bytes>payload) <= page_payload_max(view.len):
                return seal_payload(payload, view.len, kind, PAGE_COMPRESSION_ZSTD, seed, cipher,
                                    offset)
            method = PAGE_COMPRESSION_NONE
        data = <const unsigned char*>view.buf
        target = <unsigned char*>malloc(view.len + PAGE_TRAILER_BYTES)
        if target == NULL:
            raise MemoryError
        try:
            if view.len < RELEASE_BYTES:
                stored_size = page_seal_into(data, view.len, kind, method, seed, target)
            else:
                with nogil:
                    stored_size = page_seal_into(data, view.len, kind, method, seed, target)
            if cipher is not None:
                # Safety: a stored page has its payload and a trailer, whose first byte says how it
                # was compressed.
                stored_size -= PAGE_TRAILER_BYTES
                return seal_payload(PyBytes_FromStringAndSize(<char*>target, stored_size),
                                    view.len, kind, target[stored_size], seed, cipher, offset)
            return PyBytes_FromStringAndSize(<char*>target, stored_size)
        finally:
            free(target)
    finally:
        PyBuffer_Release(&view)


cdef bytes seal_payload(bytes payload, Py_ssize_t body_size, int page_type, int compression,
                        uint64_t seed, object cipher, object offset):
    """Return the stored page of a compressed payload, sealed if there is a cipher."""
    cdef unsigned char[PAGE_FIELDS_BYTES] fields
    cdef bytes stored
    cdef unsigned char* target
    if cipher is not None:
        compression |= PAGE_SEALED
        page_put_fields(fields, body_size, page_type, compression)
        payload = cipher.seal(offset, payload, fields[:PAGE_FIELDS_BYTES])
    stored = PyBytes_FromStringAndSize(NULL, len(payload) + PAGE_TRAILER_BYTES)
    target = <unsigned char*>PyBytes_AS_STRING(stored)
    # Safety: the target was made for the payload and the trailer.
    memcpy(target, PyBytes_AS_STRING(payload), len(payload))
    page_seal_trailer(target, len(payload), body_size, page_type, compression, seed)
    return stored


def open_page(stored, page_seed, file, offset, cipher=None):
    """Return (page type, body) of a stored page, which must be sealed if there is a `cipher`.

    `file` and `offset` say where it was read from, for the error. Requires: nobody changes `stored`
    meanwhile. Raises: CorruptionError.
    """
    cdef uint64_t seed = PyNumber_Index(page_seed)
    cdef Py_buffer view
    cdef const unsigned char* data
    cdef const unsigned char* fields
    cdef int status
    cdef bytes plain
    PyObject_GetBuffer(stored, &view, PyBUF_SIMPLE)
    try:
        data = <const unsigned char*>view.buf
        if cipher is not None:
            status = sealed_verify(data, view.len, seed)
        elif view.len < RELEASE_BYTES:
            status = page_verify(data, view.len, seed)
        else:
            with nogil:
                status = page_verify(data, view.len, seed)
        if status < 0:
            page_raise(status, file, offset)
        # Safety: a verified page has a trailer.
        fields = data + view.len - PAGE_TRAILER_BYTES
        if cipher is None:
            return fields[1], body_of(stored, data, view.len - PAGE_TRAILER_BYTES, fields[0],
                                      load32(fields + 4), file, offset)
        payload = memoryview(stored).cast("B")[:view.len - PAGE_TRAILER_BYTES]
        try:
            plain = cipher.open(offset, payload, fields[:PAGE_FIELDS_BYTES])
        except ValueError:
            page_raise(PAGE_BAD_SEAL, file, offset)
        data = <const unsigned char*>PyBytes_AS_STRING(plain)
        status = fields_check(fields, fields[0] ^ PAGE_SEALED, len(plain))
        if status < 0:
            page_raise(status, file, offset)
        return fields[1], body_of(plain, data, len(plain), fields[0] ^ PAGE_SEALED,
                                  load32(fields + 4), file, offset)
    finally:
        PyBuffer_Release(&view)


cdef bytes body_of(object owner, const unsigned char* payload, Py_ssize_t payload_size,
                   int compression, Py_ssize_t body_size, object file, object offset):
    """Return the body of a verified payload, with which the buffer of `owner` begins. Requires: its
    body length is one that it can expand to. Raises: CorruptionError.
    """
    cdef unsigned char* target
    cdef int status
    cdef bytes body
    if compression == PAGE_COMPRESSION_ZSTD:
        return page_decompress(owner, payload_size, body_size, file, offset)
    body = PyBytes_FromStringAndSize(NULL, body_size)
    target = <unsigned char*>PyBytes_AS_STRING(body)
    if body_size < RELEASE_BYTES:
        status = unpack_payload(payload, payload_size, compression, target, body_size)
    else:
        with nogil:
            status = unpack_payload(payload, payload_size, compression, target, body_size)
    if status < 0:
        page_raise(status, file, offset)
    return body


cdef bytes page_decompress(object owner, Py_ssize_t payload_size, Py_ssize_t body_size,
                           object file, object offset):
    """Return the body of a page that takes the library; see the declaration."""
    try:
        return zstd_decompress(memoryview(owner).cast("B")[:payload_size], body_size)
    except ValueError:
        raise CorruptionError(file, offset, page_status_reason(PAGE_MALFORMED)) from None


cdef uint64_t page_seed_of(const unsigned char* file_id, uint64_t offset) noexcept nogil:
    """Return the seed of a page. Requires: 16 bytes at `file_id`."""
    cdef unsigned char[FILE_ID_BYTES + 8] place
    memcpy(place, file_id, FILE_ID_BYTES)
    store64(place + FILE_ID_BYTES, offset)
    return xxh64(place, sizeof(place), 0)


cdef int page_verify(const unsigned char* stored, Py_ssize_t size, uint64_t seed) noexcept nogil:
    """Return 0 when the checksum holds and the trailer makes sense, else a negative status.

    After 0 the body length may be allocated: it is at most PAGE_BYTES_MAX and at most what the
    payload can expand to.
    """
    cdef Py_ssize_t payload_size = size - PAGE_TRAILER_BYTES
    cdef const unsigned char* trailer
    if payload_size < 0:
        return PAGE_TOO_SHORT
    # Safety: from here on the page has 16 bytes behind its payload.
    trailer = stored + payload_size
    if load64(trailer + 8) != xxh64(stored, size - 8, seed):
        return PAGE_BAD_CHECKSUM
    return fields_check(trailer, trailer[0], payload_size)


cdef int sealed_verify(const unsigned char* stored, Py_ssize_t size, uint64_t seed) noexcept nogil:
    """Return 0 when the checksum holds and the page says that it is sealed, else a negative status.
    Nothing else of it is looked at before the seal was opened.
    """
    if size < PAGE_TRAILER_BYTES:
        return PAGE_TOO_SHORT
    # Safety: the page has a trailer.
    if load64(stored + size - 8) != xxh64(stored, size - 8, seed):
        return PAGE_BAD_CHECKSUM
    return 0 if stored[size - PAGE_TRAILER_BYTES] & PAGE_SEALED else PAGE_NOT_SEALED


cdef int fields_check(const unsigned char* fields, int compression,
                      Py_ssize_t payload_size) noexcept nogil:
    """Return 0 when the fields of a trailer make sense for a payload of this size and compression,
    else a negative status. Requires: PAGE_FIELDS_BYTES readable bytes.
    """
    cdef uint32_t body_size
    cdef uint64_t ratio
    if compression > PAGE_COMPRESSION_ZSTD:
        return PAGE_UNKNOWN_COMPRESSION
    if load16(fields + 2) != 0:
        return PAGE_RESERVED_BITS
    body_size = load32(fields + 4)
    if body_size > BODY_BYTES_MAX:
        return PAGE_BODY_TOO_LONG
    if compression == PAGE_COMPRESSION_NONE:
        return 0 if <Py_ssize_t>body_size == payload_size else PAGE_LENGTHS_DIFFER
    ratio = LZ4_RATIO_MAX if compression == PAGE_COMPRESSION_LZ4 else ZSTD_RATIO_MAX
    if body_size > <uint64_t>payload_size * ratio:
        return PAGE_RATIO_IMPOSSIBLE
    return 0


cdef int page_open(const unsigned char* stored, Py_ssize_t size, uint64_t seed,
                   unsigned char** body, Py_ssize_t* body_size, int* page_type) noexcept nogil:
    """Verify and decompress a page into new memory; see the declaration."""
    cdef int status = page_verify(stored, size, seed)
    body[0] = NULL
    if status < 0:
        return status
    # Safety: a verified page has a trailer.
    size -= PAGE_TRAILER_BYTES
    return body_new_of(stored, size, stored + size, stored[size], body, body_size, page_type)


cdef int page_unpack(const unsigned char* payload, Py_ssize_t size, const unsigned char* fields,
                     unsigned char** body, Py_ssize_t* body_size, int* page_type) noexcept nogil:
    """Decompress what a seal held into new memory; see the declaration."""
    cdef int compression = fields[0] ^ PAGE_SEALED
    cdef int status = fields_check(fields, compression, size)
    body[0] = NULL
    if status < 0:
        return status
    return body_new_of(payload, size, fields, compression, body, body_size, page_type)


cdef int body_new_of(const unsigned char* payload, Py_ssize_t size, const unsigned char* fields,
                     int compression, unsigned char** body, Py_ssize_t* body_size,
                     int* page_type) noexcept nogil:
    """Decompress a verified payload into new memory. Return as page_open."""
    cdef unsigned char* target
    cdef int status
    body_size[0] = load32(fields + 4)
    page_type[0] = fields[1]
    if compression == PAGE_COMPRESSION_ZSTD:
        return 1
    target = <unsigned char*>body_new(<size_t>body_size[0])
    if target == NULL:
        return PAGE_NO_MEMORY
    status = unpack_payload(payload, size, compression, target, body_size[0])
    if status < 0:
        body_free(target, <size_t>body_size[0])
        return status
    body[0] = target
    return 0


cdef int unpack_payload(const unsigned char* payload, Py_ssize_t payload_size, int compression,
                        unsigned char* target, Py_ssize_t body_size) noexcept nogil:
    """Write the body of a verified NONE or LZ4 page. Requires: room for `body_size` bytes."""
    if compression == PAGE_COMPRESSION_LZ4:
        if lz4_decompress_into(payload, payload_size, target, body_size) != 0:
            return PAGE_MALFORMED
        return 0
    # Safety: verification found that the lengths are equal.
    memcpy(target, payload, body_size)
    return 0


cdef Py_ssize_t page_payload_max(Py_ssize_t body_size) noexcept nogil:
    """Return the longest payload worth storing compressed; see the declaration."""
    return body_size - (body_size // 16 + (1 if body_size % 16 != 0 else 0))


cdef Py_ssize_t page_seal_into(const unsigned char* body, Py_ssize_t size, int page_type,
                               int compression, uint64_t seed,
                               unsigned char* target) noexcept nogil:
    """Write the stored page of a body and return its size; see the declaration."""
    cdef Py_ssize_t payload_size = -1
    if compression == PAGE_COMPRESSION_LZ4 and size > 0:
        payload_size = lz4_compress_into(body, size, target, page_payload_max(size))
    if payload_size < 0:
        compression = PAGE_COMPRESSION_NONE
        payload_size = size
        if size > 0:
            memcpy(target, body, size)
    return page_seal_trailer(target, payload_size, size, page_type, compression, seed)


cdef Py_ssize_t page_seal_trailer(unsigned char* target, Py_ssize_t payload_size,
                                  Py_ssize_t body_size, int page_type, int compression,
                                  uint64_t seed) noexcept nogil:
    """Write the trailer behind a payload and return the stored size; see the declaration."""
    cdef unsigned char* trailer = target + payload_size
    page_put_fields(trailer, body_size, page_type, compression)
    store64(trailer + 8, xxh64(target, payload_size + 8, seed))
    return payload_size + PAGE_TRAILER_BYTES


cdef void page_put_fields(unsigned char* target, Py_ssize_t body_size, int page_type,
                          int compression) noexcept nogil:
    """Write the fields of a trailer; see the declaration."""
    target[0] = <unsigned char>compression
    target[1] = <unsigned char>page_type
    store16(target + 2, 0)
    store32(target + 4, <uint32_t>body_size)


cdef dict REASONS = {
    PAGE_TOO_SHORT: "the page is shorter than its trailer",
    PAGE_BAD_CHECKSUM: "the page's checksum does not match",
    PAGE_UNKNOWN_COMPRESSION: "the page's compression is unknown",
    PAGE_RESERVED_BITS: "a reserved field of the page's trailer is not zero",
    PAGE_BODY_TOO_LONG: "the page's body length is beyond the limit",
    PAGE_LENGTHS_DIFFER: "the page's body length differs from its stored length",
    PAGE_RATIO_IMPOSSIBLE: "the page's body length is more than its payload can expand to",
    PAGE_MALFORMED: "the page's compressed payload is malformed",
    PAGE_NOT_SEALED: "the page is not sealed, and its file is",
    PAGE_BAD_SEAL: "the page's seal does not match",
    PAGE_NO_MEMORY: "no memory for the page's body",
}


cdef str page_status_reason(int status):
    """Return a sentence for a negative status."""
    return REASONS[status]


cdef int page_raise(int status, object file, object offset) except -1:
    """Raise what a negative status means."""
    if status == PAGE_NO_MEMORY:
        raise MemoryError
    raise CorruptionError(file, offset, page_status_reason(status))
