"""Moves entries from a cursor into a table, compiled. The twin `_merge_py` is the specification.

An entry touches no Python object here: the cursor's memory goes straight into the builder's page.

Where the cursor and the builder need no interpreter for it, entries move without the GIL, as long
as nothing else is to be done: until a limit is reached, a MERGE comes, memory lacks, or the cursor
must read. Then one entry goes the long way, with the GIL. Winning the GIL back can take 5 ms beside
a busy thread, so it is let go only where that pays: after QUIET_STEPS entries in a row that did not
need it (docs/adr/0041).

A retention refuses a second merge while one runs, and a builder every other call.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from holdfast.cursor._cursor_c cimport Cursor, bytes_data, compare_keys
from holdfast.cursor._tombstones_c cimport RangeTombstones
from holdfast.sstable._builder_c cimport ADDED, TableBuilder

from holdfast.base import SEQ_MAX as _SEQ_MAX
from holdfast.compaction.retain import RUN_ENTRIES_MIN, MergeStop, awaits, merged_run, resolved
from holdfast.merge import Merges

cdef enum:
    KIND_DELETE = 0
    KIND_MERGE = 3

cdef enum:
    QUIET_STEPS = 32

cdef enum:
    DONE = 0
    DRAIN = 1
    CUT = 2
    YIELD = 3

cdef uint64_t SEQ_LAST = _SEQ_MAX


# Where a range of older data begins or ends.
cdef struct Bound:
    const unsigned char* key
    Py_ssize_t size


# Why entries move no longer without the GIL.
cdef enum:
    AT_ENTRY = 0             # the cursor's entry must be looked at
    AT_MOVE = 1              # the entry is done, and the cursor must be moved on


# When a merge stops.
cdef struct Limits:
    uint64_t target_bytes
    Py_ssize_t drain_bytes
    Py_ssize_t step_entries
    const unsigned char* stop
    Py_ssize_t stop_size


@cython.final
cdef class Retention:
    """What one merge knows about who can see what, kept from step to step and from table to table.

    `snapshots` are the live snapshots, ascending; `tombstones` those of all inputs; `bottom` says
    that nothing else holds older data of the merged keys, but for keys in the ranges of `older`,
    which are [lower, upper), ascending and disjoint. Without `merges` operands stay as they are.

    Raises: ValueError when the snapshots are not ascending sequence numbers, or the ranges not
    ascending.
    """

    cdef uint64_t* _snapshots
    cdef Py_ssize_t _snapshot_count
    cdef RangeTombstones _tombstones
    cdef bint _bottom
    cdef Bound* _bounds               # of the ranges with older data, lower and upper in turn
    cdef Py_ssize_t _bound_count
    cdef list _bound_keys             # keeps their bytes alive
    cdef bint _has_key                # an entry was read
    cdef unsigned char* _key          # the key of the last one
    cdef Py_ssize_t _key_size
    cdef Py_ssize_t _key_capacity
    cdef Py_ssize_t _stripe
    # Runs of operands, see the twin. Most merges have none.
    cdef bint _in_run                 # a run has begun, or what came of it is to be written
    cdef bint _is_based
    cdef list _run
    cdef list _above
    cdef list _made
    cdef Py_ssize_t _run_max
    cdef object _merges
    cdef bint _moving                 # the cursor is at work: an exception now is its own
    cdef readonly bint is_merging
    cdef readonly uint64_t entries_in
    cdef readonly uint64_t entries_out
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t bytes_out

    def __cinit__(self, snapshots, RangeTombstones tombstones not None, *, bint bottom,
                  older=(), merges=None):
        cdef list ordered = list(snapshots)
        cdef Py_ssize_t index
        if ordered != sorted(ordered):
            raise ValueError("snapshots must be ascending")
        if ordered and not 0 <= ordered[0] <= ordered[len(ordered) - 1] <= SEQ_LAST:
            raise ValueError("a snapshot is a sequence number of 56 bits")
        # One more than needed: malloc(0) may return NULL.
        self._snapshots = <uint64_t*>malloc((<size_t>len(ordered) + 1) * sizeof(uint64_t))
        if self._snapshots == NULL:
            raise MemoryError
        for index in range(len(ordered)):
            self._snapshots[index] = ordered[index]
        self._snapshot_count = len(ordered)
        self._merges = Merges() if merges is None else merges
        self._run = []
        self._above = []
        self._made = []
        self._run_max = RUN_ENTRIES_MIN
        self._tombstones = tombstones
        self._bottom = bottom
        cdef list bounds = []
        for lower, upper in older:
            if type(lower) is not bytes or type(upper) is not bytes:
                raise TypeError("a bound is bytes")
            bounds.append(lower)
            bounds.append(upper)
        if bounds != sorted(bounds):
            raise ValueError("the ranges of older data must be ascending")
        self._bound_keys = bounds
        self._bounds = <Bound*>malloc((<size_t>len(bounds) + 1) * sizeof(Bound))
        if self._bounds == NULL:
            raise MemoryError
        for index in range(len(bounds)):
            # Safety: `_bound_keys` never changes.
            self._bounds[index].key = bytes_data(bounds[index])
            self._bounds[index].size = PyBytes_GET_SIZE(bounds[index])
        self._bound_count = len(bounds)

    def __dealloc__(self):
        free(self._snapshots)
        free(self._bounds)
        free(self._key)

    @property
    def entries_dropped(self):
        """Entries that were left out so far."""
        return self.entries_in - self.entries_out

    cdef inline Py_ssize_t _stripe_of(self, uint64_t seq) noexcept nogil:
        """Return how many snapshots are less than seq."""
        cdef Py_ssize_t lower = 0
        cdef Py_ssize_t upper = self._snapshot_count
        cdef Py_ssize_t middle
        while lower < upper:
            middle = lower + (upper - lower) // 2
            # Safety: lower <= middle < upper <= count.
            if self._snapshots[middle] < seq:
                lower = middle + 1
            else:
                upper = middle
        return lower

    cdef inline bint _is_last_key(self, const unsigned char* key, Py_ssize_t size) noexcept nogil:
        # Safety: both keys have `size` bytes when memcmp looks.
        return (self._has_key and self._key_size == size
                and memcmp(self._key, key, <size_t>size) == 0)

    cdef inline bint _make_room(self, Py_ssize_t size) noexcept nogil:
        """Make room for a key of this size; `_key` is not NULL afterwards. Return whether there was
        memory.
        """
        cdef unsigned char* grown
        if size >= self._key_capacity:
            grown = <unsigned char*>realloc(self._key, <size_t>size * 2 + 64)
            if grown == NULL:
                return False
            self._key = grown
            self._key_capacity = size * 2 + 64
        return True

    cdef inline bint _is_covered(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                                 Py_ssize_t stripe) noexcept nogil:
        """Return whether everybody who sees this version sees a newer tombstone over its key."""
        cdef uint64_t oldest
        if self._tombstones.fragment_count == 0:
            return False
        # Safety: read only where stripe < count.
        oldest = self._snapshots[stripe] if stripe < self._snapshot_count else SEQ_LAST
        return self._tombstones.c_cover(key, size, oldest) > trailer >> 8

    cdef inline bint _is_last(self, const unsigned char* key, Py_ssize_t size,
                              Py_ssize_t stripe) noexcept nogil:
        """Return whether nothing older than the inputs has the key, for those who see a stripe."""
        return stripe == 0 and self._bottom and not self._has_older(key, size)

    cdef inline bint _stays(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                            Py_ssize_t stripe, bint same) noexcept nogil:
        if (same and stripe == self._stripe) or self._is_covered(key, size, trailer, stripe):
            return False
        return (trailer & 0xFF) != KIND_DELETE or not self._is_last(key, size, stripe)

    cdef int _join(self, Cursor cursor, Py_ssize_t stripe) except -1:
        """Begin a run with the cursor's entry, or go on with it."""
        cdef bint covered = self._in_run and self._is_covered(
            cursor.key_data, cursor.key_size, cursor.trailer, stripe)
        if not covered:
            self._run.append((
                cursor.trailer >> 8, cursor.trailer & 0xFF,
                PyBytes_FromStringAndSize(<const char*>cursor.value_data, cursor.value_size)))
        self._is_based = covered or (cursor.trailer & 0xFF) != KIND_MERGE
        self._in_run = True
        return 0

    cdef bint _go_on(self, Cursor cursor, TableBuilder builder) except -1:
        """Go on with what a run began. Return whether there was something to be done before the
        cursor's entry is looked at.
        """
        cdef bytes value
        cdef uint64_t seq, kind
        cdef Py_ssize_t count = len(self._run)
        cdef bint same = cursor.at and self._is_last_key(cursor.key_data, cursor.key_size)
        cdef bint is_last
        if self._made:
            seq, kind, value = self._made[0]
            # Safety: the key is that of the last entry.
            builder.c_add(self._key, self._key_size, seq << 8 | kind, bytes_data(value),
                          PyBytes_GET_SIZE(value))
            self.entries_out += 1
            self.bytes_out += <uint64_t>(self._key_size + PyBytes_GET_SIZE(value))
            del self._made[0]
            self._in_run = bool(self._made)
        elif self._is_based or not (
                same and self._stripe_of(cursor.trailer >> 8) == self._stripe):
            if not self._is_based and same and not self._is_covered(
                    cursor.key_data, cursor.key_size, cursor.trailer, self._stripe):
                if count == 0:
                    return False
                group = merged_run(self._merges, self._key_bytes(), self._run, is_based=False)
                if awaits(self._above, group):
                    above = self._above.copy()
                    above.append(group)
                    self._above = above
                else:
                    self._made = group
                self._run = []
                self._run_max = RUN_ENTRIES_MIN
                return True
            is_last = self._is_last(self._key, self._key_size, self._stripe)
            self._made = resolved(
                self._merges, self._key_bytes(), self._above, self._run,
                # At another version of the key there is a tombstone between.
                is_based=self._is_based or is_last or same, is_last=is_last)
            self._run = []
            self._above = []
            self._run_max = RUN_ENTRIES_MIN
            self._is_based = False
        elif count >= self._run_max:
            self._run = merged_run(self._merges, self._key_bytes(), self._run, is_based=False)
            self._run_max = max(<Py_ssize_t>RUN_ENTRIES_MIN, 2 * <Py_ssize_t>len(self._run))
        else:
            return False
        return True

    cdef bytes _key_bytes(self):
        """Return the key of the last entry. Requires: there was one."""
        return PyBytes_FromStringAndSize(<const char*>self._key, self._key_size)

    cdef bint _has_older(self, const unsigned char* key, Py_ssize_t size) noexcept nogil:
        """Return whether the key lies in one of the ranges: behind an odd number of bounds."""
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self._bound_count
        cdef Py_ssize_t middle
        while low < high:
            middle = low + (high - low) // 2
            # Safety: middle < high <= count.
            if compare_keys(self._bounds[middle].key, self._bounds[middle].size, key, size) <= 0:
                low = middle + 1
            else:
                high = middle
        return low % 2 == 1

    cdef inline void _count(self, const unsigned char* key, Py_ssize_t key_size,
                            Py_ssize_t value_size, Py_ssize_t stripe, bint same,
                            bint is_written) noexcept nogil:
        """Note an entry that was taken. Requires: room for its key."""
        if is_written:
            self.entries_out += 1
            self.bytes_out += <uint64_t>(key_size + value_size)
        if not same:
            # Safety: the caller made room.
            memcpy(self._key, key, <size_t>key_size)
            self._key_size = key_size
            self._has_key = True
        self.entries_in += 1
        self.bytes_in += <uint64_t>(key_size + value_size)
        self._stripe = stripe


cdef inline bint _is_cut(Cursor cursor, TableBuilder builder, const Limits* limits) noexcept nogil:
    """Return whether a table must end before the cursor's key, if that is not the last one."""
    return builder.file_bytes >= limits.target_bytes or (
        limits.stop != NULL
        and compare_keys(cursor.key_data, cursor.key_size, limits.stop, limits.stop_size) >= 0)


cdef int _move_quietly(Cursor cursor, TableBuilder builder, Retention retention,
                       const Limits* limits, Py_ssize_t* steps, int* added) noexcept nogil:
    """Move entries, without a look at the interpreter, until something else is to be done."""
    cdef Py_ssize_t stripe
    cdef bint same, stays
    while builder.output_size < limits.drain_bytes and steps[0] != limits.step_entries:
        same = retention._is_last_key(cursor.key_data, cursor.key_size)
        if not same and _is_cut(cursor, builder, limits):
            break
        stripe = retention._stripe_of(cursor.trailer >> 8)
        stays = retention._stays(cursor.key_data, cursor.key_size, cursor.trailer, stripe, same)
        if stays and (cursor.trailer & 0xFF) == KIND_MERGE:
            break
        if not retention._make_room(cursor.key_size):
            break
        if stays:
            added[0] = builder.q_add(cursor.key_data, cursor.key_size, cursor.trailer,
                                     cursor.value_data, cursor.value_size)
            if added[0] != ADDED:
                break
        retention._count(cursor.key_data, cursor.key_size, cursor.value_size, stripe, same, stays)
        steps[0] += 1
        if not cursor.q_next():
            return AT_MOVE
    return AT_ENTRY


cdef int _merge(Cursor cursor, TableBuilder builder, Retention retention,
                const Limits* limits) except -1:
    cdef Py_ssize_t steps = 0, quiet = 0
    cdef Py_ssize_t stripe
    cdef int added, left = AT_ENTRY
    cdef bint same, is_written
    while cursor.at or retention._in_run:
        if quiet >= QUIET_STEPS and not retention._in_run and builder.c_lend():
            quiet = 0
            added = ADDED
            with nogil:
                left = _move_quietly(cursor, builder, retention, limits, &steps, &added)
            builder.c_take_back(added)
        if left == AT_ENTRY:
            if builder.output_size >= limits.drain_bytes:
                return DRAIN
            if retention._in_run and retention._go_on(cursor, builder):
                quiet = 0
                continue
            same = retention._is_last_key(cursor.key_data, cursor.key_size)
            if not same and _is_cut(cursor, builder, limits):
                return CUT
            if steps == limits.step_entries:
                return YIELD
            stripe = retention._stripe_of(cursor.trailer >> 8)
            is_written = False
            # What can fail comes first, so that a failed step has read nothing.
            if not retention._make_room(cursor.key_size):
                raise MemoryError
            if retention._in_run:
                retention._join(cursor, stripe)
            elif not retention._stays(cursor.key_data, cursor.key_size, cursor.trailer, stripe,
                                      same):
                pass
            elif (cursor.trailer & 0xFF) == KIND_MERGE:
                retention._join(cursor, stripe)
            else:
                builder.c_add(cursor.key_data, cursor.key_size, cursor.trailer, cursor.value_data,
                              cursor.value_size)
                is_written = True
            retention._count(cursor.key_data, cursor.key_size, cursor.value_size, stripe, same,
                             is_written)
            steps += 1
            if cursor.q_next():
                quiet += 1
                continue
        left = AT_ENTRY
        quiet = 0
        retention._moving = True
        cursor.c_next()
        retention._moving = False
    return DONE


def merge_into(Cursor cursor not None, TableBuilder builder not None, Retention retention not None,
               *, uint64_t target_bytes, Py_ssize_t drain_bytes, Py_ssize_t step_entries,
               bytes stop=None):
    """Move entries from a positioned cursor into the builder until there is a reason to stop.

    DONE: the cursor is at its end. DRAIN: `drain_bytes` of output wait to be taken. CUT: the table
    has `target_bytes`, or the key is not below `stop`, and the cursor stands at another user key
    than the last one, so that all versions of a key are in one table. YIELD: `step_entries` were
    read. They are tried in this order before each entry.

    An exception of the cursor kills the cursor; one of the builder leaves the entry where it was.

    Raises: ValueError for a limit below 1 or a retention that merges already, and whatever cursor
    and builder raise.
    """
    cdef Limits limits = Limits(target_bytes, drain_bytes, step_entries, NULL, 0)
    if stop is not None:
        # Safety: `stop` is the caller's for as long as this call lasts.
        limits.stop = bytes_data(stop)
        limits.stop_size = len(stop)
    if target_bytes < 1 or drain_bytes < 1 or step_entries < 1:
        raise ValueError("target_bytes, drain_bytes and step_entries must be at least 1")
    if cursor.failure is not None:
        raise cursor.failure
    if retention.is_merging:
        raise ValueError("another merge uses this retention")
    retention.is_merging = True
    retention._moving = False
    try:
        return MergeStop(_merge(cursor, builder, retention, &limits))
    except BaseException as error:
        if retention._moving:
            cursor.failure = error
            cursor.at = False
        raise
    finally:
        retention.is_merging = False
