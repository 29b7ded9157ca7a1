"""What `holdfast bench` asks of an engine: one class an engine, in a module of its own.

A store hands out the engine's own functions wherever it can, bound once, so that a measured loop
calls the engine and not this module. Where an engine wants writes grouped into transactions, its
store groups ROWS_A_TRANSACTION of them.

The docstring of a store's module says which settings it uses; the page of results shows it. A
module imports its engine at its top, so it is imported only when it is used.

Thread safety: a store belongs to one thread, but `committer` and, where it says so, other functions
that it hands out are for many.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

Row = tuple[bytes, bytes]
Put = Callable[[bytes, bytes], object]

ROWS_A_TRANSACTION = 1_000

ENGINES = {
    "holdfast": "holdfast",
    "encrypted": "cryptography",
    "rocksdict": "rocksdict",
    "lmdb": "lmdb",
    "plyvel": "plyvel",
    "sqlite3": "sqlite3",
}
"""Each engine and the package that it needs."""

OURS = "holdfast"
ENCRYPTED = "encrypted"
"""Ours with a key: no peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a store is opened."""

    folder: str
    cache_bytes: int
    memtable_bytes: int
    sync: str
    """What its writes are: "commit" means synced before the call returns; "none" or "-" not."""
    has_writes: bool
    is_cold: bool = False
    """Whether the data are much larger than the cache and are read at random."""


class Store(ABC):
    """An open database of one engine."""

    syncs: ClassVar[dict[str, str]]
    """What the engine calls the sync modes "commit" and "none"."""
    task_threads: ClassVar[int] = 64
    """How many threads serve asyncio tasks. An engine with one writer at a time is quickest with
    one.
    """

    @abstractmethod
    def __init__(self, setup: Setup) -> None:
        """Open the database, which is made when it is absent."""

    @abstractmethod
    def putter(self) -> Put:
        """Return what puts a row without a sync."""

    @abstractmethod
    def deleter(self) -> Callable[[bytes], object]:
        """Return what deletes a key without a sync."""

    @abstractmethod
    def committer(self) -> Put:
        """Return what puts a row and returns when it is durable; many threads may call it."""

    @abstractmethod
    def updater(self, isolation: str = "serializable") -> Put:
        """Return what reads a key and then puts it, as one transaction that is synced if the store
        was opened with sync "commit"; many threads may call it.

        `isolation` is that of engines which have several levels. An engine without transactions
        reads, and writes a batch: it would lose what another writer did in between.
        """

    @abstractmethod
    def batch_putter(self) -> Callable[[Sequence[Row]], object]:
        """Return what puts rows as one atomic transaction, without a sync."""

    def loader(self) -> Callable[[Sequence[Row]], object]:
        """Return what adds many rows, whose keys ascend and are new, as one atomic transaction, the
        quickest way that the engine has; they are durable when it returns. Requires: the store was
        opened with sync "commit".
        """
        return self.batch_putter()

    @abstractmethod
    def getter(self) -> Callable[[bytes], bytes | None]:
        """Return what gets a value, or None; it sees what this store wrote before."""

    def fresh_getter(self) -> Callable[[bytes], bytes | None]:
        """Return what gets a value while another thread writes; it sees what that one committed."""
        return self.getter()

    @abstractmethod
    def many_getter(self) -> Callable[[Sequence[bytes]], object]:
        """Return what gets the values of a list of keys."""

    @abstractmethod
    def rows(
        self, start: bytes | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Row]:
        """Return the rows from `start` on, or all in reverse order."""

    def chunks(self, count: int) -> Iterator[Sequence[Row]]:
        """Return all rows in lists of `count`, the quickest way that the engine has."""
        raise NotImplementedError

    def columns(self, count: int) -> Iterator[Sized]:
        """Return all rows by `count` in the form that programs of columns take, or in lists."""
        return self.chunks(count)

    def fill(self, rows: Iterable[Row]) -> None:
        """Put rows one by one, without a sync."""
        put = self.putter()
        for key, value in rows:
            put(key, value)

    def finish(self) -> None:
        """Commit what is written. To be called by the thread that wrote."""
        return

    def settle(self) -> None:
        """Bring written rows where they stay, and wait for the engine's own work to end."""
        self.finish()

    @abstractmethod
    def close(self) -> None:
        """Close the database."""

    @classmethod
    def has_tasks(cls) -> bool:
        """Whether asyncio tasks can use it."""
        return True

    @classmethod
    @contextlib.asynccontextmanager
    async def tasks(cls, setup: Setup) -> AsyncIterator[Callable[[bytes, bytes], Awaitable[None]]]:
        """Give what asyncio tasks await to put a row durably: a call in a pool of threads."""
        loop = asyncio.get_running_loop()
        store = cls(setup)
        commit = store.committer()
        try:
            with ThreadPoolExecutor(cls.task_threads) as pool:

                async def put(key: bytes, value: bytes) -> None:
                    await loop.run_in_executor(pool, commit, key, value)

                yield put
        finally:
            store.close()


def load(engine: str) -> type[Store]:
    """Return the store of an engine. Raises: ImportError when the engine is not installed."""
    module = import_module(f"holdfast.testing.versus_{engine}")
    store: type[Store] = module.STORE
    return store


def is_installed(engine: str) -> bool:
    """Whether an engine can be imported."""
    return importlib.util.find_spec(ENGINES[engine]) is not None


def settings_of(engine: str) -> tuple[str, str]:
    """Return the version and the settings of an engine that is installed, in words."""
    module = import_module(f"holdfast.testing.versus_{engine}")
    version: str = module.version()
    return version, inspect.getdoc(module) or ""
