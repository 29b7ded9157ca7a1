"""The memtable: the compiled twin of `_memtable_py`, which specifies it.

A skip list (Pugh, "Skip lists: a probabilistic alternative to balanced trees", 1990) whose nodes live in an arena
and never move or go away, so that a reader's pointers stay valid while the memtable lives. A node's links lie in
front of it and its key behind it, so that a search step touches one or two cache lines. The first eight key bytes
are kept as a number, which decides most comparisons without touching the key.

Invariants:
 1. On each level the nodes are in internal order; level 0 has all of them, level n + 1 a quarter of level n.
 2. A node is linked only after all of it is written, and its key and links' place never change.
 3. `finger[n]` is the last node of level n that is not behind the latest insertion. An insertion that follows it
    directly, as appends in key order do, needs two comparisons and no search.

Thread safety: every method holds the interpreter lock for its whole length. Writers are serialised by the caller.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from holdfast.cursor._cursor_c cimport Cursor, compare_entries, key_prefix
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
    """
    void HOLDFAST_PREFETCH(const void* address) noexcept nogil

cdef enum:
    HEIGHT_MAX = 12                  # enough for 4 ** 12 entries at full speed
    CHUNK_MIN = 4096
    CHUNK_MAX = 1 << 20
    BIG = CHUNK_MAX // 4             # an allocation of this size has a chunk of its own

cdef uint64_t PREFIX_MAX = 0xFFFFFFFFFFFFFFFF
cdef uint64_t SEED = 0x9E3779B97F4A7C15
cdef uint64_t SEQ_LIMIT = SEQ_MAX
cdef Py_ssize_t KEY_LIMIT = KEY_BYTES_MAX
cdef Py_ssize_t VALUE_LIMIT = VALUE_BYTES_MAX
cdef Py_ssize_t ENTRY_OVERHEAD = ENTRY_BYTES
cdef Py_ssize_t REPLACED_OVERHEAD = REPLACED_BYTES
cdef Py_ssize_t TOMBSTONE_OVERHEAD = TOMBSTONE_BYTES


cdef inline Link* _link(Node* node, int level) noexcept nogil:
    # Safety: only called with levels below the node's height; so many links lie in front of it.
    return (<Link*>node) - 1 - level


cdef inline const unsigned char* _key(const Node* node) noexcept nogil:
    return <const unsigned char*>(node + 1)


cdef inline bint _precedes(const Node* node, const unsigned char* key, Py_ssize_t size,
                           uint64_t trailer) noexcept nogil:
    """Return whether the node is before (key, trailer) in internal order. Requires: not the head."""
    # Safety: a node's key bytes lie behind it.
    return compare_entries(_key(node), node.key_size, node.trailer, key, size, trailer) < 0


cdef inline bint _has_key(const Node* node, const unsigned char* key, Py_ssize_t size) noexcept nogil:
    return <Py_ssize_t>node.key_size == size and memcmp(_key(node), key, size) == 0


cdef inline void _prefetch(const Node* node) noexcept nogil:
    """Have a node on its way from memory while the caller uses the one before it. Any address is harmless."""
    HOLDFAST_PREFETCH(node)
    HOLDFAST_PREFETCH(<const unsigned char*>node + 64)
    HOLDFAST_PREFETCH(<const unsigned char*>node + 128)


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
cdef class Memtable:
    """An ordered table in memory. See the plain twin."""

    def __cinit__(self) -> None:
        cdef int level
        self.range_tombstones = RangeTombstones()
        self.chunk_size = CHUNK_MIN
        self.random = SEED
        self.height = 1
        self.head = <Node*>(self._allocate(HEIGHT_MAX * sizeof(Link) + sizeof(Node))
                            + HEIGHT_MAX * sizeof(Link))
        memset(self.head, 0, sizeof(Node))
        for level in range(HEIGHT_MAX):
            _link(self.head, level).prefix = PREFIX_MAX
            _link(self.head, level).node = NULL
            self.finger[level] = self.head
        self.tail = self.head

    def __dealloc__(self) -> None:
        cdef Py_ssize_t index
        for index in range(self.chunk_count):
            free(self.chunks[index])
        free(self.chunks)

    cdef unsigned char* _allocate(self, Py_ssize_t size) except NULL:
        """Return `size` bytes, 8-byte aligned, that live as long as the memtable."""
        cdef unsigned char* block
        cdef unsigned char** grown
        cdef Py_ssize_t chunk_size
        size = (size + 7) & ~<Py_ssize_t>7
        if size <= self.free_size:
            block = self.free_start
            self.free_start += size
            self.free_size -= size
            return block
        if self.chunk_count == self.chunk_room:
            grown = <unsigned char**>realloc(self.chunks, (2 * self.chunk_room + 8) * sizeof(unsigned char*))
            if grown == NULL:
                raise MemoryError()
            self.chunks = grown
            self.chunk_room = 2 * self.chunk_room + 8
        chunk_size = size
        if size < BIG:
            while self.chunk_size < 4 * size:
                self.chunk_size *= 2
            chunk_size = self.chunk_size
        block = <unsigned char*>malloc(chunk_size)
        if block == NULL:
            raise MemoryError()
        self.chunks[self.chunk_count] = block
        self.chunk_count += 1
        if size < BIG:
            self.free_start = block + size
            self.free_size = chunk_size - size
            if self.chunk_size < CHUNK_MAX:
                self.chunk_size *= 2
        return block

    cdef int _new_height(self) noexcept:
        """Return a height: 1, and one more with probability 1/4 each. The same in every run."""
        # Marsaglia, "Xorshift RNGs", 2003.
        cdef uint64_t random = self.random
        cdef int height = 1
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        self.random = random
        random >>= 32
        while height < HEIGHT_MAX and random & 3 == 0:
            height += 1
            random >>= 2
        return height

    cdef Node* _find(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                     Node** before) noexcept nogil:
        """Return the first node >= (key, trailer) or NULL. Fill `before`, unless it is NULL, with the nodes before it."""
        cdef uint64_t prefix = key_prefix(key, size)
        cdef Node* node = self.head
        cdef Node* known = NULL      # a node that is not before (key, trailer)
        cdef Link* link
        cdef int level = self.height - 1
        while True:
            link = _link(node, level)
            if link.prefix < prefix or (
                    link.prefix == prefix and link.node != known and link.node != NULL
                    and _precedes(link.node, key, size, trailer)):
                node = link.node
                continue
            if before != NULL:
                # Safety: level < height <= HEIGHT_MAX.
                before[level] = node
            if level == 0:
                return link.node
            known = link.node
            level -= 1

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
        cdef uint64_t prefix
        cdef Node* node
        cdef Node* following
        cdef unsigned char* block
        cdef int height
        cdef int level
        self._check_writable()
        if seq == 0 or seq > SEQ_LIMIT:
            raise ValueError(f"the sequence number {seq} is not in 1..{SEQ_MAX}")
        if kind != 0 and kind != 1:
            raise ValueError(f"a point entry has kind 0 or 1, not {kind}")
        if key_size > KEY_LIMIT:
            raise LimitError(f"the key has {key_size} bytes; the limit is {KEY_LIMIT}")
        if value_size > VALUE_LIMIT:
            raise LimitError(f"the value has {value_size} bytes; the limit is {VALUE_LIMIT}")

        following = _link(self.finger[0], 0).node
        if not ((self.finger[0] == self.head or _precedes(self.finger[0], key, key_size, newest))
                and (following == NULL or not _precedes(following, key, key_size, newest))):
            following = self._find(key, key_size, newest, self.finger)
        if following != NULL and following.trailer >> 8 == seq and _has_key(following, key, key_size):
            # The old value stays where it is: a cursor may still show it.
            block = self._allocate(value_size)
            memcpy(block, value, value_size)
            following.value = block
            following.value_size = <uint32_t>value_size
            following.trailer = trailer
            self.bytes_used += value_size + REPLACED_OVERHEAD
            return 0

        height = self._new_height()
        # Safety: the sizes are limited above, so the sum does not overflow, and this is what is written below.
        block = self._allocate(height * sizeof(Link) + sizeof(Node) + key_size + value_size)
        node = <Node*>(block + height * sizeof(Link))
        node.trailer = trailer
        node.key_size = <uint32_t>key_size
        node.value_size = <uint32_t>value_size
        block = <unsigned char*>(node + 1)
        memcpy(block, key, key_size)
        memcpy(block + key_size, value, value_size)
        node.value = block + key_size
        node.back = self.finger[0]
        if following != NULL:
            following.back = node
        else:
            self.tail = node
        if height > self.height:
            # finger[level] is the head on every level that is not in use yet.
            self.height = height
        prefix = key_prefix(key, key_size)
        for level in range(height):
            _link(node, level)[0] = _link(self.finger[level], level)[0]
            _link(self.finger[level], level).prefix = prefix
            _link(self.finger[level], level).node = node
            self.finger[level] = node
        self.entry_count += 1
        self.bytes_used += key_size + value_size + ENTRY_OVERHEAD
        self._count_seq(seq)
        return 0

    cdef int c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t snapshot,
                   uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size) noexcept:
        cdef Node* node = self._find(key, key_size, snapshot << 8 | 0xFF, NULL)
        if node == NULL or not _has_key(node, key, key_size):
            return 0
        trailer[0] = node.trailer
        value[0] = node.value
        value_size[0] = node.value_size
        return 1

    def put(self, seq: int, kind: int, key: bytes, value: bytes) -> None:
        """Insert an entry, or replace the one with the same key and sequence number.

        Raises: ValueError when the memtable is frozen or a number is out of range; LimitError; TypeError.
        """
        self._check_writable()
        cdef uint64_t number = _checked_seq(seq)
        if kind not in (0, 1):
            raise ValueError(f"a point entry has kind 0 or 1, not {kind}")
        _check_bytes(key, "key")
        _check_bytes(value, "value")
        self.c_put(number, kind, <const unsigned char*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
                   <const unsigned char*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    def delete_range(self, seq: int, start: bytes, stop: bytes) -> None:
        """Delete what is older than `seq` of the keys in [start, stop). Nothing happens when the range is empty.

        Raises: ValueError when the memtable is frozen or `seq` is out of range; LimitError; TypeError.
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
        if not self.c_get(<const unsigned char*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
                          min(snapshot, SEQ_MAX), &trailer, &value, &value_size):
            return None
        return trailer >> 8, trailer & 0xFF, PyBytes_FromStringAndSize(<const char*>value, value_size)

    def cursor(self) -> Cursor:
        """Return a cursor over the entries, which keeps the memtable alive and sees entries added later."""
        cdef MemtableCursor cursor = MemtableCursor.__new__(MemtableCursor)
        cursor.table = self
        return cursor

    def freeze(self) -> None:
        """Refuse all later writes with ValueError."""
        self.frozen = True


@cython.final
@cython.no_gc_clear
cdef class MemtableCursor(Cursor):
    """A cursor over a memtable: the entries of level 0."""

    def __init__(self) -> None:
        raise TypeError("a memtable cursor comes from Memtable.cursor()")

    cdef int _stand(self, Node* node) noexcept:
        # Safety: nodes live as long as `table`; the head is never shown.
        if node == NULL or node == self.table.head:
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
        return self._stand(_link(self.table.head, 0).node)

    cdef int c_last(self) except -1:
        return self._stand(self.table.tail)

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        return self._stand(self.table._find(key, size, trailer, NULL))

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        # No trailer is greater than the greatest, so what is before it is before every version of the key.
        cdef Node* node = self.table._find(key, size, 0xFFFFFFFFFFFFFFFF, NULL)
        return self._stand(self.table.tail if node == NULL else node.back)

    cdef int c_next(self) except -1:
        if not self.at or not self._stand(_link(self.node, 0).node):
            return 0
        _prefetch(_link(self.node, 0).node)
        return 1

    cdef int c_prev(self) except -1:
        if not self.at or not self._stand(self.node.back):
            return 0
        _prefetch(self.node.back)
        return 1
