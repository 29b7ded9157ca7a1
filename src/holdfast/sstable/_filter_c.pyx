"""Bloom filters of one cache line a key, compiled. The twin `_filter_py` is the specification.

Guarantees: nothing is read or written outside the body, whatever its bytes are.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from holdfast.codec._fixed cimport load32, store32
from holdfast.env._large cimport large_free, large_resize

from holdfast.base import LimitError

cdef enum:
    HEADER_BYTES = 8
    BLOCK_BYTES = 64
    PROBES_MAX = 30
    BITS_MAX = 64


cdef inline uint64_t _block_start(uint64_t key_hash, uint64_t blocks) noexcept nogil:
    """Return where in the body the block of this hash begins, of `blocks` < 2^32."""
    return HEADER_BYTES + (((key_hash >> 32) * blocks) >> 32) * BLOCK_BYTES


cdef inline uint32_t _following(uint32_t state) noexcept nogil:
    """Return the next state of the probe sequence. Part of the file format."""
    return state * <uint32_t>0x9E3779B1


cdef enum:
    SOUND = 0
    SHORT = 1
    PROBES = 2
    RESERVED = 3
    BLOCKS = 4


cdef inline int _status(const unsigned char* body, Py_ssize_t size) noexcept nogil:
    """Return SOUND when the body is a filter: then it has 8 + 64 x blocks bytes, blocks > 0 and 1
    <= probes <= 30.
    """
    if size < HEADER_BYTES:
        return SHORT
    # Safety: the 8 bytes of the header are there.
    if body[0] < 1 or body[0] > PROBES_MAX:
        return PROBES
    if body[1] != 0 or body[2] != 0 or body[3] != 0:
        return RESERVED
    cdef uint64_t blocks = load32(body + 4)
    if blocks == 0 or <uint64_t>(size - HEADER_BYTES) != blocks * BLOCK_BYTES:
        return BLOCKS
    return SOUND


cdef bint filter_probe(const unsigned char* body, Py_ssize_t size,
                       uint64_t key_hash) noexcept nogil:
    if _status(body, size) != SOUND:
        return True
    cdef uint64_t blocks = load32(body + 4)
    # Safety: key_hash >> 32 < 2^32, so the block is < blocks, and a bit of 9 bits lies within its
    # 64 bytes.
    cdef const unsigned char* block = body + _block_start(key_hash, blocks)
    cdef uint32_t state = <uint32_t>key_hash
    cdef uint32_t bit
    cdef int _probe
    for _probe in range(body[0]):
        bit = state >> 23
        if not block[bit >> 3] & (1 << (bit & 7)):
            return False
        state = _following(state)
    return True


@cython.final
cdef class FilterBuilder:
    """Collects hashes and writes one filter body after another."""

    def __init__(self, int bits_per_key):
        if not 1 <= bits_per_key <= BITS_MAX:
            raise LimitError(
                f"bits_per_key is {bits_per_key}; it must lie between 1 and {BITS_MAX}")
        self._bits_per_key = bits_per_key
        self._count = 0

    def __dealloc__(self):
        large_free(self._hashes, <size_t>self._capacity * sizeof(uint64_t))

    @property
    def count(self):
        """Hashes added since the last `finish`."""
        return self._count

    cdef int c_add_hash(self, uint64_t key_hash) noexcept nogil:
        cdef Py_ssize_t capacity
        cdef uint64_t* grown
        if self._count == self._capacity:
            # A body of PAGE_BYTES_MAX bytes is reached long before the size of the array could
            # overflow.
            capacity = self._capacity * 2 if self._capacity > 0 else 1024
            grown = <uint64_t*>large_resize(
                self._hashes, <size_t>self._capacity * sizeof(uint64_t),
                <size_t>capacity * sizeof(uint64_t))
            if grown == NULL:
                return -1
            self._hashes = grown
            self._capacity = capacity
        # Safety: count < capacity.
        self._hashes[self._count] = key_hash
        self._count += 1
        return 0

    def add_hash(self, uint64_t key_hash):
        """Add xxh64(user key, 0). Adding one twice takes room twice; callers skip runs of equal
        keys.
        """
        if self.c_add_hash(key_hash) != 0:
            raise MemoryError

    def finish(self):
        """Return the body over all hashes added, and begin anew."""
        cdef bytes result = PyBytes_FromStringAndSize(NULL, self.c_size())
        self.c_finish(<unsigned char*>PyBytes_AS_STRING(result))
        return result

    cdef uint64_t _blocks(self) noexcept nogil:
        cdef uint64_t blocks = (<uint64_t>self._count * <uint64_t>self._bits_per_key + 511) // 512
        return blocks if blocks > 0 else 1

    cdef Py_ssize_t c_size(self) noexcept nogil:
        return HEADER_BYTES + <Py_ssize_t>self._blocks() * BLOCK_BYTES

    cdef void c_finish(self, unsigned char* body) noexcept nogil:
        cdef int probes = (self._bits_per_key * 58 + 50) // 100
        cdef uint64_t blocks = self._blocks()
        cdef Py_ssize_t index
        probes = 1 if probes < 1 else PROBES_MAX if probes > PROBES_MAX else probes
        # Safety: the caller made room for c_size() bytes.
        memset(body, 0, <size_t>self.c_size())
        body[0] = <unsigned char>probes
        store32(body + 4, <uint32_t>blocks)
        for index in range(self._count):
            _set_bits(body, blocks, probes, self._hashes[index])
        self._count = 0


cdef inline void _set_bits(unsigned char* body, uint64_t blocks, int probes,
                           uint64_t key_hash) noexcept nogil:
    # Safety: as in filter_probe; the body has 8 + 64 x blocks bytes.
    cdef unsigned char* block = body + _block_start(key_hash, blocks)
    cdef uint32_t state = <uint32_t>key_hash
    cdef uint32_t bit
    cdef int _probe
    for _probe in range(probes):
        bit = state >> 23
        block[bit >> 3] |= <unsigned char>(1 << (bit & 7))
        state = _following(state)


def filter_check(const unsigned char[::1] body not None):
    """Return why `body` is not a filter, or None when it is one."""
    cdef int status = _status(&body[0] if body.shape[0] > 0 else NULL, body.shape[0])
    if status == SOUND:
        return None
    if status == SHORT:
        return "a filter is shorter than its header"
    if status == PROBES:
        return "a filter has an impossible number of probes"
    if status == RESERVED:
        return "a filter's reserved bytes are not zero"
    return "a filter's block count does not match its size"


def filter_may_contain(const unsigned char[::1] body not None, uint64_t key_hash):
    """Return False only when no key with this hash was added."""
    return bool(filter_probe(&body[0] if body.shape[0] > 0 else NULL, body.shape[0], key_hash))
