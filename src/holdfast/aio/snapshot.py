"""Snapshots with await."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import TypeVar, overload

from holdfast import engine
from holdfast.aio.bridge import TAKES_A_READ, Bridge
from holdfast.aio.cursor import Cursor
from holdfast.base import check_key

Default = TypeVar("Default")


class SnapshotKeyspace:
    """A keyspace frozen at a snapshot, for asyncio; see `holdfast.engine.SnapshotKeyspace`."""

    def __init__(self, bridge: Bridge, keyspace: engine.SnapshotKeyspace) -> None:
        self._bridge = bridge
        self._frozen = keyspace

    @overload
    async def get(self, key: object) -> bytes | None: ...
    @overload
    async def get(self, key: object, default: Default) -> bytes | Default: ...

    async def get(self, key: object, default: object = None) -> object:
        """Return the value of `key` as of the snapshot, or `default`."""
        value = self._frozen.get_cached(key, TAKES_A_READ)
        if value is TAKES_A_READ:
            return await self._bridge.run(partial(self._frozen.get, check_key(key), default))
        return default if value is None else value

    async def contains(self, key: object) -> bool:
        """Return whether `key` has a value as of the snapshot."""
        return await self.get(key) is not None

    async def get_many(self, keys: Iterable[object]) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        plain = [check_key(key) for key in keys]
        return await self._bridge.run(partial(self._frozen.get_many, plain))

    async def count(self) -> int:
        """Count the keys, by reading all of them."""
        return await self._bridge.run(self._frozen.__len__)

    def items(
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Cursor[tuple[bytes, bytes]]:
        """Iterate over (key, value) with `start` <= key < `stop`, with `async for`."""
        rows = self._frozen.items(start, stop, prefix=prefix, reverse=reverse, limit=limit)
        return Cursor(self._bridge, rows)

    def keys(
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Cursor[bytes]:
        """Iterate over the keys with `start` <= key < `stop`, with `async for`."""
        rows = self._frozen.keys(start, stop, prefix=prefix, reverse=reverse, limit=limit)
        return Cursor(self._bridge, rows)

    def values(
        self,
        start: object = None,
        stop: object = None,
        *,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Cursor[bytes]:
        """Iterate over the values of the keys with `start` <= key < `stop`, with `async for`."""
        rows = self._frozen.values(start, stop, prefix=prefix, reverse=reverse, limit=limit)
        return Cursor(self._bridge, rows)


class Snapshot(SnapshotKeyspace):
    """The whole database frozen at one moment; it itself is the default keyspace.

    Close it (or use it with `async with`): until then it holds back every version it can see.
    """

    def __init__(self, bridge: Bridge, snapshot: engine.Snapshot) -> None:
        super().__init__(bridge, snapshot)
        self._snapshot = snapshot

    @property
    def seq(self) -> int:
        """The sequence number this snapshot reads at. Raises: DatabaseClosedError when it is
        closed.
        """
        return self._snapshot.seq

    async def keyspace(self, name: str) -> SnapshotKeyspace:
        """Return keyspace `name` as of this snapshot. Raises: KeyError when there is none."""
        found = await self._bridge.run(partial(self._snapshot.keyspace, name))
        return SnapshotKeyspace(self._bridge, found)

    async def close(self) -> None:
        """Let go of the versions; a second close is harmless."""
        self._snapshot.close()

    async def __aenter__(self) -> Snapshot:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._snapshot.close()
