"""Codecs by number and by name, and Zstandard through each of its libraries."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import zstandard
from backports import zstd

from holdfast.base.settings import COMPRESSIONS
from holdfast.codec import Compression, compress, decompress, open_page, seal_page
from holdfast.codec.zstandard import (
    Library,
    PooledLibrary,
    StandardLibrary,
    _library,
    zstd_compress,
    zstd_compress_many,
    zstd_decompress,
)

TEXT = b"".join(b"room %d: %d degrees\n" % (n % 7, 20 + n % 5) for n in range(2000))
BODIES = [b"", b"x", TEXT, random.Random(1).randbytes(5000), bytes(200_000), TEXT * 50]


LIBRARIES: list[Library] = [PooledLibrary(zstandard), StandardLibrary(zstd)]
"""That of Python 3.14 and newer is the same under another name before."""


@pytest.fixture(params=LIBRARIES, ids=["zstandard", "compression.zstd"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Zstandard be that of one library, with contexts of its own."""
    monkeypatch.setattr("holdfast.codec.zstandard._library", lambda: request.param)
    monkeypatch.setattr("holdfast.codec.zstandard._compressors", [])
    monkeypatch.setattr("holdfast.codec.zstandard._decompressors", defaultdict(list))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("compression", Compression)
def test_every_codec_gives_back_what_it_was_given(compression: Compression) -> None:
    for body in BODIES:
        packed = compress(compression, body)
        assert compress(compression, bytearray(body)) == packed
        assert decompress(compression, packed, len(body)) == body
        assert decompress(compression, memoryview(packed), len(body)) == body
        for size in (len(body) - 1, len(body) + 1):
            with pytest.raises(ValueError):
                decompress(compression, packed, size)


def test_names_of_settings_are_the_members() -> None:
    assert [member.setting for member in Compression] == list(COMPRESSIONS)
    for name in COMPRESSIONS:
        assert Compression.from_name(name).setting == name
    for name in ("LZ4", "", "snappy"):
        with pytest.raises(ValueError, match="known are none, lz4, zstd"):
            Compression.from_name(name)


def test_numbers_are_part_of_the_format() -> None:
    assert {member.name: member.value for member in Compression} == {"NONE": 0, "LZ4": 1, "ZSTD": 2}


@pytest.mark.usefixtures("library")
def test_a_reused_context_does_not_change_the_bytes() -> None:
    bodies = [random.Random(n).randbytes(n % 900) + TEXT[n : n * 30] for n in range(300)]
    fresh = [zstd.compress(body, level=1) for body in bodies]
    assert [zstd_compress(body) for body in bodies] == fresh
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(zstd_compress, bodies)) == fresh


MAKERS = [lambda: PooledLibrary(zstandard), lambda: StandardLibrary(zstd)]


class Counting:
    """A library that counts what it makes."""

    def __init__(self, inner: Library) -> None:
        self.inner = inner
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("make_"):
            self.made.append(name.removeprefix("make_"))
        return getattr(self.inner, name)


@pytest.mark.parametrize("make", MAKERS, ids=["zstandard", "compression.zstd"])
def test_a_context_is_made_once_where_it_can_be_used_again(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Library]
) -> None:
    counting = Counting(make())
    monkeypatch.setattr("holdfast.codec.zstandard._library", lambda: counting)
    monkeypatch.setattr("holdfast.codec.zstandard._compressors", [])
    monkeypatch.setattr("holdfast.codec.zstandard._decompressors", defaultdict(list))
    for _ in range(3):
        assert zstd_decompress(zstd_compress(TEXT), len(TEXT)) == TEXT
    assert counting.made.count("compressor") == 1
    assert counting.made.count("decompressor") == (1 if counting.is_decompressor_reusable else 3)


@pytest.mark.parametrize("make", MAKERS, ids=["zstandard", "compression.zstd"])
def test_a_frame_of_more_bytes_than_wanted_is_refused_by_the_library(
    make: Callable[[], Library],
) -> None:
    """Before there is room for them: the size that a frame names may be any."""
    library = make()
    frame = library.make_compressor().one(TEXT)
    assert library.make_decompressor(20)(frame, len(TEXT)) == TEXT
    for size in (0, 1, len(TEXT) - 2):
        with pytest.raises(ValueError, match="malformed Zstandard frame"):
            library.make_decompressor(20)(frame, size)


@pytest.mark.usefixtures("library")
def test_many_frames_at_once_are_those_of_single_calls() -> None:
    bodies = [random.Random(n).randbytes(n % 900) + TEXT[n : 1 + n * 30] for n in range(300)]
    expected = [zstd_compress(body) for body in bodies]
    assert zstd_compress_many(bodies) == expected
    whole = memoryview(b"".join(bodies))
    starts = [sum(map(len, bodies[:n])) for n in range(300)]
    views = [whole[start : start + len(body)] for start, body in zip(starts, bodies, strict=True)]
    assert zstd_compress_many(views) == expected
    assert zstd_compress_many(bodies[:1]) == expected[:1]
    assert zstd_compress_many([]) == []
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(zstd_compress_many, [bodies] * 8)) == [expected] * 8
    with pytest.raises(TypeError):
        zstd_compress_many(["text"])  # type: ignore[list-item]
    assert zstd_compress_many(bodies) == expected


def test_a_build_of_the_library_may_lack_the_call_for_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lacking:
        def __init__(self, **options: Any) -> None:
            self.compress = zstandard_compressor(**options).compress

    zstandard_compressor = zstandard.ZstdCompressor
    bodies = [TEXT[n : 2 * n] for n in range(1, 20)]
    expected = PooledLibrary(zstandard).make_compressor().many(bodies)
    monkeypatch.setattr(zstandard, "ZstdCompressor", Lacking)
    assert PooledLibrary(zstandard).make_compressor().many(bodies) == expected


@pytest.mark.usefixtures("library")
def test_a_frame_carries_its_size_and_no_checksum() -> None:
    frame = zstd_compress(TEXT)
    assert zstd.get_frame_info(frame).decompressed_size == len(TEXT)
    assert frame[4] & 0b100 == 0


@pytest.mark.usefixtures("library")
def test_a_frame_that_wants_a_larger_window_than_its_size_is_refused() -> None:
    # A frame written in pieces does not know its size and asks for the whole window of its level.
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 27})
    frame = compressor.compress(TEXT) + compressor.flush()
    assert zstd.decompress(frame) == TEXT
    with pytest.raises(ValueError, match="malformed Zstandard frame"):
        zstd_decompress(frame, len(TEXT))


@pytest.mark.usefixtures("library")
def test_the_window_of_a_size_is_the_least_power_of_two_that_holds_it() -> None:
    for size, window_log in ((4096, 12), (4097, 13), (1, 10)):
        body = (TEXT * (size // len(TEXT) + 1))[:size]
        for log, taken in ((window_log, True), (window_log + 1, False)):
            compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
            frame = compressor.compress(body) + compressor.flush()
            if taken:
                assert zstd_decompress(frame, size) == body
            else:
                with pytest.raises(ValueError, match="malformed Zstandard frame"):
                    zstd_decompress(frame, size)


@pytest.mark.usefixtures("library")
def test_a_frame_that_expands_without_end_is_cut_at_the_size() -> None:
    bomb = zstd.compress(bytes(64 << 20))
    with pytest.raises(ValueError, match="malformed Zstandard frame"):
        zstd_decompress(bomb, 1000)


@pytest.mark.usefixtures("library")
def test_every_size_around_a_power_of_two_fits_its_window() -> None:
    for power in (9, 10, 11, 14, 17, 19, 20):
        for size in ((1 << power) - 1, 1 << power, (1 << power) + 1):
            body = (TEXT * (size // len(TEXT) + 1))[:size]
            assert zstd_decompress(zstd_compress(body), size) == body


@pytest.mark.usefixtures("library")
def test_what_is_not_bytes_like_is_a_type_error() -> None:
    for compression in Compression:
        with pytest.raises(TypeError):
            compress(compression, "text")  # type: ignore[arg-type]


@pytest.mark.usefixtures("library")
def test_a_failed_compression_does_not_spoil_the_next() -> None:
    expected = zstd_compress(TEXT)
    with pytest.raises(TypeError):
        zstd_compress(5)  # type: ignore[arg-type]
    assert zstd_compress(TEXT) == expected


@pytest.mark.usefixtures("library")
def test_frames_that_end_elsewhere_than_the_data_are_refused() -> None:
    for body in (b"", b"x", TEXT):
        frame = zstd_compress(body)
        assert zstd_decompress(bytearray(frame), len(body)) == body
        for damaged in (frame + b"x", frame[:-1], frame + frame, b"", b"x" + frame):
            with pytest.raises(ValueError, match="malformed Zstandard frame"):
                zstd_decompress(damaged, len(body))
            # A context that was used again is not spoiled.
            assert zstd_decompress(frame, len(body)) == body


@pytest.mark.usefixtures("library")
def test_decompressions_in_many_threads_share_no_context() -> None:
    bodies = [random.Random(n).randbytes(n % 900) + TEXT[n : n * 30] for n in range(300)]
    frames = [(zstd_compress(body), len(body)) for body in bodies]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda frame: zstd_decompress(*frame), frames)) == bodies


def test_frames_of_one_library_are_read_by_the_other() -> None:
    for body in BODIES:
        for writer in LIBRARIES:
            frame = writer.make_compressor().one(body)
            for reader in LIBRARIES:
                assert reader.make_decompressor(22)(frame, len(body)) == body


def test_the_library_of_python_is_taken_where_the_other_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(_library(), PooledLibrary)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression", ModuleType("compression"))
    monkeypatch.setitem(sys.modules, "compression.zstd", zstd)
    assert isinstance(_library.__wrapped__(), StandardLibrary)


class NoMemory:
    """A compressor or decompressor for whose work there is no memory, as the libraries say it."""

    FLUSH_FRAME = 2

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def compress(self, data: bytes, mode: int = 0) -> bytes:
        raise self._error("cannot compress: Allocation error : not enough memory")

    def multi_compress_to_buffer(self, pieces: list[bytes]) -> list[bytes]:
        raise self._error("error compressing item 0: Allocation error : not enough memory")

    def decompress(self, *given: object, **named: object) -> bytes:
        raise self._error("decompression error: Allocation error : not enough memory")


@pytest.mark.parametrize("has_context", [True, False])
@pytest.mark.parametrize("module", ["zstandard", "backports.zstd"])
def test_want_of_memory_in_the_library_is_no_damage(
    monkeypatch: pytest.MonkeyPatch, module: str, has_context: bool
) -> None:
    frame = zstd_compress(TEXT)
    page = seal_page(TEXT, 1, Compression.ZSTD, 5)
    error = sys.modules[module].ZstdError

    def fake(**_: object) -> NoMemory:
        if not has_context:
            raise error("Unable to create a context.")
        return NoMemory(error)

    monkeypatch.setattr(f"{module}.ZstdCompressor", fake)
    monkeypatch.setattr(f"{module}.ZstdDecompressor", fake)
    of_module = next(library for library in LIBRARIES if library.error is error)
    monkeypatch.setattr("holdfast.codec.zstandard._library", lambda: of_module)
    monkeypatch.setattr("holdfast.codec.zstandard._compressors", [])
    monkeypatch.setattr("holdfast.codec.zstandard._decompressors", defaultdict(list))
    with pytest.raises(MemoryError):
        zstd_compress(TEXT)
    with pytest.raises(MemoryError):
        zstd_compress_many([TEXT])
    with pytest.raises(MemoryError):
        zstd_decompress(frame, len(TEXT))
    with pytest.raises(MemoryError):
        open_page(page, 5, "1.table", 0)
