"""A table file taken apart into pages that refer to each other, to be changed and put together
again.

`Table.encode` mends bottom-up what a change broke: it seals the pages, lays them out in the order
of the list, writes each reference to a page as that page's true offset, size and checksum, and then
root handles and footer. So a damaged page is reached by a reader as if a writer had written it.
What a mutation wants to be wrong is wrong on purpose: a reference carries what is added to the
truth, the footer what replaces it.

A reference to a page that is laid out later, or to the page it stands in, cannot have the true
checksum; its offset and size are true.

Thread safety: a table belongs to one thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from holdfast.base import DELETE, unpack_trailer
from holdfast.codec import (
    PageCipher,
    checksum,
    decode_varint,
    encode_varint,
    open_page,
    page_seed,
    seal_page,
)
from holdfast.sstable import FilterBuilder, PageType
from holdfast.sstable.format import (
    FOOTER_BYTES,
    MAGIC,
    PREFIX_PROPERTY,
    PREFIX_SEED,
    key_range,
)
from holdfast.testing.fuzz_page import Entry, EntryPage

FOOTER = struct.Struct("<8sII16sQ24s24s24sQQ")
HANDLE = struct.Struct("<QQQ")
U64_MASK = (1 << 64) - 1
UNPARSABLE = (ValueError, IndexError, struct.error, KeyError)
"""What taking apart bytes that are no table may raise, CorruptionError aside."""

_PAGES_MAX = 400


@dataclass(slots=True)
class Ref:
    """A handle in the making: of `node`, with something added to each of its fields."""

    node: Node | None
    offset: int = 0
    size: int = 0
    checksum: int = 0

    def fields(self) -> tuple[int, int, int]:
        """Return what the handle says."""
        base = (0, 0, 0) if self.node is None else self.node.place
        own = (self.offset, self.size, self.checksum)
        one, two, three = ((a + b) & U64_MASK for a, b in zip(base, own, strict=True))
        return one, two, three

    def encode(self) -> bytes:
        """Return the bytes of a handle in an index entry."""
        offset, size, digest = self.fields()
        return encode_varint(offset) + encode_varint(size) + digest.to_bytes(8, "little")


@dataclass(slots=True, eq=False)
class Node:
    """One page: its body, as fields or as bytes, and its envelope."""

    page_type: int
    compression: int
    page: EntryPage | None = None
    body: bytes = b""
    """The body where `page` is None."""
    refs: dict[int, list[Ref]] = field(default_factory=dict)
    """By the identity of an entry: the handles that are its value."""
    place: tuple[int, int, int] = (0, 0, 0)
    trailer: tuple[int, int, int] | None = None
    """(compression, zero, body length) that replace the true ones in the sealed page."""

    def encode_body(self) -> bytes:
        """Return the body, references resolved."""
        if self.page is None:
            return self.body
        for entry in self.page.entries:
            handles = self.refs.get(id(entry))
            if handles is not None:
                size = len(entry.value)
                entry.value = b"".join(ref.encode() for ref in handles)
                if entry.value_size == size:
                    entry.value_size = len(entry.value)
        return self.page.encode()


@dataclass(slots=True)
class Table:
    """The pages in the order of the file, and the footer."""

    file_id: bytes
    number: int
    nodes: list[Node]
    root: Ref
    tombstones: Ref
    properties: Ref
    magic: bytes = MAGIC
    version: int = 1
    zero: int = 0
    size_added: int = 0
    gap: bytes = b""
    """Bytes between the last page and the footer."""

    @classmethod
    def parse(cls, data: bytes, cipher: PageCipher | None = None) -> Table:
        """Take a table apart, one with sealed pages by their cipher; such a one cannot be put
        together again. Raises: CorruptionError and UNPARSABLE when it is none.
        """
        return _Parser(data, cipher).table()

    def of_type(self, page_type: int) -> list[Node]:
        """Return the pages of one type, in the order of the file."""
        return [node for node in self.nodes if node.page_type == page_type]

    def encode(self) -> bytes:
        """Return the file, with everything mended that was not broken on purpose."""
        out = b""
        # References forward find their places in the second pass.
        for _ in range(2):
            pieces = []
            at = 0
            for node in self.nodes:
                stored = self._seal(node, at)
                node.place = (at, len(stored), int.from_bytes(stored[-8:], "little"))
                pieces.append(stored)
                at += len(stored)
            out = b"".join(pieces)
        out += self.gap
        size = len(out) + FOOTER_BYTES + self.size_added
        handles = (HANDLE.pack(*r.fields()) for r in (self.root, self.tombstones, self.properties))
        footer = FOOTER.pack(
            self.magic, self.version, self.zero, self.file_id, self.number, *handles,
            size & U64_MASK, 0,
        )[:-8]  # fmt: skip
        return out + footer + checksum(footer).to_bytes(8, "little")

    def _seal(self, node: Node, at: int) -> bytes:
        seed = page_seed(self.file_id, at)
        stored = seal_page(node.encode_body(), node.page_type, node.compression, seed)
        if node.trailer is not None:
            compression, zero, size = node.trailer
            fields = struct.pack("<BBHI", compression, node.page_type, zero, size)
            stored = stored[:-16] + fields
            stored += checksum(stored, seed).to_bytes(8, "little")
        return stored

    def entries(self, page_type: int) -> Iterator[tuple[Node, Entry]]:
        """Yield the entries of all pages of a type, with their pages."""
        for node in self.of_type(page_type):
            if node.page is not None:
                for entry in node.page.entries:
                    yield node, entry


class _Parser:
    def __init__(self, data: bytes, cipher: PageCipher | None) -> None:
        self._data = data
        self._cipher = cipher
        magic, version, zero, file_id, number, *handles, _, _ = FOOTER.unpack(data[-FOOTER_BYTES:])
        self._file_id = file_id
        self._fixed = (magic, version, zero, number)
        self._handles = [HANDLE.unpack(packed) for packed in handles]
        self._nodes: dict[int, Node] = {}

    def table(self) -> Table:
        refs = []
        for (offset, size, digest), kind in zip(
            self._handles,
            (PageType.INDEX_ROOT, PageType.RANGE_TOMBSTONES, PageType.PROPERTIES),
            strict=True,
        ):
            refs.append(Ref(None) if size == 0 else self._ref(offset, size, digest, kind))
        magic, version, zero, number = self._fixed
        nodes = [self._nodes[offset] for offset in sorted(self._nodes)]
        root, tombstones, properties = refs
        return Table(
            self._file_id, number, nodes, root, tombstones, properties, magic, version, zero
        )

    def _ref(self, offset: int, size: int, digest: int, kind: int) -> Ref:
        """Return a reference to the page at a place, taking the page apart when it is new."""
        if size == 0:
            return Ref(None)
        node = self._nodes.get(offset)
        if node is None:
            stored = self._data[offset : offset + size]
            seed = page_seed(self._file_id, offset)
            page_type, body = open_page(stored, seed, "", offset, self._cipher)
            node = Node(page_type, stored[-16], body=body)
            node.place = (offset, size, int.from_bytes(stored[-8:], "little"))
            if len(self._nodes) >= _PAGES_MAX:
                raise ValueError("too many pages to take apart")
            self._nodes[offset] = node
            if page_type != PageType.FILTER:
                node.page = EntryPage.parse(body)
            if page_type in (PageType.INDEX, PageType.INDEX_ROOT) and node.page is not None:
                for entry in node.page.entries:
                    node.refs[id(entry)] = self._refs_of(entry.value)
        true = node.place
        return Ref(node, offset - true[0], size - true[1], digest - true[2])

    def _refs_of(self, value: bytes) -> list[Ref]:
        refs = []
        at = 0
        while at < len(value):
            offset, at = decode_varint(value, at)
            size, at = decode_varint(value, at)
            refs.append(self._ref(offset, size, int.from_bytes(value[at : at + 8], "little"), 0))
            at += 8
        return refs


def mend_contents(table: Table) -> None:
    """Make separators, filters and properties describe the entries again.

    A table that was changed in its data is then one that a verification may find sound, and the
    reader has to give right answers from it. Raises: UNPARSABLE when the pages do not allow it.
    """
    stored: list[tuple[bytes, int, bytes]] = []
    prefix_bytes = _prefix_bytes(table)
    for _, root_entry in table.entries(PageType.INDEX_ROOT):
        root = table.root.node
        refs = root.refs.get(id(root_entry), []) if root is not None else []
        keys: list[bytes] = []
        index = refs[0].node if refs else None
        if index is None or index.page is None:
            continue
        last: tuple[bytes, int] | None = None
        for entry in index.page.entries:
            data = index.refs[id(entry)][0].node if index.refs.get(id(entry)) else None
            if data is None or data.page is None:
                continue
            found = keys_of(data.page)
            stored += found
            keys += [key for key, _, _ in found]
            last = found[-1][0], found[-1][1]
            _put_key(entry, *last)
        if last is not None:
            _put_key(root_entry, *last)
        if len(refs) > 1 and refs[1].node is not None:
            refs[1].node.body = _filter(keys, prefix_bytes)
    spans = []
    for node in table.of_type(PageType.RANGE_TOMBSTONES)[:1]:
        if node.page is not None:
            spans = [(key, trailer, stop) for key, trailer, stop in keys_of(node.page)]
    _mend_properties(table, stored, spans)


def keys_of(page: EntryPage) -> list[tuple[bytes, int, bytes]]:
    """Return (key, trailer, value) of the entries, as a reader would who checks nothing."""
    found = []
    key = b""
    for entry in page.entries:
        shared = entry.shared if isinstance(entry.shared, int) else 0
        key = key[:shared] + entry.suffix
        found.append((key, entry.trailer, entry.value))
    return found


def _put_key(entry: Entry, key: bytes, trailer: int) -> None:
    entry.shared, entry.unshared, entry.suffix, entry.trailer = 0, len(key), key, trailer


def _prefix_bytes(table: Table) -> int:
    for _, entry in table.entries(PageType.PROPERTIES):
        if entry.suffix == PREFIX_PROPERTY.encode():
            return int.from_bytes(entry.value, "little")
    return 0


def _filter(keys: list[bytes], prefix_bytes: int) -> bytes:
    builder = FilterBuilder(10)
    for key in keys:
        builder.add_hash(checksum(key))
    if prefix_bytes:
        for prefix in dict.fromkeys(key[:prefix_bytes] for key in keys if len(key) >= prefix_bytes):
            builder.add_hash(checksum(prefix, PREFIX_SEED))
    return builder.finish()


def _mend_properties(
    table: Table,
    stored: list[tuple[bytes, int, bytes]],
    spans: list[tuple[bytes, int, bytes]],
) -> None:
    seqs = [unpack_trailer(trailer)[0] for _, trailer, _ in stored + spans]
    first, last = (stored[0][0], stored[-1][0]) if stored else (None, None)
    lower, upper = key_range(first, last, [(start, stop) for start, _, stop in spans])
    numbers = {
        b"entry_count": len(stored),
        b"delete_count": sum(unpack_trailer(t)[1] == DELETE for _, t, _ in stored),
        b"range_tombstone_count": len(spans),
        b"raw_bytes": sum(len(key) + len(value) for key, _, value in stored + spans),
        b"seq_min": min(seqs),
        b"seq_max": max(seqs),
    }
    values = {name: number.to_bytes(8, "little") for name, number in numbers.items()}
    values |= {b"lower": lower, b"upper": upper}
    for _, entry in table.entries(PageType.PROPERTIES):
        if entry.suffix in values:
            entry.value = values[entry.suffix]
            entry.value_size = len(entry.value)


def copy_of(node: Node) -> Node:
    """Return a page like `node` whose entries are its own; references are shared."""
    if node.page is None:
        return replace(node)
    entries = [replace(entry) for entry in node.page.entries]
    refs = {
        id(own): node.refs[id(old)]
        for own, old in zip(entries, node.page.entries, strict=True)
        if id(old) in node.refs
    }
    return replace(node, page=replace(node.page, entries=entries), refs=refs)
