"""What is read when a table is opened: footer, properties and range tombstones, each compared with
what is known.

Guarantees: a file that is not the expected table, or not all of it, raises; nothing is believed
because it merely parses.

Thread safety: pure functions, but for reading the file.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.base import KEY_BYTES_MAX, PUT, CorruptionError, pack_trailer, unpack_trailer
from holdfast.cursor import RangeTombstones
from holdfast.env import File
from holdfast.sstable.format import (
    FOOTER_BYTES,
    Footer,
    TableInfo,
    decode_prefix_bytes,
    decode_properties,
    ingested_problem,
)

StoredEntry = tuple[bytes, int, bytes]
"""(key, trailer, value)."""


def read_footer(file: File, number: int, file_id: bytes, info: TableInfo | None) -> Footer:
    """Return the footer of the table with this number and id, which the manifest describes as
    `info`.

    Raises: FormatError when the file is no table or is newer; CorruptionError when it is damaged or
    another table.
    """
    size = file.size()
    if info is not None and info.size_bytes != size:
        reason = f"the file has {size} bytes; the manifest says {info.size_bytes}"
        raise CorruptionError(file.name, min(size, info.size_bytes), reason)
    at = max(0, size - FOOTER_BYTES)
    footer = Footer.decode(file.read_at(at, FOOTER_BYTES), file.name, size)
    if footer.file_id != file_id or footer.number != number:
        reason = f"the footer belongs to another file, with the number {footer.number}"
        raise CorruptionError(file.name, at, reason)
    if info is not None and info.root_checksum != footer.root.checksum:
        raise CorruptionError(
            file.name, at, "the footer names another index root than the manifest"
        )
    return footer


def read_info(
    entries: list[StoredEntry], footer: Footer, file: str, info: TableInfo | None
) -> TableInfo:
    """Return what the PROPERTIES page and the footer say; of an ingested table with the sequence
    number that the manifest gives it. Raises: CorruptionError.
    """
    at = footer.properties.offset
    try:
        found = decode_properties(footer, {name: value for name, _, value in entries})
    except ValueError as error:
        raise CorruptionError(file, at, str(error)) from None
    if footer.is_ingested:
        problem = ingested_problem(footer, found)
        if problem is None and info is not None and info.seq_min != info.seq_max:
            problem = "the manifest does not give an ingested table one sequence number"
        if problem is not None:
            raise CorruptionError(file, at, problem)
        if info is not None:
            found = replace(found, seq_min=info.seq_min, seq_max=info.seq_max)
    if info is not None and info != found:
        raise CorruptionError(file, at, "the properties differ from what the manifest says")
    return found


def read_prefix_bytes(entries: list[StoredEntry], footer: Footer, file: str) -> int:
    """Return how long the prefixes are that the filters hold. Raises: CorruptionError."""
    try:
        return decode_prefix_bytes({name: value for name, _, value in entries})
    except ValueError as error:
        raise CorruptionError(file, footer.properties.offset, str(error)) from None


def ingested_trailer(footer: Footer, info: TableInfo | None) -> int:
    """Return the trailer of all entries of an ingested table, which the manifest describes as
    `info`; 0 for another table.
    """
    if not footer.is_ingested:
        return 0
    return pack_trailer(0 if info is None else info.seq_max, PUT)


def read_tombstones(
    entries: list[StoredEntry], footer: Footer, file: str, info: TableInfo
) -> RangeTombstones:
    """Return the range tombstones of a table; `entries` is empty when it has no page of them.
    Raises: CorruptionError.
    """
    at = footer.tombstones.offset if footer.tombstones is not None else footer.properties.offset
    if len(entries) != info.range_tombstone_count:
        reason = f"{len(entries)} range tombstones; there must be {info.range_tombstone_count}"
        raise CorruptionError(file, at, reason)
    found = []
    for start, trailer, stop in entries:
        seq = unpack_trailer(trailer)[0]
        if not start < stop or len(stop) > KEY_BYTES_MAX or not info.seq_min <= seq <= info.seq_max:
            raise CorruptionError(file, at, "a range tombstone is empty or out of range")
        found.append((start, stop, seq))
    try:
        return RangeTombstones(found)
    except ValueError as error:
        raise CorruptionError(file, at, str(error)) from None
