"""Zstandard through a library: `zstandard`, or where it is not installed Python's own from 3.14 on.

The first can use a context again, for decompression too. Making one costs more than a page of
16 KiB in a virtual machine, where asking the processor what it is takes microseconds
(docs/adr/0015). The library is imported on first use, so that `import holdfast` stays light.
Level 1: on pages of 16 KiB of sensor text, packed samples and prose it is 15 to 35 percent faster
than level 3, and its output is at most 2 percent longer, on sensor text even shorter.
Frames carry their content size and no checksum, since the page envelope has one.

Thread safety: any thread at any time. Contexts are reused through lists whose pop and append are
atomic. Equal input gives equal output for one version of the library.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeVar

Data = bytes | bytearray | memoryview
Result = TypeVar("Result")
Decompress = Callable[[Data, int], bytes]

LEVEL = 1
WINDOW_LOG_MIN = 10
"""The least window that the library lets a reader allow."""

NO_MEMORY = "not enough memory"
"""What the library's error says of a failed allocation; it has one class for all errors."""

MALFORMED = "malformed Zstandard frame"
EMPTY_FRAME = bytes.fromhex("28b52ffd2000010000")
"""The frame of no bytes: a header that says so, and one last block without any."""


class Compressor(Protocol):
    """Makes frames, again and again, until it raises."""

    def one(self, data: Data) -> bytes:
        """Return a frame."""
        ...

    def many(self, pieces: Sequence[Data]) -> list[bytes]:
        """Return the frame of each piece. None is empty."""
        ...


class Library(Protocol):
    """What is wanted of a library."""

    error: type[Exception]
    """Its class for all errors."""
    is_decompressor_reusable: bool

    def make_compressor(self) -> Compressor:
        """Return a compressor with a context of its own."""
        ...

    def make_decompressor(self, window_log: int) -> Decompress:
        """Return a function that takes a frame and the size of its content, which is refused with
        ValueError or `error` when it has another size, wants a larger window, or does not end
        where the data end.
        """
        ...


class PooledCompressor:
    """Of `zstandard`. Many pieces are one call without the GIL, where this build of it can."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._many: Callable[[Sequence[Data]], Any] | None = getattr(
            context, "multi_compress_to_buffer", None
        )

    def one(self, data: Data) -> bytes:
        """See Compressor."""
        frame: bytes = self._context.compress(data)
        return frame

    def many(self, pieces: Sequence[Data]) -> list[bytes]:
        """See Compressor."""
        if self._many is None or not pieces:
            return [self.one(piece) for piece in pieces]
        return [segment.tobytes() for segment in self._many(list(pieces))]


class StandardCompressor:
    """Of `compression.zstd`."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def one(self, data: Data) -> bytes:
        """See Compressor."""
        frame: bytes = self._context.compress(data, self._context.FLUSH_FRAME)
        return frame

    def many(self, pieces: Sequence[Data]) -> list[bytes]:
        """See Compressor."""
        return [self.one(piece) for piece in pieces]


class PooledLibrary:
    """`zstandard`."""

    is_decompressor_reusable = True

    def __init__(self, library: Any) -> None:
        self.error: type[Exception] = library.ZstdError
        self._library = library

    def make_compressor(self) -> Compressor:
        """See Library."""
        return PooledCompressor(
            self._library.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=False)
        )

    def make_decompressor(self, window_log: int) -> Decompress:
        """See Library."""
        made = self._library.ZstdDecompressor(max_window_size=1 << window_log)
        size_of = self._library.frame_content_size

        def decompress(data: Data, size: int) -> bytes:
            # Compared first: room for the size that the frame names is made before anything else.
            named = size_of(data)
            if named not in (size, -1):
                raise ValueError(MALFORMED)
            if size == 0:
                # The call below would not look at what is behind such a header, and a limit of no
                # bytes would be none.
                if data != EMPTY_FRAME:
                    raise ValueError(MALFORMED)
                return b""
            body: bytes = made.decompress(data, max_output_size=size, allow_extra_data=False)
            return body

        return decompress


class StandardLibrary:
    """`compression.zstd`, whose decompressors end with their frame."""

    is_decompressor_reusable = False

    def __init__(self, library: Any) -> None:
        self.error: type[Exception] = library.ZstdError
        self._library = library

    def make_compressor(self) -> Compressor:
        """See Library."""
        parameter = self._library.CompressionParameter
        options = {
            parameter.compression_level: LEVEL,
            parameter.content_size_flag: 1,
            parameter.checksum_flag: 0,
        }
        return StandardCompressor(self._library.ZstdCompressor(options=options))

    def make_decompressor(self, window_log: int) -> Decompress:
        """See Library."""
        parameter = self._library.DecompressionParameter
        made = self._library.ZstdDecompressor(options={parameter.window_log_max: window_log})

        def decompress(data: Data, size: int) -> bytes:
            # One byte more than wanted, so that a longer frame shows.
            body: bytes = made.decompress(data, size + 1)
            if not made.eof or made.unused_data:
                raise ValueError(MALFORMED)
            return body

        return decompress


_compressors: list[Compressor] = []
_decompressors: defaultdict[int, list[Decompress]] = defaultdict(list)
"""By window."""


def zstd_compress(data: Data) -> bytes:
    """Return `data` as one Zstandard frame. Raises: MemoryError."""
    return _compress(lambda compressor: compressor.one(data))


def zstd_compress_many(pieces: Sequence[Data]) -> list[bytes]:
    """Return what `zstd_compress` makes of each piece, none of which is empty; all of it in one
    section without the GIL, if the library can. Raises: MemoryError.
    """
    return _compress(lambda compressor: compressor.many(pieces))


def _compress(work: Callable[[Compressor], Result]) -> Result:
    library = _library()
    try:
        try:
            compressor = _compressors.pop()
        except IndexError:
            compressor = library.make_compressor()
        result = work(compressor)
    except library.error as error:
        # Any data can be compressed, with enough memory.
        raise MemoryError(f"no memory for compression: {error}") from error
    # A compressor that raised is not put back: its state is unknown.
    _compressors.append(compressor)
    return result


def zstd_decompress(data: Data, size: int) -> bytes:
    """Return the `size` bytes that a Zstandard frame stands for.

    Memory is asked for `size` bytes, and for a window of at most twice `size`.
    Raises: ValueError when `data` is not exactly one frame of `size` bytes; MemoryError, which says
    nothing about the data.
    """
    library = _library()
    window_log = max(WINDOW_LOG_MIN, (size - 1).bit_length())
    kept = _decompressors[window_log]
    try:
        decompress = kept.pop()
    except IndexError:
        try:
            decompress = library.make_decompressor(window_log)
        except library.error as error:
            # It has not seen the data yet.
            raise MemoryError(f"no memory for decompression: {error}") from error
    try:
        body = decompress(data, size)
    except library.error as error:
        if NO_MEMORY in str(error):
            raise MemoryError("no memory for decompression") from error
        raise ValueError(MALFORMED) from error
    if len(body) != size:
        raise ValueError(MALFORMED)
    if library.is_decompressor_reusable:
        kept.append(decompress)
    return body


@functools.cache
def _library() -> Library:
    # Imported here because most processes never need it and it takes longer than all of Holdfast.
    try:
        return PooledLibrary(import_module("zstandard"))
    except ImportError:
        return StandardLibrary(import_module("compression.zstd"))
