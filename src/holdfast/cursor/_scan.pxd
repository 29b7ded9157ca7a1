"""Pieces of user cursors that need no cursor, inline, see `_user_c.pyx`."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.number cimport PyIndex_Check, PyNumber_Index
from cpython.pyport cimport PY_SSIZE_T_MAX
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_SET_ITEM
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030E00B1
    #define forget_hash(pair) (((PyTupleObject*)(pair))->ob_hash = -1)
    #else
    #define forget_hash(pair) ((void)0)
    #endif
    """
    # Since 3.14 a tuple keeps its hash.
    void forget_hash(tuple pair)


cdef inline Py_ssize_t check_scan(object lower, object upper, object limit,
                                  object what) except -2:
    """Raise unless rows can be asked for like this. Return how many; -1 is no limit."""
    cdef Py_ssize_t left = -1
    for bound in (lower, upper):
        if bound is not None and type(bound) is not bytes:
            raise TypeError(f"a bound is bytes or None, not {type(bound).__name__}")
    if limit is not None:
        if not PyIndex_Check(limit):
            raise TypeError(f"a limit is an int or None, not {type(limit).__name__}")
        limit = PyNumber_Index(limit)
        if limit < 0:
            raise ValueError(f"the limit is {limit}; it must not be negative")
        left = PY_SSIZE_T_MAX if limit > PY_SSIZE_T_MAX else limit
    if what not in (0, 1, 2):
        raise ValueError(f"what is {what}; it must be 0 (items), 1 (keys) or 2 (values)")
    return left


cdef inline Py_ssize_t rows_asked(object count) except -1:
    """Return how many rows are asked for at once, as far as they fit the address space."""
    if not PyIndex_Check(count):
        raise TypeError(f"a count is an int, not {type(count).__name__}")
    count = PyNumber_Index(count)
    if count < 0:
        raise ValueError(f"the count is {count}; it must not be negative")
    return PY_SSIZE_T_MAX if count > PY_SSIZE_T_MAX else count


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
    forget_hash(pair)
    Py_DECREF(before)
