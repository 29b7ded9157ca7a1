"""The compiled face of what user cursors hold."""
from libc.stdint cimport uint64_t


# How many rows cursors gave, and how many deleted keys they passed over.
cdef class ScanTally:
    cdef public uint64_t rows
    cdef public uint64_t deleted


# What a user cursor reads from, and holds alive. When it ends before the cursor, `ended` says why,
# and the cursor raises DatabaseClosedError from then on. Cursors add to its tally, if it has one.
cdef class Owner:
    cdef public str ended
    cdef public ScanTally tally


# Private writes that a user cursor shows over its snapshot, and how far that cursor came.
cdef class Overlay:
    cdef readonly uint64_t first
    cdef readonly uint64_t last
    cdef readonly tuple tombstones       # of RangeTombstones
    cdef public bytes reached
    cdef public object refusal
    cdef public bint exhausted
    cdef public bint closed
