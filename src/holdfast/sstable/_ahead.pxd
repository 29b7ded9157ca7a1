"""Pages of a table that a merge reads ahead, inline, see `_reader_c.pyx`.

All that is found wrong here is left to the reader: such a page ends what is read ahead, and whoever
reaches it reads it again, in the ordinary way, and gets the error. So does a page that needs a
library. What is here lies between its separators, as the reader would have found.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from holdfast.bufferpool._pool_c cimport BufferPool
from holdfast.codec._envelope_c cimport page_open, page_seed_of
from holdfast.codec._fixed cimport load64
from holdfast.sstable._handle cimport CHECKSUM_BYTES, DATA, PageHandle, is_page, take_handle
from holdfast.sstable._page_c cimport Entry, PageCursor, page_check_between, read_entry
from holdfast.sstable._pread cimport read_whole


cdef enum:
    AHEAD_PAGES = 64
    # Bodies may together have so many times the bytes that are read for them.
    BODIES_RATIO = 2


cdef struct AheadPage:
    PageHandle handle
    Entry separator                  # in the index page, while the page is read
    unsigned char* body              # NULL once the cursor has it
    Py_ssize_t size


cdef struct Ahead:
    Py_ssize_t bytes_max             # of stored pages that are read at once
    bint is_off                      # the pages need a library
    Py_ssize_t at                    # the next page that the cursor comes to
    Py_ssize_t count
    # The page that the cursor stands in, if it was read ahead, and the one before that: a key in it
    # may be what a seek is for.
    unsigned char* current
    unsigned char* last
    Entry before                     # the separator before the first page
    AheadPage[AHEAD_PAGES] pages


cdef inline void ahead_drop(Ahead* ahead) noexcept nogil:
    """Forget the pages that the cursor did not come to."""
    while ahead.at < ahead.count:
        free(ahead.pages[ahead.at].body)
        ahead.at += 1


cdef inline void ahead_free(Ahead* ahead) noexcept nogil:
    if ahead != NULL:
        ahead_drop(ahead)
        free(ahead.current)
        free(ahead.last)
        free(ahead)


cdef inline bint ahead_leads(const Ahead* ahead, const unsigned char* value,
                             Py_ssize_t size) noexcept nogil:
    """Return whether an entry of an index page leads to the next page."""
    cdef PageHandle handle
    return (ahead.at < ahead.count and take_handle(value, value + size, &handle) != NULL
            and handle.offset == ahead.pages[ahead.at].handle.offset)


cdef inline int ahead_enter(Ahead* ahead, PageCursor data) noexcept nogil:
    """Stand at the first entry of the next page. Requires: there is one."""
    cdef AheadPage* page = &ahead.pages[ahead.at]
    data.q_open(page.body, page.size, page.handle.offset)
    # Safety: the cursor has left this one by now.
    free(ahead.last)
    ahead.last = ahead.current
    ahead.current = page.body
    page.body = NULL
    ahead.at += 1
    return 1


cdef inline int ahead_next(Ahead* ahead, PageCursor index, PageCursor data) noexcept nogil:
    """Move both cursors to the next page. Return 0, and change nothing, when it is not there."""
    cdef Entry entry
    if ahead == NULL or index.next_at == index.entries_size:
        return 0
    # Safety: an entry of the checked index page starts there.
    read_entry(index.data + index.next_at, &entry)
    if not ahead_leads(ahead, entry.value, entry.value_size) or not index.q_next():
        return 0
    return ahead_enter(ahead, data)


cdef inline Py_ssize_t ahead_choose(Ahead* ahead, PageCursor index, BufferPool pool,
                                    uint64_t number, uint64_t limit) noexcept:
    """Note the pages to be read, from the one at which the index page's cursor stands: those that
    lie behind each other and are not in the pool. Return how many; 0 is always right.
    """
    cdef const unsigned char* position = index.data
    cdef const unsigned char* end = index.data + index.entries_size
    cdef AheadPage* page
    cdef Entry* separator = &ahead.before
    cdef uint64_t stored = 0
    cdef Py_ssize_t count = 0
    ahead_drop(ahead)
    ahead.at = ahead.count = 0
    # The first page of an index page follows the last one of another, which is not here.
    if ahead.is_off or index.entry_at == 0:
        return 0
    # Safety: the walk goes from entry to entry of a checked page.
    while position < index.data + index.entry_at:
        position = read_entry(position, separator)
    if separator.shared != 0:
        return 0
    while position < end and count < AHEAD_PAGES:
        page = &ahead.pages[count]
        separator = &page.separator
        position = read_entry(position, separator)
        if (separator.shared != 0
                or take_handle(separator.value, separator.value + separator.value_size,
                               &page.handle) != separator.value + separator.value_size
                or not is_page(&page.handle, limit)
                or page.handle.size > <uint64_t>ahead.bytes_max - stored
                or (count > 0 and page.handle.offset != ahead.pages[0].handle.offset + stored)
                or pool.nodes[pool.find(number, page.handle.offset)].page != NULL):
            break
        stored += page.handle.size
        count += 1
    return count


cdef inline void ahead_open(Ahead* ahead, Py_ssize_t count, const unsigned char* stored,
                            const unsigned char* file_id) noexcept nogil:
    """Open pages that were read, up to the first that is not as it should be."""
    cdef const Entry* before = &ahead.before
    cdef AheadPage* page
    cdef Py_ssize_t size = 0
    cdef int found_type = 0, opened
    cdef bint is_sound
    while ahead.count < count and size <= BODIES_RATIO * ahead.bytes_max:
        page = &ahead.pages[ahead.count]
        page.body = NULL
        # Safety: the pages lie behind each other in `stored`.
        opened = page_open(stored, page.handle.size, page_seed_of(file_id, page.handle.offset),
                           &page.body, &page.size, &found_type)
        if opened != 0:
            ahead.is_off = opened > 0
            return
        is_sound = (
            load64(stored + page.handle.size - CHECKSUM_BYTES) == page.handle.checksum
            and found_type == DATA
            and page_check_between(page.body, page.size, before, &page.separator) == 0)
        if not is_sound:
            free(page.body)
            return
        before = &page.separator
        stored += page.handle.size
        size += page.size
        ahead.count += 1


cdef inline int ahead_read(Ahead* ahead, Py_ssize_t count, int descriptor,
                           const unsigned char* file_id) noexcept nogil:
    """Read and open the pages that were chosen, at least one; without memory or with an error of
    the disk none.
    """
    cdef const PageHandle* first = &ahead.pages[0].handle
    cdef const PageHandle* last = &ahead.pages[count - 1].handle
    cdef size_t size = <size_t>(last.offset + last.size - first.offset)
    cdef unsigned char* stored = <unsigned char*>malloc(size)
    if stored != NULL and read_whole(descriptor, stored, size, first.offset) == 0:
        ahead_open(ahead, count, stored, file_id)
    free(stored)
    return 0
