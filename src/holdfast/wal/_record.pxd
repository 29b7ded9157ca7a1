"""Inline record headers, shared by the kernels that write and read them. The layout is
docs/format/wal.md's.
"""
from libc.stdint cimport uint32_t, uint64_t

from holdfast.codec._checksum_c cimport xxh64
from holdfast.codec._fixed cimport load32, load64, store32, store64

# Part of the file format. `_scan_c` checks at import that they equal what `format.py` says.
cdef enum:
    HEADER_BYTES = 80
    HEADER_CHECKED_BYTES = 72
    TYPE_BATCHES = 1
    TYPE_END = 2
    END_BYTES = 8

cdef extern from *:
    """
    #define HOLDFAST_WAL_MAGIC UINT32_C(0x4C415748)
    #define HOLDFAST_WAL_LSN_MAX UINT64_C(0x7FFFFFFFFFFFFFFF)
    #define HOLDFAST_WAL_SEQ_MAX UINT64_C(0x00FFFFFFFFFFFFFF)
    """
    const uint32_t MAGIC "HOLDFAST_WAL_MAGIC"
    const uint64_t MAX_LSN "HOLDFAST_WAL_LSN_MAX"
    const uint64_t MAX_SEQ "HOLDFAST_WAL_SEQ_MAX"


cdef struct Header:
    uint32_t payload_size
    uint32_t op_count
    uint64_t segment
    uint64_t lsn
    uint64_t seq_first
    uint64_t durable_lsn
    uint64_t manifest_edit
    uint64_t chain
    uint64_t payload_checksum
    uint64_t checksum
    int type


cdef inline void header_put(unsigned char* target, Header* header, uint64_t salt) noexcept nogil:
    """Write a header and set its checksum. Requires: room for HEADER_BYTES."""
    store32(target, MAGIC)
    store32(target + 4, header.payload_size)
    store64(target + 8, header.segment)
    store64(target + 16, header.lsn)
    store64(target + 24, header.seq_first)
    store64(target + 32, header.durable_lsn)
    store64(target + 40, header.manifest_edit)
    store64(target + 48, header.chain)
    store32(target + 56, header.op_count)
    store32(target + 60, <uint32_t>header.type)
    store64(target + 64, header.payload_checksum)
    header.checksum = xxh64(target, HEADER_CHECKED_BYTES, salt)
    store64(target + HEADER_CHECKED_BYTES, header.checksum)


cdef inline bint header_get(const unsigned char* source, Header* header,
                            uint64_t salt) noexcept nogil:
    """Read a header; False when its magic or checksum is wrong. Requires: HEADER_BYTES readable
    bytes.

    The three bytes behind the type, which must be zero, are read as its upper part, so
    `header_well_formed` refuses a type that does not exist.
    """
    if load32(source) != MAGIC:
        return False
    header.checksum = load64(source + HEADER_CHECKED_BYTES)
    if xxh64(source, HEADER_CHECKED_BYTES, salt) != header.checksum:
        return False
    header.payload_size = load32(source + 4)
    header.segment = load64(source + 8)
    header.lsn = load64(source + 16)
    header.seq_first = load64(source + 24)
    header.durable_lsn = load64(source + 32)
    header.manifest_edit = load64(source + 40)
    header.chain = load64(source + 48)
    header.op_count = load32(source + 56)
    header.type = <int>load32(source + 60)
    header.payload_checksum = load64(source + 64)
    return True


cdef inline bint header_well_formed(const Header* header) noexcept nogil:
    """Whether a header could have been written: ranges, and the fields of its type."""
    if header.lsn == 0 or header.lsn > MAX_LSN or header.durable_lsn >= header.lsn:
        return False
    if header.type == TYPE_BATCHES:
        return (header.op_count > 0 and header.payload_size > 0
                and header.seq_first > 0 and header.seq_first <= MAX_SEQ
                and header.op_count - 1 <= MAX_SEQ - header.seq_first)
    return (header.type == TYPE_END and header.op_count == 0
            and header.payload_size == END_BYTES and header.seq_first <= MAX_SEQ + 1)
