"""Pairs that a user hands in, as a source of entries: the compiled twin of `_pairs_py`, which
specifies it.

A pair that is a tuple of two bytes objects is not copied: the cursor keeps it until it has the
next one.

Thread safety: as every cursor; whatever the iterable does, it does in the thread of the move.
"""
cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport uint64_t

from holdfast.cursor._cursor_c cimport Cursor, bytes_data, compare_keys

from holdfast.base import KEY_BYTES_MAX, PUT, VALUE_BYTES_MAX, check_key, check_value
from holdfast.cursor.entry import out_of_order

cdef extern from "Python.h":
    PyObject* PyIter_Next(PyObject* iterator) except? NULL

cdef Py_ssize_t KEY_MAX = KEY_BYTES_MAX
cdef Py_ssize_t VALUE_MAX = VALUE_BYTES_MAX
cdef uint64_t TRAILER = PUT


@cython.final
cdef class PairCursor(Cursor):
    """A cursor over (key, value) with strictly ascending keys. It moves forward only.

    Moves raise what the iterable raises; TypeError or ValueError for what is no pair of bytes-like
    objects; LimitError for a key or value that is too long; ValueError for a key that does not
    ascend, and for a move to another place.
    """

    cdef object pairs
    cdef bint begun

    def __init__(self, pairs):
        self.pairs = iter(pairs)

    cdef int c_first(self) except -1:
        if self.begun:
            return nowhere()
        self.begun = True
        return self.take(None)

    cdef int c_next(self) except -1:
        return self.take(<tuple>self.entry) if self.at else 0

    cdef int c_last(self) except -1:
        return nowhere()

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        return nowhere()

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        return nowhere()

    cdef int c_prev(self) except -1:
        return nowhere() if self.at else 0

    cdef int take(self, tuple before) except -1:
        """Stand at the next pair. `before` is the one at which the cursor stands."""
        cdef tuple entry
        cdef PyObject* found = PyIter_Next(<PyObject*>self.pairs)
        if found == NULL:
            self.at = 0
            self.entry = None
            return 0
        pair = <object>found
        # Safety: the reference is the caller's, and `pair` has one of its own now.
        Py_DECREF(pair)
        if type(pair) is tuple and len(<tuple>pair) == 2:
            entry = <tuple>pair
        else:
            key, value = pair
            entry = (key, value)
        if (type(entry[0]) is not bytes or type(entry[1]) is not bytes
                or PyBytes_GET_SIZE(entry[0]) > KEY_MAX or PyBytes_GET_SIZE(entry[1]) > VALUE_MAX):
            entry = (check_key(entry[0]), check_value(entry[1]))
        if before is not None and compare_keys(
                bytes_data(entry[0]), PyBytes_GET_SIZE(entry[0]),
                bytes_data(before[0]), PyBytes_GET_SIZE(before[0])) <= 0:
            raise out_of_order(before[0], entry[0])
        self._show(entry, TRAILER)
        return 1


cdef int nowhere() except -1:
    raise ValueError("pairs are read once, from the first to the last")
