"""The bytes of a manifest file around its edits: header block, records, and the names of files.

A manifest is a header block of 64 bytes and then records, back to back, each padded so that the
next one is aligned (docs/format/manifest.md draws both). Record checksums are seeded with the
file's random salt and every record names the checksum of the one before it, so a record of another
file, or one that was copied, dropped or reordered, is not a record of this place.

Everything here is a pure function of bytes. What is written here is Part of the file format.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from holdfast.base import CorruptionError, FormatError
from holdfast.codec import checksum

MAGIC = b"HFmanif\x00"
VERSION_PLAIN = 1
"""Records are padded to ALIGNMENT_MIN."""
VERSION_ALIGNED = 2
"""The header says what records are padded to, more than ALIGNMENT_MIN."""
DATABASE_ID_BYTES = 16
ALIGNMENT_MIN = 8
ALIGNMENT_MAX = 4096

_HEADER = struct.Struct("<8sIIQ16sQQ")
_U64 = struct.Struct("<Q")
HEADER_BYTES = _HEADER.size + _U64.size

RECORD_MAGIC = 0x52454648
_RECORD = struct.Struct("<IIQQQ")
RECORD_HEADER_BYTES = _RECORD.size + _U64.size
RECORD_PAYLOAD_BYTES_MAX = (1 << 32) - 1 - ALIGNMENT_MIN

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
    alignment: int = ALIGNMENT_MIN
    """Records end at multiples of this."""

    def encode(self) -> bytes:
        """Return the 64 bytes; the last 8 are the chain value of the first record."""
        is_plain = self.alignment == ALIGNMENT_MIN
        version, stored = (VERSION_PLAIN, 0) if is_plain else (VERSION_ALIGNED, self.alignment)
        body = _HEADER.pack(MAGIC, version, stored, self.number, self.database_id, self.salt, 0)
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
        _, _, alignment, number, database_id, salt, _ = _HEADER.unpack_from(data)
        return cls(
            number, database_id, salt, alignment if is_alignment(alignment) else ALIGNMENT_MIN
        )

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
        magic, version, alignment, number, database_id, salt, reserved = _HEADER.unpack_from(data)
        (stored,) = _U64.unpack_from(data, _HEADER.size)
        if magic != MAGIC:
            if not any(magic) or stored == checksum(MAGIC + data[len(MAGIC) : _HEADER.size]):
                raise CorruptionError(file, 0, "the magic of the header is damaged")
            raise FormatError(f"{file}: not a Holdfast manifest")
        if stored != checksum(data[: _HEADER.size]):
            raise CorruptionError(file, 0, "the checksum of the header does not match")
        if version > VERSION_ALIGNED:
            raise FormatError(
                f"{file}: manifest version {version}; this Holdfast reads up to {VERSION_ALIGNED}"
            )
        if version == VERSION_ALIGNED and not is_alignment(alignment):
            raise CorruptionError(file, 12, f"the alignment is {alignment}")
        if version == 0 or reserved != 0 or (version == VERSION_PLAIN and alignment != 0):
            raise CorruptionError(
                file, 0, "the header has an unknown version or reserved bytes that are not zero"
            )
        return cls(number, database_id, salt, alignment or ALIGNMENT_MIN)


def is_alignment(value: int) -> bool:
    """Return whether a header of version 2 may hold this alignment."""
    return ALIGNMENT_MIN < value <= ALIGNMENT_MAX and value & (value - 1) == 0


def encode_record(
    payload: bytes,
    edit_seq: int,
    chain: int,
    salt: int,
    *,
    offset: int = 0,
    alignment: int = ALIGNMENT_MIN,
) -> tuple[bytes, int]:
    """Return the record that stands at `offset`, padded to the next multiple of `alignment`, and
    the chain value of the next one. Raises: ValueError when the payload is too long.
    """
    if len(payload) > RECORD_PAYLOAD_BYTES_MAX:
        raise ValueError(
            f"an edit of {len(payload)} bytes exceeds the {RECORD_PAYLOAD_BYTES_MAX} of a record"
        )
    padded = payload + bytes(-(offset + RECORD_HEADER_BYTES + len(payload)) % alignment)
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
    alignment: int

    @property
    def end(self) -> int:
        """Where the next record starts. May lie behind the end of the file."""
        end = self.offset + RECORD_HEADER_BYTES + self.payload_bytes
        return end + -end % self.alignment

    def payload(self, data: bytes, salt: int) -> bytes | None:
        """Return the payload, or None when it is cut short or damaged."""
        if self.end > len(data):
            return None
        padded = data[self.offset + RECORD_HEADER_BYTES : self.end]
        if checksum(padded, salt) != self.payload_checksum or any(padded[self.payload_bytes :]):
            return None
        return padded[: self.payload_bytes]


def record_header_at(
    data: bytes, offset: int, salt: int, alignment: int = ALIGNMENT_MIN
) -> RecordHeader | None:
    """Return the record header at `offset`, or None when there is none or it is damaged."""
    if len(data) - offset < RECORD_HEADER_BYTES:
        return None
    magic, size, edit_seq, chain, payload_checksum = _RECORD.unpack_from(data, offset)
    (own,) = _U64.unpack_from(data, offset + _RECORD.size)
    if magic != RECORD_MAGIC or own != checksum(data[offset : offset + _RECORD.size], salt):
        return None
    return RecordHeader(offset, size, edit_seq, chain, payload_checksum, own, alignment)


def later_record(
    data: bytes, offset: int, salt: int, alignment: int = ALIGNMENT_MIN
) -> RecordHeader | None:
    """Return the first record header at or after `offset` that is aligned, or None.

    One such header proves that everything before it was synced, because an edit is only written
    after the sync of the one before.
    """
    at = data.find(_RECORD_MAGIC_BYTES, offset)
    while at >= 0:
        if at % alignment == 0:
            found = record_header_at(data, at, salt, alignment)
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
