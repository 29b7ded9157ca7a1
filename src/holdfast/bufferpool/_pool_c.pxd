from libc.stdint cimport uint8_t, uint32_t, uint64_t
from cpython.ref cimport PyObject


cdef class Ledger:
    # Bytes of pages that left the pool and are still held by somebody.
    cdef Py_ssize_t detached_bytes


cdef class Page:
    cdef const unsigned char* data       # Constant after construction
    cdef Py_ssize_t size
    cdef readonly int page_type
    cdef Ledger ledger                   # of the pool that counts this page, or None
    cdef bint resident                   # whether a frame of the pool holds it
    # for who made the page: whether its structure was found to be sound
    cdef bint checked
    # for who made the page: where it was last found to belong, 0: nowhere yet
    cdef uint64_t place
    # for who made the page: what speeds up its use, a malloc'd buffer that is freed with the page
    cdef void* directory
    # what the page is charged beside its body: the size of the directory
    cdef Py_ssize_t extra

    # Take over what `body_new` gave: freed with the page, or at once when there is no memory for
    # one.
    @staticmethod
    cdef Page adopt(unsigned char* data, Py_ssize_t size, int page_type)


cdef struct Node:
    # What a hit touches stands together.
    PyObject* page                       # an owned reference; NULL in a ghost
    uint64_t file_number
    uint64_t offset
    uint8_t queue
    uint8_t hits
    uint32_t older                       # neighbours in the queue, 0: none
    uint32_t younger
    uint32_t file_previous               # neighbours in the bucket of the file, 0: none
    uint32_t file_next
    Py_ssize_t charge


cdef struct Queue:
    uint32_t oldest
    uint32_t youngest
    Py_ssize_t charge
    Py_ssize_t count


cdef class BufferPool:
    cdef readonly Py_ssize_t capacity_bytes
    cdef readonly Py_ssize_t reserved_bytes
    cdef readonly uint64_t hits
    cdef readonly uint64_t misses
    cdef public uint64_t tables_skipped  # by scans whose prefix a filter denied
    cdef readonly uint64_t evictions
    cdef Ledger ledger
    cdef Node* nodes                     # nodes[0] is unused: index 0 means none
    cdef uint32_t nodes_used             # nodes[1:nodes_used] were handed out at least once
    cdef uint32_t nodes_capacity
    cdef uint32_t free_node              # linked through `younger`
    cdef uint32_t node_count             # frames and ghosts
    cdef uint64_t* slots                 # hash tag << 32 | node index; 0 is empty
    cdef uint32_t slot_mask
    cdef Queue[5] queues
    cdef uint32_t[1024] file_buckets
    # The page, or None. Counts a hit or a miss.
    cdef Page c_get(self, uint64_t file_number, uint64_t offset)
    cdef int c_put(self, uint64_t file_number, uint64_t offset, Page page, bint pinned) except -1
    # The index of a frame or ghost, or 0. It stays that of the key until the frame goes: who keeps
    # one compares the node's file number and what the page says of its place.
    cdef uint32_t find(self, uint64_t file_number, uint64_t offset) noexcept
    # Give the page of a frame its directory, and charge it. Others make room at once, so the caller
    # holds the page.
    cdef void give_directory(self, uint32_t index, void* directory, Py_ssize_t size) noexcept
    cdef int make_room_for_a_node(self) except -1
    cdef void insert(self, uint64_t file_number, uint64_t offset, Page page, Py_ssize_t charge,
                     int queue, int hits) noexcept
    cdef void remove(self, uint32_t index) noexcept
    cdef void detach(self, Node* node) noexcept
    cdef void link(self, uint32_t index, int queue) noexcept
    cdef void unlink(self, uint32_t index) noexcept
    cdef Py_ssize_t frames_charge(self) noexcept
    cdef Py_ssize_t room(self) noexcept
    cdef void shrink_to(self, Py_ssize_t target) noexcept
    cdef void evict_one(self) noexcept
    cdef void trim_ghosts(self) noexcept
