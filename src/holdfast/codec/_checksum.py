"""XXH64: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.codec._checksum_py import checksum
else:
    from holdfast.codec._checksum_c import checksum

__all__ = ["checksum"]
