"""The fuzz target of whole tables: both readers open a mutated file, look up, walk and verify.

After most mutations everything is mended bottom-up (`fuzz_table_model`), so every page is reached.
Walks in both directions that end without an error agree and are in order, whatever the file holds.
What a verification finds sound must then be read rightly: without an error, and every entry is
found by its key.

Thread safety: targets keep no state between executions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

from holdfast.base import DELETE, MERGE, PUT, SEQ_MAX, CorruptionError, pack_trailer
from holdfast.bufferpool import BufferPool
from holdfast.codec import Compression, checksum
from holdfast.sstable import PageType, TableBuilder
from holdfast.sstable.format import FOOTER_BYTES
from holdfast.testing.fuzz_mutate import (
    interesting,
    mutate_bytes,
    mutate_list,
    mutate_number,
    mutate_often,
)
from holdfast.testing.fuzz_oracle import DAMAGE, Outcome, Target, agreed, attempt, require, twins
from holdfast.testing.fuzz_table_model import (
    FOOTER,
    U64_MASK,
    UNPARSABLE,
    Node,
    Ref,
    Table,
    copy_of,
    mend_contents,
)

READERS = twins("sstable._reader")

FILE_ID = bytes(range(16))
NUMBER = 12
STAMP = 9
"""The sequence number that a manifest gives an ingested table here."""
PREFIX_ERRORS = (CorruptionError, ValueError)
"""A filter may be damaged, and have no prefixes of this length."""
_POOL_BYTES = 1 << 20
_AHEAD_BYTES = 3000
"""Less than many inputs have."""
_ENTRIES_MAX = 20_000
"""A walk that goes on for longer is one that does not end: inputs have at most 64 KiB."""


class MemoryFile:
    """A table's bytes as a file; with a descriptor, so that the compiled reader reads by itself."""

    def __init__(self, data: bytes, name: str = "f", *, has_descriptor: bool = False) -> None:
        self.name = name
        self._data = data
        self._descriptor = -1
        if has_descriptor and hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("table")
            os.pwrite(self._descriptor, data, 0)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return what is there, as a file does."""
        return self._data[offset : offset + count]

    def size(self) -> int:
        return len(self._data)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class TableTarget:
    """Input: a table file."""

    name: ClassVar[str] = "table"
    traced: ClassVar[tuple[str, ...]] = (
        "sstable._reader_py", "sstable._source_py", "sstable._page_py", "sstable.format",
        "sstable.opening", "sstable.verify",
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        yield from seed_tables()

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        choice = rng.random()
        if choice < 0.04:
            return mutate_often(rng, data, other)
        if choice < 0.15:
            return _with_footer_mended(mutate_often(rng, data, other))
        try:
            table = Table.parse(data)
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                rng.choice(_MUTATORS)(rng, table, other)
            if rng.random() < 0.4:
                mend_contents(table)
            return table.encode()[: 1 << 17]
        except (*UNPARSABLE, CorruptionError):
            return _with_footer_mended(mutate_bytes(rng, data, other))

    def run(self, data: bytes) -> Iterable[object]:
        number, file_id = NUMBER, FILE_ID
        if len(data) >= FOOTER_BYTES:
            fields = FOOTER.unpack(data[-FOOTER_BYTES:])
            file_id, number = fields[3], fields[4]
        with_descriptor = len(data) % 2 == 0
        files = [MemoryFile(data, has_descriptor=with_descriptor) for _ in READERS]
        readers: list[Any] = []
        try:
            opened = []
            for module, file in zip(READERS, files, strict=True):
                pool = BufferPool(_POOL_BYTES)
                found = attempt(DAMAGE, module.TableReader, file, number, file_id, pool)
                opened.append(found if found.is_error else Outcome(value=_facts(found.value)))
                if not found.is_error:
                    readers.append(found.value)
            first = agreed("opening a table", opened)
            if first.is_error:
                return [first.feature]
            features = _read(readers)
            _reopen(readers[0], data, number, file_id)
            if readers[0].footer.is_ingested:
                features += _read_stamped(readers[0], files, number, file_id)
            return features
        finally:
            for file in files:
                file.close()

    def memory_max(self, data: bytes) -> int:
        return 4000 * len(data) + (32 << 20)


def _facts(reader: Any) -> tuple[object, ...]:
    return (
        reader.footer,
        reader.info,
        dict(reader.properties),
        reader.range_tombstones.tombstones(),
    )


def _read_stamped(
    reader: Any, files: list[MemoryFile], number: int, file_id: bytes
) -> list[object]:
    """Read an ingested table as the manifest has it read: with a number for all entries."""
    info = replace(reader.info, seq_min=STAMP, seq_max=STAMP)
    stamped = [
        module.TableReader(file, number, file_id, BufferPool(_POOL_BYTES), info)
        for module, file in zip(READERS, files, strict=True)
    ]
    features = _read(stamped)
    walked = _walked(stamped[0], is_forward=True).value[0]
    require(all(entry[1] == STAMP for entry in walked), "an entry has a number of its own")
    return features


def _reopen(reader: Any, data: bytes, number: int, file_id: bytes) -> None:
    """Check that a table agrees with what it says itself, and not with another id or number."""
    for module in READERS:
        pool = BufferPool(_POOL_BYTES)
        known = None if reader.footer.is_ingested else reader.info
        module.TableReader(MemoryFile(data), number, file_id, pool, known)
        for other in ((number ^ 1, file_id), (number, bytes(15) + b"\x99")):
            if other != (number, file_id):
                found = attempt(DAMAGE, module.TableReader, MemoryFile(data), *other, pool)
                require(found.is_error, "a table of another number or id is taken")


def _read(readers: list[Any]) -> list[object]:
    """Read everything in every way with all twins. Requires: nothing is in their pools yet. Raises:
    Finding.
    """
    reports = [
        Outcome([(e.file, e.offset, e.reason) for e in reader.verify()]) for reader in readers
    ]
    damage = agreed("verify", reports).value
    # First, for a page in the pool would be taken from there.
    ahead = agreed(
        "a walk ahead", [_walked(r, is_forward=True, ahead_bytes=_AHEAD_BYTES) for r in readers]
    ).value
    forward = agreed("a walk", [_walked(reader, is_forward=True) for reader in readers]).value
    backward = agreed("a walk back", [_walked(r, is_forward=False) for r in readers]).value
    require(bool(damage) or ahead == forward, "a walk that reads ahead is another one")
    if forward[1] is None and backward[1] is None:
        _check_walks(forward[0], backward[0])
    probes = dict.fromkeys([entry[0] for entry in forward[0][:8] + forward[0][-4:]])
    probes.update(
        dict.fromkeys((b"", b"\xff" * 9, b"k", readers[0].info.lower, readers[0].info.upper))
    )
    for key in probes:
        for seq in (SEQ_MAX, 5, 0):
            found = [attempt(CorruptionError, reader.get, key, seq) for reader in readers]
            agreed(f"get {key!r}", found)
        agreed("may_contain", [attempt(CorruptionError, r.may_contain, key) for r in readers])
        agreed("a prefix", [attempt(PREFIX_ERRORS, r.may_contain_prefix, key[:8]) for r in readers])
        agreed("a seek", [_sought(reader, key) for reader in readers])
    if not damage:
        for reader in readers:
            _check_sound(reader, forward, backward)
    first = damage[0][2] if damage else "sound"
    return [Outcome(error=(first,)).feature, forward[1] and Outcome(error=forward[1]).feature]


def _walked(reader: Any, *, is_forward: bool, ahead_bytes: int = 0) -> Outcome:
    """Return (entries, error or None) of a walk to its end or its error; with `ahead_bytes` as a
    compaction walks.
    """
    entries: list[tuple[bytes, int, int, bytes]] = []

    def walk() -> None:
        cursor = reader.cursor(not ahead_bytes, ahead_bytes)
        more = cursor.seek_first() if is_forward else cursor.seek_last()
        while more:
            entries.append((cursor.key, cursor.seq, cursor.kind, cursor.value))
            require(len(entries) < _ENTRIES_MAX, "a walk does not end")
            more = cursor.next() if is_forward else cursor.prev()

    return Outcome((entries, attempt(CorruptionError, walk).error))


def _sought(reader: Any, key: bytes) -> Outcome:
    """Return where seeks to a key lead."""

    def seek(move: Callable[[Any], bool], then: str) -> object:
        cursor = reader.cursor()
        if not move(cursor):
            return None
        here = (cursor.key, cursor.seq, cursor.kind)
        getattr(cursor, then)()
        return here, cursor.valid and (cursor.key, cursor.seq)

    moves: list[tuple[Callable[[Any], bool], str]] = [
        (lambda cursor: bool(cursor.seek(key, 7)), "prev"),
        (lambda cursor: bool(cursor.seek_before(key)), "next"),
    ]
    return Outcome([attempt(CorruptionError, seek, move, then) for move, then in moves])


def _check_walks(
    entries: list[tuple[bytes, int, int, bytes]], backward: list[tuple[bytes, int, int, bytes]]
) -> None:
    """Check two walks that came to their end."""
    require(entries == backward[::-1], "walks that end without an error differ")
    order = [(key, -pack_trailer(seq, kind)) for key, seq, kind, _ in entries]
    require(
        all(a < b for a, b in pairwise(order)), "a walk that ends without an error is unordered"
    )


def _check_sound(
    reader: Any,
    forward: tuple[list[tuple[bytes, int, int, bytes]], object],
    backward: tuple[list[tuple[bytes, int, int, bytes]], object],
) -> None:
    """Check the answers of a table in which a verification found no damage."""
    entries, error = forward
    require(error is None and backward[1] is None, "a walk fails on a table that is sound")
    require(len(entries) == reader.info.entry_count, "a sound table counts its entries wrongly")
    newest: dict[bytes, tuple[int, int, bytes]] = {}
    for key, seq, kind, value in entries:
        newest.setdefault(key, (seq, kind, value))
        require(reader.info.lower <= key < reader.info.upper, "a key outside of the key range")
    for key, expected in newest.items():
        require(reader.get(key, SEQ_MAX) == expected, f"a sound table does not find {key!r}")
        require(reader.may_contain(key), "a filter of a sound table denies a key")
        if 0 < reader.prefix_bytes <= len(key):
            prefix = key[: reader.prefix_bytes]
            require(reader.may_contain_prefix(prefix), "a filter of a sound table denies a prefix")


def _with_footer_mended(data: bytes) -> bytes:
    """Return a file whose footer has its right checksum and size."""
    if len(data) < FOOTER_BYTES:
        return data
    footer = data[-FOOTER_BYTES:-16] + len(data).to_bytes(8, "little")
    return data[:-FOOTER_BYTES] + footer + checksum(footer).to_bytes(8, "little")


def seed_tables() -> Iterable[bytes]:
    """Yield small valid tables: of one entry, of several partitions, with every compression, with
    range tombstones alone, ingested, with filters of prefixes.
    """
    one = [(b"door/front", 6, PUT, b"open")]
    versions = [
        (b"key%03d" % (n // 3), 90 - n % 3, PUT if n % 4 else DELETE, b"v" * (n % 9))
        for n in range(60)
    ]
    spans = [(b"a", b"m", 95), (b"key005", b"z", 3), (b"key005", b"key006", 96)]
    yield _table(one, [])
    yield _table([], spans[:1])
    for compression in range(3):
        yield _table(versions, spans, compression=compression)
    # Partitions are closed at 4 KiB, so separators are long here.
    long = [(b"%03d" % n + b"p" * 290, n + 1, PUT, b"") for n in range(30)]
    yield _table(long, [], bits=4)
    yield _table(versions, [], bits=0, interval=1)
    yield _table([(b"n", 9 - n, MERGE, b"\x01%d" % n) for n in range(8)], spans)
    puts = [(b"sensor%02d/%03d" % (n // 8, n), 0, PUT, b"v" * (n % 9)) for n in range(60)]
    yield _table(puts, [], compression=1, is_ingested=True)
    yield _table(puts, [], prefix_bytes=8)


def _table(
    entries: list[tuple[bytes, int, int, bytes]],
    spans: list[tuple[bytes, bytes, int]],
    *,
    compression: int = 0,
    bits: int = 10,
    interval: int = 4,
    is_ingested: bool = False,
    prefix_bytes: int = 0,
) -> bytes:
    builder = TableBuilder(
        FILE_ID,
        page_bytes=256,
        restart_interval=interval,
        filter_bits_per_key=bits,
        compression=Compression(compression),
        is_ingested=is_ingested,
        prefix_bytes=prefix_bytes,
    )
    for key, seq, kind, value in entries:
        builder.add(key, seq, kind, value)
    for start, stop, seq in spans:
        builder.add_range_tombstone(start, stop, seq)
    builder.finish(NUMBER, 1_795_348_800_000_000)
    return bytes(builder.take_output())


# Mutators of a table that was taken apart. They raise UNPARSABLE where there is nothing to change.


def _change_page(rng: Random, table: Table, other: bytes) -> None:
    """Change one field of a page's entries, or its restart offsets."""
    node = rng.choice([node for node in table.nodes if node.page is not None])
    if node.page is not None:
        before = {id(entry): entry for entry in node.page.entries}
        node.page.mutate(rng, other)
        # Entries that a change copied refer to the same pages; a changed value is no reference.
        for entry in node.page.entries:
            if id(entry) not in before:
                twin = next(
                    (o for o in before.values() if o.value == entry.value and id(o) in node.refs),
                    None,
                )
                if twin is not None:
                    node.refs[id(entry)] = node.refs[id(twin)]


def _change_body(rng: Random, table: Table, other: bytes) -> None:
    """Change the bytes of a page's body."""
    node = rng.choice(table.nodes)
    node.body, node.page = mutate_often(rng, node.encode_body(), other), None


def _change_value(rng: Random, table: Table, other: bytes) -> None:
    """Change a value: a handle, a stop key, a property."""
    kinds = (PageType.INDEX, PageType.INDEX_ROOT, PageType.PROPERTIES, PageType.RANGE_TOMBSTONES)
    node, entry = rng.choice(list(table.entries(rng.choice(kinds))))
    node.refs.pop(id(entry), None)
    number = int.from_bytes(entry.value, "little") & U64_MASK
    entry.value = rng.choice(
        (mutate_bytes(rng, entry.value, other), mutate_number(rng, number).to_bytes(8, "little"))
    )
    entry.value_size = len(entry.value)


def _change_envelope(rng: Random, table: Table, other: bytes) -> None:
    """Change what surrounds a page."""
    node = rng.choice(table.nodes)
    choice = rng.randrange(4)
    if choice == 0:
        node.compression = rng.randrange(3)
    elif choice == 1:
        node.page_type = rng.randrange(8)
    elif choice == 2:
        node.compression = rng.randrange(1, 3)
        node.body, node.page = bytes(rng.choice((1, 300, 1 << 16))), None
    else:
        size = mutate_number(rng, len(node.encode_body()), 32)
        node.trailer = (rng.choice((0, 1, 2, 3, 128)), rng.choice((0, 0, 1)), size)


def _retarget(rng: Random, table: Table, other: bytes) -> None:
    """Let an index entry name another page: one that has another parent, a parent, itself."""
    node, entry = _indexed(rng, table)
    refs = node.refs[id(entry)]
    at = rng.randrange(len(refs))
    target = rng.choice((rng.choice(table.nodes), node, _indexed(rng, table)[0]))
    node.refs[id(entry)] = [*refs[:at], Ref(target), *refs[at + 1 :]]


def _skew_handle(rng: Random, table: Table, other: bytes) -> None:
    """Make a handle wrong by a little or by much."""
    refs = [table.root, table.tombstones, table.properties]
    if rng.random() < 0.6:
        node, entry = _indexed(rng, table)
        refs = node.refs[id(entry)] = [
            Ref(r.node, r.offset, r.size, r.checksum) for r in node.refs[id(entry)]
        ]
    ref = rng.choice(refs)
    step = rng.choice((1, -1, 16, -16, interesting(rng)))
    name = rng.choice(("offset", "size", "checksum"))
    setattr(ref, name, getattr(ref, name) + step)


def _drop_ref(rng: Random, table: Table, other: bytes) -> None:
    """Take a filter away, repeat a handle, or leave one out."""
    node, entry = _indexed(rng, table)
    refs = node.refs[id(entry)]
    node.refs[id(entry)] = rng.choice(([*refs[:1], Ref(None)], refs * 2, refs[:-1], refs[::-1]))


def _move_pages(rng: Random, table: Table, other: bytes) -> None:
    """Swap, repeat or drop pages of the file."""
    table.nodes = mutate_list(rng, table.nodes)


def _copy_page(rng: Random, table: Table, other: bytes) -> None:
    """Put a changed copy of a page into the file, and let one entry name it."""
    node, entry = _indexed(rng, table)
    refs = node.refs[id(entry)]
    copied = copy_of(refs[0].node) if refs[0].node is not None else Node(1, 0)
    if copied.page is not None:
        copied.page.mutate(rng, other)
    table.nodes.insert(rng.randrange(len(table.nodes)), copied)
    node.refs[id(entry)] = [Ref(copied), *refs[1:]]


def _change_footer(rng: Random, table: Table, other: bytes) -> None:
    choice = rng.randrange(7)
    if choice == 0:
        table.version = interesting(rng, 32)
    elif choice == 1:
        table.zero = interesting(rng, 32)
    elif choice == 2:
        table.size_added = rng.choice((1, -1, 128, -128, interesting(rng)))
    elif choice == 3:
        table.gap = rng.choice((b"\x00", bytes(16), rng.randbytes(40)))
    elif choice == 4:
        table.number = mutate_number(rng, table.number)
    elif choice == 5:
        table.magic = rng.choice((b"HFmanif\x00", b"\x89HFwal\r\n", bytes(8)))
    else:
        pages = [Ref(node) for node in table.nodes] + [Ref(None), table.root, table.tombstones]
        name = rng.choice(("root", "tombstones", "properties"))
        setattr(table, name, rng.choice(pages))


def _indexed(rng: Random, table: Table) -> tuple[Node, Any]:
    """Return an entry that holds handles, and its page."""
    kind = rng.choice((PageType.INDEX, PageType.INDEX, PageType.INDEX_ROOT))
    found = [(node, entry) for node, entry in table.entries(kind) if node.refs.get(id(entry))]
    if not found:
        raise ValueError("no entry of the table holds a handle")
    return rng.choice(found)


_MUTATORS: tuple[Callable[[Random, Table, bytes], None], ...] = (
    _change_page, _change_page, _change_page, _change_page, _change_body, _change_value,
    _change_value, _change_envelope, _retarget, _skew_handle, _drop_ref, _move_pages, _copy_page,
    _change_footer,
)  # fmt: skip

TARGETS: tuple[Target, ...] = (TableTarget(),)
