from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from holdfast.bufferpool._pool_c cimport BufferPool, Page
from holdfast.cursor._cursor_c cimport Cursor
from holdfast.cursor._tombstones_c cimport RangeTombstones
from holdfast.sstable._ahead cimport Ahead
from holdfast.sstable._handle cimport PageHandle
from holdfast.sstable._page_c cimport Entry, PageCursor
from holdfast.sstable._source_c cimport PageSource


# What a reader knows of a partition without a look into the pool.
cdef struct Partition:
    PyObject* filter                     # a pinned page, an owned reference; NULL: unknown, or none
    const unsigned char* blocks          # its blocks
    uint32_t block_count
    int probes
    bint passes_all                      # there is no filter


cdef class TableReader:
    cdef readonly uint64_t number
    cdef readonly RangeTombstones range_tombstones
    cdef readonly str name
    cdef readonly object footer
    cdef readonly object info
    cdef readonly dict properties
    cdef readonly Py_ssize_t prefix_bytes    # of the prefixes that the filters hold, or 0
    cdef object __weakref__
    cdef PageSource source
    cdef BufferPool pool
    cdef Page root
    # of the root, one for each of its entries; NULL when the root has no directory
    cdef Partition* partitions
    cdef Py_ssize_t partition_count
    cdef uint64_t root_offset
    cdef bint closed                     # asked by lookups, which do not get to the source
    # pages read for lookups and scans, and their stored bytes
    cdef readonly uint64_t pages_read
    cdef readonly uint64_t bytes_read
    # Newest version with seq <= snapshot. `hash` is xxh64(key, seed 0), computed once per lookup
    # for all tables. Return the page that owns the value bytes and fill the outputs, or None when
    # absent. With `missed`, None and a set `missed` mean that the answer takes a page from the
    # file.
    cdef Page c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                    uint64_t snapshot,
                    uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size,
                    bint* missed)
    cdef object checked_get(self, key, snapshot, bint* missed)
    # The same from what is in memory, with borrowed outputs. Return 1 when it was found, 0 when it
    # is absent, -1 when it must be asked for by the long way.
    cdef int find(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                  uint64_t newest, Entry* entry, PyObject** page) noexcept
    # Where `find` would look: 1 and the pool's nodes of the index and data page, which are hints,
    # and the place of the data page; 0 when the key is absent; -1 when that is not known.
    cdef int locate(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                    uint64_t newest, uint32_t* index_node, uint32_t* node,
                    uint64_t* place) noexcept
    # The long way: through the pool, and the file for what is not in it.
    cdef Page search(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                     uint64_t newest, Entry* entry, bint* missed)
    cdef int find_in_page(self, PyObject* page, uint32_t node, const unsigned char* key,
                          Py_ssize_t key_size, uint64_t hash, uint64_t newest,
                          Entry* entry) noexcept
    cdef PyObject* page_at(self, uint32_t node, uint64_t place) noexcept
    cdef void remember(self, uint64_t place, uint64_t index_offset,
                       const PageHandle* filter_handle, uint64_t data_offset, Page index) noexcept
    cdef void keep_filter(self, Partition* partition, const PageHandle* handle) noexcept
    cdef void give_separators(self, Page page, uint64_t offset) noexcept
    cdef int open_partitions(self) except -1
    cdef void forget_filters(self) noexcept
    cdef int open_pages(self, info) except -1
    cdef bint passes(self, const PageHandle* filter_handle, uint64_t hash,
                     bint* missed) except -1
    cdef int check_open(self) except -1
    cdef Page load(self, const PageHandle* handle, int page_type, int use, Page root,
                   const unsigned char* root_value, Page index, const unsigned char* index_value,
                   bint* missed)
    cdef int keep(self, Page page, int page_type, uint64_t offset) except -1
    cdef int require_place(self, Page page, uint64_t offset, uint64_t place, Page root,
                           Page index) except -1
    cdef int root_handles(self, const unsigned char* value, Py_ssize_t size, PageHandle* index,
                          PageHandle* filter) except -1
    cdef int index_handle(self, const unsigned char* value, Py_ssize_t size, uint64_t index_offset,
                          PageHandle* handle) except -1


cdef class TableCursor(Cursor):
    cdef TableReader reader
    cdef bint fill_cache
    # of data pages, stored, that were passed in one direction since the scan began
    cdef Py_ssize_t walked
    cdef Py_ssize_t walked_before        # in other tables; a scan from either end begins with it
    cdef bint is_backward
    cdef bint is_long                    # pages are read ahead, and do not enter the pool
    cdef PageCursor root
    cdef PageCursor index
    cdef PageCursor data
    cdef Ahead* ahead                    # NULL: nothing was read ahead so far
    cdef bint read_ahead(self, bint is_backward) except -1
    cdef bint make_ahead(self, Py_ssize_t bytes_max) noexcept
    cdef int enter(self, bint first) except -1
    cdef int load_index(self) except -1
    cdef int load_data(self) except -1
    cdef void begin_scan(self, bint is_backward, Py_ssize_t walked) noexcept
    cdef void walk(self, bint is_backward) noexcept
    cdef int next_page(self) except -1
    cdef int prev_page(self) except -1
    cdef int stand(self) noexcept nogil
