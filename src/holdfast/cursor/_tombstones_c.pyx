"""Range tombstones: the compiled twin of `_tombstones_py`, which specifies them.

A set is a short list of trees over its sequence numbers, older trees first. A leaf holds the ranges
of one sequence number; an inner block holds the union of its children's ranges, coalesced. The
question "which is the newest tombstone over this key, not newer than the snapshot" descends only
into blocks whose union covers the key. Memory is O(n log n) ranges at worst, whatever way the
ranges overlap: fragmenting n nested ranges would need O(n^2).

Blocks are immutable, counted and shared between sets. Adding a tombstone that is newer than all
others pushes a leaf and joins trees of equal size, as a binary counter carries, so n additions cost
O(n log n). (Bentley and Saxe, "Decomposable searching problems I", 1980.) A set that is built at
once is one tree.

Thread safety: sets are immutable. Blocks are counted under the interpreter lock.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from holdfast.cursor._cursor_c cimport bytes_data, compare_keys

from holdfast.base import SEQ_MAX

# More than trees can exist: all but the first have sizes that are distinct powers of two.
cdef int ROOTS_MAX = 72


cdef struct Span:
    const unsigned char* start
    Py_ssize_t start_size
    const unsigned char* stop
    Py_ssize_t stop_size


cdef struct Block:
    Py_ssize_t users
    uint64_t seq_min
    Py_ssize_t leaf_count
    Py_ssize_t span_count
    Py_ssize_t own_span_count     # of the leaves beneath, before coalescing
    Block* older                  # NULL in a leaf
    Block* newer
    Span* spans                   # behind the block; the keys are behind the spans of the leaves


cdef Block* _make_leaf(uint64_t seq, list spans) except NULL:
    """Return a new leaf. Requires: (start, stop), sorted, neither overlapping nor touching."""
    cdef size_t size = sizeof(Block) + len(spans) * sizeof(Span)
    cdef Block* block
    cdef unsigned char* target
    cdef Span* span
    cdef bytes start
    cdef bytes stop
    for start, stop in spans:
        size += PyBytes_GET_SIZE(start) + PyBytes_GET_SIZE(stop)
    block = <Block*>malloc(size)
    if block == NULL:
        raise MemoryError()
    block.users = 1
    block.seq_min = seq
    block.leaf_count = 1
    block.span_count = len(spans)
    block.own_span_count = len(spans)
    block.older = NULL
    block.newer = NULL
    block.spans = <Span*>(block + 1)
    # Safety: the sizes written here are those that were added up above.
    target = <unsigned char*>(block.spans + block.span_count)
    span = block.spans
    for start, stop in spans:
        span.start = target
        span.start_size = PyBytes_GET_SIZE(start)
        memcpy(target, PyBytes_AS_STRING(start), span.start_size)
        target += span.start_size
        span.stop = target
        span.stop_size = PyBytes_GET_SIZE(stop)
        memcpy(target, PyBytes_AS_STRING(stop), span.stop_size)
        target += span.stop_size
        span += 1
    return block


cdef inline bint _starts_first(const Span* a, const Span* b) noexcept nogil:
    return compare_keys(a.start, a.start_size, b.start, b.start_size) <= 0


cdef inline bint _stops_last(const Span* a, const Span* b) noexcept nogil:
    return compare_keys(a.stop, a.stop_size, b.stop, b.stop_size) > 0


cdef Block* _join(Block* older, Block* newer) except NULL:
    """Return a new block over two, which it takes over. They stay the caller's when MemoryError is
    raised.
    """
    cdef Block* block = <Block*>malloc(
        sizeof(Block) + (older.span_count + newer.span_count) * sizeof(Span))
    cdef Span* last
    cdef Span* taken
    cdef Py_ssize_t a = 0
    cdef Py_ssize_t b = 0
    if block == NULL:
        raise MemoryError()
    block.users = 1
    block.seq_min = older.seq_min
    block.leaf_count = older.leaf_count + newer.leaf_count
    block.own_span_count = older.own_span_count + newer.own_span_count
    block.older = older
    block.newer = newer
    block.spans = <Span*>(block + 1)
    block.span_count = 0
    last = NULL
    # Safety: at most one span is written for each span read.
    while a < older.span_count or b < newer.span_count:
        if b == newer.span_count or (
                a < older.span_count and _starts_first(&older.spans[a], &newer.spans[b])):
            taken = &older.spans[a]
            a += 1
        else:
            taken = &newer.spans[b]
            b += 1
        if last != NULL and compare_keys(
                taken.start, taken.start_size, last.stop, last.stop_size) <= 0:
            if _stops_last(taken, last):
                last.stop = taken.stop
                last.stop_size = taken.stop_size
        else:
            last = &block.spans[block.span_count]
            last[0] = taken[0]
            block.span_count += 1
    return block


cdef void _release(Block* block) noexcept:
    block.users -= 1
    if block.users == 0:
        # Trees are balanced, so the depth is logarithmic.
        if block.older != NULL:
            _release(block.older)
            _release(block.newer)
        free(block)


cdef Block* _make_tree(Block** leaves, Py_ssize_t count) except NULL:
    """Return a tree over leaves, oldest first, each of which it takes over and replaces by NULL.
    Requires: count > 0.
    """
    cdef Block* older
    cdef Block* newer
    cdef Block* tree
    if count == 1:
        tree = leaves[0]
        leaves[0] = NULL
        return tree
    older = _make_tree(leaves, count // 2)
    try:
        newer = _make_tree(leaves + count // 2, count - count // 2)
        try:
            return _join(older, newer)
        except MemoryError:
            _release(newer)
            raise
    except MemoryError:
        _release(older)
        raise


cdef bint _covers(const Block* block, const unsigned char* key, Py_ssize_t size) noexcept nogil:
    """Return whether the union of the block's ranges has the key."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = block.span_count
    cdef Py_ssize_t middle
    # Safety: low <= middle < high <= span_count.
    while low < high:
        middle = (low + high) // 2
        if compare_keys(block.spans[middle].start, block.spans[middle].start_size, key, size) <= 0:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return False
    return compare_keys(key, size, block.spans[low - 1].stop, block.spans[low - 1].stop_size) < 0


cdef uint64_t _newest(const Block* block, const unsigned char* key, Py_ssize_t size,
                      uint64_t snapshot) noexcept nogil:
    """Return the highest sequence number <= snapshot of a leaf that has the key, 0 when there is
    none.
    """
    cdef uint64_t found
    if block.seq_min > snapshot or not _covers(block, key, size):
        return 0
    if block.older == NULL:
        return block.seq_min
    found = _newest(block.newer, key, size, snapshot)
    if found != 0:
        return found
    return _newest(block.older, key, size, snapshot)


cdef bint _meets(const Block* block, const unsigned char* lower, Py_ssize_t lower_size,
                 const unsigned char* upper, Py_ssize_t upper_size) noexcept nogil:
    """Return whether the union of the block's ranges has a key of [lower, upper)."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = block.span_count
    cdef Py_ssize_t middle
    if lower != NULL:
        # The first range that does not end before `lower`. Safety: low <= middle < high.
        while low < high:
            middle = (low + high) // 2
            if compare_keys(block.spans[middle].stop, block.spans[middle].stop_size,
                            lower, lower_size) <= 0:
                low = middle + 1
            else:
                high = middle
    if low == block.span_count:
        return False
    return upper == NULL or compare_keys(
        block.spans[low].start, block.spans[low].start_size, upper, upper_size) < 0


cdef uint64_t _newest_over(const Block* block, const unsigned char* lower, Py_ssize_t lower_size,
                           const unsigned char* upper, Py_ssize_t upper_size) noexcept nogil:
    """Return the highest sequence number of a leaf that has a key of [lower, upper), 0 when there
    is none.
    """
    cdef uint64_t found
    if not _meets(block, lower, lower_size, upper, upper_size):
        return 0
    if block.older == NULL:
        return block.seq_min
    found = _newest_over(block.newer, lower, lower_size, upper, upper_size)
    if found != 0:
        return found
    return _newest_over(block.older, lower, lower_size, upper, upper_size)


cdef int _collect(const Block* block, list found) except -1:
    """Append (start, stop, seq) of every leaf."""
    cdef Py_ssize_t index
    cdef const Span* span
    if block.older != NULL:
        _collect(block.older, found)
        _collect(block.newer, found)
        return 0
    for index in range(block.span_count):
        span = &block.spans[index]
        start = PyBytes_FromStringAndSize(<const char*>span.start, span.start_size)
        stop = PyBytes_FromStringAndSize(<const char*>span.stop, span.stop_size)
        found.append((start, stop, block.seq_min))
    return 0


cdef list _joined(list spans):
    """Return the union of some ranges as sorted ranges that neither overlap nor touch."""
    cdef list joined = []
    low = high = None
    for start, stop in sorted(spans):
        if low is None:
            low, high = start, stop
        elif start <= high:
            high = max(high, stop)
        else:
            joined.append((low, high))
            low, high = start, stop
    if low is not None:
        joined.append((low, high))
    return joined


cdef int _check_key(object key) except -1:
    if type(key) is not bytes:
        raise TypeError(f"a key is bytes, not {type(key).__name__}")
    return 0


cdef int _check(object start, object stop, object seq) except -1:
    _check_key(start)
    _check_key(stop)
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 < seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} is not in 1..{SEQ_MAX}")
    return 0


def _by_start(each):
    return each[0], -each[2]


@cython.final
@cython.no_gc
cdef class RangeTombstones:
    """An immutable set of range tombstones. A tombstone whose start is not less than its stop is
    ignored.

    Raises: TypeError for a field of the wrong type; ValueError for a sequence number outside
    1..SEQ_MAX.
    """

    def __cinit__(self, tombstones=()) -> None:
        cdef dict by_seq = {}
        cdef Block** leaves
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t index
        for start, stop, seq in tombstones:
            _check(start, stop, seq)
            if start < stop:
                by_seq.setdefault(seq, []).append((start, stop))
        if not by_seq:
            return
        leaves = <Block**>malloc(len(by_seq) * sizeof(Block*))
        if leaves == NULL:
            raise MemoryError()
        try:
            for seq in sorted(by_seq):
                leaves[count] = _make_leaf(seq, _joined(by_seq[seq]))
                count += 1
            self.roots[0] = _make_tree(leaves, count)
            self.root_count = 1
            self.fragment_count = self.roots[0].own_span_count
        finally:
            for index in range(count):
                if leaves[index] != NULL:
                    _release(leaves[index])
            free(leaves)

    def __dealloc__(self) -> None:
        cdef int index
        for index in range(self.root_count):
            _release(self.roots[index])

    def __len__(self) -> int:
        """Return the number of tombstones in canonical form."""
        return self.fragment_count

    cdef uint64_t c_cover(self, const unsigned char* key, Py_ssize_t size,
                          uint64_t snapshot) noexcept nogil:
        cdef int index
        cdef uint64_t found
        for index in range(self.root_count - 1, -1, -1):
            found = _newest(self.roots[index], key, size, snapshot)
            if found != 0:
                return found
        return 0

    def cover(self, key: bytes, snapshot: int) -> int:
        """Return the highest sequence number <= snapshot of a tombstone over `key`, 0 when there is
        none.
        """
        _check_key(key)
        if snapshot < 0:
            return 0
        return self.c_cover(bytes_data(key), PyBytes_GET_SIZE(key), min(snapshot, SEQ_MAX))

    def seqs_covering(self, key: bytes) -> list[int]:
        """Return the sequence numbers of all tombstones over `key`, highest first."""
        _check_key(key)
        cdef list found = []
        cdef uint64_t snapshot = SEQ_MAX
        while True:
            snapshot = self.c_cover(bytes_data(key), PyBytes_GET_SIZE(key), snapshot)
            if snapshot == 0:
                return found
            found.append(snapshot)
            snapshot -= 1

    cdef uint64_t c_newest_over(self, const unsigned char* lower, Py_ssize_t lower_size,
                                const unsigned char* upper, Py_ssize_t upper_size) noexcept:
        cdef int index
        cdef uint64_t found
        if lower != NULL and upper != NULL and compare_keys(
                lower, lower_size, upper, upper_size) >= 0:
            return 0
        for index in range(self.root_count - 1, -1, -1):
            found = _newest_over(self.roots[index], lower, lower_size, upper, upper_size)
            if found != 0:
                return found
        return 0

    def newest_over(self, lower: bytes | None, upper: bytes | None) -> int:
        """Return the highest sequence number of a tombstone over a part of [lower, upper), 0 when
        there is none. None is unbounded.
        """
        return self.c_newest_over(
            NULL if lower is None else bytes_data(lower),
            0 if lower is None else PyBytes_GET_SIZE(lower),
            NULL if upper is None else bytes_data(upper),
            0 if upper is None else PyBytes_GET_SIZE(upper))

    def with_added(self, start: bytes, stop: bytes, seq: int) -> RangeTombstones:
        """Return a set that has one tombstone more. Quickest when `seq` is above all others."""
        cdef RangeTombstones added
        cdef Block* joined
        cdef Block** roots
        cdef int index
        _check(start, stop, seq)
        if start >= stop:
            return self
        if self.root_count == 0 or seq <= self._seq_max() or self.root_count >= ROOTS_MAX:
            return RangeTombstones(self.tombstones() + [(start, stop, seq)])
        added = RangeTombstones.__new__(RangeTombstones)
        for index in range(self.root_count):
            added.roots[index] = self.roots[index]
            added.roots[index].users += 1
        added.root_count = self.root_count
        # Safety: root_count < ROOTS_MAX.
        added.roots[added.root_count] = _make_leaf(seq, [(start, stop)])
        added.root_count += 1
        added.fragment_count = self.fragment_count + 1
        while added.root_count > 1:
            roots = &added.roots[added.root_count - 2]
            if roots[0].leaf_count > roots[1].leaf_count:
                break
            joined = _join(roots[0], roots[1])
            roots[0] = joined
            added.root_count -= 1
        return added

    cdef uint64_t _seq_max(self) noexcept:
        """Return the highest sequence number. Requires: the set is not empty."""
        cdef const Block* block = self.roots[self.root_count - 1]
        while block.older != NULL:
            block = block.newer
        return block.seq_min

    def merged(self, others) -> RangeTombstones:
        """Return the union of this set and the others."""
        return RangeTombstones([each for one in (self, *others) for each in one.tombstones()])

    def clipped(self, lower: bytes | None, upper: bytes | None) -> RangeTombstones:
        """Return what the tombstones delete of the keys in [lower, upper). None is unbounded."""
        cdef list clipped = []
        for start, stop, seq in self.tombstones():
            clipped.append((start if lower is None else max(start, lower),
                            stop if upper is None else min(stop, upper), seq))
        return RangeTombstones(clipped)

    def tombstones(self) -> list[tuple[bytes, bytes, int]]:
        """Return the canonical tombstones, by start ascending, then sequence number descending."""
        cdef list found = []
        cdef int index
        for index in range(self.root_count):
            _collect(self.roots[index], found)
        found.sort(key=_by_start)
        return found

    def bounds(self) -> tuple[bytes, bytes] | None:
        """Return (least start, greatest stop), or None when the set is empty."""
        cdef int index
        cdef Block* block
        cdef const Span* least = NULL
        cdef const Span* last = NULL
        for index in range(self.root_count):
            block = self.roots[index]
            # Safety: no block is empty.
            if least == NULL or _starts_first(&block.spans[0], least):
                least = &block.spans[0]
            if last == NULL or _stops_last(&block.spans[block.span_count - 1], last):
                last = &block.spans[block.span_count - 1]
        if least == NULL:
            return None
        return (PyBytes_FromStringAndSize(<const char*>least.start, least.start_size),
                PyBytes_FromStringAndSize(<const char*>last.stop, last.stop_size))
