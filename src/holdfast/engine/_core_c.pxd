"""The compiled face of the commit state. The GIL is held."""
cimport cython
from libc.stdint cimport uint64_t

from holdfast.wal._buffer_c cimport RecordBuffer, WriteBatch


@cython.final
cdef class CommitState:
    cdef public uint64_t next_seq
    cdef public uint64_t visible_seq
    cdef public uint64_t user_bytes
    cdef public uint64_t write_count
    cdef public uint64_t read_count
    cdef public uint64_t sample_at
    cdef public uint64_t scan_count
    cdef public object sampler
    cdef public int flags
    cdef public bint interval_armed
    cdef public RecordBuffer buffer
    cdef public Py_ssize_t buffer_bytes_max
    cdef public uint64_t room_at
    cdef public uint64_t pause_at
    cdef public object path
    cdef bint may_commit_at_once(self, WriteBatch batch, uint64_t since) noexcept
    cdef bint commit_step(self, WriteBatch batch, tuple keyspaces, dict memtables) except -1
