cimport cython
from libc.stdint cimport uint32_t, uint64_t

from holdfast.cursor._cursor_c cimport Cursor
from holdfast.cursor._gaps_c cimport Gaps
from holdfast.cursor._tombstones_c cimport RangeTombstones


# Private. One entry, its key behind it. The entries are a list in internal order.
cdef struct Node:
    uint64_t trailer
    const unsigned char* value       # behind the key, or elsewhere in the arena once replaced
    Node* next
    Node* back
    uint32_t key_size
    uint32_t value_size


# Private. One page of the index over the entries.
cdef struct Page:
    int count
    int level                        # 0 in a leaf
    Py_ssize_t skip                  # the first bytes that all keys of the page are known to share
    uint64_t prefixes[64]            # key_prefix of what follows the shared bytes
    Node* nodes[64]                  # the entries of a leaf, or the first entry under each child
    # In a page above the leaves: Page* children[64]


# Private. A piece of the arena.
cdef struct Chunk:
    unsigned char* data
    bint is_mapped                   # by holdfast_map_huge


# Private. The first bytes of a chunk that no memtable has.
cdef struct Spare:
    Spare* next


# Private. The way from the root to a place, by level.
cdef struct Path:
    Page* pages[16]
    int places[16]
    Node* lower[16]                  # the fences of each page
    Node* upper[16]


@cython.final
@cython.no_gc
cdef class SpareChunks:
    cdef readonly Py_ssize_t bytes_held
    cdef Py_ssize_t bytes_max        # private
    cdef Spare* first                # private; NULL when there is none

    # Return a chunk of CHUNK_MAX bytes by holdfast_map_huge, or NULL when there is none.
    cdef unsigned char* c_take(self) noexcept
    # Take a chunk back, to keep it or to give it to the system.
    cdef void c_give(self, unsigned char* data) noexcept
    cdef void _trim(self) noexcept


@cython.final
@cython.no_gc
cdef class Memtable:
    cdef readonly Py_ssize_t bytes_used
    cdef readonly Py_ssize_t entry_count
    cdef readonly uint64_t seq_min
    cdef readonly uint64_t seq_max
    cdef readonly bint frozen
    cdef readonly RangeTombstones range_tombstones
    cdef readonly Gaps gaps          # of the tree; constant after construction
    # Private: the arena.
    cdef SpareChunks spare           # or None
    cdef Chunk* chunks
    cdef Py_ssize_t chunk_count
    cdef Py_ssize_t chunk_room
    cdef unsigned char* free_start
    cdef Py_ssize_t free_size
    cdef Py_ssize_t chunk_size
    # Private: the entries and their index.
    cdef Node* first                 # NULL in an empty table
    cdef Node* last
    cdef Page* root
    cdef Page* finger_page           # the leaf and place of the latest insertion
    cdef int finger_place

    # Insert PUT, DELETE or MERGE. Copies key and value. An equal (key, seq) replaces.
    # Raises MemoryError with nothing inserted.
    cdef int c_put(self, uint64_t seq, int kind, const unsigned char* key, Py_ssize_t key_size,
                   const unsigned char* value, Py_ssize_t value_size) except -1
    # Have the memory for `count` new entries with `size` bytes of keys and values together, so that
    # none of them raises MemoryError. Return 0, with nothing done, when that would be too much at
    # once. Raises MemoryError.
    cdef int c_make_room(self, Py_ssize_t count, Py_ssize_t size) except -1
    # Newest version with seq <= snapshot. Return 1 and fill the outputs, or 0.
    # The value stays valid while the memtable lives.
    cdef int c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t snapshot,
                   uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size) noexcept

    cdef unsigned char* _allocate(self, Py_ssize_t size) except NULL
    cdef Page* _allocate_page(self, int level) except NULL
    cdef Node* _allocate_node(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                              const unsigned char* value, Py_ssize_t value_size) except NULL
    cdef Node* _find(self, const unsigned char* key, Py_ssize_t size,
                     uint64_t trailer) noexcept nogil
    cdef Node* _insert(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                       const unsigned char* value, Py_ssize_t value_size) except NULL
    cdef void _index(self, Node* node, const Path* path, Page** fresh, int full) noexcept
    cdef void _link(self, Node* node, Node* before, Node* following) noexcept
    cdef int _check_writable(self) except -1
    cdef void _count_seq(self, uint64_t seq) noexcept


@cython.final
@cython.no_gc_clear
cdef class MemtableCursor(Cursor):
    cdef Memtable table
    cdef Node* node
    cdef int _stand(self, Node* node) noexcept nogil
