"""Floor 1: checksums, varints, compression, the page envelope and ordered tuples.

All of it is pure: no file, no clock, no randomness, no state that shows. Bytes that may be damaged
give a ValueError, and a page, whose place is known, a CorruptionError. Formats: docs/format/page.md
and docs/format/tuple.md. Kernels of other rooms use the C functions of `_checksum_c.pxd`,
`_lz4_c.pxd`, `_envelope_c.pxd`, and the inline helpers of `_varint.pxd` and `_fixed.pxd`. The
memory for bodies of decoded pages (`_body_c.pxd`) is one for all databases of a process.
"""

from holdfast.codec._body import body_room, release_bodies
from holdfast.codec._checksum import checksum
from holdfast.codec._envelope import open_page, page_seed, seal_page
from holdfast.codec._lz4 import lz4_compress, lz4_decompress
from holdfast.codec._varint import decode_varint, encode_varint
from holdfast.codec.cipher import PageCipher
from holdfast.codec.compression import Compression, compress, decompress
from holdfast.codec.ordered import pack_tuple, unpack_tuple

__all__ = [
    "Compression",
    "PageCipher",
    "body_room",
    "checksum",
    "compress",
    "decode_varint",
    "decompress",
    "encode_varint",
    "lz4_compress",
    "lz4_decompress",
    "open_page",
    "pack_tuple",
    "page_seed",
    "release_bodies",
    "seal_page",
    "unpack_tuple",
]
