from libc.stdint cimport uint64_t


cdef class Page:
    cdef const unsigned char* data       # Constant after construction
    cdef Py_ssize_t size
    cdef readonly int page_type
    # Take over a malloc'd buffer, freed with the page.
    @staticmethod
    cdef Page adopt(unsigned char* data, Py_ssize_t size, int page_type)


cdef class BufferPool:
    # The page, or None. Counts a hit or a miss.
    cdef Page c_get(self, uint64_t file_number, uint64_t offset)
    cdef int c_put(self, uint64_t file_number, uint64_t offset, Page page, bint pinned) except -1
