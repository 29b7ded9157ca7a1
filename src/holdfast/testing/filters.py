"""`./dev filters`: what filters cost and save, by bits a key, by kind, and by level.

Four tables:

- the filters of tables beside a plain bloom filter and an xor filter, which are built here: bytes,
  and which part of absent keys passes;
- a tree of levels, each `RATIO` times the one above, with four tables in level 0: what the filters
  take, and how many pages a get of an absent key asks for, by how the bits are shared out;
- a real database after random puts, by level;
- how many keys of an index page a binary and an interpolating search look at.

`--write` writes docs/results/filters.md. Exit status: 0 good, 2 wrong usage.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from os.path import commonpath

import holdfast
from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.codec import checksum
from holdfast.compaction.job import OVERLAP_BITS
from holdfast.sstable import TableReader
from holdfast.sstable._filter import FilterBuilder, filter_may_contain
from holdfast.sstable._page_py import decode_entries
from holdfast.sstable.format import PageType, decode_root_value
from holdfast.testing.bench_measure import settle
from holdfast.testing.bench_report import machine
from holdfast.testing.numbers import one_or_more
from holdfast.testing.result_page import require_commit, write_page

PAGE = os.path.join("docs", "results", "filters.md")
BITS = (4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20)
RATIO = 10
LEVEL0_TABLES = 4
DEPTHS = (1, 2, 3)
"""Levels below level 0."""

KEYS = 50_000
MASK = (1 << 64) - 1
XOR_SHARE = 1.23
"""Slots of an xor filter for each key; with fewer it can mostly not be built."""

Contains = Callable[[int], bool]


def blocked(hashes: Sequence[int], bits: int) -> tuple[float, Contains]:
    """Build the filter of tables. Return its bits a key, and its answer."""
    builder = FilterBuilder(bits)
    for value in hashes:
        builder.add_hash(value)
    body = builder.finish()
    return 8 * len(body) / len(hashes), lambda value: filter_may_contain(body, value)


def plain(hashes: Sequence[int], bits: int) -> tuple[float, Contains]:
    """Build a bloom filter whose probes go anywhere."""
    size = len(hashes) * bits
    probes = max(round(bits * math.log(2)), 1)
    field = bytearray(size // 8 + 1)

    def places(value: int) -> list[int]:
        step = (value >> 32) | 1
        return [(value + number * step) % size for number in range(probes)]

    for value in hashes:
        for place in places(value):
            field[place >> 3] |= 1 << (place & 7)
    return float(bits), lambda value: all(field[at >> 3] >> (at & 7) & 1 for at in places(value))


def xor(hashes: Sequence[int], bits: int) -> tuple[float, Contains]:
    """Build an xor filter (Graf and Lemire, 2020) with fingerprints that take at most `bits`."""
    size = int(XOR_SHARE * len(hashes)) // 3 + 11
    mask = (1 << max(int(bits / XOR_SHARE), 1)) - 1
    for seed in range(100):
        order = _peeled(hashes, size, seed)
        if order is not None:
            break
    else:
        raise RuntimeError("no seed builds the filter")
    slots = [0] * (3 * size)
    for value, own in reversed(order):
        others = [at for at in _slots(value, size, seed) if at != own]
        slots[own] = (value & mask) ^ slots[others[0]] ^ slots[others[1]]

    def contains(value: int) -> bool:
        first, second, third = _slots(value, size, seed)
        return slots[first] ^ slots[second] ^ slots[third] == value & mask

    return 3 * size * mask.bit_length() / len(hashes), contains


def _slots(value: int, size: int, seed: int) -> tuple[int, int, int]:
    mixed = (value ^ seed * 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 & MASK
    mixed ^= mixed >> 29
    rotated = (mixed << 21 | mixed >> 43) & MASK
    again = (mixed << 42 | mixed >> 22) & MASK
    places = [(part & 0xFFFFFFFF) * size >> 32 for part in (mixed, rotated, again)]
    return places[0], places[1] + size, places[2] + 2 * size


def _peeled(hashes: Sequence[int], size: int, seed: int) -> list[tuple[int, int]] | None:
    """Return (hash, slot that it has alone when it is its turn), or None."""
    counts, sums = [0] * (3 * size), [0] * (3 * size)
    for value in hashes:
        for at in _slots(value, size, seed):
            counts[at] += 1
            sums[at] ^= value
    alone = [at for at, count in enumerate(counts) if count == 1]
    order = []
    while alone:
        own = alone.pop()
        if counts[own] != 1:
            continue
        value = sums[own]
        order.append((value, own))
        for at in _slots(value, size, seed):
            counts[at] -= 1
            sums[at] ^= value
            if counts[at] == 1:
                alone.append(at)
    return order if len(order) == len(hashes) else None


KINDS = {"of tables": blocked, "plain bloom": plain, "xor": xor}


@lru_cache
def hashes_of(role: str, count: int) -> tuple[int, ...]:
    """Return the hashes of so many keys."""
    return tuple(checksum(f"{role}{number}".encode()) for number in range(count))


@lru_cache
def rate(bits: int, count: int = KEYS, kind: str = "of tables") -> tuple[float, float]:
    """Return the bits a key that a filter takes, and the part of absent keys that passes."""
    taken, contains = KINDS[kind](hashes_of("key", count), bits)
    absent = hashes_of("absent", 4 * count)
    return taken, sum(map(contains, absent)) / len(absent)


def kinds_table(count: int) -> str:
    """Return the first table."""
    lines = ["| asked for | " + " | ".join(KINDS) + " |", "|--:|" + "--:|" * len(KINDS)]
    for bits in BITS:
        cells = []
        for kind in KINDS:
            taken, passed = rate(bits, count, kind)
            cells.append(f"{passed:.3%} at {taken:.1f}")
        lines.append(f"| {bits} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shares(depth: int) -> list[tuple[float, int]]:
    """Return (keys of each table that a get may ask, as a part of the last level; levels from the
    last one) of a tree, from level 0 down.
    """
    first = RATIO ** -(depth - 1) / LEVEL0_TABLES
    top = [(first / LEVEL0_TABLES, depth)] * LEVEL0_TABLES
    return top + [(RATIO ** -(depth - level), depth - level) for level in range(1, depth + 1)]


ALLOCATIONS: dict[str, Callable[[int], int]] = {
    "10 everywhere": lambda above: 10,
    "11 everywhere": lambda above: 11,
    "9, then 5 more": lambda above: 9 + 5 * min(above, 1),
    "10, then 5 more": lambda above: 10 + 5 * min(above, 1),
    "9, 14, then 19": lambda above: 9 + 5 * min(above, 2),
    "0, then 10": lambda above: 10 * min(above, 1),
    "0, then 15": lambda above: 15 * min(above, 1),
}
"""Bits a key, by how many levels lie below."""


def levels_table(count: int) -> str:
    """Return the second table."""
    heads = " | ".join(f"{depth} level{'s' * (depth > 1)}" for depth in DEPTHS)
    lines = [f"| bits | {heads} |", "|---|" + "--:|" * len(DEPTHS)]
    for name, allocation in ALLOCATIONS.items():
        cells = []
        for depth in DEPTHS:
            parts = shares(depth)
            keys = sum(share for share, _ in parts)
            memory = pages = 0.0
            for share, above in parts:
                bits = allocation(above)
                taken, passed = rate(bits, count) if bits else (0.0, 1.0)
                memory += share * taken
                pages += passed
            cells.append(f"{pages:.4f} at {memory / keys:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def database_table(rows: int) -> str:
    """Return the third table: a database after random puts."""
    source = random.Random(1)
    memtable = max(rows * 128 // 64, 64 << 10)
    settings = DatabaseSettings(
        keyspace=KeyspaceSettings(
            memtable_bytes=memtable, table_bytes=memtable, level1_bytes=4 * memtable
        )
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        holdfast.open(os.path.join(folder, "db"), settings=settings) as database,
    ):
        for number in source.sample(range(rows), rows):
            database.put(b"%016d" % number, source.randbytes(50), durability="none")
        settle(database)
        view = database.read_point()[0]
        absent = [b"%016dx" % number for number in source.sample(range(rows), min(rows, 20_000))]
        lines = [
            "| level | tables | keys | filter bytes | bits a key | pages asked for |",
            "|--:|--:|--:|--:|--:|--:|",
        ]
        for level, readers in enumerate(view.levels):
            if not readers:
                continue
            keys = sum(reader.info.entry_count for reader in readers)
            size = sum(filter_bytes(reader) for reader in readers)
            asked = sum(
                reader.info.lower <= key < reader.info.upper and reader.may_contain(key)
                for key in absent
                for reader in readers
            )
            lines.append(
                f"| {level} | {len(readers)} | {keys:,} | {size:,} | {8 * size / keys:.2f} "
                f"| {asked / len(absent):.4f} |"
            )
    return "\n".join(lines)


SEARCHED_KEYS = 150
"""What an index page has, about."""


def search_keys(source: random.Random) -> dict[str, list[bytes]]:
    """Return keys of an index page, by their kind."""
    step = 1_000_000
    times = [(step * number + source.randrange(step)) for number in range(SEARCHED_KEYS)]
    names = [source.choice("abcdefgst") * source.randrange(1, 9) for _ in range(SEARCHED_KEYS)]
    return {
        "times, 8 bytes": [(1_700_000_000_000_000 + time).to_bytes(8, "big") for time in times],
        "decimal numbers": sorted(b"%016d" % time for time in times),
        "random bytes": sorted(source.randbytes(16) for _ in times),
        "user/number": sorted(f"{name}/{source.randrange(10_000):04d}".encode() for name in names),
    }


def looked_at(keys: Sequence[bytes], wanted: bytes, *, interpolates: bool) -> int:
    """Return how many keys a search for the first one >= `wanted` looks at. Interpolation goes by
    the eight bytes behind what the first and the last key share.
    """
    skip = len(commonpath([keys[0], keys[-1]]))

    def number(key: bytes) -> int:
        return int.from_bytes(key[skip : skip + 8].ljust(8, b"\0"), "big")

    low, high, count = 0, len(keys), 0
    while low < high:
        at = (low + high) // 2
        if interpolates and high - low > 2:
            first, last = number(keys[low]), number(keys[high - 1])
            share = (number(wanted) - first) / max(last - first, 1)
            at = low + min(max(int(share * (high - low - 1)), 0), high - low - 1)
        count += 1
        if keys[at] < wanted:
            low = at + 1
        else:
            high = at
    return count


def search_table() -> str:
    """Return the fourth table."""
    source = random.Random(1)
    lines = ["| keys | binary | interpolating | at most |", "|---|--:|--:|--:|"]
    for kind, keys in search_keys(source).items():
        counts = [
            [looked_at(keys, wanted, interpolates=interpolates) for wanted in keys]
            for interpolates in (False, True)
        ]
        means = [sum(each) / len(each) for each in counts]
        lines.append(f"| {kind} | {means[0]:.1f} | {means[1]:.1f} | {max(counts[1])} |")
    return "\n".join(lines)


def filter_bytes(reader: TableReader) -> int:
    """Return the bytes of all filter pages of a table."""
    root = decode_entries(reader.read_page(reader.footer.root, PageType.INDEX_ROOT), "", 0)
    handles = [decode_root_value(value, reader.footer.file_size)[1] for _, _, value in root]
    return sum(handle.size for handle in handles if handle is not None)


def page(command: str, tables: Sequence[str]) -> str:
    """Return the page of results."""
    kinds, levels, real, searches = tables
    facts = "\n".join(f"- {name}: {what}" for name, what in machine(os.curdir).items())
    return f"""# Measured: filters

This page was written by the command below; nothing in it was typed by hand.

    {command}

{facts}

## By kind

Which part of absent keys passes, and the bits a key that the filter takes.
`of tables` is the filter that tables have: a lookup touches one cache line.
`plain bloom` spreads its bits over the whole filter, `xor` has fingerprints of whole bits; both are
written in src/holdfast/testing/filters.py.

{kinds}

## By level

Pages that a get of an absent key asks for in vain, and bits for each key of the tree.
The levels below level 0 are each {RATIO} times the one above; {LEVEL0_TABLES} tables of level 0
together have a quarter of the first.
`10, then 5 more` is what is built: 10 bits where no older table lies below, {OVERLAP_BITS} more
above.

{levels}

## In a database

Rows put in random order, with `filter_bits_per_key` 10, and gets of absent keys between them.

{real}

## Search in index pages

How many keys a search looks at in a page of {SEARCHED_KEYS}, on average, and at most when it
interpolates.
An interpolating search looks besides at the first and the last key that are left, in each step.

{searches}
"""


def main(arguments: Sequence[str]) -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(prog="./dev filters", description=__doc__.split("\n")[0])
    parser.add_argument("--keys", type=one_or_more, default=KEYS, help="of a filter")
    parser.add_argument("--rows", type=one_or_more, default=300_000, help="of the database")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    given = parser.parse_args(arguments)
    require_commit(parser, writes=given.write)
    tables = [kinds_table(given.keys), levels_table(given.keys), database_table(given.rows)]
    tables.append(search_table())
    print("\n\n".join(tables))
    if given.write:
        write_page(PAGE, page(shlex.join(["./dev", "filters", *arguments]), tables))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
