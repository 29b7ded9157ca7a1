cimport cython
from libc.stdint cimport uint32_t, uint64_t

from holdfast.cursor._cursor_c cimport Cursor
from holdfast.cursor._tombstones_c cimport RangeTombstones


# Private. A link to the next node of a level: with the node's key_prefix, so that most search steps need not touch
# the node. The last link of a level has node NULL and the highest prefix.
cdef struct Link:
    uint64_t prefix
    Node* node


# Private. One entry: its links lie in front of it, level 0 last, and its key behind it.
cdef struct Node:
    uint64_t trailer
    const unsigned char* value       # behind the key, or elsewhere in the arena once replaced
    Node* back                       # the previous node of level 0, or the head
    uint32_t key_size
    uint32_t value_size


@cython.final
@cython.no_gc
cdef class Memtable:
    cdef readonly Py_ssize_t bytes_used
    cdef readonly Py_ssize_t entry_count
    cdef readonly uint64_t seq_min
    cdef readonly uint64_t seq_max
    cdef readonly bint frozen
    cdef readonly RangeTombstones range_tombstones
    # Private: the arena.
    cdef unsigned char** chunks
    cdef Py_ssize_t chunk_count
    cdef Py_ssize_t chunk_room
    cdef unsigned char* free_start
    cdef Py_ssize_t free_size
    cdef Py_ssize_t chunk_size
    # Private: the skip list.
    cdef Node* head
    cdef Node* tail                  # the last node, or the head
    cdef Node* finger[12]            # the nodes before the place behind the last insertion, of each level
    cdef int height
    cdef uint64_t random

    # Insert PUT or DELETE. Copies key and value. An equal (key, seq) replaces.
    # Raises MemoryError with nothing inserted.
    cdef int c_put(self, uint64_t seq, int kind, const unsigned char* key, Py_ssize_t key_size,
                   const unsigned char* value, Py_ssize_t value_size) except -1
    # Newest version with seq <= snapshot. Return 1 and fill the outputs, or 0.
    # The value stays valid while the memtable lives.
    cdef int c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t snapshot,
                   uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size) noexcept

    cdef unsigned char* _allocate(self, Py_ssize_t size) except NULL
    cdef int _new_height(self) noexcept
    cdef Node* _find(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                     Node** before) noexcept nogil
    cdef int _check_writable(self) except -1
    cdef void _count_seq(self, uint64_t seq) noexcept


@cython.final
@cython.no_gc_clear
cdef class MemtableCursor(Cursor):
    cdef Memtable table
    cdef Node* node
    cdef int _stand(self, Node* node) noexcept
