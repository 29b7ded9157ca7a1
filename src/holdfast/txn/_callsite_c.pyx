"""Compiled search for the user's line; `_callsite_py` is the specification.

Only the code and the place in it are kept. The line is looked for when somebody asks, which few do.
"""
cimport cython
from cpython.exc cimport PyErr_Occurred
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "Python.h":
    ctypedef struct PyFrameObject:
        pass
    ctypedef struct PyCodeObject:
        pass
    # Borrowed, NULL when there is none or no memory for it.
    PyFrameObject* PyEval_GetFrame()
    # New references; NULL at the end, or with an exception.
    PyFrameObject* PyFrame_GetBack(PyFrameObject* frame)
    PyCodeObject* PyFrame_GetCode(PyFrameObject* frame)
    PyObject* PyFrame_GetGlobals(PyFrameObject* frame)
    int PyFrame_GetLasti(PyFrameObject* frame)
    int PyCode_Addr2Line(PyCodeObject* code, int place)

cdef str PACKAGE = __name__.partition(".")[0] + "."
cdef set OWN_FILES = set()


cdef bint is_own(PyFrameObject* frame, code) except -1:
    """Whether a frame is of this package, by the name of its module."""
    # Most frames of it are of files that were seen before.
    if code.co_filename in OWN_FILES:
        return True
    names = <object>PyFrame_GetGlobals(frame)
    Py_DECREF(names)
    name = (<dict>names).get("__name__", "")
    if not (isinstance(name, str) and (<str>name).startswith(PACKAGE)):
        return False
    OWN_FILES.add(code.co_filename)
    return True


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class CallSite:
    """See `_callsite_py.CallSite`."""

    def __init__(self):
        self.find()

    cdef int find(self) except -1:
        cdef PyFrameObject* frame = PyEval_GetFrame()
        cdef PyFrameObject* back
        if frame == NULL:
            raise MemoryError()
        Py_INCREF(<object>frame)
        try:
            while True:
                code = <object>PyFrame_GetCode(frame)
                Py_DECREF(code)
                back = NULL
                if is_own(frame, code):
                    back = PyFrame_GetBack(frame)
                    if back == NULL and PyErr_Occurred() != NULL:
                        return -1
                if back == NULL:
                    self.code = code
                    self.place = PyFrame_GetLasti(frame)
                    return 0
                Py_DECREF(<object>frame)
                frame = back
        finally:
            Py_DECREF(<object>frame)

    @property
    def file(self):
        """The file."""
        return self.code.co_filename

    @property
    def line(self):
        """The line in it."""
        return PyCode_Addr2Line(<PyCodeObject*>self.code, self.place)

    def __str__(self):
        return f"{self.file}:{self.line}"
