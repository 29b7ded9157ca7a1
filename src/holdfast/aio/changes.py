"""The change feed with await: batches are read in chunks, each in a thread; nobody waits in one."""

from __future__ import annotations

from asyncio import Future, shield, sleep  # noqa: TID251  aio knows event loops
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice

from holdfast.aio.bridge import Bridge
from holdfast.engine import Change, Feed

CHUNK_CHANGES = 64
"""A chunk ends with so many changes."""


class Changes:
    """An asynchronous iterator over `Change`s; see `holdfast.Database.changes`.

    After an exception every later request raises the same one. A task that is cancelled while it
    waits loses nothing: what was being read comes with the next request. One task at a time.
    """

    def __init__(self, bridge: Bridge, feed: Feed, *, follow: bool) -> None:
        self._bridge = bridge
        self._feed = feed
        self._follow = follow
        self._available = feed.available()
        self._changes: deque[Change] = deque()
        self._chunk: Future[tuple[list[Change], bool]] | None = None
        self._is_behind = False
        """Whether there was no more when somebody looked."""
        self._error: BaseException | None = None

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> Change:
        while not self._changes:
            if self._error is not None:
                raise self._error
            if self._is_behind:
                if not self._follow:
                    raise StopAsyncIteration
                await sleep(self._feed.pause_seconds)
                self._available = self._feed.available()
                self._is_behind = False
            await self._read()
        return self._changes.popleft()

    async def _read(self) -> None:
        if self._chunk is None:
            self._chunk = self._bridge.start(partial(_next_chunk, self._available))
            self._chunk.add_done_callback(self._take)
        chunk = self._chunk
        await shield(chunk)

    def _take(self, chunk: Future[tuple[list[Change], bool]]) -> None:
        """Keep what was read, also for a task that was cancelled meanwhile."""
        self._chunk = None
        if chunk.cancelled():
            return
        self._error = chunk.exception()
        if self._error is None:
            changes, self._is_behind = chunk.result()
            self._changes.extend(changes)


def _next_chunk(available: Iterator[Change]) -> tuple[list[Change], bool]:
    """Return some changes, and whether these were the last ones."""
    changes = list(islice(available, CHUNK_CHANGES))
    return changes, len(changes) < CHUNK_CHANGES
