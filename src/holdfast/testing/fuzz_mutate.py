"""Mutators: small random changes of numbers, byte strings and lists.

They know what breaks decoders: lengths off by one, zero and huge; values around every power of two
that a field or a limit has; varints that are cut, too long or not minimal; pieces that are moved,
repeated, cut off or taken from another input. The targets of `fuzz` apply them to the parts of
their formats.

Thread safety: pure but for the generator that is passed in, from which everything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from holdfast.codec import encode_varint

Item = TypeVar("Item")

U64_MAX = (1 << 64) - 1
GROWTH_BYTES_MAX = 1 << 16
"""An input that has grown beyond this is cut back, so that a run keeps its pace."""

_POWERS = (3, 4, 6, 7, 8, 12, 14, 15, 16, 24, 30, 31, 32, 48, 53, 56, 62, 63, 64)
INTERESTING = tuple(
    sorted(
        {0, 1, 2, 3, 5, 10, 15, 80, 127, 255 * 15, 4096 - 80, (1 << 31) - (1 << 20)}
        | {(1 << power) + step for power in _POWERS for step in (-1, 0, 1)}
    )
)
"""Values at which fields, limits and products of them turn over."""

_WORDS = (
    b"\x00", b"\xff", b"\x80", b"\x7f", b"\x00" * 8, b"\xff" * 8, b"\xff" * 9 + b"\x01",
    b"\xff" * 9 + b"\x7f", b"\x80" * 9 + b"\x01", b"\x80\x00", b"\x80" * 10, b"\x00" * 64,
)  # fmt: skip


def interesting(rng: Random, bits: int = 64) -> int:
    """Return a value of at most `bits` bits at which something may turn over."""
    return rng.choice(INTERESTING) & ((1 << bits) - 1)


def mutate_number(rng: Random, value: int, bits: int = 64) -> int:
    """Return another value of at most `bits` bits."""
    mask = (1 << bits) - 1
    choice = rng.randrange(9)
    if choice == 0:
        return interesting(rng, bits)
    if choice == 1:
        return value ^ 1 << rng.randrange(bits)
    if choice == 2:
        return rng.getrandbits(bits)
    if choice == 3:
        return mask - value & mask
    step = (1, -1, 2, -2, 1 << rng.randrange(bits))[choice - 4]
    return (value + step) & mask


def mutate_varint(rng: Random, value: int) -> int | bytes:
    """Return another value, or bytes that are no proper varint."""
    if rng.random() < 0.85:
        return mutate_number(rng, value)
    proper = encode_varint(value)
    longer = proper[:-1] + bytes([proper[-1] | 0x80])
    return rng.choice(
        (longer + b"\x00", longer, longer + b"\x80" * 9 + b"\x01", b"\xff" * 10, b"\xff" * 9, b"")
    )


def put_varint(value: int | bytes) -> bytes:
    """Return a number as a varint, and bytes as they are."""
    return encode_varint(value) if isinstance(value, int) else value


def mutate_bytes(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return `data` with one change; `other` is where pieces come from."""
    mutate = rng.choice(_BYTE_MUTATORS)
    return mutate(rng, data, other)[:GROWTH_BYTES_MAX]


def mutate_often(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return `data` with one to eight changes, most often few."""
    for _ in range(1 << min(rng.getrandbits(2), rng.getrandbits(2))):
        data = mutate_bytes(rng, data, other)
    return data


def mutate_list(rng: Random, items: Sequence[Item]) -> list[Item]:
    """Return the items in another order or number: swapped, repeated, dropped, turned round."""
    if not items:
        return []
    one, two = rng.randrange(len(items)), rng.randrange(len(items))
    choice = rng.randrange(7)
    result = list(items)
    if choice == 0:
        result[one], result[two] = result[two], result[one]
    elif choice == 1:
        result.insert(two, result[one])
    elif choice == 2:
        result[one : one + 1] = [result[one]] * rng.choice((2, 3, 17))
    elif choice == 3:
        del result[one]
    elif choice == 4:
        low, high = sorted((one, two))
        result[low : high + 1] = result[low : high + 1][::-1]
    elif choice == 5:
        del result[min(one, two) : max(one, two)]
    else:
        result[two] = result[one]
    return result


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    """Return (start, end) of a piece of `data`, most often a short one."""
    start = rng.randrange(len(data) + 1)
    size = rng.choice((1, 2, 4, 8, 16, rng.randrange(len(data) + 1)))
    return start, min(len(data), start + size)


def _flip_bit(rng: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return b"\x00"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set_byte(rng: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return b"\xff"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(changed)


def _step_byte(rng: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return b"\x01"
    changed = bytearray(data)
    at = rng.randrange(len(data))
    changed[at] = (changed[at] + rng.choice((1, -1, 2, -2, 16, -16))) & 0xFF
    return bytes(changed)


def _set_fixed(rng: Random, data: bytes, other: bytes) -> bytes:
    """Overwrite a little-endian field, aligned or not, with a number or a neighbour of its own."""
    width = rng.choice((2, 4, 8))
    if len(data) < width:
        return data + interesting(rng, 8 * width).to_bytes(width, "little")
    at = rng.randrange(len(data) - width + 1)
    if rng.random() < 0.5:
        at -= at % width
    old = int.from_bytes(data[at : at + width], "little")
    new = mutate_number(rng, old, 8 * width)
    return data[:at] + new.to_bytes(width, "little") + data[at + width :]


def _set_varint(rng: Random, data: bytes, other: bytes) -> bytes:
    """Replace one byte, which may be a varint, by another varint."""
    at = rng.randrange(len(data) + 1)
    old = data[at] if at < len(data) else 0
    return data[:at] + put_varint(mutate_varint(rng, old)) + data[at + 1 :]


def _insert(rng: Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((*_WORDS, rng.randbytes(rng.randrange(1, 9)))) + data[at:]


def _overwrite(rng: Random, data: bytes, other: bytes) -> bytes:
    word = rng.choice(_WORDS)
    at = rng.randrange(len(data) + 1)
    return data[:at] + word + data[at + len(word) :]


def _drop(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _repeat(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 2, 20)) + data[end:]


def _move(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(rng, data)
    rest = data[:start] + data[end:]
    at = rng.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


def _copy_over(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(rng, data)
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[start:end] + data[at + end - start :]


def _truncate(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _extend(rng: Random, data: bytes, other: bytes) -> bytes:
    return data + rng.choice((bytes(rng.randrange(1, 300)), rng.randbytes(rng.randrange(1, 40))))


def _splice(rng: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(rng, other)
    at = rng.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at + rng.choice((0, end - start)) :]


def _join(rng: Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_BYTE_MUTATORS = (
    _flip_bit, _flip_bit, _set_byte, _step_byte, _set_fixed, _set_fixed, _set_varint, _set_varint,
    _insert, _overwrite, _drop, _repeat, _move, _copy_over, _truncate, _extend, _splice, _join,
)  # fmt: skip
