"""The preamble of a sealed file: 40 bytes in clear that say which key opens it.

docs/format/sealed.md describes it. Nothing of it is secret, and nothing of it can be changed
unnoticed: all its fields go into the file's key and into the associated data of every piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from holdfast.base import CorruptionError, FormatError
from holdfast.codec import checksum
from holdfast.crypto.suite import Suite

SEAL_MAGIC: Final = b"HFseal\r\n"
"""Part of the file format."""
SEAL_VERSION: Final = 1
"""Part of the file format."""
SEAL_ID_BYTES: Final = 16

_FIELDS: Final = Struct("<8sBBBBI16s")
_CHECKSUM: Final = Struct("<Q")
PREAMBLE_BYTES: Final = _FIELDS.size + _CHECKSUM.size


class FileKind(IntEnum):
    """What a sealed file holds. Part of the file format."""

    TABLE = 1
    LOG = 2
    MANIFEST = 3
    FIGURES = 4


@dataclass(frozen=True, slots=True)
class Preamble:
    """Which key opens a file."""

    suite: Suite
    kind: FileKind
    epoch: int
    seal_id: bytes

    def encode(self) -> bytes:
        """Return the PREAMBLE_BYTES bytes."""
        fields = _FIELDS.pack(
            SEAL_MAGIC, SEAL_VERSION, self.suite, self.kind, 0, self.epoch, self.seal_id
        )
        return fields + _CHECKSUM.pack(checksum(fields))

    @classmethod
    def decode(cls, data: bytes, kind: FileKind, file: str, at: int) -> Preamble:
        """Return the preamble in `data`, which stands at byte `at` of a file of this kind.

        Raises: CorruptionError when it is damaged, there is none, or it is another kind's;
        FormatError when a newer version wrote it.
        """
        if len(data) != PREAMBLE_BYTES:
            raise CorruptionError(file, at, "the file is too short to be sealed")
        magic, version, suite, found, zero, epoch, seal_id = _FIELDS.unpack_from(data)
        if magic != SEAL_MAGIC:
            raise CorruptionError(file, at, "the file is not sealed, and the database is encrypted")
        if _CHECKSUM.unpack_from(data, _FIELDS.size)[0] != checksum(data[: _FIELDS.size]):
            raise CorruptionError(file, at, "the checksum of the seal's preamble does not match")
        if version > SEAL_VERSION:
            raise FormatError(
                f"{file}: sealed in version {version}; this Holdfast reads {SEAL_VERSION}"
            )
        if suite not in set(Suite) or found != kind or zero != 0 or version == 0 or epoch == 0:
            raise CorruptionError(file, at, "the preamble is not that of such a file")
        return cls(Suite(suite), kind, epoch, seal_id)
