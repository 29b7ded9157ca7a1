"""Compiled read views and level cursors; `_view_py` is the specification."""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from cpython.list cimport PyList_GET_ITEM
from libc.stdint cimport uint32_t, uint64_t

from holdfast.bufferpool._pool_c cimport BufferPool, Page
from holdfast.codec._checksum_c cimport xxh64
from holdfast.cursor._cursor_c cimport Cursor, Run, bytes_data, compare_keys
from holdfast.cursor._tombstones_c cimport RangeTombstones
from holdfast.cursor._user_c cimport Owner
from holdfast.memtable._memtable_c cimport Memtable
from holdfast.sstable._directory_c cimport (
    KeyDirectory, key_prefetch, key_prefetch_entry, prefetch,
)
from holdfast.sstable._reader_c cimport TableCursor, TableReader

from holdfast.base import check_key, prefix_upper
from holdfast.cursor import ListCursor, MergeCursor, UserCursor

cdef enum:
    KIND_PUT = 1
    KIND_MERGE = 3
    # Lookups that wait for memory together: what they ask for fits the nearest cache.
    GROUP_KEYS = 16

# The highest sequence number: 56 bits.
cdef uint64_t SEQS = (<uint64_t>1 << 56) - 1

cdef object MISSED = object()


cdef class ReadView(Owner):
    """See `_view_py.ReadView`."""

    def __cinit__(self, Memtable active not None, tuple frozen, tuple levels, merges=None):
        cdef Py_ssize_t count = 0, index = 0, run = 0
        cdef TableReader reader
        cdef Memtable table
        self.active = active
        for table in frozen:
            if table is None:
                raise TypeError("a frozen memtable is None")
        self.frozen = frozen
        self.levels = levels
        self.merges = merges
        self._bounds = []
        for level in levels:
            for reader in level:
                if reader is None:
                    raise TypeError("a table reader is None")
                count += 1
        self._level0_count = len(levels[0]) if levels else 0
        self._run_count = sum(1 for level in levels[1:] if level)
        self._run_starts = <Py_ssize_t*>PyMem_Malloc((self._run_count + 1) * sizeof(Py_ssize_t))
        self._readers = <PyObject**>PyMem_Malloc((count + 1) * sizeof(PyObject*))
        self._seqs_max = <uint64_t*>PyMem_Malloc((count + 1) * sizeof(uint64_t))
        self._lowers = <const unsigned char**>PyMem_Malloc((count + 1) * sizeof(unsigned char*))
        self._uppers = <const unsigned char**>PyMem_Malloc((count + 1) * sizeof(unsigned char*))
        self._lower_sizes = <Py_ssize_t*>PyMem_Malloc((count + 1) * sizeof(Py_ssize_t))
        self._upper_sizes = <Py_ssize_t*>PyMem_Malloc((count + 1) * sizeof(Py_ssize_t))
        if (self._run_starts == NULL or self._readers == NULL or self._lowers == NULL
                or self._seqs_max == NULL
                or self._uppers == NULL or self._lower_sizes == NULL or self._upper_sizes == NULL):
            raise MemoryError
        for number, level in enumerate(levels):
            if number > 0 and level:
                self._run_starts[run] = index
                run += 1
            for reader in level:
                self._set_reader(index, reader)
                index += 1
        self._run_starts[run] = index

    cdef int _set_reader(self, Py_ssize_t index, TableReader reader) except -1:
        cdef bytes lower = reader.info.lower
        cdef bytes upper = reader.info.upper
        # The bounds list keeps the key bytes alive; `levels` keeps the readers.
        self._bounds.append((lower, upper))
        self._readers[index] = <PyObject*>reader
        self._seqs_max[index] = reader.info.seq_max
        self._lowers[index] = <const unsigned char*>PyBytes_AS_STRING(lower)
        self._lower_sizes[index] = PyBytes_GET_SIZE(lower)
        self._uppers[index] = <const unsigned char*>PyBytes_AS_STRING(upper)
        self._upper_sizes[index] = PyBytes_GET_SIZE(upper)
        return 0

    def __dealloc__(self):
        PyMem_Free(self._run_starts)
        PyMem_Free(self._readers)
        PyMem_Free(self._seqs_max)
        PyMem_Free(self._lowers)
        PyMem_Free(self._uppers)
        PyMem_Free(self._lower_sizes)
        PyMem_Free(self._upper_sizes)

    cdef object c_get(self, const unsigned char* key, Py_ssize_t size, uint64_t snapshot,
                      bint* missed):
        cdef uint64_t trailer = 0, cover = 0, found
        cdef const unsigned char* value = NULL
        cdef Py_ssize_t value_size = 0, index, run
        cdef Memtable table = self.active
        cdef TableReader reader
        cdef Page page
        cdef uint64_t key_hash
        # Sources are asked from the newest to the oldest: the first version found is the newest,
        # and `cover` then holds every tombstone that could be newer than it.
        if table.range_tombstones.fragment_count:
            cover = table.range_tombstones.c_cover(key, size, snapshot)
        if table.c_get(key, size, snapshot, &trailer, &value, &value_size):
            if (trailer & 0xFF) == KIND_PUT:
                return _put(trailer, cover, value, value_size)
            return self.c_other(trailer, cover, key, size, snapshot, missed)
        for table in self.frozen:
            if table.range_tombstones.fragment_count:
                found = table.range_tombstones.c_cover(key, size, snapshot)
                cover = found if found > cover else cover
            if table.c_get(key, size, snapshot, &trailer, &value, &value_size):
                if (trailer & 0xFF) == KIND_PUT:
                    return _put(trailer, cover, value, value_size)
                return self.c_other(trailer, cover, key, size, snapshot, missed)
        if cover or (self._level0_count == 0 and self._run_count == 0):
            # A tombstone in a memtable is newer than everything in tables.
            return None
        key_hash = xxh64(key, size, 0)
        for index in range(self._level0_count):
            if not self._holds(index, key, size):
                continue
            reader = <TableReader>self._readers[index]
            if reader.range_tombstones.fragment_count:
                found = reader.range_tombstones.c_cover(key, size, snapshot)
                cover = found if found > cover else cover
            page = reader.c_get(key, size, key_hash, snapshot, &trailer, &value, &value_size,
                                missed)
            if page is not None:
                if (trailer & 0xFF) == KIND_PUT:
                    return _put(trailer, cover, value, value_size)
                return self.c_other(trailer, cover, key, size, snapshot, missed)
            if cover or (missed != NULL and missed[0]):
                return None
        for run in range(self._run_count):
            index = self._find_in_run(run, key, size)
            if index < 0:
                continue
            reader = <TableReader>self._readers[index]
            if reader.range_tombstones.fragment_count:
                found = reader.range_tombstones.c_cover(key, size, snapshot)
                cover = found if found > cover else cover
            page = reader.c_get(key, size, key_hash, snapshot, &trailer, &value, &value_size,
                                missed)
            if page is not None:
                if (trailer & 0xFF) == KIND_PUT:
                    return _put(trailer, cover, value, value_size)
                return self.c_other(trailer, cover, key, size, snapshot, missed)
            if cover or (missed != NULL and missed[0]):
                return None
        return None

    cdef object c_other(self, uint64_t trailer, uint64_t cover, const unsigned char* key,
                        Py_ssize_t size, uint64_t snapshot, bint* missed):
        """Return the value of a key whose newest version is no PUT."""
        if (trailer & 0xFF) != KIND_MERGE or (trailer >> 8) < cover:
            return None
        cdef bytes plain = PyBytes_FromStringAndSize(<const char*>key, size)
        if missed == NULL or self.merges is None:
            return self.merged(plain, snapshot)
        value = self.merges.value_cached(self, plain, snapshot, MISSED)
        if value is not MISSED:
            return value
        missed[0] = True
        return None

    def merged(self, bytes key not None, uint64_t snapshot):
        if self.merges is None:
            raise ValueError("nothing resolves the MERGE entries of this view")
        return self.merges.value_at(self, key, snapshot)

    def fold(self, key, base, entries):
        if self.merges is None:
            raise ValueError("nothing resolves the MERGE entries of this view")
        return self.merges.fold(key, base, entries)

    cdef bint _holds(self, Py_ssize_t index, const unsigned char* key, Py_ssize_t size) noexcept:
        return (compare_keys(key, size, self._lowers[index], self._lower_sizes[index]) >= 0
                and compare_keys(key, size, self._uppers[index], self._upper_sizes[index]) < 0)

    cdef Py_ssize_t _find_in_run(self, Py_ssize_t run, const unsigned char* key,
                                 Py_ssize_t size) noexcept:
        """Return the index of the run's table whose range holds key, or -1."""
        cdef Py_ssize_t low = self._run_starts[run], high = self._run_starts[run + 1], middle
        cdef Py_ssize_t last = high
        while low < high:
            middle = (low + high) // 2
            if compare_keys(key, size, self._uppers[middle], self._upper_sizes[middle]) < 0:
                high = middle
            else:
                low = middle + 1
        if low < last and self._holds(low, key, size):
            return low
        return -1

    def get(self, key, snapshot):
        cdef bytes plain = check_key(key)
        return self.c_get(<const unsigned char*>PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain),
                          snapshot, NULL)

    def get_cached(self, key, uint64_t snapshot, otherwise):
        cdef bytes plain = check_key(key)
        cdef bint missed = False
        result = self.c_get(<const unsigned char*>PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain),
                            snapshot, &missed)
        return otherwise if missed else result

    def get_many(self, keys, uint64_t snapshot):
        cdef list plain = []
        for key in keys:
            plain.append(check_key(key))
        return self.c_get_many(plain, snapshot)

    cdef list c_get_many(self, list keys, uint64_t snapshot):
        cdef Py_ssize_t first = 0, at, last, count = len(keys)
        cdef list result = []
        cdef bytes key
        while first < count:
            last = first + GROUP_KEYS if count - first > GROUP_KEYS else count
            if self._level0_count + self._run_count > 0:
                self._ask_ahead(keys, first, last, snapshot)
            for at in range(first, last):
                key = <bytes>keys[at]
                result.append(self.c_get(<const unsigned char*>PyBytes_AS_STRING(key),
                                         PyBytes_GET_SIZE(key), snapshot, NULL))
            first = last
        return result

    cdef void _ask_ahead(self, list keys, Py_ssize_t first, Py_ssize_t last,
                         uint64_t snapshot) noexcept:
        """Ask for the memory that lookups of some keys will wait for, all of it step by step, so
        that they wait for it together.
        """
        cdef PyObject* readers[GROUP_KEYS]
        cdef PyObject* pages[GROUP_KEYS]
        cdef uint32_t nodes[GROUP_KEYS]
        cdef uint64_t places[GROUP_KEYS]
        cdef uint64_t hashes[GROUP_KEYS]
        cdef uint32_t index_node = 0
        cdef BufferPool pool = None
        cdef const unsigned char* key
        cdef Py_ssize_t at, size, count = last - first, number
        cdef PyObject* reader
        # Safety: `count` is at most GROUP_KEYS, the keys are bytes, and nothing here lets another
        # thread run or a page go.
        for at in range(count):
            key = <const unsigned char*>PyBytes_AS_STRING(<bytes>PyList_GET_ITEM(keys, first + at))
            size = PyBytes_GET_SIZE(<bytes>PyList_GET_ITEM(keys, first + at))
            hashes[at] = xxh64(key, size, 0)
            readers[at] = NULL
            for number in range(self._level0_count + self._run_count):
                reader = self._reader_of(number, key, size)
                if reader != NULL and (<TableReader>reader).locate(
                        key, size, hashes[at], snapshot << 8 | 0xFF, &index_node, &nodes[at],
                        &places[at]) > 0:
                    readers[at] = reader
                    pool = (<TableReader>reader).pool
                    prefetch(&pool.nodes[nodes[at]])
                    break
        if pool is None:
            return
        for at in range(count):
            if readers[at] != NULL:
                pages[at] = (<TableReader>readers[at]).pool.nodes[nodes[at]].page
                if pages[at] != NULL:
                    prefetch(pages[at])
                    prefetch(&(<Page>pages[at]).place)
        for at in range(count):
            # A node is a hint: what is in it by now may be a page with another kind of directory.
            pages[at] = NULL if readers[at] == NULL else (<TableReader>readers[at]).page_at(
                nodes[at], places[at])
            if pages[at] != NULL and (<Page>pages[at]).directory != NULL:
                prefetch((<Page>pages[at]).directory)
        for at in range(count):
            if pages[at] != NULL and (<Page>pages[at]).directory != NULL:
                key_prefetch(<KeyDirectory*>(<Page>pages[at]).directory, hashes[at])
        for at in range(count):
            if pages[at] != NULL and (<Page>pages[at]).directory != NULL:
                key_prefetch_entry(<KeyDirectory*>(<Page>pages[at]).directory,
                                   (<Page>pages[at]).data, hashes[at])

    cdef PyObject* _reader_of(self, Py_ssize_t number, const unsigned char* key,
                              Py_ssize_t size) noexcept:
        """Return the reader of a table of level 0, or of the one of a run, that may have key."""
        if number < self._level0_count:
            return self._readers[number] if self._holds(number, key, size) else NULL
        number = self._find_in_run(number - self._level0_count, key, size)
        return self._readers[number] if number >= 0 else NULL

    def key_change(self, key, uint64_t since):
        cdef bytes plain = check_key(key)
        cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(plain)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(plain), number, index
        cdef uint64_t newest, key_hash
        cdef Memtable table = self.active
        newest = _newest_in_memtable(table, data, size, since)
        if newest:
            return newest if newest > since else 0
        for table in self.frozen:
            newest = _newest_in_memtable(table, data, size, since)
            if newest:
                return newest if newest > since else 0
        key_hash = xxh64(data, size, 0)
        for number in range(self._level0_count + self._run_count):
            index = number
            if number >= self._level0_count:
                index = self._find_in_run(number - self._level0_count, data, size)
            elif not self._holds(number, data, size):
                continue
            if index < 0 or self._seqs_max[index] <= since:
                continue
            newest = _newest_in_table(<TableReader>self._readers[index], data, size, key_hash)
            if newest:
                return newest if newest > since else 0
        return 0

    def range_change(self, bytes lower, bytes upper, uint64_t since):
        cdef Memtable table = self.active
        cdef Py_ssize_t number, index, first, last
        if lower is not None and upper is not None and lower >= upper:
            return None
        if table.seq_max > since:
            found = _range_change(table.range_tombstones, table.cursor(), lower, upper, since)
            if found is not None:
                return found
        for table in self.frozen:
            if table.seq_max > since:
                found = _range_change(table.range_tombstones, table.cursor(), lower, upper, since)
                if found is not None:
                    return found
        for number in range(self._level0_count):
            # One table is a run.
            if (self._seqs_max[number] > since
                    and _first_above(self, number, number + 1, lower) == number
                    and _first_from(self, number, number + 1, upper) > number):
                found = _range_change_in(<TableReader>self._readers[number], lower, upper, since)
                if found is not None:
                    return found
        for number in range(self._run_count):
            first = _first_above(self, self._run_starts[number], self._run_starts[number + 1],
                                 lower)
            last = _first_from(self, first, self._run_starts[number + 1], upper)
            for index in range(first, last):
                if self._seqs_max[index] > since:
                    found = _range_change_in(<TableReader>self._readers[index], lower, upper,
                                             since)
                    if found is not None:
                        return found
        return None

    def tombstone_sets(self):
        cdef TableReader reader
        cdef Memtable table
        cdef list tables = [], sets = []
        if self._table_tombstones is None:
            for level in self.levels:
                for reader in level:
                    if reader.range_tombstones.fragment_count:
                        tables.append(reader.range_tombstones)
            self._table_tombstones = RangeTombstones([]).merged(tables)
        if (<RangeTombstones>self._table_tombstones).fragment_count:
            sets.append(self._table_tombstones)
        if self.active.range_tombstones.fragment_count:
            sets.append(self.active.range_tombstones)
        for table in self.frozen:
            if table.range_tombstones.fragment_count:
                sets.append(table.range_tombstones)
        return sets

    def internal_cursor(self, lower=None, upper=None, *, fill_cache=True):
        cdef list cursors = []
        cdef Memtable table = self.active
        cdef Py_ssize_t number, run = 0, start, first, last
        cdef tuple level
        _check_bound(lower)
        _check_bound(upper)
        # What comes into a memtable later is newer than all that whoever asks now may see.
        if table.overlaps(lower, upper):
            cursors.append(table.cursor())
        for table in self.frozen:
            if table.overlaps(lower, upper):
                cursors.append(table.cursor())
        for number in range(self._level0_count):
            # One table is a run.
            if (_first_above(self, number, number + 1, lower) == number
                    and _first_from(self, number, number + 1, upper) > number):
                cursors.append(_cursor_in(<TableReader>self._readers[number], fill_cache, lower,
                                          upper))
        for number in range(1, len(self.levels)):
            level = self.levels[number]
            if not level:
                continue
            # Safety: the runs are the levels below level 0 that are not empty, in their order.
            start = self._run_starts[run]
            run += 1
            last = self._run_starts[run]
            first = _first_above(self, start, last, lower)
            last = _first_from(self, start, last, upper)
            if last - first == 1:
                cursors.append(_cursor_in(<TableReader>self._readers[first], fill_cache, lower,
                                          upper))
            elif first < last:
                cursors.append(LevelCursor(level, fill_cache, first - start, last - start, lower,
                                           upper))
        return cursors[0] if len(cursors) == 1 else MergeCursor(cursors)

    def cursor(self, snapshot, lower=None, upper=None, reverse=False, limit=None, what=0, *,
               fill_cache=True):
        return UserCursor(self.internal_cursor(lower, upper, fill_cache=fill_cache),
                          self.tombstone_sets(), snapshot, lower, upper, reverse, limit, what, self,
                          self.active.gaps, None, None if self.merges is None else self)


cdef Py_ssize_t _first_above(ReadView view, Py_ssize_t first, Py_ssize_t last, bytes lower):
    """Return the first of the tables [first, last) whose range goes on at or above `lower`. They
    are of one run.
    """
    cdef Py_ssize_t middle
    if lower is None:
        return first
    while first < last:
        middle = (first + last) // 2
        if compare_keys(bytes_data(lower), PyBytes_GET_SIZE(lower),
                        view._uppers[middle], view._upper_sizes[middle]) < 0:
            last = middle
        else:
            first = middle + 1
    return first


cdef Py_ssize_t _first_from(ReadView view, Py_ssize_t first, Py_ssize_t last, bytes upper):
    """Return the first of the tables [first, last) whose range begins at or above `upper`."""
    cdef Py_ssize_t middle
    if upper is None:
        return last
    while first < last:
        middle = (first + last) // 2
        if compare_keys(view._lowers[middle], view._lower_sizes[middle],
                        bytes_data(upper), PyBytes_GET_SIZE(upper)) < 0:
            first = middle + 1
        else:
            last = middle
    return first


cdef inline int _check_bound(bound) except -1:
    if bound is not None and type(bound) is not bytes:
        raise TypeError(f"a bound is bytes or None, not {type(bound).__name__}")
    return 0


def shared_prefix(lower, upper, Py_ssize_t count):
    """Return the first `count` bytes, if all keys in [lower, upper) share them, else None. With a
    count of 0 nobody asks.
    """
    if count == 0 or lower is None or upper is None or len(lower) < count:
        return None
    above = prefix_upper(lower[:count])
    return lower[:count] if above is None or upper <= above else None


cdef object _cursor_in(TableReader reader, fill_cache, lower, upper):
    """Return the cursor of a table, of which only the keys in [lower, upper) are wanted."""
    if shared_prefix(lower, upper, reader.prefix_bytes) is None:
        return reader.cursor(fill_cache)
    return LevelCursor((reader,), fill_cache, 0, 1, lower, upper)


cdef uint64_t _newest_in_memtable(Memtable table, const unsigned char* key, Py_ssize_t size,
                                  uint64_t since) noexcept:
    """Return the highest sequence number of what concerns key, 0 when there is nothing, or nothing
    above `since`.
    """
    cdef uint64_t trailer = 0, newest = 0
    cdef const unsigned char* value = NULL
    cdef Py_ssize_t value_size = 0
    if table.seq_max <= since:
        return 0
    if table.range_tombstones.fragment_count:
        newest = table.range_tombstones.c_cover(key, size, SEQS)
    if table.c_get(key, size, SEQS, &trailer, &value, &value_size) and trailer >> 8 > newest:
        newest = trailer >> 8
    return newest


cdef uint64_t _newest_in_table(TableReader reader, const unsigned char* key, Py_ssize_t size,
                               uint64_t key_hash) except? 0xFFFFFFFFFFFFFFFF:
    """Return the highest sequence number of what concerns key, 0 when there is nothing."""
    cdef uint64_t trailer = 0, newest = 0
    cdef const unsigned char* value = NULL
    cdef Py_ssize_t value_size = 0
    cdef Page page
    if reader.range_tombstones.fragment_count:
        newest = reader.range_tombstones.c_cover(key, size, SEQS)
    page = reader.c_get(key, size, key_hash, SEQS, &trailer, &value, &value_size, NULL)
    if page is not None and trailer >> 8 > newest:
        newest = trailer >> 8
    return newest


cdef object _range_change(RangeTombstones tombstones, Cursor cursor, bytes lower, bytes upper,
                          uint64_t since):
    """Return what one source has about [lower, upper) above `since`; see `range_change`."""
    cdef const unsigned char* low = NULL
    cdef const unsigned char* high = NULL
    cdef Py_ssize_t low_size = 0, high_size = 0
    cdef uint64_t covering
    if lower is not None:
        low = <const unsigned char*>PyBytes_AS_STRING(lower)
        low_size = PyBytes_GET_SIZE(lower)
    if upper is not None:
        high = <const unsigned char*>PyBytes_AS_STRING(upper)
        high_size = PyBytes_GET_SIZE(upper)
    if tombstones.fragment_count:
        covering = tombstones.c_newest_over(low, low_size, high, high_size)
        if covering > since:
            return None, covering
    if low == NULL:
        cursor.c_first()
    else:
        cursor.c_seek(low, low_size, SEQS << 8 | 0xFF)
    while cursor.at and (high == NULL or compare_keys(
            cursor.key_data, cursor.key_size, high, high_size) < 0):
        if cursor.trailer >> 8 > since:
            return (PyBytes_FromStringAndSize(<const char*>cursor.key_data, cursor.key_size),
                    cursor.trailer >> 8)
        cursor.c_next()
    return None


cdef object _range_change_in(TableReader reader, bytes lower, bytes upper, uint64_t since):
    """Return what a table has; see `range_change`."""
    # What is only compared should not push out of the pool what is read.
    return _range_change(reader.range_tombstones, reader.cursor(False), lower, upper, since)


cdef inline object _put(uint64_t trailer, uint64_t cover, const unsigned char* value,
                        Py_ssize_t size):
    """Return the value of a PUT, or None when a tombstone covers it."""
    if (trailer >> 8) < cover:
        return None
    return PyBytes_FromStringAndSize(<const char*>value, size)


@cython.final
cdef class LevelCursor(Cursor):
    """See `_view_py.LevelCursor`."""
    cdef tuple _readers              # of the whole level: a copy of it would take its time
    cdef Py_ssize_t _low             # the tables of this cursor
    cdef Py_ssize_t _high
    cdef bint _fill_cache
    cdef Py_ssize_t _index
    cdef Cursor _current
    cdef object _lower
    cdef object _upper

    def __init__(self, readers, bint fill_cache=True, Py_ssize_t first=0, last=None, lower=None,
                 upper=None):
        self._lower = lower
        self._upper = upper
        self._readers = tuple(readers)
        self._low = first
        self._high = len(self._readers) if last is None else last
        self._fill_cache = fill_cache
        self._index = -1

    cdef int _open(self, Py_ssize_t index, bint is_walk=False) except -1:
        """Open the cursor of a table; a `walk` goes on with the scan of the one before."""
        cdef TableReader reader
        cdef Py_ssize_t walked_bytes = 0
        if index != self._index or self._current is None:
            reader = self._readers[index]
            prefix = shared_prefix(self._lower, self._upper, reader.prefix_bytes)
            if prefix is not None and not reader.may_contain_prefix(prefix):
                self._current = ListCursor(())
            else:
                if is_walk and isinstance(self._current, TableCursor):
                    walked_bytes = (<TableCursor>self._current).walked
                self._current = reader.cursor(self._fill_cache, 0, walked_bytes)
            self._index = index
        return 0

    cdef int _settle(self, int positioned) except -1:
        """Copy the current table's position into this cursor's fields."""
        self.at = positioned
        if positioned:
            self.key_data = self._current.key_data
            self.key_size = self._current.key_size
            self.trailer = self._current.trailer
            self.value_data = self._current.value_data
            self.value_size = self._current.value_size
        return positioned

    cdef int _forward(self) except -1:
        """Enter the tables after the current one until one has an entry."""
        cdef int positioned = 0
        while not positioned and self._index + 1 < self._high:
            self._open(self._index + 1, True)
            positioned = self._current.c_first()
        return self._settle(positioned)

    cdef int _backward(self) except -1:
        """Enter the tables before the current one until one has an entry."""
        cdef int positioned = 0
        while not positioned and self._index > self._low:
            self._open(self._index - 1, True)
            positioned = self._current.c_last()
        return self._settle(positioned)

    cdef Py_ssize_t _first_above(self, const unsigned char* key, Py_ssize_t size):
        """Return the index of the first table whose upper bound lies above key, or `_high`.
        """
        cdef Py_ssize_t low = self._low, high = self._high, middle
        cdef bytes upper
        while low < high:
            middle = (low + high) // 2
            upper = self._readers[middle].info.upper
            if compare_keys(key, size, <const unsigned char*>PyBytes_AS_STRING(upper),
                            PyBytes_GET_SIZE(upper)) < 0:
                high = middle
            else:
                low = middle + 1
        return low

    cdef int c_first(self) except -1:
        self._open(self._low)
        if self._current.c_first():
            return self._settle(1)
        return self._forward()

    cdef int c_last(self) except -1:
        self._open(self._high - 1)
        if self._current.c_last():
            return self._settle(1)
        return self._backward()

    cdef int c_seek(self, const unsigned char* key, Py_ssize_t size, uint64_t trailer) except -1:
        cdef Py_ssize_t index = self._first_above(key, size)
        if index == self._high:
            self.at = 0
            return 0
        self._open(index)
        if self._current.c_seek(key, size, trailer):
            return self._settle(1)
        return self._forward()

    cdef int c_seek_before(self, const unsigned char* key, Py_ssize_t size) except -1:
        cdef Py_ssize_t index = self._first_above(key, size)
        if index == self._high:
            return self.c_last()
        self._open(index)
        if self._current.c_seek_before(key, size):
            return self._settle(1)
        return self._backward()

    cdef int c_next(self) except -1:
        if self._current.c_next():
            return self._settle(1)
        return self._forward()

    cdef int c_prev(self) except -1:
        if self._current.c_prev():
            return self._settle(1)
        return self._backward()

    cdef int c_run(self, Run* run, bint forward) except -1:
        self._current.c_run(run, forward)
        self._settle(1)
        return run.count
