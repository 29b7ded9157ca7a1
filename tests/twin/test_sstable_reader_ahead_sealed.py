"""Sealed pages that a merge reads ahead are opened many at a time, and are what they would have
been one by one: the same entries, and the same errors at the same places.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import PURE, PUT, CorruptionError
from holdfast.bufferpool import BufferPool
from holdfast.codec import Compression, checksum, page_seed
from holdfast.sstable import PageType, TableInfo, _reader_c, _reader_py
from holdfast.sstable.format import FOOTER_BYTES, decode_index_value
from holdfast.sstable.scanning import LONG_SCAN_BYTES_MIN
from holdfast.sstable.sealed import TAIL_BYTES
from holdfast.testing.fuzz_table_model import Table
from tests.twin.test_sstable_reader import (
    FILE_ID,
    NUMBER,
    Entry,
    MemoryFile,
    build,
    footer_of,
    twins,
    walk,
)
from tests.twin.test_sstable_reader_ahead import ENTRIES, SOME, DiskFile, merged
from tests.twin.test_sstable_source import page_cipher, sealed

pytestmark = pytest.mark.skipif(PURE, reason="the plain twin reads nothing ahead")


def tail(data: bytes) -> bytes:
    """A file with something in the place of the tail, which was read when the file was opened."""
    return data + bytes(TAIL_BYTES)


def reader_in(folder: Path, data: bytes, info: TableInfo | None = None) -> tuple[Any, DiskFile]:
    disk = DiskFile(folder / "t", tail(data))
    return _reader_c.TableReader(sealed(disk), NUMBER, FILE_ID, BufferPool(1 << 20), info), disk


def merged_both(folder: Path, data: bytes, info: TableInfo | None, ahead_bytes: int) -> Any:
    """Return what a merge comes to, which both twins agree on."""
    reader, disk = reader_in(folder, data, info)
    plain = _reader_py.TableReader(
        sealed(MemoryFile(tail(data))), NUMBER, FILE_ID, BufferPool(1 << 20), info
    )
    try:
        result = merged([reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)])
        assert result == merged([plain.cursor(fill_cache=False)], is_plain=True)
    finally:
        disk.close()
    return result


def pages_of(data: bytes) -> list[Any]:
    """The handles of the data pages, in order."""
    limit = len(data) - FOOTER_BYTES
    found = []
    for node in Table.parse(data, page_cipher()).of_type(PageType.INDEX):
        assert node.page is not None
        found += [decode_index_value(entry.value, limit) for entry in node.page.entries]
    return found


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("ahead_bytes", [1, 600, 5000, 1 << 20])
def test_a_merge_gets_every_entry(
    tmp_path: Path, compression: Compression, ahead_bytes: int
) -> None:
    data, info = build(ENTRIES, compression=compression, cipher=page_cipher())
    _, count, error = merged_both(tmp_path, data, info, ahead_bytes)
    assert (count, error) == (len(ENTRIES), None)


@pytest.mark.parametrize("is_resealed", [False, True])
def test_each_damaged_page_is_found_when_the_merge_comes_to_it(
    tmp_path: Path, is_resealed: bool
) -> None:
    """Also when its checksum is made to fit, in its handle as well, so that only the seal tells."""
    data, info = build(SOME, compression=Compression.LZ4, cipher=page_cipher())
    counts = set()
    for page in pages_of(data):
        damaged = bytearray(data)
        damaged[page.offset + page.size // 2] ^= 0x10
        if is_resealed:
            end = page.offset + page.size - 8
            own = checksum(bytes(damaged[page.offset : end]), page_seed(FILE_ID, page.offset))
            damaged[end : end + 8] = own.to_bytes(8, "little")
        _, count, error = merged_both(tmp_path, bytes(damaged), info, 1 << 20)
        counts.add(count)
        assert error is not None
        assert error[1] == page.offset
        assert is_resealed == ("seal" in error[2])
    assert len(counts) == len(pages_of(data))


def test_pages_that_changed_places_are_found(tmp_path: Path) -> None:
    data, info = build(SOME, cipher=page_cipher())
    pages = pages_of(data)
    pair = next(
        (left, right)
        for left in pages
        for right in pages
        if left.offset < right.offset and left.size == right.size
    )
    swapped = bytearray(data)
    for here, there in (pair, pair[::-1]):
        swapped[here.offset : here.offset + here.size] = data[
            there.offset : there.offset + there.size
        ]
    _, _, error = merged_both(tmp_path, bytes(swapped), info, 1 << 20)
    assert error is not None
    assert error[1] == pair[0].offset


def test_pages_are_read_ahead_and_only_so_far(tmp_path: Path) -> None:
    """What is overwritten behind the cursor's back shows what it had read before."""
    data, info = build(SOME, cipher=page_cipher())
    pages = pages_of(data)
    assert footer_of(data).root.offset > pages[3].offset
    for ahead_bytes, is_there in ((0, False), (pages[1].size + pages[2].size, False), (9000, True)):
        reader, disk = reader_in(tmp_path, data, info)
        cursor = reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)
        cursor.seek_first()
        for _ in range(15):
            cursor.next()
        disk.put(pages[5].offset, bytes(pages[5].size))
        count = 0
        try:
            while cursor.next() and count < 60:
                count += 1
        except CorruptionError as error:
            assert error.offset == pages[5].offset
            assert not is_there
        else:
            assert is_there
        disk.close()


@twins
def test_a_long_scan_gives_every_page_to_the_pool(twin: Any, tmp_path: Path) -> None:
    """To open one costs more than to read it, so it is worth keeping."""
    source = random.Random(7)
    entries: list[Entry] = [
        (b"key/%05d" % number, number + 1, PUT, source.randbytes(300)) for number in range(3000)
    ]
    data, info = build(entries, page_bytes=16_384, cipher=page_cipher())
    pages = pages_of(data)
    assert sum(page.size for page in pages) > 3 * LONG_SCAN_BYTES_MIN
    pool = BufferPool(4 << 20)
    disk = DiskFile(tmp_path / "t", tail(data))
    reader = twin.TableReader(sealed(disk), NUMBER, FILE_ID, pool, info)
    assert walk(reader.cursor()) == entries
    assert {offset for _, offset in pool.keys()} >= {page.offset for page in pages}
    disk.close()


def test_views_end_with_the_call_of_a_library_that_raises(tmp_path: Path) -> None:
    """Its traceback holds them longer than what they show is there. The next cursor goes on."""
    data, info = build(SOME, compression=Compression.LZ4, cipher=page_cipher())
    views: list[memoryview] = []

    class Poor:
        def __init__(self, cipher: Any) -> None:
            self.has_memory = False
            self.seal_bytes = cipher.seal_bytes
            self.seal, self.open = cipher.seal, cipher.open
            self._cipher = cipher

        def open_many(self, offsets: Any, pieces: Any, associated: Any, targets: Any) -> int:
            if self.has_memory:
                return int(self._cipher.open_many(offsets, pieces, associated, targets))
            views.extend(pieces + targets)
            raise MemoryError

    disk = DiskFile(tmp_path / "t", tail(data))
    table = sealed(disk)
    table.cipher = cipher = Poor(table.cipher)  # type: ignore[assignment]
    reader = _reader_c.TableReader(table, NUMBER, FILE_ID, BufferPool(1 << 20), info)
    with pytest.raises(MemoryError) as raised:
        merged([reader.cursor(fill_cache=False, ahead_bytes=1 << 20)])
    assert len(views) > 4
    for view in views:
        with pytest.raises(ValueError, match="released"):
            view.tobytes()
    cipher.has_memory = True
    _, count, error = merged([reader.cursor(fill_cache=False, ahead_bytes=1 << 20)])
    assert (count, error) == (len(SOME), None)
    del raised
    disk.close()
