"""The fuzz target of whole databases: one file of a folder is changed, checksums are mended up to
the manifest, and then the folder is checked, opened for reading, opened for writing and written to.

The rules, beside those of `fuzz_oracle`: a folder that a check finds sound opens and reads; scans
forward, backward and by key agree; reading and writing handles show the same; what was shown
and written is there after a close and another open; what fails leaves nothing open.

An input is an archive of the folder's files: for each file the sizes of name and content as
varints, the name, and the content.

Thread safety: an execution runs in a simulated machine of its own, whose threads end with it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import ClassVar

from holdfast.base import DatabasePoisonedError, DatabaseSettings, KeyspaceSettings, MergeError
from holdfast.bufferpool import BufferPool
from holdfast.codec import checksum, decode_varint, encode_varint
from holdfast.engine import Database, Keyspace, open_database
from holdfast.env import SimEnv
from holdfast.manifest import decode_edit, encode_edit, parse_marker, parse_numbered
from holdfast.manifest.format import HEADER_BYTES, RECORD_HEADER_BYTES, encode_record
from holdfast.recovery import check_folder
from holdfast.sstable import TableInfo, TableReader
from holdfast.sstable.format import FOOTER_BYTES
from holdfast.testing.fuzz_log import Segment
from holdfast.testing.fuzz_manifest import alignment_of, mutate_edit
from holdfast.testing.fuzz_mutate import interesting, mutate_bytes, mutate_often
from holdfast.testing.fuzz_oracle import DAMAGE, Outcome, Target, attempt, require
from holdfast.testing.fuzz_table import MemoryFile, TableTarget
from holdfast.testing.fuzz_table_model import FOOTER, HANDLE
from holdfast.testing.oracle import abandon
from holdfast.testing.oracle import rows as scanned

FOLDER = "/db"
Files = dict[str, bytes]
Content = dict[str, list[tuple[bytes, bytes | None]]]
"""The rows of each keyspace; None is the value of all when merges of one cannot be folded."""

_ROWS_MAX = 50_000
_SMALL = DatabaseSettings(
    memory_bytes=256 * 1024,
    wal_segment_bytes=8192,
    wal_bytes_max=32 * 1024,
    keyspace=KeyspaceSettings(
        memtable_bytes=4096, page_bytes=256, table_bytes=4096, level1_bytes=8192
    ),
)


def put_archive(files: Files) -> bytes:
    """Return the archive of a folder."""
    out = b""
    for name, content in sorted(files.items()):
        encoded = name.encode("utf-8", "surrogateescape")
        out += encode_varint(len(encoded)) + encode_varint(len(content)) + encoded + content
    return out


def parse_archive(data: bytes) -> Files:
    """Return what can be read of an archive."""
    files: Files = {}
    at = 0
    with suppress(ValueError):
        while at < len(data):
            name_size, at = decode_varint(data, at)
            size, at = decode_varint(data, at)
            name = data[at : at + name_size].decode("utf-8", "surrogateescape")
            content = data[at + name_size : at + name_size + size]
            at += name_size + size
            if name and "/" not in name and "\0" not in name and name not in (".", "..", "LOCK"):
                files[name] = content
    return files


class FolderTarget:
    """Input: an archive of a database folder."""

    name: ClassVar[str] = "folder"
    traced: ClassVar[tuple[str, ...]] = (
        "recovery.check", "recovery.replay", "recovery.restart", "manifest.log", "manifest.reader",
        "manifest.version", "wal.reader", "sstable.opening", "sstable.verify", "lsm.tables",
        "engine.opening",
    )  # fmt: skip

    def __init__(self) -> None:
        self._table = TableTarget()

    def seeds(self) -> Iterable[bytes]:
        for work, closes in (
            (_log_only, False),
            (_tables, False),
            (_compacted, True),
            (_merged, False),
        ):
            yield put_archive(_recorded(work, closes=closes))

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        files = parse_archive(data)
        if not files:
            return mutate_bytes(rng, data, other)
        for _ in range(rng.choice((1, 1, 1, 2))):
            if files:
                self._mutate_file(rng, files, other)
        if rng.random() < 0.85:
            mend_manifest(files)
        return put_archive(files)

    def _mutate_file(self, rng: Random, files: Files, other: bytes) -> None:
        names = sorted(files)
        name = rng.choice(names)
        if rng.random() < 0.12:
            _mutate_names(rng, files, name)
            return
        content = files[name]
        if rng.random() < 0.15:
            files[name] = mutate_often(rng, content, other)
        elif name.endswith(".table"):
            files[name] = self._table.mutate(rng, content, other)
        elif name.endswith(".wal"):
            with suppress(struct.error, ValueError):
                segment = Segment.parse(content)
                segment.mutate(rng, other[:4096])
                files[name] = segment.encode()[: 1 << 16]
        elif name.endswith(".manifest"):
            files[name] = _with_payloads(
                content, lambda raw: mutate_edit(rng, raw, other[:4096]), rng
            )

    def run(self, data: bytes) -> Iterable[object]:
        files = parse_archive(data)
        checked = _checked(files)
        is_sound = checked.value == "sound"
        read = _session(files, is_sound, _read_only, DAMAGE)
        # Damage that compaction meets in the background poisons.
        written = _session(files, is_sound, _read_write, (*DAMAGE, DatabasePoisonedError))
        if is_sound:
            for found in (read, written):
                require(not found.is_error, f"a check finds a folder sound: {found.error}")
            _check_same(read.value, written.value)
        return [checked.feature, checked.value, read.feature, written.feature]

    def memory_max(self, data: bytes) -> int:
        return 2000 * len(data) + (64 << 20)


def _machine(files: Files) -> SimEnv:
    """Return a machine that has the files, synced."""
    machine = SimEnv()
    machine.make_dir(FOLDER, site="fuzz")
    for name, content in files.items():
        file = machine.create(f"{FOLDER}/{name}", site="fuzz")
        file.write_at(0, content, site="fuzz")
        file.sync(site="fuzz")
        file.close()
    machine.sync_dir(FOLDER, site="fuzz")
    return machine


def _checked(files: Files) -> Outcome:
    """Return whether a check finds damage; without a database there is nothing to check."""
    machine = _machine(files)
    found = attempt(FileNotFoundError, check_folder, machine, FOLDER)
    require(not machine.unreturned(), f"after a check: {machine.unreturned()}")
    machine.cut_power()
    if found.is_error:
        return found
    return Outcome("sound" if found.value.ok else "damaged")


def _session(
    files: Files,
    is_sound: bool,
    use: Callable[[SimEnv, bool], Content],
    documented: tuple[type[Exception], ...],
) -> Outcome:
    """Return what a use of the folder shows, or the documented error that it ends with."""
    machine = _machine(files)
    try:
        found = attempt((*documented, FileNotFoundError), use, machine, is_sound)
        require(not machine.unreturned(), f"after the end: {machine.unreturned()}")
        return found
    finally:
        # Whatever failed, no thread stays.
        machine.cut_power()


def _read_only(machine: SimEnv, is_sound: bool) -> Content:
    with open_database(FOLDER, read_only=True, env=machine) as database:
        return _content(database, is_sound)


def _read_write(machine: SimEnv, is_sound: bool) -> Content:
    """Show, write, close, open again and compare."""
    with open_database(FOLDER, create=False, env=machine) as database:
        content = _content(database, is_sound)
        database[b"~probe"] = b"1"
        report = database.verify()
    with open_database(FOLDER, create=False, env=machine) as database:
        again = _content(database, is_sound)
    if is_sound:
        content_then = {name: [*rows] for name, rows in content.items()}
        content_then["default"].append((b"~probe", b"1"))
        _check_same(content_then, again)
    if report.errors:
        raise report.errors[0]
    return content


def _content(database: Database, is_sound: bool) -> Content:
    """Return all rows of all keyspaces. Raises: Finding when a sound folder is read in two ways.

    Whoever mends the checksums of damage can make one page contradict another; what is then read is
    bounded and raises nothing else, and a check finds the contradiction.
    """
    content: Content = {}
    for name in database.keyspaces():
        keyspace = database.keyspace(name)
        try:
            content[name] = _rows(keyspace, is_sound)
        except MergeError:
            # An operand over a value that it does not fit is sound: a check looks into neither.
            content[name] = [(key, None) for key in keyspace.keys(limit=_ROWS_MAX)]
    return content


def _rows(keyspace: Keyspace, is_sound: bool) -> list[tuple[bytes, bytes | None]]:
    """Return all rows of a keyspace, see `_content`. Raises: MergeError."""
    rows = scanned(keyspace.items(limit=_ROWS_MAX))
    require(len(rows) < _ROWS_MAX, "a scan does not end")
    back = scanned(keyspace.items(reverse=True))
    keys = [key for key, _ in rows]
    values = keyspace.get_many(keys[:50])
    if is_sound:
        name = keyspace.name
        require(back == rows[::-1], f"{name}: the scan back differs")
        require(all(a < b for a, b in pairwise(keys)), f"{name}: out of order")
        require(values == [value for _, value in rows[:50]], f"{name}: point reads differ")
    return [*rows]


def _check_same(expected: Content, found: Content) -> None:
    """Check that two opens show the same, as far as both could fold what is merged."""
    require(found.keys() == expected.keys(), "another open shows other keyspaces")
    for name, rows in found.items():
        before = dict(expected[name])
        require({key for key, _ in rows} == before.keys(), "another open shows more or less")
        for key, value in rows:
            is_known = value is not None and before[key] is not None
            require(value == before[key] or not is_known, "another open shows other values")


# Mutations of a folder as such.


def _mutate_names(rng: Random, files: Files, name: str) -> None:
    """Drop, copy or rename a file, or swap the contents of two."""
    choice = rng.randrange(5)
    other = rng.choice(sorted(files))
    if choice == 0:
        del files[name]
    elif choice == 1:
        files[name], files[other] = files[other], files[name]
    elif choice == 2:
        files[name] = files[other]
    elif choice == 3:
        number = rng.choice((0, 1, 7, 99, interesting(rng)))
        suffix = rng.choice(("wal", "table", "manifest"))
        files[f"{number:08d}.{suffix}"] = files[other]
    else:
        marker = rng.choice(
            (f"CURRENT.{interesting(rng)}.{rng.randrange(9)}", "CURRENT.", "CURRENT.01.1",
             "CURRENT.9.99999999999999999999", "current.9.9", "SETTINGS", "0.wal", "x" * 255)
        )  # fmt: skip
        files[marker] = b""


def _with_payloads(content: bytes, change: Callable[[bytes], bytes], rng: Random | None) -> bytes:
    """Return a manifest whose payloads were changed: one of them, or with no generator all."""
    if len(content) < HEADER_BYTES:
        return content
    header = content[: HEADER_BYTES - 8]
    salt, chain = int.from_bytes(header[40:48], "little"), checksum(header)
    out = header + chain.to_bytes(8, "little")
    alignment = alignment_of(header)
    records = []
    at = HEADER_BYTES
    while at + RECORD_HEADER_BYTES <= len(content) and content[at : at + 4] == b"HFER":
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        edit_seq = int.from_bytes(content[at + 8 : at + 16], "little")
        payload = content[at + RECORD_HEADER_BYTES : at + RECORD_HEADER_BYTES + size]
        records.append((edit_seq, payload))
        at += RECORD_HEADER_BYTES + size
        at += -at % alignment
    chosen = -1 if rng is None or not records else rng.randrange(len(records))
    for index, (edit_seq, payload) in enumerate(records):
        changed = change(payload) if chosen in (-1, index) else payload
        record, chain = encode_record(
            changed, edit_seq, chain, salt, offset=len(out), alignment=alignment
        )
        out += record
    return out + content[at:]


def mend_manifest(files: Files) -> None:
    """Let the manifest say of each table what the table says of itself."""
    tables: dict[int, bytes] = {}
    for name, content in files.items():
        numbered = parse_numbered(name)
        if numbered is not None and numbered[1] == "table" and len(content) >= FOOTER_BYTES:
            tables[numbered[0]] = content

    def mend(payload: bytes) -> bytes:
        try:
            edit = decode_edit(payload, "f", 0)
            added = tuple(
                (keyspace, level, _mended(info, tables.get(info.number)))
                for keyspace, level, info in edit.tables_added
            )
            return encode_edit(replace(edit, tables_added=added))
        except (*DAMAGE, ValueError):
            return payload

    markers = sorted(parsed for name in files if (parsed := parse_marker(name)) is not None)
    for name in files:
        numbered = parse_numbered(name)
        is_current = not markers or numbered is None or markers[-1][1] == numbered[0]
        if numbered is not None and numbered[1] == "manifest" and is_current:
            files[name] = _with_payloads(files[name], mend, None)


def _mended(info: TableInfo, content: bytes | None) -> TableInfo:
    """Return what a table's own footer and properties say, where they can be read."""
    if content is None:
        return info
    fields = FOOTER.unpack(content[-FOOTER_BYTES:])
    root = HANDLE.unpack(fields[5])
    plain = replace(info, size_bytes=len(content), root_checksum=root[2], file_id=fields[3])
    try:
        reader = TableReader(MemoryFile(content), info.number, fields[3], BufferPool(1 << 20))  # type: ignore[arg-type]
    except (*DAMAGE, OverflowError):
        return plain
    return reader.info


# Seeds.


def _recorded(work: Callable[[Database], None], *, closes: bool) -> Files:
    """Return the files that a piece of work leaves, closed or as a killed process leaves them."""
    machine = SimEnv()
    database = open_database(FOLDER, env=machine, settings=_SMALL)
    work(database)
    if closes:
        database.close()
    files = {}
    for name in machine.list_dir(FOLDER):
        if name != "LOCK":
            file = machine.open(f"{FOLDER}/{name}")
            files[name] = file.read_at(0, file.size())
            file.close()
    abandon(machine, database)
    return files


def _fill(database: Database, rows: int, tag: bytes) -> None:
    metrics = database.keyspace("metrics", settings=replace(_SMALL.keyspace, compression="none"))
    for number in range(rows):
        # Batches of one, which take turns alike in both kinds of twins.
        database.put_many([(b"key%03d" % (number * 7 % 50), tag + b"%d" % number)])
        metrics.put_many([(b"m%03d" % number, tag * 3), (b"n%03d" % number, b"")])
    database.delete_range(b"key010", b"key015")
    key = b"key%03d" % (rows % 50)
    database.delete_range(key, key + b"\0")


def _log_only(database: Database) -> None:
    _fill(database, 12, b"a")


def _tables(database: Database) -> None:
    for tag in (b"a", b"b", b"c"):
        _fill(database, 30, tag)
        database.flush()
    _fill(database, 5, b"d")


def _merged(database: Database) -> None:
    """Operands in tables and in the log, and one over a value that it does not fit."""
    for number in range(30):
        with database.snapshot():
            # A durable one takes another number of steps in either twin, and so another time.
            database.add(b"total/%d" % (number % 3), number, durability="none")
            database.merge(b"log", "append", b"%d" % number, durability="none")
        if number % 10 == 5:
            database.flush()
    with database.transaction() as txn:
        txn.keyspace("odd")[b"text"] = b"x"
        txn.keyspace("odd").add(b"text")


def _compacted(database: Database) -> None:
    _fill(database, 40, b"a")
    database.compact()


TARGETS: tuple[Target, ...] = (FolderTarget(),)
