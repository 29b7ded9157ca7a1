"""Both twins of `holdfast.sstable._reader` say so instead of reading, when they are asked to."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.base import SEQ_MAX, DatabaseClosedError
from holdfast.bufferpool import BufferPool
from tests.twin.test_sstable_reader import DATA, INFO, SAMPLE, reader_of, twins


@twins
def test_a_cached_get_reads_nothing(twin: Any) -> None:
    pool = BufferPool(1 << 20)
    reader = reader_of(twin, DATA, INFO, pool)
    key = SAMPLE[500][0]
    otherwise = object()
    assert reader.get_cached(key, SEQ_MAX, otherwise) is otherwise
    assert pool.page_count == 1
    assert reader.may_contain(key)
    assert reader.get_cached(key, SEQ_MAX, otherwise) is otherwise, "the filter alone is cached"
    assert pool.page_count == 2
    found = reader.get(key, SEQ_MAX)
    assert found is not None
    assert reader.get_cached(key, SEQ_MAX, otherwise) == found
    assert reader.get_cached(b"zzzz", SEQ_MAX, otherwise) is None, "the root says no"
    with pytest.raises(TypeError):
        reader.get_cached("text", SEQ_MAX, otherwise)
    with pytest.raises(ValueError, match="56 bits"):
        reader.get_cached(key, -1, otherwise)
    reader.close()
    with pytest.raises(DatabaseClosedError):
        reader.get_cached(key, SEQ_MAX, otherwise)
