"""Both twins of `holdfast.codec._lz4` write the same blocks, read all valid ones and refuse all
others.
"""

from __future__ import annotations

import mmap
import random
from typing import Any

import lz4.block
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.codec import _lz4_c, _lz4_py

TWINS = [pytest.param(_lz4_c, id="c"), pytest.param(_lz4_py, id="py")]


@st.composite
def repetitive(draw: st.DrawFn) -> bytes:
    """Bytes with matches of many lengths and distances: pieces that are new, or copied from before,
    or repeated.
    """
    out = bytearray()
    for _ in range(draw(st.integers(0, 12))):
        choice = draw(st.integers(0, 3))
        if choice == 0 or not out:
            out += draw(st.binary(max_size=40))
        elif choice == 1:
            start = draw(st.integers(0, len(out) - 1))
            out += out[start : start + draw(st.integers(1, 300))]
        elif choice == 2:
            out += draw(st.binary(min_size=1, max_size=20)) * draw(st.integers(1, 60))
        else:
            out += random.Random(draw(st.integers(0, 99))).randbytes(draw(st.integers(1, 600)))
    return bytes(out)


def telemetry(size: int) -> bytes:
    source = random.Random(5)
    out = bytearray()
    while len(out) < size:
        out += b'{"at":%d,"room":%d,"celsius":%.2f}\n' % (
            1700000000 + len(out),
            source.randrange(9),
            source.gauss(20, 2),
        )
    return bytes(out[:size])


SAMPLES = {
    "empty": b"",
    "one": b"a",
    "twelve": b"a" * 12,
    "thirteen": b"a" * 13,
    "zeros": bytes(16384),
    "periods": b"".join(bytes(range(width)) * (300 // width + 2) for width in range(1, 40)),
    "noise": random.Random(1).randbytes(16384),
    "telemetry": telemetry(16384),
    "long": telemetry(300_000),
    "far": random.Random(2).randbytes(65536) * 2,
    "nearly far": random.Random(2).randbytes(65535) * 2,
    # The last match begins at the last place where one may, two bytes behind the one before.
    "match at the last place": b"abaabaaaaaaababaabb",
    "token boundaries": b"".join(
        random.Random(n).randbytes(n) + b"=" * n for n in (14, 15, 16, 269, 270, 271, 524, 525)
    ),
}


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES.keys())
def test_samples_round_trip_with_ourselves_and_the_library(twin: Any, data: bytes) -> None:
    block = twin.lz4_compress(data)
    assert twin.lz4_decompress(block, len(data)) == data
    assert lz4.block.decompress(block, uncompressed_size=len(data)) == data
    theirs = lz4.block.compress(data, store_size=False)
    assert twin.lz4_decompress(theirs, len(data)) == data


@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES.keys())
def test_the_twins_write_identical_blocks(data: bytes) -> None:
    assert _lz4_c.lz4_compress(data) == _lz4_py.lz4_compress(data)


@settings(max_examples=300, deadline=None)
@given(data=repetitive())
def test_the_twins_agree_on_any_data(data: bytes) -> None:
    block = _lz4_c.lz4_compress(data)
    assert block == _lz4_py.lz4_compress(data)
    assert _lz4_c.lz4_decompress(block, len(data)) == data
    assert _lz4_py.lz4_decompress(block, len(data)) == data
    assert lz4.block.decompress(block, uncompressed_size=len(data)) == data
    best = lz4.block.compress(data, store_size=False, mode="high_compression")
    assert _lz4_c.lz4_decompress(best, len(data)) == data
    assert _lz4_py.lz4_decompress(best, len(data)) == data


def outcome(twin: Any, block: bytes, size: int) -> bytes | str:
    try:
        return bytes(twin.lz4_decompress(block, size))
    except ValueError as error:
        return str(error)


def check_hostile(block: bytes, size: int) -> None:
    ours = outcome(_lz4_c, block, size)
    assert ours == outcome(_lz4_py, block, size)
    if isinstance(ours, bytes):
        assert len(ours) == size
        assert lz4.block.decompress(block, uncompressed_size=size) == ours


@settings(max_examples=500, deadline=None)
@given(block=st.binary(max_size=60), size=st.integers(0, 400))
def test_the_twins_agree_on_noise(block: bytes, size: int) -> None:
    check_hostile(block, size)


@settings(max_examples=500, deadline=None)
@given(data=repetitive(), change=st.data())
def test_the_twins_agree_on_damaged_blocks(data: bytes, change: st.DataObject) -> None:
    block = bytearray(_lz4_c.lz4_compress(data))
    for _ in range(change.draw(st.integers(1, 3))):
        block[change.draw(st.integers(0, len(block) - 1))] = change.draw(st.integers(0, 255))
    end = change.draw(st.integers(0, len(block)))
    check_hostile(bytes(block), len(data))
    check_hostile(bytes(block[:end]), len(data))


@pytest.mark.parametrize("twin", TWINS)
def test_every_wrong_size_is_refused(twin: Any) -> None:
    data = telemetry(200)
    block = twin.lz4_compress(data)
    for size in range(400):
        if size != len(data):
            with pytest.raises(ValueError):
                twin.lz4_decompress(block, size)


@pytest.mark.parametrize("twin", TWINS)
def test_every_cut_block_is_refused(twin: Any) -> None:
    data = telemetry(500)
    block = twin.lz4_compress(data)
    for end in range(len(block)):
        with pytest.raises(ValueError):
            twin.lz4_decompress(block[:end], len(data))
    with pytest.raises(ValueError):
        twin.lz4_decompress(block + b"\x00", len(data))


MALFORMED = {
    "nothing": (b"", 0),
    "length cut": (b"\xf0", 20),
    "literals cut": (b"\x50abc", 5),
    "distance cut": (b"\x40abcd\x01", 20),
    "distance zero": (b"\x40abcd\x00\x00\x50abcde", 13),
    "distance beyond the start": (b"\x40abcd\x05\x00\x50abcde", 13),
    "distance zero, with room behind": (b"\x40abcd\x00\x00\x80abcdefgh", 16),
    "distance beyond the start, with room behind": (b"\x40abcd\x05\x00\x80abcdefgh", 16),
    "match length cut": (b"\x4fabcd\x01\x00\xff\xff", 600),
    "match to the end": (b"\x1fa\x01\x00\x01", 20),
    "match into the last five": (b"\x1fa\x01\x00\x00\x40abcd", 24),
    "match starts in the last twelve": (b"\x40abcd\x04\x00\x50abcde", 13 + 2),
    "match code in the last token": (b"\x51abcde", 5),
    "match code in an empty block": (b"\x01", 0),
    "ends with a match": (b"\x40abcd\x04\x00", 8),
    "sequence follows the end": (b"\x10a\x10b", 1),
    "huge literal length": (b"\xf0" + b"\xff" * 1000 + b"\x00", 1000),
}


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("block", "size"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_blocks_are_refused(twin: Any, block: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="malformed LZ4 block"):
        twin.lz4_decompress(block, size)


@pytest.mark.parametrize("twin", TWINS)
def test_an_impossible_size_is_refused_before_memory_is_asked_for(twin: Any) -> None:
    for size in (-1, 2**31, 2**64, 2**200, 256 * 4 + 1):
        with pytest.raises(ValueError, match="malformed LZ4 block"):
            twin.lz4_decompress(b"\x1fa\x01\x00", size)


@pytest.mark.parametrize("twin", TWINS)
def test_data_beyond_the_limit_is_refused(twin: Any) -> None:
    with mmap.mmap(-1, 2**31) as large:
        with pytest.raises(ValueError, match="longer than an LZ4 block can be"):
            twin.lz4_compress(large)
        with pytest.raises(ValueError, match="longer than an LZ4 block can be"):
            twin.lz4_decompress(large, 10)


@pytest.mark.parametrize("twin", TWINS)
def test_any_contiguous_buffer_is_accepted(twin: Any) -> None:
    data = telemetry(1024)
    block = twin.lz4_compress(data)
    assert twin.lz4_compress(bytearray(data)) == block
    assert twin.lz4_compress(memoryview(data).cast("I")) == block
    assert twin.lz4_decompress(bytearray(block), 1024) == data
    assert type(twin.lz4_decompress(memoryview(block), 1024)) is bytes
    assert twin.lz4_decompress(data=block, size=1024) == data
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            twin.lz4_compress(wrong)
        with pytest.raises(TypeError):
            twin.lz4_decompress(wrong, 5)
    with pytest.raises(TypeError):
        twin.lz4_decompress(block, "5")
    with pytest.raises(BufferError):
        twin.lz4_compress(memoryview(data)[::2])
    with pytest.raises(BufferError):
        twin.lz4_decompress(memoryview(block)[::2], 5)


@pytest.mark.parametrize("twin", TWINS)
def test_noise_grows_by_little(twin: Any) -> None:
    data = random.Random(3).randbytes(100_000)
    assert len(twin.lz4_compress(data)) <= len(data) + len(data) // 255 + 16


@pytest.mark.parametrize("twin", TWINS)
def test_no_match_starts_in_the_last_twelve_bytes(twin: Any) -> None:
    """The rule of the format, at its boundary: eight literals, a match, the last literals."""

    def block(literals_last: int) -> bytes:
        return b"\x80abcdefgh\x04\x00" + bytes([literals_last << 4]) + bytes(literals_last)

    assert twin.lz4_decompress(block(8), 20) == b"abcdefghefgh" + bytes(8)
    for literals_last in (5, 6, 7):
        with pytest.raises(ValueError):
            twin.lz4_decompress(block(literals_last), 12 + literals_last)
