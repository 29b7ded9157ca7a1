"""Scans with await: rows are read in chunks, each in a thread."""

from __future__ import annotations

from asyncio import Future, shield  # noqa: TID251  aio knows event loops
from collections import deque
from functools import partial
from typing import Any, Generic, TypeVar

from holdfast.aio.bridge import Bridge
from holdfast.cursor import UserCursor

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
        self._chunk: Future[list[Row]] | None = None
        self._chunk_rows = FIRST_ROWS
        self._ended = False

    def __aiter__(self) -> Cursor[Row]:
        return self

    async def __anext__(self) -> Row:
        while not self._rows:
            if self._ended:
                raise StopAsyncIteration
            await self._read()
        return self._rows.popleft()

    async def _read(self) -> None:
        """Read the next chunk. A task that is cancelled meanwhile leaves it to the next request."""
        if self._chunk is None:
            rows_max, self._chunk_rows = self._chunk_rows, CHUNK_ROWS
            self._chunk = self._bridge.start(partial(_next_chunk, self._cursor, rows_max))
            self._chunk.add_done_callback(_note)
        chunk = self._chunk
        try:
            rows = await shield(chunk)
        finally:
            if chunk.done() and self._chunk is chunk:
                self._chunk = None
                if not chunk.cancelled() and chunk.exception() is None:
                    self._rows.extend(chunk.result())
        self._ended = self._ended or not rows

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


def _note(chunk: Future[Any]) -> None:
    """Take note of an exception that nobody may ask for: the next request raises it again."""
    if not chunk.cancelled():
        chunk.exception()
