"""XXH64, the checksum of pages, records and footers: the plain twin, which is the specification.

The algorithm is XXH64 of Yann Collet's xxHash, written from its public description.
It finds accidents of every kind with a chance of missing one in 2**64; it is no defence
against somebody who forges bytes on purpose.

Thread safety: pure functions.
"""

from __future__ import annotations

from operator import index
from struct import Struct

MASK = 2**64 - 1
PRIME_1 = 0x9E3779B185EBCA87
PRIME_2 = 0xC2B2AE3D27D4EB4F
PRIME_3 = 0x165667B19E3779F9
PRIME_4 = 0x85EBCA77C2B2AE63
PRIME_5 = 0x27D4EB2F165667C5

_STRIPE = Struct("<4Q")
_WORD = Struct("<Q")


def checksum(data: bytes | bytearray | memoryview, seed: int = 0) -> int:
    """Return the XXH64 of a bytes-like object as an integer below 2**64.

    Raises: TypeError when `data` is not bytes-like; BufferError when it is not contiguous;
    OverflowError when `seed` is not a 64-bit unsigned integer.
    """
    seed = index(seed)
    if not 0 <= seed <= MASK:
        raise OverflowError("the seed is not a 64-bit unsigned integer")
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the data is not contiguous")
    view = view.cast("B")
    size = len(view)
    stripes_end = size & ~31
    words_end = size & ~7
    state = _stripes(view[:stripes_end], seed) if size >= 32 else seed + PRIME_5
    state += size
    for (word,) in _WORD.iter_unpack(view[stripes_end:words_end]):
        state = _rotate(state ^ _mix(0, word), 27) * PRIME_1 + PRIME_4
    tail = bytes(view[words_end:])
    if len(tail) >= 4:
        half = int.from_bytes(tail[:4], "little")
        state = _rotate(state ^ half * PRIME_1, 23) * PRIME_2 + PRIME_3
        tail = tail[4:]
    for byte in tail:
        state = _rotate(state ^ byte * PRIME_5, 11) * PRIME_1
    state &= MASK
    state = ((state ^ state >> 33) * PRIME_2) & MASK
    state = ((state ^ state >> 29) * PRIME_3) & MASK
    return state ^ state >> 32


def _stripes(view: memoryview, seed: int) -> int:
    """Return the state after whole stripes of 32 bytes: four lanes, then folded into one."""
    mask, prime_1, prime_2 = MASK, PRIME_1, PRIME_2
    lane_1 = (seed + prime_1 + prime_2) & mask
    lane_2 = (seed + prime_2) & mask
    lane_3 = seed
    lane_4 = (seed - prime_1) & mask
    # The rounds are `_mix`, written out: this loop is where the plain twin spends its time.
    for word_1, word_2, word_3, word_4 in _STRIPE.iter_unpack(view):
        lane_1 = (lane_1 + word_1 * prime_2) & mask
        lane_1 = ((lane_1 << 31 | lane_1 >> 33) * prime_1) & mask
        lane_2 = (lane_2 + word_2 * prime_2) & mask
        lane_2 = ((lane_2 << 31 | lane_2 >> 33) * prime_1) & mask
        lane_3 = (lane_3 + word_3 * prime_2) & mask
        lane_3 = ((lane_3 << 31 | lane_3 >> 33) * prime_1) & mask
        lane_4 = (lane_4 + word_4 * prime_2) & mask
        lane_4 = ((lane_4 << 31 | lane_4 >> 33) * prime_1) & mask
    state = _rotate(lane_1, 1) + _rotate(lane_2, 7) + _rotate(lane_3, 12) + _rotate(lane_4, 18)
    for lane in (lane_1, lane_2, lane_3, lane_4):
        state = ((state ^ _mix(0, lane)) * prime_1 + PRIME_4) & mask
    return state


def _mix(lane: int, word: int) -> int:
    """One round: take eight bytes into a lane."""
    return (_rotate(lane + word * PRIME_2, 31) * PRIME_1) & MASK


def _rotate(value: int, count: int) -> int:
    """Rotate the low 64 bits left."""
    value &= MASK
    return (value << count | value >> (64 - count)) & MASK
