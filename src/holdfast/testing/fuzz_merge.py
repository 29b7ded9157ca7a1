"""Fuzz target for the operands of merge functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import ClassVar

from holdfast.base import MergeError
from holdfast.codec import decode_varint, encode_varint
from holdfast.merge import Merges, pack_set, split, unpack_set
from holdfast.testing.fuzz_mutate import interesting, mutate_list, mutate_often
from holdfast.testing.fuzz_oracle import Target, attempt, require

_MEBIBYTE = 1 << 20
_MERGES = Merges({"tag": lambda value, operands: b"/".join([value or b"", *operands])})
_KEY = b"key"
_BASES = (None, b"", b"7", b"-12", b"\x01a\x02bb")
_INPUT_BYTES_MAX = 1 << 14


class OperandTarget:
    """Input: values of MERGE entries, the newest first, each behind its size."""

    name: ClassVar[str] = "operand"
    traced: ClassVar[tuple[str, ...]] = ("merge.function", "merge.members", "merge.registry")

    _OPERANDS: ClassVar[tuple[tuple[str, object], ...]] = (
        ("add", 1), ("add", -(10**30)), ("max", 5), ("max", 50), ("min", -1), ("append", b"0"),
        ("append", b""), ("union", ()), ("union", (b"a", b"b")), ("union", (b"", b"bb")),
        ("tag", b"1"), ("tag", b""),
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        entries = [_MERGES.value_of(*each) for each in self._OPERANDS]
        for entry in entries:
            yield _joined([entry])
        for at in range(len(entries) - 1):
            yield _joined([entries[at], entries[at], entries[at + 1]])
        yield _joined([b"\x00\x03who?", b"\x06", b""])

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        entries = _entries(data)
        choice = rng.random()
        if choice < 0.3:
            return _joined(mutate_list(rng, [*entries, *_entries(other)][:12]))
        if choice < 0.5 and entries:
            number = interesting(rng) * rng.choice((1, -1)) << rng.choice((0, 0, 3000, 13_000))
            text = b"%x" % number if number.bit_length() > 8000 else b"%d" % number
            entries[rng.randrange(len(entries))] = bytes([rng.randrange(1, 4)]) + text
        elif choice < 0.9 and entries:
            at = rng.randrange(len(entries))
            entries[at] = mutate_often(rng, entries[at], other)
        else:
            return mutate_often(rng, data, other)[:_INPUT_BYTES_MAX]
        return _joined(entries)[:_INPUT_BYTES_MAX]

    def run(self, data: bytes) -> Iterable[object]:
        entries = _entries(data)
        names = [attempt(MergeError, split, _KEY, entry) for entry in entries]
        for entry, found in zip(entries, names, strict=True):
            if not found.is_error:
                name, operand = found.value
                require(entry.endswith(operand), "an operand is not the end of its entry")
                if name == "union":
                    _check_set(operand)
        if not entries:
            return ["nothing"]
        features: list[object] = [
            name.feature if name.is_error else name.value[0] for name in names
        ]
        combined = attempt(MergeError, _MERGES.combine, _KEY, entries)
        for base in _BASES:
            folded = attempt(MergeError, _MERGES.fold, _KEY, base, entries)
            features.append(folded.feature[:40])
            if combined.is_error:
                require(folded.is_error, "what cannot be combined can be folded")
                continue
            fewer = [entry for _, entry in combined.value]
            require(len(fewer) <= len(entries), "combined into more")
            again = attempt(MergeError, _MERGES.fold, _KEY, base, fewer)
            require(again.is_error == folded.is_error, "combined operands fail otherwise")
            require(again.value == folded.value, "combined operands give another value")
        return features

    def memory_max(self, data: bytes) -> int:
        return 600 * len(data) + 4 * _MEBIBYTE


def _check_set(operand: bytes) -> None:
    members = attempt(ValueError, unpack_set, operand)
    if not members.is_error:
        require(pack_set(members.value) == operand, "a set is packed otherwise")


def _entries(data: bytes) -> list[bytes]:
    """Return the entries of an input; what is no size ends them."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        try:
            size, at = decode_varint(data, at)
        except ValueError:
            break
        entries.append(data[at : at + size])
        at += size
    return entries


def _joined(entries: Sequence[bytes]) -> bytes:
    return b"".join(encode_varint(len(entry)) + entry for entry in entries)


TARGETS: tuple[Target, ...] = (OperandTarget(),)
