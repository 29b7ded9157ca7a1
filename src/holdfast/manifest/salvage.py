"""Salvage: which edits of a damaged manifest can still be read.

Each record has its own checksum, seeded with the file's salt, so an edit behind damage is found by
itself. What edits say of a table, its keyspace and numbers, stays true for ever: no file number is
given twice. So edits of several manifests, in the order of their numbers, may be put
together; what they do not say is what was lost between them.

Thread safety: pure functions, but for reading files.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from holdfast.base import CorruptionError, FormatError, KeyspaceSettings
from holdfast.env import Env
from holdfast.manifest.edit import VersionEdit, decode_edit
from holdfast.manifest.format import (
    ALIGNMENT_MAX,
    ALIGNMENT_MIN,
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Header,
    later_record,
    manifest_name,
    record_header_at,
)
from holdfast.manifest.log import FILE_BYTES_MAX
from holdfast.manifest.sealed import ManifestAtRest
from holdfast.sstable import TableInfo

_ALIGNMENTS: Final = (512, ALIGNMENT_MAX)
"""What records are aligned to besides ALIGNMENT_MIN: sectors of disks."""

_PATIENCE: Final = 4
"""So many times its own bytes of a manifest are looked at as payloads. Records do not overlap; only
forged headers claim more, each of which would cost a checksum of as much as it claims.
"""


@dataclass(slots=True)
class SalvagedEdits:
    """What the edits that can be read say, together."""

    database_id: bytes = b""
    edits: list[tuple[int, VersionEdit]] = field(default_factory=list)
    """(edit number, edit), ascending."""
    newest: int = 0
    """The number of the newest manifest of which an edit can be read, 0 when there is none."""
    is_gapless: bool = False
    """Whether nothing is missing in that one before its last edit that can be read."""

    def tables(self) -> dict[int, tuple[int, int, TableInfo]]:
        """Return (keyspace, level, table) of every table that is named, by number."""
        return {
            table.number: (keyspace, level, table)
            for _, edit in self.edits
            for keyspace, level, table in edit.tables_added
        }

    def removed(self) -> set[int]:
        """Return the numbers of tables of which the last thing said is that they left."""
        gone: set[int] = set()
        for _, edit in self.edits:
            gone.update(number for _, _, number in edit.tables_removed)
            gone.difference_update(table.number for _, _, table in edit.tables_added)
        return gone

    def keyspaces(self) -> dict[int, tuple[str, KeyspaceSettings]]:
        """Return (name, settings) of every keyspace that is named and was not dropped, by id."""
        found: dict[int, tuple[str, KeyspaceSettings]] = {}
        for _, edit in self.edits:
            for dropped in edit.keyspaces_dropped:
                found.pop(dropped, None)
            for keyspace, name, settings in edit.keyspaces_created:
                found[keyspace] = (name, settings)
            for keyspace, settings in edit.keyspaces_changed.items():
                if keyspace in found:
                    found[keyspace] = (found[keyspace][0], settings)
        return found

    def dropped(self) -> set[int]:
        """Return the ids of keyspaces that were dropped."""
        return {keyspace for _, edit in self.edits for keyspace in edit.keyspaces_dropped}

    def settings_text(self) -> str | None:
        """Return the newest settings of the database, None when no edit has any."""
        texts = [edit.settings_text for _, edit in self.edits if edit.settings_text is not None]
        return texts[-1] if texts else None

    def highest(self, name: str) -> int:
        """Return the greatest value of a number that edits raise, 0 when none has it."""
        return max((getattr(edit, name) or 0 for _, edit in self.edits), default=0)


def salvage_edits(env: Env, folder: str, numbers: list[int]) -> SalvagedEdits:
    """Return what the manifests with these numbers still say. What cannot be read is left out."""
    found = SalvagedEdits()
    by_number: dict[int, VersionEdit] = {}
    for number in sorted(numbers):
        path = f"{folder}/{manifest_name(number)}"
        try:
            data = _bytes(env, path)
        except (CorruptionError, FormatError, OSError):
            continue
        header = Header.as_stored(data)
        if header is None:
            continue
        # What the records are aligned to may be what is damaged. A checksum covers the padding, so
        # a record that is whole under another alignment is one of this file, too; what the header
        # says is taken before it.
        edits: dict[int, VersionEdit] = {}
        for tried in (ALIGNMENT_MIN, *_ALIGNMENTS, header.alignment):
            edits.update(_edits(data, header.salt, tried, path))
        if edits:
            # A checksum held under the salt that stands there, so this is the header.
            found.database_id = header.database_id
            found.newest = number
            begun = record_header_at(data, HEADER_BYTES, header.salt, header.alignment)
            found.is_gapless = (
                begun is not None
                and begun.edit_seq == min(edits)
                and len(edits) == max(edits) - min(edits) + 1
            )
        by_number.update(edits)
    found.edits = sorted(by_number.items())
    return found


def _edits(data: bytes, salt: int, alignment: int, path: str) -> dict[int, VersionEdit]:
    edits = {}
    # The first record stands right behind the header, whatever the others are aligned to.
    record = record_header_at(data, HEADER_BYTES, salt, alignment)
    record = record or later_record(data, HEADER_BYTES, salt, alignment)
    left = _PATIENCE * len(data)
    while record is not None and left >= 0:
        payload = record.payload(data, salt)
        left -= min(record.payload_bytes, len(data))
        if payload is not None:
            # One that cannot be decoded although its checksum holds says nothing.
            with suppress(CorruptionError, FormatError):
                at = record.offset + RECORD_HEADER_BYTES
                edits[record.edit_seq] = decode_edit(payload, path, at)
        record = later_record(data, record.offset + ALIGNMENT_MIN, salt, alignment)
    return edits


def _bytes(env: Env, path: str) -> bytes:
    file = env.open(path)
    try:
        if isinstance(file, ManifestAtRest):
            return file.read_salvaged()
        return file.read_at(0, min(file.size(), FILE_BYTES_MAX))
    finally:
        file.close()
