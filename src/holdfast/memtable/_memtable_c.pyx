"""The memtable: the compiled twin of `_memtable_py`, which specifies it.

The entries are a doubly linked list in internal order, in an arena, and never move or go away: a
reader's pointers stay valid while the memtable lives, and a cursor only follows the list. Over the
list lies an index that only searches use, a B+-tree of pages in the same arena. On tables larger
than the caches a search is a chain of cache misses, of which a tree of wide pages has three or four
where a skip list has a dozen (measured: half the time of a skip list).

A page holds eight bytes of each key as a number, taken behind the bytes that all keys between the
page's fences share, so that a search touches a key only when those eight bytes are equal. (Fences
and truncated keys in slots: Graefe, "Modern B-tree techniques", 2011.)

Invariants:
 1. `first` and `next` list all entries in internal order; `last` and `back` the same backwards.
 2. The leaves hold all entries in the same order. The node of a page's child n > 0 is the first
    entry under it. The node of child 0 counts as before everything: smaller entries may have come
    under that child.
 3. The *fences* of a page are the nodes nearest to the path that leads to it, on either side; one
    that does not exist shares nothing. Every key under the page, and every key sought there, lies
    between them, so it starts with the `skip` bytes that the fences share.
 4. An entry is linked only after all of it is written, and its key never changes.
 5. `finger_page.nodes[finger_place]` is the latest insertion. An insertion that follows it
    directly, as appends in key order do, needs two comparisons and no search.

Thread safety: every method holds the interpreter lock for its whole length. Writers are serialised
by the caller.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove

from holdfast.cursor._cursor_c cimport (
    Cursor, Run, add_row, bytes_data, compare_entries, compare_keys, key_prefix,
)
from holdfast.cursor._tombstones_c cimport RangeTombstones

from holdfast.base import KEY_BYTES_MAX, SEQ_MAX, VALUE_BYTES_MAX, LimitError
from holdfast.memtable._memtable_py import ENTRY_BYTES, REPLACED_BYTES, TOMBSTONE_BYTES

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define HOLDFAST_PREFETCH(address) __builtin_prefetch(address)
    #else
    #define HOLDFAST_PREFETCH(address) ((void)(address))
    #endif

    #if defined(__linux__)
    #include <stdint.h>
    #include <sys/mman.h>
    #endif
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
    /* Returns zeroed memory of a size that is a power of two, aligned to it, in huge pages where
       the kernel has some, or NULL. */
    static unsigned char* holdfast_map_huge(size_t size)
    {
        unsigned char* start = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        size_t before;
        if (start == MAP_FAILED) {
            return NULL;
        }
        before = (size - ((uintptr_t)start & (size - 1))) & (size - 1);
        if (before > 0) {
            (void)munmap(start, before);
        }
        (void)munmap(start + before + size, size - before);
        (void)madvise(start + before, size, MADV_HUGEPAGE);
        return start + before;
    }
    static void holdfast_unmap_huge(unsigned char* start, size_t size)
    {
        (void)munmap(start, size);
    }
    #define HOLDFAST_CHUNK_BYTES (1 << 21)
    #else
    #define HOLDFAST_CHUNK_BYTES 0
    static unsigned char* holdfast_map_huge(size_t size)
    {
        (void)size;
        return NULL;
    }
    static void holdfast_unmap_huge(unsigned char* start, size_t size)
    {
        (void)start;
        (void)size;
    }
    #endif
    /* Writes to each page of memory, the smallest of which have 4 KiB: the first touch is what has
       the kernel find and clear it. */
    static void holdfast_touch(volatile unsigned char* start, size_t size)
    {
        size_t place;
        for (place = 0; place < size; place += 4096) {
            start[place] = 0;
        }
    }
    """
    unsigned char* holdfast_map_huge(size_t size) noexcept nogil
    void holdfast_unmap_huge(unsigned char* start, size_t size) noexcept nogil
    void holdfast_touch(unsigned char* start, size_t size) noexcept nogil
    enum:
        HOLDFAST_CHUNK_BYTES         # CHUNK_MAX where holdfast_map_huge gives memory
    void HOLDFAST_PREFETCH(const void* address) noexcept nogil

cdef enum:
    FANOUT = 64                      # the length of a page's arrays in the .pxd
    DEPTH_MAX = 16                   # far more than 2 ** 48 entries need
    CHUNK_MIN = 4096
    CHUNK_MAX = 1 << 21              # a huge page of most processors
    BIG = CHUNK_MAX // 4             # an allocation of this size has a chunk of its own

cdef uint64_t SEQ_LIMIT = SEQ_MAX
cdef Py_ssize_t KEY_LIMIT = KEY_BYTES_MAX
cdef Py_ssize_t VALUE_LIMIT = VALUE_BYTES_MAX
cdef Py_ssize_t ENTRY_OVERHEAD = ENTRY_BYTES
cdef Py_ssize_t REPLACED_OVERHEAD = REPLACED_BYTES
cdef Py_ssize_t TOMBSTONE_OVERHEAD = TOMBSTONE_BYTES


cdef inline const unsigned char* _key(const Node* node) noexcept nogil:
    return <const unsigned char*>(node + 1)


cdef inline bint _precedes(const Node* node, const unsigned char* key, Py_ssize_t size,
                           uint64_t trailer) noexcept nogil:
    """Return whether the node is before (key, trailer) in internal order."""
    # Safety: a node's key bytes lie behind it.
    return compare_entries(_key(node), node.key_size, node.trailer, key, size, trailer) < 0


cdef inline bint _precedes_node(const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                                const Node* node) noexcept nogil:
    """Return whether (key, trailer) is before the node and has another sequence number."""
    cdef int order = compare_keys(key, size, _key(node), node.key_size)
    return order < 0 or (order == 0 and trailer >> 8 > node.trailer >> 8)


cdef inline bint _has_key(const Node* node, const unsigned char* key,
                          Py_ssize_t size) noexcept nogil:
    return <Py_ssize_t>node.key_size == size and memcmp(_key(node), key, size) == 0


cdef inline void _prefetch(const Node* node) noexcept nogil:
    """Have a node on its way from memory while the caller uses the one before it. Any address is
    harmless.
    """
    HOLDFAST_PREFETCH(node)
    HOLDFAST_PREFETCH(<const unsigned char*>node + 64)
    HOLDFAST_PREFETCH(<const unsigned char*>node + 128)


cdef inline Page** _children(Page* page) noexcept nogil:
    # Safety: only called with pages of level > 0, which have their children behind them.
    return <Page**>(page + 1)


cdef inline uint64_t _prefix_in(const Page* page, const unsigned char* key,
                                Py_ssize_t size) noexcept nogil:
    # Safety: by invariant 3 the key has the bytes skipped; a shorter one would read nothing.
    return key_prefix(key + page.skip, size - page.skip)


cdef inline int _rank(const Page* page, const unsigned char* key, Py_ssize_t size,
                      uint64_t trailer) noexcept nogil:
    """Return the number of the page's nodes that are before (key, trailer).

    Above the leaves the first node counts as before everything, so that child number rank - 1 is
    the one to go to.
    """
    cdef uint64_t prefix = _prefix_in(page, key, size)
    cdef int low = 1 if page.level > 0 else 0
    cdef int high
    cdef int middle
    cdef int left = page.count - low
    # Safety: low + left <= count throughout.
    while left > 0:
        middle = left >> 1
        if page.prefixes[low + middle] < prefix:
            low += middle + 1
            left -= middle + 1
        else:
            left = middle
    if low == page.count or page.prefixes[low] != prefix:
        return low
    high = low + 1
    while high < page.count and page.prefixes[high] == prefix:
        high += 1
    while low < high:
        middle = (low + high) >> 1
        if _precedes(page.nodes[middle], key, size, trailer):
            low = middle + 1
        else:
            high = middle
    return low


cdef void _put_item(Page* page, int place, Node* node, Page* child) noexcept nogil:
    """Insert a node, and its child above the leaves. Requires: the page is not full and place <=
    count.
    """
    cdef int behind = page.count - place
    # Safety: count < FANOUT, so one item more fits.
    memmove(&page.prefixes[place + 1], &page.prefixes[place], behind * sizeof(uint64_t))
    memmove(&page.nodes[place + 1], &page.nodes[place], behind * sizeof(Node*))
    page.prefixes[place] = _prefix_in(page, _key(node), node.key_size)
    page.nodes[place] = node
    if page.level > 0:
        memmove(&_children(page)[place + 1], &_children(page)[place], behind * sizeof(Page*))
        _children(page)[place] = child
    page.count += 1


cdef void _set_fences(Page* page, const Node* lower, const Node* upper) noexcept nogil:
    """Note the bytes that two fences share, either of which may be NULL, and take the prefixes
    behind them.
    """
    cdef Py_ssize_t skip = 0
    cdef Py_ssize_t limit
    cdef int place
    if lower != NULL and upper != NULL:
        limit = lower.key_size if lower.key_size < upper.key_size else upper.key_size
        while skip < limit and _key(lower)[skip] == _key(upper)[skip]:
            skip += 1
    page.skip = skip
    for place in range(page.count):
        page.prefixes[place] = _prefix_in(page, _key(page.nodes[place]), page.nodes[place].key_size)


cdef void _descend(Page* page, const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                   Path* path) noexcept nogil:
    """Note the way to the place of (key, trailer). Requires: fewer than DEPTH_MAX levels."""
    cdef Node* lower = NULL
    cdef Node* upper = NULL
    cdef int level
    cdef int place
    # Above the root there is nothing to note, but _index looks there when the root is full.
    path.places[page.level + 1] = 0
    for level in range(page.level, -1, -1):
        # Safety: above the leaves the rank is at least 1, so the place is that of a child.
        place = _rank(page, key, size, trailer) - (1 if level > 0 else 0)
        path.pages[level] = page
        path.places[level] = place
        path.lower[level] = lower
        path.upper[level] = upper
        if level > 0:
            if place > 0:
                lower = page.nodes[place]
            if place + 1 < page.count:
                upper = page.nodes[place + 1]
            page = _children(page)[place]


cdef bint _has_small_follower(const Path* path, int depth) noexcept nogil:
    """Return whether the leaf behind that of a path of `depth` pages is less than half full."""
    cdef int level = 1
    cdef Page* page
    while level < depth and path.places[level] + 1 >= path.pages[level].count:
        level += 1
    if level >= depth:
        return False
    # Safety: the place of the next child was just compared with the count.
    page = _children(path.pages[level])[path.places[level] + 1]
    while page.level > 0:
        page = _children(page)[0]
    return page.count < FANOUT // 2


cdef void _split(Page* page, Page* right, const Node* lower, const Node* upper, int cut, int place,
                 Node* item, Page* child) noexcept nogil:
    """Move the end of a full page, from `cut` on, to an empty one; insert an item at a place."""
    # Safety: a full page has FANOUT items, of which FANOUT - cut move.
    right.count = FANOUT - cut
    page.count = cut
    memcpy(right.nodes, &page.nodes[cut], right.count * sizeof(Node*))
    if page.level > 0:
        memcpy(_children(right), &_children(page)[cut], right.count * sizeof(Page*))
    _set_fences(right, item if cut == FANOUT else right.nodes[0], upper)
    if place <= cut < FANOUT:
        _set_fences(page, lower, right.nodes[0])
        _put_item(page, place, item, child)
    else:
        _put_item(right, place - cut, item, child)
        _set_fences(page, lower, right.nodes[0])


cdef int _check_bytes(object value, str role) except -1:
    if type(value) is not bytes:
        raise TypeError(f"a {role} is bytes, not {type(value).__name__}")
    return 0


cdef uint64_t _checked_seq(object seq) except? 0:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 < seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} is not in 1..{SEQ_MAX}")
    return seq


@cython.final
@cython.no_gc
cdef class SpareChunks:
    """Memory of memtables that are gone, for those to come. See the plain twin."""

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk of a large memtable, or 0 where `prepare` can make none ready."""
        return HOLDFAST_CHUNK_BYTES

    def __dealloc__(self) -> None:
        self.bytes_max = 0
        self._trim()

    cdef unsigned char* c_take(self) noexcept:
        cdef Spare* chunk = self.first
        if chunk != NULL:
            self.first = chunk.next
            self.bytes_held -= CHUNK_MAX
        return <unsigned char*>chunk

    cdef void c_give(self, unsigned char* data) noexcept:
        # Safety: a chunk is larger than a Spare, and nobody else has it.
        cdef Spare* chunk = <Spare*>data
        chunk.next = self.first
        self.first = chunk
        self.bytes_held += CHUNK_MAX
        self._trim()

    cdef void _trim(self) noexcept:
        while self.bytes_held > self.bytes_max:
            holdfast_unmap_huge(self.c_take(), CHUNK_MAX)

    def keep(self, Py_ssize_t bytes_max) -> None:
        """Hold at most this much from now on; what is more goes back to the system."""
        self.bytes_max = max(bytes_max, 0)
        self._trim()

    def prepare(self) -> bool:
        """Hold one chunk more that the kernel cleared already. See the plain twin."""
        cdef unsigned char* data = NULL
        if self.bytes_held + CHUNK_MAX > self.bytes_max:
            return False
        with nogil:
            data = holdfast_map_huge(CHUNK_MAX)
            if data != NULL:
                holdfast_touch(data, CHUNK_MAX)
        if data == NULL:
            return False
        # The limit may be lower by now: then the chunk goes back to the system.
        self.c_give(data)
        return True


@cython.final
@cython.no_gc
cdef class Memtable:
    """An ordered table in memory. See the plain twin."""

    def __cinit__(self, gaps: Gaps | None = None, spare: SpareChunks | None = None) -> None:
        self.gaps = Gaps() if gaps is None else gaps
        self.spare = spare
        self.range_tombstones = RangeTombstones()
        self.chunk_size = CHUNK_MIN
        self.root = self._allocate_page(0)
        self.finger_page = self.root
        self.finger_place = 0

    def __dealloc__(self) -> None:
        cdef Py_ssize_t index
        for index in range(self.chunk_count):
            if not self.chunks[index].is_mapped:
                free(self.chunks[index].data)
            elif self.spare is not None:
                self.spare.c_give(self.chunks[index].data)
            else:
                holdfast_unmap_huge(self.chunks[index].data, CHUNK_MAX)
        free(self.chunks)

    cdef unsigned char* _allocate(self, Py_ssize_t size) except NULL:
        """Return `size` bytes, 8-byte aligned, that live as long as the memtable."""
        cdef unsigned char* block = NULL
        cdef bint is_mapped = False
        cdef Chunk* grown
        cdef Py_ssize_t chunk_size
        size = (size + 7) & ~<Py_ssize_t>7
        if size <= self.free_size:
            block = self.free_start
            self.free_start += size
            self.free_size -= size
            return block
        if self.chunk_count == self.chunk_room:
            grown = <Chunk*>realloc(self.chunks, (2 * self.chunk_room + 8) * sizeof(Chunk))
            if grown == NULL:
                raise MemoryError()
            self.chunks = grown
            self.chunk_room = 2 * self.chunk_room + 8
        chunk_size = size
        if size < BIG:
            while self.chunk_size < 4 * size:
                self.chunk_size *= 2
            chunk_size = self.chunk_size
        if size < BIG and chunk_size == CHUNK_MAX:
            # A table of this size is larger than what the processor knows the places of when it
            # lies in pages of 4 KiB, so half of the time of an insertion went into finding them.
            if self.spare is not None:
                block = self.spare.c_take()
            if block == NULL:
                block = holdfast_map_huge(CHUNK_MAX)
            is_mapped = block != NULL
        if block == NULL:
            block = <unsigned char*>malloc(chunk_size)
        if block == NULL:
            raise MemoryError()
        self.chunks[self.chunk_count].data = block
        self.chunks[self.chunk_count].is_mapped = is_mapped
        self.chunk_count += 1
        if size < BIG:
            self.free_start = block + size
            self.free_size = chunk_size - size
            if self.chunk_size < CHUNK_MAX:
                self.chunk_size *= 2
        return block

    cdef Page* _allocate_page(self, int level) except NULL:
        """Return an empty page."""
        cdef Page* page = <Page*>self._allocate(
            sizeof(Page) + (FANOUT * sizeof(Page*) if level > 0 else 0))
        page.count = 0
        page.level = level
        page.skip = 0
        return page

    cdef Node* _allocate_node(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                              const unsigned char* value, Py_ssize_t value_size) except NULL:
        """Return a new entry that is not in the list. Requires: sizes within the limits."""
        # Safety: the limits keep the sum from overflowing, and it is what is written below.
        cdef Node* node = <Node*>self._allocate(sizeof(Node) + key_size + value_size)
        cdef unsigned char* target = <unsigned char*>(node + 1)
        memcpy(target, key, key_size)
        # A deletion has no value: its pointer is NULL, which memcpy may not be given.
        if value_size > 0:
            memcpy(target + key_size, value, value_size)
        node.trailer = trailer
        node.value = target + key_size
        node.key_size = <uint32_t>key_size
        node.value_size = <uint32_t>value_size
        return node

    cdef Node* _find(self, const unsigned char* key, Py_ssize_t size,
                     uint64_t trailer) noexcept nogil:
        """Return the first entry >= (key, trailer) or NULL."""
        cdef Page* page = self.root
        cdef int place
        while page.level > 0:
            # Safety: a page above the leaves is not empty, so its rank is at least 1.
            page = _children(page)[_rank(page, key, size, trailer) - 1]
        place = _rank(page, key, size, trailer)
        if place < page.count:
            return page.nodes[place]
        # Safety: only the root of an empty table is an empty page.
        return page.nodes[place - 1].next if place > 0 else NULL

    cdef void _link(self, Node* node, Node* before, Node* following) noexcept:
        """Put an entry into the list between two neighbours; NULL is the end of the list."""
        # The neighbours are written and not read, so that nothing waits for their memory.
        node.back = before
        node.next = following
        if following == NULL:
            self.last = node
        else:
            following.back = node
        if before == NULL:
            self.first = node
        else:
            before.next = node

    cdef Node* _insert(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                       const unsigned char* value, Py_ssize_t value_size) except NULL:
        """Return the entry with this key and sequence number, a new one when there is none.

        Nothing is changed when there is one or when memory runs out.
        """
        cdef Path path
        cdef Page* fresh[DEPTH_MAX]
        cdef Page* leaf
        cdef Node* node
        cdef Node* before
        cdef Node* following
        cdef int depth = self.root.level + 1
        cdef int full = 0
        cdef int place
        if depth >= DEPTH_MAX:
            raise MemoryError()
        _descend(self.root, key, key_size, trailer | 0xFF, &path)
        leaf = path.pages[0]
        place = path.places[0]
        if place == leaf.count:
            following = leaf.nodes[place - 1].next if place > 0 else NULL
        else:
            following = leaf.nodes[place]
        if (following != NULL
                and (place == leaf.count or leaf.prefixes[place] == _prefix_in(leaf, key, key_size))
                and following.trailer >> 8 == trailer >> 8 and _has_key(following, key, key_size)):
            return following
        if place > 0:
            before = leaf.nodes[place - 1]
        else:
            before = following.back if following != NULL else NULL

        # All memory is had before anything changes.
        while full < depth and path.pages[full].count == FANOUT:
            fresh[full] = self._allocate_page(full)
            full += 1
        if full == depth:
            fresh[full] = self._allocate_page(full)
        node = self._allocate_node(key, key_size, trailer, value, value_size)
        self._link(node, before, following)
        self._index(node, &path, fresh, full)
        self.entry_count += 1
        return node

    cdef void _index(self, Node* node, const Path* path, Page** fresh, int full) noexcept:
        """Put an entry into the index. `full` pages of the path, from the leaf up, are full and
        get a fresh right neighbour; when all are, the last fresh page is the new root.
        """
        cdef Node* item = node
        cdef Page* child = NULL
        cdef Page* right
        cdef int place = path.places[0]
        cdef int depth = self.root.level + 1
        cdef int level, cut
        for level in range(full):
            right = fresh[level]
            # Appends leave a full page behind, and elsewhere it is halved. So it is before a small
            # leaf: keys that descend would begin one after the other there, each with one key.
            cut = FANOUT // 2
            if place == FANOUT and (level > 0 or not _has_small_follower(path, depth)):
                cut = FANOUT
            _split(path.pages[level], right, path.lower[level], path.upper[level], cut, place, item,
                   child)
            if level == 0:
                # The left page has the first entries of the two, the right one the others.
                self.finger_page = path.pages[0]
                self.finger_place = place
                if place >= path.pages[0].count:
                    self.finger_page = right
                    self.finger_place = place - path.pages[0].count
            item = right.nodes[0]
            child = right
            place = path.places[level + 1] + 1
        if full == 0:
            self.finger_page = path.pages[0]
            self.finger_place = place
        if full <= self.root.level:
            _put_item(path.pages[full], place, item, child)
        else:
            _put_item(fresh[full], 0, self.root.nodes[0], self.root)
            _put_item(fresh[full], 1, item, child)
            self.root = fresh[full]

    cdef int _check_writable(self) except -1:
        if self.frozen:
            raise ValueError("memtable is frozen")
        return 0

    cdef void _count_seq(self, uint64_t seq) noexcept:
        if self.seq_min == 0 or seq < self.seq_min:
            self.seq_min = seq
        if seq > self.seq_max:
            self.seq_max = seq

    cdef int c_put(self, uint64_t seq, int kind, const unsigned char* key, Py_ssize_t key_size,
                   const unsigned char* value, Py_ssize_t value_size) except -1:
        cdef uint64_t trailer = seq << 8 | <uint64_t>kind
        cdef uint64_t newest = seq << 8 | 0xFF
        cdef Page* page = self.finger_page
        cdef Node* node
        cdef Node* finger
        cdef unsigned char* block
        cdef Py_ssize_t count
        self._check_writable()
        if seq == 0 or seq > SEQ_LIMIT:
            raise ValueError(f"the sequence number {seq} is not in 1..{SEQ_MAX}")
        if kind != 0 and kind != 1 and kind != 3:
            raise ValueError(f"a point entry has kind 0, 1 or 3, not {kind}")
        if key_size > KEY_LIMIT:
            raise LimitError(f"the key has {key_size} bytes; the limit is {KEY_LIMIT}")
        if value_size > VALUE_LIMIT:
            raise LimitError(f"the value has {value_size} bytes; the limit is {VALUE_LIMIT}")
        if kind != 0:
            self.gaps.c_note_put(key, key_size, seq)

        # Safety: count < FANOUT is checked, and the finger's place is taken in a table that is not
        # empty.
        if 0 < page.count < FANOUT:
            finger = page.nodes[self.finger_place]
            if (_precedes(finger, key, key_size, newest)
                    and (finger.next == NULL
                         or _precedes_node(key, key_size, trailer, finger.next))):
                node = self._allocate_node(key, key_size, trailer, value, value_size)
                self._link(node, finger, finger.next)
                self.finger_place += 1
                _put_item(page, self.finger_place, node, NULL)
                self.entry_count += 1
                self.bytes_used += key_size + value_size + ENTRY_OVERHEAD
                self._count_seq(seq)
                return 0

        count = self.entry_count
        node = self._insert(key, key_size, trailer, value, value_size)
        if self.entry_count > count:
            self.bytes_used += key_size + value_size + ENTRY_OVERHEAD
            self._count_seq(seq)
            return 0
        # The old value stays where it is: a cursor may still show it.
        block = self._allocate(value_size)
        if value_size > 0:
            memcpy(block, value, value_size)
        node.value = block
        node.value_size = <uint32_t>value_size
        node.trailer = trailer
        self.bytes_used += value_size + REPLACED_OVERHEAD
        return 0

    cdef int c_make_room(self, Py_ssize_t count, Py_ssize_t size) except -1:
        cdef int level = self.root.level
        # Each entry begins at a multiple of 8.
        cdef Py_ssize_t more = (size + 7 & ~<Py_ssize_t>7) + count * <Py_ssize_t>(sizeof(Node) + 8)
        if level > 0 or self.root.count + count > FANOUT:
            # At worst each entry finds all pages of its way full. With so few, one level is added.
            more += count * (level + 2) * <Py_ssize_t>(sizeof(Page) + FANOUT * sizeof(Page*))
        if more <= self.free_size:
            return 1
        if more >= BIG:
            return 0
        self.free_start = self._allocate(more)
        self.free_size += more
        return 1

    cdef int c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t snapshot,
                   uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size) noexcept:
        cdef Node* node = self._find(key, key_size, snapshot << 8 | 0xFF)
        if node == NULL or not _has_key(node, key, key_size):
            return 0
        trailer[0] = node.trailer
        value[0] = node.value
        value_size[0] = node.value_size
        return 1

    def put(self, seq: int, kind: int, key: bytes, value: bytes) -> None:
        """Insert an entry, or replace the one with the same key and sequence number.

        Raises: ValueError when the memtable is frozen or a number is out of range; LimitError;
        TypeError.
        """
        self._check_writable()
        cdef uint64_t number = _checked_seq(seq)
        if kind not in (0, 1, 3):
            raise ValueError(f"a point entry has kind 0, 1 or 3, not {kind}")
        _check_bytes(key, "key")
        _check_bytes(value, "value")
        self.c_put(number, kind, bytes_data(key), PyBytes_GET_SIZE(key),
                   bytes_data(value), PyBytes_GET_SIZE(value))

    def delete_range(self, seq: int, start: bytes, stop: bytes) -> None:
        """Delete what is older than `seq` of the keys in [start, stop). Nothing happens when the
        range is empty.

        Raises: ValueError when the memtable is frozen or `seq` is out of range; LimitError;
        TypeError.
        """
        cdef uint64_t number
        self._check_writable()
        number = _checked_seq(seq)
        for key in (start, stop):
            _check_bytes(key, "key")
            if len(key) > KEY_BYTES_MAX + 1:
                raise LimitError(f"the key has {len(key)} bytes; the limit is {KEY_BYTES_MAX}")
        if start >= stop:
            return
        self.range_tombstones = self.range_tombstones.with_added(start, stop, seq)
        self.bytes_used += PyBytes_GET_SIZE(start) + PyBytes_GET_SIZE(stop) + TOMBSTONE_OVERHEAD
        self._count_seq(number)

    def get(self, key: bytes, snapshot: int) -> tuple[int, int, bytes] | None:
        """Return (seq, kind, value) of the newest version of `key` with seq <= snapshot, or None.

        Range tombstones are not looked at. Raises: TypeError.
        """
        cdef uint64_t trailer = 0
        cdef const unsigned char* value = NULL
        cdef Py_ssize_t value_size = 0
        _check_bytes(key, "key")
        if snapshot < 0:
            return None
        if not self.c_get(bytes_data(key), PyBytes_GET_SIZE(key),
                          min(snapshot, SEQ_MAX), &trailer, &value, &value_size):
            return None
        return (trailer >> 8, trailer & 0xFF,
                PyBytes_FromStringAndSize(<const char*>value, value_size))

    def overlaps(self, bytes lower, bytes upper) -> bool:
        """Return whether the range of the keys that it has now shares a key with [lower, upper);
        None is unbounded.
        """
        if self.first == NULL:
            return False
        # Safety: a table with a first entry has a last one.
        return ((upper is None or compare_keys(
                    _key(self.first), self.first.key_size,
                    bytes_data(upper), PyBytes_GET_SIZE(upper)) < 0)
                and (lower is None or compare_keys(
                    bytes_data(lower), PyBytes_GET_SIZE(lower),
                    _key(self.last), self.last.key_size) <= 0))

    def cursor(self) -> Cursor:
        """Return a cursor over the entries, which keeps the memtable alive and sees entries added
        later.
        """
        cdef MemtableCursor cursor = MemtableCursor.__new__(MemtableCursor)
        cursor.table = self
        return cursor

    def freeze(self) -> None:
        """Refuse all later writes with ValueError."""
        self.frozen = True


@cython.final
@cython.no_gc_clear
cdef class MemtableCursor(Cursor):
    """A cursor over a memtable: it follows the list of entries."""

    def __init__(self) -> None:
        raise TypeError("a memtable cursor comes from Memtable.cursor()")

    cdef int _stand(self, Node* node) noexcept nogil:
        # Safety: nodes live as long as `table`.
        if node == NULL:
            self.at = 0
            return 0
        self.node = node
        self.key_data = _key(node)
        self.key_size = node.key_size
        self.trailer = node.trailer
        self.value_data = node.value
        self.value_size = node.value_size
        self.at = 1
        return 1

    cdef int c_first(self) except -1:
        return self._stand(self.table.first)

    cdef int c_last(self) except -1:
        return self._stand(self.table.last)

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        return self._stand(self.table._find(key, size, trailer))

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        # No trailer is greater than the greatest, so what is before it is before every version of
        # the key.
        cdef Node* node = self.table._find(key, size, 0xFFFFFFFFFFFFFFFF)
        return self._stand(self.table.last if node == NULL else node.back)

    cdef int c_next(self) except -1:
        if not self.at or not self._stand(self.node.next):
            return 0
        _prefetch(self.node.next)
        return 1

    cdef int c_prev(self) except -1:
        if not self.at or not self._stand(self.node.back):
            return 0
        _prefetch(self.node.back)
        return 1

    cdef int c_run(self, Run* run, bint forward) except -1:
        cdef Node* node = self.node
        cdef Node* following = node.next if forward else node.back
        run.count = 0
        # Safety: nodes live as long as `table`, and so do values that were replaced.
        while following != NULL and run.count < run.room:
            _prefetch(following)
            add_row(run, _key(node), node.key_size, node.trailer, node.value, node.value_size)
            node = following
            following = node.next if forward else node.back
        self._stand(node)
        return run.count

    cdef int q_next(self) noexcept nogil:
        # A table that is not frozen may be written to by whoever has the GIL.
        if not self.at or self.node.next == NULL or not self.table.frozen:
            return 0
        self._stand(self.node.next)
        _prefetch(self.node.next)
        return 1
