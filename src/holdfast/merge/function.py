"""What a merge function is, and the built-in ones.

Part of the file format: the numbers of the built-in functions, the text of numbers, and the bytes
of sets. Numbers are decimal, in ASCII, as `b"%d" % number` writes them, and have no upper bound
that sums would overflow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from holdfast.base import LimitError, check_value
from holdfast.merge.members import pack_set, unpack_set

OPERAND_DIGITS_MAX = 1000
NUMBER_BYTES_MAX = 4000
"""Numbers that are stored may be longer than operands, which thus can be added for ever."""
_CHARACTERS = b"+-0123456789"
_OPERAND_ABOVE = 10**OPERAND_DIGITS_MAX
_SHOWN_BYTES = 32


@dataclass(frozen=True, slots=True)
class MergeFunction:
    """How operands of a key become its value.

    A function must be pure: the same result for the same arguments, in whatever thread, and no use
    of the database. It may be called for a read, a flush or a compaction, or not at all. When it
    raises, reads of the key raise MergeError, and its operands stay as they are.
    """

    apply: Callable[[bytes | None, Sequence[bytes]], bytes]
    """Return the value after operands, the oldest first; the value before is None for an absent
    key.
    """
    combine: Callable[[Sequence[bytes]], bytes] | None = None
    """Return one operand that does what these do one after the other, the oldest first. With None
    all are kept until the value before them is known.
    """
    encode: Callable[[object], bytes] = check_value
    """Return the bytes of an operand as users give it. Raises: TypeError, LimitError."""


def number_from(data: bytes) -> int:
    """Return a stored number. Raises: ValueError for anything else."""
    digits = data[1:] if data[:1] in (b"-", b"+") else data
    if len(data) > NUMBER_BYTES_MAX or not digits.isdigit():
        shown = data if len(data) <= _SHOWN_BYTES else data[:_SHOWN_BYTES] + b"..."
        raise ValueError(f"{shown!r} is not a decimal integer of at most {NUMBER_BYTES_MAX} bytes")
    return int(data)


def numbers_from(operands: Sequence[bytes]) -> list[int]:
    """Return stored numbers, of which there may be very many. Raises: as `number_from`."""
    # What `int` takes beyond these characters is no number here; what it refuses is none either.
    if max(map(len, operands), default=0) <= NUMBER_BYTES_MAX and not b"".join(operands).translate(
        None, _CHARACTERS
    ):
        with contextlib.suppress(ValueError):
            return list(map(int, operands))
    return [number_from(each) for each in operands]


def _encode_number(operand: object) -> bytes:
    if not isinstance(operand, int) or isinstance(operand, bool):
        raise TypeError(f"the operand is an int, not {type(operand).__name__}")
    if not -_OPERAND_ABOVE < operand < _OPERAND_ABOVE:
        raise LimitError(f"the operand has more than {OPERAND_DIGITS_MAX} digits")
    return b"%d" % operand


def _of_numbers(choose: Callable[[list[int]], int]) -> MergeFunction:
    """Return the function of numbers that makes one of several."""

    def combine(operands: Sequence[bytes]) -> bytes:
        text = b"%d" % choose(numbers_from(operands))
        if len(text) > NUMBER_BYTES_MAX:
            raise ValueError(f"the number would have more than {NUMBER_BYTES_MAX} bytes")
        return text

    def apply(value: bytes | None, operands: Sequence[bytes]) -> bytes:
        return combine(operands if value is None else [value, *operands])

    return MergeFunction(apply, combine, _encode_number)


def _append(value: bytes | None, operands: Sequence[bytes]) -> bytes:
    return b"".join(operands if value is None else [value, *operands])


def _unite(operands: Sequence[bytes]) -> bytes:
    return pack_set(frozenset[bytes]().union(*(unpack_set(each) for each in operands)))


def _encode_set(operand: object) -> bytes:
    return pack_set(cast("Sequence[object]", operand))


BUILT_IN: tuple[tuple[int, str, MergeFunction], ...] = (
    (1, "add", _of_numbers(sum)),
    (2, "max", _of_numbers(max)),
    (3, "min", _of_numbers(min)),
    (4, "append", MergeFunction(_append, b"".join)),
    (
        5,
        "union",
        MergeFunction(
            lambda value, operands: _unite(operands if value is None else [value, *operands]),
            _unite,
            _encode_set,
        ),
    ),
)
"""Number, name and function. Part of the file format: the numbers."""
