"""Columns of a batch while they grow: the compiled twin of `_column_py`, which specifies it."""
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

cdef enum:
    COLUMN_FIRST = 4096


@cython.final
cdef class ColumnBuilder:
    """See `_column_py.ColumnBuilder`."""

    def __cinit__(self) -> None:
        self._data = bytearray()
        self._offsets = bytearray()
        self._grow_offsets()
        (<int64_t*>PyByteArray_AS_STRING(self._offsets))[0] = 0

    cdef int _grow_offsets(self) except -1:
        cdef Py_ssize_t room = 2 * self._offsets_room + COLUMN_FIRST
        PyByteArray_Resize(self._offsets, room * sizeof(int64_t))
        self._offsets_room = room
        return 0

    cdef int _grow_data(self, Py_ssize_t size) except -1:
        # Safety: no sum of sizes that are in memory comes near the greatest size.
        cdef Py_ssize_t room = 2 * self._room + size + COLUMN_FIRST
        PyByteArray_Resize(self._data, room)
        self._room = room
        return 0

    def add(self, value) -> None:
        if type(value) is not bytes:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        if self._finished:
            raise ValueError("the column is finished")
        self.c_add(<const unsigned char*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    def finish(self) -> tuple:
        return self.c_finish()

    cdef tuple c_finish(self):
        self._finished = True
        PyByteArray_Resize(self._data, self._size)
        PyByteArray_Resize(self._offsets, (self._count + 1) * sizeof(int64_t))
        return (memoryview(self._data).toreadonly(),
                memoryview(self._offsets).toreadonly().cast("q"))
