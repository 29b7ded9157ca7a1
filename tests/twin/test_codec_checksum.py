"""Both twins of `holdfast.codec._checksum` compute XXH64 as published."""

from __future__ import annotations

from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from holdfast.codec import _checksum_c, _checksum_py

TWINS = [pytest.param(_checksum_c, id="c"), pytest.param(_checksum_py, id="py")]
PRIME32 = 2654435761
PRIME64 = 11400714785074694797


def sanity_bytes(count: int) -> bytes:
    """The pseudo-random buffer of xxHash's own sanity check."""
    generator = PRIME32
    out = bytearray()
    for _ in range(count):
        out.append(generator >> 56)
        generator = generator * PRIME64 % 2**64
    return bytes(out)


# (length of the sanity buffer, seed, result), published with xxHash in its sanity check.
VECTORS = [
    (0, 0, 0xEF46DB3751D8E999),
    (0, PRIME32, 0xAC75FDA2929B17EF),
    (1, 0, 0xE934A84ADB052768),
    (1, PRIME32, 0x5014607643A9B4C3),
    (4, 0, 0x9136A0DCA57457EE),
    (14, 0, 0x8282DCC4994E35C8),
    (14, PRIME32, 0xC3BD6BF63DEB6DF0),
    (222, 0, 0xB641AE8CB691C174),
    (222, PRIME32, 0x20CB8AB7AE10C14A),
]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("size", "seed", "expected"), VECTORS)
def test_published_vectors_hold(twin: Any, size: int, seed: int, expected: int) -> None:
    assert twin.checksum(sanity_bytes(size), seed) == expected


@pytest.mark.parametrize("twin", TWINS)
def test_known_words_hash_as_everywhere(twin: Any) -> None:
    assert twin.checksum(b"") == 0xEF46DB3751D8E999
    assert twin.checksum(b"a") == 0xD24EC4F1A98C6E5B
    assert twin.checksum(b"abc") == 0x44BC2CF5AD770999


@pytest.mark.parametrize("twin", TWINS)
def test_every_length_up_to_200_agrees_with_the_library(twin: Any) -> None:
    data = bytes(range(256))
    for size in range(200):
        for offset in (0, 1, 3):
            piece = memoryview(data)[offset : offset + size]
            assert twin.checksum(piece, size) == xxhash.xxh64_intdigest(bytes(piece), size)


@pytest.mark.parametrize("twin", TWINS)
@given(data=st.binary(max_size=400), seed=st.integers(0, 2**64 - 1))
def test_any_data_agrees_with_the_library(twin: Any, data: bytes, seed: int) -> None:
    assert twin.checksum(data, seed) == xxhash.xxh64_intdigest(data, seed)


@pytest.mark.parametrize("twin", TWINS)
def test_large_data_agrees_with_the_library(twin: Any) -> None:
    # Longer than the size from which the compiled twin gives up the GIL.
    data = bytes(range(251)) * 1200
    assert twin.checksum(data, 7) == xxhash.xxh64_intdigest(data, 7)
    assert twin.checksum(bytearray(data), 7) == xxhash.xxh64_intdigest(data, 7)


@pytest.mark.parametrize("twin", TWINS)
def test_any_contiguous_buffer_is_accepted(twin: Any) -> None:
    words = memoryview(bytes(range(64))).cast("I")
    expected = twin.checksum(bytes(range(64)))
    assert twin.checksum(words) == expected
    assert twin.checksum(bytearray(range(64))) == expected
    assert twin.checksum(data=bytes(range(64)), seed=0) == expected


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("data", ["text", 5, None, [1, 2]])
def test_what_is_not_bytes_like_is_a_type_error(twin: Any, data: object) -> None:
    with pytest.raises(TypeError):
        twin.checksum(data)


@pytest.mark.parametrize("twin", TWINS)
def test_a_strided_view_is_a_buffer_error(twin: Any) -> None:
    with pytest.raises(BufferError):
        twin.checksum(memoryview(b"abcdef")[::2])


@pytest.mark.parametrize("twin", TWINS)
def test_a_seed_out_of_range_is_an_error(twin: Any) -> None:
    for seed in (-1, 2**64):
        with pytest.raises(OverflowError):
            twin.checksum(b"", seed)
    for seed in (1.5, "1", None):
        with pytest.raises(TypeError):
            twin.checksum(b"", seed)
