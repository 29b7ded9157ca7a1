"""The bytes of a manifest file around its edits: header block, records, and the names of files.

A manifest is a header block of 64 bytes and then records, back to back, each 8-byte aligned
(docs/format/manifest.md draws both). Record checksums are seeded with the file's random salt and
every record names the checksum of the one before it, so a record of another file, or one that was
copied, dropped or reordered, is not a record of this place.

Everything here is a pure function of bytes. What is written here is Part of the file format.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from holdfast.base import CorruptionError, FormatError
from holdfast.codec import checksum

MAGIC = b"HFmanif\x00"
FORMAT_VERSION = 1
DATABASE_ID_BYTES = 16
ALIGNMENT = 8

_HEADER = struct.Struct("<8sIIQ16sQQ")
_U64 = struct.Struct("<Q")
HEADER_BYTES = _HEADER.size + _U64.size

RECORD_MAGIC = 0x52454648
_RECORD = struct.Struct("<IIQQQ")
RECORD_HEADER_BYTES = _RECORD.size + _U64.size
RECORD_PAYLOAD_BYTES_MAX = (1 << 32) - 1 - ALIGNMENT

if HEADER_BYTES != 64 or RECORD_HEADER_BYTES != 40 or len(MAGIC) != 8:  # unreachable: they fit
    raise ImportError("the struct layouts of manifest/format.py do not add up to the file format")

_RECORD_MAGIC_BYTES = struct.pack("<I", RECORD_MAGIC)


@dataclass(frozen=True, slots=True)
class Header:
    """The first 64 bytes of a manifest.

    All later versions keep the magic, the version and the checksum in these places, so that a
    damaged header is told from a newer one.
    """

    number: int
    database_id: bytes
    salt: int

    def encode(self) -> bytes:
        """Return the 64 bytes; the last 8 are the chain value of the first record."""
        body = _HEADER.pack(MAGIC, FORMAT_VERSION, 0, self.number, self.database_id, self.salt, 0)
        return body + _U64.pack(checksum(body))

    @property
    def chain(self) -> int:
        """What the first record names as the checksum before it: the header's."""
        return int(_U64.unpack_from(self.encode(), _HEADER.size)[0])

    @classmethod
    def as_stored(cls, data: bytes) -> Header | None:
        """Return a damaged header as it stands, or None when it is cut.

        For looking at damaged files: nothing of it is known to be right.
        """
        if len(data) < HEADER_BYTES:
            return None
        _, _, _, number, database_id, salt, _ = _HEADER.unpack_from(data)
        return cls(number, database_id, salt)

    @classmethod
    def decode(cls, data: bytes, file: str) -> Header:
        """Return the header at the start of `data`.

        Raises: FormatError when the magic is that of another format or the version is newer;
        CorruptionError for everything else, such as a magic of zeros, or one that is all that is
        wrong.
        """
        if len(data) < HEADER_BYTES:
            raise CorruptionError(
                file, 0, f"a manifest has at least {HEADER_BYTES} bytes; this file has {len(data)}"
            )
        magic, version, zero, number, database_id, salt, reserved = _HEADER.unpack_from(data)
        (stored,) = _U64.unpack_from(data, _HEADER.size)
        if magic != MAGIC:
            if not any(magic) or stored == checksum(MAGIC + data[len(MAGIC) : _HEADER.size]):
                raise CorruptionError(file, 0, "the magic of the header is damaged")
            raise FormatError(f"{file}: not a Holdfast manifest")
        if stored != checksum(data[: _HEADER.size]):
            raise CorruptionError(file, 0, "the checksum of the header does not match")
        if version > FORMAT_VERSION:
            raise FormatError(
                f"{file}: manifest version {version}; this Holdfast reads up to {FORMAT_VERSION}"
            )
        if version == 0 or zero != 0 or reserved != 0:
            raise CorruptionError(
                file, 0, "the header has an unknown version or reserved bytes that are not zero"
            )
        return cls(number, database_id, salt)


def encode_record(payload: bytes, edit_seq: int, chain: int, salt: int) -> tuple[bytes, int]:
    """Return a record and the chain value of the next one. Raises: ValueError when the payload is
    too long.
    """
    if len(payload) > RECORD_PAYLOAD_BYTES_MAX:
        raise ValueError(
            f"an edit of {len(payload)} bytes exceeds the {RECORD_PAYLOAD_BYTES_MAX} of a record"
        )
    padded = payload + bytes(-len(payload) % ALIGNMENT)
    body = _RECORD.pack(RECORD_MAGIC, len(payload), edit_seq, chain, checksum(padded, salt))
    own = checksum(body, salt)
    return body + _U64.pack(own) + padded, own


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The header of a record whose own checksum is right."""

    offset: int
    payload_bytes: int
    edit_seq: int
    chain: int
    payload_checksum: int
    own_checksum: int

    @property
    def end(self) -> int:
        """Where the next record starts. May lie behind the end of the file."""
        return (
            self.offset + RECORD_HEADER_BYTES + self.payload_bytes + -self.payload_bytes % ALIGNMENT
        )

    def payload(self, data: bytes, salt: int) -> bytes | None:
        """Return the payload, or None when it is cut short or damaged."""
        padded = data[self.offset + RECORD_HEADER_BYTES : self.end]
        if (
            self.end > len(data)
            or checksum(padded, salt) != self.payload_checksum
            or any(padded[self.payload_bytes :])
        ):
            return None
        return padded[: self.payload_bytes]


def record_header_at(data: bytes, offset: int, salt: int) -> RecordHeader | None:
    """Return the record header at `offset`, or None when there is none or it is damaged."""
    if len(data) - offset < RECORD_HEADER_BYTES:
        return None
    magic, size, edit_seq, chain, payload_checksum = _RECORD.unpack_from(data, offset)
    (own,) = _U64.unpack_from(data, offset + _RECORD.size)
    if magic != RECORD_MAGIC or own != checksum(data[offset : offset + _RECORD.size], salt):
        return None
    return RecordHeader(offset, size, edit_seq, chain, payload_checksum, own)


def later_record(data: bytes, offset: int, salt: int) -> RecordHeader | None:
    """Return the first record header at or after `offset`, which is aligned, or None.

    One such header proves that everything before it was synced, because an edit is only written
    after the sync of the one before.
    """
    at = data.find(_RECORD_MAGIC_BYTES, offset)
    while at >= 0:
        if at % ALIGNMENT == 0:
            found = record_header_at(data, at, salt)
            if found is not None:
                return found
        at = data.find(_RECORD_MAGIC_BYTES, at + 1)
    return None


_NUMBERED = re.compile(r"([0-9]{8,20})\.(wal|table|manifest)", re.ASCII)
_MARKER = re.compile(r"CURRENT\.([1-9][0-9]{0,19})\.([1-9][0-9]{0,19})", re.ASCII)
MARKER_PREFIX = "CURRENT."


def manifest_name(number: int) -> str:
    """Return the name of manifest `number`."""
    return f"{number:08d}.manifest"


def marker_name(iteration: int, number: int) -> str:
    """Return the name of the marker that makes manifest `number` the current one."""
    return f"{MARKER_PREFIX}{iteration}.{number}"


def parse_numbered(name: str) -> tuple[int, str] | None:
    """Return (number, kind) of a database file's name, kind being "wal", "table" or "manifest";
    None for other names.
    """
    match = _NUMBERED.fullmatch(name)
    if match is None or f"{int(match[1]):08d}" != match[1]:
        return None
    return int(match[1]), match[2]


def parse_marker(name: str) -> tuple[int, int] | None:
    """Return (iteration, manifest number) of a marker's name, or None."""
    match = _MARKER.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))
