"""Reads the pages of a table from its file: the compiled twin of `_source_py`, which specifies it.

A page is read, verified, decompressed and checked in one section without the GIL: winning it back
can take long. ZSTD and ciphers need their libraries, and so the GIL. A page that takes ZSTD alone
was verified by then, and is decompressed from where it was read to; a sealed one is opened there.
Of sealed pages that a merge reads ahead all are opened at once.

Thread safety: a source is shared freely. A `close` while others read lets each of them finish what
it reads; then they get DatabaseClosedError.
"""
cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint64_t

from holdfast.bufferpool._pool_c cimport Page
from holdfast.codec._envelope_c cimport (
    PAGE_FIELDS_BYTES, PAGE_TRAILER_BYTES, page_decompress, page_open, page_raise, page_seed_of,
)
from holdfast.codec._fixed cimport load64
from holdfast.sstable._ahead cimport Ahead, ahead_read, ahead_show, ahead_verify
from holdfast.sstable._handle cimport CHECKSUM_BYTES, DATA, FILTER, PageHandle
from holdfast.sstable._page_c cimport PAGE_CHECK_NO_MEMORY, page_check, page_damage, page_stamp
from holdfast.sstable._pread cimport FILE_ENDS, read_whole

import os

from holdfast.base import CorruptionError, DatabaseClosedError
from holdfast.codec import open_page
from holdfast.sstable._filter import filter_check
from holdfast.sstable.format import FILE_ID_BYTES
from holdfast.sstable.sealed import page_cipher


@cython.final
cdef class PageSource:
    """The open file of a table. `file` becomes its own once the constructor has returned.

    All pages lie before `limit`. `stamp` is the trailer of all entries of an ingested table, 0 when
    they have their own. Raises: ValueError when the file id has not 16 bytes.
    """

    def __cinit__(self):
        self.closed = True

    def __init__(self, file, bytes file_id not None, uint64_t limit, uint64_t stamp):
        if PyBytes_GET_SIZE(file_id) != FILE_ID_BYTES:
            raise ValueError("a file id has 16 bytes")
        self.file = file
        self.name = file.name
        self.limit = limit
        self.file_id = file_id
        self.stamp = stamp
        self.cipher = page_cipher(file)
        self.seal_bytes = 0 if self.cipher is None else self.cipher.seal_bytes
        self.descriptor = file.fileno()
        self.closed = False

    def read(self, handle, int page_type):
        """Return the page that a handle names, which must have this type.

        Raises: CorruptionError; DatabaseClosedError; OSError.
        """
        cdef PageHandle place
        self.check_open()
        problem = handle.problem(self.limit)
        if problem is not None:
            raise CorruptionError(self.name, handle.offset, problem)
        place = PageHandle(handle.offset, handle.size, handle.checksum)
        return self.c_read(&place, page_type)

    def use(self, work):
        """Return what `work` makes of the file, which is not closed meanwhile.

        Raises: DatabaseClosedError, and whatever `work` raises.
        """
        self.check_open()
        self.reading += 1
        try:
            return work(self.file)
        finally:
            self.reading -= 1
            self.close_if_idle()

    def close(self):
        """Close the file as soon as nobody reads from it. Harmless the second time."""
        if not self.closed:
            self.closed = True
            self.close_if_idle()

    cdef Page c_read(self, const PageHandle* handle, int page_type):
        self.check_open()
        self.reading += 1
        try:
            return self.read_counted(handle, page_type)
        finally:
            self.reading -= 1
            self.close_if_idle()

    cpdef bint reads_ahead(self) noexcept:
        """See `_source_py.reads_ahead`."""
        return self.descriptor >= 0 and self.cipher is None

    cdef int c_read_ahead(self, Ahead* ahead, Py_ssize_t count) except -1:
        cdef const unsigned char* file_id = <const unsigned char*>PyBytes_AS_STRING(self.file_id)
        cdef int descriptor = self.descriptor
        cdef bint is_sealed = ahead.seal_bytes > 0, is_read
        self.check_open()
        self.reading += 1
        with nogil:
            is_read = ahead_read(ahead, count, descriptor, file_id)
            if is_read and not is_sealed:
                ahead_show(ahead, count, True)
        self.reading -= 1
        self.close_if_idle()
        if is_read and is_sealed:
            self.open_ahead(ahead, count)
        return 0

    cdef int open_ahead(self, Ahead* ahead, Py_ssize_t count) except -1:
        """Open the seals of the pages that were read, up to the first that has something wrong."""
        cdef const PageHandle* handle
        cdef unsigned char* stored
        cdef Py_ssize_t index, size, good
        cdef list offsets = [], pieces = [], fields = [], targets = []
        with nogil:
            good = ahead_verify(ahead, count)
        try:
            for index in range(good):
                handle = &ahead.pages[index].handle
                # Safety: a page that was verified has a seal and a trailer. It lies in `stored`,
                # and what it holds at the same place of `opened`. Both stay as they are until the
                # views are released, which the traceback of an error may hold longer than that.
                stored = ahead.stored + (handle.offset - ahead.offset)
                size = <Py_ssize_t>handle.size - PAGE_TRAILER_BYTES
                offsets.append(handle.offset)
                pieces.append(PyMemoryView_FromMemory(<char*>stored, size, PyBUF_READ))
                fields.append(PyBytes_FromStringAndSize(<char*>stored + size, PAGE_FIELDS_BYTES))
                targets.append(PyMemoryView_FromMemory(
                    <char*>ahead.opened + (stored - ahead.stored), size - ahead.seal_bytes,
                    PyBUF_WRITE))
            good = self.cipher.open_many(offsets, pieces, fields, targets)
        finally:
            for view in pieces + targets:
                view.release()
        with nogil:
            ahead_show(ahead, good, good == count)
        return 0

    cdef Page read_counted(self, const PageHandle* handle, int page_type):
        """Do what `c_read` says. Requires: `reading` counts this."""
        cdef const unsigned char* file_id = <const unsigned char*>PyBytes_AS_STRING(self.file_id)
        cdef bint is_sealed = self.cipher is not None
        cdef int descriptor = self.descriptor
        cdef Opened opened = Opened(0, 0, 0, True, 0, 0, NULL)
        cdef bytes stored = self.room_for(handle)
        # Safety: it has the size of the handle. What is read into is new, and nobody else has it.
        cdef unsigned char* data = <unsigned char*>PyBytes_AS_STRING(stored)
        cdef Page page
        with nogil:
            if descriptor >= 0:
                opened.failed = read_whole(descriptor, data, handle.size, handle.offset)
            if opened.failed == 0:
                open_stored(data, handle, file_id, is_sealed, page_type, self.stamp, &opened)
        page = self.page_of(stored, handle, &opened)
        if not opened.is_same:
            raise CorruptionError(
                self.name, handle.offset, "the page is not the one that its handle names")
        require_type(page, page_type, self.name, handle.offset)
        self.accept(page, handle, &opened)
        return page

    cdef bytes room_for(self, const PageHandle* handle):
        """Return what a page is read into through the descriptor; without one, the stored page."""
        cdef bytes stored
        if self.descriptor >= 0:
            # The size is at most that of the file.
            return PyBytes_FromStringAndSize(NULL, <Py_ssize_t>handle.size)
        stored = self.file.read_at(handle.offset, handle.size)
        if <uint64_t>len(stored) != handle.size:
            raise CorruptionError(self.name, handle.offset, "the file ends within the page")
        return stored

    cdef Page page_of(self, bytes stored, const PageHandle* handle, const Opened* opened):
        """Return the page that was opened, by a library if it takes one, or raise what is wrong."""
        cdef uint64_t seed
        cdef int found_type = opened.page_type
        if opened.failed == FILE_ENDS:
            raise CorruptionError(self.name, handle.offset, "the file ends within the page")
        if opened.failed != 0:
            raise OSError(opened.failed, os.strerror(opened.failed), self.name)
        if opened.status < 0:
            page_raise(opened.status, self.name, handle.offset)
        if opened.status == 0:
            # The page owns the body from now on, also when there is no memory for the page.
            return Page.adopt(opened.body, opened.size, opened.page_type)
        if self.cipher is None:
            body = page_decompress(stored, PyBytes_GET_SIZE(stored) - PAGE_TRAILER_BYTES,
                                   opened.size, self.name, handle.offset)
        else:
            seed = page_seed_of(<const unsigned char*>PyBytes_AS_STRING(self.file_id),
                                handle.offset)
            found_type, body = open_page(stored, seed, self.name, handle.offset, self.cipher)
        return Page(body, found_type)

    cdef int accept(self, Page page, const PageHandle* handle, const Opened* opened) except -1:
        """Finish the check of a page, and of one that a library opened do all of it."""
        cdef int checked = opened.checked
        if page.page_type == FILTER:
            problem = filter_check(page)
            if problem is not None:
                raise CorruptionError(self.name, handle.offset, problem)
            return 0
        if opened.status == 1:
            # Safety: the page was made just now, and nobody else has it yet.
            checked = check_body(<unsigned char*>page.data, page.size, page.page_type, self.stamp)
        if checked == PAGE_CHECK_NO_MEMORY:
            raise MemoryError
        if checked < 0:
            raise CorruptionError(self.name, handle.offset, page_damage(checked))
        page.checked = True
        return 0

    cdef int close_if_idle(self) except -1:
        # Another thread may read right now: its descriptor must not become that of another file.
        if self.closed and self.reading == 0:
            self.file.close()
        return 0

    cdef int check_open(self) except -1:
        if self.closed:
            raise DatabaseClosedError("the table is closed")
        return 0


cdef void open_stored(const unsigned char* stored, const PageHandle* handle,
                      const unsigned char* file_id, bint is_sealed, int page_type, uint64_t stamp,
                      Opened* opened) noexcept nogil:
    """Open and check a page, as far as that goes without a library."""
    if is_sealed:
        opened.status = 1
    else:
        opened.status = page_open(stored, handle.size, page_seed_of(file_id, handle.offset),
                                  &opened.body, &opened.size, &opened.page_type)
    if opened.status < 0:
        return
    # Safety: a handle has at least the size of a trailer, which ends with the checksum.
    opened.is_same = load64(stored + handle.size - CHECKSUM_BYTES) == handle.checksum
    if (opened.status == 0 and opened.is_same and opened.page_type == page_type
            and page_type != FILTER):
        opened.checked = check_body(opened.body, opened.size, page_type, stamp)


cdef int check_body(unsigned char* body, Py_ssize_t size, int page_type,
                    uint64_t stamp) noexcept nogil:
    """Check the entries of a page, and stamp them if they have to be. Return as page_check and
    page_stamp.
    """
    cdef int status = page_check(body, size, page_type)
    if status == 0 and page_type == DATA and stamp != 0:
        status = page_stamp(body, size, stamp)
    return status


cdef int require_type(Page page, int page_type, str name, uint64_t offset) except -1:
    if page.page_type != page_type:
        raise CorruptionError(
            name, offset, f"the page has the type {page.page_type}; its place wants {page_type}")
    return 0
