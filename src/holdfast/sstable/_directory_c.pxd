"""The compiled face of page directories."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from holdfast.bufferpool._pool_c cimport Page
from holdfast.sstable._page_c cimport Entry

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define HOLDFAST_PREFETCH_ANY(address) __builtin_prefetch(address)
    #else
    #define HOLDFAST_PREFETCH_ANY(address) ((void)0)
    #endif
    """
    void prefetch "HOLDFAST_PREFETCH_ANY"(const void* address) noexcept nogil


# Of a DATA page; its arrays lie behind it, the wider ones first.
cdef struct KeyDirectory:
    uint32_t slot_count              # 0: this page can have no directory
    uint32_t entry_count
    uint32_t number_bits             # of a slot; the others are a tag, a part of the key's hash
    uint32_t unused
    # uint16_t slots[slot_count]     # number of the newest entry of a key plus 1, below its tag
    # uint16_t starts[entry_count]   # where each entry starts
    # uint8_t shared[entry_count]    # how many bytes it shares with the one before


# Of an INDEX or INDEX_ROOT page; its arrays lie behind it.
cdef struct SeparatorDirectory:
    Py_ssize_t count
    Py_ssize_t skip                  # the first bytes, which all separators share
    # uint64_t prefixes[count]       # key_prefix of what follows them
    # uint32_t values[count]         # where each value lies in the page
    # uint32_t nodes[count]          # where the pool had the page that it names; 0: unknown


cdef inline const uint64_t* separator_prefixes(const SeparatorDirectory* directory) noexcept nogil:
    return <const uint64_t*>(directory + 1)


cdef inline uint32_t* separator_values(SeparatorDirectory* directory) noexcept nogil:
    return <uint32_t*>(<uint64_t*>(directory + 1) + directory.count)


cdef inline uint32_t* separator_nodes(SeparatorDirectory* directory) noexcept nogil:
    return separator_values(directory) + directory.count


cdef inline const uint16_t* key_slots(const KeyDirectory* directory) noexcept nogil:
    return <const uint16_t*>(directory + 1)


# The directory of a checked page and its size, or NULL when there is no memory for it.
cdef KeyDirectory* key_directory(Page page, Py_ssize_t* size) noexcept nogil
# The same; NULL also when the page is empty or its separators cannot be searched by it.
cdef SeparatorDirectory* separator_directory(Page page, Py_ssize_t* size) noexcept nogil
# The newest entry of a key with at most this trailer. `hash` is xxh64(key, 0). Return 1 when it was
# found, 0 when there is none, -1 when the page must be searched for it.
cdef int key_find(const KeyDirectory* directory, const unsigned char* data,
                  const unsigned char* key, Py_ssize_t size, uint64_t hash, uint64_t trailer,
                  Entry* found) noexcept nogil
# The number of the first separator at or behind (key, trailer), that of all when there is none, -1
# when the page must be searched for it.
cdef Py_ssize_t separator_find(const SeparatorDirectory* directory, Page page,
                               const unsigned char* key, Py_ssize_t size,
                               uint64_t trailer) noexcept nogil
# The number of the separator whose value lies there in the page, or -1.
cdef Py_ssize_t separator_number(SeparatorDirectory* directory, uint32_t value) noexcept nogil


cdef inline uint32_t key_slot(const KeyDirectory* directory, uint64_t hash) noexcept nogil:
    """Return the slot at which a search begins. Requires: a directory that has slots."""
    return <uint32_t>((<uint64_t><uint32_t>hash * directory.slot_count) >> 32)


cdef inline void key_prefetch(const KeyDirectory* directory, uint64_t hash) noexcept nogil:
    """Ask for the slot of a key."""
    if directory.slot_count > 0:
        prefetch(key_slots(directory) + key_slot(directory, hash))


cdef inline void key_prefetch_entry(const KeyDirectory* directory, const unsigned char* data,
                                    uint64_t hash) noexcept nogil:
    """Ask for the entry that the first slot of a key names."""
    cdef const uint16_t* slots = key_slots(directory)
    cdef uint32_t slot
    if directory.slot_count > 0:
        slot = slots[key_slot(directory, hash)] & ((1U << directory.number_bits) - 1)
        if slot > 0:
            # Safety: a slot holds the number of an entry plus 1.
            data += slots[directory.slot_count + slot - 1]
            prefetch(data)
            prefetch(data + 64)
