"""Entry pages: the compiled twin of `_page_py`, which specifies what is read and what is rejected.

`page_check` walks a page once, when it enters memory; a page that passed is marked `checked`. All
other functions here require the mark and do not look at bounds again: pages are immutable.

A lookup compares keys without putting them together. While it walks the entries since a restart
point, all of them less than the target, it knows how many leading bytes the last one has in common
with the target: an entry that shares more than those with the one before it is less, too; any other
entry differs from the target only behind the bytes it shares.

Thread safety: pages are shared freely; a cursor belongs to one thread at a time.
"""
cimport cython
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from holdfast.bufferpool._pool_c cimport Page
from holdfast.codec._fixed cimport load32, load64, store64
from holdfast.codec._varint cimport varint_get
from holdfast.cursor._cursor_c cimport (
    Cursor, RUN_KEY_BYTES, RUN_ROWS, Row, Run, add_row, compare_entries, compare_keys,
)

from holdfast.base import KEY_BYTES_MAX as KEY_BYTES_MAX_PY
from holdfast.base import CorruptionError
from holdfast.sstable.format import PageType

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define HOLDFAST_PREFETCH(address) __builtin_prefetch(address)
    #else
    #define HOLDFAST_PREFETCH(address) ((void)0)
    #endif
    """
    void prefetch "HOLDFAST_PREFETCH"(const unsigned char* address) noexcept nogil

cdef enum:
    DATA = 1
    INDEX_ROOT = 3
    RANGE_TOMBSTONES = 5
    PROPERTIES = 6
    RESTART_BYTES = 4
    LINE_BYTES = 64
    AHEAD_BYTES = 2048
    AHEAD_RESTARTS = 32
    TRAILER_BYTES = 8
    # Of all entries of an ingested table: a PUT with the number 0.
    STORED_TRAILER = 1
    KEY_BYTES_MAX = 65536
    KEY_BYTES_FIRST = 512

if (DATA, INDEX_ROOT, RANGE_TOMBSTONES, PROPERTIES, KEY_BYTES_MAX) != (
        PageType.DATA, PageType.INDEX_ROOT, PageType.RANGE_TOMBSTONES, PageType.PROPERTIES,
        KEY_BYTES_MAX_PY):
    raise ImportError("sstable/_page_c disagrees with the format")

cdef tuple DAMAGES = (
    "an entry page is shorter than its restart count",
    "the restart offsets do not fit the page",
    "a page has entries but no restart offset",
    "the page holds no entries",
    "the first entry is not a restart point",
    "a length of an entry is not a minimal varint",
    "an entry at a restart point shares bytes with the one before it",
    "an entry shares more bytes than the key before it has",
    "an entry reaches beyond the entries of its page",
    "a key is longer than keys can be",
    "an entry has a kind that does not belong into its page",
    "the entries are out of order",
    "a restart offset is not the start of an entry",
    "an entry of an ingested table is not a put with the number 0",
)


cdef str page_damage(int status):
    return DAMAGES[-1 - status]


cdef int require_checked(Page page, str file, uint64_t offset) except -1:
    cdef int status
    if not page.checked:
        status = page_check(page.data, page.size, page.page_type)
        if status == PAGE_CHECK_NO_MEMORY:
            raise MemoryError
        if status < 0:
            raise CorruptionError(file, offset, page_damage(status))
        page.checked = True
    return 0


cdef struct LastKey:
    const unsigned char* data        # in the page, or in the buffer when it shares bytes
    Py_ssize_t size
    uint64_t trailer
    unsigned char* buffer
    Py_ssize_t capacity


cdef int page_check(const unsigned char* data, Py_ssize_t size, int page_type) noexcept nogil:
    cdef unsigned char[KEY_BYTES_FIRST] first_buffer
    cdef LastKey last
    cdef Py_ssize_t restart_count, entries_size
    cdef int status = check_frame(data, size, page_type, &restart_count, &entries_size)
    if status == 0:
        last.data = data
        last.size = 0
        last.trailer = 0
        last.buffer = first_buffer
        last.capacity = KEY_BYTES_FIRST
        status = check_entries(data, entries_size, restart_count, page_type, &last)
        if last.buffer != first_buffer:
            free(last.buffer)
    return status


cdef int page_check_between(const unsigned char* data, Py_ssize_t size, const Entry* lower,
                            const Entry* upper) noexcept nogil:
    cdef unsigned char[KEY_BYTES_FIRST] first_buffer
    cdef LastKey last
    cdef Entry first
    cdef Py_ssize_t restart_count, entries_size
    cdef int status = check_frame(data, size, DATA, &restart_count, &entries_size)
    if status == 0:
        last.data = data
        last.size = 0
        last.trailer = 0
        last.buffer = first_buffer
        last.capacity = KEY_BYTES_FIRST
        status = check_entries(data, entries_size, restart_count, DATA, &last)
        if status == 0:
            # Safety: the page was checked, and has an entry; the first shares nothing.
            read_entry(data, &first)
            if (compare_entries(lower.key, lower.unshared, lower.trailer,
                                first.key, first.unshared, first.trailer) >= 0
                    or compare_entries(last.data, last.size, last.trailer,
                                       upper.key, upper.unshared, upper.trailer) > 0):
                status = -1
        if last.buffer != first_buffer:
            free(last.buffer)
    return status


cdef int check_frame(const unsigned char* data, Py_ssize_t size, int page_type,
                     Py_ssize_t* restart_count, Py_ssize_t* entries_size) noexcept nogil:
    """Find out where entries and restart offsets lie."""
    if size < RESTART_BYTES:
        return -1
    # Safety: at least the count is there.
    restart_count[0] = load32(data + size - RESTART_BYTES)
    if restart_count[0] > (size - RESTART_BYTES) // RESTART_BYTES:
        return -2
    entries_size[0] = size - RESTART_BYTES * (restart_count[0] + 1)
    if restart_count[0] == 0 and entries_size[0] > 0:
        return -3
    if restart_count[0] == 0 and page_type != INDEX_ROOT:
        return -4
    return 0


cdef int check_entries(const unsigned char* data, Py_ssize_t size, Py_ssize_t restart_count,
                       int page_type, LastKey* last) noexcept nogil:
    """Check `size` bytes of entries, behind which the restart offsets lie."""
    cdef const unsigned char* restarts = data + size
    cdef const unsigned char* limit = data + size
    cdef const unsigned char* position = data
    cdef Py_ssize_t restart = 0
    cdef uint64_t trailer, shared, unshared, value_size
    cdef bint at_restart, first
    cdef int order
    while position < limit:
        at_restart = (restart < restart_count
                      and load32(restarts + RESTART_BYTES * restart) == position - data)
        if at_restart:
            restart += 1
        elif position == data:
            return -5
        first = position == data
        position = varint_get(position, limit, &shared)
        if position == NULL:
            return -6
        position = varint_get(position, limit, &unshared)
        if position == NULL:
            return -6
        position = varint_get(position, limit, &value_size)
        if position == NULL:
            return -6
        if at_restart and shared > 0:
            return -7
        if shared > <uint64_t>last.size:
            return -8
        # Safety: each length is compared with what is left behind the ones before it; none is
        # added to another first.
        if (limit - position < TRAILER_BYTES
                or unshared > <uint64_t>(limit - position - TRAILER_BYTES)
                or value_size > <uint64_t>(limit - position - TRAILER_BYTES) - unshared):
            return -9
        if shared + unshared > KEY_BYTES_MAX:
            return -10
        trailer = load64(position)
        position += TRAILER_BYTES
        if not kind_fits(page_type, trailer):
            return -11
        if not first:
            order = compare_keys(last.data + shared, last.size - <Py_ssize_t>shared,
                                 position, <Py_ssize_t>unshared)
            if order > 0 or (order == 0 and last.trailer <= trailer):
                return -12
        if not keep_key(last, <Py_ssize_t>shared, position, <Py_ssize_t>unshared):
            return PAGE_CHECK_NO_MEMORY
        last.trailer = trailer
        position += unshared + value_size
    return 0 if restart == restart_count else -13


cdef inline bint kind_fits(int page_type, uint64_t trailer) noexcept nogil:
    """Return whether an entry with this trailer belongs into a page of this type."""
    if page_type == DATA:
        # All kinds but that of range tombstones.
        return trailer & 0xFF <= 3 and trailer & 0xFF != 2
    if page_type == RANGE_TOMBSTONES:
        return trailer & 0xFF == 2
    return page_type != PROPERTIES or trailer == 0


cdef inline bint keep_key(LastKey* last, Py_ssize_t shared, const unsigned char* suffix,
                          Py_ssize_t unshared) noexcept nogil:
    """Make the key with this suffix the last one. Return whether there was memory for it."""
    cdef unsigned char* larger
    if shared == 0:
        last.data = suffix
    else:
        # Safety: the last key has at least `shared` bytes; shared + unshared is at most
        # KEY_BYTES_MAX, and the buffer grows to that.
        if shared + unshared > last.capacity:
            larger = <unsigned char*>malloc(KEY_BYTES_MAX)
            if larger == NULL:
                return False
            memcpy(larger, last.data, shared)
            last.buffer = larger
            last.capacity = KEY_BYTES_MAX
        elif last.data != last.buffer:
            memcpy(last.buffer, last.data, shared)
        memcpy(last.buffer + shared, suffix, unshared)
        last.data = last.buffer
    last.size = shared + unshared
    return True


cdef int page_stamp(unsigned char* data, Py_ssize_t size, uint64_t trailer) noexcept nogil:
    # Safety: the page was checked, so restart offsets are there and are starts of entries.
    cdef unsigned char* limit = data + size - RESTART_BYTES * (
        <Py_ssize_t>load32(data + size - RESTART_BYTES) + 1)
    cdef unsigned char* position = data
    cdef Entry entry
    cdef unsigned char* following
    while position < limit:
        following = data + (read_entry(position, &entry) - data)
        if entry.trailer != STORED_TRAILER:
            return -14
        # Safety: the trailer of an entry lies before its key.
        store64(data + (entry.key - TRAILER_BYTES - data), trailer)
        position = following
    return 0


cdef inline Py_ssize_t common(const unsigned char* a, const unsigned char* b,
                              Py_ssize_t size) noexcept nogil:
    """Return how many leading bytes of two strings of `size` bytes are equal."""
    cdef Py_ssize_t index = 0
    while index < size and a[index] == b[index]:
        index += 1
    return index


cdef int page_lower_bound(Page page, const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                          Entry* found) noexcept:
    cdef const unsigned char* data = page.data
    cdef Py_ssize_t count, left = 0, right, middle, matched, equal, ahead
    cdef const unsigned char* restarts
    cdef const unsigned char* limit
    cdef const unsigned char* position
    # Safety: the page was checked, so restart offsets are there and are starts of entries.
    count = load32(data + page.size - RESTART_BYTES)
    restarts = data + page.size - RESTART_BYTES * (count + 1)
    right = count
    if count <= AHEAD_RESTARTS:
        # The same for the search: it will wait for its lines once.
        for middle in range(count):
            prefetch(data + load32(restarts + RESTART_BYTES * middle))
    # Restart points before `left` are less than the target, those from `right` on are not.
    while left < right:
        middle = (left + right) >> 1
        read_entry(data + load32(restarts + RESTART_BYTES * middle), found)
        if compare_entries(found.key, found.unshared, found.trailer, key, size, trailer) < 0:
            left = middle + 1
        else:
            right = middle
    limit = data + load32(restarts + RESTART_BYTES * left) if left < count else restarts
    if left > 0:
        # The walk is short and each step waits for the one before; asking for its lines at once
        # makes it wait once.
        position = data + load32(restarts + RESTART_BYTES * (left - 1))
        middle = limit - position if limit - position < AHEAD_BYTES else AHEAD_BYTES
        # A `range` whose step is an enum would be a Python object.
        ahead = LINE_BYTES
        while ahead < middle:
            prefetch(position + ahead)
            ahead += LINE_BYTES
        position = read_entry(data + load32(restarts + RESTART_BYTES * (left - 1)), found)
        if position < limit:
            matched = common(found.key, key, found.unshared if found.unshared < size else size)
        while position < limit:
            position = read_entry(position, found)
            if found.shared > matched:
                continue
            # Safety: shared <= matched <= size.
            equal = size - found.shared if size - found.shared < found.unshared else found.unshared
            equal = common(found.key, key + found.shared, equal)
            matched = found.shared + equal
            if equal < found.unshared:
                if matched == size or found.key[equal] > key[matched]:
                    return 1
            elif matched == size and found.trailer <= trailer:
                return 2
    if left == count:
        return 0
    read_entry(limit, found)
    return 2 if compare_keys(found.key, found.unshared, key, size) == 0 else 1


@cython.final
cdef class PageCursor(Cursor):
    """A cursor over one entry page, which it keeps alive.

    Raises: CorruptionError(file, offset of the page, reason) when the page is damaged.
    """

    def __init__(self, Page page not None, str file not None, uint64_t offset):
        self.file = file
        self.open(page, offset)

    def __dealloc__(self):
        free(self.buffer)
        free(self.run)

    cdef int open(self, Page page, uint64_t offset) except -1:
        require_checked(page, self.file, offset)
        self.page = page
        self.lay_out(page.data, page.size, offset)
        return 0

    cdef void lay_out(self, const unsigned char* data, Py_ssize_t size,
                      uint64_t offset) noexcept nogil:
        """Note where what lies in a page. Requires: it was checked."""
        self.at = False
        self.offset = offset
        self.data = data
        self.restart_count = load32(data + size - RESTART_BYTES)
        self.entries_size = size - RESTART_BYTES * (self.restart_count + 1)
        self.restarts = data + self.entries_size
        self.run_index = 0

    cdef int q_open(self, const unsigned char* data, Py_ssize_t size,
                    uint64_t offset) noexcept nogil:
        cdef Entry entry
        self.lay_out(data, size, offset)
        read_entry(data, &entry)
        self.key_data = entry.key
        return self.stand(&entry)

    cdef int c_first(self) except -1:
        cdef Entry entry
        self.run_index = 0
        if self.entries_size == 0:
            self.at = False
            return 0
        read_entry(self.data, &entry)
        self.key_data = entry.key
        return self.stand(&entry)

    cdef int c_last(self) except -1:
        if self.entries_size == 0:
            self.at = False
            return 0
        return self.stand_in_run(self.load_run(self.entries_size) - 1)

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        cdef Entry entry
        self.run_index = 0
        if self.entries_size == 0 or page_lower_bound(self.page, key, size, trailer, &entry) == 0:
            self.at = False
            return 0
        if entry.shared == 0:
            self.key_data = entry.key
        else:
            # `key` may lie in the buffer itself, so it is not freed before its bytes were moved.
            if (self.buffer_size < entry.shared + entry.unshared
                    and self.buffer <= key < self.buffer + self.buffer_size):
                memmove(self.buffer, key, entry.shared)
                self.need_buffer(entry.shared + entry.unshared)
            else:
                self.need_buffer(entry.shared + entry.unshared)
                memmove(self.buffer, key, entry.shared)
            memcpy(self.buffer + entry.shared, entry.key, entry.unshared)
            self.key_data = self.buffer
        return self.stand(&entry)

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        if self.c_seek(key, size, <uint64_t>-1):
            return self.c_prev()
        return self.c_last()

    cdef int c_next(self) except -1:
        if not self.at:
            return 0
        if self.next_at == self.entries_size:
            self.at = False
            return 0
        if not self.q_next():
            raise MemoryError
        return 1

    cdef int q_next(self) noexcept nogil:
        cdef Entry entry
        cdef bint in_buffer = self.key_data == self.buffer
        if not self.at or self.next_at == self.entries_size:
            return 0
        read_entry(self.data + self.next_at, &entry)
        if entry.shared == 0:
            self.key_data = entry.key
        else:
            if self.q_need_buffer(entry.shared + entry.unshared) != 0:
                return 0
            # Safety: the current key has at least `shared` bytes; in the buffer they are in place,
            # and growing keeps them.
            if not in_buffer:
                memcpy(self.buffer, self.key_data, entry.shared)
            memcpy(self.buffer + entry.shared, entry.key, entry.unshared)
            self.key_data = self.buffer
        self.run_index = 0
        return self.stand(&entry)

    cdef int c_prev(self) except -1:
        if not self.at:
            return 0
        if self.entry_at == 0:
            self.at = False
            return 0
        if self.run_index == 0:
            self.run_index = self.load_run(self.entry_at)
        return self.stand_in_run(self.run_index - 1)

    cdef int c_run(self, Run* run, bint forward) except -1:
        run.count = 0
        if not forward:
            return self.run_backward(run)
        if self.run_forward(run) < 0:
            raise MemoryError
        return run.count

    cdef int q_run(self, Run* run) noexcept nogil:
        run.count = 0
        if self.run_forward(run) < 0:
            run.count = 0
        return run.count

    cdef int run_forward(self, Run* run) noexcept nogil:
        """Do what `c_run` says, forward. Return -1 when there is no memory; then the cursor has not
        moved.
        """
        cdef Entry entry
        cdef const unsigned char* position = self.data + self.next_at
        cdef const unsigned char* limit = self.data + self.entries_size
        cdef const unsigned char* key = self.key_data
        cdef Py_ssize_t size = self.key_size
        cdef unsigned char* free_at = run.keys
        cdef unsigned char* end = run.keys + RUN_KEY_BYTES
        if position == limit:
            return 0
        if key == self.buffer:
            if size > RUN_KEY_BYTES:
                return 0
            memcpy(free_at, key, size)
            key = free_at
            free_at += size
        entry.trailer = self.trailer
        entry.value = self.value_data
        entry.value_size = self.value_size
        entry.key = NULL
        while position < limit and run.count < run.room:
            add_row(run, key, size, entry.trailer, entry.value, entry.value_size)
            position = read_entry(position, &entry)
            if entry.shared == 0:
                key = entry.key
            elif entry.shared + entry.unshared <= end - free_at:
                # Safety: the key before has at least `shared` bytes, and there is room.
                memcpy(free_at, key, entry.shared)
                memcpy(free_at + entry.shared, entry.key, entry.unshared)
                key = free_at
                free_at += entry.shared + entry.unshared
            else:
                if self.q_need_buffer(entry.shared + entry.unshared) != 0:
                    return -1
                memmove(self.buffer, key, entry.shared)
                memcpy(self.buffer + entry.shared, entry.key, entry.unshared)
                key = self.buffer
                break
            size = entry.shared + entry.unshared
        # The run's memory is not the cursor's own.
        if entry.shared > 0 and key != self.buffer:
            if self.q_need_buffer(size) != 0:
                return -1
            memcpy(self.buffer, key, size)
            key = self.buffer
        self.key_data = key
        self.run_index = 0
        self.stand(&entry)
        return run.count

    cdef int run_backward(self, Run* run) except -1:
        """Do what `c_run` says, backward: as far as the restart point before the current entry."""
        cdef const unsigned char* key = self.key_data
        cdef Row[RUN_ROWS] found
        cdef unsigned char* free_at = run.keys
        cdef unsigned char* end = run.keys + RUN_KEY_BYTES
        cdef Entry* entry
        cdef Py_ssize_t index
        if self.entry_at == 0:
            return 0
        if self.run_index == 0:
            self.run_index = self.load_run(self.entry_at)
        if self.run_index >= RUN_ROWS:
            return 0
        if key == self.buffer:
            if self.key_size > RUN_KEY_BYTES:
                return 0
            memcpy(free_at, key, self.key_size)
            key = free_at
            free_at += self.key_size
        for index in range(self.run_index):
            entry = &self.run[index]
            if entry.shared == 0:
                found[index].key = entry.key
                continue
            if entry.shared + entry.unshared > end - free_at:
                return 0
            # Safety: the first of them shares nothing; each shares at most the key before it.
            memcpy(free_at, found[index - 1].key, entry.shared)
            memcpy(free_at + entry.shared, entry.key, entry.unshared)
            found[index].key = free_at
            free_at += entry.shared + entry.unshared
        add_row(run, key, self.key_size, self.trailer, self.value_data, self.value_size)
        index = self.run_index - 1
        while index > 0 and run.count < run.room:
            entry = &self.run[index]
            add_row(run, found[index].key, entry.shared + entry.unshared, entry.trailer,
                    entry.value, entry.value_size)
            index -= 1
        self.stand_in_run(index)
        return run.count

    cdef int need_buffer(self, Py_ssize_t size) except -1:
        if self.q_need_buffer(size) != 0:
            raise MemoryError
        return 0

    cdef int q_need_buffer(self, Py_ssize_t size) noexcept nogil:
        """Make room for a key of this size; return 0, or -1 when there is no memory."""
        cdef unsigned char* larger
        if size > self.buffer_size:
            size = KEY_BYTES_FIRST if size <= KEY_BYTES_FIRST else KEY_BYTES_MAX
            larger = <unsigned char*>realloc(self.buffer, size)
            if larger == NULL:
                return -1
            if self.key_data == self.buffer and self.buffer != NULL:
                self.key_data = larger
            self.buffer = larger
            self.buffer_size = size
        return 0

    cdef int stand(self, const Entry* entry) noexcept nogil:
        """Take over an entry whose key is at `key_data` already."""
        self.key_size = entry.shared + entry.unshared
        self.trailer = entry.trailer
        self.value_data = entry.value
        self.value_size = entry.value_size
        self.next_at = entry.value + entry.value_size - self.data
        # The varints are minimal, so their sizes follow from their values.
        self.entry_at = entry.key - self.data - TRAILER_BYTES - lengths_size(entry)
        self.at = True
        return 1

    cdef int stand_in_run(self, Py_ssize_t index) except -1:
        """Stand at an entry of the run, putting its key together from the suffixes of those before
        it.
        """
        cdef Entry* entry = &self.run[index]
        cdef Py_ssize_t missing = entry.shared
        self.run_index = index
        if missing == 0:
            self.key_data = entry.key
        else:
            # Safety: an entry shares at most the key before it, so `missing` bytes come from there;
            # the first of a run shares nothing, which ends the loop.
            self.need_buffer(entry.shared + entry.unshared)
            memcpy(self.buffer + missing, entry.key, entry.unshared)
            while missing > 0:
                entry -= 1
                if entry.shared < missing:
                    memcpy(self.buffer + entry.shared, entry.key, missing - entry.shared)
                    missing = entry.shared
            self.key_data = self.buffer
            entry = &self.run[index]
        return self.stand(entry)

    cdef Py_ssize_t load_run(self, Py_ssize_t limit) except -1:
        """Load the entries from the last restart point before `limit` up to `limit`; return their
        count, at least 1.
        """
        cdef Py_ssize_t left = 0, right = self.restart_count, middle, count = 0, capacity
        cdef const unsigned char* position
        cdef Entry* larger
        # Restart points before `left` lie before `limit`, and the first one does.
        while left < right:
            middle = (left + right) >> 1
            if <Py_ssize_t>load32(self.restarts + RESTART_BYTES * middle) < limit:
                left = middle + 1
            else:
                right = middle
        position = self.data + load32(self.restarts + RESTART_BYTES * (left - 1))
        # Safety: `limit` is the start of an entry or the end of them all, so the walk meets it.
        while position < self.data + limit:
            if count == self.run_capacity:
                capacity = 2 * self.run_capacity + 16
                larger = <Entry*>realloc(self.run, capacity * sizeof(Entry))
                if larger == NULL:
                    raise MemoryError
                self.run = larger
                self.run_capacity = capacity
            position = read_entry(position, &self.run[count])
            count += 1
        return count


cdef inline Py_ssize_t length_size(Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t size = 1
    while length >= 0x80:
        length >>= 7
        size += 1
    return size


cdef inline Py_ssize_t lengths_size(const Entry* entry) noexcept nogil:
    """Return how many bytes the three varints of an entry take."""
    return length_size(entry.shared) + length_size(entry.unshared) + length_size(entry.value_size)


def decode_entries(Page page not None, str file not None, uint64_t offset):
    """Return the entries of a page that was read at `offset` of `file`. Raises: CorruptionError."""
    cdef PageCursor cursor = PageCursor(page, file, offset)
    cdef list entries = []
    cdef int there = cursor.c_first()
    while there:
        key = cursor.key_data[:cursor.key_size]
        value = cursor.value_data[:cursor.value_size]
        entries.append((key, cursor.trailer, value))
        there = cursor.c_next()
    return entries


def stamp_entries(Page page not None, uint64_t trailer, str file not None, uint64_t offset):
    """Return a DATA page of an ingested table, read at `offset` of `file`, with `trailer` in all of
    its entries. Raises: CorruptionError.
    """
    cdef Page stamped = Page(page, page.page_type)
    require_checked(stamped, file, offset)
    # Safety: nobody else has the new page yet, and its memory is its own.
    cdef int status = page_stamp(<unsigned char*>stamped.data, stamped.size, trailer)
    if status < 0:
        raise CorruptionError(file, offset, page_damage(status))
    return stamped
