r"""Sets of byte strings as values: the members, ascending, each behind its size.

Part of the file format: the value of a key that the merge function "union" is used on.

>>> pack_set([b"b", b"a", b"b"])
b'\x01a\x01b'
>>> sorted(unpack_set(b"\x01a\x01b"))
[b'a', b'b']
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.base import check_value
from holdfast.codec import decode_varint, encode_varint


def pack_set(members: Iterable[object]) -> bytes:
    """Return the value that is a set of these bytes-like members. Raises: TypeError, LimitError."""
    if isinstance(members, (bytes, bytearray, memoryview, str)):
        raise TypeError(f"members are an iterable of bytes, not {type(members).__name__}")
    ordered = sorted({check_value(member) for member in members})
    return b"".join(encode_varint(len(member)) + member for member in ordered)


def unpack_set(value: bytes) -> frozenset[bytes]:
    """Return the members of a set. Raises: ValueError when the value is none."""
    members: list[bytes] = []
    at = 0
    while at < len(value):
        size, at = decode_varint(value, at)
        if size > len(value) - at:
            raise ValueError(f"a member of {size} bytes does not fit the set")
        member = value[at : at + size]
        if members and member <= members[-1]:
            raise ValueError("the members of a set must ascend")
        members.append(member)
        at += size
    return frozenset(members)
