"""What a cursor reads ahead, for a merge without the GIL, is what it would have read page by page:
the same entries, and the same errors at the same places.
"""

from __future__ import annotations

import ctypes
import os
import random
import threading
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base import KEY_BYTES_MAX, PURE, PUT, CorruptionError, DatabaseClosedError
from holdfast.bufferpool import BufferPool
from holdfast.codec import Compression
from holdfast.compaction import _merge_c, _merge_py
from holdfast.compaction.retain import MergeStop
from holdfast.cursor import MergeCursor, RangeTombstones
from holdfast.sstable import PageType, TableInfo, _builder_c, _builder_py, _reader_c, _reader_py
from holdfast.sstable.format import decode_index_value
from holdfast.testing.fuzz_table_model import Table
from tests.twin.test_sstable_reader import (
    FILE_ID,
    NUMBER,
    Entry,
    MemoryFile,
    build,
    entries_of,
    footer_of,
    moves,
    pages_of,
    walk,
)

pytestmark = pytest.mark.skipif(PURE, reason="the plain twin reads nothing ahead")

LIMITS = {"target_bytes": 1 << 40, "drain_bytes": 1 << 40, "step_entries": 1 << 40}
ENTRIES: list[Entry] = [
    (b"key/%05d" % (number // 2), 9000 - number, PUT, b"%d" % number * (number % 9))
    for number in range(1500)
]
SOME = ENTRIES[:250]
DATA, INFO = build(ENTRIES, compression=Compression.LZ4)


class DiskFile(MemoryFile):
    """A file with a descriptor, and what is in it."""

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(data)
        path.write_bytes(data)
        self._descriptor = os.open(path, os.O_RDWR)

    def fileno(self) -> int:
        return self._descriptor

    def put(self, offset: int, data: bytes) -> None:
        os.pwrite(self._descriptor, data, offset)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def reader_in(
    folder: Path, data: bytes, info: TableInfo | None = None, pool: Any = None
) -> tuple[Any, DiskFile]:
    file = DiskFile(folder / "t", data)
    return _reader_c.TableReader(file, NUMBER, FILE_ID, pool or BufferPool(1 << 20), info), file


def merged(cursors: list[Any], *, is_plain: bool = False) -> tuple[bytes, int, Any]:
    """Merge everything; return the table as far as it came, how many entries were read, and the
    error that ended it.
    """
    twin, builders = (_merge_py, _builder_py) if is_plain else (_merge_c, _builder_c)
    retention = twin.Retention(range(1, 20_000), RangeTombstones(), bottom=False)
    builder = builders.TableBuilder(
        bytes(16),
        page_bytes=256,
        restart_interval=4,
        filter_bits_per_key=10,
        compression=Compression.NONE,
    )
    error = None
    try:
        cursor = MergeCursor(cursors)
        cursor.seek_first()
        assert twin.merge_into(cursor, builder, retention, **LIMITS) == MergeStop.DONE
    except CorruptionError as found:
        error = found.file, found.offset, found.reason
    if builder.entry_count:
        builder.finish(1, 0)
    return bytes(builder.take_output()), retention.entries_in, error


def merged_both(folder: Path, data: bytes, info: TableInfo | None, ahead_bytes: int) -> Any:
    """Return what a merge comes to, which both twins agree on."""
    reader, file = reader_in(folder, data, info)
    plain = _reader_py.TableReader(MemoryFile(data), NUMBER, FILE_ID, BufferPool(1 << 20), info)
    try:
        result = merged([reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)])
        assert result == merged([plain.cursor(fill_cache=False)], is_plain=True)
    finally:
        file.close()
    return result


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("ahead_bytes", [1, 600, 5000, 1 << 20])
def test_a_merge_gets_every_entry(
    tmp_path: Path, compression: Compression, ahead_bytes: int
) -> None:
    data, info = build(ENTRIES, compression=compression)
    _, count, error = merged_both(tmp_path, data, info, ahead_bytes)
    assert (count, error) == (len(ENTRIES), None)


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_a_merge_of_several_tables_gets_every_entry(tmp_path: Path, is_shuffled: bool) -> None:
    """Tables one behind the other, and tables whose entries come in turn."""
    count = 4
    shares = [
        ENTRIES[number::count]
        if is_shuffled
        else ENTRIES[number * len(ENTRIES) // count : (number + 1) * len(ENTRIES) // count]
        for number in range(count)
    ]
    cursors = []
    plain = []
    for number, share in enumerate(shares):
        data, info = build(share, compression=Compression.LZ4)
        (tmp_path / str(number)).mkdir()
        reader, _ = reader_in(tmp_path / str(number), data, info)
        cursors.append(reader.cursor(fill_cache=False, ahead_bytes=2000))
        other = _reader_py.TableReader(MemoryFile(data), NUMBER, FILE_ID, BufferPool(9999), info)
        plain.append(other.cursor(fill_cache=False))
    result = merged(cursors)
    assert result == merged(plain, is_plain=True)
    assert result[1:] == (len(ENTRIES), None)


def test_keys_and_values_that_are_longer_than_what_is_read_ahead(tmp_path: Path) -> None:
    entries = [
        (b"%04d" % number + b"k" * (KEY_BYTES_MAX - 4 if number % 40 == 7 else number), 1, PUT, v)
        for number, v in enumerate([b"", b"v" * 300, b"w" * 9000] * 60)
    ]
    data, info = build(entries, compression=Compression.LZ4)
    _, count, error = merged_both(tmp_path, data, info, 2000)
    assert (count, error) == (len(entries), None)


def test_each_damaged_page_is_found_when_the_merge_comes_to_it(tmp_path: Path) -> None:
    """Neither earlier nor later, and as the page, offset and reason that it always was."""
    data, info = build(SOME, compression=Compression.LZ4)
    counts = set()
    for page in pages_of(data):
        if page in (footer_of(data).root, footer_of(data).properties):
            continue
        damaged = bytearray(data)
        damaged[page.offset + page.size // 2] ^= 0x10
        _, count, error = merged_both(tmp_path, bytes(damaged), info, 1 << 20)
        counts.add(count)
        assert error is None or error[1] == page.offset
    assert len(counts) > 10


def test_pages_beyond_their_separators_are_found(tmp_path: Path) -> None:
    """The separators are forged, with sound checksums; the pages lie behind each other."""
    data, _ = build(SOME)
    count = len(list(Table.parse(data).entries(PageType.INDEX)))
    reasons = set()
    for number in range(count):
        for byte in (0, 255) if number % 3 else ():
            table = Table.parse(data)
            _, entry = list(table.entries(PageType.INDEX))[number]
            entry.suffix = entry.suffix[:-1] + bytes([byte])
            reasons.add((merged_both(tmp_path, table.encode(), None, 1 << 20)[2] or (0, 0, ""))[2])
    assert "a data page does not lie between its separators" in reasons


def test_a_page_of_another_type_among_them_is_found(tmp_path: Path) -> None:
    data, _ = build(SOME)
    table = Table.parse(data)
    node = table.of_type(PageType.DATA)[5]
    node.page_type = PageType.INDEX
    _, _, error = merged_both(tmp_path, table.encode(), None, 1 << 20)
    assert error is not None
    assert "the page has the type" in error[2]


@settings(max_examples=30, deadline=None)
@given(st.lists(moves, max_size=40), st.integers(1, 3000))
def test_any_move_after_another_stands_where_it_should(
    tmp_path_factory: pytest.TempPathFactory, steps: Any, ahead_bytes: int
) -> None:
    """Steps of a merge in between, which read ahead, change nothing for other moves."""
    entries = [(b"user/%04d" % (number // 2), 20 - number % 2, PUT, b"v") for number in range(400)]
    data, info = build(entries, page_bytes=200, compression=Compression.LZ4)
    reader, file = reader_in(tmp_path_factory.mktemp("t"), data, info)
    plain = _reader_py.TableReader(MemoryFile(data), NUMBER, FILE_ID, BufferPool(9999), info)
    cursors = [reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes), plain.cursor()]
    for name, *arguments in [("seek_first",), *steps]:
        if name in ("next", "prev") and not cursors[1].valid:
            continue
        assert getattr(cursors[0], name)(*arguments) == getattr(cursors[1], name)(*arguments)
        for _ in range(100 if name in ("next", "prev") else 0):
            if cursors[1].valid:
                assert getattr(cursors[0], name)() == getattr(cursors[1], name)()
        assert cursors[0].valid == cursors[1].valid
        if cursors[1].valid:
            assert [(c.key, c.seq, c.value) for c in cursors[:1]] == [
                (c.key, c.seq, c.value) for c in cursors[1:]
            ]
    file.close()


def data_pages(data: bytes) -> list[Any]:
    """Return the handles of the data pages, in order."""
    limit = len(data) - 64
    found = []
    for node in Table.parse(data).of_type(PageType.INDEX):
        assert node.page is not None
        found += [decode_index_value(entry.value, limit) for entry in node.page.entries]
    return found


def test_pages_are_read_ahead_and_only_so_far(tmp_path: Path) -> None:
    """What is overwritten behind the cursor's back shows what it had read before."""
    data, info = build(SOME)
    pages = data_pages(data)
    for ahead_bytes, is_there in ((0, False), (pages[1].size + pages[2].size, False), (9000, True)):
        reader, file = reader_in(tmp_path, data, info)
        cursor = reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)
        cursor.seek_first()
        first = len(entries_of(data, pages[0], PageType.DATA))
        for _ in range(first):
            cursor.next()
        file.put(pages[3].offset, bytes(pages[3].size))
        count = first
        try:
            while cursor.next() and count < 60:
                count += 1
        except CorruptionError as error:
            assert error.offset == pages[3].offset
            assert not is_there
        else:
            assert is_there
        file.close()


def test_what_is_read_at_once_may_be_large_and_grow(tmp_path: Path) -> None:
    """The memory for it is kept, is mapped when it is large, and moves when it grows."""
    rng = random.Random(8)
    sizes = [100] * 400 + [9000] * 60 + [100] * 400 + [30_000] * 60 + [100] * 400
    entries = [(b"%06d" % n, 1, PUT, rng.randbytes(size)) for n, size in enumerate(sizes)]
    data, info = build(entries, page_bytes=4096)
    for ahead_bytes in (60_000, 200_000, 2_000_000):
        reader, file = reader_in(tmp_path, data, info)
        cursor = reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)
        for _ in range(2):
            is_valid = cursor.seek_first()
            found = []
            while is_valid:
                found.append((cursor.key, cursor.value))
                is_valid = cursor.next()
            assert found == [(key, value) for key, _, _, value in entries]
        file.close()


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    """However much it contains. What is overwritten shows what is read from the file."""
    ahead_bytes = 2000
    entries = [(b"%04d" % number, 1, PUT, bytes(4000)) for number in range(200)]
    data, info = build(entries, page_bytes=4096, compression=Compression.LZ4)
    pages = data_pages(data)
    ends = list(accumulate(page.size for page in pages[1:]))
    count = bisect_right(ends, ahead_bytes)
    assert count > 8
    assert len(pages) == len(entries)
    pools = BufferPool(1 << 20), BufferPool(1 << 20)
    reader, file = reader_in(tmp_path, data, info, pools[0])
    cursor = reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)
    cursor.seek_first()
    assert cursor.next()
    for page in pages[1 : count + 1]:
        file.put(page.offset, bytes(page.size))
    seen = [cursor.key]
    while len(seen) < count:
        assert cursor.next()
        seen.append(cursor.key)
    assert seen == [entry[0] for entry in entries[1 : count + 1]]
    while cursor.next():
        pass
    file.close()
    plain = _reader_py.TableReader(MemoryFile(data), NUMBER, FILE_ID, pools[1], info)
    assert len(entries) == len(walk(plain.cursor(fill_cache=False)))
    assert pools[0].misses == pools[1].misses, "a page was read twice"


class Usage(ctypes.Structure):
    """What `mallinfo2` returns."""

    _fields_ = [(f"_{number}", ctypes.c_size_t) for number in range(4)] + [
        ("mapped", ctypes.c_size_t),
        ("_4", ctypes.c_size_t),
        ("_5", ctypes.c_size_t),
        ("used", ctypes.c_size_t),
        ("_6", ctypes.c_size_t),
        ("_7", ctypes.c_size_t),
    ]


def test_what_two_pages_contain_is_held_and_no_more(tmp_path: Path) -> None:
    usage = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if usage is None or "LD_PRELOAD" in os.environ:
        pytest.skip("only glibc tells what is held")
    usage.restype = Usage
    entries = [(b"%04d" % number, 1, PUT, bytes(300_000)) for number in range(40)]
    data, info = build(entries, page_bytes=300_000, compression=Compression.LZ4)
    assert len(data) < 1 << 18
    reader, file = reader_in(tmp_path, data, info)
    cursor = reader.cursor(fill_cache=False, ahead_bytes=1 << 19)
    before = usage()
    most = count = 0
    more = cursor.seek_first()
    while more:
        after = usage()
        most = max(most, after.mapped + after.used - before.mapped - before.used)
        count += 1
        more = cursor.next()
    assert count == len(entries)
    assert most < 3 * 300_000 + (1 << 18)
    file.close()


def walked(reader: Any, steps: list[tuple[Any, ...]], ahead_bytes: int) -> Any:
    """Return where the steps of a cursor came to, or the error that ended them."""
    cursor = reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)
    seen: list[Any] = []
    try:
        for name, *arguments in steps:
            seen.append(getattr(cursor, name)(*arguments) and (cursor.key, cursor.seq))
    except CorruptionError as error:
        seen.append((error.offset, error.reason))
    return seen


def test_pages_ahead_serve_only_the_entry_that_they_were_read_for(tmp_path: Path) -> None:
    """Another entry of the index, between other separators, names one of them."""
    data, _ = build(SOME)
    counts = [len(entries_of(data, page, PageType.DATA)) for page in data_pages(data)]
    ends = list(accumulate(counts))
    reasons = set()
    for twice in range(1, 12):
        table = Table.parse(data)
        node = table.of_type(PageType.INDEX)[0]
        assert node.page is not None
        entries = node.page.entries
        node.refs[id(entries[8])] = node.refs[id(entries[twice])]
        damaged = table.encode()
        key, seq, _, _ = SOME[ends[7] - 1]
        to_page: list[tuple[Any, ...]] = [("seek_first",), *[("next",)] * ends[twice - 1]]
        for steps in (
            [*to_page[:-1], ("seek", key, seq), ("next",)],
            [*to_page, ("seek", key, seq), ("next",)],
            [*to_page, ("prev",), ("seek", key, seq), ("next",), ("prev",)],
        ):
            reader, file = reader_in(tmp_path, damaged)
            plain = _reader_py.TableReader(MemoryFile(damaged), NUMBER, FILE_ID, BufferPool(9999))
            result = walked(reader, steps, 1 << 20)
            file.close()
            assert result == walked(plain, steps, 0)
            reasons.add(result[-1][1])
    assert "a data page does not lie between its separators" in reasons


def test_an_error_of_the_disk_ends_what_is_read_ahead(tmp_path: Path) -> None:
    """It may take seconds, and would for each page before the one that cannot be read. Here the
    file ends too early for a while. What is overwritten then shows what was read.
    """
    data, info = build(SOME)
    pages = data_pages(data)
    ends = list(accumulate(len(entries_of(data, page, PageType.DATA)) for page in pages))
    reader, file = reader_in(tmp_path, data, info)
    cursor = reader.cursor(fill_cache=False, ahead_bytes=1 << 20)
    cursor.seek_first()
    os.truncate(tmp_path / "t", pages[8].offset + 1)
    for _ in range(ends[0]):
        assert cursor.next()
    file.put(0, data)
    for _ in range(ends[1] - ends[0]):
        assert cursor.next()
    file.put(pages[5].offset, bytes(pages[5].size))
    for _ in range(ends[4] - ends[1] - 1):
        assert cursor.next()
    with pytest.raises(CorruptionError) as caught:
        cursor.next()
    assert caught.value.offset == pages[5].offset
    file.close()


def test_a_page_in_the_pool_is_taken_from_there(tmp_path: Path) -> None:
    """What the file has in its place does not count."""
    data, info = build(SOME)
    reader, file = reader_in(tmp_path, data, info)
    key, seq, _, _ = SOME[100]
    assert reader.get(key, seq) is not None
    page = next(
        page
        for page in data_pages(data)
        if (key, seq) in {(k, t >> 8) for k, t, _ in entries_of(data, page, PageType.DATA)}
    )
    file.put(page.offset, bytes(page.size))
    _, count, error = merged([reader.cursor(fill_cache=False, ahead_bytes=1 << 20)])
    assert (count, error) == (len(SOME), None)
    file.close()


def test_a_closed_reader_ends_a_cursor_that_read_ahead(tmp_path: Path) -> None:
    reader, file = reader_in(tmp_path, DATA, INFO)
    cursor = reader.cursor(fill_cache=False, ahead_bytes=2000)
    cursor.seek_first()
    for _ in range(100):
        cursor.next()
    reader.close()
    assert file.closed
    seen = [cursor.key]
    with pytest.raises(DatabaseClosedError):
        while cursor.next():
            seen.append(cursor.key)
    assert seen == [entry[0] for entry in ENTRIES[100 : 100 + len(seen)]]


def test_a_closed_reader_names_a_handle_that_can_be_none(tmp_path: Path) -> None:
    """As the plain twin: who reads nothing does not ask whether it could."""
    data, _ = build(SOME)
    pages = data_pages(data)
    ends = list(accumulate(len(entries_of(data, page, PageType.DATA)) for page in pages))
    table = Table.parse(data)
    node = table.of_type(PageType.INDEX)[0]
    assert node.page is not None
    node.refs[id(node.page.entries[4])][0].offset = 1 << 40
    damaged = table.encode()
    results = set()
    for module, ahead_bytes in (
        (_reader_c, 0),
        (_reader_c, 1),
        (_reader_c, 1 << 20),
        (_reader_py, 0),
    ):
        file = DiskFile(tmp_path / "t", damaged)
        reader = module.TableReader(file, NUMBER, FILE_ID, BufferPool(1 << 20))
        cursor = reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes)
        cursor.seek_first()
        for _ in range(ends[3] - 1):
            cursor.next()
        reader.close()
        with pytest.raises(CorruptionError) as caught:
            cursor.next()
        results.add((caught.value.offset, caught.value.reason))
    assert len(results) == 1
    assert "a page handle points to" in results.pop()[1]


def test_pages_are_chosen_in_time_that_grows_with_the_index_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with its square, where the pages do not lie behind each other: a forged index page may
    have any length. Here nothing is ever read ahead, as no page is that short.
    """
    monkeypatch.setattr(_builder_py, "INDEX_BYTES", 1 << 40)
    entries = [(b"%06d" % number, 1, PUT, b"") for number in range(16_000)]
    data, info = build(entries, builder=_builder_py, page_bytes=1, filter_bits_per_key=0)
    reader, file = reader_in(tmp_path, data, info)
    seconds = []
    for ahead_bytes in (0, 1):
        tries = []
        for _ in range(3):
            begun = time.thread_time()
            assert len(walk(reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes))) == 16_000
            tries.append(time.thread_time() - begun)
        seconds.append(min(tries))
    file.close()
    assert seconds[1] < 4 * seconds[0]


def test_others_run_while_a_merge_goes_from_page_to_page(tmp_path: Path) -> None:
    """Not only at the ends of pages, where each was read alone. Nothing is written here."""
    entries = [(b"%07d" % number, 1, PUT, b"") for number in range(100_000)]
    data, info = build(entries, page_bytes=4096)
    reader, file = reader_in(tmp_path, data, info)
    ends = set(accumulate(len(entries_of(data, page, PageType.DATA)) for page in data_pages(data)))
    for _ in range(20):
        cursor = MergeCursor([reader.cursor(fill_cache=False, ahead_bytes=1 << 20)])
        cursor.seek_first()
        retention = _merge_c.Retention([], RangeTombstones([(b"", b"\xff", 2)]), bottom=True)
        builder = _builder_c.TableBuilder(
            bytes(16),
            page_bytes=4096,
            restart_interval=16,
            filter_bits_per_key=10,
            compression=Compression.NONE,
        )
        seen: set[int] = set()
        is_over = threading.Event()
        is_there = threading.Event()

        def watch(
            over: threading.Event = is_over,
            there: threading.Event = is_there,
            found: Any = seen,
            merging: Any = retention,
        ) -> None:
            while not over.is_set():
                there.set()
                found.add(merging.entries_in)
                time.sleep(0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        is_there.wait()
        try:
            assert _merge_c.merge_into(cursor, builder, retention, **LIMITS) == MergeStop.DONE
        finally:
            is_over.set()
            watcher.join()
        assert retention.entries_in == len(entries)
        if len(seen - ends - {0}) > 2:
            break
    else:
        raise AssertionError("others ran at the ends of pages only")
    file.close()
