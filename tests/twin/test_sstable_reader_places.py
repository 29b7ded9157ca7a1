"""Both twins of `holdfast.sstable._reader` compare the pages that they load with the separators
around them: what a forged table shows does not depend on the way in which it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from types import ModuleType
from typing import Any

import pytest

from holdfast.base import PUT, SEQ_MAX, CorruptionError
from holdfast.bufferpool import BufferPool
from holdfast.sstable import PageType
from holdfast.testing.fuzz_page import Entry as PageEntry
from holdfast.testing.fuzz_table_model import Node, Table
from tests.twin.test_sstable_reader import (
    FILE_ID,
    MODULES,
    NUMBER,
    Entry,
    MemoryFile,
    build,
    reader_of,
    twins,
    walk,
    walk_back,
)

# Keys are long, so there are several index pages. Versions of one key span pages of both kinds.
ENTRIES: list[Entry] = [
    (b"k" * 200 + b"%03d" % (n // 7 if n < 28 else n), 1000 - n, PUT, b"%d" % n) for n in range(90)
]
DATA, INFO = build(ENTRIES, page_bytes=500, restart_interval=1)
REASONS = {
    PageType.INDEX: "an index page does not lie between its separators",
    PageType.DATA: "a data page does not lie between its separators",
}


def parents(table: Table, page_type: PageType) -> list[tuple[Node, PageEntry]]:
    """Return the entries that name a page of this type, in order."""
    above = PageType.INDEX if page_type == PageType.DATA else PageType.INDEX_ROOT
    return list(table.entries(above))


def forged(page_type: PageType, *, is_swap: bool) -> Iterator[tuple[bytes, list[int]]]:
    """Yield tables in which two entries name each other's page, or the later one that of the
    earlier, with all checksums mended; and the offsets of the pages that are where they do not
    belong.
    """
    count = len(parents(Table.parse(DATA), page_type))
    for one, two in list(combinations(range(count), 2))[
        :: 1 if page_type == PageType.INDEX else 29
    ]:
        table = Table.parse(DATA)
        entries = parents(table, page_type)
        first, second = (node.refs[id(entry)] for node, entry in (entries[one], entries[two]))
        pages = [first[0]]
        if is_swap:
            pages.append(second[0])
            first[0], second[0] = second[0], first[0]
        else:
            second[0] = first[0]
        data = table.encode()
        yield data, [ref.node.place[0] for ref in pages if ref.node is not None]


def tried(call: Any) -> Any:
    try:
        return call()
    except CorruptionError as error:
        return error.file, error.offset, error.reason


def test_the_table_has_several_partitions_and_pages() -> None:
    table = Table.parse(DATA)
    assert len(table.of_type(PageType.INDEX)) >= 3
    assert len(table.of_type(PageType.DATA)) >= 20
    assert Table.parse(DATA).encode() == DATA


@pytest.mark.parametrize("page_type", [PageType.INDEX, PageType.DATA])
@pytest.mark.parametrize("is_swap", [True, False])
@pytest.mark.parametrize("pool_bytes", [0, 1 << 20])
def test_a_page_at_the_place_of_another_is_found_from_every_side(
    page_type: PageType, is_swap: bool, pool_bytes: int
) -> None:
    """The pool is warm from what was read before, also from the place where a page belongs."""
    newest: dict[bytes, tuple[int, int, bytes]] = {}
    for key, *rest in ENTRIES:
        newest.setdefault(key, tuple(rest))  # type: ignore[arg-type]
    for data, offsets in forged(page_type, is_swap=is_swap):
        found = []
        for twin in MODULES:
            reader: Any = reader_of(twin, data, None, BufferPool(pool_bytes))
            answers = {key: tried(lambda k=key: reader.get(k, SEQ_MAX)) for key in newest}
            walks = [
                tried(lambda move=move, fill=fill: move(reader.cursor(fill)))
                for move in (walk, walk_back)
                for fill in (True, False)
            ]
            seeks = [tried(lambda k=key: sought(reader, k)) for key in newest]
            again = {key: tried(lambda k=key: reader.get(k, SEQ_MAX)) for key in newest}
            assert again == answers
            errors = {("00000009.table", offset, REASONS[page_type]) for offset in offsets}
            assert set(walks) <= errors
            wrong = {key: answer for key, answer in answers.items() if answer != newest[key]}
            assert set(wrong.values()) <= errors
            found.append((answers, walks, seeks))
        assert found[0] == found[-1]


def sought(reader: Any, key: bytes) -> list[Any]:
    cursor = reader.cursor()
    here = [cursor.seek(key, 990) and (cursor.key, cursor.seq)]
    here.append(cursor.valid and cursor.prev() and (cursor.key, cursor.seq))
    return here


@twins
def test_an_index_page_that_ends_before_its_separator_is_found(twin: ModuleType) -> None:
    table = Table.parse(DATA)
    node = table.of_type(PageType.INDEX)[1]
    assert node.page is not None
    node.page.entries.pop()
    data = table.encode()
    offset = node.place[0]
    reader = twin.TableReader(MemoryFile(data), NUMBER, FILE_ID, BufferPool(1 << 20))
    for call in (
        lambda: walk(reader.cursor()),
        lambda: walk_back(reader.cursor()),
        lambda: reader.get(ENTRIES[50][0], SEQ_MAX),
        lambda: reader.cursor().seek(ENTRIES[50][0]),
    ):
        with pytest.raises(CorruptionError, match=REASONS[PageType.INDEX]) as caught:
            call()
        assert caught.value.offset == offset


@twins
def test_a_misplaced_page_does_not_enter_the_pool(twin: ModuleType) -> None:
    data, _ = next(forged(PageType.DATA, is_swap=True))
    pool = BufferPool(1 << 20)
    reader = reader_of(twin, data, None, pool)
    with pytest.raises(CorruptionError):
        reader.cursor().seek_first()
    assert pool.page_count == 2  # the root and an index page
