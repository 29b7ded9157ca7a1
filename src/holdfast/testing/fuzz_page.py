"""Fuzz targets of a table's pages: entry pages and filters. Also the model of an entry page that
the target of whole tables mutates.

`EntryPage` is a body taken apart into fields that may contradict each other; `encode` writes them
as they are. So a mutation changes one length and leaves the others alone, or keeps them in step.

Thread safety: targets keep no state between executions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ClassVar

from holdfast.base import DELETE, PUT, SEQ_MAX, CorruptionError, pack_trailer
from holdfast.bufferpool import Page
from holdfast.codec import checksum, decode_varint
from holdfast.sstable import PageType, _filter_py, _page_py
from holdfast.testing.fuzz_mutate import (
    interesting,
    mutate_bytes,
    mutate_list,
    mutate_number,
    mutate_often,
    mutate_varint,
    put_varint,
)
from holdfast.testing.fuzz_oracle import Target, agree, agreed, attempt, require, twins

PAGES = twins("sstable._page")
FILTERS = twins("sstable._filter")

_MEBIBYTE = 1 << 20


@dataclass(slots=True)
class Entry:
    """The fields of one entry. Lengths are what is written, whatever the pieces have."""

    shared: int | bytes
    unshared: int | bytes
    value_size: int | bytes
    trailer: int
    suffix: bytes
    value: bytes
    is_restart: bool = False

    def encode(self) -> bytes:
        """Return the bytes."""
        lengths = put_varint(self.shared) + put_varint(self.unshared) + put_varint(self.value_size)
        return lengths + self.trailer.to_bytes(8, "little") + self.suffix + self.value


@dataclass(slots=True)
class EntryPage:
    """The body of an entry page. `restarts` and `count` replace what follows from the entries."""

    entries: list[Entry] = field(default_factory=list)
    restarts: list[int] | None = None
    count: int | None = None

    @classmethod
    def parse(cls, body: bytes) -> EntryPage:
        """Take a body apart. Raises: ValueError, IndexError or struct.error when it is none."""
        (count,) = struct.unpack_from("<I", body, len(body) - 4)
        end = len(body) - 4 * (count + 1)
        starts = set(struct.unpack_from(f"<{count}I", body, end)) if count < 1 << 16 else set()
        entries = []
        at = 0
        while at < end:
            start = at
            shared, at = decode_varint(body, at)
            unshared, at = decode_varint(body, at)
            size, at = decode_varint(body, at)
            (trailer,) = struct.unpack_from("<Q", body, at)
            at += 8
            suffix, value = body[at : at + unshared], body[at + unshared : at + unshared + size]
            at += unshared + size
            entries.append(Entry(shared, unshared, size, trailer, suffix, value, start in starts))
        return cls(entries)

    def encode(self) -> bytes:
        """Return the body."""
        area = bytearray()
        restarts = []
        for entry in self.entries:
            if entry.is_restart:
                restarts.append(len(area))
            area += entry.encode()
        if self.restarts is not None:
            restarts = self.restarts
        count = len(restarts) if self.count is None else self.count
        numbers = [number & 0xFFFFFFFF for number in (*restarts, count)]
        return bytes(area) + struct.pack(f"<{len(numbers)}I", *numbers)

    def mutate(self, rng: Random, other: bytes) -> None:
        """Change one thing."""
        choice = rng.randrange(10)
        if not self.entries or choice == 0:
            self._mutate_restarts(rng)
        elif choice < 3:
            self.entries = [replace(entry) for entry in mutate_list(rng, self.entries)]
        else:
            index = rng.randrange(len(self.entries))
            _mutate_entry(rng, self.entries, index, other)

    def _mutate_restarts(self, rng: Random) -> None:
        restarts = [0] if self.restarts is None else list(self.restarts)
        choice = rng.randrange(5)
        if choice == 0 and self.entries:
            entry = rng.choice(self.entries)
            entry.is_restart = not entry.is_restart
        elif choice == 1:
            self.count = interesting(rng, 32)
        elif choice == 2:
            self.count = mutate_number(rng, sum(e.is_restart for e in self.entries), 32)
        elif choice == 3:
            self.restarts = mutate_list(rng, restarts)
        else:
            restarts = restarts or [0]
            restarts[rng.randrange(len(restarts))] = interesting(rng, 32)
            self.restarts = restarts


def _mutate_entry(rng: Random, entries: list[Entry], index: int, other: bytes) -> None:
    entry, neighbour = entries[index], entries[index - 1]
    choice = rng.randrange(12)
    if choice < 3:
        name = ("shared", "unshared", "value_size")[choice]
        old = getattr(entry, name)
        setattr(entry, name, mutate_varint(rng, old if isinstance(old, int) else 1))
    elif choice == 3:
        # Sums that turn over: all three lengths at once.
        entry.shared, entry.unshared, entry.value_size = (interesting(rng) for _ in range(3))
    elif choice == 4:
        entry.trailer = mutate_number(rng, entry.trailer)
    elif choice == 5:
        entry.trailer = neighbour.trailer
    elif choice == 6:
        kind = rng.choice((DELETE, PUT, 2, 3, 255, entry.trailer & 0xFF))
        entry.trailer = pack_trailer(rng.choice((0, 1, SEQ_MAX, entry.trailer >> 8)), kind)
    elif choice == 7:
        entry.suffix = mutate_bytes(rng, entry.suffix, other)
        entry.unshared = len(entry.suffix)
    elif choice == 8:
        entry.suffix = neighbour.suffix
        entry.unshared, entry.shared = neighbour.unshared, neighbour.shared
    elif choice == 9:
        entry.value = mutate_bytes(rng, entry.value, other)
        entry.value_size = len(entry.value)
    elif choice == 10:
        entry.value, entry.value_size = neighbour.value, neighbour.value_size
    else:
        entry.is_restart = not entry.is_restart


def entry_page(entries: Iterable[tuple[bytes, int, bytes]], interval: int = 16) -> EntryPage:
    """Return the page of some sorted (key, trailer, value)."""
    page = EntryPage()
    last = b""
    for index, (key, trailer, value) in enumerate(entries):
        shared = 0
        is_restart = index % interval == 0
        if not is_restart:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        size = len(key) - shared
        page.entries.append(
            Entry(shared, size, len(value), trailer, key[shared:], value, is_restart)
        )
        last = key
    return page


class EntriesTarget:
    """Input: the page type as one byte, then the body of an entry page."""

    name: ClassVar[str] = "entries"
    traced: ClassVar[tuple[str, ...]] = ("sstable._page_py",)

    def seeds(self) -> Iterable[bytes]:
        many = [
            (b"key%03d" % (n // 3), pack_trailer(99 - n % 3, n % 2), b"v" * n) for n in range(40)
        ]
        data = bytes([PageType.DATA])
        for interval in (1, 3, 16):
            yield data + entry_page(many, interval).encode()
        yield data + entry_page([(b"", pack_trailer(SEQ_MAX, PUT), b"")]).encode()
        yield data + entry_page([(b"k" * 65536, pack_trailer(1, PUT), b"x" * 200)]).encode()
        yield bytes([PageType.INDEX_ROOT]) + entry_page([]).encode()
        spans = [(b"a", pack_trailer(9, 2), b"c"), (b"b", pack_trailer(3, 2), b"d")]
        yield bytes([PageType.RANGE_TOMBSTONES]) + entry_page(spans, 1).encode()
        names = [(b"created_us", 0, bytes(8)), (b"lower", 0, b"a")]
        yield bytes([PageType.PROPERTIES]) + entry_page(names, 1).encode()

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        kind, body = data[:1] or b"\x01", data[1:]
        if rng.random() < 0.05:
            kind = bytes([rng.randrange(9)])
        try:
            page = EntryPage.parse(body)
        except (ValueError, IndexError, struct.error):
            page = None
        if page is None or rng.random() < 0.25:
            return kind + mutate_often(rng, body, other[1:])
        for _ in range(rng.choice((1, 1, 2, 5))):
            page.mutate(rng, other)
        return kind + page.encode()

    def run(self, data: bytes) -> Iterable[object]:
        page_type, body = (data[0], data[1:]) if data else (1, b"")
        # A page of its own for each call: a page remembers that it was checked.
        pages = [Page(body, page_type) for _ in PAGES * 2]
        outcome = agreed(
            "decode_entries",
            [
                attempt(CorruptionError, module.decode_entries, page, "f", 77)
                for module, page in zip(PAGES, pages, strict=False)
            ],
        )
        cursors = [
            attempt(CorruptionError, module.PageCursor, page, "f", 77)
            for module, page in zip(PAGES, reversed(pages), strict=False)
        ]
        require(
            all(cursor.error == outcome.error for cursor in cursors),
            "a cursor and decode_entries disagree about a page",
        )
        if outcome.is_error:
            return [(page_type, outcome.feature)]
        for cursor in cursors:
            _walk(cursor.value, outcome.value)
        require(EntryPage.parse(body).encode() == body, "encoded otherwise")
        return [(page_type, len(outcome.value).bit_length())]

    def memory_max(self, data: bytes) -> int:
        # Keys may share a prefix of 64 KiB with the key before them, in an entry of 12 bytes.
        return 400 * len(data) + 16 * _MEBIBYTE + (65536 * len(data) // 11) * 3


def _walk(cursor: Any, entries: list[tuple[bytes, int, bytes]]) -> None:
    """Compare every way to move a cursor with the list of its entries."""

    def here() -> tuple[bytes, int, bytes] | None:
        if not cursor.valid:
            return None
        return cursor.key, pack_trailer(cursor.seq, cursor.kind), cursor.value

    seen = []
    more = cursor.seek_first()
    while more:
        seen.append(here())
        require(len(seen) <= len(entries), "a cursor does not end")
        more = cursor.next()
    require(seen == entries, "a cursor forward gives other entries")
    more = cursor.seek_last()
    for entry in reversed(entries):
        require(more and here() == entry, "a cursor backward gives other entries")
        more = cursor.prev()
    require(not more, "a cursor backward does not end")
    for key, trailer, _ in entries[:4] + entries[-4:] + entries[4 : -4 : 1 + len(entries) // 8]:
        cursor.seek(key, trailer >> 8)
        at = _page_py.lower_bound(entries, key, trailer | 0xFF)
        require(here() == entries[at], "a seek misses an entry")
        cursor.seek_before(key)
        at = _page_py.lower_bound(entries, key, (1 << 64) - 1)
        require(here() == (entries[at - 1] if at else None), "seek_before misses an entry")


class FilterTarget:
    """Input: the body of a filter page."""

    name: ClassVar[str] = "filter"
    traced: ClassVar[tuple[str, ...]] = ("sstable._filter_py",)

    HASHES: ClassVar[tuple[int, ...]] = (
        0, 1, (1 << 64) - 1, 1 << 63, 0xFFFFFFFF, 0xFFFFFFFF << 32,
        *(checksum(b"key%d" % n) for n in range(20)),
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        for bits, count in ((10, 0), (1, 20), (10, 20), (10, 200), (64, 20)):
            builder = _filter_py.FilterBuilder(bits)
            for number in range(count):
                builder.add_hash(checksum(b"key%d" % number))
            yield builder.finish()

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        if len(data) < 8 or rng.random() < 0.3:
            return mutate_often(rng, data, other)
        probes, blocks = data[0], int.from_bytes(data[4:8], "little")
        choice = rng.randrange(4)
        if choice == 0:
            probes = rng.choice((0, 1, 29, 30, 31, 255))
        elif choice == 1:
            blocks = mutate_number(rng, blocks, 32)
        elif choice == 2:
            blocks = (interesting(rng, 32) << 26 | blocks) & 0xFFFFFFFF
        body = data[8:] if choice < 3 else mutate_bytes(rng, data[8:], other)
        if choice == 3 and rng.random() < 0.5:
            blocks = len(body) // 64
            body = body[: blocks * 64]
        return bytes([probes]) + data[1:4] + blocks.to_bytes(4, "little") + body

    def run(self, data: bytes) -> Iterable[object]:
        checked = agree(FILTERS, (), "filter_check", data)
        answers = [
            agree(FILTERS, (), "filter_may_contain", data, key_hash).value
            for key_hash in self.HASHES
        ]
        if checked.value is not None:
            require(all(answers), "what is no filter denies a key")
            return [checked.value]
        return ["ok", data[0], (len(data) // 64).bit_length()]

    def memory_max(self, data: bytes) -> int:
        return 20 * len(data) + _MEBIBYTE


TARGETS: tuple[Target, ...] = (EntriesTarget(), FilterTarget())
