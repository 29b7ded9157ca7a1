"""Opening the records in a stretch of a sealed segment: the plain twin, which is the specification.

Guarantees:
1. What comes out is bytes of records that opened at their places, zeros where the file has zeros,
   and 0xFF elsewhere: no byte of the file that was not authenticated.
2. A record that opened is what the plain format has there, checksums included.
3. No size is used before it was compared with what is there, and time is linear in the stretch: a
   file that was made to be opened again and again is CorruptionError.

Thread safety: pure functions.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from holdfast.base import CorruptionError, require
from holdfast.codec import checksum
from holdfast.crypto import FileCipher, SealError
from holdfast.wal.format import (
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    SEALED_FIELDS_BYTES,
    SEALED_KEPT_BYTES,
    SEALED_MAGIC,
    is_alignment,
    record_bytes,
)

_FIELDS: Final = Struct("<II")
_FIXED: Final = Struct("<IIQ")
_U64: Final = Struct("<Q")
_MAGIC: Final = SEALED_MAGIC.to_bytes(4, "little")
_BUDGET: Final = 8
"""How often the bytes of a segment are opened at most."""


def open_records(
    front: bytes,
    stored: bytes,
    offset: int,
    number: int,
    salt: int,
    alignment: int,
    cipher: FileCipher,
    file: str,
) -> bytes:
    """Return `front`, and behind it the plain bytes of `stored`, a stretch of a sealed segment that
    begins with a record at byte `offset` of the file.

    `number`, `salt` and `alignment` are those of the segment. Records are opened one behind the
    other; behind the first place where none opens, wherever one opens that begins at a multiple of
    the alignment: behind damage a record still proves what is missing.

    Raises: CorruptionError for a segment that was made to take for ever; ValueError for an
    alignment that none has; OverflowError for a number that is not an unsigned 64-bit integer;
    MemoryError.
    """
    if not is_alignment(alignment):
        raise ValueError(f"the alignment is {alignment}; it must be a power of two from 8 to 4096")
    for value in (offset, number, salt):
        if not 0 <= value < 1 << 64:
            raise OverflowError("it is not an unsigned 64-bit integer")
    opener = _Opener(stored, offset, number, salt, alignment, cipher, file)
    return front + opener.run()


class _Opener:
    """What `open_records` keeps on its way."""

    def __init__(
        self,
        stored: bytes,
        offset: int,
        number: int,
        salt: int,
        alignment: int,
        cipher: FileCipher,
        file: str,
    ) -> None:
        self._stored = stored
        self._offset = offset
        self._number = number
        self._salt = salt
        self._alignment = alignment
        self._cipher = cipher
        self._file = file
        self._plain = bytearray(len(stored))
        # Opening takes time in proportion to the size that a record gives itself.
        self._budget = _BUDGET * (len(stored) + alignment)

    def run(self) -> bytearray:
        """Return the plain bytes of the stretch."""
        stored, alignment = self._stored, self._alignment
        at = 0
        while (size := self._open_at(at)) is not None:
            end = at + RECORD_HEADER_BYTES + size
            at += record_bytes(size, alignment)
            # Padding that is not zero is damage in the plain format, too.
            self._veil(end, min(at, len(stored)))
        self._veil(at, len(stored))
        at = stored.find(_MAGIC, at + alignment)
        while at >= 0:
            if at % alignment == 0:
                self._open_at(at)
            at = stored.find(_MAGIC, at + 1)
        return self._plain

    def _open_at(self, at: int) -> int | None:
        """Open the record at byte `at`; return the size of its payload, or None."""
        stored = memoryview(self._stored)
        if at > len(stored) - RECORD_HEADER_BYTES:
            return None
        fields: tuple[int, int] = _FIELDS.unpack_from(stored, at)
        magic, size = fields
        if magic != SEALED_MAGIC or size > len(stored) - RECORD_HEADER_BYTES - at:
            return None
        self._budget -= size
        if self._budget < 0:
            raise CorruptionError(
                self._file,
                self._offset + at,
                "what looks like records is not sealed, again and again",
            )
        begin, end = at + SEALED_FIELDS_BYTES, at + RECORD_HEADER_BYTES + size
        try:
            content = self._cipher.open(self._offset + at, stored[begin:end], stored[at:begin])
        except SealError:
            return None
        require(len(content) == SEALED_KEPT_BYTES + size, "a cipher keeps sizes")
        header, payload = content[:SEALED_KEPT_BYTES], content[SEALED_KEPT_BYTES:]
        front = b"".join(
            (
                _FIXED.pack(RECORD_MAGIC, size, self._number),
                header,
                _U64.pack(checksum(payload, self._salt)),
            )
        )
        self._plain[at:end] = front + _U64.pack(checksum(front, self._salt)) + payload
        return size

    def _veil(self, start: int, end: int) -> None:
        """Show zeros where a stretch of the file ends in zeros, and 0xFF before them."""
        seen = len(self._stored[start:end].rstrip(b"\x00"))
        self._plain[start : start + seen] = b"\xff" * seen
