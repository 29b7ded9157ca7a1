"""The compiled face of a transaction's workspace. The GIL is held; the turn serialises calls."""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from holdfast.memtable._memtable_c cimport Memtable
from holdfast.wal._buffer_c cimport WriteBatch


@cython.final
cdef class WorkState:
    cdef public uint64_t snapshot
    cdef public WriteBatch batch
    cdef public int64_t reads_left
    cdef public uint64_t next_own
    cdef public int depth
    cdef public int flags
    cdef public object guard
    cdef public set movers
    cdef uint64_t home
    # The last other thread that used it.
    cdef uint64_t mover
    cdef bint busy
    # What construction does.
    cdef void begin(self, uint64_t snapshot, WriteBatch batch, int64_t reads_left)
    # Take the turn. Raises RuntimeError when it is taken; whoever has it gives it back by `busy`.
    cdef int c_enter(self) except -1
    cdef int meet(self, uint64_t thread) except -1


cdef class WorkspaceCore:
    cdef public WorkState state
    cdef public uint32_t id
    cdef public object read_at
    cdef public set read_keys
    cdef public list tables
    cdef public int table_depth
    cdef public bint has_asked
    cdef public object source
    cdef public list ranges
    cdef public list scans
    cdef public dict merged
    # What construction does.
    cdef int begin(self, WorkState state, uint32_t keyspace_id, read_at, bint tracks) except -1
    # As `forget`.
    cdef int c_forget(self) except -1
    cdef object _find(self, key)
    cdef object _read(self, WorkState state, bytes key)
    cdef object _read_at_snapshot(self, WorkState state, bytes key)
    cdef Memtable _table(self, WorkState state)
    cdef int _write(self, int kind, bytes key, bytes value) except -1
    cdef int _write_given(self, WorkState state, Memtable table, WriteBatch given) except -1
