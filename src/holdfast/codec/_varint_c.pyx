"""Varints: the compiled twin of `_varint_py`, which describes them.

Kernels use `_varint.pxd` instead.

Thread safety: pure functions.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint64_t

from holdfast.codec._varint cimport varint_get, varint_put

cdef enum:
    VARINT_BYTES_MAX = 10


def encode_varint(value):
    """Return `value` as a varint.

    Raises: ValueError when it is negative or has more than 64 bits.
    """
    cdef unsigned char[VARINT_BYTES_MAX] place
    value = PyNumber_Index(value)
    if not 0 <= value <= 0xFFFFFFFFFFFFFFFF:
        raise ValueError("a varint holds 64 bits without a sign")
    # Safety: 64 bits are at most ten groups of seven.
    return PyBytes_FromStringAndSize(<char*>place, varint_put(place, value) - place)


def decode_varint(data, offset):
    """Return (the value that starts at `offset`, the offset behind it).

    Raises: ValueError when the varint is cut, has more than 64 bits or is not the shortest, or
    `offset` is outside the data.
    """
    cdef Py_buffer view
    cdef const unsigned char* start
    cdef const unsigned char* end
    cdef uint64_t value = 0
    offset = PyNumber_Index(offset)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= offset <= view.len:
            raise ValueError("the offset is outside the data")
        # Safety: the offset is inside the data by the line above.
        start = <const unsigned char*>view.buf
        end = varint_get(start + <Py_ssize_t>offset, start + view.len, &value)
        if end == NULL:
            raise ValueError("malformed varint")
        return value, end - start
    finally:
        PyBuffer_Release(&view)
