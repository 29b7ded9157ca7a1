"""The compiled face of columns while they grow."""
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport int64_t
from libc.string cimport memcpy
cimport cython


@cython.final
cdef class ColumnBuilder:
    # Private.
    cdef bytearray _data
    cdef bytearray _offsets
    cdef Py_ssize_t _size
    cdef Py_ssize_t _count           # of values; there is one offset more
    cdef Py_ssize_t _room            # of `_data`
    cdef Py_ssize_t _offsets_room    # of `_offsets`, in numbers
    cdef bint _finished              # then nothing is added: there is no room
    cdef int _grow_data(self, Py_ssize_t size) except -1
    cdef int _grow_offsets(self) except -1

    # Append a value. Here, so that it costs no call. Requires: the column is not finished.
    cdef inline int c_add(self, const unsigned char* source, Py_ssize_t size) except -1:
        if size > self._room - self._size:
            self._grow_data(size)
        if self._count + 1 == self._offsets_room:
            self._grow_offsets()
        # Safety: both have room now.
        memcpy(PyByteArray_AS_STRING(self._data) + self._size, source, size)
        self._size += size
        self._count += 1
        (<int64_t*>PyByteArray_AS_STRING(self._offsets))[self._count] = self._size
        return 0

    cdef tuple c_finish(self)
