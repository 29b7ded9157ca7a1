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
        self._decrypt_into = aead.decrypt_into
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
        self._seal(self._salts(1), 0, offset, data, associated, target)

    @property
    def seal_bytes(self):
        """By how much a sealed piece is longer than its content."""
        return SEAL_BYTES

    def seal_many(self, offsets, pieces, associated, targets):
        """Write the sealed piece of each of `pieces` to its target, as `seal_into` does.

        The random bytes of all are drawn at once: to ask for them lets other threads have the GIL,
        and to win it back for each piece takes longer than to seal it.
        """
        cdef bytes salts = self._salts(len(pieces))
        cdef Py_ssize_t index = 0
        for offset, piece, extra, target in zip(offsets, pieces, associated, targets, strict=True):
            self._seal(salts, index, offset, piece, extra, target)
            index += 1

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

    cdef bytes _salts(self, Py_ssize_t count):
        """Return the random bytes of `count` pieces."""
        cdef bytes salts = self._random_bytes(count * SALT_BYTES)
        require(len(salts) == count * SALT_BYTES,
                "the machine gives as many random bytes as are asked for")
        return salts

    cdef int _seal(self, bytes salts, Py_ssize_t index, object offset, object data,
                   object associated, object target) except -1:
        """Seal a piece with the salt that stands at `index`. Requires: there is one."""
        cdef uint64_t place = PyNumber_Index(offset)
        require(SALT_BYTES * (index + 1) <= PyBytes_GET_SIZE(salts), "a piece has a salt")
        # Safety: each salt has SALT_BYTES, and is read before `salts` can go.
        cdef const unsigned char* salt = <const unsigned char*>PyBytes_AS_STRING(salts)
        cdef bytes nonce = nonce_of(place, salt + SALT_BYTES * index)
        cdef bytes bound = self._bound_to(place, associated)
        target[:SALT_BYTES] = salts[SALT_BYTES * index:SALT_BYTES * (index + 1)]
        self._encrypt_into(nonce, data, bound, target[SALT_BYTES:])
        return 0

    cdef bytes c_open(self, uint64_t offset, const unsigned char* salt, object ciphertext,
                      const unsigned char* associated, Py_ssize_t size):
        cdef bytes nonce = nonce_of(offset, salt)
        cdef bytes bound = self._bound(offset, associated, size)
        try:
            return self._decrypt(nonce, ciphertext, bound)
        except self._invalid_tag:
            return None

    def open_many(self, offsets, sealed, associated, targets):
        """Write the content of each of the pieces `sealed` to its target, which is SEAL_BYTES
        shorter, up to the first that does not open; return how many came before that.

        What the target of that one has then is not to be used.
        """
        cdef Py_ssize_t count = 0
        cdef uint64_t place
        cdef bytes salt, bound
        for offset, piece, extra, target in zip(offsets, sealed, associated, targets, strict=True):
            if len(piece) < SEAL_BYTES:
                break
            place = PyNumber_Index(offset)
            salt = bytes(piece[:SALT_BYTES])
            bound = self._bound_to(place, extra)
            try:
                # Safety: the salt has SALT_BYTES.
                written = self._decrypt_into(
                    nonce_of(place, <const unsigned char*>PyBytes_AS_STRING(salt)),
                    piece[SALT_BYTES:], bound, target)
            except self._invalid_tag:
                break
            require(written == len(target), "a cipher keeps sizes")
            count += 1
        return count

    cdef bytes _bound_to(self, uint64_t offset, object associated):
        """Return the associated data of a piece."""
        cdef Py_buffer extra
        PyObject_GetBuffer(associated, &extra, PyBUF_SIMPLE)
        try:
            return self._bound(offset, <const unsigned char*>extra.buf, extra.len)
        finally:
            PyBuffer_Release(&extra)

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
