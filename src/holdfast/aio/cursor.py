"""Scans with await: rows are read in chunks, each in a thread."""

from __future__ import annotations

from asyncio import Future, shield  # noqa: TID251  aio knows event loops
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from operator import index
from typing import Any, Generic, TypeVar

from holdfast.aio.bridge import Bridge
from holdfast.cursor import ColumnBuilder, Columns, UserCursor

Row = TypeVar("Row")

FIRST_ROWS = 16
"""Rows of the first chunk: many scans end after a few."""

CHUNK_ROWS = 1024
CHUNK_BYTES = 256 << 10
"""A chunk ends with the row that reaches one of these."""


class Cursor(Generic[Row]):
    """An asynchronous iterator over (key, value), keys or values.

    It sees the keyspace as it was when it was made. After an exception every later request raises
    the same one. Let it go or call `aclose` to free what it holds. One task at a time.
    """

    def __init__(self, bridge: Bridge, cursor: UserCursor[Row]) -> None:
        self._bridge = bridge
        self._cursor = cursor
        self._rows: deque[Row] = deque()
        self._chunk: Future[list[Row] | Columns] | None = None
        self._chunk_rows = FIRST_ROWS
        self._ended = False

    def __aiter__(self) -> Cursor[Row]:
        return self

    async def __anext__(self) -> Row:
        while not self._rows:
            if self._ended:
                raise StopAsyncIteration
            self._keep(await self._read(partial(_next_chunk, self._cursor, self._chunk_rows)))
            self._chunk_rows = CHUNK_ROWS
        return self._rows.popleft()

    async def next_chunk(self, n: int) -> list[Row]:
        """Return the next rows, at most `n`; none at the end. Raises: ValueError when `n` is
        negative.
        """
        count = _check_count(n)
        while len(self._rows) < count and not self._ended:
            left = count - len(self._rows)
            self._keep(await self._read(partial(self._cursor.next_chunk, left)))
        return [self._rows.popleft() for _ in range(min(count, len(self._rows)))]

    async def next_columns(self, n: int) -> Columns:
        """Return the next rows, at most `n`, as columns; none at the end. Raises: ValueError when
        `n` is negative.
        """
        count = _check_count(n)
        if not self._rows and not self._ended:
            found = await self._read(partial(self._cursor.next_columns, count))
            if isinstance(found, Columns) and len(found) <= count:
                return found
            # Of a request that was cancelled.
            self._keep(found)
        rows = await self.next_chunk(count)
        return _columns_of(rows, self._cursor.next_columns(0))

    async def _read(
        self, more: Callable[[], list[Row]] | Callable[[], Columns]
    ) -> list[Row] | Columns:
        """Return what `more` gives, or what an earlier request had begun to read. A task that is
        cancelled meanwhile leaves it to the next request.
        """
        if self._chunk is None:
            self._chunk = self._bridge.start(more)
            self._chunk.add_done_callback(_note)
        chunk = self._chunk
        try:
            found = await shield(chunk)
        except BaseException:
            if self._chunk is chunk and _has_failed(chunk):
                # The next request fails too, and gives none of what was read before.
                self._chunk = None
                self._rows.clear()
            raise
        if self._chunk is not chunk:
            # It was closed meanwhile.
            return []
        self._chunk = None
        return found

    def _keep(self, found: list[Row] | Columns) -> None:
        """Put rows behind those that were read ahead."""
        if isinstance(found, Columns):
            self._rows.extend(_rows_of(found))
        else:
            self._rows.extend(found)
            self._ended = self._ended or not found

    async def aclose(self) -> None:
        """End the iteration and let go of what it holds. A second close is harmless."""
        self._ended = True
        self._rows.clear()
        if self._chunk is not None:
            chunk, self._chunk = self._chunk, None
            # Whatever came of it: a chunk that is being read ends first.
            chunk.add_done_callback(lambda _: self._cursor.close())
        else:
            self._cursor.close()


def _next_chunk(cursor: UserCursor[Row], rows_max: int) -> list[Row]:
    rows: list[Any] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += len(row) if isinstance(row, bytes) else len(row[0]) + len(row[1])  # type: ignore[index]  # a row is one or a pair
        if size >= CHUNK_BYTES or len(rows) >= rows_max:
            break
    return rows


def _check_count(n: int) -> int:
    count = index(n)
    if count < 0:
        raise ValueError(f"the count is {count}; it must not be negative")
    return count


def _rows_of(columns: Columns) -> list[Any]:
    """Return the rows of columns."""
    keys = _parts(columns.keys, columns.key_offsets)
    values = _parts(columns.values, columns.value_offsets)
    if keys is None or values is None:
        return values or keys or []
    return list(zip(keys, values, strict=True))


def _parts(data: memoryview | None, offsets: memoryview | None) -> list[bytes] | None:
    if data is None or offsets is None:
        return None
    return [bytes(data[start:stop]) for start, stop in pairwise(offsets)]


def _columns_of(rows: list[Any], shape: Columns) -> Columns:
    """Return rows as columns, of which there are those that `shape` has."""
    keys = None if shape.keys is None else ColumnBuilder()
    values = None if shape.values is None else ColumnBuilder()
    for row in rows:
        key, value = row if keys is not None and values is not None else (row, row)
        if keys is not None:
            keys.add(key)
        if values is not None:
            values.add(value)
    return Columns(
        len(rows),
        *((None, None) if keys is None else keys.finish()),
        *((None, None) if values is None else values.finish()),
    )


def _has_failed(chunk: Future[Any]) -> bool:
    return chunk.done() and (chunk.cancelled() or chunk.exception() is not None)


def _note(chunk: Future[Any]) -> None:
    """Take note of an exception that nobody may ask for: the next request raises it again."""
    if not chunk.cancelled():
        chunk.exception()
