"""A merge of merges over tables turns round anywhere, also where the pool does not keep its pages.

The key to which it seeks stands in a page of one of its sources, which goes when that one moves:
with the address sanitizer a read of it stops the run.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from holdfast.base import PUT
from holdfast.cursor import _cursor_c, _cursor_py
from holdfast.sstable import _reader_c
from tests.twin.test_sstable_reader import build, reader_of

COUNT = 120
ENTRIES = [(b"key%04d" % n, 1, PUT, b"%d" % n * 20) for n in range(COUNT)]
TWINS = [pytest.param(_cursor_c, id="c"), pytest.param(_cursor_py, id="py")]


def source(kernel: ModuleType, entries: list[tuple[bytes, int, int, bytes]]) -> Any:
    """A cursor over a table, or over a list where the twin takes no cursor of a compiled table."""
    if kernel is _cursor_py:
        return kernel.ListCursor(entries)
    data, info = build(entries, page_bytes=256)
    return reader_of(_reader_c, data, info).cursor(fill_cache=False)


def nested(kernel: ModuleType) -> Any:
    """A merge of three sources, two of which are merged before, that take turns in the entries."""
    sources = [source(kernel, ENTRIES[first::3]) for first in range(3)]
    return kernel.MergeCursor([kernel.MergeCursor(sources[:2]), sources[2]])


@pytest.mark.parametrize("kernel", TWINS)
def test_a_merge_of_merges_turns_anywhere(kernel: ModuleType) -> None:
    for count in range(1, COUNT):
        merge = nested(kernel)
        merge.seek_first()
        for _ in range(count):
            merge.next()
        merge.prev()
        assert ENTRIES[count - 1] == (merge.key, merge.seq, merge.kind, merge.value)
        if count < COUNT - 1:
            merge.next()
            merge.next()
            assert ENTRIES[count + 1] == (merge.key, merge.seq, merge.kind, merge.value)


@pytest.mark.parametrize("kernel", TWINS)
def test_it_turns_on_the_way_back_too(kernel: ModuleType) -> None:
    for count in range(1, COUNT):
        merge = nested(kernel)
        merge.seek_last()
        for _ in range(count):
            merge.prev()
        merge.next()
        assert ENTRIES[COUNT - count] == (merge.key, merge.seq, merge.kind, merge.value)
