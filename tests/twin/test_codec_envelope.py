"""Both twins of `holdfast.codec._envelope` seal the same pages and refuse the same damage."""

from __future__ import annotations

import mmap
import random
import struct
from typing import Any

import pytest
import xxhash
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import CorruptionError, LimitError
from holdfast.codec import Compression, _envelope_c, _envelope_py, lz4_compress

TWINS = [pytest.param(_envelope_c, id="c"), pytest.param(_envelope_py, id="py")]
FILE_ID = bytes(range(16))
SEED = 0x1234567890ABCDEF
TEXT = b"".join(
    b"room %02d: %d.%d degrees\n" % (n % 20, 20 + n % 3, n * 7 % 10) for n in range(1000)
)

BODIES = {
    "empty": b"",
    "one byte": b"x",
    "small": b"a body",
    "text": TEXT[:16384],
    "noise": random.Random(1).randbytes(16384),
    "zeros": bytes(16384),
    "long": TEXT * 15,
    "long noise": random.Random(2).randbytes(300_000),
    "half noise": random.Random(3).randbytes(4096) + bytes(4096),
}


def page(
    payload: bytes, compression: int, body_size: int, *, zero: int = 0, seed: int = SEED
) -> bytes:
    """A stored page with a good checksum over whatever it is told to say."""
    sealed = payload + struct.pack("<BBHI", compression, 7, zero, body_size)
    return sealed + struct.pack("<Q", xxhash.xxh64_intdigest(sealed, seed))


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_sealed_page_opens_to_its_body(twin: Any, compression: Compression, body: bytes) -> None:
    stored = twin.seal_page(body, 3, compression, SEED)
    assert twin.open_page(stored, SEED, "f", 0) == (3, body)
    assert stored == twin.seal_page(body, 3, compression, SEED)
    assert len(stored) <= len(body) + 16


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_the_twins_seal_identical_pages(compression: Compression, body: bytes) -> None:
    sealed = _envelope_c.seal_page(body, 200, compression, 2**64 - 1)
    assert sealed == _envelope_py.seal_page(body, 200, compression, 2**64 - 1)


@settings(max_examples=200, deadline=None)
@given(
    body=st.one_of(
        st.binary(max_size=300), st.builds(bytes.__mul__, st.binary(max_size=9), st.integers(0, 90))
    ),
    page_type=st.integers(0, 255),
    compression=st.sampled_from(Compression),
    seed=st.integers(0, 2**64 - 1),
)
def test_the_twins_agree_on_any_page(
    body: bytes, page_type: int, compression: Compression, seed: int
) -> None:
    sealed = _envelope_c.seal_page(body, page_type, compression, seed)
    assert sealed == _envelope_py.seal_page(body, page_type, compression, seed)
    assert _envelope_c.open_page(sealed, seed, "f", 0) == (page_type, body)
    assert _envelope_py.open_page(sealed, seed, "f", 0) == (page_type, body)


@pytest.mark.parametrize("twin", TWINS)
def test_the_seed_is_the_hash_of_the_place(twin: Any) -> None:
    expected = xxhash.xxh64_intdigest(FILE_ID + struct.pack("<Q", 4096), 0)
    assert twin.page_seed(FILE_ID, 4096) == expected
    assert twin.page_seed(FILE_ID, 2**64 - 1) == xxhash.xxh64_intdigest(FILE_ID + b"\xff" * 8, 0)
    for wrong in (b"", FILE_ID[:15], FILE_ID + b"x"):
        with pytest.raises(ValueError):
            twin.page_seed(wrong, 0)
    for offset in (-1, 2**64):
        with pytest.raises(OverflowError):
            twin.page_seed(FILE_ID, offset)
    with pytest.raises(TypeError):
        twin.page_seed(bytearray(FILE_ID), 0)


@pytest.mark.parametrize("twin", TWINS)
def test_a_page_from_another_place_is_refused(twin: Any) -> None:
    stored = twin.seal_page(TEXT, 1, Compression.LZ4, twin.page_seed(FILE_ID, 4096))
    for file_id, offset in ((FILE_ID, 8192), (FILE_ID[::-1], 4096)):
        with pytest.raises(CorruptionError, match="checksum"):
            twin.open_page(stored, twin.page_seed(file_id, offset), "f", offset)


@pytest.mark.parametrize("twin", TWINS)
def test_compression_must_save_a_sixteenth(twin: Any) -> None:
    # 240 zeros behind n bytes of noise: the payload of one codec grows by about one byte with n.
    for compression in (Compression.LZ4, Compression.ZSTD):
        used = set()
        for count in range(3000, 5000, 20):
            body = random.Random(count).randbytes(count) + bytes(240)
            stored = twin.seal_page(body, 1, compression, SEED)
            used.add(stored[-16])
            payload_size = len(stored) - 16
            if stored[-16] == compression:
                assert (len(body) - payload_size) * 16 >= len(body)
            else:
                assert stored[:-16] == body
        assert used == {0, compression}


def test_the_twins_agree_at_the_sixteenth() -> None:
    for count in range(200):
        body = bytes(random.Random(count).randbytes(count) + bytes(13 + count // 15))
        assert _envelope_c.seal_page(body, 1, 1, 0) == _envelope_py.seal_page(body, 1, 1, 0)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("compression", Compression)
def test_every_flipped_bit_is_found(twin: Any, compression: Compression) -> None:
    stored = twin.seal_page(TEXT[:300], 1, compression, SEED)
    for position in range(len(stored) * 8):
        damaged = bytearray(stored)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(CorruptionError, match="checksum") as caught:
            twin.open_page(bytes(damaged), SEED, "some.table", 4096)
        assert (caught.value.file, caught.value.offset) == ("some.table", 4096)


@pytest.mark.parametrize("twin", TWINS)
def test_every_cut_page_is_refused(twin: Any) -> None:
    stored = twin.seal_page(TEXT[:300], 1, Compression.LZ4, SEED)
    for end in range(len(stored)):
        with pytest.raises(CorruptionError):
            twin.open_page(stored[:end], SEED, "f", 0)


FRAME = zstd.compress(TEXT, level=1)
BLOCK = lz4_compress(TEXT)
# Pages whose checksum is good: what a forger, or an error before the checksum was made, could leave
# behind.
FORGED = {
    "cut trailer": (bytes(15), "shorter than its trailer"),
    "compression 3": (page(b"abc", 3, 3), "compression is unknown"),
    "compression with a high bit": (page(b"abc", 0x80, 3), "compression is unknown"),
    "reserved field": (page(b"abc", 0, 3, zero=1), "reserved field"),
    "body length over the limit": (page(b"abc", 0, 2**31), "beyond the limit"),
    "body length all ones": (page(b"abc", 2, 2**32 - 1), "beyond the limit"),
    "plain body shorter": (page(b"abc", 0, 2), "differs from its stored length"),
    "plain body longer": (page(b"abc", 0, 4), "differs from its stored length"),
    "lz4 ratio": (page(b"abc", 1, 3 * 255 + 1), "more than its payload can expand to"),
    "lz4 of nothing": (page(b"", 1, 1), "more than its payload can expand to"),
    "lz4 ratio just possible": (page(b"abc", 1, 3 * 255), "malformed"),
    "lz4 body shorter": (page(BLOCK, 1, len(TEXT) - 1), "malformed"),
    "lz4 body longer": (page(BLOCK, 1, len(TEXT) + 1), "malformed"),
    "lz4 noise": (page(bytes(range(256)), 1, 500), "malformed"),
    "lz4 empty": (page(b"", 1, 0), "malformed"),
    "zstd ratio": (page(b"abc", 2, 3 * 32768 + 1), "more than its payload can expand to"),
    "zstd huge": (page(FRAME, 2, 2**31 - 1), "more than its payload can expand to"),
    "zstd body shorter": (page(FRAME, 2, len(TEXT) - 1), "malformed"),
    "zstd body longer": (page(FRAME, 2, len(TEXT) + 1), "malformed"),
    "zstd noise": (page(bytes(range(256)), 2, 500), "malformed"),
    "zstd cut": (page(FRAME[:-1], 2, len(TEXT)), "malformed"),
    "zstd followed by bytes": (page(FRAME + b"x", 2, len(TEXT)), "malformed"),
    "zstd two frames": (page(FRAME + FRAME, 2, len(TEXT) * 2), "malformed"),
    "zstd empty": (page(b"", 2, 0), "malformed"),
}


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("stored", "reason"), FORGED.values(), ids=FORGED.keys())
def test_forged_pages_are_refused_with_a_reason(twin: Any, stored: bytes, reason: str) -> None:
    with pytest.raises(CorruptionError, match=reason) as caught:
        twin.open_page(stored, SEED, "some.table", 77)
    assert (caught.value.file, caught.value.offset) == ("some.table", 77)


def outcome(twin: Any, stored: bytes) -> object:
    try:
        return twin.open_page(stored, SEED, "f", 9)
    except CorruptionError as error:
        return error.args


@settings(max_examples=500, deadline=None)
@given(
    payload=st.one_of(st.binary(max_size=60), st.sampled_from([BLOCK, FRAME])),
    compression=st.integers(0, 4),
    body_size=st.one_of(st.integers(0, 100), st.just(len(TEXT)), st.integers(0, 2**32 - 1)),
    zero=st.sampled_from([0, 0, 0, 1, 65535]),
)
def test_the_twins_agree_on_any_forged_page(
    payload: bytes, compression: int, body_size: int, zero: int
) -> None:
    stored = page(payload, compression, body_size, zero=zero)
    assert outcome(_envelope_c, stored) == outcome(_envelope_py, stored)


@settings(max_examples=200, deadline=None)
@given(stored=st.binary(max_size=60))
def test_the_twins_agree_on_noise(stored: bytes) -> None:
    result = outcome(_envelope_c, stored)
    assert result == outcome(_envelope_py, stored)
    assert len(result) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("twin", TWINS)
def test_any_contiguous_buffer_is_accepted(twin: Any) -> None:
    for compression in Compression:
        stored = twin.seal_page(TEXT, 1, compression, SEED)
        assert twin.seal_page(bytearray(TEXT), 1, int(compression), SEED) == stored
        assert twin.seal_page(memoryview(TEXT), 1, compression, SEED) == stored
        assert twin.open_page(bytearray(stored), SEED, "f", 0) == (1, TEXT)
        page_type, body = twin.open_page(
            stored=memoryview(stored), page_seed=SEED, file="f", offset=0
        )
        assert (page_type, type(body)) == (1, bytes)
        with pytest.raises(TypeError):
            twin.seal_page("text", 1, compression, SEED)
        with pytest.raises(BufferError):
            twin.seal_page(memoryview(TEXT)[::2], 1, compression, SEED)
    with pytest.raises(TypeError):
        twin.open_page("text", SEED, "f", 0)
    with pytest.raises(BufferError):
        twin.open_page(memoryview(TEXT)[::2], SEED, "f", 0)


@pytest.mark.parametrize("twin", TWINS)
def test_wrong_arguments_are_refused(twin: Any) -> None:
    for page_type in (-1, 256, 2**70):
        with pytest.raises(ValueError, match="page type"):
            twin.seal_page(b"", page_type, 0, 0)
    for compression in (-1, 3, 2**70):
        with pytest.raises(ValueError, match="compression"):
            twin.seal_page(b"", 0, compression, 0)
    for seed in (-1, 2**64):
        with pytest.raises(OverflowError):
            twin.seal_page(b"", 0, 0, seed)
        with pytest.raises(OverflowError):
            twin.open_page(b"", seed, "f", 0)
    for wrong in (1.5, "1", None):
        for arguments in ((wrong, 0, 0), (0, wrong, 0), (0, 0, wrong)):
            with pytest.raises(TypeError):
                twin.seal_page(b"", *arguments)


@pytest.mark.parametrize("twin", TWINS)
def test_a_body_beyond_the_limit_is_refused(twin: Any) -> None:
    with mmap.mmap(-1, 2**31) as large, pytest.raises(LimitError):
        twin.seal_page(large, 1, Compression.NONE, SEED)


class Veil:
    """A cipher in miniature: it adds five bytes, and knows the place and the fields again."""

    seal_bytes = 5

    def seal(self, offset: int, data: bytes | memoryview, associated: bytes) -> bytes:
        assert len(associated) == 8
        plain = bytes(data)
        tag = xxhash.xxh32_digest(plain + associated + offset.to_bytes(8, "little"))
        return bytes(byte ^ 0x5A for byte in plain) + b"|" + tag

    def seal_many(self, offsets: Any, pieces: Any, associated: Any, targets: Any) -> None:
        for offset, piece, extra, target in zip(offsets, pieces, associated, targets, strict=True):
            target[:] = self.seal(offset, piece, extra)

    def open(self, offset: int, sealed: bytes | memoryview, associated: bytes) -> bytes:
        plain = bytes(byte ^ 0x5A for byte in bytes(sealed)[:-5])
        if self.seal(offset, plain, associated) != bytes(sealed):
            raise ValueError("not sealed so")
        return plain


CIPHER = Veil()


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_page_with_a_cipher_opens_to_its_body_at_its_place_only(
    twin: Any, compression: Compression, body: bytes
) -> None:
    stored = twin.seal_page(body, 3, compression, SEED, CIPHER, 4096)
    assert stored == _envelope_py.seal_page(body, 3, compression, SEED, CIPHER, 4096)
    assert len(stored) <= len(body) + 16 + 5
    assert stored[-16] & 0xF0 == 0x10
    assert twin.open_page(stored, SEED, "f", 4096, CIPHER) == (3, body)
    with pytest.raises(CorruptionError, match="seal does not match"):
        twin.open_page(stored, SEED, "f", 4097, CIPHER)


@pytest.mark.parametrize("twin", TWINS)
def test_a_sealed_page_of_a_plain_file_and_a_plain_page_of_a_sealed_one_are_damage(
    twin: Any,
) -> None:
    sealed = twin.seal_page(b"body", 3, 0, SEED, CIPHER, 0)
    with pytest.raises(CorruptionError, match="compression is unknown"):
        twin.open_page(sealed, SEED, "f", 0)
    plain = twin.seal_page(b"body", 3, 0, SEED)
    with pytest.raises(CorruptionError, match="not sealed"):
        twin.open_page(plain, SEED, "f", 0, CIPHER)


@pytest.mark.parametrize("twin", TWINS)
def test_each_byte_of_a_sealed_page_counts_though_its_checksum_is_mended(twin: Any) -> None:
    stored = twin.seal_page(TEXT[:300], 3, Compression.LZ4, SEED, CIPHER, 0)
    for at in range(len(stored)):
        broken = bytearray(stored)
        broken[at] ^= 0x10
        with pytest.raises(CorruptionError):
            twin.open_page(bytes(broken), SEED, "f", 0, CIPHER)
        broken[-8:] = xxhash.xxh64_intdigest(bytes(broken[:-8]), SEED).to_bytes(8, "little")
        if at < len(stored) - 8:
            with pytest.raises(CorruptionError):
                twin.open_page(bytes(broken), SEED, "f", 0, CIPHER)
    for size in range(len(stored)):
        with pytest.raises(CorruptionError):
            twin.open_page(stored[:size], SEED, "f", 0, CIPHER)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    ("compression", "zero", "size"),
    [(0x13, 0, 4), (0x10, 1, 4), (0x10, 0, 5), (0x11, 0, 2000), (0x12, 0, 4), (0x10, 0, 2**31)],
)
def test_what_stands_in_a_seal_is_checked_as_if_there_were_none(
    twin: Any, compression: int, zero: int, size: int
) -> None:
    """Whoever has the key may be mistaken, too."""
    fields = struct.pack("<BBHI", compression, 7, zero, size)
    stored = CIPHER.seal(0, b"body", fields) + fields
    stored += struct.pack("<Q", xxhash.xxh64_intdigest(stored, SEED))
    with pytest.raises(CorruptionError):
        twin.open_page(stored, SEED, "f", 0, CIPHER)
