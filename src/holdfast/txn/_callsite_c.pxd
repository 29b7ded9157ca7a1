"""The compiled face of call sites. The GIL is held."""
cimport cython


@cython.final
@cython.no_gc
cdef class CallSite:
    cdef object code
    cdef int place                   # in the code, as `PyCode_Addr2Line` takes it
    # Look for the caller. Raises MemoryError.
    cdef int find(self) except -1
