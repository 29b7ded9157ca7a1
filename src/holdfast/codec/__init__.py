"""Floor 1: bytes in, bytes out. Checksums, varints, compression, the page envelope and ordered tuples."""

from holdfast.codec._checksum import checksum
from holdfast.codec._envelope import open_page, page_seed, seal_page
from holdfast.codec._lz4 import lz4_compress, lz4_decompress
from holdfast.codec._varint import decode_varint, encode_varint
from holdfast.codec.compression import Compression, compress, decompress

__all__ = [
    "Compression",
    "checksum",
    "compress",
    "decode_varint",
    "decompress",
    "encode_varint",
    "lz4_compress",
    "lz4_decompress",
    "open_page",
    "page_seed",
    "seal_page",
]
