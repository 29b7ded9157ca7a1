"""Fuzz targets of `codec`: varints, LZ4 blocks, the page envelope, ordered tuples.

Checksums of pages are mended after most mutations, so that what lies behind them is reached.

Thread safety: targets keep no state between executions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import ClassVar

from holdfast.base import CorruptionError
from holdfast.codec import (
    checksum,
    lz4_compress,
    pack_tuple,
    page_seed,
    seal_page,
    unpack_tuple,
)
from holdfast.codec.zstandard import zstd_compress
from holdfast.testing.fuzz_mutate import (
    interesting,
    mutate_number,
    mutate_often,
    put_varint,
)
from holdfast.testing.fuzz_oracle import Target, agree, attempt, require, twins

VARINTS = twins("codec._varint")
LZ4S = twins("codec._lz4")
ENVELOPES = twins("codec._envelope")
CHECKSUMS = twins("codec._checksum")

FILE_ID = bytes(range(16))
SAMPLE = b"".join(b"2026-11-%02d 20.%d;" % (day, day % 7) for day in range(1, 29))
"""A text as time series have them: it compresses well."""

_MEBIBYTE = 1 << 20


class VarintTarget:
    """Input: bytes; a varint is decoded at every offset of the first 32."""

    name: ClassVar[str] = "varint"
    traced: ClassVar[tuple[str, ...]] = ("codec._varint_py",)

    def seeds(self) -> Iterable[bytes]:
        for value in (0, 1, 127, 128, 300, 1 << 31, 1 << 56, (1 << 64) - 1):
            yield put_varint(value)
        yield b"\xff" * 9 + b"\x02"
        yield b"\x80" * 3 + b"\x00" + SAMPLE[:5]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        return mutate_often(rng, data, other)[:64]

    def run(self, data: bytes) -> Iterable[object]:
        features: set[object] = set()
        for offset in (*range(min(len(data), 32) + 2), -1, 1 << 70):
            outcome = agree(VARINTS, ValueError, "decode_varint", data, offset)
            features.add(outcome.feature)
            if not outcome.is_error:
                value, end = outcome.value
                features.add((end - offset, value.bit_length()))
                for module in VARINTS:
                    require(module.encode_varint(value) == data[offset:end], "encoded otherwise")
        return sorted(features, key=repr)

    def memory_max(self, data: bytes) -> int:
        return _MEBIBYTE


COMPARED_EVERY = 64
"""Of bodies that are longer than _COMPARED_BYTES_MAX one in so many is compressed by both twins."""

_COMPARED_BYTES_MAX = 2048


class Lz4Target:
    """Input: the u32 size of the body, then an LZ4 block."""

    name: ClassVar[str] = "lz4"
    traced: ClassVar[tuple[str, ...]] = ("codec._lz4_py",)

    def seeds(self) -> Iterable[bytes]:
        bodies = (b"", b"a", bytes(100), SAMPLE, SAMPLE[:13], bytes(range(256)), b"ab" * 400)
        for body in (*bodies, SAMPLE + bytes(70) + SAMPLE):
            yield len(body).to_bytes(4, "little") + lz4_compress(body)

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        size, block = int.from_bytes(data[:4], "little"), data[4:]
        if rng.random() < 0.85:
            block = mutate_often(rng, block, other[4:])[:4096]
        choice = rng.random()
        if choice < 0.2:
            size = mutate_number(rng, size, 32)
        elif choice < 0.8:
            # What the block would stand for if it were one, so that later sequences are reached.
            size = _lz4_size(block)
        return (size & 0xFFFFFFFF).to_bytes(4, "little") + block

    def run(self, data: bytes) -> Iterable[object]:
        size, block = int.from_bytes(data[:4], "little"), data[4:]
        outcome = agree(LZ4S, ValueError, "lz4_decompress", block, size)
        if outcome.is_error:
            return [outcome.feature, len(block).bit_length()]
        body = outcome.value
        require(len(body) == size, "another size than was asked for")
        # The plain twin takes milliseconds for what the compiled one does in microseconds.
        is_compared = size <= _COMPARED_BYTES_MAX or checksum(data) % COMPARED_EVERY == 0
        packed = agree(LZ4S if is_compared else LZ4S[:1], (), "lz4_compress", body)
        for module in LZ4S:
            require(module.lz4_decompress(packed.value, size) == body, "its own block is refused")
        return ["ok", size.bit_length(), len(block).bit_length()]

    def memory_max(self, data: bytes) -> int:
        return 255 * 6 * len(data) + 4 * _MEBIBYTE


def _lz4_size(block: bytes) -> int:
    """Return how many bytes the sequences of a block would make, whether or not they are right."""

    def length(nibble: int, at: int) -> tuple[int, int]:
        while nibble >= 15 and at < len(block):
            nibble += block[at]
            at += 1
            if block[at - 1] != 255:
                break
        return nibble, at

    total = at = 0
    while at < len(block):
        token = block[at]
        literals, at = length(token >> 4, at + 1)
        at += literals
        total += literals
        if at >= len(block):
            break
        match, at = length(token & 15, at + 2)
        total += match + 4
    return total


class PageTarget:
    """Input: a stored page that belongs to offset 4096 of a known file."""

    name: ClassVar[str] = "page"
    traced: ClassVar[tuple[str, ...]] = ("codec._envelope_py", "codec.zstandard")

    SEED: ClassVar[int] = page_seed(FILE_ID, 4096)

    def seeds(self) -> Iterable[bytes]:
        for compression in range(3):
            for body in (b"", SAMPLE[:40], SAMPLE, bytes(3000), bytes(range(256)) * 2):
                yield seal_page(body, compression + 1, compression, self.SEED)

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if len(data) < 16 or rng.random() < 0.05:
            return mutate_often(rng, data, other)[:8192]
        payload, trailer = data[:-16], bytearray(data[-16:])
        size = int.from_bytes(trailer[4:8], "little")
        choice = rng.randrange(8)
        if choice == 0:
            size = mutate_number(rng, size, 32)
        elif choice == 1:
            trailer[0] = rng.choice((0, 1, 2, 3, 16, 17, 18, 128, 255))
        elif choice == 2:
            trailer[rng.randrange(4)] ^= 1 << rng.randrange(8)
        elif choice == 3:
            body = rng.choice((SAMPLE, bytes(rng.randrange(1 << 17)), other[:300] * 3))
            trailer[0], compress = rng.choice(((1, lz4_compress), (2, zstd_compress)))
            payload = compress(body)
            size = len(body)
        else:
            payload = mutate_often(rng, payload, other)[:4096]
            if trailer[0] == 0 and rng.random() < 0.8:
                size = len(payload)
            elif trailer[0] == 1 and rng.random() < 0.8:
                size = _lz4_size(payload)
        trailer[4:8] = (size & 0xFFFFFFFF).to_bytes(4, "little")
        page = payload + bytes(trailer)
        if rng.random() < 0.95:
            page = page[:-8] + checksum(page[:-8], self.SEED).to_bytes(8, "little")
        return page

    def run(self, data: bytes) -> Iterable[object]:
        agree(CHECKSUMS, (), "checksum", data, self.SEED)
        outcome = agree(ENVELOPES, CorruptionError, "open_page", data, self.SEED, "f", 4096)
        compression = data[-16] if len(data) >= 16 else -1
        if outcome.is_error:
            return [(outcome.feature, compression)]
        page_type, body = outcome.value
        for module in ENVELOPES:
            if compression == 0:
                again = module.seal_page(body, page_type, 0, self.SEED)
                require(again == data, "sealed otherwise")
            # Another compressor may have made the payload: then the body comes back, not the bytes.
            again = module.seal_page(body, page_type, compression, self.SEED)
            opened = module.open_page(again, self.SEED, "f", 4096)
            require(opened == (page_type, body), "its own page is another")
        return [("ok", compression, len(body).bit_length())]

    def memory_max(self, data: bytes) -> int:
        # What a Zstandard frame really expands to is bounded by the format: docs/format/page.md.
        ratio = 32768 if len(data) >= 16 and data[-16] == 2 else 255
        return 6 * ratio * len(data) + 4 * _MEBIBYTE


class TupleTarget:
    """Input: a packed tuple."""

    name: ClassVar[str] = "tuple"
    traced: ClassVar[tuple[str, ...]] = ("codec.ordered",)

    _REFERENCES: ClassVar[tuple[tuple[object, ...], ...]] = (
        (), (None,), (b"",), (b"\x00\x01",), ("",), ("m", 5), (-(1 << 90),), (-300,), (-1,), (0,),
        (1,), (255, "x"), (1 << 64,), (-math.inf,), (-0.0,), (0.0,), (2.5, None), (math.inf,),
        (False,), (True,),
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        for items in self._REFERENCES:
            yield pack_tuple(items)  # type: ignore[arg-type]
        yield pack_tuple(("temperature", -3, 20.5, None, b"\x00\x01\xff", True, math.nan))
        yield pack_tuple((1 << 2039, -(1 << 2039), "\u20ac\x00"))

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if rng.random() < 0.2:
            number = interesting(rng) * rng.choice((1, -1)) << rng.choice((0, 0, 64, 1900))
            piece = pack_tuple([rng.choice((number, float(number % 997), other[:9], other.hex()))])
            at = rng.randrange(len(data) + 1)
            return (data[:at] + piece + data[at:])[:4096]
        return mutate_often(rng, data, other)[:4096]

    def run(self, data: bytes) -> Iterable[object]:
        outcome = attempt(ValueError, unpack_tuple, data)
        if outcome.is_error:
            return [outcome.feature[:40]]
        items = outcome.value
        require(pack_tuple(items) == data, "packed otherwise")
        require(unpack_tuple(memoryview(data)) is not None, "a view is refused")
        for reference in self._REFERENCES:
            packed = pack_tuple(reference)  # type: ignore[arg-type]
            before = _order(items) < _order(reference)
            require((data < packed) == before, f"sorted otherwise than {reference!r}")
        return [tuple(type(item).__name__ for item in items[:3])]

    def memory_max(self, data: bytes) -> int:
        return 200 * len(data) + _MEBIBYTE


def _order(items: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Return what compares as docs/format/tuple.md says that tuples do."""
    ranks = {"NoneType": 0, "bytes": 1, "str": 2, "int": 3, "float": 4, "bool": 5}
    result: list[tuple[object, ...]] = []
    for item in items:
        rank = ranks[type(item).__name__]
        if item is None:
            result.append((rank,))
        elif isinstance(item, float):
            is_nan = math.isnan(item)
            result.append((rank, is_nan, 0.0 if is_nan else item, math.copysign(1.0, item)))
        else:
            result.append((rank, item))
    return result


TARGETS: tuple[Target, ...] = (VarintTarget(), Lz4Target(), PageTarget(), TupleTarget())
