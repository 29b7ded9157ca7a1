"""Reads a manifest file and decides about its end.

The decision, for the first place at which no intact record of this file stands:

    what stands there                      a later header is intact   verdict
    -------------------------------------  ------------------------   ---------------------------
    nothing, the file ends                 -                          the manifest ends here
    an intact header of another place      -                          CorruptionError
    anything else in the first record      -                          CorruptionError
    anything else                          yes                        CorruptionError
    anything else                          no                         a torn tail, left out

An edit is acted upon only after its sync, and only then is the next one written. So an intact later
record proves that the damaged one was whole once, and a damaged last one cannot be told from one
whose sync never completed: it is left out. The log closes that gap: its records name the highest
manifest edit known to be synced, and recovery compares that with `edit_seq`. The first record is
synced before a marker names the file, so its damage is never a torn write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.base import CorruptionError, mark
from holdfast.manifest.edit import VersionEdit, decode_edit
from holdfast.manifest.format import (
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Header,
    RecordHeader,
    later_record,
    record_header_at,
)
from holdfast.manifest.version import Version


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """One intact edit of a manifest and where it stands."""

    offset: int
    edit_seq: int
    edit: VersionEdit


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest file holds. `end` is where its last intact record ends; bytes behind it are a
    torn tail.
    """

    header: Header
    records: tuple[ManifestRecord, ...]
    end: int
    is_tail_cut: bool

    def version(self, file: str) -> Version:
        """Return the version after all edits. Raises: CorruptionError for an edit that breaks an
        invariant.
        """
        version = Version(edit_seq=self.records[0].edit_seq - 1)
        for record in self.records:
            try:
                version = version.apply(record.edit)
            except ValueError as exc:
                raise CorruptionError(
                    file, record.offset, f"edit {record.edit_seq} cannot be: {exc}"
                ) from None
        return version


def decode_manifest(data: bytes, file: str) -> Manifest:
    """Return what `data`, the whole of a manifest file, holds. Raises: FormatError,
    CorruptionError.
    """
    header = Header.decode(data, file)
    records: list[ManifestRecord] = []
    end = HEADER_BYTES
    for found, payload in _records(data, file, header):
        edit = decode_edit(payload, file, found.offset + RECORD_HEADER_BYTES)
        records.append(ManifestRecord(found.offset, found.edit_seq, edit))
        end = found.end
    if end < len(data):
        mark("manifest.tail_cut")
    return Manifest(header, tuple(records), end, end < len(data))


def _records(data: bytes, file: str, header: Header) -> Iterator[tuple[RecordHeader, bytes]]:
    offset, chain, edit_seq = HEADER_BYTES, header.chain, 0
    is_first = True
    while is_first or offset < len(data):
        found = record_header_at(data, offset, header.salt, header.alignment)
        if found is not None and (
            found.chain != chain
            or found.edit_seq == 0
            or not (is_first or found.edit_seq == edit_seq)
        ):
            raise CorruptionError(
                file, offset, f"the record of edit {found.edit_seq} does not belong here"
            )
        payload = None if found is None else found.payload(data, header.salt)
        if found is None or payload is None:
            if is_first:
                raise CorruptionError(file, offset, "the first record is damaged")
            behind = offset + header.alignment if found is None else found.end
            later = later_record(data, behind, header.salt, header.alignment)
            if later is not None:
                raise CorruptionError(
                    file,
                    offset,
                    f"a record is damaged, but it was synced: edit {later.edit_seq} follows it",
                )
            return
        yield found, payload
        offset, chain, edit_seq = found.end, found.own_checksum, found.edit_seq + 1
        is_first = False
