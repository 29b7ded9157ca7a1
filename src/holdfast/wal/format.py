"""The bytes of a log segment: segment header, link and record header.

docs/format/wal.md is the specification; this module encodes and decodes exactly it. Every field
that is read is checked before it is returned, and checksums are compared before any other field is
believed.

Thread safety: pure functions and immutable values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from holdfast.base import (
    BATCH_BYTES_MAX,
    KEY_BYTES_MAX,
    SEQ_MAX,
    VALUE_BYTES_MAX,
    CorruptionError,
    FormatError,
    require,
)
from holdfast.codec import checksum

VERSION_PLAIN: Final = 1
"""Part of the file format: a segment whose link shares its sectors with zeros."""

VERSION_APART: Final = 2
"""Part of the file format: a segment whose link has its sectors to itself."""

SEGMENT_MAGIC: Final = b"\x89HFwal\r\n"
"""Part of the file format. The odd bytes show a file that went through a text conversion."""

RECORD_MAGIC: Final = 0x4C415748
"""Part of the file format: the bytes "HWAL"."""

LINK_MAGIC: Final = 0x4B4E4C48
"""Part of the file format: the bytes "HLNK"."""

SEALED_MAGIC: Final = 0x4C535748
"""Part of the file format: the bytes "HWSL", in front of a sealed record."""

SEALED_FIELDS_BYTES: Final = 8
"""What of a sealed record stands in clear: its magic and the size of its payload. Part of the file
format.
"""

SEALED_KEPT_BYTES: Final = 48
"""So much of a record's header, from byte 16 on, is sealed with its payload. Part of the file
format.
"""

BLOCK_BYTES: Final = 4096
"""The unit of a segment's size, and the header block in front of the records of most. Every
alignment divides it.
"""

FRONT_BYTES_MAX: Final = 2 * BLOCK_BYTES
"""The longest header block."""

SEGMENT_HEADER_BYTES: Final = 80
LINK_OFFSET: Final = 2048
"""The link stands in another sector than the header, so writing it cannot tear the header. Where
records are aligned to more than this, it stands at the second block: see `SegmentHeader`.
"""

LINK_BYTES: Final = 48
RECORD_HEADER_BYTES: Final = 80
END_PAYLOAD_BYTES: Final = 8

SEGMENT_BYTES_MAX: Final = 1 << 31
"""Part of the file format: holds the longest record. A segment is read whole, and a sparse file may
say that it has any size.
"""

ALIGNMENT_MIN: Final = 8
ALIGNMENT_MAX: Final = 4096
ALIGNMENT_APART_MIN: Final = 512
"""The smallest sector there is: from it on, segments are of VERSION_APART."""

LSN_MAX: Final = (1 << 63) - 1
"""The highest record ordinal; below 2**64, so that the next one can always be computed."""

_U64_MAX: Final = (1 << 64) - 1

_SEGMENT: Final = Struct("<8sIIQQ16sQQQQ")
_LINK: Final = Struct("<IIQQQQQ")
_RECORD: Final = Struct("<IIQQQQQQIB3sQQ")
_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")
_NAME: Final = re.compile(r"([0-9]{8,20})\.wal", re.ASCII)

require(_SEGMENT.size == SEGMENT_HEADER_BYTES, "the segment header is 80 bytes")
require(_LINK.size == LINK_BYTES, "the link is 48 bytes")
require(_RECORD.size == RECORD_HEADER_BYTES, "the record header is 80 bytes")
require(SEGMENT_HEADER_BYTES <= 512 <= LINK_OFFSET, "header and link lie in different sectors")
require(LINK_OFFSET + LINK_BYTES <= BLOCK_BYTES, "the link lies in the header block")
require(
    BATCH_BYTES_MAX <= SEGMENT_BYTES_MAX - FRONT_BYTES_MAX - 2 * BLOCK_BYTES,
    "a segment holds its block, the longest record and the last one, each padded",
)
require(
    KEY_BYTES_MAX + VALUE_BYTES_MAX + BLOCK_BYTES <= BATCH_BYTES_MAX,
    "a batch of one operation is never too long for a record",
)
require(BLOCK_BYTES % ALIGNMENT_MAX == 0, "records start aligned behind the header block")
require(2 * LINK_OFFSET == BLOCK_BYTES, "the link stands halfway to the first record")
require(RECORD_HEADER_BYTES % ALIGNMENT_MIN == 0, "a header never leaves half a unit of alignment")


class RecordType(IntEnum):
    """What a record's payload is. Part of the file format."""

    BATCHES = 1
    END = 2


class StopReason(IntEnum):
    """Why a scan of records ended. Numbers are not stored."""

    END_OF_SEGMENT = 1
    """Behind a valid END record."""
    END_OF_DATA = 2
    """Less than a record header is left."""
    END_OF_ZEROS = 3
    """A header of zeros: nothing was ever written there, or it did not survive."""
    BAD_HEADER = 4
    """The header checksum is wrong."""
    BAD_PAYLOAD = 5
    """The header is right, the payload's checksum or the padding behind it is not."""
    WRONG_SEGMENT = 6
    """A right header of another segment."""
    BROKEN_CHAIN = 7
    """A right header of this segment that does not continue the record before it."""
    MALFORMED = 8
    """Checksums are right and the content breaks the format."""


class Record(NamedTuple):
    """One record as a scan found it. Offsets count from the start of the scanned data."""

    lsn: int
    seq_first: int
    op_count: int
    type: int
    payload_offset: int
    payload_size: int
    durable_lsn: int
    manifest_edit: int
    header_checksum: int


class RecordHeader(NamedTuple):
    """The fields of a record header that are not constant."""

    payload_size: int
    segment: int
    lsn: int
    seq_first: int
    durable_lsn: int
    manifest_edit: int
    chain: int
    op_count: int
    type: int
    payload_checksum: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentHeader:
    """What the first bytes of a segment say."""

    version: int
    """VERSION_PLAIN or VERSION_APART. Writers take `version_for` the alignment."""
    number: int
    alignment: int
    salt: int
    database_id: bytes
    size: int
    """The size of the file, fixed when it is made."""
    previous: int
    """The segment before it, 0 for the first of a process life."""
    created_us: int

    @property
    def link_offset(self) -> int:
        """Where the link stands. Part of the file format."""
        return self.records_offset // 2

    @property
    def link_end(self) -> int:
        """Where the bytes end that writing the link puts at risk. Part of the file format."""
        own = LINK_BYTES if self.version == VERSION_PLAIN else self.alignment
        return self.link_offset + own

    @property
    def records_offset(self) -> int:
        """Where the header block ends and the first record starts. Part of the file format."""
        return records_offset(self.version, self.alignment)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentLink:
    """Where a segment joins the log: what its first record must be."""

    segment: int
    previous: int
    lsn_first: int
    chain: int


def segment_name(number: int) -> str:
    """Return the file name of segment `number`."""
    return f"{number:08d}.wal"


def parse_segment_name(name: str) -> int | None:
    """Return the number of a segment's file name, or None when it is not one that `segment_name`
    gives.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    number = int(match[1])
    return number if 0 < number <= _U64_MAX and segment_name(number) == name else None


def is_alignment(value: int) -> bool:
    """Return whether records may start at multiples of `value`."""
    return ALIGNMENT_MIN <= value <= ALIGNMENT_MAX and value & (value - 1) == 0


def version_for(alignment: int) -> int:
    """Return the version of the segments that are written with this alignment: the newer one only
    where the older one would not do.
    """
    return VERSION_APART if alignment >= ALIGNMENT_APART_MIN else VERSION_PLAIN


def records_offset(version: int, alignment: int) -> int:
    """Return where the first record of a segment stands; its link is halfway. Part of the file
    format.
    """
    is_far = version == VERSION_APART and alignment > LINK_OFFSET
    return FRONT_BYTES_MAX if is_far else BLOCK_BYTES


def align_up(size: int, alignment: int) -> int:
    """Return `size` rounded up to a multiple of `alignment`, a power of two."""
    return (size + alignment - 1) & ~(alignment - 1)


def record_bytes(payload_size: int, alignment: int) -> int:
    """Return how much of a segment a record with this payload takes, padding included."""
    # As align_up, without a call: every commit comes here.
    return (RECORD_HEADER_BYTES + payload_size + alignment - 1) & ~(alignment - 1)


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the header block of a segment, up to its first record, without a link."""
    require(is_alignment(header.alignment), "the alignment is a power of two from 8 to 4096")
    require(len(header.database_id) == 16, "a database id has 16 bytes")
    front_bytes = header.records_offset
    require(front_bytes <= header.size <= SEGMENT_BYTES_MAX, "a segment holds its header block")
    plain = _SEGMENT.pack(
        SEGMENT_MAGIC, header.version, header.alignment, header.number, header.salt,
        header.database_id, header.size, header.previous, header.created_us, 0,
    )[:-8]  # fmt: skip
    return (plain + _U64.pack(checksum(plain))).ljust(front_bytes, b"\x00")


def decode_segment_header(block: bytes, file: str) -> SegmentHeader:
    """Return the header at the front of a segment's first FRONT_BYTES_MAX bytes, or of all that it
    has.

    Raises: CorruptionError when it is damaged; FormatError when a newer version of Holdfast wrote
    it.
    """
    if len(block) < BLOCK_BYTES:
        raise CorruptionError(
            file, 0, f"the segment ends inside its header block, at byte {len(block)}"
        )
    (magic, version, alignment, number, salt, database_id, size, previous, created_us, stored) = (
        _SEGMENT.unpack_from(block)
    )
    if checksum(block[: SEGMENT_HEADER_BYTES - 8]) != stored:
        raise CorruptionError(file, 0, "the segment header does not match its checksum")
    if magic != SEGMENT_MAGIC:
        raise FormatError(f"{file}: not a Holdfast log segment")
    if version not in (VERSION_PLAIN, VERSION_APART):
        raise FormatError(
            f"{file}: log format {version}; this version of Holdfast reads up to {VERSION_APART}"
        )
    if not is_alignment(alignment) or version > version_for(alignment):
        raise CorruptionError(file, 12, f"the alignment is {alignment}")
    if number == 0:
        raise CorruptionError(file, 16, "the segment number is 0")
    header = SegmentHeader(
        version=version, number=number, alignment=alignment, salt=salt, database_id=database_id,
        size=size, previous=previous, created_us=created_us,
    )  # fmt: skip
    if not header.records_offset <= size <= SEGMENT_BYTES_MAX:
        raise CorruptionError(file, 48, f"the segment size is {size}")
    if previous >= number:
        raise CorruptionError(file, 56, f"the previous segment is {previous}, not below {number}")
    if len(block) < header.records_offset:
        raise CorruptionError(
            file, 0, f"the segment ends inside its header block, at byte {len(block)}"
        )
    if any(block[SEGMENT_HEADER_BYTES : header.link_offset]) or any(
        block[header.link_end : header.records_offset]
    ):
        raise CorruptionError(
            file, SEGMENT_HEADER_BYTES, "the header block has bytes that must be zero"
        )
    return header


def segment_header_as_stored(block: bytes) -> SegmentHeader | None:
    """Return a damaged header as it stands, or None when no record could be found with it.

    For looking at damaged files: nothing of it is known to be right.
    """
    if len(block) < SEGMENT_HEADER_BYTES:
        return None
    _, version, alignment, number, salt, database_id, size, previous, created_us, _ = (
        _SEGMENT.unpack_from(block)
    )
    if not is_alignment(alignment):
        return None
    return SegmentHeader(
        version=VERSION_PLAIN if version == VERSION_PLAIN else version_for(alignment),
        number=number, alignment=alignment, salt=salt, database_id=database_id,
        size=size, previous=previous, created_us=created_us,
    )  # fmt: skip


def encode_link(link: SegmentLink, salt: int) -> bytes:
    """Return the LINK_BYTES bytes of the link of a segment with this salt."""
    plain = _LINK.pack(LINK_MAGIC, 0, link.segment, link.previous, link.lsn_first, link.chain, 0)[
        :-8
    ]
    return plain + _U64.pack(checksum(plain, salt))


def decode_link(block: bytes, header: SegmentHeader) -> SegmentLink | None:
    """Return the link in a header block, or None when there is none, it is damaged, or it is
    another segment's.

    The three are one answer because a link is not synced before the first record behind it: a crash
    may leave nothing, or a part, and anything in the rest of its own sectors.
    """
    stored = block[header.link_offset : header.link_offset + LINK_BYTES]
    if len(stored) < LINK_BYTES or any(block[header.link_offset + LINK_BYTES : header.link_end]):
        return None
    magic, zero, segment, previous, lsn_first, chain, digest = _LINK.unpack(stored)
    if checksum(stored[:-8], header.salt) != digest or magic != LINK_MAGIC or zero != 0:
        return None
    if segment != header.number or previous != header.previous or not 0 < lsn_first <= LSN_MAX:
        return None
    return SegmentLink(segment=segment, previous=previous, lsn_first=lsn_first, chain=chain)


def encode_record_header(header: RecordHeader, salt: int) -> tuple[bytes, int]:
    """Return the RECORD_HEADER_BYTES bytes of a header and its checksum, which the next record
    chains to.
    """
    plain = _RECORD.pack(
        RECORD_MAGIC, header.payload_size, header.segment, header.lsn, header.seq_first,
        header.durable_lsn, header.manifest_edit, header.chain, header.op_count, header.type,
        b"\x00\x00\x00", header.payload_checksum, 0,
    )[:-8]  # fmt: skip
    digest = checksum(plain, salt)
    return plain + _U64.pack(digest), digest


def decode_record_header(data: memoryview, salt: int) -> tuple[RecordHeader, int] | None:
    """Return the header in these RECORD_HEADER_BYTES bytes and its checksum; None when the checksum
    is wrong.

    A right checksum says nothing about the meaning of the fields: `is_well_formed` does.
    """
    fields = _RECORD.unpack(data)
    magic, digest = fields[0], fields[-1]
    if magic != RECORD_MAGIC or checksum(data[:-8], salt) != digest:
        return None
    header = RecordHeader._make((*fields[1:10], fields[11]))
    if fields[10] != b"\x00\x00\x00":
        # Of a type that does not exist, so that `is_well_formed` refuses it.
        header = header._replace(type=0)
    return header, digest


def has_chained_records(data: bytes, segment: int, lsn: int, alignment: int) -> bool:
    """Return whether a segment whose header cannot be read, so that its salt is not known, holds
    records with an ordinal above `lsn`.

    Without the salt no checksum can be compared. But a record repeats the checksum of the one
    before it, and two neighbours of this segment that agree in that are not there by accident.
    """
    magic = _U32.pack(RECORD_MAGIC)
    place = data.find(magic, BLOCK_BYTES)
    while 0 <= place <= len(data) - RECORD_HEADER_BYTES:
        fields = _RECORD.unpack_from(data, place)
        following = place + record_bytes(fields[1], alignment)
        if (
            fields[2] == segment
            and lsn < fields[3]
            and (following <= len(data) - RECORD_HEADER_BYTES)
        ):
            then = _RECORD.unpack_from(data, following)
            expected = (RECORD_MAGIC, segment, fields[3] + 1, fields[-1])
            if (then[0], then[2], then[3], then[7]) == expected:
                return True
        place = data.find(magic, place + 1)
    return False


def is_well_formed(header: RecordHeader) -> bool:
    """Return whether a header could have been written: ranges, and the fields of its type."""
    if not 0 < header.lsn <= LSN_MAX or header.durable_lsn >= header.lsn:
        return False
    if header.type == RecordType.BATCHES:
        return (
            header.op_count > 0
            and header.payload_size > 0
            and 0 < header.seq_first <= SEQ_MAX
            and header.op_count - 1 <= SEQ_MAX - header.seq_first
        )
    return (
        header.type == RecordType.END
        and header.op_count == 0
        and header.payload_size == END_PAYLOAD_BYTES
        and header.seq_first <= SEQ_MAX + 1
    )


def encode_end(
    header: RecordHeader, salt: int, next_segment: int, alignment: int
) -> tuple[bytes, int]:
    """Return a whole END record, padded, and its header checksum.

    `header` says where it stands; its payload size, type, count and payload checksum are filled in
    here.
    """
    payload = _U64.pack(next_segment)
    filled = header._replace(
        payload_size=len(payload),
        op_count=0,
        type=RecordType.END,
        payload_checksum=checksum(payload, salt),
    )
    plain, digest = encode_record_header(filled, salt)
    return (plain + payload).ljust(record_bytes(len(payload), alignment), b"\x00"), digest
