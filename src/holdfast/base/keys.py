"""Keys, sequence numbers and kinds.

Internal order is user key ascending, then trailer descending, so that the newest version of a key
comes first. Part of the file format: the numbers of the kinds.

>>> unpack_trailer(pack_trailer(7, PUT))
(7, 1)
>>> prefix_upper(b"user/"), prefix_upper(bytes([97, 255])), prefix_upper(bytes([255]))
(b'user0', b'b', None)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.base.errors import LimitError
from holdfast.base.limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

DELETE = 0
PUT = 1
RANGE_DELETE = 2
MERGE = 3

SEQ_MAX = (1 << 56) - 1
"""The highest sequence number: 56 bits, so that a trailer fits 64."""

Buffer = bytes | bytearray | memoryview


def pack_trailer(seq: int, kind: int) -> int:
    """Return the trailer `seq << 8 | kind`."""
    return seq << 8 | kind


def unpack_trailer(trailer: int) -> tuple[int, int]:
    """Return (sequence number, kind) of a trailer."""
    return trailer >> 8, trailer & 0xFF


def successor(key: bytes) -> bytes:
    """Return the least key greater than `key`."""
    return key + b"\x00"


def prefix_upper(prefix: bytes) -> bytes | None:
    """Return the least key greater than all that start with `prefix`; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes([stripped[-1] + 1])


def check_key(key: object) -> bytes:
    """Return `key` as bytes.

    Raises: TypeError when it is not bytes-like; LimitError when it is longer than KEY_BYTES_MAX.
    """
    plain = _check_bytes(key, "key")
    if len(plain) > KEY_BYTES_MAX:
        raise LimitError(f"the key has {len(plain)} bytes; the limit is {KEY_BYTES_MAX}")
    return plain


def check_value(value: object) -> bytes:
    """Return `value` as bytes.

    Raises: TypeError when it is not bytes-like; LimitError when it is longer than VALUE_BYTES_MAX.
    """
    plain = _check_bytes(value, "value")
    if len(plain) > VALUE_BYTES_MAX:
        raise LimitError(f"the value has {len(plain)} bytes; the limit is {VALUE_BYTES_MAX}")
    return plain


def pairs_of(given: Any) -> Iterable[tuple[Any, Any]]:
    """Return the pairs of what `dict.update` takes: a mapping, what has `keys` and can be asked for
    each of them, or pairs.
    """
    if type(given) is list:
        # To ask whether it is a mapping takes longer than to write a row.
        return given
    if isinstance(given, Mapping):
        return given.items()
    if hasattr(given, "keys"):
        return ((key, given[key]) for key in given.keys())  # noqa: SIM118  it is no mapping
    return given  # type: ignore[no-any-return]


def _check_bytes(value: object, role: str) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        raise TypeError(f"a {role} is bytes, not str; encode it first: {role}.encode('utf-8')")
    try:
        return memoryview(value).tobytes()  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"a {role} is bytes-like, not {type(value).__name__}") from None
