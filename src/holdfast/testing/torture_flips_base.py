"""The small databases that `torture_flips` damages, taken apart into pages, records and headers.

One is closed, one is left by a killed process with a log of several segments. Both have tables
with data pages of every codec, several index partitions with filters, and range tombstones. They
depend on the seed alone.

Thread safety: immutable after construction.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.codec import PageCipher
from holdfast.crypto import KEYS_PREFIX, PREAMBLE_BYTES, SEAL_BYTES
from holdfast.engine import Database, Snapshot, open_database
from holdfast.env import Env, SimEnv
from holdfast.manifest import VersionSet
from holdfast.sstable import (
    FOOTER_BYTES,
    TABLE_TAIL_BYTES,
    PageType,
    TableInfo,
    page_cipher,
    table_name,
)
from holdfast.testing import encrypted
from holdfast.testing.fuzz_table_model import Table, keys_of
from holdfast.testing.oracle import FOLDER, State, abandon, content
from holdfast.testing.torture_damage import Files, files_of, front_of, machine_with, places_of
from holdfast.wal import RECORD_HEADER_BYTES

CODECS = ("none", "lz4", "zstd")
COMMITS = 36
"""Commits after the last flush of the killed database."""

SEGMENT_HEADER_BYTES = 80
_LINK_BYTES = 48
_EDIT_HEADER_BYTES = 40
_FRAME_HEADER_BYTES = 8
_CODEC_MASK = 15
_PADDING_BYTES = 8
"""Padding up to a multiple of this belongs to its record; what is more is sampled."""
_END_TYPE_OFFSET, _END_TYPE = 60, 2
_MARKER_PREFIX = "CURRENT."

Entry = tuple[bytes, int, bytes]
"""(key, trailer, value)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A page, a header, a record or a name: what a damage is counted by."""

    name: str
    """Of the file."""
    start: int
    size: int
    kind: str
    is_sampled: bool = False
    """Whether it means nothing, so that not every bit of it is flipped."""


@dataclass(frozen=True, slots=True)
class KnownTable:
    """What is in a table, and which pages a look-up of each key has to read."""

    info: TableInfo
    entries: list[Entry]
    tombstones: list[Entry]
    lookups: dict[bytes, tuple[Entry, frozenset[int]]]
    """By key: the newest version, and the offsets of the pages on the way to it."""
    pages: list[tuple[int, int, int]]
    """Offset, size and type of each."""


@dataclass(frozen=True, slots=True)
class World:
    """A database, what it holds, and what its bytes are."""

    title: str
    files: Files
    earlier: list[Files]
    """Its files at moments before."""
    states: list[State]
    """What it may hold when the end of its log is gone; the last one is what it holds."""
    is_closed: bool
    tables: dict[str, KnownTable] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)


def _settings(codec: str) -> KeyspaceSettings:
    return KeyspaceSettings(
        page_bytes=256, restart_interval=3, compression=codec, compression_last=codec
    )


SETTINGS = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=8 << 10,
    wal_bytes_max=1 << 20,
    keyspace=_settings("none"),
)


def make_world(seed: int, *, is_closed: bool, alignment: int = 8) -> World:
    """Return a database, the same one for the same seed and alignment of its log."""
    machine = SimEnv(seed)
    settings = replace(SETTINGS, wal_alignment_bytes=alignment)
    database = open_database(FOLDER, settings=settings, env=machine, key=encrypted.key())
    earlier: list[Files] = []
    # No compaction takes away what they see, so the range tombstones stay.
    snapshots = _fill(database, seed)
    earlier.append(files_of(machine))
    states = [content(database)]
    for number in range(COMMITS):
        name = ("default", *CODECS[1:])[number % 3]
        key, value = b"key %03d" % (number * 7 % 60), b"commit %d " % number * (1 + number % 9)
        database.keyspace(name).put(key, value)
        states.append({**states[-1], name: {**states[-1][name], key: value}})
        if number % 9 == 0:
            earlier.append(files_of(machine))
    if is_closed:
        database.close()
        states = states[-1:]
    files = files_of(machine)
    for snapshot in snapshots:
        snapshot.close()
    if not is_closed:
        abandon(machine, database)
    title = "closed" if is_closed else "killed"
    tables = dict(_tables(files))
    faces = plain_faces(files)
    units = list(_units(files, faces, tables))
    return World(title, files, earlier, states, is_closed, tables, units)


def _fill(database: Database, seed: int) -> list[Snapshot]:
    """Make one table of each codec, with old versions, deletions and range tombstones; one of them
    has keys so long that it gets several partitions. Return what sees the old versions.
    """
    snapshots = []
    for codec in CODECS:
        name = "default" if codec == "none" else codec
        space = database if codec == "none" else database.keyspace(name, settings=_settings(codec))
        for number in range(30):
            space.put(b"key %03d" % number, _value(seed, number), durability="none")
        snapshots.append(database.snapshot())
        space.delete_range(b"key 004", b"key 008", durability="none")
        for number in range(10, 16):
            space.put(b"key %03d" % number, b"newer %d" % number, durability="none")
        space.delete(b"key 020", durability="none")
        if codec == "lz4":
            for number in range(22):
                key = b"long " + b"-" * 290 + b"%03d" % number
                space.put(key, _value(seed, number), durability="none")
        space.flush()
    return snapshots


def _value(seed: int, number: int) -> bytes:
    return b"value %d of %d " % (number, seed) * (1 + number % 3)


# --- taking apart


def plain_faces(files: Files) -> Env:
    """Return an env that shows the files of a database in their plain formats."""
    return encrypted.plain_face(machine_with(files), FOLDER)


def _tables(files: Files) -> Iterator[tuple[str, KnownTable]]:
    """Yield each table of the current version by its name."""
    faces = plain_faces(files)
    version = VersionSet.recover(faces, FOLDER).version
    for keyspace in version.keyspaces.values():
        for info in (info for level in keyspace.levels for info in level):
            name = table_name(info.number)
            file = faces.open(f"{FOLDER}/{name}")
            yield name, know(info, files[name][: file.size()], page_cipher(file))
            file.close()


def know(info: TableInfo, data: bytes, cipher: PageCipher | None) -> KnownTable:
    """Return what is in a sound table, found without its reader. Raises: AssertionError."""
    table = Table.parse(data, cipher)
    # A page is not sealed twice alike.
    is_made = cipher is not None or table.encode() == data
    if not is_made or table.root.node is None or table.root.node.page is None:
        raise AssertionError("a table is not what its pages make")
    entries: list[Entry] = []
    lookups: dict[bytes, tuple[Entry, frozenset[int]]] = {}
    for root_entry in table.root.node.page.entries:
        index, *filters = table.root.node.refs[id(root_entry)]
        if index.node is None or index.node.page is None:
            raise AssertionError("a partition without an index page")
        above = [index.node.place[0], *(ref.node.place[0] for ref in filters if ref.node)]
        for index_entry in index.node.page.entries:
            (ref,) = index.node.refs[id(index_entry)]
            if ref.node is None or ref.node.page is None:
                raise AssertionError("an index entry without a data page")
            for entry in keys_of(ref.node.page):
                entries.append(entry)
                lookups.setdefault(entry[0], (entry, frozenset((*above, ref.node.place[0]))))
    spans = table.tombstones.node
    tombstones = [] if spans is None or spans.page is None else keys_of(spans.page)
    pages = [(*node.place[:2], node.page_type) for node in table.nodes]
    return KnownTable(info, entries, tombstones, lookups, pages)


def _units(files: Files, faces: Env, tables: dict[str, KnownTable]) -> Iterator[Unit]:
    for name, data in sorted(files.items()):
        suffix = os.path.splitext(name)[1]
        if name in tables:
            yield from _units_of_table(name, data, tables[name])
        elif suffix == ".wal":
            file = faces.open(f"{FOLDER}/{name}")
            yield from _units_of_log(name, data, file.read_at(0, len(data)))
            file.close()
        elif suffix == ".manifest":
            yield from _units_of_manifest(name, data)
        elif name.startswith(_MARKER_PREFIX):
            yield Unit(name, 0, len(name), "marker, name")
        elif name.startswith(KEYS_PREFIX):
            yield Unit(name, 0, len(data), "key file")
        elif data:
            yield Unit(name, 0, len(data), "lock", is_sampled=True)


def _units_of_table(name: str, data: bytes, known: KnownTable) -> Iterator[Unit]:
    for start, size, page_type in known.pages:
        kind = PageType(page_type).name.lower()
        if page_type == PageType.DATA:
            # The first byte of an envelope's trailer names the codec, and whether it is sealed.
            kind += f" ({CODECS[data[start + size - 16] & _CODEC_MASK]})"
        yield Unit(name, start, size, f"table, {kind}")
    end = len(data) - (TABLE_TAIL_BYTES if encrypted.is_used() else 0)
    yield Unit(name, end - FOOTER_BYTES, FOOTER_BYTES, "table, footer")
    if end < len(data):
        yield Unit(name, end, len(data) - end, "table, tail")


def _units_of_log(name: str, data: bytes, plain: bytes) -> Iterator[Unit]:
    """Yield the units of a segment, whose records stand at the same places when they are sealed."""
    front = front_of(plain)
    header_bytes, link_bytes = SEGMENT_HEADER_BYTES, _LINK_BYTES
    if encrypted.is_used():
        header_bytes += PREAMBLE_BYTES + SEAL_BYTES
        link_bytes += SEAL_BYTES
    yield Unit(name, 0, header_bytes, "log, header")
    yield Unit(name, front.link, link_bytes, "log, link")
    between = front.link - header_bytes
    yield Unit(name, header_bytes, between, "log, unused", is_sampled=True)
    places = [at for at in places_of(name, data) if at >= front.records]
    end = front.records
    for at in places:
        end = at + RECORD_HEADER_BYTES + int.from_bytes(data[at + 4 : at + 8], "little")
        end += -end % _PADDING_BYTES
        if plain[at + _END_TYPE_OFFSET] == _END_TYPE:
            yield Unit(name, at, end - at, "log, END record")
        else:
            yield Unit(name, at, RECORD_HEADER_BYTES, "log, record header")
            yield Unit(name, at + RECORD_HEADER_BYTES, end - at - RECORD_HEADER_BYTES, "log, batch")
        if end % front.alignment:
            padding = -end % front.alignment
            yield Unit(name, end, padding, "log, padding", is_sampled=True)
            end += padding
    if end < len(data):
        yield Unit(name, end, len(data) - end, "log, unused", is_sampled=True)


def _units_of_manifest(name: str, data: bytes) -> Iterator[Unit]:
    is_sealed = encrypted.is_used()
    places = places_of(name, data)
    yield Unit(name, 0, places[0], "manifest, header")
    for at, end in zip(places, [*places[1:], len(data)], strict=True):
        kind = "snapshot" if at == places[0] else "edit"
        start = at + (_FRAME_HEADER_BYTES if is_sealed else _EDIT_HEADER_BYTES)
        stop = start + int.from_bytes(data[at + 4 : at + 8], "little")
        stop += -stop % _PADDING_BYTES
        yield Unit(name, at, start - at, f"manifest, {kind} header")
        yield Unit(name, start, stop - start, f"manifest, {kind}")
        if stop < end:
            yield Unit(name, stop, end - stop, "manifest, padding", is_sampled=True)
