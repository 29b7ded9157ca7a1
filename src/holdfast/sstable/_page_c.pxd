from libc.stdint cimport uint64_t
from holdfast.bufferpool._pool_c cimport Page
from holdfast.codec._fixed cimport load64
from holdfast.cursor._cursor_c cimport Cursor, Run


cdef struct Entry:
    const unsigned char* key         # the suffix; the whole key where `shared` is 0
    Py_ssize_t shared
    Py_ssize_t unshared
    uint64_t trailer
    const unsigned char* value
    Py_ssize_t value_size


cdef enum:
    PAGE_CHECK_NO_MEMORY = -99
    ENTRY_TRAILER_BYTES = 8

# Check a whole entry page. Return 0, or a negative status: damage, but for PAGE_CHECK_NO_MEMORY.
cdef int page_check(const unsigned char* data, Py_ssize_t size, int page_type) noexcept nogil
# Check a DATA page, and that its entries lie behind one separator and not behind another, which are
# whole keys. Return 0 if so; any other status says no more than no.
cdef int page_check_between(const unsigned char* data, Py_ssize_t size, const Entry* lower,
                            const Entry* upper) noexcept nogil
# A sentence for a negative status.
cdef str page_damage(int status)
# Make sure that `page` was checked. Raises: CorruptionError(file, offset of the page, reason).
cdef int require_checked(Page page, str file, uint64_t offset) except -1
# Give all entries of a checked DATA page of an ingested table their trailer. Return 0, or a
# negative status: damage.
cdef int page_stamp(unsigned char* data, Py_ssize_t size, uint64_t trailer) noexcept nogil
# First entry >= (key, trailer) in internal order. Return 0 when there is none, 1 when its key is
# greater, 2 when its key is equal. The first `shared` bytes of the found key are those of `key`.
# Requires: page.checked.
cdef int page_lower_bound(Page page, const unsigned char* key, Py_ssize_t size, uint64_t trailer,
                          Entry* found) noexcept


cdef inline const unsigned char* read_length(const unsigned char* source,
                                             Py_ssize_t* length) noexcept nogil:
    """Read a varint of a checked page."""
    cdef int shift = 0
    if source[0] < 0x80:
        length[0] = source[0]
        return source + 1
    # Safety: the varint was found to be whole and to be less than the size of the page, or of a
    # key.
    length[0] = 0
    while source[0] >= 0x80:
        length[0] |= <Py_ssize_t>(source[0] & 0x7F) << shift
        shift += 7
        source += 1
    length[0] |= <Py_ssize_t>source[0] << shift
    return source + 1


cdef inline const unsigned char* read_entry(const unsigned char* source,
                                            Entry* entry) noexcept nogil:
    """Read an entry of a checked page and return the position behind it."""
    # Safety: `source` is the start of an entry of a checked page, so all of it lies in the page.
    source = read_length(source, &entry.shared)
    source = read_length(source, &entry.unshared)
    source = read_length(source, &entry.value_size)
    entry.trailer = load64(source)
    entry.key = source + ENTRY_TRAILER_BYTES
    entry.value = entry.key + entry.unshared
    return entry.value + entry.value_size


cdef class PageCursor(Cursor):
    cdef Page page
    cdef str file
    cdef uint64_t offset
    cdef const unsigned char* data           # of the page
    cdef const unsigned char* restarts
    cdef Py_ssize_t restart_count
    cdef Py_ssize_t entries_size
    cdef Py_ssize_t entry_at                 # where the current entry starts and ends
    cdef Py_ssize_t next_at
    cdef unsigned char* buffer               # holds keys that share bytes
    cdef Py_ssize_t buffer_size
    cdef Entry* run                          # entries since a restart point, for moves backward
    cdef Py_ssize_t run_capacity
    # of the current entry in `run`; 0 when it must be loaded anew
    cdef Py_ssize_t run_index
    # Move to another page; stands at no entry after it.
    cdef int open(self, Page page, uint64_t offset) except -1
    # Move to the first entry of a checked page that is not empty and that the caller keeps alive.
    # Only moves within the page are allowed then, until `open`.
    cdef int q_open(self, const unsigned char* data, Py_ssize_t size,
                    uint64_t offset) noexcept nogil
    cdef void lay_out(self, const unsigned char* data, Py_ssize_t size,
                      uint64_t offset) noexcept nogil
    cdef int run_forward(self, Run* run) noexcept nogil
    cdef int run_backward(self, Run* run) except -1
    cdef int need_buffer(self, Py_ssize_t size) except -1
    cdef int q_need_buffer(self, Py_ssize_t size) noexcept nogil
    cdef int stand(self, const Entry* entry) noexcept nogil
    cdef int stand_in_run(self, Py_ssize_t index) except -1
    cdef Py_ssize_t load_run(self, Py_ssize_t limit) except -1
