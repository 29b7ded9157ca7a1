"""Ranges of keys in which a scan found nothing to show, compiled. The twin `_gaps_py` is the
specification, and says why it is sound.

Guarantees: nothing here raises for want of memory; what has none is not noted.

Thread safety: every call holds the GIL from its first to its last instruction, so PUTs and scans
take turns.
"""
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

from holdfast.cursor._cursor_c cimport bytes_data, compare_keys

from holdfast.base import SEQ_MAX

cdef enum:
    GAPS_MAX = 32
    GAP_KEY_BYTES_MAX = 1024
    GAP_ENTRIES_MIN = 16

cdef uint64_t ENTRIES_MAX = <uint64_t>1 << 62


cdef inline bint _is_behind(const unsigned char* key, Py_ssize_t size, const unsigned char* upper,
                            Py_ssize_t upper_size) noexcept nogil:
    return upper_size >= 0 and compare_keys(key, size, upper, upper_size) >= 0


cdef bint _make(Gap* gap, const unsigned char* lower, Py_ssize_t lower_size, bint is_after,
                const unsigned char* upper, Py_ssize_t upper_size) noexcept nogil:
    """Give a gap bounds of its own; with `is_after` the lower one is the successor of `lower`.
    Return whether there was memory.
    """
    cdef Py_ssize_t size = lower_size + is_after
    # Safety: bounds have at most GAP_KEY_BYTES_MAX bytes. One byte more, so that it is not 0.
    cdef unsigned char* block = <unsigned char*>malloc(
        <size_t>(size + (upper_size if upper_size > 0 else 0) + 1))
    if block == NULL:
        return False
    if lower_size > 0:
        memcpy(block, lower, <size_t>lower_size)
    if is_after:
        block[lower_size] = 0
    if upper_size > 0:
        memcpy(block + size, upper, <size_t>upper_size)
    gap.lower = block
    gap.lower_size = size
    gap.upper = block + size
    gap.upper_size = upper_size
    return True


@cython.final
@cython.no_gc
cdef class Gaps:
    """The gaps of one tree."""

    def __dealloc__(self):
        while self._count > 0:
            self._remove(self._count - 1)

    def __len__(self):
        """Return the number of gaps."""
        return self._count

    cdef void _remove(self, int place) noexcept:
        # Safety: place < count <= GAPS_MAX.
        free(self._gaps[place].lower)
        self._count -= 1
        memmove(&self._gaps[place], &self._gaps[place + 1],
                <size_t>(self._count - place) * sizeof(Gap))

    cdef void _insert(self, int place, const Gap* gap) noexcept:
        # Safety: place <= count < GAPS_MAX.
        memmove(&self._gaps[place + 1], &self._gaps[place],
                <size_t>(self._count - place) * sizeof(Gap))
        self._gaps[place] = gap[0]
        self._count += 1

    cdef void c_note_put(self, const unsigned char* key, Py_ssize_t size, uint64_t seq) noexcept:
        cdef Gap* gap
        cdef int low = 0
        cdef int high = self._count
        cdef int middle
        if seq > self._newest:
            self._newest = seq
        if high == 0:
            return
        # Most often the key is new and behind all others.
        gap = &self._gaps[high - 1]
        if _is_behind(key, size, gap.upper, gap.upper_size):
            return
        # The last gap that begins at or before the key.
        while low < high:
            middle = (low + high) // 2
            gap = &self._gaps[middle]
            if compare_keys(gap.lower, gap.lower_size, key, size) <= 0:
                low = middle + 1
            else:
                high = middle
        if low > 0:
            gap = &self._gaps[low - 1]
            if not _is_behind(key, size, gap.upper, gap.upper_size):
                self._cut(low - 1, key, size)

    cdef void _cut(self, int place, const unsigned char* key, Py_ssize_t size) noexcept:
        """Leave of a gap what a PUT of a key in it leaves."""
        cdef Gap old = self._gaps[place]
        cdef Gap part
        cdef int at = place
        cdef bint is_full = self._count == GAPS_MAX
        self._count -= 1
        memmove(&self._gaps[place], &self._gaps[place + 1],
                <size_t>(self._count - place) * sizeof(Gap))
        part.seq = old.seq
        part.entries = old.entries // 2
        # One byte more is the successor of the key.
        if size < GAP_KEY_BYTES_MAX and part.entries >= GAP_ENTRIES_MIN:
            if (compare_keys(old.lower, old.lower_size, key, size) < 0
                    and _make(&part, old.lower, old.lower_size, False, key, size)):
                self._insert(at, &part)
                at += 1
            if (not (is_full and at > place)
                    and _make(&part, key, size, True, old.upper, old.upper_size)):
                if _is_behind(part.lower, part.lower_size, part.upper, part.upper_size):
                    free(part.lower)
                else:
                    self._insert(at, &part)
        free(old.lower)

    cdef bint c_note_gap(self, const unsigned char* lower, Py_ssize_t lower_size,
                         const unsigned char* upper, Py_ssize_t upper_size, uint64_t seq,
                         uint64_t entries) noexcept:
        cdef Gap whole
        cdef Gap* gap
        cdef int first = 0
        cdef int last
        cdef int place
        cdef int least = 0
        if self._newest > seq or entries < GAP_ENTRIES_MIN:
            return False
        if lower_size > GAP_KEY_BYTES_MAX or upper_size > GAP_KEY_BYTES_MAX:
            return False
        if _is_behind(lower, lower_size, upper, upper_size):
            return False
        # Those from first to before last overlap or touch it.
        while first < self._count:
            gap = &self._gaps[first]
            if (gap.upper_size < 0
                    or compare_keys(gap.upper, gap.upper_size, lower, lower_size) >= 0):
                break
            first += 1
        last = first
        while last < self._count:
            gap = &self._gaps[last]
            if (upper_size >= 0
                    and compare_keys(gap.lower, gap.lower_size, upper, upper_size) > 0):
                break
            seq = max(seq, gap.seq)
            entries = min(entries + gap.entries, ENTRIES_MAX)
            last += 1
        if first < last:
            gap = &self._gaps[first]
            if compare_keys(gap.lower, gap.lower_size, lower, lower_size) < 0:
                lower, lower_size = gap.lower, gap.lower_size
            gap = &self._gaps[last - 1]
            if upper_size >= 0 and (
                    gap.upper_size < 0
                    or compare_keys(gap.upper, gap.upper_size, upper, upper_size) > 0):
                upper, upper_size = gap.upper, gap.upper_size
        if not _make(&whole, lower, lower_size, False, upper, upper_size):
            return False
        whole.seq = seq
        whole.entries = entries
        while last > first:
            last -= 1
            self._remove(last)
        if self._count == GAPS_MAX:
            for place in range(1, GAPS_MAX):
                if self._gaps[place].entries < self._gaps[least].entries:
                    least = place
            self._remove(least)
            if least < first:
                first -= 1
        self._insert(first, &whole)
        return True

    cdef const Gap* c_gap_at(self, const unsigned char* key, Py_ssize_t size,
                             uint64_t snapshot) noexcept:
        cdef int place
        cdef const Gap* gap
        for place in range(self._count):
            gap = &self._gaps[place]
            if compare_keys(gap.lower, gap.lower_size, key, size) > 0:
                return NULL
            if not _is_behind(key, size, gap.upper, gap.upper_size):
                return gap if gap.seq <= snapshot else NULL
        return NULL

    cdef const Gap* c_gap_before(self, const unsigned char* key, Py_ssize_t size,
                                 uint64_t snapshot) noexcept:
        cdef int place
        cdef const Gap* gap
        for place in range(self._count):
            gap = &self._gaps[place]
            if size >= 0 and compare_keys(gap.lower, gap.lower_size, key, size) >= 0:
                return NULL
            if gap.upper_size < 0 or (
                    size >= 0 and compare_keys(key, size, gap.upper, gap.upper_size) <= 0):
                return gap if gap.seq <= snapshot else NULL
        return NULL

    def note_put(self, key: bytes, seq: int):
        """Cut the gap that `key` lies in. To be called before a reader can see the PUT."""
        _check_bytes(key)
        self.c_note_put(bytes_data(key), PyBytes_GET_SIZE(key), _checked_seq(seq))

    def note_gap(self, lower: bytes, upper: bytes | None, seq: int, entries: int):
        """Take the word of a scan with the snapshot `seq` that it passed so many `entries` in
        [lower, upper) and saw no row. Return whether it was taken.
        """
        cdef const unsigned char* end = NULL
        cdef Py_ssize_t size = -1
        cdef uint64_t number
        _check_bytes(lower)
        if upper is not None:
            _check_bytes(upper)
            end, size = bytes_data(upper), PyBytes_GET_SIZE(upper)
        number = _checked_seq(seq)
        if entries < 0:
            raise ValueError(f"the count of entries is {entries}; it must not be negative")
        return bool(self.c_note_gap(bytes_data(lower), PyBytes_GET_SIZE(lower), end, size, number,
                                    min(entries, ENTRIES_MAX)))

    def clear(self, seq: int):
        """Forget all gaps, because keys came with numbers up to `seq` that nobody noted. As
        `note_put`, before a reader can see them.
        """
        cdef uint64_t number = _checked_seq(seq)
        if number > self._newest:
            self._newest = number
        while self._count > 0:
            self._remove(self._count - 1)

    def gap_at(self, key: bytes, snapshot: int):
        """Return the gap that `key` lies in, for a reader with this snapshot, or None."""
        _check_bytes(key)
        return _bounds(self.c_gap_at(bytes_data(key), PyBytes_GET_SIZE(key), snapshot))

    def gap_before(self, key: bytes | None, snapshot: int):
        """Return the gap that reaches up to `key` from below, or over it. None is behind all."""
        if key is None:
            return _bounds(self.c_gap_before(NULL, -1, snapshot))
        _check_bytes(key)
        return _bounds(self.c_gap_before(bytes_data(key), PyBytes_GET_SIZE(key), snapshot))


cdef object _bounds(const Gap* gap):
    if gap == NULL:
        return None
    upper = None
    if gap.upper_size >= 0:
        upper = PyBytes_FromStringAndSize(<const char*>gap.upper, gap.upper_size)
    return PyBytes_FromStringAndSize(<const char*>gap.lower, gap.lower_size), upper


cdef int _check_bytes(object key) except -1:
    if type(key) is not bytes:
        raise TypeError(f"a key is bytes, not {type(key).__name__}")
    return 0


cdef uint64_t _checked_seq(object seq) except? 0:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    if not 0 <= seq <= SEQ_MAX:
        raise ValueError(f"the sequence number {seq} does not fit 56 bits")
    return seq
