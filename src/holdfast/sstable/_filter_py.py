"""Bloom filters of one cache line a key: the specification of the FILTER page.

The body is u8 probes, 3 zero bytes, u32 block count, then blocks of 64 bytes. A key's hash is
xxh64(key, 0). Its upper 32 bits pick the block by multiply-shift, its lower 32 bits start a
multiplicative sequence whose upper 9 bits pick one bit of the block for each probe. So a lookup
touches one cache line. The layout is that of Putze, Sanders and Singler, "Cache-, Hash- and
Space-Efficient Bloom Filters" (2007); picking bits by repeated multiplication is RocksDB's idea.

A filter may only save work: a body that is not a filter answers True. Whoever loads a page asks
`filter_check` first.

Thread safety: a builder belongs to one thread; the functions are pure.
"""

from __future__ import annotations

import struct

from holdfast.base import LimitError

_HEADER = struct.Struct("<B3xI")
_BLOCK_BYTES = 64
_PROBES_MAX = 30
_BITS_MAX = 64
_MULTIPLIER = 0x9E3779B1
"""The prime next to 2^32 divided by the golden ratio. Part of the file format."""
_MASK = 0xFFFFFFFF


class FilterBuilder:
    """Collects hashes and writes one filter body after another."""

    def __init__(self, bits_per_key: int) -> None:
        if not 1 <= bits_per_key <= _BITS_MAX:
            raise LimitError(
                f"bits_per_key is {bits_per_key}; it must lie between 1 and {_BITS_MAX}"
            )
        self._bits_per_key = bits_per_key
        self._hashes: list[int] = []

    @property
    def count(self) -> int:
        """Hashes added since the last `finish`."""
        return len(self._hashes)

    def add_hash(self, key_hash: int) -> None:
        """Add xxh64(user key, 0). Adding one twice takes room twice; callers skip runs of equal
        keys.
        """
        if not 0 <= key_hash < 1 << 64:
            raise OverflowError("a hash is an unsigned 64-bit number")
        self._hashes.append(key_hash)

    def finish(self) -> bytes:
        """Return the body over all hashes added, and begin anew."""
        block_bits = _BLOCK_BYTES * 8
        # Fewer probes than the ln 2 x bits of a plain bloom filter: blocks fill unevenly, and full
        # ones cost more than an extra probe gains.
        probes = min(max((self._bits_per_key * 58 + 50) // 100, 1), _PROBES_MAX)
        blocks = max(-(-len(self._hashes) * self._bits_per_key // block_bits), 1)
        body = bytearray(_HEADER.pack(probes, blocks) + bytes(blocks * _BLOCK_BYTES))
        for key_hash in self._hashes:
            for position, mask in _bits(key_hash, probes, blocks):
                body[position] |= mask
        self._hashes.clear()
        return bytes(body)


def filter_check(body: bytes | bytearray | memoryview) -> str | None:
    """Return why `body` is not a filter, or None when it is one."""
    if len(body) < _HEADER.size:
        return "a filter is shorter than its header"
    probes, blocks = _HEADER.unpack_from(body)
    if not 1 <= probes <= _PROBES_MAX:
        return "a filter has an impossible number of probes"
    if any(body[1:4]):
        return "a filter's reserved bytes are not zero"
    if blocks == 0 or len(body) != _HEADER.size + blocks * _BLOCK_BYTES:
        return "a filter's block count does not match its size"
    return None


def filter_may_contain(body: bytes | bytearray | memoryview, key_hash: int) -> bool:
    """Return False only when no key with this hash was added."""
    if not 0 <= key_hash < 1 << 64:
        raise OverflowError("a hash is an unsigned 64-bit number")
    if filter_check(body) is not None:
        return True
    probes, blocks = _HEADER.unpack_from(body)
    return all(body[position] & mask for position, mask in _bits(key_hash, probes, blocks))


def _bits(key_hash: int, probes: int, blocks: int) -> list[tuple[int, int]]:
    """Return (byte of the body, mask) of each probe."""
    block = _HEADER.size + ((key_hash >> 32) * blocks >> 32) * _BLOCK_BYTES
    state = key_hash & _MASK
    found = []
    for _ in range(probes):
        bit = state >> 23
        found.append((block + (bit >> 3), 1 << (bit & 7)))
        state = state * _MULTIPLIER & _MASK
    return found
