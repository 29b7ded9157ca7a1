"""The codecs a page may be compressed with, by number, by name and as functions."""

from __future__ import annotations

from enum import IntEnum

from holdfast.codec._lz4 import lz4_compress, lz4_decompress
from holdfast.codec.zstandard import zstd_compress, zstd_decompress


class Compression(IntEnum):
    """Part of the file format: pages store the number. Settings use the name in lower case."""

    NONE = 0
    LZ4 = 1
    ZSTD = 2

    @classmethod
    def from_name(cls, name: str) -> Compression:
        """Return the member that settings call "none", "lz4" or "zstd". Raises: ValueError."""
        try:
            return _BY_NAME[name]
        except KeyError:
            raise ValueError(
                f"unknown compression {name!r}; known are {', '.join(_BY_NAME)}"
            ) from None

    @property
    def setting(self) -> str:
        """The name that settings use."""
        return self.name.lower()


_BY_NAME = {member.setting: member for member in Compression}


def compress(compression: Compression, data: bytes | bytearray | memoryview) -> bytes:
    """Return `data` compressed, with no framing: the reader must know its size."""
    if compression == Compression.LZ4:
        return lz4_compress(data)
    if compression == Compression.ZSTD:
        return zstd_compress(data)
    return bytes(data)


def decompress(compression: Compression, data: bytes | bytearray | memoryview, size: int) -> bytes:
    """Return the `size` bytes that `compress` was given. Raises: ValueError for damage."""
    if compression == Compression.LZ4:
        return lz4_decompress(data, size)
    if compression == Compression.ZSTD:
        return zstd_decompress(data, size)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes are not the {size} expected")
    return bytes(data)
