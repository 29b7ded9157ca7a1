from libc.stdint cimport uint64_t

from holdfast.sstable._entry_page cimport Buffer, EntryPage
from holdfast.sstable._filter_c cimport FilterBuilder


# A closed data page that waits to be sealed: its body, its separator, and how many hashes are its.
cdef struct ClosedPage:
    Py_ssize_t body_start
    Py_ssize_t body_size
    Py_ssize_t key_start
    Py_ssize_t key_size
    uint64_t trailer
    Py_ssize_t hash_count
    uint64_t offset
    Py_ssize_t stored_size
    uint64_t checksum


# A closed partition of the index: where its body, its filter and its last separator lie.
cdef struct Partition:
    Py_ssize_t index_start
    Py_ssize_t index_size
    Py_ssize_t filter_start
    Py_ssize_t filter_size
    Py_ssize_t key_start
    Py_ssize_t key_size
    uint64_t trailer


# What became of an entry that was to be added without the interpreter.
cdef enum:
    ADDED = 0
    ADD_SEAL = 1             # a page was closed and completes a batch: seal it, and add again
    ADD_REFUSED = 2          # the entry is not added: `c_add` says why
    ADD_BROKEN = 3           # no memory in the middle: the builder is of no more use


cdef class Output:
    cdef Buffer held
    cdef Py_ssize_t view_count


cdef class TableBuilder:
    # Append one entry in internal order, or raise ValueError or LimitError. Finished pages
    # collect in an output buffer.
    cdef int c_add(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                   const unsigned char* value, Py_ssize_t value_size) except -1
    # The same without the interpreter, between c_lend and c_take_back. Return one of the above;
    # all but ADDED are for `c_add` to go on with.
    cdef int q_add(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                   const unsigned char* value, Py_ssize_t value_size) noexcept nogil
    # Keep others away while entries are added without the GIL; return whether that can be. Then
    # tell what the last of them came to.
    cdef bint c_lend(self) noexcept
    cdef int c_take_back(self, int status) except -1
    cdef readonly Py_ssize_t output_size      # sealed bytes waiting for take_output()
    cdef readonly uint64_t file_bytes         # estimate of the file so far, the open page included
    cdef readonly uint64_t entry_count        # entries added, range tombstones not counted

    # Private to the builder.
    cdef bytes _file_id
    cdef const unsigned char* _id             # its bytes
    cdef Py_ssize_t _page_bytes
    cdef int _compression
    cdef bint _is_ingested
    cdef object _cipher                       # what seals the pages, or None
    cdef bint _seals_alone                    # sealing needs no library
    cdef bint _has_filter
    cdef bytes _origin                        # an encoded TableOrigin, or empty
    cdef FilterBuilder _filter                # None: no filter
    cdef EntryPage _data
    cdef EntryPage _index
    cdef Buffer _hashes                       # u64 each: of the closed pages, then of the open one
    cdef Py_ssize_t _open_hashes
    cdef Py_ssize_t _prefix_bytes             # 0: filters hold none
    cdef Buffer _closed                       # ClosedPage each
    cdef Buffer _keys                         # separators of the closed pages
    cdef Buffer _plain                        # compressed pages that wait for their seal
    cdef Buffer _output
    cdef Output _taken                        # what was taken last, or None
    cdef uint64_t _sealed_bytes
    cdef uint64_t _partition_bytes
    cdef Buffer _partitions                   # Partition each; their bodies begin `_index.body`
    cdef Buffer _filters                      # bodies of the filters of closed partitions
    cdef Buffer _separators                   # of the closed partitions
    cdef uint64_t _partition_trailer          # of the last page in the index; its key: _index.last
    cdef dict _tombstones                     # (start, seq) -> stop
    cdef Py_ssize_t _tombstone_bytes
    cdef Buffer _first                        # the first key
    cdef uint64_t _last_trailer
    cdef uint64_t _delete_count
    cdef uint64_t _raw_bytes
    cdef uint64_t _seq_min
    cdef uint64_t _seq_max
    cdef int _state

    cdef int _check_open(self) except -1
    cdef int q_put(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                   const unsigned char* value, Py_ssize_t value_size) noexcept nogil
    cdef int q_close_page(self, const unsigned char* following, Py_ssize_t size,
                          Py_ssize_t shared) noexcept nogil
    cdef int q_seal(self) noexcept nogil
    cdef int q_index_closed(self) noexcept nogil
    cdef int q_close_partition(self) noexcept nogil
    cdef int _refuse(self, const unsigned char* key, Py_ssize_t key_size, uint64_t trailer,
                     Py_ssize_t value_size) except -1
    cdef int _check_sizes(self, Py_ssize_t key_size, Py_ssize_t value_size) except -1
    cdef int _seal_closed(self) except -1
    cdef int _seal_by_library(self) except -1
    cdef void q_compress(self) noexcept nogil
    cdef int _compress_by_library(self) except -1
    cdef Py_ssize_t q_compressed_bytes(self) noexcept nogil
    cdef int _seal_compressed(self) except -1
    cdef int q_seal_compressed(self) noexcept nogil
    cdef void q_end_page(self, ClosedPage* page, Py_ssize_t size, int compression) noexcept nogil
    cdef int _append_index(self, bytes key, uint64_t trailer, bytes value) except -1
    cdef bytes _close_index(self)
    cdef object _seal(self, bytes body, int page_type)
    cdef tuple _seal_index(self)
    cdef int _emit(self, bytes data) except -1
    cdef void _count_seq(self, uint64_t seq) noexcept nogil
    cdef void _estimate(self) noexcept nogil
    cdef Py_ssize_t _grown_size(self, Py_ssize_t shared, Py_ssize_t key_size,
                                Py_ssize_t value_size) noexcept nogil
