"""The LZ4 block format: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.codec._lz4_py import lz4_compress, lz4_decompress
else:
    from holdfast.codec._lz4_c import lz4_compress, lz4_decompress

__all__ = ["lz4_compress", "lz4_decompress"]
