"""Inline decoding of page handles, see `format.py`, and where in a table a page belongs."""
from libc.stdint cimport uint64_t

from holdfast.bufferpool._pool_c cimport Page
from holdfast.codec._envelope_c cimport PAGE_TRAILER_BYTES
from holdfast.codec._fixed cimport load64
from holdfast.codec._varint cimport varint_get
from holdfast.cursor._cursor_c cimport Cursor
from holdfast.sstable._page_c cimport Entry, PageCursor, page_lower_bound


cdef enum:
    # The longest body of a page.
    BODY_BYTES_MAX = 0x7FFFFFFF
    CHECKSUM_BYTES = 8
    # Types of pages.
    DATA = 1
    INDEX = 2
    INDEX_ROOT = 3
    FILTER = 4
    FILTER_HEADER_BYTES = 8
    # Of the pool.
    PINNED = 2
    HITS_MAX = 3
    # A data page gets its directory at this hit: a page that is read once does without.
    DIRECTORY_HITS = 2


# Where a page lies.
cdef struct PageHandle:
    uint64_t offset
    uint64_t size
    uint64_t checksum


cdef inline const unsigned char* take_handle(const unsigned char* source, const unsigned char* end,
                                             PageHandle* handle) noexcept nogil:
    """Decode one handle of an index entry and return the position behind it, or NULL."""
    source = varint_get(source, end, &handle.offset)
    if source == NULL:
        return NULL
    source = varint_get(source, end, &handle.size)
    if source == NULL or end - source < CHECKSUM_BYTES:
        return NULL
    handle.checksum = load64(source)
    return source + CHECKSUM_BYTES


cdef inline bint is_page(const PageHandle* handle, uint64_t limit) noexcept nogil:
    """Return whether this can be a page that ends at or before `limit`."""
    return (PAGE_TRAILER_BYTES <= handle.size <= <uint64_t>BODY_BYTES_MAX + PAGE_TRAILER_BYTES
            and handle.size <= limit and handle.offset <= limit - handle.size)


cdef inline bint take_root_handles(const unsigned char* source, const unsigned char* end,
                                   uint64_t limit, PageHandle* index,
                                   PageHandle* filter) noexcept nogil:
    """Decode an entry of a root. Return whether both handles can be, that of the filter also if it
    says that there is none.
    """
    source = take_handle(source, end, index)
    if source != NULL:
        source = take_handle(source, end, filter)
    return source == end and is_page(index, limit) and (
        is_page(filter, limit)
        or (filter.offset == 0 and filter.size == 0 and filter.checksum == 0))


cdef inline uint64_t place_of(Page root, const unsigned char* root_value, Page index,
                              const unsigned char* index_value) noexcept:
    """Return a number, not 0, that only these values in root and index page have. Without `index`
    it is that of the index page.
    """
    cdef uint64_t place = <uint64_t>(root_value - root.data) << 32
    # Safety: a body has less than 2^32 bytes, and no value stands at its start.
    return place if index is None else place | <uint64_t>(index_value - index.data)


cdef inline bint leads_here(Page parent, Cursor entry, uint64_t at, bint exactly) noexcept:
    """Return whether a search for `entry` in `parent` ends at the value at `at`: whether it lies
    behind the separator before that, and not behind that; with `exactly`, whether it is at that.
    """
    cdef Entry found
    cdef int status = page_lower_bound(parent, entry.key_data, entry.key_size, entry.trailer,
                                       &found)
    if status == 0 or <uint64_t>(found.value - parent.data) != at:
        return False
    return not exactly or (status == 2 and found.trailer == entry.trailer)


cdef inline bint belongs(PageCursor entries, Page root, Page index, uint64_t place) except -1:
    """Return whether a page lies between its separators; without `index` it is an index page."""
    cdef bint sound
    entries.c_first()
    # Between index pages the separator before stands in the root.
    sound = leads_here(root, entries, place >> 32, False)
    if index is not None:
        sound = sound and leads_here(index, entries, place & 0xFFFFFFFF, False)
    entries.c_last()
    if index is None:
        return sound and leads_here(root, entries, place >> 32, True)
    return sound and leads_here(index, entries, place & 0xFFFFFFFF, False)


cdef inline int check_key(object key) except -1:
    if type(key) is not bytes:
        raise TypeError(f"a key is bytes, not {type(key).__name__}")
    return 0


cdef inline int check_seq(object seq) except -1:
    if not isinstance(seq, int):
        raise TypeError(f"a sequence number is an int, not {type(seq).__name__}")
    # 56 bits, as base.SEQ_MAX.
    if not 0 <= seq < 1 << 56:
        raise ValueError(f"the sequence number {seq} does not fit 56 bits")
    return 0
