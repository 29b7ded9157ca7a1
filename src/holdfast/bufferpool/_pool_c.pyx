"""The buffer pool: the compiled twin of `_pool_py`, whose docstring defines the policy.

Frames and ghosts are nodes of one array, linked into queues by index, and found through one
open-addressing hash table of (hash tag, node index) words. A hit probes the table, compares one
node, adds to its counter and takes a reference.

Invariants:

1. Every node in use is in exactly one queue, in the bucket list of its file, and in the table; no
   other node is.
2. A node of SMALL, MAIN or PINNED owns a reference to its page; a ghost owns none.
3. A page with a ledger is resident in the pool of that ledger, or counted in `detached_bytes`.
4. The table is at most half full, so every probe ends.

Thread safety: every method may be called from any thread. None gives up the GIL, and freeing a page
runs no Python code.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from holdfast.codec._body_c cimport body_free, body_new, body_room_of

cdef enum:
    SMALL = 0
    MAIN = 1
    PINNED = 2
    GHOST = 3
    FREE = 4
    OVERHEAD = 192
    HITS_MAX = 3
    PROMOTE_HITS = 2
    FILE_BUCKETS = 1024
    NODES_FIRST = 64
    NODES_MAX = 0x40000000

PAGE_OVERHEAD_BYTES = OVERHEAD
BYTES_MAX = 1 << 62


cdef inline uint64_t hash_key(uint64_t file_number, uint64_t offset) noexcept nogil:
    cdef uint64_t mixed = file_number * <uint64_t>0x9E3779B97F4A7C15 + offset
    mixed = (mixed ^ (mixed >> 32)) * <uint64_t>0xD6E8FEB86659FD93
    return mixed ^ (mixed >> 32)


cdef inline Py_ssize_t charge_of(Page page) noexcept:
    """Return what a page is charged."""
    return <Py_ssize_t>body_room_of(<size_t>page.size) + page.extra + OVERHEAD


@cython.final
@cython.no_gc
cdef class Ledger:
    """Bytes of pages that left a pool and are still held by somebody."""


@cython.final
@cython.no_gc
cdef class Page:
    """One decoded page: immutable bytes and a page type. `bytes(page)`, `len(page)` and the buffer
    protocol work on it.

    It is charged to the one pool that it is put into, until it is freed.
    """

    def __cinit__(self, body, int page_type):
        cdef Py_buffer view
        cdef unsigned char* data
        self.page_type = page_type
        if body is None:
            # `adopt` fills in the rest; from Python None is refused by `__init__`.
            return
        PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
        data = <unsigned char*>body_new(<size_t>view.len)
        if data == NULL:
            PyBuffer_Release(&view)
            raise MemoryError
        memcpy(data, view.buf, view.len)
        self.data = data
        self.size = view.len
        PyBuffer_Release(&view)

    def __init__(self, body, page_type):
        if body is None:
            raise TypeError("memoryview: a bytes-like object is required, not 'NoneType'")

    def __dealloc__(self):
        body_free(<void*>self.data, <size_t>self.size)
        free(self.directory)
        if self.ledger is not None and not self.resident:
            self.ledger.detached_bytes -= charge_of(self)

    @staticmethod
    cdef Page adopt(unsigned char* data, Py_ssize_t size, int page_type):
        cdef Page page
        try:
            page = Page.__new__(Page, None, page_type)
        except BaseException:
            body_free(data, <size_t>size)
            raise
        page.data = data
        page.size = size
        return page

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.data, self.size, 1, flags)

    def __repr__(self):
        return f"<Page type {self.page_type}, {self.size} bytes>"


@cython.final
@cython.no_gc
cdef class BufferPool:
    """Pages by (file number, offset), within `capacity_bytes`. See the module for the policy."""

    def __cinit__(self, capacity_bytes):
        self.capacity_bytes = check_bytes(capacity_bytes, "capacity")
        self.ledger = Ledger()
        self.nodes = <Node*>malloc(NODES_FIRST * sizeof(Node))
        self.slots = <uint64_t*>calloc(2 * NODES_FIRST, sizeof(uint64_t))
        if self.nodes == NULL or self.slots == NULL:
            raise MemoryError
        # Safety: index 0 is read like any other; it never has a page.
        self.nodes[0].page = NULL
        self.nodes_used = 1
        self.nodes_capacity = NODES_FIRST
        self.slot_mask = 2 * NODES_FIRST - 1

    def __dealloc__(self):
        cdef uint32_t index
        for index in range(1, self.nodes_used):
            if self.nodes[index].queue != FREE:
                self.detach(&self.nodes[index])
        free(self.nodes)
        free(self.slots)

    @property
    def used_bytes(self):
        """What all pages are charged: the frames, and evicted pages that are still held."""
        return self.frames_charge() + self.ledger.detached_bytes

    @property
    def pinned_bytes(self):
        """What pinned frames are charged."""
        return self.queues[PINNED].charge

    @property
    def page_count(self):
        """The number of frames."""
        return self.queues[SMALL].count + self.queues[MAIN].count + self.queues[PINNED].count

    def get(self, uint64_t file_number, uint64_t offset):
        """Return the page, or None. Counts a hit or a miss."""
        return self.c_get(file_number, offset)

    def put(self, uint64_t file_number, uint64_t offset, Page page not None, bint pinned=False):
        """Keep `page` under this key, if it fits or is pinned.

        Raises: ValueError when the page is in this pool under another key, or belongs to another
        pool.
        """
        self.c_put(file_number, offset, page, pinned)

    def drop_file(self, uint64_t file_number):
        """Drop every frame and ghost of a file, pinned ones too."""
        cdef uint32_t index = self.file_buckets[file_number & (FILE_BUCKETS - 1)]
        cdef uint32_t following
        while index:
            following = self.nodes[index].file_next
            if self.nodes[index].file_number == file_number:
                self.remove(index)
            index = following

    def reserve(self, byte_count):
        """Add to the bytes that others use of the budget (negative: give back). Pages make room at
        once.

        Raises: ValueError when less than nothing would be reserved.
        """
        self.reserved_bytes = check_bytes(self.reserved_bytes + byte_count, "reservation")
        self.shrink_to(self.room())
        self.trim_ghosts()

    def resize(self, capacity_bytes):
        """Change the capacity. Pages make room at once."""
        self.capacity_bytes = check_bytes(capacity_bytes, "capacity")
        self.shrink_to(self.room())
        self.trim_ghosts()

    def keys(self):
        """Return the keys of all frames: SMALL oldest first, MAIN oldest first, then PINNED oldest
        first.
        """
        cdef int queue
        cdef uint32_t index
        cdef list found = []
        for queue in (SMALL, MAIN, PINNED):
            index = self.queues[queue].oldest
            while index:
                found.append((self.nodes[index].file_number, self.nodes[index].offset))
                index = self.nodes[index].younger
        return found

    cdef Page c_get(self, uint64_t file_number, uint64_t offset):
        cdef uint32_t index = self.find(file_number, offset)
        cdef Node* node = &self.nodes[index]
        if index == 0 or node.page == NULL:
            self.misses += 1
            return None
        self.hits += 1
        node.hits += node.hits < HITS_MAX
        return <Page>node.page

    cdef int c_put(self, uint64_t file_number, uint64_t offset, Page page, bint pinned) except -1:
        cdef uint32_t index = self.find(file_number, offset)
        cdef Py_ssize_t charge = charge_of(page)
        cdef Py_ssize_t fixed
        cdef int queue = SMALL
        cdef int hits = 0
        if page.ledger is not None and (page.ledger is not self.ledger or (
                page.resident and (index == 0 or self.nodes[index].page != <PyObject*>page))):
            raise ValueError("a page belongs to one pool and has one key there")
        # Whatever can fail comes before the first change.
        self.make_room_for_a_node()
        if index:
            if self.nodes[index].queue == GHOST:
                queue = MAIN
            elif self.nodes[index].queue != PINNED:
                queue = self.nodes[index].queue
                hits = self.nodes[index].hits
            self.remove(index)
        if pinned:
            queue = PINNED
        fixed = self.queues[PINNED].charge + self.ledger.detached_bytes
        if not pinned and (charge > self.room() // 4 or charge > self.room() - fixed):
            return 0
        self.shrink_to(self.room() - charge)
        if pinned or self.frames_charge() + self.ledger.detached_bytes + charge <= self.room():
            self.insert(file_number, offset, page, charge, queue, hits)
        return 0

    cdef uint32_t find(self, uint64_t file_number, uint64_t offset) noexcept:
        """Return the index of the node, or 0."""
        cdef uint64_t mixed = hash_key(file_number, offset)
        cdef uint32_t at = <uint32_t>mixed & self.slot_mask
        cdef uint64_t slot
        cdef Node* node
        # Safety: `at` is masked to the table, whose words hold indices of nodes in use; invariant 4
        # ends the loop.
        while True:
            slot = self.slots[at]
            if slot == 0:
                return 0
            if slot >> 32 == mixed >> 32:
                node = &self.nodes[<uint32_t>slot]
                if node.offset == offset and node.file_number == file_number:
                    return <uint32_t>slot
            at = (at + 1) & self.slot_mask

    cdef void give_directory(self, uint32_t index, void* directory, Py_ssize_t size) noexcept:
        cdef Node* node = &self.nodes[index]
        cdef Page page = <Page>node.page
        page.directory = directory
        page.extra = size
        node.charge += size
        self.queues[node.queue].charge += size
        self.shrink_to(self.room())

    cdef int make_room_for_a_node(self) except -1:
        """Make sure that `insert` finds a node and keeps the table at most half full.

        Raises: MemoryError.
        """
        cdef uint32_t capacity = 2 * self.nodes_capacity
        cdef Node* nodes
        cdef uint64_t* slots
        cdef uint64_t slot, mixed
        cdef uint32_t old_at, at
        cdef Node* node
        if self.free_node or self.nodes_used < self.nodes_capacity:
            return 0
        if capacity > NODES_MAX:
            raise MemoryError
        nodes = <Node*>realloc(self.nodes, capacity * sizeof(Node))
        if nodes == NULL:
            raise MemoryError
        self.nodes = nodes
        slots = <uint64_t*>calloc(2 * <size_t>capacity, sizeof(uint64_t))
        if slots == NULL:
            raise MemoryError
        # Safety: the new table has two words for every node there can be, so each probe finds an
        # empty one.
        for old_at in range(self.slot_mask + 1):
            slot = self.slots[old_at]
            if slot:
                node = &nodes[<uint32_t>slot]
                mixed = hash_key(node.file_number, node.offset)
                at = <uint32_t>mixed & (2 * capacity - 1)
                while slots[at]:
                    at = (at + 1) & (2 * capacity - 1)
                slots[at] = slot
        free(self.slots)
        self.slots = slots
        self.slot_mask = 2 * capacity - 1
        self.nodes_capacity = capacity
        return 0

    cdef void insert(self, uint64_t file_number, uint64_t offset, Page page, Py_ssize_t charge,
                     int queue, int hits) noexcept:
        """Make a frame. Requires: room for a node; the key has no node."""
        cdef uint32_t index = self.free_node
        cdef uint64_t mixed = hash_key(file_number, offset)
        cdef uint32_t at = <uint32_t>mixed & self.slot_mask
        cdef uint32_t* bucket = &self.file_buckets[file_number & (FILE_BUCKETS - 1)]
        cdef Node* node
        # Safety: make_room_for_a_node left a free node and an empty word in the table.
        if index:
            self.free_node = self.nodes[index].younger
        else:
            index = self.nodes_used
            self.nodes_used += 1
        node = &self.nodes[index]
        node.file_number = file_number
        node.offset = offset
        node.charge = charge
        node.hits = <uint8_t>hits
        node.file_previous = 0
        node.file_next = bucket[0]
        if bucket[0]:
            self.nodes[bucket[0]].file_previous = index
        bucket[0] = index
        while self.slots[at]:
            at = (at + 1) & self.slot_mask
        self.slots[at] = (mixed >> 32 << 32) | index
        self.link(index, queue)
        if page.ledger is None:
            page.ledger = self.ledger
        else:
            self.ledger.detached_bytes -= charge
        page.resident = True
        Py_INCREF(page)
        node.page = <PyObject*>page

    cdef void remove(self, uint32_t index) noexcept:
        """Take a node out of everything and free it."""
        cdef Node* node = &self.nodes[index]
        cdef uint32_t at = <uint32_t>hash_key(node.file_number, node.offset) & self.slot_mask
        cdef uint32_t hole, home
        cdef Node* other
        self.unlink(index)
        if node.file_previous:
            self.nodes[node.file_previous].file_next = node.file_next
        else:
            self.file_buckets[node.file_number & (FILE_BUCKETS - 1)] = node.file_next
        if node.file_next:
            self.nodes[node.file_next].file_previous = node.file_previous
        # Safety: the node is in the table (invariant 1), so the first loop ends; an empty word ends
        # the second.
        while <uint32_t>self.slots[at] != index:
            at = (at + 1) & self.slot_mask
        # Words behind the hole move back when the hole lies between their home and their place, so
        # no probe breaks off.
        hole = at
        while True:
            at = (at + 1) & self.slot_mask
            if self.slots[at] == 0:
                break
            other = &self.nodes[<uint32_t>self.slots[at]]
            home = <uint32_t>hash_key(other.file_number, other.offset) & self.slot_mask
            if ((at - home) & self.slot_mask) >= ((at - hole) & self.slot_mask):
                self.slots[hole] = self.slots[at]
                hole = at
        self.slots[hole] = 0
        node.queue = FREE
        node.younger = self.free_node
        self.free_node = index
        self.detach(node)

    cdef void detach(self, Node* node) noexcept:
        """Give up the page of a node, if it has one."""
        cdef PyObject* held = node.page
        if held != NULL:
            node.page = NULL
            (<Page>held).resident = False
            self.ledger.detached_bytes += node.charge
            Py_DECREF(<Page>held)

    cdef void link(self, uint32_t index, int queue) noexcept:
        """Put a node at the young end of a queue."""
        cdef Queue* target = &self.queues[queue]
        cdef Node* node = &self.nodes[index]
        node.queue = <uint8_t>queue
        node.older = target.youngest
        node.younger = 0
        if target.youngest:
            self.nodes[target.youngest].younger = index
        else:
            target.oldest = index
        target.youngest = index
        target.charge += node.charge
        target.count += 1

    cdef void unlink(self, uint32_t index) noexcept:
        cdef Node* node = &self.nodes[index]
        cdef Queue* source = &self.queues[node.queue]
        if node.older:
            self.nodes[node.older].younger = node.younger
        else:
            source.oldest = node.younger
        if node.younger:
            self.nodes[node.younger].older = node.older
        else:
            source.youngest = node.older
        source.charge -= node.charge
        source.count -= 1

    cdef Py_ssize_t frames_charge(self) noexcept:
        return self.queues[SMALL].charge + self.queues[MAIN].charge + self.queues[PINNED].charge

    cdef Py_ssize_t room(self) noexcept:
        if self.capacity_bytes <= self.reserved_bytes:
            return 0
        return self.capacity_bytes - self.reserved_bytes

    cdef void shrink_to(self, Py_ssize_t target) noexcept:
        while (self.frames_charge() + self.ledger.detached_bytes > target
               and (self.queues[SMALL].oldest or self.queues[MAIN].oldest)):
            self.evict_one()

    cdef void evict_one(self) noexcept:
        """Evict one page. Requires: SMALL or MAIN has a frame."""
        cdef uint32_t index
        cdef Node* node
        while True:
            index = self.queues[SMALL].oldest
            if index and (self.queues[SMALL].charge > self.room() // 10
                          or not self.queues[MAIN].oldest):
                node = &self.nodes[index]
                self.unlink(index)
                if node.hits < PROMOTE_HITS:
                    self.detach(node)
                    self.link(index, GHOST)
                    self.trim_ghosts()
                    break
                node.hits = 0
                self.link(index, MAIN)
            else:
                index = self.queues[MAIN].oldest
                node = &self.nodes[index]
                if node.hits == 0:
                    self.remove(index)
                    break
                self.unlink(index)
                node.hits -= 1
                self.link(index, MAIN)
        self.evictions += 1

    cdef void trim_ghosts(self) noexcept:
        cdef Py_ssize_t limit = self.room() - self.room() // 10
        while self.queues[GHOST].charge > limit:
            self.remove(self.queues[GHOST].oldest)


cdef Py_ssize_t check_bytes(object count, str role) except -1:
    if not 0 <= count <= BYTES_MAX:
        raise ValueError(f"the {role} is {count} bytes; it must lie between 0 and {BYTES_MAX}")
    return count
