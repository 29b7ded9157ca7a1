"""The compiled face of read views."""
from libc.stdint cimport uint64_t
from cpython.ref cimport PyObject
from holdfast.cursor._user_c cimport Owner
from holdfast.memtable._memtable_c cimport Memtable
from holdfast.sstable._reader_c cimport TableReader


cdef class ReadView(Owner):
    cdef readonly Memtable active
    cdef readonly tuple frozen           # Memtables, newest first
    cdef readonly tuple levels           # of tuples of readers: level 0 newest first, deeper by key
    cdef readonly object merges          # a MergeReads, or None
    cdef object __weakref__
    cdef object _table_tombstones        # merged range tombstones of all tables, made on first use
    cdef Py_ssize_t _level0_count
    cdef Py_ssize_t _run_count           # non-empty levels below level 0
    cdef Py_ssize_t* _run_starts         # index into _readers of each run, _run_count + 1 numbers
    cdef PyObject** _readers             # level 0, then the runs in order; borrowed from `levels`
    cdef uint64_t* _seqs_max             # one per reader: the highest sequence number it has
    cdef const unsigned char** _lowers   # one per reader; borrowed from _bounds
    cdef const unsigned char** _uppers
    cdef Py_ssize_t* _lower_sizes
    cdef Py_ssize_t* _upper_sizes
    cdef list _bounds
    # The newest visible value of key at `snapshot` as bytes, or None. With `missed`, None and a set
    # `missed` mean that the answer takes a page from a file.
    cdef object c_get(self, const unsigned char* key, Py_ssize_t size, uint64_t snapshot,
                      bint* missed)
    # The same for each of a list of bytes.
    cdef list c_get_many(self, list keys, uint64_t snapshot)

    # Private.
    cdef object c_other(self, uint64_t trailer, uint64_t cover, const unsigned char* key,
                        Py_ssize_t size, uint64_t snapshot, bint* missed)
    cdef void _ask_ahead(self, list keys, Py_ssize_t first, Py_ssize_t last,
                         uint64_t snapshot) noexcept
    cdef PyObject* _reader_of(self, Py_ssize_t number, const unsigned char* key,
                              Py_ssize_t size) noexcept
    cdef int _set_reader(self, Py_ssize_t index, TableReader reader) except -1
    cdef bint _holds(self, Py_ssize_t index, const unsigned char* key, Py_ssize_t size) noexcept
    cdef Py_ssize_t _find_in_run(self, Py_ssize_t run, const unsigned char* key,
                                 Py_ssize_t size) noexcept
