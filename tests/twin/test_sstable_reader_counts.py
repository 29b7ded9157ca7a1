"""Goal: both twins of the table reader count the pages that lookups and scans read from the file,
and no others.
"""

from __future__ import annotations

from typing import Any

from holdfast.base import SEQ_MAX
from holdfast.bufferpool import BufferPool
from tests.twin.test_sstable_reader import DATA, INFO, SAMPLE, reader_of, twins, walk


@twins
def test_pages_are_counted_where_they_are_read_from_the_file(twin: Any) -> None:
    pool = BufferPool(1 << 20)
    reader = reader_of(twin, DATA, INFO, pool)
    assert (0, 0) == (reader.pages_read, reader.bytes_read), "an opening is no lookup"
    reader.get(SAMPLE[500][0], SEQ_MAX)
    read = reader.pages_read, reader.bytes_read
    assert (3, True) == (read[0], 0 < read[1] < len(DATA))
    reader.get(SAMPLE[500][0], SEQ_MAX)
    assert SAMPLE == walk(reader.cursor(fill_cache=False))
    assert read == (reader.pages_read, reader.bytes_read), "who fills no cache is no reader"
    assert SAMPLE == walk(reader.cursor())
    assert pool.page_count == reader.pages_read + 1, "the root is read at the opening"
    assert len(DATA) / 2 < reader.bytes_read < len(DATA)
