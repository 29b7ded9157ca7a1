"""Pieces of user cursors that need no cursor, inline, see `_user_c.pyx`."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_SET_ITEM
from libc.string cimport memcmp, memcpy


cdef inline int check_scan(object lower, object upper, object limit, object what) except -1:
    """Raise unless rows can be asked for like this."""
    for bound in (lower, upper):
        if bound is not None and type(bound) is not bytes:
            raise TypeError(f"a bound is bytes or None, not {type(bound).__name__}")
    if limit is not None and limit < 0:
        raise ValueError(f"the limit is {limit}; it must not be negative")
    if what not in (0, 1, 2):
        raise ValueError(f"what is {what}; it must be 0 (items), 1 (keys) or 2 (values)")
    return 0


cdef inline bint same_bytes(const unsigned char* a, const unsigned char* b,
                            Py_ssize_t size) noexcept nogil:
    """Return whether two keys of one size are equal. Neighbours mostly differ at their end."""
    # Safety: an empty key has no last byte to look at.
    return size == 0 or (a[size - 1] == b[size - 1] and memcmp(a, b, <size_t>size) == 0)


cdef inline bytes bytes_of(const unsigned char* key, Py_ssize_t size, bint is_after):
    """Return a key, or with `is_after` its successor."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size + is_after)
    cdef char* target = PyBytes_AS_STRING(made)
    memcpy(target, key, <size_t>size)
    if is_after:
        # Safety: one byte more was asked for.
        target[size] = 0
    return made


cdef inline void replace(tuple pair, Py_ssize_t index, object value):
    """Put a value into a pair that nobody else sees."""
    cdef object before = <object>PyTuple_GET_ITEM(pair, index)
    Py_INCREF(value)
    PyTuple_SET_ITEM(pair, index, value)
    Py_DECREF(before)
