"""Floor 1: bytes in, bytes out. Checksums, varints, compression, the page envelope and ordered tuples."""

from holdfast.codec._checksum import checksum
from holdfast.codec._lz4 import lz4_compress, lz4_decompress

__all__ = ["checksum", "lz4_compress", "lz4_decompress"]
