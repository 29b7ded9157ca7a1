"""The compiled face of a scan: what replay walks without Python objects."""
cimport cython
from libc.stdint cimport uint32_t, uint64_t


cdef struct ScanRecord:
    uint64_t lsn
    uint64_t seq_first
    uint64_t durable_lsn
    uint64_t manifest_edit
    uint64_t header_checksum
    Py_ssize_t payload_offset
    uint32_t payload_size
    uint32_t op_count
    int type


@cython.final
cdef class ScanResult:
    cdef ScanRecord* items                    # Constant after construction
    cdef readonly Py_ssize_t record_count
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t end_offset
    cdef int stop_code
    cdef readonly uint64_t lsn_next
    cdef readonly uint64_t chain_next
    cdef readonly uint64_t seq_first
    cdef readonly uint64_t seq_next
    cdef readonly uint64_t next_segment
    cdef readonly uint64_t durable_lsn_min
    cdef readonly uint64_t durable_lsn_max
    cdef readonly uint64_t manifest_edit_max
    cdef int add(self, const ScanRecord* record) noexcept nogil
