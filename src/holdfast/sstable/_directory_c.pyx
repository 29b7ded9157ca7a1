"""Directories of entry pages: the compiled twin of `_directory_py`, which specifies the answers.

That of a DATA page is a hash table from keys to entries. Keys in a page share bytes with those
before them, so an entry that may be the one is compared from its end: its own bytes, then those of
the entries before it that the shared bytes come from, found through the table of how much each
shares. Nothing else of the page is touched. Of several versions of a key the newest is in the
table.

That of an index page has the eight bytes behind what all separators share, as numbers in order. A
search compares numbers; only equal ones need the separators themselves.

Both are made of a page that was checked, so what they say of it needs no check.

Thread safety: a directory is constant once it was made, but for the numbers of pool nodes, which
are hints.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from holdfast.bufferpool._pool_c cimport Page
from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._fixed cimport load32
from holdfast.cursor._cursor_c cimport compare_entries, key_prefix
from holdfast.sstable._page_c cimport Entry, page_lower_bound, read_entry, require_checked

cdef enum:
    RESTART_BYTES = 4
    # Larger pages hold few entries that are not large themselves; theirs would need wider numbers.
    PAGE_BYTES_MAX = 65536
    SHARED_MAX = 255
    PREFIX_BYTES = 8
    # So many separators with equal numbers are compared before the page is searched instead.
    EQUAL_MAX = 4


cdef inline Py_ssize_t _entries_size(Page page) noexcept nogil:
    """Return how many bytes of a checked page are entries."""
    # Safety: a checked page has its restart points and their count.
    return page.size - RESTART_BYTES * (<Py_ssize_t>load32(page.data + page.size - RESTART_BYTES)
                                        + 1)


cdef KeyDirectory* key_directory(Page page, Py_ssize_t* size) noexcept nogil:
    cdef unsigned char[SHARED_MAX + PAGE_BYTES_MAX] last
    cdef const unsigned char* limit
    cdef const unsigned char* position
    cdef KeyDirectory* directory
    cdef uint16_t* starts
    cdef uint8_t* shared
    cdef Entry entry
    cdef uint32_t count = 0, slot_count, bits = 1, number
    cdef Py_ssize_t last_size = -1
    cdef bint fits = page.size <= PAGE_BYTES_MAX
    if fits:
        limit = page.data + _entries_size(page)
        position = page.data
        while position < limit:
            position = read_entry(position, &entry)
            count += 1
            if entry.shared > SHARED_MAX:
                fits = False
                break
    if not fits:
        size[0] = sizeof(KeyDirectory)
        directory = <KeyDirectory*>malloc(size[0])
        if directory != NULL:
            directory.slot_count = 0
        return directory
    # A fifth of the slots stays empty, at least one, which ends each search.
    slot_count = count + count // 4 + 1
    while count >> bits:
        bits += 1
    size[0] = sizeof(KeyDirectory) + slot_count * sizeof(uint16_t) + count * (
        sizeof(uint16_t) + sizeof(uint8_t))
    directory = <KeyDirectory*>malloc(size[0])
    if directory == NULL:
        return NULL
    directory.slot_count = slot_count
    directory.entry_count = count
    directory.number_bits = bits
    memset(<void*>key_slots(directory), 0, slot_count * sizeof(uint16_t))
    starts = <uint16_t*>key_slots(directory) + slot_count
    shared = <uint8_t*>(starts + count)
    position = page.data
    for number in range(count):
        # Safety: an entry starts within the page, which has at most 65,536 bytes.
        starts[number] = <uint16_t>(position - page.data)
        position = read_entry(position, &entry)
        shared[number] = <uint8_t>entry.shared
        if entry.unshared == 0 and entry.shared == last_size:
            # An older version of the key before.
            continue
        # Safety: at most SHARED_MAX bytes are kept, and the suffix lies in the page.
        memcpy(last + entry.shared, entry.key, entry.unshared)
        last_size = entry.shared + entry.unshared
        _insert(directory, xxh64(last, last_size, 0), number)
    return directory


cdef inline uint32_t _tag_of(const KeyDirectory* directory, uint64_t hash) noexcept nogil:
    """Return what stands above the number of an entry in its slot."""
    return <uint32_t>(hash >> 48) >> directory.number_bits


cdef void _insert(KeyDirectory* directory, uint64_t hash, uint32_t number) noexcept nogil:
    cdef uint16_t* slots = <uint16_t*>key_slots(directory)
    cdef uint32_t at = key_slot(directory, hash)
    while slots[at] != 0:
        at += 1
        if at == directory.slot_count:
            at = 0
    # Safety: the number plus 1 is at most the count of entries, which has so many bits.
    slots[at] = <uint16_t>(_tag_of(directory, hash) << directory.number_bits | (number + 1))


cdef int key_find(const KeyDirectory* directory, const unsigned char* data,
                  const unsigned char* key, Py_ssize_t size, uint64_t hash, uint64_t trailer,
                  Entry* found) noexcept nogil:
    cdef const uint16_t* slots = key_slots(directory)
    cdef const uint16_t* starts = slots + directory.slot_count
    cdef uint32_t at, tag, slot, number
    if directory.slot_count == 0:
        return -1
    at = key_slot(directory, hash)
    tag = _tag_of(directory, hash)
    # Safety: slots hold numbers of entries; an empty one ends the loop.
    while True:
        slot = slots[at]
        if slot == 0:
            return 0
        if slot >> directory.number_bits == tag:
            number = (slot & ((1U << directory.number_bits) - 1)) - 1
            read_entry(data + starts[number], found)
            if (found.shared + found.unshared == size
                    and memcmp(found.key, key + found.shared, found.unshared) == 0
                    and _shares(directory, data, key, number, found.shared)):
                return 1 if found.trailer <= trailer else -1
        at += 1
        if at == directory.slot_count:
            at = 0


cdef inline bint _shares(const KeyDirectory* directory, const unsigned char* data,
                         const unsigned char* key, uint32_t number,
                         Py_ssize_t missing) noexcept nogil:
    """Return whether the first `missing` bytes of an entry's key, which it shares, are those of
    `key`. Requires: `key` has as many.
    """
    cdef const uint16_t* starts = key_slots(directory) + directory.slot_count
    cdef const uint8_t* shared = <const uint8_t*>(starts + directory.entry_count)
    cdef Entry before
    # Safety: an entry shares at most the key before it, and the first one nothing, which ends it.
    while missing > 0:
        number -= 1
        if shared[number] < missing:
            read_entry(data + starts[number], &before)
            if memcmp(before.key, key + before.shared, missing - before.shared) != 0:
                return False
            missing = before.shared
    return True


cdef SeparatorDirectory* separator_directory(Page page, Py_ssize_t* size) noexcept nogil:
    cdef const unsigned char* data = page.data
    cdef const unsigned char* position = data
    cdef const unsigned char* limit = data + _entries_size(page)
    cdef Py_ssize_t count = load32(data + page.size - RESTART_BYTES), skip, number, _entry
    cdef SeparatorDirectory* directory
    cdef uint64_t* prefixes
    cdef Entry first, entry
    if count == 0:
        return NULL
    read_entry(position, &first)
    for _entry in range(count):
        if position == limit:
            return NULL
        position = read_entry(position, &entry)
        # Safety: the restart points are there. Separators that are not stored whole have none.
        if entry.shared != 0:
            return NULL
    if position != limit:
        return NULL
    skip = 0
    while (skip < first.unshared and skip < entry.unshared
           and first.key[skip] == entry.key[skip]):
        skip += 1
    size[0] = sizeof(SeparatorDirectory) + count * <Py_ssize_t>(
        sizeof(uint64_t) + 2 * sizeof(uint32_t))
    directory = <SeparatorDirectory*>malloc(size[0])
    if directory == NULL:
        return NULL
    directory.count = count
    directory.skip = skip
    prefixes = <uint64_t*>separator_prefixes(directory)
    position = data
    for number in range(count):
        position = read_entry(position, &entry)
        # Safety: all keys lie between the first and the last one, so they begin with what those
        # two share.
        prefixes[number] = key_prefix(entry.key + skip, entry.unshared - skip)
        separator_values(directory)[number] = <uint32_t>(entry.value - data)
        separator_nodes(directory)[number] = 0
    return directory


cdef Py_ssize_t separator_find(const SeparatorDirectory* directory, Page page,
                               const unsigned char* key, Py_ssize_t size,
                               uint64_t trailer) noexcept nogil:
    cdef const uint64_t* prefixes = separator_prefixes(directory)
    cdef Py_ssize_t low = 0, left = directory.count, half, _try
    cdef const unsigned char* restarts
    cdef uint64_t prefix
    cdef Entry entry
    cdef int order
    # Safety: a directory has an entry, and the first one has the bytes that all share.
    if directory.skip > 0:
        read_entry(page.data, &entry)
        order = memcmp(key, entry.key, directory.skip if directory.skip < size else size)
        if order != 0:
            return 0 if order < 0 else directory.count
        if size < directory.skip:
            return 0
    prefix = key_prefix(key + directory.skip, size - directory.skip)
    # All before `low` are less; the step has no branch that could be guessed wrongly.
    while left > 1:
        half = left >> 1
        low += half if prefixes[low + half - 1] < prefix else 0
        left -= half
    low += prefixes[low] < prefix
    if low == directory.count or prefixes[low] != prefix:
        return low
    restarts = page.data + page.size - RESTART_BYTES * (directory.count + 1)
    for _try in range(EQUAL_MAX):
        read_entry(page.data + load32(restarts + RESTART_BYTES * low), &entry)
        if compare_entries(entry.key, entry.unshared, entry.trailer, key, size, trailer) >= 0:
            return low
        low += 1
        if low == directory.count or prefixes[low] != prefix:
            return low
    return -1


cdef Py_ssize_t separator_number(SeparatorDirectory* directory, uint32_t value) noexcept nogil:
    """Return the number of the separator whose value lies there, or -1."""
    cdef const uint32_t* values = separator_values(directory)
    cdef Py_ssize_t low = 0, high = directory.count, middle
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if low < directory.count and values[low] == value else -1


def find_entry(Page page not None, str file not None, uint64_t offset, bytes key not None,
               uint64_t trailer):
    """Return (trailer, value) of the newest entry of a DATA page with this key and at most this
    trailer, or None.

    Raises: CorruptionError(file, offset of the page, reason) when the page is damaged.
    """
    cdef const unsigned char* sought = <const unsigned char*>PyBytes_AS_STRING(key)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key), directory_size
    cdef KeyDirectory* directory
    cdef Entry entry
    cdef int status
    require_checked(page, file, offset)
    directory = key_directory(page, &directory_size)
    if directory == NULL:
        raise MemoryError
    status = key_find(directory, page.data, sought, size, xxh64(sought, size, 0), trailer, &entry)
    free(directory)
    if status < 0:
        status = page_lower_bound(page, sought, size, trailer, &entry) == 2
    if status == 0:
        return None
    return entry.trailer, PyBytes_FromStringAndSize(<const char*>entry.value, entry.value_size)


def find_separator(Page page not None, str file not None, uint64_t offset, bytes key not None,
                   uint64_t trailer):
    """Return the number of the first entry of an index page that is at or behind this key and
    trailer; that of all entries when there is none.

    Raises: CorruptionError(file, offset of the page, reason) when the page is damaged.
    """
    cdef const unsigned char* sought = <const unsigned char*>PyBytes_AS_STRING(key)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key), number = -1, count, directory_size
    cdef SeparatorDirectory* directory
    cdef const unsigned char* position
    cdef Entry entry, passed
    require_checked(page, file, offset)
    directory = separator_directory(page, &directory_size)
    if directory != NULL:
        number = separator_find(directory, page, sought, size, trailer)
        free(directory)
    if number >= 0:
        return number
    # The page itself says where the entry lies; it is counted from the front.
    count = 0
    if page_lower_bound(page, sought, size, trailer, &entry) == 0:
        entry.value = NULL
    position = page.data
    while position < page.data + _entries_size(page):
        position = read_entry(position, &passed)
        if passed.value == entry.value:
            break
        count += 1
    return count
