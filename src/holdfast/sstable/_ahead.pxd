"""Pages of a table that a merge or a long scan reads ahead, inline, see `_reader_c.pyx`.

Pages that lie beside each other are read with one call, and each is decompressed when the cursor
comes to it, forward or backward: so none is read twice, and no more than two bodies are held.

All that is found wrong here is left to the reader: such a page, or an error of the disk, drops what
was read ahead and ends it for this cursor, and whoever reaches the page reads it again, in the
ordinary way, and gets the error. So does a page that needs a library. What is here lies between its
separators, as the reader would have found.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free

from holdfast.bufferpool._pool_c cimport BufferPool
from holdfast.codec._body_c cimport body_free
from holdfast.codec._envelope_c cimport (
    PAGE_COMPRESSION_ZSTD, PAGE_SEALED, PAGE_TRAILER_BYTES, page_open, page_seed_of, page_unpack,
    sealed_verify,
)
from holdfast.codec._fixed cimport load32, load64
from holdfast.env._large cimport large_free, large_resize
from holdfast.sstable._handle cimport CHECKSUM_BYTES, DATA, PageHandle, is_page, take_handle
from holdfast.sstable._page_c cimport (
    Entry, PageCursor, page_check, page_check_between, page_stamp, read_entry,
)
from holdfast.sstable._pread cimport read_whole


cdef enum:
    AHEAD_PAGES = 64
    RESTART_BYTES = 4
    # To open a page with a longer body takes long enough to let others have the GIL.
    QUICK_BYTES = 128 * 1024
    ROOM_STEP = 64 * 1024


cdef struct AheadPage:
    PageHandle handle
    uint64_t seed
    Entry separator                  # in the index page


# Invariant: pages wait only as long as the cursor stands in the index page that they were chosen
# from, so that their separators are there.
cdef struct Ahead:
    Py_ssize_t bytes_max             # of stored pages that are read at once
    uint64_t stamp                   # of the entries of an ingested table, else 0
    bint is_off                      # for the rest of the cursor's life
    bint is_backward                 # each of the pages lies before the one that comes first
    Py_ssize_t at                    # the next page that the cursor comes to
    Py_ssize_t count
    unsigned char* stored            # all pages as they were read
    size_t room                      # of `stored`, which is kept for the next ones
    unsigned char* opened            # what the seals held, at the same places; `room`, or NULL
    Py_ssize_t seal_bytes            # by which that is shorter; 0: the pages are not sealed
    uint64_t offset                  # of what was read, in the file
    unsigned char* body              # of the next page, once it was opened; else NULL
    Py_ssize_t size
    # The page that the cursor stands in, if it was read ahead, and the one before that: a key in it
    # may be what a seek is for.
    unsigned char* current
    Py_ssize_t current_size
    unsigned char* last
    Py_ssize_t last_size
    Entry before                     # the separator before the first page, in the order of keys
    AheadPage[AHEAD_PAGES] pages     # in the order in which the cursor comes to them


cdef inline void ahead_free_room(Ahead* ahead) noexcept nogil:
    """Free what pages are read into, and what their seals are opened into."""
    large_free(ahead.stored, ahead.room)
    large_free(ahead.opened, ahead.room if ahead.opened != NULL else 0)
    ahead.stored = ahead.opened = NULL
    ahead.room = 0


cdef inline void ahead_drop(Ahead* ahead) noexcept nogil:
    """Forget the pages that the cursor did not come to."""
    body_free(ahead.body, <size_t>ahead.size)
    ahead.body = NULL
    ahead.at = ahead.count = 0
    if ahead.is_off:
        ahead_free_room(ahead)


cdef inline void ahead_free(Ahead* ahead) noexcept nogil:
    if ahead != NULL:
        ahead_drop(ahead)
        ahead_free_room(ahead)
        body_free(ahead.current, <size_t>ahead.current_size)
        body_free(ahead.last, <size_t>ahead.last_size)
        free(ahead)


cdef inline bint ahead_leads(const Ahead* ahead, const unsigned char* value) noexcept nogil:
    """Return whether the next page was chosen for the entry of the index page with this value, and
    not for another one, between other separators, that names the same place.
    """
    return ahead.at < ahead.count and value == ahead.pages[ahead.at].separator.value


cdef inline bint ahead_is_long(const Ahead* ahead) noexcept nogil:
    """Return whether it takes long to open the next page. Requires: there is one."""
    cdef const PageHandle* handle = &ahead.pages[ahead.at].handle
    # Safety: as in ahead_open. The size is believed once the page was verified.
    return ahead.body == NULL and load32(
        ahead.stored + (handle.offset - ahead.offset) + (handle.size - PAGE_TRAILER_BYTES) + 4
    ) > QUICK_BYTES


cdef inline const Entry* ahead_before(const Ahead* ahead) noexcept nogil:
    """Return the separator before the next page."""
    cdef Py_ssize_t place = ahead.at + 1 if ahead.is_backward else ahead.at - 1
    return &ahead.pages[place].separator if 0 <= place < ahead.count else &ahead.before


cdef inline bint ahead_stamp(const Ahead* ahead) noexcept nogil:
    """Give the entries of the body the trailer that all of an ingested table have; return whether
    that could be done.
    """
    return ahead.stamp == 0 or (page_check(ahead.body, ahead.size, DATA) == 0
                                and page_stamp(ahead.body, ahead.size, ahead.stamp) == 0)


cdef inline int ahead_unpack(Ahead* ahead, const AheadPage* page, const unsigned char* stored,
                             int* found_type) noexcept nogil:
    """Make the body of a page. Return as page_open."""
    cdef Py_ssize_t size = <Py_ssize_t>page.handle.size
    if ahead.seal_bytes == 0:
        return page_open(stored, size, page.seed, &ahead.body, &ahead.size, found_type)
    # Safety: what is here was opened, so it was as long as a seal and a trailer.
    size -= PAGE_TRAILER_BYTES
    return page_unpack(ahead.opened + (page.handle.offset - ahead.offset), size - ahead.seal_bytes,
                       stored + size, &ahead.body, &ahead.size, found_type)


cdef inline bint ahead_open(Ahead* ahead) noexcept nogil:
    """Open and check the next page, if that is not done yet. Return whether there is one that is as
    it should be.
    """
    cdef AheadPage* page = &ahead.pages[ahead.at]
    cdef const unsigned char* stored
    cdef int found_type = 0
    if ahead.at == ahead.count or ahead.body != NULL:
        return ahead.at < ahead.count
    # Safety: the cursor has left this one. No third body is held while another one is opened.
    body_free(ahead.last, <size_t>ahead.last_size)
    ahead.last = NULL
    # Safety: all pages lie in `stored`, and none is smaller than a trailer, which ends with the
    # checksum.
    stored = ahead.stored + (page.handle.offset - ahead.offset)
    if (ahead_unpack(ahead, page, stored, &found_type) == 0
            and load64(stored + page.handle.size - CHECKSUM_BYTES) == page.handle.checksum
            and found_type == DATA
            and ahead_stamp(ahead)
            and page_check_between(ahead.body, ahead.size, ahead_before(ahead),
                                   &page.separator) == 0):
        return True
    ahead.is_off = True
    ahead_drop(ahead)
    return False


cdef inline int ahead_enter(Ahead* ahead, PageCursor data) noexcept nogil:
    """Stand at the first entry of the next page. Return 0, and change nothing, when there is none.
    """
    if not ahead_open(ahead):
        return 0
    data.q_open(ahead.body, ahead.size, ahead.pages[ahead.at].handle.offset)
    body_free(ahead.last, <size_t>ahead.last_size)
    ahead.last = ahead.current
    ahead.last_size = ahead.current_size
    ahead.current = ahead.body
    ahead.current_size = ahead.size
    ahead.body = NULL
    ahead.at += 1
    return 1


cdef inline int ahead_next(Ahead* ahead, PageCursor index, PageCursor data) noexcept nogil:
    """Move both cursors to the next page. Return 0, and move neither, when it is not there."""
    cdef Entry entry
    if ahead == NULL or index.next_at == index.entries_size:
        return 0
    # Safety: an entry of the checked index page starts there.
    read_entry(index.data + index.next_at, &entry)
    if not ahead_leads(ahead, entry.value) or not ahead_open(ahead) or not index.q_next():
        return 0
    return ahead_enter(ahead, data)


cdef inline Py_ssize_t entry_number(PageCursor index) noexcept nogil:
    """Return which entry of an index page its cursor stands at, as far as each has a restart point
    as it should; or -1.
    """
    cdef Py_ssize_t left = 0, right = index.restart_count, middle
    while left < right:
        middle = (left + right) >> 1
        if <Py_ssize_t>load32(index.restarts + RESTART_BYTES * middle) < index.entry_at:
            left = middle + 1
        else:
            right = middle
    if (left < index.restart_count
            and <Py_ssize_t>load32(index.restarts + RESTART_BYTES * left) == index.entry_at):
        return left
    return -1


cdef inline bint read_separator(PageCursor index, Py_ssize_t number, Entry* entry) noexcept nogil:
    """Read an entry of an index page; return whether the next restart point is the next entry's.
    Requires: 0 <= number < index.restart_count.
    """
    cdef Py_ssize_t end = index.entries_size
    if number + 1 < index.restart_count:
        end = load32(index.restarts + RESTART_BYTES * (number + 1))
    # Safety: an entry of the checked index page starts at each restart point, with a whole key.
    return read_entry(index.data + load32(index.restarts + RESTART_BYTES * number),
                      entry) == index.data + end


cdef inline bint lies_beside(const PageHandle* last, const PageHandle* next,
                             bint is_backward) noexcept nogil:
    """Return whether `next` follows `last` in the file, or precedes it."""
    if is_backward:
        return next.offset + next.size == last.offset
    return last.offset + last.size == next.offset


cdef inline Py_ssize_t ahead_choose(Ahead* ahead, PageCursor index, BufferPool pool,
                                    uint64_t number, uint64_t limit, bint is_backward) noexcept:
    """Note the pages to be read, from the one at which the index page's cursor stands: those that
    lie beside each other and are not in the pool. Return how many; 0 is always right.
    """
    cdef Py_ssize_t at = entry_number(index), step = -1 if is_backward else 1, count = 0
    cdef AheadPage* page
    cdef const Entry* separator
    cdef uint64_t stored = 0
    ahead_drop(ahead)
    ahead.is_backward = is_backward
    # The first page of an index page follows the last one of another, which is not here.
    while 0 < at < index.restart_count and count < AHEAD_PAGES and not ahead.is_off:
        page = &ahead.pages[count]
        separator = &page.separator
        if (not read_separator(index, at, &page.separator)
                or take_handle(separator.value, separator.value + separator.value_size,
                               &page.handle) != separator.value + separator.value_size
                or not is_page(&page.handle, limit)
                or page.handle.size > <uint64_t>ahead.bytes_max - stored
                or (count > 0 and not lies_beside(&ahead.pages[count - 1].handle, &page.handle,
                                                  is_backward))
                or pool.nodes[pool.find(number, page.handle.offset)].page != NULL):
            break
        stored += page.handle.size
        count += 1
        at += step
    if count == 0:
        return 0
    page = &ahead.pages[count - 1 if is_backward else 0]
    ahead.offset = page.handle.offset
    return count if read_separator(index, at if is_backward else at - count - 1,
                                   &ahead.before) else 0


cdef inline bint ahead_read(Ahead* ahead, Py_ssize_t count, int descriptor,
                            const unsigned char* file_id) noexcept nogil:
    """Read the pages that were chosen, at least one. Return whether that could be done: without
    memory none are.
    """
    cdef const PageHandle* last = &ahead.pages[0 if ahead.is_backward else count - 1].handle
    cdef size_t size = <size_t>(last.offset + last.size - ahead.offset)
    cdef Py_ssize_t index
    if size > ahead.room and not ahead_make_room(ahead, size):
        return False
    if read_whole(descriptor, ahead.stored, size, ahead.offset) != 0:
        # Each try may take the disk seconds, and the page that it is for is asked for once more.
        ahead.is_off = True
        ahead_drop(ahead)
        return False
    for index in range(count):
        ahead.pages[index].seed = page_seed_of(file_id, ahead.pages[index].handle.offset)
    return True


cdef inline bint ahead_make_room(Ahead* ahead, size_t size) noexcept nogil:
    """Make room for stored pages, and for what their seals hold. Return whether there is memory."""
    # What was there is of no use: a copy would only cost. The next ones may be a little longer.
    cdef size_t room = (size + ROOM_STEP) & ~<size_t>(ROOM_STEP - 1)
    ahead_free_room(ahead)
    ahead.stored = <unsigned char*>large_resize(NULL, 0, room)
    if ahead.stored == NULL:
        return False
    ahead.room = room
    if ahead.seal_bytes > 0:
        ahead.opened = <unsigned char*>large_resize(NULL, 0, room)
        if ahead.opened == NULL:
            # Whoever comes next is not to take the room for there.
            ahead_free_room(ahead)
            return False
    return True


cdef inline Py_ssize_t ahead_verify(Ahead* ahead, Py_ssize_t count) noexcept nogil:
    """Return how many of the sealed pages that were read, from the first on, can be opened and are
    decompressed here, as far as that shows before.
    """
    cdef const PageHandle* handle
    cdef const unsigned char* stored
    cdef Py_ssize_t index, size
    for index in range(count):
        handle = &ahead.pages[index].handle
        size = <Py_ssize_t>handle.size
        stored = ahead.stored + (handle.offset - ahead.offset)
        # Safety: all pages lie in `stored`; the size is looked at first.
        if (size < PAGE_TRAILER_BYTES + ahead.seal_bytes
                or sealed_verify(stored, size, ahead.pages[index].seed) != 0
                or load64(stored + size - CHECKSUM_BYTES) != handle.checksum
                or stored[size - PAGE_TRAILER_BYTES] ^ PAGE_SEALED == PAGE_COMPRESSION_ZSTD):
            return index
    return count


cdef inline void ahead_show(Ahead* ahead, Py_ssize_t count, bint is_whole) noexcept nogil:
    """Let the cursor have so many of the pages, and open the first. When that is not the whole, no
    more are read: the next one has to be read in the ordinary way.
    """
    ahead.count = count
    ahead.is_off = ahead.is_off or not is_whole
    ahead_open(ahead)
