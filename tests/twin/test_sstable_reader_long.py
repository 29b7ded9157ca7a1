"""Goal: a long scan reads all there is to read, and its data pages leave the pool to others; both
twins of the table reader do the same.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import PURE, PUT, SEQ_MAX, CorruptionError
from holdfast.bufferpool import BufferPool
from holdfast.codec import Compression
from holdfast.lsm import _view_c, _view_py
from holdfast.sstable import PageType, TableInfo, _reader_c, _reader_py
from holdfast.sstable.format import common_prefix, decode_root_value
from holdfast.sstable.scanning import LONG_SCAN_AHEAD_BYTES, LONG_SCAN_BYTES_MIN, long_scan_bytes
from holdfast.testing.fuzz_table_model import Table
from tests.twin.test_sstable_reader import (
    FILE_ID,
    MODULES,
    NUMBER,
    Entry,
    MemoryFile,
    build,
    current,
    footer_of,
    pages_of,
    root_values,
    twins,
    walk,
    walk_back,
)
from tests.twin.test_sstable_reader_ahead import DiskFile

CHOOSE = random.Random(7)
ENTRIES: list[Entry] = [
    (b"key/%05d" % number, number + 1, PUT, CHOOSE.randbytes(300)) for number in range(3000)
]
DATA, INFO = build(ENTRIES, page_bytes=1024, compression=Compression.LZ4)
PAGES = pages_of(DATA)
FOOTER = footer_of(DATA)
INDEXES = {decode_root_value(value, len(DATA))[0].offset for value in root_values(DATA)}
FILTERS = {decode_root_value(value, len(DATA))[1].offset for value in root_values(DATA)}
OTHERS = INDEXES | FILTERS | {FOOTER.root.offset, FOOTER.properties.offset}
DATA_PAGES = [page for page in PAGES if page.offset not in OTHERS]
POOL_BYTES = 4 << 20
NEAR = 2 * LONG_SCAN_AHEAD_BYTES


def reader_on(
    twin: Any, folder: Path, pool: Any, data: bytes = DATA, info: TableInfo | None = INFO
) -> tuple[Any, DiskFile]:
    file = DiskFile(folder / f"{random.getrandbits(64):x}", data)
    return twin.TableReader(file, NUMBER, FILE_ID, pool, info), file


def cached(pool: Any) -> list[Any]:
    """The data pages in a pool."""
    held = {offset for number, offset in pool.keys() if number == NUMBER}
    return [page for page in DATA_PAGES if page.offset in held]


def size_of(pages: list[Any]) -> int:
    return sum(page.size for page in pages)


def test_the_limit_is_a_part_of_the_pool_but_not_less_than_so_much() -> None:
    assert long_scan_bytes(1 << 20) == LONG_SCAN_BYTES_MIN == long_scan_bytes(16 << 20)
    assert long_scan_bytes(1 << 30) == 16 << 20
    assert size_of(DATA_PAGES) > 3 * LONG_SCAN_BYTES_MIN


@twins
@pytest.mark.parametrize("is_backward", [False, True])
def test_a_long_scan_keeps_the_pages_it_began_with_and_the_index(
    twin: Any, is_backward: bool, tmp_path: Path
) -> None:
    pool = BufferPool(POOL_BYTES)
    reader, file = reader_on(twin, tmp_path, pool)
    go, step = (walk_back, -1) if is_backward else (walk, 1)
    assert go(reader.cursor()) == ENTRIES[::step]
    kept = cached(pool)
    assert kept == DATA_PAGES[::step][: len(kept)][::step]
    assert LONG_SCAN_BYTES_MIN < size_of(kept) < LONG_SCAN_BYTES_MIN + NEAR
    assert {offset for _, offset in pool.keys()} >= INDEXES
    # It is counted as read all the same, once.
    read = reader.pages_read, reader.bytes_read
    indexes = [page for page in PAGES if page.offset in INDEXES]
    assert read == (len(DATA_PAGES) + len(indexes), size_of(DATA_PAGES) + size_of(indexes))
    misses = pool.misses
    # And again: what is in the pool is not read.
    assert go(reader.cursor()) == ENTRIES[::step]
    assert cached(pool) == kept
    assert reader.pages_read - read[0] == len(DATA_PAGES) - len(kept) == pool.misses - misses
    assert reader.bytes_read - read[1] == size_of(DATA_PAGES) - size_of(kept)
    file.close()


@pytest.mark.skipif(PURE, reason="the plain twin reads nothing ahead")
@pytest.mark.parametrize("is_backward", [False, True])
def test_neighbours_are_read_with_one_call(is_backward: bool, tmp_path: Path) -> None:
    """What was read is not missed when it is gone from the file."""
    reader, file = reader_on(_reader_c, tmp_path, BufferPool(POOL_BYTES))
    cursor = reader.cursor(True, 0, LONG_SCAN_BYTES_MIN)
    expected = ENTRIES[::-1] if is_backward else ENTRIES
    assert cursor.seek_last() if is_backward else cursor.seek_first()
    seen = []
    with pytest.raises(CorruptionError):
        while True:
            seen.append(current(cursor))
            if len(seen) == 10:
                # The second page or the one behind it is the current one.
                file.put(0, bytes(FOOTER.root.offset))
            cursor.prev() if is_backward else cursor.next()
    assert seen == expected[: len(seen)]
    bytes_seen = sum(len(value) for *_, value in seen)
    assert LONG_SCAN_AHEAD_BYTES * 3 // 4 < bytes_seen < LONG_SCAN_AHEAD_BYTES * 5 // 4
    file.close()


@twins
def test_a_long_scan_of_an_ingested_table_does_the_same(twin: Any, tmp_path: Path) -> None:
    """Its entries have the number that the manifest gives the table."""
    single = [(key, 0, PUT, value) for key, _, _, value in ENTRIES]
    data, info = build(single, page_bytes=1024, compression=Compression.LZ4, is_ingested=True)
    ingested = replace(info, seq_min=77, seq_max=77)
    expected = [(key, 77, PUT, value) for key, _, _, value in ENTRIES]
    for go, rows in ((walk, expected), (walk_back, expected[::-1])):
        pool = BufferPool(POOL_BYTES)
        reader, file = reader_on(twin, tmp_path, pool, data, ingested)
        assert go(reader.cursor()) == rows
        assert pool.used_bytes < size_of(DATA_PAGES) // 2
        assert reader.pages_read > len(DATA_PAGES)
        file.close()


@twins
def test_a_scan_is_short_again_behind_a_seek_and_a_turn(twin: Any, tmp_path: Path) -> None:
    pool = BufferPool(POOL_BYTES)
    reader, file = reader_on(twin, tmp_path, pool)
    cursor = reader.cursor()
    assert walk(cursor) == ENTRIES
    before = cached(pool)
    assert cursor.seek(ENTRIES[2500][0])
    for entry in ENTRIES[2500:2600]:
        assert current(cursor) == entry
        cursor.next()
    behind = [page for page in cached(pool) if page not in before]
    assert 20 < len(behind) < 60
    assert behind == DATA_PAGES[DATA_PAGES.index(behind[0]) :][: len(behind)]
    # Going back from where it had become long, and forth again.
    assert cursor.seek_first()
    for number in range(2000):
        assert current(cursor) == ENTRIES[number]
        cursor.next()
    before = cached(pool)
    for number in range(2000, 0, -1):
        assert current(cursor) == ENTRIES[number]
        cursor.prev()
    back = [page for page in cached(pool) if page not in before]
    assert LONG_SCAN_BYTES_MIN < size_of(back) < LONG_SCAN_BYTES_MIN + NEAR
    before = cached(pool)
    for number in range(2900):
        assert current(cursor) == ENTRIES[number]
        cursor.next()
    # The page at which it turned is not counted again.
    assert len(cached(pool)) <= len(before) + 1
    file.close()


@twins
def test_what_cannot_be_read_ahead_enters_the_pool(twin: Any) -> None:
    pool = BufferPool(POOL_BYTES)
    reader = twin.TableReader(MemoryFile(DATA), NUMBER, FILE_ID, pool, INFO)
    assert walk(reader.cursor()) == ENTRIES
    assert cached(pool) == DATA_PAGES


@twins
def test_a_scan_may_begin_as_a_long_one(twin: Any, tmp_path: Path) -> None:
    """As in a table behind another one of a level."""
    pool = BufferPool(POOL_BYTES)
    reader, file = reader_on(twin, tmp_path, pool)
    assert walk(reader.cursor(True, 0, LONG_SCAN_BYTES_MIN)) == ENTRIES
    assert len(cached(pool)) <= 2
    file.close()


@twins
def test_every_way_through_a_table_gives_its_entries(twin: Any, tmp_path: Path) -> None:
    """Seeks to what the cursor stands at and elsewhere, from within a long scan and not."""
    reader, file = reader_on(twin, tmp_path, BufferPool(POOL_BYTES))
    choose = random.Random(3)
    cursor = reader.cursor()
    at = None
    for _ in range(150):
        move = choose.choice(["first", "last", "seek", "here", "next", "next", "next", "prev"])
        if move in ("first", "last"):
            at = 0 if move == "first" else len(ENTRIES) - 1
            assert cursor.seek_first() if move == "first" else cursor.seek_last()
        elif move == "seek" or (move == "here" and at is None):
            at = choose.randrange(len(ENTRIES))
            assert cursor.seek(ENTRIES[at][0])
        elif move == "here":
            assert cursor.seek(cursor.key, cursor.seq)
        for _ in range(choose.choice([1, 5, 300, 2000])):
            if at is None or move not in ("next", "prev"):
                break
            at += 1 if move == "next" else -1
            if not 0 <= at < len(ENTRIES):
                at = None
            assert (cursor.next() if move == "next" else cursor.prev()) == (at is not None)
            if at is not None:
                assert current(cursor) == ENTRIES[at]
        if at is not None:
            assert current(cursor) == ENTRIES[at]
    file.close()


@pytest.mark.parametrize("is_backward", [False, True])
@pytest.mark.parametrize("number", [-1, len(DATA_PAGES) - 30, 400, 30, 0])
def test_damage_is_found_at_the_same_entry(number: int, is_backward: bool, tmp_path: Path) -> None:
    page = DATA_PAGES[number]
    data = bytearray(DATA)
    data[page.offset + 20] ^= 1
    came = []
    for twin in MODULES:
        reader, file = reader_on(twin, tmp_path, BufferPool(POOL_BYTES), bytes(data))
        cursor = reader.cursor()
        seen = []
        with pytest.raises(CorruptionError) as raised:
            more = cursor.seek_last() if is_backward else cursor.seek_first()
            while more:
                seen.append(current(cursor))
                more = cursor.prev() if is_backward else cursor.next()
        assert raised.value.offset == page.offset
        assert seen == (ENTRIES[::-1] if is_backward else ENTRIES)[: len(seen)]
        came.append((len(seen), str(raised.value).partition(":")[2]))
        # The others are readable.
        assert reader.cursor().seek(ENTRIES[-1 if number != -1 else 0][0])
        file.close()
    assert len(set(came)) == 1


@twins
@pytest.mark.parametrize("interval", [2, 3, 50])
def test_an_index_page_need_not_have_a_restart_point_at_each_entry(
    twin: Any, interval: int, tmp_path: Path
) -> None:
    expected = ENTRIES[:1000]
    whole, _ = build(expected, page_bytes=1024, compression=Compression.LZ4)
    table = Table.parse(whole)
    for node in table.of_type(PageType.INDEX):
        assert node.page is not None
        last = b""
        for number, entry in enumerate(node.page.entries):
            key = entry.suffix
            if number % interval:
                entry.is_restart = False
                entry.shared = common_prefix(last, key)
                entry.unshared, entry.suffix = len(key) - entry.shared, key[entry.shared :]
            last = key
    data = table.encode()
    assert len(data) != len(whole)
    pool = BufferPool(POOL_BYTES)
    reader, file = reader_on(twin, tmp_path, pool, data, None)
    assert walk(reader.cursor(True, 0, LONG_SCAN_BYTES_MIN)) == expected
    assert walk_back(reader.cursor(True, 0, LONG_SCAN_BYTES_MIN)) == expected[::-1]
    # What cannot be read ahead passes the pool by, too.
    assert pool.used_bytes < len(data) // 2
    file.close()


@twins
def test_a_scan_over_many_tables_of_a_level_is_one_scan(twin: Any, tmp_path: Path) -> None:
    """Each of them is too short for a long scan."""
    view = _view_py if twin is _reader_py else _view_c
    pool, readers, files, numbers = BufferPool(POOL_BYTES), [], [], range(100, 106)
    for place, number in enumerate(numbers):
        part = ENTRIES[place * 500 : (place + 1) * 500]
        file_id = bytes([number]) * 16
        data, info = build(part, page_bytes=1024, file_id=file_id, number=number)
        assert len(data) < LONG_SCAN_BYTES_MIN
        file = DiskFile(tmp_path / str(number), data)
        readers.append(twin.TableReader(file, number, file_id, pool, info))
        files.append(file)
    assert walk(view.LevelCursor(readers)) == ENTRIES
    counts = [sum(n == number for n, _ in pool.keys()) for number in numbers]
    assert min(counts[:1]) > 100
    assert max(counts[2:]) < 20, counts
    # A seek in another table begins a new scan.
    cursor = view.LevelCursor(readers)
    assert cursor.seek(ENTRIES[1000][0])
    assert sum(cursor.next() for _ in range(1100)) == 1100
    assert current(cursor) == ENTRIES[2100]
    assert sum(n == 102 for n, _ in pool.keys()) > 100
    assert sum(n == 104 for n, _ in pool.keys()) < 20
    assert cursor.seek(ENTRIES[2101][0])
    while cursor.next():
        pass
    assert sum(n == 104 for n, _ in pool.keys()) > 80
    # Backward, too.
    for number in numbers:
        pool.drop_file(number)
    assert walk_back(view.LevelCursor(readers)) == ENTRIES[::-1]
    counts = [sum(n == number for n, _ in pool.keys()) for number in numbers]
    assert counts[-1] > 80
    assert max(counts[:-2]) < 20, counts
    for reader, file in zip(readers, files, strict=True):
        assert reader.get(reader.info.lower, SEQ_MAX)
        file.close()
