"""`FileCipher`: the compiled twin of `_cipher_py`, which describes it.

Every page that is read and every record of a log comes through here. The library does the
cryptography; what is left is to lay out nonces and associated data, which costs as much as its
call when it is done by Python code.

Thread safety: immutable; any number of threads may seal and open.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from holdfast.codec._fixed cimport store32, store64

from holdfast.base import require
from holdfast.crypto import piece
from holdfast.crypto.piece import SealError
from holdfast.crypto.suite import invalid_tag

# Part of the file format.
cdef enum:
    COUNTER_BYTES = 4
    SALT_BYTES = 8
    SEAL_BYTES = 24
    PLACE_UNIT_BYTES = 8
    PLACE_BYTES = 8

require(
    (COUNTER_BYTES, SALT_BYTES, SEAL_BYTES, PLACE_UNIT_BYTES)
    == (piece.COUNTER_BYTES, piece.SALT_BYTES, piece.SEAL_BYTES, piece.PLACE_UNIT_BYTES),
    "the compiled layout of a piece is that of `piece`",
)


cdef inline bytes nonce_of(uint64_t offset, const unsigned char* salt):
    cdef bytes nonce = PyBytes_FromStringAndSize(NULL, COUNTER_BYTES + SALT_BYTES)
    cdef unsigned char* target = <unsigned char*>PyBytes_AS_STRING(nonce)
    # Safety: the new bytes have room for both parts.
    store32(target, <uint32_t>(offset // PLACE_UNIT_BYTES & 0xFFFFFFFF))
    memcpy(target + COUNTER_BYTES, salt, SALT_BYTES)
    return nonce


@cython.final
cdef class FileCipher:
    """The cipher of one file. `context` is what all its pieces are bound to."""

    def __init__(self, aead, bytes context not None, random_bytes):
        self._encrypt_into = aead.encrypt_into
        self._decrypt = aead.decrypt
        self._context = context
        self._random_bytes = random_bytes
        self._invalid_tag = invalid_tag()

    def seal(self, offset, data, associated):
        """Return the sealed piece of `data` that will lie at `offset`, SEAL_BYTES longer."""
        cdef Py_ssize_t size = memoryview(data).nbytes
        sealed = bytearray(size + SEAL_BYTES)
        self.seal_into(offset, data, associated, memoryview(sealed))
        return bytes(sealed)

    def seal_into(self, offset, data, associated, target):
        """Write the sealed piece to `target`, which is SEAL_BYTES longer than `data`.

        Requires: nobody changes `data` meanwhile.
        """
        cdef uint64_t place = PyNumber_Index(offset)
        cdef bytes salt = self._random_bytes(SALT_BYTES)
        cdef bytes bound
        cdef Py_buffer extra
        require(len(salt) == SALT_BYTES, "the machine gives as many random bytes as are asked for")
        target[:SALT_BYTES] = salt
        PyObject_GetBuffer(associated, &extra, PyBUF_SIMPLE)
        try:
            bound = self._bound(place, <const unsigned char*>extra.buf, extra.len)
        finally:
            PyBuffer_Release(&extra)
        self._encrypt_into(
            nonce_of(place, <const unsigned char*>PyBytes_AS_STRING(salt)), data, bound,
            target[SALT_BYTES:],
        )

    def open(self, offset, sealed, associated):
        """Return the content of the piece at `offset`. Raises: SealError."""
        cdef uint64_t place = PyNumber_Index(offset)
        cdef Py_buffer stored, extra
        cdef bytes content
        PyObject_GetBuffer(sealed, &stored, PyBUF_SIMPLE)
        try:
            if stored.len < SEAL_BYTES:
                raise SealError("the sealed piece is shorter than its seal")
            PyObject_GetBuffer(associated, &extra, PyBUF_SIMPLE)
            try:
                # Safety: SALT_BYTES of the piece are there; the parts are read before it returns.
                content = self.c_open(
                    place, <const unsigned char*>stored.buf, memoryview(sealed)[SALT_BYTES:],
                    <const unsigned char*>extra.buf, extra.len,
                )
            finally:
                PyBuffer_Release(&extra)
        finally:
            PyBuffer_Release(&stored)
        if content is None:
            raise SealError("the seal does not match")
        return content

    cdef bytes c_open(self, uint64_t offset, const unsigned char* salt, object ciphertext,
                      const unsigned char* associated, Py_ssize_t size):
        cdef bytes nonce = nonce_of(offset, salt)
        cdef bytes bound = self._bound(offset, associated, size)
        try:
            return self._decrypt(nonce, ciphertext, bound)
        except self._invalid_tag:
            return None

    cdef bytes _bound(self, uint64_t offset, const unsigned char* associated, Py_ssize_t size):
        """Return the associated data of a piece."""
        cdef Py_ssize_t context_size = PyBytes_GET_SIZE(self._context)
        cdef bytes bound
        cdef unsigned char* target
        # Safety: both sizes are those of objects in memory, whose sum cannot overflow.
        bound = PyBytes_FromStringAndSize(NULL, context_size + PLACE_BYTES + size)
        target = <unsigned char*>PyBytes_AS_STRING(bound)
        memcpy(target, PyBytes_AS_STRING(self._context), context_size)
        store64(target + context_size, offset)
        memcpy(target + context_size + PLACE_BYTES, associated, size)
        return bound

    def __repr__(self):
        return "<cipher of a file>"

    def __reduce__(self):
        raise TypeError("a cipher holds a key and is never pickled or copied")
