from libc.stdint cimport uint64_t
from holdfast.bufferpool._pool_c cimport BufferPool, Page
from holdfast.cursor._cursor_c cimport Cursor
from holdfast.cursor._tombstones_c cimport RangeTombstones
from holdfast.sstable._page_c cimport PageCursor


# Where a page lies; see sstable/format.py.
cdef struct PageHandle:
    uint64_t offset
    uint64_t size
    uint64_t checksum


cdef class TableReader:
    cdef readonly uint64_t number
    cdef readonly RangeTombstones range_tombstones
    cdef readonly str name
    cdef readonly bytes file_id
    cdef readonly object footer
    cdef readonly object info
    cdef readonly dict properties
    cdef object __weakref__
    cdef object file
    # of the file, or -1: then it is read through `file.read_at`
    cdef int descriptor
    cdef BufferPool pool
    cdef Page root
    cdef uint64_t root_offset
    cdef uint64_t limit                  # where the footer starts: all pages lie before
    cdef bint closed
    cdef Py_ssize_t reading              # pages that are being read from the file right now
    # Newest version with seq <= snapshot. `hash` is xxh64(key, seed 0), computed once per lookup
    # for all tables. Return the page that owns the value bytes and fill the outputs, or None when
    # absent. With `missed`, None and a set `missed` mean that the answer takes a page from the
    # file.
    cdef Page c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                    uint64_t snapshot,
                    uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size,
                    bint* missed)
    cdef object checked_get(self, key, snapshot, bint* missed)
    cdef int open_pages(self, info) except -1
    cdef bint passes(self, const PageHandle* filter_handle, uint64_t hash,
                     bint fill_cache, bint* missed) except -1
    cdef int check_open(self) except -1
    cdef Page load(self, const PageHandle* handle, int page_type, bint fill_cache, Page root,
                   const unsigned char* root_value, Page index, const unsigned char* index_value,
                   bint* missed)
    cdef int require_place(self, Page page, uint64_t offset, uint64_t place, Page root,
                           Page index) except -1
    cdef Page read(self, const PageHandle* handle, int page_type)
    cdef Page read_open(self, const PageHandle* handle, int page_type)
    cdef int close_if_idle(self) except -1
    cdef Page read_by_library(self, const unsigned char* stored, const PageHandle* handle,
                              int page_type)
    cdef int root_handles(self, const unsigned char* value, Py_ssize_t size, PageHandle* index,
                          PageHandle* filter) except -1
    cdef int index_handle(self, const unsigned char* value, Py_ssize_t size, uint64_t index_offset,
                          PageHandle* handle) except -1


cdef class TableCursor(Cursor):
    cdef TableReader reader
    cdef bint fill_cache
    cdef PageCursor root
    cdef PageCursor index
    cdef PageCursor data
    cdef int load_index(self) except -1
    cdef int load_data(self) except -1
    cdef int next_page(self) except -1
    cdef int stand(self) noexcept
