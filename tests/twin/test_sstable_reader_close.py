"""Both twins of `holdfast.sstable._reader` end a lookup or a walk in the middle of which they are
closed: the page that is read then is read to its end, and no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import SEQ_MAX, DatabaseClosedError
from holdfast.bufferpool import BufferPool
from holdfast.env import PosixEnv
from holdfast.sstable import _reader_py
from tests.twin.test_sstable_reader import (
    DATA,
    FILE_ID,
    INFO,
    NUMBER,
    SAMPLE,
    MemoryFile,
    lookup,
    twins,
    walk,
)

KEY = SAMPLE[500][0]
LOOKUP_READS = 3
"""A filter, an index page and a data page."""


def read_until_closed(twin: Any, reads: int, call: Callable[[Any], Any]) -> Any:
    """Close a reader during so many reads of its file; return what the call comes to. The page that
    is read then does not stay in the pool.
    """
    file = MemoryFile(DATA)
    pool = BufferPool(1 << 20)
    reader = twin.TableReader(file, NUMBER, FILE_ID, pool, INFO)
    read_at = file.read_at
    seen: list[int] = []

    def read_and_close(offset: int, count: int) -> bytes:
        assert not file.closed
        seen.append(offset)
        if len(seen) == reads:
            reader.close()
            assert not file.closed, "its descriptor may be that of another file now"
        return read_at(offset, count)

    file.read_at = read_and_close  # type: ignore[method-assign]
    try:
        return call(reader)
    finally:
        assert (reads, True) == (len(seen), file.closed)
        assert (0, 0) == (pool.page_count, pool.pinned_bytes)


@twins
@pytest.mark.parametrize("reads", range(1, LOOKUP_READS))
def test_a_lookup_ends_with_the_page_under_which_it_is_closed(twin: Any, reads: int) -> None:
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        read_until_closed(twin, reads, lambda reader: reader.get(KEY, SEQ_MAX))


@twins
def test_the_last_page_of_a_lookup_gives_its_answer(twin: Any) -> None:
    found = read_until_closed(twin, LOOKUP_READS, lambda reader: reader.get(KEY, SEQ_MAX))
    assert lookup(SAMPLE, KEY, SEQ_MAX) == found


@twins
def test_a_filter_is_asked_though_the_table_is_closed_meanwhile(twin: Any) -> None:
    for key, is_there in ((KEY, True), (KEY + b"?", False)):
        found = read_until_closed(twin, 1, lambda reader, key=key: reader.may_contain(key))
        assert found is is_there


@twins
@pytest.mark.parametrize("reads", [1, 2, 3, 50])
def test_a_walk_ends_with_the_page_under_which_it_is_closed(twin: Any, reads: int) -> None:
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        read_until_closed(twin, reads, lambda reader: walk(reader.cursor()))


@twins
@pytest.mark.parametrize("reads", [1, 2, 9])
def test_a_verification_ends_with_what_is_read_when_the_table_is_closed(
    twin: Any, reads: int
) -> None:
    """Its first read is that of the footer."""
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        read_until_closed(twin, reads, lambda reader: list(reader.verify()))


@twins
def test_a_verification_that_begins_behind_a_close_says_so(twin: Any, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(DATA)
    file = PosixEnv().open(os.fspath(tmp_path / "t"))
    reader = twin.TableReader(file, NUMBER, FILE_ID, BufferPool(1 << 20), INFO)
    damage = reader.verify()
    reader.close()
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        next(damage)


class ClosingPool:
    """A pool before which a reader is closed each time that a page is given to it."""

    def __init__(self) -> None:
        self.pool = BufferPool(1 << 20)
        self.reader: Any = None
        self.given: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)

    def put(self, number: int, offset: int, page: Any, pinned: bool = False) -> None:
        if self.reader is not None:
            self.reader.close()
            self.given.append(offset)
        self.pool.put(number, offset, page, pinned)


def test_a_page_that_comes_into_the_pool_behind_a_close_is_taken_out_again() -> None:
    """Another thread closes between two lines of the plain twin; the compiled one's look and what
    it gives are one step.
    """
    file, pool = MemoryFile(DATA), ClosingPool()
    reader = _reader_py.TableReader(file, NUMBER, FILE_ID, pool, INFO)  # type: ignore[arg-type]
    assert pool.page_count
    pool.reader = reader
    with pytest.raises(DatabaseClosedError, match="the table is closed"):
        reader.get(KEY, SEQ_MAX)
    assert file.closed
    assert 1 == len(pool.given)
    assert (0, 0) == (pool.page_count, pool.pinned_bytes)
