"""Fuzz targets of the manifest: edits, whole manifest files, and the text of the settings.

Edits are changed as fields of bytes and as values; records and their chain are mended.

Thread safety: targets keep no state between executions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import fields, replace
from random import Random
from typing import Any, ClassVar

from holdfast.base import DatabaseSettings, KeyspaceSettings, LimitError
from holdfast.codec import checksum, decode_varint
from holdfast.manifest import Version, VersionEdit, decode_edit, decode_manifest, encode_edit
from holdfast.manifest.format import HEADER_BYTES, RECORD_HEADER_BYTES, Header, encode_record
from holdfast.sstable import TableInfo
from holdfast.testing.fuzz_mutate import (
    interesting,
    mutate_bytes,
    mutate_list,
    mutate_number,
    mutate_often,
    mutate_varint,
    put_varint,
)
from holdfast.testing.fuzz_oracle import DAMAGE, Target, attempt, require

DATABASE_ID = bytes(range(16))
SALT = 0x8877665544332211
NUMBER = 42
_MEBIBYTE = 1 << 20
_RECORD = struct.Struct("<IIQQQQ")

Field = tuple[int | bytes, int | bytes | None, bytes]
"""(tag, size or None for the true one, body) of an edit."""


def parse_edit(data: bytes) -> list[Field]:
    """Take an edit apart. Raises: ValueError."""
    found: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = decode_varint(data, at)
        size, at = decode_varint(data, at)
        found.append((tag, None, data[at : at + size]))
        at += size
    return found


def put_edit(edit: list[Field]) -> bytes:
    """Return the bytes of an edit."""
    return b"".join(
        put_varint(tag) + put_varint(len(body) if size is None else size) + body
        for tag, size, body in edit
    )


def mutate_edit(rng: Random, data: bytes, other: bytes) -> bytes:
    """Return another edit: changed as values, as fields, or as bytes."""
    choice = rng.random()
    if choice < 0.4:
        try:
            return encode_edit(_mutate_values(rng, decode_edit(data, "f", 0)))
        except (*DAMAGE, ValueError):
            pass
    if choice < 0.9:
        try:
            found = parse_edit(data)
        except ValueError:
            return mutate_bytes(rng, data, other)
        for _ in range(rng.choice((1, 1, 2, 3))):
            found = _mutate_fields(rng, found, other)
        return put_edit(found)
    return mutate_often(rng, data, other)


def _mutate_fields(rng: Random, found: list[Field], other: bytes) -> list[Field]:
    if not found:
        return [(rng.randrange(30), None, b"\x01")]
    choice = rng.randrange(6)
    if choice == 0:
        return mutate_list(rng, found)
    at = rng.randrange(len(found))
    tag, size, body = found[at]
    if choice == 1:
        tag = mutate_varint(rng, tag if isinstance(tag, int) else 2)
    elif choice == 2:
        size = mutate_varint(rng, len(body))
    elif choice == 3:
        tag = rng.choice(range(1, 32))
    else:
        body = mutate_bytes(rng, body, other)
    return [*found[:at], (tag, size, body), *found[at + 1 :]]


_SETTINGS = (
    KeyspaceSettings(),
    KeyspaceSettings(page_bytes=512, retention_seconds=9, compaction="fifo"),
)


def _mutate_values(rng: Random, edit: VersionEdit) -> Any:
    """Change what an edit means. The result may not fit its fields: then encoding refuses it."""
    name = rng.choice([entry.name for entry in fields(edit)])
    value = getattr(edit, name)
    if name == "clean":
        return replace(edit, clean=not value)
    if name == "has_merges":
        return replace(edit, has_merges=not value)
    if name == "settings_text":
        return replace(edit, settings_text=(value or "a = 1\n") + rng.choice(("", "x = 1\n")))
    if name == "flushed_seq":
        return replace(
            edit, flushed_seq={k: rng.choice((v, mutate_number(rng, v))) for k, v in value.items()}
        )
    if name == "keyspaces_changed":
        keys = [*value, rng.choice((0, 1, 2, 9))]
        changed = {rng.choice((k, mutate_number(rng, k))): rng.choice(_SETTINGS) for k in keys}
        return replace(edit, keyspaces_changed=changed)
    if name.endswith(("_number", "_id", "_seq", "_first", "_lsn", "_salt")):
        return _changed(edit, name, mutate_number(rng, value or 0))
    items = list(value)
    if items and rng.random() < 0.7:
        at = rng.randrange(len(items))
        items[at] = _mutate_item(rng, items[at])
    else:
        items = mutate_list(rng, items)
    return _changed(edit, name, tuple(items))


def _changed(value: Any, name: str, field: object) -> Any:
    """Return a dataclass with one field replaced, whose name is only known now."""
    return replace(value, **{name: field})


def _mutate_item(rng: Random, item: Any) -> Any:
    if isinstance(item, int):
        return mutate_number(rng, item)
    parts = list(item)
    at = rng.randrange(len(parts))
    part = parts[at]
    if isinstance(part, int):
        parts[at] = rng.choice((part + 1, part - 1 & 255, mutate_number(rng, part)))
    elif isinstance(part, str):
        parts[at] = rng.choice((part * 100, "", "default", "\u20ac", part + "x"))
    elif isinstance(part, TableInfo):
        parts[at] = _mutate_table(rng, part)
    return tuple(parts)


def _mutate_table(rng: Random, table: TableInfo) -> Any:
    name = rng.choice([entry.name for entry in fields(table)])
    value = getattr(table, name)
    if isinstance(value, int):
        return _changed(table, name, mutate_number(rng, value))
    changed = mutate_bytes(rng, value)
    return _changed(table, name, changed if name != "file_id" else (changed + bytes(16))[:16])


def _table(number: int, lower: bytes, upper: bytes, seqs: tuple[int, int]) -> TableInfo:
    return TableInfo(
        number=number, file_id=bytes([number] * 16), size_bytes=4096, lower=lower, upper=upper,
        seq_min=seqs[0], seq_max=seqs[1], entry_count=120, delete_count=2, range_tombstone_count=0,
        raw_bytes=6000, root_checksum=0x0123456789ABCDEF + number, created_us=1795348800000000,
    )  # fmt: skip


def seed_edits() -> list[VersionEdit]:
    """Return edits that follow each other: a snapshot, a flush, a move, other settings, a
    keyspace that goes.
    """
    snapshot = VersionEdit(
        keyspaces_created=((1, "default", KeyspaceSettings()), (2, "metrics", KeyspaceSettings())),
        tables_added=(
            (1, 0, _table(9, b"a", b"z", (800, 900))),
            (1, 1, _table(7, b"boot", b"k\x00", (3, 700))),
            (1, 1, _table(8, b"m", b"n", (3, 700))),
        ),
        flushed_seq={1: 900},
        next_number=44,
        next_keyspace_id=3,
        last_seq=900,
        wal_first=5,
        wal_first_lsn=990,
        durable_lsn=1000,
        settings_text=DatabaseSettings().to_text(),
    )
    flush = VersionEdit(
        tables_added=((1, 0, _table(44, b"b", b"c", (901, 950))),),
        flushed_seq={1: 950, 2: 950},
        next_number=46,
        last_seq=950,
        wal_first=45,
        wal_first_lsn=1001,
    )
    move = VersionEdit(
        tables_removed=((1, 1, 7), (1, 1, 8)),
        tables_added=((1, 2, _table(7, b"boot", b"k\x00", (3, 700))),),
        durable_lsn=1044,
    )
    tuned = VersionEdit(keyspaces_changed={1: KeyspaceSettings(level_ratio=4)})
    gone = VersionEdit(keyspaces_dropped=(2,), clean=True)
    return [snapshot, flush, move, tuned, gone, VersionEdit()]


class EditTarget:
    """Input: the payload of a manifest record. It is applied to nothing and to a version."""

    name: ClassVar[str] = "edit"
    traced: ClassVar[tuple[str, ...]] = ("manifest.edit", "manifest.version", "base.settings")

    def __init__(self) -> None:
        self._version = Version().apply(seed_edits()[0])

    def seeds(self) -> Iterable[bytes]:
        return [encode_edit(edit) for edit in seed_edits()]

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        return mutate_edit(rng, data, other)

    def run(self, data: bytes) -> Iterable[object]:
        found = attempt(DAMAGE, decode_edit, data, "f", 40)
        if found.is_error:
            return [found.feature]
        edit = found.value
        again = encode_edit(edit)
        require(decode_edit(again, "f", 40) == edit, "an edit that was written again is another")
        if again != data:
            # Only what a reader may skip or complete differs: odd tags, absent settings.
            skipped = any(isinstance(tag, int) and tag % 2 for tag, _, _ in parse_edit(data))
            settings = edit.keyspaces_created or edit.keyspaces_changed
            require(skipped or settings, "an edit is written otherwise")
        features: list[object] = []
        for version in (Version(), self._version):
            applied = attempt(ValueError, version.apply, edit)
            features.append(applied.feature)
            if not applied.is_error:
                check_version(applied.value)
        return features

    def memory_max(self, data: bytes) -> int:
        return 400 * len(data) + 8 * _MEBIBYTE


def check_version(version: Version) -> None:
    """Check the invariants of a version that `holdfast.manifest.version` lists, and that its
    snapshot makes it again.
    """
    numbers: set[int] = set()
    for keyspace in version.keyspaces.values():
        require(keyspace.id < version.next_keyspace_id, "a keyspace id that was never given")
        for level, table in keyspace.tables():
            require(table.number not in numbers, "a table is listed twice")
            numbers.add(table.number)
            require(table.number < version.next_number, "a number that was never given")
            require(table.seq_max <= keyspace.flushed_seq <= version.last_seq, "seqs contradict")
            for other in keyspace.levels[level]:
                is_apart = other is table or not table.overlaps(other.lower, other.upper)
                in_turn = level == 0 and (
                    other.seq_max < table.seq_min or table.seq_max < other.seq_min
                )
                require(is_apart or in_turn, "tables of a level overlap")
    names = [keyspace.name for keyspace in version.keyspaces.values()]
    require(len(set(names)) == len(names), "two keyspaces have one name")
    again = Version(edit_seq=version.edit_seq - 1).apply(version.snapshot_edit())
    require(again == version, "the snapshot of a version makes another")


class ManifestTarget:
    """Input: a manifest file."""

    name: ClassVar[str] = "manifest"
    traced: ClassVar[tuple[str, ...]] = (
        "manifest.reader", "manifest.format", "manifest.edit", "manifest.version",
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        payloads = [encode_edit(edit) for edit in seed_edits()]
        yield _manifest(payloads)
        yield _manifest(payloads[:1])
        yield _manifest(payloads)[:-20]
        yield _manifest(payloads) + b"HFER" + bytes(60)
        yield _manifest(payloads, alignment=512)
        yield _manifest(payloads, alignment=4096) + b"HFER" + bytes(60)

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        choice = rng.random()
        if choice < 0.1:
            return mutate_often(rng, data, other)
        if choice < 0.2 and len(data) >= HEADER_BYTES:
            head = mutate_bytes(rng, data[: HEADER_BYTES - 8]).ljust(HEADER_BYTES - 8, b"\x00")
            head = head[: HEADER_BYTES - 8]
            return head + checksum(head).to_bytes(8, "little") + data[HEADER_BYTES:]
        payloads = _payloads(data)
        if not payloads:
            return mutate_bytes(rng, data, other)
        for _ in range(rng.choice((1, 1, 2))):
            if rng.random() < 0.2:
                payloads = mutate_list(rng, payloads)
            elif payloads:
                at = rng.randrange(len(payloads))
                payloads[at] = mutate_edit(rng, payloads[at], other)
        alignment = alignment_of(data)
        if rng.random() < 0.1:
            alignment = rng.choice((8, 16, 64, 512, 4096))
        made = _manifest(payloads, rng if rng.random() < 0.3 else None, alignment)
        return mutate_bytes(rng, made, other) if rng.random() < 0.1 else made

    def run(self, data: bytes) -> Iterable[object]:
        found = attempt(DAMAGE, decode_manifest, data, "f")
        if found.is_error:
            return [found.feature]
        manifest = found.value
        salt, chain = manifest.header.salt, manifest.header.chain
        require(data[:HEADER_BYTES] == manifest.header.encode(), "a header is written otherwise")
        end = HEADER_BYTES
        for record in manifest.records:
            require(record.offset == end, "a record does not follow the one before it")
            size = int.from_bytes(data[end + 4 : end + 8], "little")
            payload = data[end + RECORD_HEADER_BYTES : end + RECORD_HEADER_BYTES + size]
            encoded, chain = encode_record(
                payload, record.edit_seq, chain, salt,
                offset=end, alignment=manifest.header.alignment,
            )  # fmt: skip
            require(data[end : end + len(encoded)] == encoded, "a record is written otherwise")
            end += len(encoded)
        require(manifest.end == end, "a manifest ends elsewhere")
        require(manifest.is_tail_cut == (end < len(data)), "a tail is overlooked")
        version = attempt(DAMAGE, manifest.version, "f")
        if not version.is_error:
            check_version(version.value)
        return [version.feature, len(manifest.records), manifest.is_tail_cut]

    def memory_max(self, data: bytes) -> int:
        return 400 * len(data) + 8 * _MEBIBYTE


def alignment_of(data: bytes) -> int:
    """Return what the records of a manifest are padded to, 8 where its header says nonsense."""
    found = int.from_bytes(data[12:16], "little")
    return found if found in {1 << bits for bits in range(4, 13)} else 8


def _payloads(data: bytes) -> list[bytes]:
    """Return the payloads of the records at the front of a manifest."""
    payloads = []
    alignment = alignment_of(data)
    at = HEADER_BYTES
    while at + RECORD_HEADER_BYTES <= len(data) and data[at : at + 4] == b"HFER":
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        payloads.append(data[at + RECORD_HEADER_BYTES : at + RECORD_HEADER_BYTES + size])
        at += RECORD_HEADER_BYTES + size
        at += -at % alignment
    return payloads


def _manifest(payloads: list[bytes], rng: Random | None = None, alignment: int = 8) -> bytes:
    """Return a manifest of these edits; with a generator one field of one record is wrong."""
    header = Header(NUMBER, DATABASE_ID, SALT, alignment)
    out, chain = header.encode(), header.chain
    broken = -1 if rng is None else rng.randrange(max(1, len(payloads)))
    for index, payload in enumerate(payloads):
        number = 8 + index
        if rng is not None and index == broken:
            choice = rng.randrange(4)
            if choice == 0:
                number = mutate_number(rng, number)
            elif choice == 1:
                chain = mutate_number(rng, chain)
            else:
                padding = -(len(out) + RECORD_HEADER_BYTES + len(payload)) % alignment
                out += _record_with(
                    rng, payload, number, chain, padding=padding, is_size_right=choice == 2
                )
                continue
        record, chain = encode_record(
            payload, number, chain, SALT, offset=len(out), alignment=alignment
        )
        out += record
    return out


def _record_with(
    rng: Random, payload: bytes, number: int, chain: int, *, padding: int, is_size_right: bool
) -> bytes:
    """Return a record whose size or padding is wrong and whose checksums are right."""
    body = payload + bytes(padding)
    size = len(payload)
    if is_size_right:
        body = payload + b"\x01" * padding
    else:
        size = mutate_number(rng, size, 32)
    head = _RECORD.pack(0x52454648, size, number, chain, checksum(body, SALT), 0)[:-8]
    return head + checksum(head, SALT).to_bytes(8, "little") + body


class SettingsTarget:
    """Input: the settings of a database as text."""

    name: ClassVar[str] = "settings"
    traced: ClassVar[tuple[str, ...]] = ("base.settings",)

    _PIECES: ClassVar[tuple[str, ...]] = (
        "memory_bytes = 1\n", "[keyspace]\n", "keyspace = 3\n", "x = 1\n", "[[keyspace]]\n",
        'compression = "none"\n', "page_bytes = 1e3\n", "level_ratio = true\n", "a.b = 1\n",
        "page_bytes = 0x10\n", "wal_alignment_bytes = 24\n", "keyspace.page_bytes = 4096\n",
        "sync_interval_ms = 2026-11-22\n", 'compression = """lz4"""\n', "{", "[", '"', "\x00",
        "a = " + "[" * 2000 + "]" * 2000 + "\n", "9" * 400, "\r\n", "\u20ac", "# note\n",
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        yield DatabaseSettings().to_text().encode()
        changed = KeyspaceSettings(compression="none", page_bytes=512, filter_bits_per_key=0)
        yield DatabaseSettings(keyspace=changed, wal_alignment_bytes=512).to_text().encode()
        yield b""

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        choice = rng.random()
        if choice < 0.5:
            piece = rng.choice(self._PIECES) * rng.choice((1, 1, 1, 40))
            at = rng.randrange(len(data) + 1)
            return data[:at] + piece.encode() + data[at:][:4096]
        if choice < 0.8:
            lines = data.split(b"\n")
            at = rng.randrange(len(lines))
            name, _, _ = lines[at].partition(b"=")
            lines[at] = name + b"= " + str(interesting(rng, 48)).encode()
            return b"\n".join(rng.choice((lines, mutate_list(rng, lines))))[:8192]
        return mutate_often(rng, data, other)[:8192]

    def run(self, data: bytes) -> Iterable[object]:
        text = data.decode("utf-8", "replace")
        found = attempt((LimitError, TypeError, ValueError), DatabaseSettings.from_text, text)
        if found.is_error:
            return [found.feature]
        again = DatabaseSettings.from_text(found.value.to_text())
        require(again == found.value, "settings that were written again are others")
        return ["ok", found.value == DatabaseSettings()]

    def memory_max(self, data: bytes) -> int:
        return 2000 * len(data) + 8 * _MEBIBYTE


TARGETS: tuple[Target, ...] = (EditTarget(), ManifestTarget(), SettingsTarget())
