"""Sealing of small files that are written anew in place, as one piece, such as published figures.

sealed file := preamble sealed-size:u32 zero:u32 seal rest

Each writing has a seal id, and with it a key, of its own: so the one place of such a file is sealed
once under each key, and what is written behind a change of keys is under the new data key.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from holdfast.base import CorruptionError
from holdfast.crypto.keyring import KeyRing
from holdfast.crypto.piece import SEAL_BYTES, SealError
from holdfast.crypto.preamble import PREAMBLE_BYTES, FileKind, Preamble
from holdfast.crypto.sealed import SealedFile
from holdfast.env import Buffer, File

SEALED_BYTES_MAX: Final = 1 << 22
"""More of such a file is not read: it would be none that a writer makes."""

_FIELDS: Final = Struct("<II")
_FRONT_BYTES: Final = PREAMBLE_BYTES + _FIELDS.size


class WholeFile(SealedFile):
    """The plain face of a file that is written by one call. It is empty where it does not open."""

    def __init__(self, file: File, ring: KeyRing) -> None:
        super().__init__(file)
        self._ring = ring

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        if offset != 0:  # unreachable: its writers write all of it
            raise AssertionError("such a file is written as a whole")
        preamble, cipher = self._ring.new_file(FileKind.FIGURES)
        fields = _FIELDS.pack(len(data) + SEAL_BYTES, 0)
        sealed = cipher.seal(_FRONT_BYTES, data, fields)
        super().write_at(0, preamble.encode() + fields + sealed, site=site)

    def read_at(self, offset: int, count: int) -> bytes:
        front = super().read_at(0, _FRONT_BYTES)
        if len(front) < _FRONT_BYTES:
            return b""
        fields = front[PREAMBLE_BYTES:]
        size, _ = _FIELDS.unpack(fields)
        sealed = super().read_at(_FRONT_BYTES, min(size, SEALED_BYTES_MAX))
        try:
            preamble = Preamble.decode(front[:PREAMBLE_BYTES], FileKind.FIGURES, self.name, 0)
            cipher = self._ring.opened_file(preamble, self.name, 0)
            return cipher.open(_FRONT_BYTES, sealed, fields)[offset : offset + count]
        except (CorruptionError, SealError):
            # Caught half written, or of an earlier life.
            return b""


class WholeFileSealing:
    """How such files are sealed. Implements `Sealing`."""

    def created(self, file: File, ring: KeyRing) -> File:
        return WholeFile(file, ring)

    def opened(self, file: File, ring: KeyRing) -> File:
        return WholeFile(file, ring)

    def plain_size(self, size: int) -> int:
        return max(size - _FRONT_BYTES - SEAL_BYTES, 0)
