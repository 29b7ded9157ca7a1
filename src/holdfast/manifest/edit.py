"""Version edits: what changed between one version of the database and the next, and their bytes.

The payload of a manifest record is one edit: fields in ascending order of their tags, each `varint
tag, varint size, body` (docs/format/manifest.md). An even tag is critical: a reader that does not
know it must refuse the file. An odd tag may be skipped. Decoding is strict:
whatever this version would not have written is rejected, every count and length is compared with
the bytes that are left, and nothing is allocated before that.

Thread safety: edits are immutable.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from itertools import pairwise
from typing import Any

from holdfast.base import CorruptionError, FormatError, KeyspaceSettings, LimitError
from holdfast.base.settings import keyspace_settings_from, stored_settings
from holdfast.codec import decode_varint, encode_varint
from holdfast.sstable import TableInfo

FILE_ID_BYTES = 16
SETTING_TEXT_BYTES_MAX = 32
"""The longest text of a setting's value."""

_U64 = struct.Struct("<Q")


class Tag(IntEnum):
    """What a field of an edit holds. Part of the file format."""

    KEYSPACE_DROPPED = 2
    KEYSPACE_CREATED = 4
    TABLE_REMOVED = 6
    TABLE_ADDED = 8
    FLUSHED_SEQ = 10
    NEXT_NUMBER = 12
    NEXT_KEYSPACE_ID = 14
    LAST_SEQ = 16
    WAL_FIRST = 18
    WAL_FIRST_LSN = 19
    DURABLE_LSN = 20
    WAL_FIRST_SALT = 21
    CLEAN = 22
    SETTINGS = 24
    HAS_MERGES = 28
    KEYSPACE_CHANGED = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionEdit:
    """One change of the database's version. `Version.apply` says what makes an edit valid.

    Fields take effect in the order in which they stand here.
    """

    keyspaces_dropped: Sequence[int] = ()
    """Ids. All tables of the keyspace leave the version with it."""
    keyspaces_created: Sequence[tuple[int, str, KeyspaceSettings]] = ()
    """(id, name, settings)."""
    tables_removed: Sequence[tuple[int, int, int]] = ()
    """(keyspace, level, number)."""
    tables_added: Sequence[tuple[int, int, TableInfo]] = ()
    """(keyspace, level, table). A table that moves is removed and added in one edit."""
    flushed_seq: Mapping[int, int] = field(default_factory=dict)
    """For a keyspace: every operation with a sequence number up to this one is in its tables."""
    next_number: int | None = None
    """Every file number below this one may be taken. Must lie above the number of every table."""
    next_keyspace_id: int | None = None
    last_seq: int | None = None
    wal_first: int | None = None
    """The first WAL segment that recovery must read."""
    wal_first_lsn: int | None = None
    """The ordinal of that segment's first record, or of the next one when it has none yet. A
    segment that is found without records has lost them when this one is durable.
    """
    durable_lsn: int | None = None
    wal_first_salt: int | None = None
    """In an encrypted database the salt of that segment, so that none of another copy of the
    database can take its place.
    """
    clean: bool = False
    """The database was closed after this edit and everything that it holds is in tables."""
    settings_text: str | None = None
    """The database's settings as TOML, as `DatabaseSettings.to_text` writes them."""
    has_merges: bool = False
    """From this edit on there may be MERGE entries in log and tables."""
    keyspaces_changed: Mapping[int, KeyspaceSettings] = field(default_factory=dict)
    """For a keyspace: what its settings are from now on. Those that are fixed do not change."""


_NUMBERS = (
    (Tag.NEXT_NUMBER, "next_number"),
    (Tag.NEXT_KEYSPACE_ID, "next_keyspace_id"),
    (Tag.LAST_SEQ, "last_seq"),
    (Tag.WAL_FIRST, "wal_first"),
    (Tag.WAL_FIRST_LSN, "wal_first_lsn"),
    (Tag.DURABLE_LSN, "durable_lsn"),
    (Tag.WAL_FIRST_SALT, "wal_first_salt"),
)
"""Fields that are one varint."""


def encode_edit(edit: VersionEdit) -> bytes:
    """Return the payload of the record that holds `edit`. Raises: ValueError when a number does not
    fit 64 bits.
    """
    out = bytearray()
    for tag, body in _encoded_fields(edit):
        out += encode_varint(tag) + encode_varint(len(body)) + body
    return bytes(out)


def _encoded_fields(edit: VersionEdit) -> Iterator[tuple[Tag, bytes]]:
    for keyspace in edit.keyspaces_dropped:
        yield Tag.KEYSPACE_DROPPED, encode_varint(keyspace)
    for keyspace, name, settings in edit.keyspaces_created:
        yield (
            Tag.KEYSPACE_CREATED,
            encode_varint(keyspace) + _text(name) + _encode_settings(settings),
        )
    for keyspace, level, number in edit.tables_removed:
        yield (
            Tag.TABLE_REMOVED,
            encode_varint(keyspace) + encode_varint(level) + encode_varint(number),
        )
    for keyspace, level, table in edit.tables_added:
        yield Tag.TABLE_ADDED, encode_varint(keyspace) + encode_varint(level) + _encode_table(table)
    for keyspace, seq in sorted(edit.flushed_seq.items()):
        yield Tag.FLUSHED_SEQ, encode_varint(keyspace) + encode_varint(seq)
    for tag, name in _NUMBERS:
        value = getattr(edit, name)
        if value is not None:
            yield tag, encode_varint(value)
    if edit.clean:
        yield Tag.CLEAN, b""
    if edit.settings_text is not None:
        yield Tag.SETTINGS, _text(edit.settings_text)
    if edit.has_merges:
        yield Tag.HAS_MERGES, b""
    for keyspace, settings in sorted(edit.keyspaces_changed.items()):
        yield Tag.KEYSPACE_CHANGED, encode_varint(keyspace) + _encode_settings(settings)


def _encode_table(table: TableInfo) -> bytes:
    if len(table.file_id) != FILE_ID_BYTES:
        raise ValueError(f"a file id has {FILE_ID_BYTES} bytes, not {len(table.file_id)}")
    return b"".join(
        (
            encode_varint(table.number),
            table.file_id,
            encode_varint(table.size_bytes),
            _sized(table.lower),
            _sized(table.upper),
            encode_varint(table.seq_min),
            encode_varint(table.seq_max),
            encode_varint(table.entry_count),
            encode_varint(table.delete_count),
            encode_varint(table.range_tombstone_count),
            encode_varint(table.raw_bytes),
            encode_varint(table.created_us),
            _U64.pack(table.root_checksum),
        )
    )


def _encode_settings(settings: KeyspaceSettings) -> bytes:
    stored = stored_settings(settings)
    return encode_varint(len(stored)) + b"".join(
        _text(name) + _text(str(stored[name])) for name in sorted(stored)
    )


def _text(text: str) -> bytes:
    return _sized(text.encode())


def _sized(data: bytes) -> bytes:
    return encode_varint(len(data)) + data


class _Reader:
    """Takes checked pieces from bytes of a file; knows where they lie in it, so that errors can say
    so.
    """

    __slots__ = ("data", "end", "file", "offset", "position")

    def __init__(self, data: bytes, start: int, end: int, file: str, offset: int) -> None:
        self.data = data
        self.position = start
        self.end = end
        self.file = file
        self.offset = offset

    def damaged(self, reason: str) -> CorruptionError:
        return CorruptionError(self.file, self.offset + self.position, reason)

    def take(self, count: int, what: str) -> bytes:
        if count > self.end - self.position:
            raise self.damaged(
                f"{what} of {count} bytes does not fit the {self.end - self.position} that are left"
            )
        piece = self.data[self.position : self.position + count]
        self.position += count
        return piece

    def varint(self, what: str) -> int:
        try:
            value, position = decode_varint(self.data, self.position)
        except ValueError:
            raise self.damaged(f"{what} is not a varint") from None
        if position > self.end:
            raise self.damaged(f"{what} is cut short")
        self.position = position
        return value

    def sized(self, what: str) -> bytes:
        return self.take(self.varint(f"the size of {what}"), what)

    def text(self, what: str) -> str:
        try:
            return self.sized(what).decode()
        except UnicodeDecodeError:
            raise self.damaged(f"{what} is not UTF-8") from None

    def inner(self, size: int) -> _Reader:
        """Return a reader of the next `size` bytes, which fit, and step over them."""
        reader = _Reader(self.data, self.position, self.position + size, self.file, self.offset)
        self.position += size
        return reader

    @property
    def left(self) -> int:
        return self.end - self.position


def decode_edit(data: bytes, file: str, offset: int) -> VersionEdit:
    """Return the edit whose payload is `data`, found at `offset` of `file`.

    Raises: FormatError for a critical tag or a setting that this version does not know;
    CorruptionError for what no version writes.
    """
    reader = _Reader(data, 0, len(data), file, offset)
    collected: dict[Tag, list[Any]] = {}
    tag_last = 0
    while reader.left:
        tag = reader.varint("the tag of a field")
        if tag < tag_last or tag == 0:
            raise reader.damaged(f"the field with tag {tag} stands after tag {tag_last}")
        size = reader.varint("the size of a field")
        if size > reader.left:
            raise reader.damaged(
                f"a field of {size} bytes does not fit the {reader.left} that are left"
            )
        body = reader.inner(size)
        known = _DECODERS.get(tag)
        if known is not None:
            if tag == tag_last and tag not in _REPEATED:
                raise body.damaged(f"the field with tag {tag} stands twice")
            collected.setdefault(Tag(tag), []).append(known(body))
            if body.left:
                raise body.damaged(f"the field with tag {tag} has {body.left} bytes too many")
        elif tag % 2 == 0:
            raise FormatError(f"{file}: edit field {tag} is of a newer version of Holdfast")
        tag_last = tag
    return _edit_from(collected, reader)


def _edit_from(collected: Mapping[Tag, list[Any]], reader: _Reader) -> VersionEdit:
    flushed = collected.get(Tag.FLUSHED_SEQ, [])
    changed = collected.get(Tag.KEYSPACE_CHANGED, [])
    for what, found in (("flushed sequence numbers", flushed), ("changed settings", changed)):
        if any(a >= b for (a, _), (b, _) in pairwise(found)):
            raise reader.damaged(f"the {what} are not in ascending order of their keyspaces")
    numbers = {name: collected[tag][0] for tag, name in _NUMBERS if tag in collected}
    return VersionEdit(
        keyspaces_dropped=tuple(collected.get(Tag.KEYSPACE_DROPPED, ())),
        keyspaces_created=tuple(collected.get(Tag.KEYSPACE_CREATED, ())),
        tables_removed=tuple(collected.get(Tag.TABLE_REMOVED, ())),
        tables_added=tuple(collected.get(Tag.TABLE_ADDED, ())),
        flushed_seq=dict(flushed),
        clean=Tag.CLEAN in collected,
        settings_text=collected.get(Tag.SETTINGS, [None])[0],
        has_merges=Tag.HAS_MERGES in collected,
        keyspaces_changed=dict(changed),
        **numbers,
    )


def _number(body: _Reader) -> int:
    return body.varint("a number")


def _created(body: _Reader) -> tuple[int, str, KeyspaceSettings]:
    return body.varint("a keyspace id"), body.text("a keyspace name"), _decode_settings(body)


def _changed(body: _Reader) -> tuple[int, KeyspaceSettings]:
    return body.varint("a keyspace id"), _decode_settings(body)


def _decode_settings(body: _Reader) -> KeyspaceSettings:
    known = {entry.name: entry.type for entry in fields(KeyspaceSettings)}
    plain: dict[str, object] = {}
    name_last = ""
    for _ in range(body.varint("the count of settings")):
        name = body.text("the name of a setting")
        if name <= name_last:
            raise body.damaged(f"the setting {name!r} stands after {name_last!r}")
        text = body.text("the value of a setting")
        if name not in known:
            raise FormatError(
                f"{body.file}: the keyspace setting {name!r} is of a newer version of Holdfast"
            )
        plain[name] = _setting_from(body, text) if known[name] == "int" else text
        name_last = name
    try:
        return keyspace_settings_from(plain)
    except LimitError as exc:
        raise body.damaged(f"a keyspace setting is out of range: {exc}") from None


def _setting_from(body: _Reader, text: str) -> int:
    plain_digits = text.isascii() and text.isdigit() and len(text) <= SETTING_TEXT_BYTES_MAX
    if not plain_digits or str(int(text)) != text:
        raise body.damaged(
            f"the value {text[:SETTING_TEXT_BYTES_MAX]!r} of a keyspace setting is not a number"
        )
    return int(text)


def _removed(body: _Reader) -> tuple[int, int, int]:
    return body.varint("a keyspace id"), body.varint("a level"), body.varint("a table number")


def _added(body: _Reader) -> tuple[int, int, TableInfo]:
    keyspace, level = body.varint("a keyspace id"), body.varint("a level")
    table = TableInfo(
        number=body.varint("a table number"),
        file_id=body.take(FILE_ID_BYTES, "a file id"),
        size_bytes=body.varint("a table size"),
        lower=body.sized("the lower bound of a table"),
        upper=body.sized("the upper bound of a table"),
        seq_min=body.varint("a sequence number"),
        seq_max=body.varint("a sequence number"),
        entry_count=body.varint("a count"),
        delete_count=body.varint("a count"),
        range_tombstone_count=body.varint("a count"),
        raw_bytes=body.varint("a count"),
        created_us=body.varint("a wall time"),
        root_checksum=_U64.unpack(body.take(_U64.size, "a checksum"))[0],
    )
    return keyspace, level, table


def _flushed(body: _Reader) -> tuple[int, int]:
    return body.varint("a keyspace id"), body.varint("a sequence number")


def _settings_text(body: _Reader) -> str:
    return body.text("the settings of the database")


def _nothing(body: _Reader) -> None:
    """The field says all by being there."""


_DECODERS: Mapping[int, Callable[[_Reader], Any]] = {
    Tag.KEYSPACE_DROPPED: _number,
    Tag.KEYSPACE_CREATED: _created,
    Tag.TABLE_REMOVED: _removed,
    Tag.TABLE_ADDED: _added,
    Tag.FLUSHED_SEQ: _flushed,
    Tag.NEXT_NUMBER: _number,
    Tag.NEXT_KEYSPACE_ID: _number,
    Tag.LAST_SEQ: _number,
    Tag.WAL_FIRST: _number,
    Tag.WAL_FIRST_LSN: _number,
    Tag.DURABLE_LSN: _number,
    Tag.WAL_FIRST_SALT: _number,
    Tag.CLEAN: _nothing,
    Tag.SETTINGS: _settings_text,
    Tag.HAS_MERGES: _nothing,
    Tag.KEYSPACE_CHANGED: _changed,
}
_REPEATED = frozenset(
    {
        Tag.KEYSPACE_DROPPED,
        Tag.KEYSPACE_CREATED,
        Tag.TABLE_REMOVED,
        Tag.TABLE_ADDED,
        Tag.FLUSHED_SEQ,
        Tag.KEYSPACE_CHANGED,
    }
)
