"""Reads tables: the compiled twin of `_reader_py`, which specifies it.

A cached lookup goes from directory to directory: that of the root names the partition, whose filter
the reader holds; that of the index page names the pool's node of the data page; that of the data
page names the entry. It allocates nothing. A node is a hint: the page in it is the one only if it
is of this file and was found to belong at this very place. Whatever is not there, or not sure, is
found by the long way, through the pool and the pages themselves, which leaves the hints.

That a page lies between its separators is found out once for each place that leads to it: the page
remembers the last one, so a sound table pays for it when the page is read, and never again. A page
that is not cached comes from the source. A cursor of a compaction has it read many pages ahead with
one call, and opens them and goes from one to the next without the GIL (docs/adr/0041); so has one
of a scan that has become long (docs/adr/0046).

Thread safety: readers are shared freely; a cursor belongs to one thread at a time. A `close` while
others read lets each of them finish the page that it reads; then they get DatabaseClosedError.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from holdfast.bufferpool._pool_c cimport BufferPool, Node, Page
from holdfast.codec._body_c cimport body_room_of
from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._envelope_c cimport PAGE_TRAILER_BYTES
from holdfast.codec._fixed cimport load32
from holdfast.cursor._cursor_c cimport Cursor, Run
from holdfast.sstable._ahead cimport (
    Ahead, ahead_choose, ahead_drop, ahead_enter, ahead_free, ahead_is_long, ahead_leads,
    ahead_next, ahead_open,
)
from holdfast.sstable._directory_c cimport (
    KeyDirectory, SeparatorDirectory, key_directory, key_find, separator_directory, separator_find,
    separator_nodes, separator_number, separator_values,
)
from holdfast.sstable._filter_c cimport block_probe, filter_probe
from holdfast.sstable._handle cimport (
    BODY_BYTES_MAX, DATA, DIRECTORY_HITS, FILTER, FILTER_HEADER_BYTES, HITS_MAX, INDEX, INDEX_ROOT,
    PINNED, PageHandle, belongs, check_key, check_seq, is_page, place_of, take_handle,
    take_root_handles,
)
from holdfast.sstable._page_c cimport Entry, PageCursor, page_lower_bound
from holdfast.sstable._source_c cimport PageSource, require_type

from holdfast.base import CorruptionError, DatabaseClosedError
from holdfast.bufferpool import PAGE_OVERHEAD_BYTES
from holdfast.sstable._page_c import decode_entries
from holdfast.sstable.format import (
    DATA_MISPLACED, FOOTER_BYTES, INDEX_MISPLACED, PREFIX_SEED, STORED_PAGE_BYTES_MAX, PageType,
    decode_index_value, decode_root_value,
)
from holdfast.sstable.opening import (
    ingested_trailer, read_footer, read_info, read_prefix_bytes, read_tombstones,
)
from holdfast.sstable.scanning import (
    LONG_SCAN_AHEAD_BYTES, LONG_SCAN_BYTES_MIN, LONG_SCAN_POOL_PARTS,
)
from holdfast.sstable.verify import verify_table

if (DATA, INDEX, INDEX_ROOT, FILTER) != (
        PageType.DATA, PageType.INDEX, PageType.INDEX_ROOT, PageType.FILTER):
    raise ImportError("sstable/_reader_c disagrees with the format")

if STORED_PAGE_BYTES_MAX != <Py_ssize_t>BODY_BYTES_MAX + PAGE_TRAILER_BYTES:
    raise ImportError("sstable/_handle disagrees with the format")

# What a page is read for: for no user, who would be counted; to stay in the pool; for a long scan,
# which passes it.
cdef enum:
    ASIDE = 0
    CACHED = 1
    PASSED = 2

cdef Py_ssize_t PAGE_OVERHEAD = PAGE_OVERHEAD_BYTES
cdef Py_ssize_t LONG_BYTES_MIN = LONG_SCAN_BYTES_MIN
cdef Py_ssize_t LONG_POOL_PARTS = LONG_SCAN_POOL_PARTS
cdef Py_ssize_t LONG_AHEAD_BYTES = LONG_SCAN_AHEAD_BYTES
cdef uint64_t PREFIX_HASH_SEED = PREFIX_SEED


@cython.final
cdef class TableReader:
    """One open table. `file` becomes the reader's own once the constructor has returned.

    `info` is what the manifest says about the table; with it every figure is compared.
    Raises: FormatError when the file is no table or is newer; CorruptionError when it is damaged or
    another table.
    """

    def __cinit__(self):
        self.closed = True

    def __init__(self, file, uint64_t number, bytes file_id not None, BufferPool pool not None,
                 info=None):
        self.pool = pool
        self.name = file.name
        self.number = number
        self.footer = footer = read_footer(file, number, file_id, info)
        self.source = PageSource(file, file_id, footer.file_size - FOOTER_BYTES,
                                 ingested_trailer(footer, info))
        self.closed = False
        try:
            self.open_pages(info)
        except BaseException:
            self.closed = True
            raise

    cdef int open_pages(self, info) except -1:
        """Read root, properties and range tombstones."""
        footer = self.footer
        self.root = self.read_page(footer.root, INDEX_ROOT)
        self.root_offset = footer.root.offset
        page = self.read_page(footer.properties, PageType.PROPERTIES)
        properties = decode_entries(page, self.name, footer.properties.offset)
        self.info = read_info(properties, footer, self.name, info)
        self.properties = {name: value for name, _, value in properties}
        self.prefix_bytes = read_prefix_bytes(properties, footer, self.name)
        tombstones = []
        if footer.tombstones is not None:
            page = self.read_page(footer.tombstones, PageType.RANGE_TOMBSTONES)
            tombstones = decode_entries(page, self.name, footer.tombstones.offset)
        self.range_tombstones = read_tombstones(tombstones, footer, self.name, self.info)
        self.open_partitions()
        self.pool.c_put(self.number, self.root_offset, self.root, True)
        return 0

    cdef int open_partitions(self) except -1:
        """Make the directory of the root. Requires: it is not in the pool yet."""
        cdef Py_ssize_t size = 0
        cdef SeparatorDirectory* directory = separator_directory(self.root, &size)
        if directory == NULL:
            return 0
        self.root.directory = directory
        self.root.extra = size
        self.partitions = <Partition*>calloc(directory.count, sizeof(Partition))
        if self.partitions == NULL:
            raise MemoryError
        self.partition_count = directory.count
        return 0

    def __dealloc__(self):
        self.forget_filters()
        free(self.partitions)

    cdef void forget_filters(self) noexcept:
        cdef PyObject* filter
        cdef Py_ssize_t number
        for number in range(self.partition_count):
            filter = self.partitions[number].filter
            self.partitions[number].filter = NULL
            self.partitions[number].block_count = 0
            Py_XDECREF(filter)

    def get(self, key, snapshot):
        """Return (seq, kind, value) of the newest version of `key` that is not newer than
        `snapshot`, or None.

        Raises: CorruptionError; OSError.
        """
        return self.checked_get(key, snapshot, NULL)

    def get_cached(self, key, snapshot, otherwise):
        """Like `get`, but return `otherwise` when that takes a page from the file.

        Raises: CorruptionError.
        """
        cdef bint missed = False
        result = self.checked_get(key, snapshot, &missed)
        return otherwise if missed else result

    cdef object checked_get(self, key, snapshot, bint* missed):
        """Do what `get` says, or `get_cached` where there is a `missed`."""
        cdef uint64_t trailer
        cdef const unsigned char* data
        cdef const unsigned char* value
        cdef Py_ssize_t size, value_size
        self.check_open()
        check_key(key)
        check_seq(snapshot)
        data = <const unsigned char*>PyBytes_AS_STRING(key)
        size = PyBytes_GET_SIZE(key)
        page = self.c_get(data, size, xxh64(data, size, 0), snapshot, &trailer, &value, &value_size,
                          missed)
        if page is None:
            return None
        found = PyBytes_FromStringAndSize(<const char*>value, value_size)
        return trailer >> 8, trailer & 0xFF, found

    def may_contain(self, key):
        """See `_reader_py.may_contain`."""
        cdef Entry entry
        cdef PageHandle index_handle, filter_handle
        self.check_open()
        check_key(key)
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(key)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
        if page_lower_bound(self.root, data, size, <uint64_t>-1, &entry) == 0:
            return False
        self.root_handles(entry.value, entry.value_size, &index_handle, &filter_handle)
        return self.passes(&filter_handle, xxh64(data, size, 0), NULL)

    def may_contain_prefix(self, prefix):
        """See `_reader_py.may_contain_prefix`."""
        cdef PageHandle index_handle, filter_handle
        cdef Entry entry
        cdef Py_ssize_t left
        self.check_open()
        check_key(prefix)
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(prefix)
        if self.prefix_bytes == 0 or len(prefix) != self.prefix_bytes:
            raise ValueError(f"the prefix does not have {self.prefix_bytes} bytes, or none counts")
        if page_lower_bound(self.root, data, self.prefix_bytes, <uint64_t>-1, &entry) != 0:
            left = self.prefix_bytes - entry.shared
            # Safety: the suffix has `unshared` bytes, the prefix `left` behind what is shared.
            if left <= 0 or entry.unshared >= left and memcmp(
                    entry.key, data + entry.shared, <size_t>left) == 0:
                return True
            self.root_handles(entry.value, entry.value_size, &index_handle, &filter_handle)
            if self.passes(&filter_handle, xxh64(data, left + entry.shared, PREFIX_HASH_SEED),
                           NULL):
                return True
        self.pool.tables_skipped += 1
        return False

    def cursor(self, bint fill_cache=True, Py_ssize_t ahead_bytes=0, Py_ssize_t walked_bytes=0):
        """See `_reader_py.cursor`."""
        self.check_open()
        return TableCursor(self, fill_cache, ahead_bytes, walked_bytes)

    def verify(self, progress=None):
        """Read all pages from the file and yield an error for every damage; see
        `holdfast.sstable.verify`.
        """
        self.check_open()
        return verify_table(self, self.source.use, progress)

    def close(self):
        """Drop the pages from the pool, and close the file as soon as nobody reads a page from it.
        Harmless the second time.
        """
        if not self.closed:
            self.closed = True
            self.root = None
            self.forget_filters()
            self.pool.drop_file(self.number)
            self.source.close()

    def read_page(self, handle, int page_type):
        """Read a page from the file, whatever the pool has. Raises: CorruptionError; OSError."""
        self.check_open()
        return self.source.read(handle, page_type)

    cdef Page c_get(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                    uint64_t snapshot,
                    uint64_t* trailer, const unsigned char** value, Py_ssize_t* value_size,
                    bint* missed):
        cdef Entry entry
        cdef PyObject* borrowed = NULL
        cdef uint64_t newest = snapshot << 8 | 0xFF
        cdef Page page
        cdef int status
        self.check_open()
        status = self.find(key, key_size, hash, newest, &entry, &borrowed)
        if status == 0:
            return None
        page = (<Page>borrowed if status > 0
                else self.search(key, key_size, hash, newest, &entry, missed))
        if page is None:
            return None
        trailer[0] = entry.trailer
        value[0] = entry.value
        value_size[0] = entry.value_size
        return page

    cdef int find(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                  uint64_t newest, Entry* entry, PyObject** page) noexcept:
        cdef uint64_t place = 0
        cdef uint32_t index_node = 0, node = 0
        cdef int status = self.locate(key, key_size, hash, newest, &index_node, &node, &place)
        if status == 0:
            self.pool.hits += 1
        if status <= 0:
            return status
        page[0] = self.page_at(node, place)
        if page[0] == NULL:
            return -1
        self.pool.hits += 2
        self.pool.nodes[index_node].hits += self.pool.nodes[index_node].hits < HITS_MAX
        return self.find_in_page(page[0], node, key, key_size, hash, newest, entry)

    cdef int locate(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                    uint64_t newest, uint32_t* index_node, uint32_t* node,
                    uint64_t* place) noexcept:
        cdef Page root = self.root
        cdef SeparatorDirectory* directory
        cdef Partition* partition
        cdef PyObject* index
        cdef Py_ssize_t at
        if self.partitions == NULL or root is None:
            return -1
        directory = <SeparatorDirectory*>root.directory
        at = separator_find(directory, root, key, key_size, newest)
        if at < 0:
            return -1
        if at == directory.count:
            return 0
        # Safety: there is a partition for each entry of the root.
        partition = &self.partitions[at]
        if partition.block_count > 0:
            if not block_probe(partition.blocks, partition.block_count, partition.probes, hash):
                return 0
        elif not partition.passes_all:
            return -1
        place[0] = <uint64_t>separator_values(directory)[at] << 32
        index_node[0] = separator_nodes(directory)[at]
        index = self.page_at(index_node[0], place[0])
        if index == NULL:
            return -1
        directory = <SeparatorDirectory*>(<Page>index).directory
        if directory == NULL:
            return -1
        at = separator_find(directory, <Page>index, key, key_size, newest)
        # The last separator is that of the root, so there is one at or behind the key.
        if at < 0 or at == directory.count:
            return -1
        place[0] |= separator_values(directory)[at]
        node[0] = separator_nodes(directory)[at]
        return 1

    cdef PyObject* page_at(self, uint32_t node, uint64_t place) noexcept:
        """Return the page in a node of the pool, borrowed, if it is the one that belongs at `place`
        of this table; else NULL.
        """
        # Safety: nodes are never taken away, and those without a frame have no page. No two places
        # of a file are equal, and a page has a place only after it was compared with what is
        # around it.
        cdef Node* found = &self.pool.nodes[node]
        if (found.page == NULL or found.file_number != self.number
                or (<Page>found.page).place != place):
            return NULL
        return found.page

    cdef int find_in_page(self, PyObject* page, uint32_t node, const unsigned char* key,
                          Py_ssize_t key_size, uint64_t hash, uint64_t newest,
                          Entry* entry) noexcept:
        """Search a data page in a node of the pool. Return 1 or 0, as `find`."""
        cdef Node* found = &self.pool.nodes[node]
        cdef KeyDirectory* directory = <KeyDirectory*>(<Page>page).directory
        cdef Py_ssize_t size = 0
        cdef int status = -1
        if directory == NULL and found.hits >= DIRECTORY_HITS:
            directory = key_directory(<Page>page, &size)
            if directory != NULL:
                self.pool.give_directory(node, directory, size)
                if found.page != page:
                    return -1  # it made room for itself: in a small pool the page itself went
        found.hits += found.hits < HITS_MAX
        if directory != NULL:
            status = key_find(directory, (<Page>page).data, key, key_size, hash, newest, entry)
        if status < 0:
            status = page_lower_bound(<Page>page, key, key_size, newest, entry) == 2
        return status

    cdef Page search(self, const unsigned char* key, Py_ssize_t key_size, uint64_t hash,
                     uint64_t newest, Entry* entry, bint* missed):
        cdef PageHandle index_handle, filter_handle, data_handle
        cdef Page root, index, page
        cdef const unsigned char* root_value
        # A close while a page is read drops it.
        root = self.root
        if page_lower_bound(root, key, key_size, newest, entry) == 0:
            return None
        root_value = entry.value
        self.root_handles(entry.value, entry.value_size, &index_handle, &filter_handle)
        if not self.passes(&filter_handle, hash, missed):
            self.remember(root_value - root.data, index_handle.offset, &filter_handle, 0, None)
            return None
        index = self.load(&index_handle, INDEX, CACHED, root, root_value, None, NULL, missed)
        if index is None:
            return None
        # It finds an entry: the last one of the index page is at the separator in the root.
        page_lower_bound(index, key, key_size, newest, entry)
        self.index_handle(entry.value, entry.value_size, index_handle.offset, &data_handle)
        page = self.load(&data_handle, DATA, CACHED, root, root_value, index, entry.value, missed)
        if page is None:
            return None
        self.remember(place_of(root, root_value, index, entry.value), index_handle.offset,
                      &filter_handle, data_handle.offset, index)
        return page if page_lower_bound(page, key, key_size, newest, entry) == 2 else None

    cdef void remember(self, uint64_t place, uint64_t index_offset,
                       const PageHandle* filter_handle, uint64_t data_offset, Page index) noexcept:
        """Leave hints for `find` on the way to `place`; without `index`, of the filter only."""
        cdef SeparatorDirectory* directory
        cdef Py_ssize_t at
        cdef uint32_t node
        if self.closed or self.partitions == NULL:
            return
        directory = <SeparatorDirectory*>self.root.directory
        at = separator_number(directory, <uint32_t>(place >> 32 if index is not None else place))
        if at < 0:
            return
        self.keep_filter(&self.partitions[at], filter_handle)
        if index is None:
            return
        node = self.pool.find(self.number, index_offset)
        separator_nodes(directory)[at] = node
        if node == 0 or self.pool.nodes[node].page != <PyObject*>index or index.directory == NULL:
            return
        directory = <SeparatorDirectory*>index.directory
        at = separator_number(directory, <uint32_t>place)
        if at >= 0:
            separator_nodes(directory)[at] = self.pool.find(self.number, data_offset)

    cdef void keep_filter(self, Partition* partition, const PageHandle* handle) noexcept:
        """Hold the filter of a partition, if the pool has pinned it."""
        cdef uint32_t node
        cdef PyObject* filter
        if handle.size == 0:
            partition.passes_all = True
        elif partition.filter == NULL:
            node = self.pool.find(self.number, handle.offset)
            filter = self.pool.nodes[node].page
            if (filter == NULL or self.pool.nodes[node].queue != PINNED
                    or (<Page>filter).page_type != FILTER):
                return
            # Safety: a filter was checked before it entered the pool: it has a header, and as many
            # blocks as that says, at least one.
            partition.blocks = (<Page>filter).data + FILTER_HEADER_BYTES
            partition.block_count = load32((<Page>filter).data + 4)
            partition.probes = (<Page>filter).data[0]
            Py_INCREF(<Page>filter)
            partition.filter = filter

    cdef bint passes(self, const PageHandle* filter_handle, uint64_t hash,
                     bint* missed) except -1:
        """Return whether a filter lets a key pass; a handle of size 0 is no filter. One that is
        `missed` lets none pass.
        """
        cdef Page page
        if filter_handle.size == 0:
            return True
        page = self.load(filter_handle, FILTER, CACHED, None, NULL, None, NULL, missed)
        return page is not None and filter_probe(page.data, page.size, hash)

    cdef int check_open(self) except -1:
        if self.closed:
            raise DatabaseClosedError("the table is closed")
        return 0

    cdef Page load(self, const PageHandle* handle, int page_type, int use, Page root,
                   const unsigned char* root_value, Page index, const unsigned char* index_value,
                   bint* missed):
        """Return a page from the pool, or read it, for a `use`; where there is a `missed`, set that
        instead and return None. Entry pages are checked and lie between their separators: at
        `root_value` in `root` and, for data pages, at `index_value` in `index`.
        """
        cdef Page page
        cdef uint64_t place = 0
        self.check_open()
        if page_type != FILTER:
            place = place_of(root, root_value, index, index_value)
        page = self.pool.c_get(self.number, handle.offset)
        if page is not None:
            require_type(page, page_type, self.name, handle.offset)
            if page.place != place:
                self.require_place(page, handle.offset, place, root, index)
            return page
        if missed != NULL:
            missed[0] = True
            return None
        page = self.source.c_read(handle, page_type)
        if page_type != FILTER:
            self.require_place(page, handle.offset, place, root, index)
        if use != ASIDE:
            self.pages_read += 1
            self.bytes_read += handle.size
            # After a close under the read nobody would take the page out of the pool again.
            if use == CACHED and not self.closed:
                self.keep(page, page_type, handle.offset)
        return page

    cdef int keep(self, Page page, int page_type, uint64_t offset) except -1:
        """Give a page that was read to the pool."""
        cdef bint pinned = page_type == FILTER and (
            self.pool.pinned_bytes + <Py_ssize_t>body_room_of(<size_t>page.size) + PAGE_OVERHEAD
            <= self.pool.capacity_bytes // 2)
        self.pool.c_put(self.number, offset, page, pinned)
        if page_type == INDEX:
            self.give_separators(page, offset)
        return 0

    cdef void give_separators(self, Page page, uint64_t offset) noexcept:
        """Give an index page its directory, if the pool took it."""
        cdef uint32_t node = self.pool.find(self.number, offset)
        cdef Py_ssize_t size = 0
        cdef SeparatorDirectory* directory
        if node == 0 or self.pool.nodes[node].page != <PyObject*>page or page.directory != NULL:
            return
        directory = separator_directory(page, &size)
        if directory != NULL:
            self.pool.give_directory(node, directory, size)

    cdef int require_place(self, Page page, uint64_t offset, uint64_t place, Page root,
                           Page index) except -1:
        """Check an index page, or a data page with its index page, against the separators at
        `place`, and mark it.
        """
        if not belongs(PageCursor(page, self.name, offset), root, index, place):
            raise CorruptionError(self.name, offset,
                                  INDEX_MISPLACED if index is None else DATA_MISPLACED)
        page.place = place
        return 0

    cdef int root_handles(self, const unsigned char* value, Py_ssize_t size, PageHandle* index,
                          PageHandle* filter) except -1:
        """Decode the handles in an entry of the root: of an index page and of its filter, whose
        size is 0 when there is none.
        """
        if take_root_handles(value, value + size, self.source.limit, index, filter):
            return 0
        try:
            decode_root_value(value[:size], self.source.limit)
        except ValueError as error:
            raise CorruptionError(self.name, self.root_offset, str(error)) from None
        raise CorruptionError(self.name, self.root_offset, "an index root entry is malformed")

    cdef int index_handle(self, const unsigned char* value, Py_ssize_t size, uint64_t index_offset,
                          PageHandle* handle) except -1:
        """Decode the handle in an entry of the index page at `index_offset`."""
        cdef uint64_t limit = self.source.limit
        if take_handle(value, value + size, handle) == value + size and is_page(handle, limit):
            return 0
        try:
            decode_index_value(value[:size], limit)
        except ValueError as error:
            raise CorruptionError(self.name, index_offset, str(error)) from None
        raise CorruptionError(self.name, index_offset, "an index entry is malformed")


@cython.final
cdef class TableCursor(Cursor):
    """A cursor over the entries of a table, through root, index pages and data pages."""

    def __cinit__(self, TableReader reader not None, bint fill_cache, Py_ssize_t ahead_bytes=0,
                  Py_ssize_t walked_bytes=0):
        self.reader = reader
        self.fill_cache = fill_cache
        self.walked_before = self.walked = walked_bytes
        self.root = PageCursor(reader.root, reader.name, reader.root_offset)
        # A merge has no use for the pool, where a long scan keeps what was decrypted.
        if ahead_bytes > 0 and not fill_cache and reader.source.descriptor >= 0:
            if not self.make_ahead(ahead_bytes):
                raise MemoryError
        self.index = PageCursor.__new__(PageCursor)
        self.index.file = reader.name
        self.data = PageCursor.__new__(PageCursor)
        self.data.file = reader.name

    def __dealloc__(self):
        ahead_free(self.ahead)

    cdef int c_first(self) except -1:
        self.at = False
        self.begin_scan(False, self.walked_before)
        return self.enter(True) if self.root.c_first() else 0

    cdef int c_last(self) except -1:
        self.at = False
        self.begin_scan(True, self.walked_before)
        return self.enter(False) if self.root.c_last() else 0

    cdef int enter(self, bint first) except -1:
        """Move to the first or last entry below the index page that the root stands at."""
        self.load_index()
        self.index.c_first() if first else self.index.c_last()
        self.load_data()
        self.data.c_first() if first else self.data.c_last()
        return self.stand()

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        # `key` may lie in the page of the current entry, which so lives until the end of this call.
        cdef Page current = self.data.page  # no-cython-lint  it is held, not read
        self.at = False
        self.begin_scan(False, 0)
        if not self.root.c_seek(key, size, trailer):
            return 0
        self.load_index()
        # It finds an entry: the last one of the index page is at the separator in the root.
        self.index.c_seek(key, size, trailer)
        self.load_data()
        if not self.data.c_seek(key, size, trailer):
            return self.next_page()
        return self.stand()

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        if self.c_seek(key, size, <uint64_t>-1):
            return self.c_prev()
        return self.c_last()

    cdef int c_next(self) except -1:
        if not self.at:
            return 0
        if self.data.c_next():
            return self.stand()
        self.at = False
        return self.next_page()

    cdef int c_prev(self) except -1:
        if not self.at:
            return 0
        if self.data.c_prev():
            return self.stand()
        self.at = False
        return self.prev_page()

    cdef int c_run(self, Run* run, bint forward) except -1:
        self.data.c_run(run, forward)
        self.stand()
        return run.count

    cdef int q_next(self) noexcept nogil:
        if not self.at or not self.data.q_next() and (
                self.data.next_at < self.data.entries_size
                or not ahead_next(self.ahead, self.index, self.data)):
            return 0
        return self.stand()

    cdef int q_run(self, Run* run) noexcept nogil:
        if self.data.q_run(run):
            self.stand()
        return run.count

    cdef bint read_ahead(self, bint is_backward) except -1:
        """Stand at the first entry, or the last one, of the page that the index page's cursor leads
        to, if it was read ahead or can be; return whether that is so.
        """
        cdef TableReader reader = self.reader
        cdef Ahead* ahead = self.ahead
        cdef Py_ssize_t count, index
        if reader.closed:
            return False
        if not ahead_leads(ahead, self.index.value_data):
            count = ahead_choose(ahead, self.index, reader.pool, reader.number,
                                 reader.source.limit, is_backward)
            if count < 2:
                return False
            # Safety: the index page, in which the separators lie, is held.
            reader.source.c_read_ahead(ahead, count)
            reader.pool.misses += <uint64_t>ahead.count
            if self.fill_cache:
                reader.pages_read += <uint64_t>ahead.count
                for index in range(ahead.count):
                    reader.bytes_read += ahead.pages[index].handle.size
        elif ahead_is_long(ahead):
            with nogil:
                ahead_open(ahead)
        if not ahead_enter(ahead, self.data):
            return False
        if is_backward:
            self.data.c_last()
        return True

    cdef bint make_ahead(self, Py_ssize_t bytes_max) noexcept:
        """Read so many bytes ahead from now on; return False, and do nothing, without memory."""
        if self.ahead == NULL:
            self.ahead = <Ahead*>calloc(1, sizeof(Ahead))
        if self.ahead == NULL:
            return False
        # What seals hold takes as much again.
        self.ahead.seal_bytes = self.reader.source.seal_bytes
        self.ahead.bytes_max = bytes_max // 2 if self.ahead.seal_bytes > 0 else bytes_max
        self.ahead.stamp = self.reader.source.stamp
        self.is_long = True
        return True

    cdef void begin_scan(self, bint is_backward, Py_ssize_t walked) noexcept:
        """Begin a new scan; a compaction's cursor goes on as it is."""
        if self.fill_cache:
            self.is_backward = is_backward
            self.walked = walked
            self.is_long = False

    cdef void walk(self, bint is_backward) noexcept:
        """Prepare for the next page in a direction; a turn begins a new scan. One that has become
        long reads ahead from here on, if the table can be and there is memory for that.
        """
        cdef BufferPool pool = self.reader.pool
        if is_backward != self.is_backward:
            self.begin_scan(is_backward, 0)
        if (self.fill_cache and not self.is_long
                and self.walked > max(pool.capacity_bytes // LONG_POOL_PARTS, LONG_BYTES_MIN)
                and self.reader.source.reads_ahead()):
            self.make_ahead(LONG_AHEAD_BYTES)

    cdef int next_page(self) except -1:
        """Move to the first entry of the next data page."""
        self.walk(False)
        if not self.index.c_next():
            return self.enter(True) if self.root.c_next() else 0
        if not self.is_long or not self.read_ahead(False):
            self.load_data()
            self.data.c_first()
        return self.stand()

    cdef int prev_page(self) except -1:
        """Move to the last entry of the data page before."""
        self.walk(True)
        if not self.index.c_prev():
            return self.enter(False) if self.root.c_prev() else 0
        if not self.is_long or not self.read_ahead(True):
            self.load_data()
            self.data.c_last()
        return self.stand()

    cdef int load_index(self) except -1:
        """Open the index page that the root stands at. It has an entry, as all but a root have."""
        cdef PageHandle index_handle, filter_handle
        # They were checked against the separators of the index page that the cursor leaves.
        if self.ahead != NULL:
            ahead_drop(self.ahead)
        self.reader.root_handles(self.root.value_data, self.root.value_size, &index_handle,
                                 &filter_handle)
        self.index.open(
            self.reader.load(&index_handle, INDEX, CACHED if self.fill_cache else ASIDE,
                             self.root.page, self.root.value_data, None, NULL, NULL),
            index_handle.offset)
        return 0

    cdef int load_data(self) except -1:
        """Open the data page that the index page stands at. It has an entry."""
        cdef PageHandle handle
        cdef int use = ASIDE
        if self.fill_cache:
            use = PASSED if self.is_long else CACHED
        self.reader.index_handle(self.index.value_data, self.index.value_size, self.index.offset,
                                 &handle)
        self.data.open(
            self.reader.load(&handle, DATA, use, self.root.page, self.root.value_data,
                             self.index.page, self.index.value_data, NULL),
            handle.offset)
        self.walked += <Py_ssize_t>handle.size
        return 0

    cdef int stand(self) noexcept nogil:
        """Take over the entry at which the data page's cursor stands."""
        self.key_data = self.data.key_data
        self.key_size = self.data.key_size
        self.trailer = self.data.trailer
        self.value_data = self.data.value_data
        self.value_size = self.data.value_size
        self.at = True
        return 1
