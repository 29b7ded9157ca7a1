"""The LZ4 block format, both ways: the compiled twin of `_lz4_py`, which describes it.

The compressor makes the choices of the plain twin and so the same bytes. What is different is how
bytes move: where there is room, in steps of eight or sixteen that may write behind the end of what
they copy, never behind the buffer.

Thread safety: pure functions. Data of RELEASE_BYTES or more is worked on without the GIL.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from holdfast.codec._fixed cimport load16, load32, load64, store16

cdef extern from *:
    """
    #define HOLDFAST_LIKELY(condition) __builtin_expect(!!(condition), 1)
    """
    bint likely "HOLDFAST_LIKELY"(bint condition) noexcept nogil
    int count_trailing_zeros "__builtin_ctzll"(uint64_t value) noexcept nogil

cdef enum:
    MATCH_BYTES_MIN = 4
    LITERALS_LAST = 5
    MATCH_GUARD = 12
    HASH_BITS = 13
    PATIENCE_BITS = 6
    RATIO_MAX = 255
    SIZE_MAX = 0x7FFFFFFF
    RELEASE_BYTES = 256 * 1024


def lz4_compress(data):
    """Return `data` as one LZ4 block.

    Raises: TypeError when `data` is not bytes-like; BufferError when it is not contiguous;
    ValueError when it is longer than 2**31 - 1 bytes.
    """
    cdef Py_buffer view
    cdef const unsigned char* source
    cdef unsigned char* block
    cdef Py_ssize_t capacity
    cdef Py_ssize_t size
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len > SIZE_MAX:
            raise ValueError("the data is longer than an LZ4 block can be")
        source = <const unsigned char*>view.buf
        capacity = lz4_bound(view.len)
        block = <unsigned char*>malloc(capacity)
        if block == NULL:
            raise MemoryError
        try:
            if view.len < RELEASE_BYTES:
                size = lz4_compress_into(source, view.len, block, capacity)
            else:
                with nogil:
                    size = lz4_compress_into(source, view.len, block, capacity)
            return PyBytes_FromStringAndSize(<char*>block, size)
        finally:
            free(block)
    finally:
        PyBuffer_Release(&view)


def lz4_decompress(data, size):
    """Return the `size` bytes that an LZ4 block stands for.

    Raises: ValueError when `data` is not exactly one block of `size` bytes, or `size` is not
    possible; TypeError when `data` is not bytes-like; BufferError when it is not contiguous.
    """
    cdef Py_buffer view
    cdef Py_ssize_t target_size
    cdef const unsigned char* source
    cdef unsigned char* target
    cdef int status
    cdef bytes result
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len > SIZE_MAX:
            raise ValueError("the data is longer than an LZ4 block can be")
        if not 0 <= size <= min(<Py_ssize_t>SIZE_MAX, view.len * RATIO_MAX):
            raise ValueError("malformed LZ4 block")
        source = <const unsigned char*>view.buf
        target_size = size
        result = PyBytes_FromStringAndSize(NULL, target_size)
        target = <unsigned char*>PyBytes_AS_STRING(result)
        if target_size < RELEASE_BYTES:
            status = lz4_decompress_into(source, view.len, target, target_size)
        else:
            with nogil:
                status = lz4_decompress_into(source, view.len, target, target_size)
        if status != 0:
            raise ValueError("malformed LZ4 block")
        return result
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t lz4_bound(Py_ssize_t size) noexcept nogil:
    """Return the worst-case compressed size: a token, and a length byte for each 255 literals."""
    return size + size // 255 + 16


cdef Py_ssize_t lz4_compress_into(const unsigned char* source, Py_ssize_t size,
                                  unsigned char* target, Py_ssize_t capacity) noexcept nogil:
    """Write `source` as one block; return its size, or -1 exactly when it is more than `capacity`.

    Requires: 0 <= size < 2**31; no overlap.
    """
    cdef uint16_t[1 << HASH_BITS] table
    cdef const unsigned char* source_end = source + size
    cdef const unsigned char* match_start_last
    cdef const unsigned char* match_end_last
    cdef const unsigned char* anchor = source
    cdef const unsigned char* at
    cdef const unsigned char* start
    cdef const unsigned char* end
    cdef unsigned char* out = target
    cdef unsigned char* out_end = target + capacity
    cdef Py_ssize_t distance
    cdef uint32_t word, slot
    cdef uint32_t tries
    if size > MATCH_GUARD:
        memset(table, 0, sizeof(table))
        match_start_last = source_end - MATCH_GUARD
        match_end_last = source_end - LITERALS_LAST
        at = source + 1
        tries = 1 << PATIENCE_BITS
        while at <= match_start_last:
            # Safety: `at` is at most match_start_last, so twelve bytes can be read there. Slots are
            # below the table's length by the shift. A candidate lies in [source, at) by the two
            # comparisons before it is read.
            word = load32(at)
            slot = hash_of(word)
            distance = <uint16_t>(<uint16_t>(at - source) - table[slot])
            table[slot] = <uint16_t>(at - source)
            if distance == 0 or distance > at - source or load32(at - distance) != word:
                at += tries >> PATIENCE_BITS
                tries += 1
                continue
            start = at
            while start > anchor and start - source > distance:
                if (start - 1)[0] != (start - 1 - distance)[0]:
                    break
                start -= 1
            end = match_end(at + MATCH_BYTES_MIN, distance, match_end_last)
            out = put_sequence(out, out_end, anchor, start - anchor, distance, end - start)
            if out == NULL:
                return -1
            anchor = at = end
            tries = 1 << PATIENCE_BITS
            if at <= match_start_last:
                # Safety: a match is at least four bytes long, so two bytes back is inside the
                # source.
                table[hash_of(load32(at - 2))] = <uint16_t>(at - 2 - source)
    out = put_last_literals(out, out_end, anchor, source_end - anchor)
    return -1 if out == NULL else out - target


cdef inline uint32_t hash_of(uint32_t word) noexcept nogil:
    return (word * <uint32_t>2654435761u) >> (32 - HASH_BITS)


cdef inline const unsigned char* match_end(const unsigned char* at, Py_ssize_t distance,
                                           const unsigned char* limit) noexcept nogil:
    """Return the end of a match that reaches `at`: the first byte that differs, or `limit`."""
    cdef uint64_t difference
    # Safety: eight bytes are read only where eight are left before the limit; those `distance` back
    # lie before them.
    while limit - at >= 8:
        difference = load64(at) ^ load64(at - distance)
        if difference != 0:
            return at + (count_trailing_zeros(difference) >> 3)
        at += 8
    while at < limit and at[0] == (at - distance)[0]:
        at += 1
    return at


cdef inline unsigned char* put_sequence(unsigned char* out, unsigned char* out_end,
                                        const unsigned char* literals, Py_ssize_t literal_count,
                                        Py_ssize_t distance,
                                        Py_ssize_t match_length) noexcept nogil:
    """Write one sequence and return the position behind it, or NULL when it does not fit.

    Requires: at least eight bytes of the source lie behind the literals (MATCH_GUARD).
    """
    cdef Py_ssize_t match_code = match_length - MATCH_BYTES_MIN
    cdef Py_ssize_t needed = 3 + length_bytes(literal_count) + literal_count
    cdef unsigned char* literals_end
    needed += length_bytes(match_code)
    if needed > out_end - out:
        return NULL
    # Safety: `needed` is all that is written, but for copies in steps of eight, which want eight
    # bytes more.
    out[0] = <unsigned char>((min_nibble(literal_count) << 4) | min_nibble(match_code))
    out = put_length(out + 1, literal_count)
    literals_end = out + literal_count
    if likely(out_end - literals_end >= 8):
        while out < literals_end:
            memcpy(out, literals, 8)
            out += 8
            literals += 8
    else:
        memcpy(out, literals, literal_count)
    store16(literals_end, <uint16_t>distance)
    return put_length(literals_end + 2, match_code)


cdef unsigned char* put_last_literals(unsigned char* out, unsigned char* out_end,
                                      const unsigned char* literals,
                                      Py_ssize_t count) noexcept nogil:
    """Write the sequence without a match; return the position behind it, or NULL for no room."""
    if 1 + length_bytes(count) + count > out_end - out:
        return NULL
    out[0] = <unsigned char>(min_nibble(count) << 4)
    out = put_length(out + 1, count)
    if count > 0:
        memcpy(out, literals, count)
    return out + count


cdef inline int min_nibble(Py_ssize_t code) noexcept nogil:
    return <int>code if code < 15 else 15


cdef inline Py_ssize_t length_bytes(Py_ssize_t code) noexcept nogil:
    """Return how many bytes behind the token a length takes."""
    return 0 if code < 15 else (code - 15) // 255 + 1


cdef inline unsigned char* put_length(unsigned char* out, Py_ssize_t code) noexcept nogil:
    """Write the bytes of a length behind the token. Requires: room for length_bytes(code)."""
    if code < 15:
        return out
    code -= 15
    while code >= 255:
        out[0] = 255
        out += 1
        code -= 255
    out[0] = <unsigned char>code
    return out + 1


cdef int lz4_decompress_into(const unsigned char* source, Py_ssize_t size,
                             unsigned char* target, Py_ssize_t target_size) noexcept nogil:
    """Decompress a block of exactly `target_size` bytes; return 0, or -1 when it is malformed.

    Never reads outside the source nor writes outside the target, whatever the bytes say. No
    overlap.
    """
    cdef const unsigned char* end = source + size
    cdef unsigned char* out = target
    cdef unsigned char* out_end = target + target_size
    cdef unsigned char* copy_end
    cdef Py_ssize_t length, distance
    cdef int token
    while True:
        if source >= end:
            return -1
        token = source[0]
        source += 1
        length = token >> 4
        # Safety: literals are copied after both buffers were found to hold them; in one piece of 16
        # only where both have 16.
        if likely(length < 15 and end - source >= 16 and out_end - out >= 16):
            memcpy(out, source, 16)
        else:
            if length == 15:
                source = get_length(source, end, &length)
                if source == NULL:
                    return -1
            if length > end - source or length > out_end - out:
                return -1
            if length > 0:
                memcpy(out, source, length)
        out += length
        source += length
        if source == end:
            return 0 if out == out_end and (token & 15) == 0 else -1
        if end - source < 2:
            return -1
        distance = load16(source)
        source += 2
        length = token & 15
        if length == 15:
            source = get_length(source, end, &length)
            if source == NULL:
                return -1
        length += MATCH_BYTES_MIN
        if distance == 0 or distance > out - target:
            return -1
        if out_end - out < MATCH_GUARD or length > out_end - out - LITERALS_LAST:
            return -1
        copy_end = out + length
        # Safety: the match starts inside the output written so far and its copy ends before the
        # output does. Copies in steps run up to 15 bytes behind the match, hence only where 16 are
        # left there; else they stop 16 short, and single bytes follow.
        if likely(out_end - copy_end >= 16):
            copy_match(out, distance, copy_end)
        else:
            if length > 16:
                copy_match(out, distance, copy_end - 16)
                out = copy_end - 16
            while out < copy_end:
                out[0] = (out - distance)[0]
                out += 1
        out = copy_end


cdef inline void copy_match(unsigned char* out, Py_ssize_t distance,
                            unsigned char* copy_end) noexcept nogil:
    """Fill [out, copy_end) with a repetition of the `distance` bytes before it.

    May write 15 bytes behind it. Requires: distance > 0; out < copy_end.
    """
    if likely(distance >= 16):
        while True:
            memcpy(out, out - distance, 16)
            out += 16
            if out >= copy_end:
                return
    else:
        copy_repeating(out, distance, copy_end)


cdef inline void copy_repeating(unsigned char* out, Py_ssize_t distance,
                                unsigned char* copy_end) noexcept nogil:
    """Do the work of `copy_match` for a short distance. Requires: 0 < distance < 16.
    """
    cdef int index
    cdef Py_ssize_t stride
    cdef unsigned char[16] pattern
    if copy_end - out > 64:
        # A long run: whole repetitions out of a register, so that no step waits for the bytes the
        # one before wrote.
        for index in range(16):
            pattern[index] = (out - distance)[index % distance]
        stride = 16 - 16 % distance
        while out < copy_end:
            memcpy(out, pattern, 16)
            out += stride
        return
    if distance < 8:
        # The first eight bytes one by one. Then the output repeats also with the smallest multiple
        # of the distance that is eight or more, and a step of eight can copy from there.
        for index in range(8):
            out[index] = (out + index - distance)[0]
        out += 8
        distance *= (7 + distance) // distance
    while out < copy_end:
        memcpy(out, out - distance, 8)
        out += 8


cdef inline const unsigned char* get_length(const unsigned char* source, const unsigned char* end,
                                            Py_ssize_t* length) noexcept nogil:
    """Add the further bytes of a length; return the position behind them, or NULL when cut.

    The sum cannot overflow: it is at most 255 times the bytes of the source.
    """
    cdef unsigned char byte = 255
    while byte == 255:
        if source >= end:
            return NULL
        byte = source[0]
        length[0] += byte
        source += 1
    return source
