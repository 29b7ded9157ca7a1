"""Builds the bytes of a table from entries in internal order, compiled. The twin `_builder_py` is
the specification.

An added entry touches no Python object. Closed data pages lie back to back in one buffer; once they
fill a batch they are compressed and sealed in one section without the GIL, and then entered into
index and filter, whose closed partitions wait in buffers for the end of the data. What begins with
`q_` needs no interpreter, so a merge may add entries without the GIL; a library for compression or
seals needs it.

While a batch is sealed or entries are added without the GIL, and after a failure in the middle of
that, the builder refuses every call.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE, PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._envelope_c cimport (
    PAGE_COMPRESSION_NONE, PAGE_COMPRESSION_ZSTD, PAGE_FIELDS_BYTES, PAGE_SEALED,
    PAGE_TRAILER_BYTES, page_payload_max, page_put_fields, page_seal_into, page_seal_trailer,
    page_seed_of,
)
from holdfast.codec._fixed cimport load64, store64
from holdfast.codec._varint cimport varint_put
from holdfast.cursor._cursor_c cimport compare_entries
from holdfast.sstable._entry_page cimport (
    RESTART_BYTES, Buffer, EntryPage, buffer_append, buffer_clear, buffer_move, buffer_release,
    buffer_reserve, common_prefix, entry_size, page_append, page_close, page_size,
)

from dataclasses import replace

from holdfast.base import LimitError
from holdfast.base import KEY_BYTES_MAX as _KEY_BYTES_MAX
from holdfast.base import PAGE_BYTES_MAX as _PAGE_BYTES_MAX
from holdfast.base import SEQ_MAX as _SEQ_MAX
from holdfast.base import VALUE_BYTES_MAX as _VALUE_BYTES_MAX
from holdfast.codec import Compression, page_seed, seal_page
from holdfast.codec.zstandard import zstd_compress_many
from holdfast.sstable._filter_c cimport FilterBuilder
from holdfast.sstable.format import (
    FILE_ID_BYTES,
    FOOTER_BYTES,
    NO_PAGE,
    PREFIX_SEED,
    Footer,
    Handle,
    PageType,
    TableInfo,
    encode_properties,
    key_range,
)
from holdfast.sstable.format import INDEX_BYTES as _INDEX_BYTES

SEAL_BATCH_BYTES = 512 * 1024
cdef uint64_t PREFIX_HASH_SEED = PREFIX_SEED

cdef enum:
    KIND_DELETE = 0
    KIND_PUT = 1
    KIND_RANGE_DELETE = 2
    KIND_MERGE = 3

cdef enum:
    PAGE_DATA = 1

cdef enum:
    STATE_OPEN = 0
    STATE_FINISHED = 1
    STATE_SEALING = 2

cdef enum:
    HANDLE_BYTES_MAX = 28
    TOMBSTONE_BYTES_MAX = 32    # more than an entry needs besides key and value, restart included

cdef Py_ssize_t KEY_MAX = _KEY_BYTES_MAX
cdef Py_ssize_t VALUE_MAX = _VALUE_BYTES_MAX
cdef Py_ssize_t PAGE_MAX = _PAGE_BYTES_MAX
cdef Py_ssize_t BATCH_BYTES = SEAL_BATCH_BYTES
cdef Py_ssize_t PARTITION_BYTES = _INDEX_BYTES
cdef uint64_t SEQ_LAST = _SEQ_MAX


cdef inline bytes _bytes(const unsigned char* data, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char*>data, size)


@cython.final
cdef class Output:
    """Sealed bytes that were taken from a builder, which takes their memory back once nobody looks
    at it any more. Nobody but a builder makes one.
    """

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.held.data, self.held.size, True, flags)
        self.view_count += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.view_count -= 1

    def __dealloc__(self):
        buffer_release(&self.held)


@cython.final
cdef class TableBuilder:
    """Makes a table out of entries in internal order.

    One that `is_ingested` has puts with the number 0 only; the manifest will say what their number
    is. With a `cipher` the pages are sealed. `origin` is an encoded `TableOrigin`, or empty.
    Raises: LimitError when a setting is out of range.
    """

    def __cinit__(self):
        self._tombstones = {}
        self._seq_min = SEQ_LAST

    def __init__(self, bytes file_id not None, *, page_bytes, restart_interval, filter_bits_per_key,
                 compression, prefix_bytes=0, bint is_ingested=False, cipher=None,
                 bytes origin not None=b""):
        if not 0 <= prefix_bytes <= KEY_MAX:
            raise LimitError(
                f"prefix_bytes is {prefix_bytes}; it must lie between 0 and {KEY_MAX}")
        if len(file_id) != FILE_ID_BYTES:
            raise ValueError(f"a file id has {FILE_ID_BYTES} bytes, not {len(file_id)}")
        if not 1 <= page_bytes <= PAGE_MAX // 4:
            raise LimitError(
                f"page_bytes is {page_bytes}; it must lie between 1 and {PAGE_MAX // 4}")
        if not 1 <= restart_interval <= PAGE_MAX:
            raise LimitError(
                f"restart_interval is {restart_interval}; it must lie between 1 and {PAGE_MAX}")
        if self._file_id is not None:
            raise ValueError("a builder is initialised once")
        self._page_bytes = page_bytes
        self._compression = Compression(compression)
        self._is_ingested = is_ingested
        self._cipher = cipher
        self._seals_alone = self._compression != PAGE_COMPRESSION_ZSTD and cipher is None
        self._origin = origin
        self._filter = FilterBuilder(filter_bits_per_key) if filter_bits_per_key else None
        self._has_filter = self._filter is not None
        self._prefix_bytes = prefix_bytes if filter_bits_per_key else 0
        self._data.interval = restart_interval
        self._index.interval = 1
        self._id = <const unsigned char*>PyBytes_AS_STRING(file_id)
        self._file_id = file_id

    def __dealloc__(self):
        buffer_release(&self._data.body)
        buffer_release(&self._data.restarts)
        buffer_release(&self._data.last)
        buffer_release(&self._index.body)
        buffer_release(&self._index.restarts)
        buffer_release(&self._index.last)
        buffer_release(&self._partitions)
        buffer_release(&self._filters)
        buffer_release(&self._separators)
        buffer_release(&self._first)
        buffer_release(&self._hashes)
        buffer_release(&self._closed)
        buffer_release(&self._keys)
        buffer_release(&self._output)
        buffer_release(&self._plain)

    def add(self, bytes key not None, seq, kind, bytes value not None):
        """Append one entry, a PUT, a DELETE or a MERGE.

        Raises: ValueError when it is not behind the last one in internal order, has another kind,
        or the table is finished; LimitError when key, value or sequence number is out of range.
        """
        self._check_open()
        if kind not in (KIND_PUT, KIND_DELETE, KIND_MERGE):
            raise ValueError(f"a table has no entries of kind {kind}")
        if not 0 <= seq <= SEQ_LAST:
            self._check_sizes(len(key), len(value))
            raise LimitError(f"the sequence number {seq} does not have 56 bits")
        cdef uint64_t trailer = (<uint64_t>seq << 8) | <uint64_t>kind
        self.c_add(<const unsigned char*>PyBytes_AS_STRING(key), len(key), trailer,
                   <const unsigned char*>PyBytes_AS_STRING(value), len(value))

    cdef int c_add(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                   const unsigned char* value, Py_ssize_t value_size) except -1:
        cdef int status
        if self._state != STATE_OPEN:
            self._check_open()
        status = self.q_put(key, key_size, trailer, value, value_size)
        if status == ADD_SEAL:
            self._seal_closed()
            status = self.q_put(key, key_size, trailer, value, value_size)
        if status == ADD_BROKEN:
            self._state = STATE_SEALING
            raise MemoryError
        if status == ADD_REFUSED:
            self._refuse(key, key_size, trailer, value_size)
        return 0

    cdef int _refuse(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                     Py_ssize_t value_size) except -1:
        """Raise why an entry was refused."""
        cdef int kind = <int>(trailer & 0xFF)
        if kind > KIND_PUT and kind != KIND_MERGE:
            raise ValueError(f"a table has no entries of kind {kind}")
        self._check_sizes(key_size, value_size)
        if self.entry_count > 0 and compare_entries(
                self._data.last.data, self._data.last.size, self._last_trailer,
                key, key_size, trailer) >= 0:
            raise ValueError("entries must be added in internal order, each once")
        raise MemoryError

    cdef int _check_sizes(self, Py_ssize_t key_size, Py_ssize_t value_size) except -1:
        if key_size > KEY_MAX:
            raise LimitError(f"the key has {key_size} bytes; the limit is {KEY_MAX}")
        if value_size > VALUE_MAX:
            raise LimitError(f"the value has {value_size} bytes; the limit is {VALUE_MAX}")
        return 0

    cdef bint c_lend(self) noexcept:
        if self._state != STATE_OPEN or self._file_id is None:
            return False
        self._state = STATE_SEALING
        return True

    cdef int c_take_back(self, int status) except -1:
        if status == ADD_BROKEN:
            raise MemoryError
        self._state = STATE_OPEN
        return 0

    cdef int q_add(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                   const unsigned char* value, Py_ssize_t value_size) noexcept nogil:
        cdef int status = self.q_put(key, key_size, trailer, value, value_size)
        if status == ADD_SEAL and self._seals_alone:
            if self.q_seal() != 0:
                return ADD_BROKEN
            status = self.q_put(key, key_size, trailer, value, value_size)
        return status

    cdef int q_put(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                   const unsigned char* value, Py_ssize_t value_size) noexcept nogil:
        """Do what `q_add` says, but leave batches to be sealed."""
        cdef Py_ssize_t shared = 0
        cdef bint same = False
        cdef bint ordered = True
        cdef int kind = <int>(trailer & 0xFF)
        cdef EntryPage* page = &self._data
        cdef Buffer* last = &page.last
        if (kind > KIND_PUT and kind != KIND_MERGE) or key_size > KEY_MAX or value_size > VALUE_MAX:
            return ADD_REFUSED
        if self.entry_count > 0:
            shared = common_prefix(last.data, last.size, key, key_size)
            # Safety: shared <= both sizes, and each is read only where it is longer.
            if shared < key_size:
                ordered = shared == last.size or last.data[shared] < key[shared]
            elif shared < last.size:
                ordered = False
            else:
                same = True
                ordered = trailer < self._last_trailer
            if not ordered:
                return ADD_REFUSED
        if page.count > 0 and self._grown_size(shared, key_size, value_size) > self._page_bytes:
            if self.q_close_page(key, key_size, shared) != 0:
                return ADD_BROKEN
        if page.count == 0 and page.body.size >= BATCH_BYTES:
            return ADD_SEAL
        # The separator of a page that was closed for this entry may lie before others that could
        # come in its place.
        cdef int refused = ADD_BROKEN if page.count == 0 and self.entry_count > 0 else ADD_REFUSED
        cdef bint hashed = self._has_filter and (page.count == 0 or not same)
        # A prefix is hashed once for each data page.
        cdef bint prefixed = (hashed and self._prefix_bytes > 0 and key_size >= self._prefix_bytes
                              and (page.count == 0 or shared < self._prefix_bytes))
        if hashed and buffer_reserve(&self._hashes, 2 * sizeof(uint64_t)) != 0:
            return refused
        if buffer_reserve(last, KEY_MAX) != 0:
            return refused
        if self.entry_count == 0:
            self._first.size = 0
            if buffer_append(&self._first, key, key_size) != 0:
                return refused
        if page_append(page, shared, key, key_size, trailer, value, value_size) != 0:
            return refused
        if hashed:
            # Safety: reserved above.
            store64(self._hashes.data + self._hashes.size, xxh64(key, key_size, 0))
            self._hashes.size += sizeof(uint64_t)
            self._open_hashes += 1
            if prefixed:
                store64(self._hashes.data + self._hashes.size,
                        xxh64(key, self._prefix_bytes, PREFIX_HASH_SEED))
                self._hashes.size += sizeof(uint64_t)
                self._open_hashes += 1
        if shared < key_size:
            # Safety: `last` has room for KEY_MAX bytes behind its size, so for key_size bytes in
            # all.
            memcpy(last.data + shared, key + shared, <size_t>(key_size - shared))
        last.size = key_size
        self._last_trailer = trailer
        self.entry_count += 1
        if kind == KIND_DELETE:
            self._delete_count += 1
        self._raw_bytes += <uint64_t>(key_size + value_size)
        self._count_seq(trailer >> 8)
        self._estimate()
        return ADDED

    cdef inline Py_ssize_t _grown_size(self, Py_ssize_t shared, Py_ssize_t key_size,
                                       Py_ssize_t value_size) noexcept nogil:
        """Return the size of the open page's body if an entry were appended. Requires: it is not
        empty.
        """
        if self._data.until_restart == 0:
            return page_size(&self._data) + entry_size(0, key_size, value_size) + RESTART_BYTES
        return page_size(&self._data) + entry_size(shared, key_size, value_size)

    def add_range_tombstone(self, bytes start not None, bytes stop not None, seq):
        """Add a range tombstone over [start, stop), in any order. Of two with equal start and
        number the longer counts.

        Raises: ValueError when the range is empty or the table is finished; LimitError when
        something is out of range.
        """
        self._check_open()
        for key in (start, stop):
            if len(key) > KEY_MAX:
                raise LimitError(f"the key has {len(key)} bytes; the limit is {KEY_MAX}")
        if not 0 <= seq <= SEQ_LAST:
            raise LimitError(f"the sequence number {seq} does not have 56 bits")
        if seq == 0:
            raise LimitError("the sequence number 0 is before everything: it deletes nothing")
        if start >= stop:
            raise ValueError("a range tombstone must start before it stops")
        cdef Py_ssize_t added = len(start) + len(stop) + TOMBSTONE_BYTES_MAX
        if added > PAGE_MAX - self._tombstone_bytes:
            raise LimitError("the range tombstones of one table do not fit one page")
        self._tombstone_bytes += added
        self._tombstones[start, seq] = max(stop, self._tombstones.get((start, seq), stop))
        self._count_seq(seq)

    def take_output(self):
        """Return the sealed bytes that were not taken yet, read-only; all pieces in order are the
        file.
        """
        if self._state == STATE_SEALING:
            self._check_open()
        if self._output.size == 0:
            return memoryview(b"")
        # The bytes are handed out where they lie, and what was handed out before is filled next: a
        # copy would leave the heap of each thread that builds tables a megabyte or two larger.
        cdef Output output = Output()
        cdef Output before = self._taken
        cdef object view
        buffer_move(&output.held, &self._output)
        try:
            view = memoryview(output)
        except BaseException:
            buffer_move(&self._output, &output.held)
            raise
        self.output_size = 0
        if before is not None and before.view_count == 0:
            buffer_move(&self._output, &before.held)
            buffer_clear(&self._output)
        self._taken = output
        return view

    def finish(self, number, created_us):
        """Seal what is open, write index, properties and footer, and return what the table is.

        Raises: ValueError when there are neither entries nor range tombstones, when an ingested
        table has other entries than it may, or when the table is finished.
        """
        self._check_open()
        if self.entry_count == 0 and not self._tombstones:
            raise ValueError("a table needs at least one entry or range tombstone")
        if self._is_ingested and (self._seq_max > 0 or self._delete_count > 0 or self._tombstones):
            raise ValueError("an ingested table has puts with the number 0 only")
        if self._data.count > 0 and self.q_close_page(NULL, 0, 0) != 0:
            self._state = STATE_SEALING
            raise MemoryError
        self._seal_closed()
        self._state = STATE_SEALING
        root, tombstone_page = self._seal_index()
        spans = []
        for (start, _), stop in self._tombstones.items():
            spans.append((start, stop))
        first, last = None, None
        if self.entry_count > 0:
            first = _bytes(self._first.data, self._first.size)
            last = _bytes(self._data.last.data, self._data.last.size)
        lower, upper = key_range(first, last, spans)
        info = TableInfo(
            number=number, file_id=self._file_id, size_bytes=0, lower=lower, upper=upper,
            seq_min=self._seq_min, seq_max=self._seq_max, entry_count=self.entry_count,
            delete_count=self._delete_count, range_tombstone_count=len(spans),
            raw_bytes=self._raw_bytes + sum(len(start) + len(stop) for start, stop in spans),
            root_checksum=root.checksum, created_us=created_us)
        for name, value in encode_properties(info, self._compression, self._prefix_bytes,
                                             self._origin):
            self._append_index(name, 0, value)
        properties = self._seal(self._close_index(), PageType.PROPERTIES)
        size = self._sealed_bytes + FOOTER_BYTES
        self._emit(Footer(self._file_id, number, root, tombstone_page, properties, size,
                          bool(self._is_ingested)).encode())
        self._partition_bytes = 0
        self._estimate()
        self._state = STATE_FINISHED
        return replace(info, size_bytes=size)

    cdef int _check_open(self) except -1:
        if self._state == STATE_FINISHED:
            raise ValueError("the table is finished")
        if self._state == STATE_SEALING:
            raise ValueError("the builder failed before, or another thread uses it")
        if self._file_id is None:
            raise ValueError("the builder was not initialised")
        return 0

    cdef void _count_seq(self, uint64_t seq) noexcept nogil:
        if seq < self._seq_min:
            self._seq_min = seq
        if seq > self._seq_max:
            self._seq_max = seq

    cdef void _estimate(self) noexcept nogil:
        """Bring `file_bytes` up to date: what is sealed, and bodies of pages that are not yet."""
        self.file_bytes = (self._sealed_bytes + <uint64_t>self._data.start
                           + <uint64_t>page_size(&self._data) + self._partition_bytes)

    cdef int q_close_page(self, const unsigned char* following, Py_ssize_t size,
                          Py_ssize_t shared) noexcept nogil:
        """Close the open data page, before an entry with the key `following`, which shares its
        first bytes with the last one. Return 0, or -1 when there is no memory; then the builder is
        of no more use.
        """
        cdef ClosedPage* page
        cdef const unsigned char* key = self._data.last.data
        cdef Py_ssize_t key_size = self._data.last.size
        cdef uint64_t trailer = self._last_trailer
        if following != NULL and shared + 1 < key_size and shared + 1 < size:
            key, key_size, trailer = following, shared + 1, 0
        cdef Py_ssize_t start = self._data.start
        if buffer_reserve(&self._closed, sizeof(ClosedPage)) != 0 or page_close(&self._data) != 0:
            return -1
        # Safety: the room was just made, at a multiple of the struct's size from the start of an
        # aligned allocation.
        page = <ClosedPage*>(self._closed.data + self._closed.size)
        page.body_start = start
        page.body_size = self._data.body.size - start
        page.key_start = self._keys.size
        page.key_size = key_size
        page.trailer = trailer
        page.hash_count = self._open_hashes
        if buffer_append(&self._keys, key, key_size) != 0:
            return -1
        self._closed.size += sizeof(ClosedPage)
        self._open_hashes = 0
        return 0

    cdef int _seal_closed(self) except -1:
        """Seal all closed data pages and enter them into index and filter. Requires: no open one.
        """
        cdef int status
        self._state = STATE_SEALING
        # `_state` keeps other threads away.
        if self._seals_alone:
            with nogil:
                status = self.q_seal()
        else:
            self._seal_by_library()
            with nogil:
                status = self.q_index_closed()
        if status != 0:
            raise MemoryError
        self._state = STATE_OPEN
        return 0

    cdef int q_seal(self) noexcept nogil:
        """Do what `_seal_closed` says where no library is needed. Return as `q_close_page`."""
        cdef ClosedPage* pages = <ClosedPage*>self._closed.data
        cdef Py_ssize_t count = self._closed.size // <Py_ssize_t>sizeof(ClosedPage)
        cdef Py_ssize_t index
        cdef uint64_t offset = self._sealed_bytes
        cdef unsigned char* target
        if buffer_reserve(&self._output, self._data.body.size + count * PAGE_TRAILER_BYTES) != 0:
            return -1
        # Safety: a stored page has at most its body's and a trailer's bytes, and the room for all
        # was just made. The bodies lie within the body buffer.
        for index in range(count):
            target = self._output.data + self._output.size
            pages[index].offset = offset
            pages[index].stored_size = page_seal_into(
                self._data.body.data + pages[index].body_start, pages[index].body_size,
                PAGE_DATA, self._compression, page_seed_of(self._id, offset), target)
            pages[index].checksum = load64(target + pages[index].stored_size - 8)
            self._output.size += pages[index].stored_size
            offset += <uint64_t>pages[index].stored_size
        self._sealed_bytes = offset
        self.output_size = self._output.size
        return self.q_index_closed()

    cdef int _seal_by_library(self) except -1:
        """Compress all closed pages, in one section without the GIL if the library can, then seal
        them: a library for seals lets the GIL go itself for each that is worth it.
        """
        cdef int status
        cdef Py_ssize_t count = self._closed.size // <Py_ssize_t>sizeof(ClosedPage)
        self._plain.size = 0
        if buffer_reserve(&self._plain, self._data.body.size + count * PAGE_TRAILER_BYTES) != 0:
            raise MemoryError
        if self._compression == PAGE_COMPRESSION_ZSTD:
            self._compress_by_library()
        else:
            with nogil:
                self.q_compress()
        if self._cipher is not None:
            self._seal_compressed()
        else:
            with nogil:
                status = self.q_seal_compressed()
            if status != 0:
                raise MemoryError
        buffer_clear(&self._plain)
        return 0

    cdef void q_compress(self) noexcept nogil:
        """Write the closed pages to `_plain`, compressed, as stored pages whose checksum is wrong:
        where they will lie is not known yet. Requires: there is room for all.
        """
        cdef ClosedPage* pages = <ClosedPage*>self._closed.data
        cdef unsigned char* target = self._plain.data
        cdef Py_ssize_t index
        # Safety: as in q_seal.
        for index in range(self._closed.size // <Py_ssize_t>sizeof(ClosedPage)):
            pages[index].stored_size = page_seal_into(
                self._data.body.data + pages[index].body_start, pages[index].body_size, PAGE_DATA,
                self._compression, 0, target)
            target += pages[index].stored_size

    cdef int _compress_by_library(self) except -1:
        """Do what `q_compress` says."""
        cdef ClosedPage* pages = <ClosedPage*>self._closed.data
        cdef Py_ssize_t index, size
        cdef const unsigned char* payload
        cdef unsigned char* target = self._plain.data
        cdef int compression
        cdef list bodies = [], frames
        # Safety: the bodies lie within the body buffer, which stays as it is until the views are
        # released; the traceback of an error may hold them longer than that.
        try:
            for index in range(self._closed.size // <Py_ssize_t>sizeof(ClosedPage)):
                bodies.append(PyMemoryView_FromMemory(
                    <char*>self._data.body.data + pages[index].body_start, pages[index].body_size,
                    PyBUF_READ))
            frames = zstd_compress_many(bodies)
        finally:
            for body in bodies:
                body.release()
        for index in range(len(bodies)):
            payload = <const unsigned char*>PyBytes_AS_STRING(frames[index])
            size = len(<bytes>frames[index])
            compression = PAGE_COMPRESSION_ZSTD
            if size > page_payload_max(pages[index].body_size):
                payload = self._data.body.data + pages[index].body_start
                size = pages[index].body_size
                compression = PAGE_COMPRESSION_NONE
            # Safety: a payload is at most as long as its body.
            memcpy(target, payload, <size_t>size)
            page_put_fields(target + size, pages[index].body_size, PAGE_DATA, compression)
            pages[index].stored_size = size + PAGE_TRAILER_BYTES
            target += pages[index].stored_size
        return 0

    cdef Py_ssize_t q_compressed_bytes(self) noexcept nogil:
        """Return the size of the pages in `_plain`."""
        cdef const ClosedPage* pages = <const ClosedPage*>self._closed.data
        cdef Py_ssize_t index, size = 0
        for index in range(self._closed.size // <Py_ssize_t>sizeof(ClosedPage)):
            size += pages[index].stored_size
        return size

    cdef int _seal_compressed(self) except -1:
        """Seal the pages in `_plain` to the end of the output, and give them their places."""
        cdef ClosedPage* pages = <ClosedPage*>self._closed.data
        cdef Py_ssize_t index, size, count = self._closed.size // <Py_ssize_t>sizeof(ClosedPage)
        cdef Py_ssize_t longer = self._cipher.seal_bytes
        cdef uint64_t offset = self._sealed_bytes
        cdef unsigned char* source = self._plain.data
        cdef unsigned char* target
        cdef list offsets = [], pieces = [], fields = [], targets = []
        if buffer_reserve(&self._output, self.q_compressed_bytes() + count * longer) != 0:
            raise MemoryError
        target = self._output.data + self._output.size
        # Safety: a stored page is a payload and a trailer, whose fields come first; for all of
        # them, sealed, the room was just made. Neither buffer changes before the views are
        # released, which the traceback of an error may hold longer than that.
        try:
            for index in range(count):
                size = pages[index].stored_size - PAGE_TRAILER_BYTES
                source[size] |= PAGE_SEALED
                offsets.append(offset)
                pieces.append(PyMemoryView_FromMemory(<char*>source, size, PyBUF_READ))
                fields.append(PyBytes_FromStringAndSize(<char*>source + size, PAGE_FIELDS_BYTES))
                targets.append(PyMemoryView_FromMemory(<char*>target, size + longer, PyBUF_WRITE))
                source += size + PAGE_TRAILER_BYTES
                target += size + longer + PAGE_TRAILER_BYTES
                offset += <uint64_t>(size + longer + PAGE_TRAILER_BYTES)
            self._cipher.seal_many(offsets, pieces, fields, targets)
        finally:
            for view in pieces + targets:
                view.release()
        with nogil:
            source = self._plain.data
            for index in range(count):
                size = pages[index].stored_size - PAGE_TRAILER_BYTES
                self.q_end_page(&pages[index], size + longer, source[size])
                source += size + PAGE_TRAILER_BYTES
        return 0

    cdef int q_seal_compressed(self) noexcept nogil:
        """Give the pages in `_plain` their places. Return as `q_close_page`."""
        cdef ClosedPage* pages = <ClosedPage*>self._closed.data
        cdef const unsigned char* source = self._plain.data
        cdef Py_ssize_t index, size
        if buffer_reserve(&self._output, self.q_compressed_bytes()) != 0:
            return -1
        for index in range(self._closed.size // <Py_ssize_t>sizeof(ClosedPage)):
            # Safety: as in _seal_compressed.
            size = pages[index].stored_size - PAGE_TRAILER_BYTES
            memcpy(self._output.data + self._output.size, source, <size_t>size)
            self.q_end_page(&pages[index], size, source[size])
            source += size + PAGE_TRAILER_BYTES
        return 0

    cdef void q_end_page(self, ClosedPage* page, Py_ssize_t size, int compression) noexcept nogil:
        """Take the payload of `size` bytes behind the output as that of a page, and give it its
        trailer. Requires: there is room for it.
        """
        page.offset = self._sealed_bytes
        page.stored_size = page_seal_trailer(
            self._output.data + self._output.size, size, page.body_size, PAGE_DATA, compression,
            page_seed_of(self._id, page.offset))
        self._output.size += page.stored_size
        # Safety: a stored page ends with its checksum.
        page.checksum = load64(self._output.data + self._output.size - 8)
        self.output_size = self._output.size
        self._sealed_bytes += <uint64_t>page.stored_size

    cdef int q_index_closed(self) noexcept nogil:
        """Enter the sealed pages into index and filter. Return as `q_close_page`."""
        cdef ClosedPage* page = <ClosedPage*>self._closed.data
        cdef Py_ssize_t count = self._closed.size // <Py_ssize_t>sizeof(ClosedPage)
        cdef const unsigned char* hashes = self._hashes.data
        cdef unsigned char value[HANDLE_BYTES_MAX]
        cdef unsigned char* end
        cdef const unsigned char* key
        cdef Py_ssize_t index
        while count > 0:
            # Safety: a handle is two varints of at most 10 bytes and a checksum of 8.
            end = varint_put(varint_put(value, page.offset), <uint64_t>page.stored_size)
            store64(end, page.checksum)
            # Safety: the key lies within the buffer of separators. An empty one may have no buffer
            # and is not read.
            key = self._keys.data + page.key_start if page.key_size > 0 else value
            if page_append(&self._index, 0, key, page.key_size, page.trailer, value,
                           end + 8 - value) != 0:
                return -1
            if self._has_filter:
                # Safety: the hash counts of the closed pages add up to the hashes collected.
                for index in range(page.hash_count):
                    if self._filter.c_add_hash(load64(hashes + index * 8)) != 0:
                        return -1
                hashes += page.hash_count * 8
            if count == 1 or page_size(&self._index) >= PARTITION_BYTES:
                self._index.last.size = 0
                if buffer_append(&self._index.last, key, page.key_size) != 0:
                    return -1
                self._partition_trailer = page.trailer
            if page_size(&self._index) >= PARTITION_BYTES and self.q_close_partition() != 0:
                return -1
            page += 1
            count -= 1
        buffer_clear(&self._data.body)
        self._data.start = 0
        buffer_clear(&self._closed)
        buffer_clear(&self._keys)
        buffer_clear(&self._hashes)
        return 0

    cdef int q_close_partition(self) noexcept nogil:
        """Put the index page and its filter behind those that wait. Return as `q_close_page`."""
        cdef Partition* partition
        if self._index.count == 0:
            return 0
        # Safety: as in q_close_page.
        if buffer_reserve(&self._partitions, sizeof(Partition)) != 0:
            return -1
        partition = <Partition*>(self._partitions.data + self._partitions.size)
        partition.index_start = self._index.start
        if page_close(&self._index) != 0:
            return -1
        partition.index_size = self._index.start - partition.index_start
        partition.filter_start = self._filters.size
        partition.filter_size = 0
        if self._has_filter:
            partition.filter_size = self._filter.c_size()
            if buffer_reserve(&self._filters, partition.filter_size) != 0:
                return -1
            # Safety: the room was just made.
            self._filter.c_finish(self._filters.data + self._filters.size)
            self._filters.size += partition.filter_size
        partition.key_start = self._separators.size
        partition.key_size = self._index.last.size
        partition.trailer = self._partition_trailer
        if buffer_append(&self._separators, self._index.last.data, self._index.last.size) != 0:
            return -1
        self._partitions.size += sizeof(Partition)
        self._partition_bytes += <uint64_t>(partition.index_size + partition.filter_size)
        return 0

    cdef int _append_index(self, bytes key, uint64_t trailer, bytes value) except -1:
        if page_append(&self._index, 0, <const unsigned char*>PyBytes_AS_STRING(key), len(key),
                       trailer, <const unsigned char*>PyBytes_AS_STRING(value), len(value)) != 0:
            raise MemoryError
        return 0

    cdef bytes _close_index(self):
        """Close the page that `_append_index` made, and return its body."""
        cdef Py_ssize_t start = self._index.start
        if page_close(&self._index) != 0:
            raise MemoryError
        cdef bytes body = _bytes(self._index.body.data + start, self._index.body.size - start)
        self._index.body.size = start
        self._index.start = start
        return body

    cdef tuple _seal_index(self):
        """Seal all filters, all index partitions, the range tombstones and the root; return the
        handles of root and tombstones.
        """
        cdef Partition* partition
        cdef Py_ssize_t index, count
        cdef list filters = [], indexes = []
        if self.q_close_partition() != 0:
            raise MemoryError
        count = self._partitions.size // <Py_ssize_t>sizeof(Partition)
        # Safety: partitions do not change any more, and what is theirs lies within its buffer.
        partition = <Partition*>self._partitions.data
        for index in range(count):
            filters.append(NO_PAGE if self._filter is None else self._seal(
                _bytes(self._filters.data + partition[index].filter_start,
                       partition[index].filter_size), PageType.FILTER))
        for index in range(count):
            indexes.append(self._seal(
                _bytes(self._index.body.data + partition[index].index_start,
                       partition[index].index_size), PageType.INDEX))
        tombstones = None
        if self._tombstones:
            for (start, seq), stop in sorted(self._tombstones.items(), key=_tombstone_order):
                self._append_index(start, (<uint64_t>seq << 8) | KIND_RANGE_DELETE, stop)
            tombstones = self._seal(self._close_index(), PageType.RANGE_TOMBSTONES)
        for index in range(count):
            self._append_index(
                _bytes(self._separators.data + partition[index].key_start,
                       partition[index].key_size),
                partition[index].trailer, indexes[index].encode() + filters[index].encode())
        return self._seal(self._close_index(), PageType.INDEX_ROOT), tombstones

    cdef object _seal(self, bytes body, int page_type):
        """Seal one page through the codec room; only data pages are compressed. Return its handle.
        """
        cdef int compression = self._compression if page_type == PAGE_DATA else 0
        cdef uint64_t offset = self._sealed_bytes
        seed = page_seed(self._file_id, offset)
        stored = seal_page(body, page_type, compression, seed, self._cipher, offset)
        self._emit(stored)
        return Handle(offset, len(stored), int.from_bytes(stored[-8:], "little"))

    cdef int _emit(self, bytes data) except -1:
        if buffer_append(&self._output, PyBytes_AS_STRING(data), len(data)) != 0:
            raise MemoryError
        self._sealed_bytes += <uint64_t>len(data)
        self.output_size = self._output.size
        return 0


def _tombstone_order(item):
    return item[0][0], -item[0][1]
