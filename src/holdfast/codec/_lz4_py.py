"""The LZ4 block format, both ways: the plain twin, which is the specification.

Written from the public description of the block format (Yann Collet, "LZ4 Block Format
Description"). A block is a chain of sequences: a token, literals, and a match, which is a distance
back into the output and a length.

    sequence := token literal-length* literals [distance:u16 match-length*]
    token    := literal length in the high four bits, match length - 4 in the low four

A length of 15 or more continues in bytes behind the token, added up to the first below 255.

The last sequence has no match and the low bits of its token are 0, the last LITERALS_LAST bytes of
the output are literals, and the last match starts at least MATCH_GUARD bytes before the end. The
compressor is greedy, with one table of the last position of each hash of four bytes; both twins
make the same choices, so the same input gives the same bytes everywhere and for ever.

Thread safety: pure functions.
"""

from __future__ import annotations

MATCH_BYTES_MIN = 4
LITERALS_LAST = 5
MATCH_GUARD = 12
DISTANCE_MAX = 0xFFFF
HASH_BITS = 13
HASH_FACTOR = 2654435761
PATIENCE_BITS = 6
"""After each 2**PATIENCE_BITS positions without a match the search strides one byte more."""

SIZE_MAX = 2**31 - 1
RATIO_MAX = 255
"""No block expands further: 255 is the most a byte of a match length stands for."""


def lz4_compress(data: bytes | bytearray | memoryview) -> bytes:
    """Return `data` as one LZ4 block.

    Raises: TypeError when `data` is not bytes-like; BufferError when it is not contiguous;
    ValueError when it is longer than 2**31 - 1 bytes.
    """
    source = _plain(data)
    size = len(source)
    out = bytearray()
    table = [0] * (1 << HASH_BITS)
    match_start_last = size - MATCH_GUARD
    match_end_last = size - LITERALS_LAST
    anchor = 0
    position = 1
    tries = 1 << PATIENCE_BITS
    while position <= match_start_last:
        word = source[position : position + 4]
        slot = _hash(word)
        # The table keeps positions modulo 2**16, which is all that a distance can span.
        # A stale or empty slot names a wrong candidate, and the comparison of the four bytes turns
        # it down.
        distance = (position - table[slot]) & DISTANCE_MAX
        table[slot] = position & DISTANCE_MAX
        candidate = position - distance
        if distance == 0 or candidate < 0 or source[candidate : candidate + 4] != word:
            position += tries >> PATIENCE_BITS
            tries += 1
            continue
        start = position
        while (
            start > anchor
            and start > distance
            and source[start - 1] == source[start - 1 - distance]
        ):
            start -= 1
        end = position + MATCH_BYTES_MIN
        while end < match_end_last and source[end] == source[end - distance]:
            end += 1
        _put_sequence(out, source[anchor:start], distance, end - start)
        anchor = position = end
        tries = 1 << PATIENCE_BITS
        if position <= match_start_last:
            table[_hash(source[position - 2 : position + 2])] = (position - 2) & DISTANCE_MAX
    _put_sequence(out, source[anchor:], 0, 0)
    return bytes(out)


def lz4_decompress(data: bytes | bytearray | memoryview, size: int) -> bytes:
    """Return the `size` bytes that an LZ4 block stands for.

    Raises: ValueError when `data` is not exactly one block of `size` bytes, or `size` is not
    possible; TypeError when `data` is not bytes-like; BufferError when it is not contiguous.
    """
    source = _plain(data)
    if not 0 <= size <= min(SIZE_MAX, len(source) * RATIO_MAX):
        raise ValueError("malformed LZ4 block")
    out = bytearray()
    at = 0
    while True:
        if at >= len(source):
            raise ValueError("malformed LZ4 block")
        token = source[at]
        length, at = _length(source, at + 1, token >> 4)
        if length > len(source) - at or length > size - len(out):
            raise ValueError("malformed LZ4 block")
        out += source[at : at + length]
        at += length
        if at == len(source):
            if len(out) != size or token & 15:
                raise ValueError("malformed LZ4 block")
            return bytes(out)
        if len(source) - at < 2:
            raise ValueError("malformed LZ4 block")
        distance = int.from_bytes(source[at : at + 2], "little")
        length, at = _length(source, at + 2, token & 15)
        length += MATCH_BYTES_MIN
        start = len(out)
        if (
            not 0 < distance <= start
            or size - start < MATCH_GUARD
            or length > size - start - LITERALS_LAST
        ):
            raise ValueError("malformed LZ4 block")
        # A match may reach into its own output, where it repeats the last `distance` bytes.
        pattern = bytes(out[start - distance : start - distance + min(length, distance)])
        out += (pattern * (length // len(pattern) + 1))[:length]


def _plain(data: bytes | bytearray | memoryview) -> bytes:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the data is not contiguous")
    if view.nbytes > SIZE_MAX:
        raise ValueError("the data is longer than an LZ4 block can be")
    return view.tobytes()


def _hash(word: bytes) -> int:
    return (int.from_bytes(word, "little") * HASH_FACTOR & 0xFFFFFFFF) >> (32 - HASH_BITS)


def _put_sequence(out: bytearray, literals: bytes, distance: int, match_length: int) -> None:
    """Append one sequence; the last one has distance 0 and no match."""
    literal_code = len(literals)
    match_code = match_length - MATCH_BYTES_MIN if distance else 0
    out.append(min(literal_code, 15) << 4 | min(match_code, 15))
    _put_length(out, literal_code)
    out += literals
    if distance:
        out += distance.to_bytes(2, "little")
        _put_length(out, match_code)


def _put_length(out: bytearray, code: int) -> None:
    """Append what of a length did not fit its four bits of the token."""
    if code >= 15:
        full, rest = divmod(code - 15, 255)
        out += b"\xff" * full
        out.append(rest)


def _length(source: bytes, at: int, nibble: int) -> tuple[int, int]:
    """Return (the length that begins in a token's four bits, the position behind its bytes)."""
    length = nibble
    byte = 255 if nibble == 15 else 0
    while byte == 255:
        if at >= len(source):
            raise ValueError("malformed LZ4 block")
        byte = source[at]
        length += byte
        at += 1
    return length, at
