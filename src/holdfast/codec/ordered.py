"""Tuples as keys: an encoding whose bytes sort as the tuples do. Format: docs/format/tuple.md.

Guarantees: O1. `unpack_tuple(pack_tuple(t)) == t`, with the same types. O2. Packed tuples compare
bytewise as tuples compare element by element, a tuple that is the beginning of another first;
between types None < bytes < str < int < float < bool. O3. No packed element is the beginning of
another, so that a scan of the prefix `pack_tuple(("a", 1))` meets exactly the tuples that begin
with "a", 1. O4. Each tuple has one encoding; `unpack_tuple` refuses all other bytes.

Floats sort by value, -0.0 just below 0.0 and NaN (one for all) above infinity. An int and a float
of the same value differ: the type comes first.

Thread safety: pure functions.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

from holdfast.base.errors import LimitError

Item = None | bytes | str | int | float | bool

# Part of the file format.
TAG_NONE = 0x10
TAG_BYTES = 0x20
TAG_STR = 0x30
TAG_INT = 0x50
"""The tag of 0. An int of n <= 8 bytes has the tag n above it, or n below it when negative."""
TAG_INT_LONG = TAG_INT + 9
TAG_INT_LONG_NEGATIVE = TAG_INT - 9
TAG_FLOAT = 0x60
TAG_FALSE = 0x70
TAG_TRUE = 0x71

INT_BYTES_MAX = 255
"""The longest int, in bytes of its magnitude."""

_NONE = bytes([TAG_NONE])
_BYTES = bytes([TAG_BYTES])
_STR = bytes([TAG_STR])
_FALSE = bytes([TAG_FALSE])
_TRUE = bytes([TAG_TRUE])
_SIGN = 1 << 63
_NAN = 0x7FF8 << 48


def pack_tuple(items: Iterable[Item | bytearray | memoryview]) -> bytes:
    """Return the items as one key. A bytearray or memoryview counts as bytes.

    Raises: TypeError for an item of another type; LimitError for an int of more than 255 bytes;
    ValueError for a str that UTF-8 cannot hold (a lone surrogate).
    """
    parts = []
    for item in items:
        if type(item) is str:
            parts.append(_STR + _escape(item.encode()))
        else:
            parts.append(_pack_item(item))
    return b"".join(parts)


def unpack_tuple(data: bytes | bytearray | memoryview) -> tuple[Item, ...]:
    """Return the items of a key that `pack_tuple` made. Raises: ValueError for any other bytes."""
    if type(data) is not bytes:
        data = memoryview(data).tobytes()
    items: list[Item] = []
    at = 0
    size = len(data)
    while at < size:
        tag = data[at]
        at += 1
        if tag == TAG_STR:
            raw, at = _unpack_bytes(data, at)
            items.append(raw.decode())
        elif tag == TAG_BYTES:
            raw, at = _unpack_bytes(data, at)
            items.append(raw)
        elif TAG_INT_LONG_NEGATIVE <= tag <= TAG_INT_LONG:
            number, at = _unpack_int(data, at, tag - TAG_INT)
            items.append(number)
        elif tag == TAG_FLOAT:
            items.append(_unpack_float(_take(data, at, 8)))
            at += 8
        elif tag in _SINGLES:
            items.append(_SINGLES[tag])
        else:
            raise ValueError(f"no tuple: unknown tag {tag:#04x} at byte {at - 1}")
    return tuple(items)


_SINGLES = {TAG_NONE: None, TAG_FALSE: False, TAG_TRUE: True}


def _pack_item(item: object) -> bytes:
    if item is None:
        return _NONE
    # Before int, because bool is one.
    if isinstance(item, bool):
        return _TRUE if item else _FALSE
    if isinstance(item, int):
        return _pack_int(item)
    if isinstance(item, float):
        return _pack_float(item)
    if isinstance(item, str):
        return _STR + _escape(item.encode())
    if isinstance(item, bytes | bytearray | memoryview):
        return _BYTES + _escape(bytes(item))
    raise TypeError(
        f"a tuple key holds None, bytes, str, int, float and bool, not {type(item).__name__}"
    )


def _escape(raw: bytes) -> bytes:
    """Return `raw` with its 0 and 1 bytes escaped, and the 0 that ends it."""
    if b"\x01" in raw:
        raw = raw.replace(b"\x01", b"\x01\x02")
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"\x01\x01")
    return raw + b"\x00"


def _unpack_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\x00", at)
    if end < 0:
        raise ValueError(f"no tuple: the bytes from {at} on do not end")
    escaped = data[at:end]
    if b"\x01" not in escaped:
        return escaped, end + 1
    # From the left, 01 01 is found only where an escape begins: the other one ends in 02.
    raw = escaped.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
    if _escape(raw) != data[at : end + 1]:
        raise ValueError(f"no tuple: an escape in the bytes from {at} on is unknown")
    return raw, end + 1


def _pack_int(value: int) -> bytes:
    magnitude = abs(value)
    width = (magnitude.bit_length() + 7) // 8
    if width > INT_BYTES_MAX:
        raise LimitError(f"the int has {width} bytes; the limit in a tuple key is {INT_BYTES_MAX}")
    if value >= 0:
        head = bytes([TAG_INT + width]) if width <= 8 else bytes([TAG_INT_LONG, width])
        return head + value.to_bytes(width, "big")
    # Negative: the complement of the magnitude and of a long length, so that a greater magnitude
    # sorts first.
    head = bytes([TAG_INT - width]) if width <= 8 else bytes([TAG_INT_LONG_NEGATIVE, 255 - width])
    return head + ((1 << 8 * width) - 1 - magnitude).to_bytes(width, "big")


def _unpack_int(data: bytes, at: int, signed_width: int) -> tuple[int, int]:
    """Return (int, the offset behind it). `signed_width` is the tag's distance from the tag of
    0.
    """
    negative = signed_width < 0
    width = abs(signed_width)
    if width == 9:
        (width,) = _take(data, at, 1)
        width = 255 - width if negative else width
        at += 1
        if width < 9:
            raise ValueError(f"no tuple: the int before byte {at} is not in its shortest form")
    magnitude = int.from_bytes(_take(data, at, width), "big")
    if negative:
        magnitude = (1 << 8 * width) - 1 - magnitude
    if magnitude.bit_length() <= 8 * (width - 1):
        raise ValueError(f"no tuple: the int at byte {at} is not in its shortest form")
    return (-magnitude if negative else magnitude), at + width


def _pack_float(value: float) -> bytes:
    bits = int.from_bytes(struct.pack(">d", value), "big") if not math.isnan(value) else _NAN
    # Positive numbers sort as their bits do, above all negative ones, which sort in reverse.
    bits = bits ^ (2 * _SIGN - 1) if bits & _SIGN else bits | _SIGN
    return bytes([TAG_FLOAT]) + bits.to_bytes(8, "big")


def _unpack_float(raw: bytes) -> float:
    bits = int.from_bytes(raw, "big")
    bits = bits ^ _SIGN if bits & _SIGN else bits ^ (2 * _SIGN - 1)
    value: float = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    if math.isnan(value) and bits != _NAN:
        raise ValueError("no tuple: a NaN is not in its only form")
    return value


def _take(data: bytes, at: int, count: int) -> bytes:
    piece = data[at : at + count]
    if len(piece) != count:
        raise ValueError(f"no tuple: the number at byte {at} is cut")
    return piece
