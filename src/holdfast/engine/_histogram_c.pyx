"""A log-linear histogram of times, compiled; `_histogram_py` is the specification."""
cimport cython
from libc.stdint cimport uint64_t

from holdfast.engine._histogram_py import BUCKETS

cdef enum:
    PART_BITS = 4
    EXACT = 32

cdef double NANOSECONDS = 1e9
cdef uint64_t NANOSECONDS_MAX = (<uint64_t>1 << 42) - 1

if BUCKETS != BUCKET_COUNT:
    raise ImportError("engine/_histogram_c disagrees with its twin")


@cython.final
cdef class Histogram:
    """See `_histogram_py.Histogram`."""

    def __init__(self, str name not None):
        self.name = name

    def record(self, double seconds):
        """Count something that took so long, which is a finite time. A negative one counts as 0 in
        the buckets: clocks may be read in another order than they ran.
        """
        self.c_record(seconds)

    cdef void c_record(self, double seconds) noexcept:
        cdef uint64_t nanoseconds = 0
        cdef uint64_t rest
        cdef int shift = 0
        cdef uint64_t bucket
        cdef double scaled = seconds * NANOSECONDS
        if scaled >= <double>NANOSECONDS_MAX:
            nanoseconds = NANOSECONDS_MAX
        elif scaled > 0:
            nanoseconds = <uint64_t>scaled
        bucket = nanoseconds
        if nanoseconds >= EXACT:
            rest = nanoseconds >> (PART_BITS + 1)
            while rest > 0:
                rest >>= 1
                shift += 1
            bucket = (<uint64_t>shift << PART_BITS) + (nanoseconds >> shift)
        # Safety: of 42 bits, so the bucket is less than BUCKET_COUNT.
        self.buckets[bucket] += 1
        self.count += 1
        self.seconds += seconds
        if seconds > self.longest:
            self.longest = seconds

    def counts(self):
        """Return how many lie in each bucket."""
        cdef list found = []
        cdef int index
        for index in range(BUCKET_COUNT):
            found.append(self.buckets[index])
        return found
