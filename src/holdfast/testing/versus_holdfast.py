"""Holdfast, with its default settings but for the sizes of the comparison.

- `memory_bytes` is the cache size, and in workloads that write two memtables more; memtables,
  pages, indexes and filters all live in it.
- `memtable_bytes` is that of the comparison. Compression: LZ4, zstd in the last level (defaults).
- Durable: `db.put(key, value)`. Not synced: `durability="none"`, one call a row; a crash takes the
  newest rows.
- Transactions: `with db.transaction() as txn`, serializable unless the workload says otherwise.
- Loads of sorted rows: `db.ingest`.
- Tasks: `holdfast.aio`, where it exists.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence, Sized
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, cast

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings
from holdfast.testing.bench_measure import settle
from holdfast.testing.bench_report import commit
from holdfast.testing.versus_store import Put, Row, Setup, Store

_AIO = "holdfast.aio"


def version() -> str:
    """Return what runs."""
    return f"{holdfast.__version__}{commit()}"


def settings_for(setup: Setup) -> DatabaseSettings:
    """Return the settings of a database of the comparison."""
    memtables = 2 * setup.memtable_bytes if setup.has_writes else 0
    return DatabaseSettings(
        memory_bytes=setup.cache_bytes + memtables,
        keyspace=KeyspaceSettings(memtable_bytes=setup.memtable_bytes),
    )


class HoldfastStore(Store):
    """A database of Holdfast."""

    syncs: ClassVar[dict[str, str]] = {"commit": "commit", "none": "none"}

    def __init__(self, setup: Setup) -> None:
        self._database = holdfast.open(setup.folder, settings=settings_for(setup))
        self._durability = setup.sync if setup.has_writes else "none"

    def putter(self) -> Put:
        return partial(self._database.put, durability="none")

    def deleter(self) -> Callable[[bytes], object]:
        return partial(self._database.delete, durability="none")

    def committer(self) -> Put:
        return self._database.put

    def updater(self, isolation: str = "serializable") -> Put:
        begin = partial(
            self._database.transaction, isolation=isolation, durability=self._durability
        )

        def update(key: bytes, value: bytes) -> None:
            with begin() as transaction:
                transaction.get(key)
                transaction.put(key, value)

        return update

    def batch_putter(self) -> Callable[[Sequence[Row]], object]:
        return partial(self._database.put_many, durability="none")

    def loader(self) -> Callable[[Sequence[Row]], object]:
        return self._database.ingest

    def getter(self) -> Callable[[bytes], bytes | None]:
        return cast("Callable[[bytes], bytes | None]", self._database.get)

    def many_getter(self) -> Callable[[Sequence[bytes]], object]:
        return self._database.get_many

    def rows(
        self, start: bytes | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Row]:
        found = self._database.items(start=start, reverse=reverse, limit=limit)
        return cast("Iterator[Row]", found)

    def chunks(self, count: int) -> Iterator[Sequence[Row]]:
        cursor = self._database.items()
        while chunk := cursor.next_chunk(count):
            yield chunk

    def columns(self, count: int) -> Iterator[Sized]:
        cursor = self._database.items()
        while columns := cursor.next_columns(count):
            yield columns

    def fill(self, rows: Iterable[Row]) -> None:
        put = self._database.put
        for key, value in rows:
            put(key, value, durability="none")

    def settle(self) -> None:
        settle(self._database)

    def close(self) -> None:
        self._database.close()

    @classmethod
    def has_tasks(cls) -> bool:
        return importlib.util.find_spec(_AIO) is not None

    @classmethod
    @contextlib.asynccontextmanager
    async def tasks(cls, setup: Setup) -> AsyncIterator[Callable[[bytes, bytes], Awaitable[None]]]:
        aio: Any = import_module(_AIO)  # found by name: it may not be there
        database = await aio.open(setup.folder, settings=settings_for(setup))
        try:
            yield database.put
        finally:
            await database.close()


STORE = HoldfastStore
