"""Sealing and opening of pieces: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.crypto._cipher_py import FileCipher
else:
    from holdfast.crypto._cipher_c import FileCipher

__all__ = ["FileCipher"]
