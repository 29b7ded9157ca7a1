"""The compiled face of a histogram. The GIL is held."""
cimport cython
from libc.stdint cimport uint64_t

cdef enum:
    BUCKET_COUNT = 624


@cython.final
cdef class Histogram:
    cdef readonly str name
    cdef readonly uint64_t count
    cdef readonly double seconds
    cdef readonly double longest
    cdef uint64_t[BUCKET_COUNT] buckets
    cdef void c_record(self, double seconds) noexcept
