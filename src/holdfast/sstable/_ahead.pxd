"""Pages of a table that a merge reads ahead, inline, see `_reader_c.pyx`.

Pages that lie behind each other are read with one call, and each is opened when the cursor comes to
it: so none is read twice, and no more than two bodies are held.

All that is found wrong here is left to the reader: such a page, or an error of the disk, drops what
was read ahead and ends it for this cursor, and whoever reaches the page reads it again, in the
ordinary way, and gets the error. So does a page that needs a library. What is here lies between its
separators, as the reader would have found.
"""
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from holdfast.bufferpool._pool_c cimport BufferPool
from holdfast.codec._envelope_c cimport PAGE_TRAILER_BYTES, page_open, page_seed_of
from holdfast.codec._fixed cimport load32, load64
from holdfast.sstable._handle cimport CHECKSUM_BYTES, DATA, PageHandle, is_page, take_handle
from holdfast.sstable._page_c cimport Entry, PageCursor, page_check_between, read_entry
from holdfast.sstable._pread cimport read_whole


cdef enum:
    AHEAD_PAGES = 64
    # To open a page with a longer body takes long enough to let others have the GIL.
    QUICK_BYTES = 128 * 1024


cdef struct AheadPage:
    PageHandle handle
    uint64_t seed
    Entry separator                  # in the index page


# Invariant: pages wait only as long as the cursor stands in the index page that they were chosen
# from, so that their separators are there.
cdef struct Ahead:
    Py_ssize_t bytes_max             # of stored pages that are read at once
    bint is_off                      # for the rest of the cursor's life
    Py_ssize_t at                    # the next page that the cursor comes to
    Py_ssize_t count
    # Where in the index page an entry starts from which on the next ones are looked for.
    Py_ssize_t looked_to
    unsigned char* stored            # all pages as they were read; NULL when none waits
    unsigned char* body              # of the next page, once it was opened; else NULL
    Py_ssize_t size
    # The page that the cursor stands in, if it was read ahead, and the one before that: a key in it
    # may be what a seek is for.
    unsigned char* current
    unsigned char* last
    Entry before                     # the separator before the first page
    AheadPage[AHEAD_PAGES] pages


cdef inline void ahead_drop(Ahead* ahead) noexcept nogil:
    """Forget the pages that the cursor did not come to."""
    free(ahead.stored)
    free(ahead.body)
    ahead.stored = ahead.body = NULL
    ahead.at = ahead.count = 0


cdef inline void ahead_leave(Ahead* ahead) noexcept nogil:
    """Forget all that belongs to the index page that the cursor stands in."""
    if ahead != NULL:
        ahead_drop(ahead)
        ahead.looked_to = 0


cdef inline void ahead_free(Ahead* ahead) noexcept nogil:
    if ahead != NULL:
        ahead_drop(ahead)
        free(ahead.current)
        free(ahead.last)
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
        ahead.stored + (handle.offset - ahead.pages[0].handle.offset)
        + (handle.size - PAGE_TRAILER_BYTES) + 4) > QUICK_BYTES


cdef inline bint ahead_open(Ahead* ahead) noexcept nogil:
    """Open and check the next page, if that is not done yet. Return whether there is one that is as
    it should be.
    """
    cdef AheadPage* page = &ahead.pages[ahead.at]
    cdef const Entry* before = &ahead.before
    cdef const unsigned char* stored
    cdef int found_type = 0
    if ahead.at == ahead.count or ahead.body != NULL:
        return ahead.at < ahead.count
    if ahead.at > 0:
        before = &ahead.pages[ahead.at - 1].separator
    # Safety: the cursor has left this one. No third body is held while another one is opened.
    free(ahead.last)
    ahead.last = NULL
    # Safety: the pages lie behind each other in `stored`, and none is smaller than a trailer, which
    # ends with the checksum.
    stored = ahead.stored + (page.handle.offset - ahead.pages[0].handle.offset)
    if (page_open(stored, page.handle.size, page.seed, &ahead.body, &ahead.size, &found_type) == 0
            and load64(stored + page.handle.size - CHECKSUM_BYTES) == page.handle.checksum
            and found_type == DATA
            and page_check_between(ahead.body, ahead.size, before, &page.separator) == 0):
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
    free(ahead.last)
    ahead.last = ahead.current
    ahead.current = ahead.body
    ahead.body = NULL
    ahead.at += 1
    if ahead.at == ahead.count:
        free(ahead.stored)
        ahead.stored = NULL
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


cdef inline Py_ssize_t ahead_choose(Ahead* ahead, PageCursor index, BufferPool pool,
                                    uint64_t number, uint64_t limit) noexcept:
    """Note the pages to be read, from the one at which the index page's cursor stands: those that
    lie behind each other and are not in the pool. Return how many; 0 is always right.
    """
    cdef const unsigned char* position
    cdef const unsigned char* end = index.data + index.entries_size
    cdef AheadPage* page
    cdef Entry* separator = &ahead.before
    cdef uint64_t stored = 0
    cdef Py_ssize_t count = 0
    ahead_drop(ahead)
    # The first page of an index page follows the last one of another, which is not here.
    if ahead.is_off or index.entry_at == 0:
        return 0
    # Going on from where the last look was, it takes time in proportion to the index page.
    if ahead.looked_to >= index.entry_at:
        ahead.looked_to = 0
    position = index.data + ahead.looked_to
    # Safety: the walk goes from entry to entry of a checked page; it begins before the cursor's.
    while position < index.data + index.entry_at:
        position = read_entry(position, separator)
    ahead.looked_to = index.entry_at
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


cdef inline void ahead_read(Ahead* ahead, Py_ssize_t count, int descriptor,
                            const unsigned char* file_id) noexcept nogil:
    """Read the pages that were chosen, at least one, and open the first; without memory none."""
    cdef const PageHandle* first = &ahead.pages[0].handle
    cdef const PageHandle* last = &ahead.pages[count - 1].handle
    cdef size_t size = <size_t>(last.offset + last.size - first.offset)
    cdef Py_ssize_t index
    ahead.stored = <unsigned char*>malloc(size)
    if ahead.stored == NULL:
        return
    if read_whole(descriptor, ahead.stored, size, first.offset) != 0:
        # Each try may take the disk seconds, and the page that it is for is asked for once more.
        ahead.is_off = True
        ahead_drop(ahead)
        return
    for index in range(count):
        ahead.pages[index].seed = page_seed_of(file_id, ahead.pages[index].handle.offset)
    ahead.count = count
    ahead_open(ahead)
