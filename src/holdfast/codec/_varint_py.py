"""Varints: the plain twin, which is the specification.

LEB128 without a sign: groups of seven bits, the lowest first, the high bit of a byte says that
another follows. A value has 64 bits at most, so ten bytes at most, and exactly one encoding: the
shortest.

Thread safety: pure functions.
"""

from __future__ import annotations

from operator import index

VALUE_MAX = 2**64 - 1


def encode_varint(value: int) -> bytes:
    """Return `value` as a varint.

    Raises: ValueError when it is negative or has more than 64 bits.
    """
    value = index(value)
    if not 0 <= value <= VALUE_MAX:
        raise ValueError("a varint holds 64 bits without a sign")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int]:
    """Return (the value that starts at `offset`, the offset behind it).

    Raises: ValueError when the varint is cut, has more than 64 bits or is not the shortest, or
    `offset` is outside the data.
    """
    offset = index(offset)
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the data is not contiguous")
    view = view.cast("B")
    if not 0 <= offset <= len(view):
        raise ValueError("the offset is outside the data")
    value = 0
    for shift, byte in zip(range(0, 64, 7), view[offset : offset + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > VALUE_MAX or (byte == 0 and shift > 0):
                break
            return value, offset + shift // 7 + 1
    raise ValueError("malformed varint")
