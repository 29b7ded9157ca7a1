"""Varints: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.codec._varint_py import decode_varint, encode_varint
else:
    from holdfast.codec._varint_c import decode_varint, encode_varint

__all__ = ["decode_varint", "encode_varint"]
