"""Shows a manifest: header, and what each edit changed (docs/format/manifest.md)."""

from __future__ import annotations

from holdfast.base import CorruptionError, FormatError
from holdfast.cli.dump_output import Output
from holdfast.env import File
from holdfast.manifest import (
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    Header,
    VersionEdit,
    decode_edit,
    later_record,
    record_header_at,
)
from holdfast.sstable import TableInfo

_NUMBERS = (
    "next_number",
    "next_keyspace_id",
    "last_seq",
    "wal_first",
    "wal_first_lsn",
    "wal_first_salt",
    "durable_lsn",
)


def dump_manifest(file: File, output: Output) -> None:
    """Print a manifest. Raises: FormatError for a newer version; OSError."""
    data = file.read_at(0, file.size())
    output.line("manifest", file=file.name, bytes=len(data))
    try:
        header = Header.decode(data, file.name)
        chain: int | None = header.chain
    except CorruptionError as error:
        output.damage(error.offset, error.reason)
        found = Header.as_stored(data)
        if found is None:
            return
        header, chain = found, None
    output.line(
        "header",
        number=header.number,
        database=header.database_id.hex(),
        salt=header.salt,
        alignment=header.alignment,
    )
    offset: int | None = HEADER_BYTES
    while offset is not None and offset < len(data):
        offset, chain = _record(data, offset, chain, header, file.name, output)


def _record(
    data: bytes, offset: int, chain: int | None, header: Header, name: str, output: Output
) -> tuple[int | None, int | None]:
    """Print the edit at `offset`; return where the next one stands and what it must chain to."""
    found = record_header_at(data, offset, header.salt, header.alignment)
    payload = None if found is None else found.payload(data, header.salt)
    if found is None or payload is None:
        behind = offset + (header.alignment if found is None else RECORD_HEADER_BYTES)
        later = later_record(data, behind, header.salt, header.alignment)
        what = "no record header" if found is None else "no payload"
        if later is None:
            reason = f"{what} with a right checksum: torn by a crash, or damaged"
            output.line("tail", offset=offset, reason=reason)
            return None, None
        output.damage(offset, f"{what} with a right checksum, though records follow")
        return later.offset, None
    if chain is not None and found.chain != chain:
        output.damage(offset, f"edit {found.edit_seq} does not continue the one before it")
    output.line("edit", offset=offset, number=found.edit_seq, payload_bytes=found.payload_bytes)
    try:
        _edit(decode_edit(payload, name, offset + RECORD_HEADER_BYTES), output)
    except (CorruptionError, FormatError) as error:
        output.damage(offset, getattr(error, "reason", str(error)))
    return found.end, found.own_checksum


def _edit(edit: VersionEdit, output: Output) -> None:
    for keyspace in edit.keyspaces_dropped:
        output.thing("drop keyspace", 1, keyspace=keyspace)
    for keyspace, name, settings in edit.keyspaces_created:
        output.thing(
            "new keyspace", 1, keyspace=keyspace, name=name.encode(), settings=str(settings)
        )
    for keyspace, level, number in edit.tables_removed:
        output.thing("remove table", 1, keyspace=keyspace, level=level, number=number)
    for keyspace, level, table in edit.tables_added:
        _table(keyspace, level, table, output)
    for keyspace, seq in sorted(edit.flushed_seq.items()):
        output.thing("flushed", 1, keyspace=keyspace, seq=seq)
    numbers = {name: getattr(edit, name) for name in _NUMBERS}
    numbers = {name: value for name, value in numbers.items() if value is not None}
    if numbers:
        output.thing("numbers", 1, **numbers)
    if edit.clean:
        output.thing("clean", 1)
    if edit.has_merges:
        output.thing("has merges", 1)
    if edit.settings_text is not None:
        output.thing("settings", 1, text=edit.settings_text.encode())
    for keyspace, settings in sorted(edit.keyspaces_changed.items()):
        output.thing("change keyspace", 1, keyspace=keyspace, settings=str(settings))


def _table(keyspace: int, level: int, table: TableInfo, output: Output) -> None:
    output.thing(
        "add table",
        1,
        keyspace=keyspace,
        level=level,
        number=table.number,
        bytes=table.size_bytes,
        lower=table.lower,
        upper=table.upper,
        seq_min=table.seq_min,
        seq_max=table.seq_max,
        entries=table.entry_count,
        deletes=table.delete_count,
        range_tombstones=table.range_tombstone_count,
        raw_bytes=table.raw_bytes,
        file_id=table.file_id.hex(),
        created_us=table.created_us,
    )
