"""The compiled face of the check of a commit. The GIL is held."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t


@cython.final
cdef class Dependence:
    cdef readonly object source
    cdef readonly list keys
    cdef readonly list ranges


@cython.final
cdef class Check:
    cdef public uint64_t since
    cdef public object hold
    # A list of dependences, or what is called for it.
    cdef object depends
    cdef list found(self)


@cython.final
cdef class Written:
    cdef dict keys
    cdef list order
    cdef list ranges
    cdef uint64_t key_change(self, bytes key) except? 0
    cdef object range_change(self, lower, upper)


@cython.final
cdef class GroupWrites:
    cdef readonly uint64_t next_seq
    cdef list unread
    cdef dict written
    cdef Written of(self, uint32_t keyspace)
