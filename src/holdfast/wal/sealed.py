"""Sealed log segments: each write of the plain format is one sealed piece at the same place.

A segment has the same size, and header, link and records stand at the same bytes, sealed or not.
The header block has room for what a seal adds. A record's seal fits its header, because of what the
plain header repeats or the seal replaces: the segment's number and the two checksums are not
stored, they are put back when the record was opened.

`SealedSegment` is the plain face. It shows bytes that opened, zeros where the file has zeros, and
0xFF elsewhere: nothing that was not sealed can pass for a header, a link or a record, and what
cannot be opened looks damaged. The chain of records is inside the seals, so it holds as in the
plain format, and so do the rules for where a log ends. docs/format/sealed.md has the layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from holdfast.base import CorruptionError, require
from holdfast.crypto import (
    PREAMBLE_BYTES,
    SEAL_BYTES,
    FileCipher,
    FileKind,
    KeyRing,
    Preamble,
    SealedFile,
    SealError,
)
from holdfast.env import Buffer, File
from holdfast.wal._unseal import open_records
from holdfast.wal.format import (
    FRONT_BYTES_MAX,
    LINK_BYTES,
    RECORD_HEADER_BYTES,
    RECORD_MAGIC,
    SEALED_KEPT_BYTES,
    SEALED_MAGIC,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_segment_header,
    record_bytes,
)

_FIELDS: Final = Struct("<II")
_KEPT: Final = slice(16, 16 + SEALED_KEPT_BYTES)
"""What of a record's header is sealed."""
_HEADER_END: Final = PREAMBLE_BYTES + SEGMENT_HEADER_BYTES + SEAL_BYTES
_SEALED_LINK_BYTES: Final = LINK_BYTES + SEAL_BYTES
_ROOM_BYTES_KEPT: Final = 4 << 20
_HEADER: Final = b"header"
_LINK: Final = b"link"

require(
    _FIELDS.size + SEAL_BYTES + SEALED_KEPT_BYTES == RECORD_HEADER_BYTES,
    "a sealed record is as long as a plain one",
)


@dataclass(frozen=True, slots=True)
class _Front:
    """A header block that opened."""

    cipher: FileCipher
    header: SegmentHeader
    block: bytes
    """Its plain bytes, or as many as the file has."""


class SealedSegment(SealedFile):
    """The plain face of a sealed segment."""

    def __init__(self, file: File, ring: KeyRing) -> None:
        super().__init__(file)
        self._ring = ring
        self._preamble = b""
        self._cipher: FileCipher | None = None
        self._header: SegmentHeader | None = None
        self._rooms = memoryview(b"")

    def begin(self) -> SealedSegment:
        """Give a new segment its key."""
        preamble, self._cipher = self._ring.new_file(FileKind.LOG)
        self._preamble = preamble.encode()
        return self

    def write_at(self, offset: int, data: Buffer, *, site: str) -> None:
        # Released whatever happens: a traceback would keep the view, and with it the record buffer
        # from being changed.
        with memoryview(data) as view:
            sealed = self._sealed(offset, view)
        super().write_at(offset, sealed, site=site)

    def write_and_sync_at(self, offset: int, data: Buffer, *, site: str, sync_site: str) -> None:
        with memoryview(data) as view:
            sealed = self._sealed(offset, view)
        super().write_and_sync_at(offset, sealed, site=site, sync_site=sync_site)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return plain bytes. Requires: `offset` lies in the header block or is that of a record.

        Raises: FormatError; CorruptionError for a segment that was made to take for ever.
        """
        front = self._front()
        if front is None:
            data = super().read_at(offset, count)
            # Nothing of it can pass for anything.
            return _veiled(data, 0, len(data))
        start = front.header.records_offset
        plain = front.block[offset : offset + count] if offset < start else b""
        if count <= len(plain) or len(front.block) < start:
            return plain
        return self._records(front, plain, max(offset, start), count)

    def _sealed(self, offset: int, data: memoryview) -> Buffer:
        """Return what is stored for a write of the plain format."""
        if offset == 0:
            return self._sealed_block(data)
        cipher, header = self._cipher, self._header
        if cipher is None or header is None:  # unreachable: the header is written first
            raise AssertionError("a segment is written from its header on")
        if offset == header.link_offset:
            return cipher.seal(offset, data, _LINK)
        magic, size = _FIELDS.unpack_from(data)
        if magic == 0:
            # A record that was refused is wiped.
            require(not any(data), "what is written is a record or zeros")
            return bytes(data)
        require(
            magic == RECORD_MAGIC and len(data) == record_bytes(size, header.alignment),
            "a record is written whole",
        )
        end = RECORD_HEADER_BYTES + size
        content, stored = self._room(SEALED_KEPT_BYTES + size, len(data))
        content[:SEALED_KEPT_BYTES] = data[_KEPT]
        content[SEALED_KEPT_BYTES:] = data[RECORD_HEADER_BYTES:end]
        fields = _FIELDS.pack(SEALED_MAGIC, size)
        stored[: _FIELDS.size] = fields
        cipher.seal_into(offset, content, fields, stored[_FIELDS.size : end])
        stored[end:] = bytes(len(data) - end)
        return stored

    def _room(self, content_bytes: int, stored_bytes: int) -> tuple[memoryview, memoryview]:
        """Return memory for what a record seals, and for what is stored of it. The next call gives
        the same: new memory of this size is cleared by the system, page by page.
        """
        room, need = self._rooms, content_bytes + stored_bytes
        if len(room) < need:
            room = memoryview(bytearray(need))
            if need <= _ROOM_BYTES_KEPT:
                self._rooms = room
        return room[:content_bytes], room[content_bytes:need]

    def _sealed_block(self, block: memoryview) -> bytes:
        cipher = self._cipher
        if cipher is None:  # unreachable: only a new segment is written to
            raise AssertionError("a segment that was opened is not written to")
        header = self._header = decode_segment_header(bytes(block), self.name)
        stored = bytearray(block)
        sealed = cipher.seal(0, block[:SEGMENT_HEADER_BYTES], _HEADER)
        stored[:_HEADER_END] = self._preamble + sealed
        at = header.link_offset
        link = block[at : at + LINK_BYTES]
        if any(link):
            stored[at : at + _SEALED_LINK_BYTES] = cipher.seal(at, link, _LINK)
        return bytes(stored)

    def _front(self) -> _Front | None:
        """Return the header block; None when it does not open, as that of a segment which is being
        prepared does not. Raises: FormatError.
        """
        data = super().read_at(0, FRONT_BYTES_MAX)
        try:
            preamble = Preamble.decode(data[:PREAMBLE_BYTES], FileKind.LOG, self.name, 0)
            cipher = self._ring.opened_file(preamble, self.name, 0)
            plain = cipher.open(0, data[PREAMBLE_BYTES:_HEADER_END], _HEADER)
            header = decode_segment_header(plain.ljust(FRONT_BYTES_MAX, b"\x00"), self.name)
        except (CorruptionError, SealError):
            return None
        at = header.link_offset
        link = data[at : at + _SEALED_LINK_BYTES]
        try:
            link = cipher.open(at, link, _LINK)
        except SealError:
            # There is none yet, or a crash tore it: both look like none.
            link = b""
        behind = at + _SEALED_LINK_BYTES
        block = (
            plain.ljust(_HEADER_END, b"\x00")
            + _veiled(data, _HEADER_END, at)
            + link.ljust(_SEALED_LINK_BYTES, b"\x00")
            + _veiled(data, behind, header.records_offset)
        )
        return _Front(cipher, header, block[: min(len(data), header.records_offset)])

    def _records(self, front: _Front, before: bytes, offset: int, count: int) -> bytes:
        """Return `count` plain bytes, or as many as there are: `before`, and what follows, which
        are records from `offset` on. The last one is read to its end to be opened, however few
        bytes of it are asked for.
        """
        header = front.header
        wanted = count - len(before)
        stored = super().read_at(offset, wanted)
        missing = _missing(stored, header.size - offset)
        if missing:
            stored += super().read_at(offset + wanted, missing)
        plain = open_records(
            before, stored, offset, header.number, header.salt, header.alignment, front.cipher,
            self.name,
        )  # fmt: skip
        return plain[:count]


def _missing(stored: bytes, left: int) -> int:
    """Return how many bytes are missing of a single record that was not read whole; `left` bytes
    of the segment are there.
    """
    if not _FIELDS.size <= len(stored) <= RECORD_HEADER_BYTES:
        return 0
    magic, size = _FIELDS.unpack_from(stored)
    whole: int = RECORD_HEADER_BYTES + size
    if magic != SEALED_MAGIC or whole > left:
        return 0
    return max(whole - len(stored), 0)


def _veiled(data: bytes, start: int, end: int) -> bytes:
    """Return zeros where a stretch of the data ends in zeros, and 0xFF before them."""
    part = data[start:end]
    return (b"\xff" * len(part.rstrip(b"\x00"))).ljust(len(part), b"\x00")


def is_sealed(file: File) -> bool:
    """Return whether a segment's file is sealed."""
    return isinstance(file, SealedSegment)


class LogSealing:
    """How log segments are sealed. Implements `Sealing`."""

    def created(self, file: File, ring: KeyRing) -> File:
        return SealedSegment(file, ring).begin()

    def opened(self, file: File, ring: KeyRing) -> File:
        return SealedSegment(file, ring)

    def plain_size(self, size: int) -> int:
        return size
