"""The compiled face of the cipher of a file: what kernels of formats open pieces with."""
cimport cython
from libc.stdint cimport uint64_t


@cython.final
cdef class FileCipher:
    # Constant after construction.
    cdef object _encrypt_into
    cdef object _decrypt
    cdef object _decrypt_into
    cdef bytes _context
    cdef object _random_bytes
    cdef object _invalid_tag

    # The content of a piece whose parts are given; None when it does not open. `salt` has 8 bytes.
    cdef bytes c_open(self, uint64_t offset, const unsigned char* salt, object ciphertext,
                      const unsigned char* associated, Py_ssize_t size)

    # Private.
    cdef bytes _salts(self, Py_ssize_t count)
    cdef int _seal(self, bytes salts, Py_ssize_t index, object offset, object data,
                   object associated, object target) except -1
    cdef bytes _bound_to(self, uint64_t offset, object associated)
    cdef bytes _bound(self, uint64_t offset, const unsigned char* associated, Py_ssize_t size)
