"""Opening the records in a stretch of a sealed segment: the compiled twin of `_unseal_py`.

One call of the library for each record is all that is left of Python here. A long stretch lets
other threads and signals have their turn now and then, as Python code would.

Thread safety: pure functions; the caller must not change the data meanwhile.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._fixed cimport load32, load64, store32, store64
from holdfast.crypto._cipher_c cimport FileCipher
from holdfast.wal._record cimport HEADER_BYTES, HEADER_CHECKED_BYTES, MAGIC

from holdfast.base import CorruptionError, require
from holdfast.wal import format as layout

# Part of the file format.
cdef enum:
    SALT_BYTES = 8
    FIELDS_BYTES = 8
    FIXED_BYTES = 16
    KEPT_BYTES = 48

cdef enum:
    BUDGET = 8                        # How often the bytes of a segment are opened at most.
    TURN_BYTES = 12 * 1024 * 1024     # Opened in about 5 ms, the interpreter's own interval;
    RECORD_COST = 2500                # a record costs as much as so many bytes.

cdef extern from *:
    """
    #define HOLDFAST_WAL_SEALED_MAGIC UINT32_C(0x4C535748)
    """
    const uint32_t SEALED_MAGIC "HOLDFAST_WAL_SEALED_MAGIC"

require(
    (FIELDS_BYTES, KEPT_BYTES, SEALED_MAGIC)
    == (layout.SEALED_FIELDS_BYTES, layout.SEALED_KEPT_BYTES, layout.SEALED_MAGIC),
    "the compiled layout of a sealed record is that of format",
)


cdef Py_ssize_t used(const unsigned char* data, Py_ssize_t size) noexcept nogil:
    """Return the size of the data without the zeros at its end."""
    # Safety: whole words and then bytes are read in front of `size`, which never goes below 0.
    while size >= 8 and load64(data + size - 8) == 0:
        size -= 8
    while size > 0 and data[size - 1] == 0:
        size -= 1
    return size


cdef void veil(const unsigned char* stored, unsigned char* plain, Py_ssize_t size) noexcept nogil:
    """Show zeros where a stretch of the file ends in zeros, and 0xFF before them."""
    cdef Py_ssize_t seen = used(stored, size)
    memset(plain, 0xFF, seen)
    memset(plain + seen, 0, size - seen)


cdef class _Opener:
    """What `open_records` keeps on its way."""

    cdef const unsigned char* stored
    cdef unsigned char* plain
    cdef Py_ssize_t size
    cdef object view                  # of what is stored
    cdef uint64_t offset
    cdef uint64_t number
    cdef uint64_t salt
    cdef Py_ssize_t alignment
    cdef FileCipher cipher
    cdef object file
    cdef int64_t budget
    cdef Py_ssize_t turn

    cdef int run(self) except -1:
        """Write all of the plain bytes."""
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t payload, end, stop
        while True:
            payload = self.open_at(at)
            if payload < 0:
                break
            # Safety: `open_at` found the record within the data, so `end` lies there, and a
            # rounded size cannot overflow. Padding that is not zero is damage, too.
            end = at + HEADER_BYTES + payload
            at += (HEADER_BYTES + payload + self.alignment - 1) & ~(self.alignment - 1)
            stop = min(at, self.size)
            veil(self.stored + end, self.plain + end, stop - end)
        if at >= self.size:
            return 0
        # Safety: at < size.
        with nogil:
            veil(self.stored + at, self.plain + at, self.size - at)
            stop = used(self.stored, self.size) - 3
        # What begins behind `stop` has no magic. Safety: at + alignment cannot overflow, and four
        # bytes in front of `stop + 3` are there.
        at += self.alignment
        while at < stop:
            if load32(self.stored + at) == SEALED_MAGIC:
                self.open_at(at)
            at += self.alignment
        return 0

    cdef Py_ssize_t open_at(self, Py_ssize_t at) except -2:
        """Open the record at byte `at`; return the size of its payload, or -1."""
        cdef const unsigned char* source
        cdef unsigned char* target
        cdef Py_ssize_t size, end
        cdef bytes content
        cdef const unsigned char* opened
        if at > self.size - HEADER_BYTES:
            return -1
        # Safety: HEADER_BYTES readable bytes are there, and the payload was compared with what is.
        source = self.stored + at
        size = load32(source + 4)
        if load32(source) != SEALED_MAGIC or size > self.size - HEADER_BYTES - at:
            return -1
        self.budget -= size
        if self.budget < 0:
            raise CorruptionError(
                self.file, self.offset + at,
                "what looks like records is not sealed, again and again",
            )
        self.give_turn(size)
        end = at + HEADER_BYTES + size
        content = self.cipher.c_open(
            self.offset + at, source + FIELDS_BYTES,
            self.view[at + FIELDS_BYTES + SALT_BYTES:end], source, FIELDS_BYTES,
        )
        if content is None:
            return -1
        if PyBytes_GET_SIZE(content) != KEPT_BYTES + size:
            require(False, "a cipher keeps sizes")
        # Safety: the content has KEPT_BYTES and the payload, the target HEADER_BYTES and as many.
        opened = <const unsigned char*>PyBytes_AS_STRING(content)
        target = self.plain + at
        store32(target, MAGIC)
        store32(target + 4, <uint32_t>size)
        store64(target + 8, self.number)
        memcpy(target + FIXED_BYTES, opened, KEPT_BYTES)
        store64(target + FIXED_BYTES + KEPT_BYTES, xxh64(opened + KEPT_BYTES, size, self.salt))
        store64(target + HEADER_CHECKED_BYTES, xxh64(target, HEADER_CHECKED_BYTES, self.salt))
        memcpy(target + HEADER_BYTES, opened + KEPT_BYTES, size)
        return size

    cdef int give_turn(self, Py_ssize_t size) except -1:
        # Safety: both are below 2**33.
        self.turn -= size + RECORD_COST
        if self.turn < 0:
            self.turn = TURN_BYTES
            PyErr_CheckSignals()
            with nogil:
                pass
        return 0


def open_records(front, stored, offset, number, salt, alignment, cipher, file):
    """Return `front`, and behind it the plain bytes of `stored`, a stretch of a sealed segment that
    begins with a record at byte `offset` of the file.

    `number`, `salt` and `alignment` are those of the segment. Records are opened one behind the
    other; behind the first place where none opens, wherever one opens that begins at a multiple of
    the alignment: behind damage a record still proves what is missing.

    Raises: CorruptionError for a segment that was made to take for ever; ValueError for an
    alignment that none has; OverflowError for a number that is not an unsigned 64-bit integer;
    MemoryError.
    """
    cdef _Opener opener = _Opener.__new__(_Opener)
    cdef bytes before = front
    cdef Py_ssize_t before_size = PyBytes_GET_SIZE(before)
    cdef bytes result
    cdef Py_buffer view
    if not layout.is_alignment(alignment):
        raise ValueError(f"the alignment is {alignment}; it must be a power of two from 8 to 4096")
    opener.offset = PyNumber_Index(offset)
    opener.number = PyNumber_Index(number)
    opener.salt = PyNumber_Index(salt)
    opener.alignment = alignment
    opener.cipher = cipher
    opener.file = file
    opener.view = memoryview(stored)
    opener.turn = TURN_BYTES
    PyObject_GetBuffer(stored, &view, PyBUF_SIMPLE)
    try:
        # Safety: nobody has the new bytes but this call, and each of them is written: `front`, and
        # what `run` writes. The sizes are those of objects in memory, so their sums fit.
        result = PyBytes_FromStringAndSize(NULL, before_size + view.len)
        memcpy(PyBytes_AS_STRING(result), PyBytes_AS_STRING(before), before_size)
        opener.plain = <unsigned char*>PyBytes_AS_STRING(result) + before_size
        opener.stored = <const unsigned char*>view.buf
        opener.size = view.len
        # Opening takes time in proportion to the size that a record gives itself.
        opener.budget = BUDGET * (<int64_t>view.len + opener.alignment)
        opener.run()
        return result
    finally:
        PyBuffer_Release(&view)
