"""LMDB through `lmdb` (py-lmdb), with its default flags.

- A map of 64 GiB. LMDB has no cache of its own: it reads through the system's page cache, which no
  cache size of the comparison limits, and which its peak of memory includes.
- Durable: a write transaction a row, with `sync=True` (the default).
- Not synced: `sync=False, metasync=False`, 1,000 rows a write transaction, so that a copied path of
  pages serves many rows. A crash of the machine may then damage the whole database.
- Workloads that only read use one read transaction throughout, those that read and write on one
  thread the open write transaction. A reader beside a writer begins a new one each 100 gets.
- Transactions: a write transaction each; there is one at a time.
- Batches: `putmulti` in a transaction. Lists of keys: `getmulti`.
- Loads of sorted rows: `putmulti(append=True)` in a transaction.
- `readahead=False` where data are read cold at random, as its documentation recommends.
- Tasks: one thread, as there is one writer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import ClassVar, cast

import lmdb

from holdfast.testing.bench_report import version_of
from holdfast.testing.versus_store import ROWS_A_TRANSACTION, Put, Row, Setup, Store

_MAP_BYTES = 64 << 30
_READERS = 256
_GETS_A_TRANSACTION = 100


def version() -> str:
    """Return what runs."""
    return f"{version_of('lmdb')}, LMDB {'.'.join(map(str, lmdb.version()))}"


class LmdbStore(Store):
    """An environment of LMDB."""

    syncs: ClassVar[dict[str, str]] = {"commit": "sync=True", "none": "sync=False"}
    task_threads: ClassVar[int] = 1

    def __init__(self, setup: Setup) -> None:
        is_synced = setup.sync == "commit"
        self._environment = lmdb.open(
            setup.folder,
            map_size=_MAP_BYTES,
            sync=is_synced,
            metasync=is_synced,
            readahead=not setup.is_cold,
            max_readers=_READERS,
        )
        self._has_writes = setup.has_writes
        self._transaction: lmdb.Transaction | None = None
        self._left = 0

    def _open(self) -> lmdb.Transaction:
        """Return the transaction that is open, a new one when there is none."""
        if self._transaction is None:
            self._transaction = self._environment.begin(write=self._has_writes)
            self._left = ROWS_A_TRANSACTION
        return self._transaction

    def _count(self) -> None:
        """Count a write; commit when the transaction is full."""
        self._left -= 1
        if not self._left:
            self.finish()

    def putter(self) -> Put:
        def put(key: bytes, value: bytes) -> None:
            (self._transaction or self._open()).put(key, value)
            self._count()

        return put

    def deleter(self) -> Callable[[bytes], object]:
        def delete(key: bytes) -> None:
            (self._transaction or self._open()).delete(key)
            self._count()

        return delete

    def committer(self) -> Put:
        begin = self._environment.begin

        def commit(key: bytes, value: bytes) -> None:
            with begin(write=True) as transaction:
                transaction.put(key, value)

        return commit

    def updater(self, isolation: str = "serializable") -> Put:
        begin = self._environment.begin

        def update(key: bytes, value: bytes) -> None:
            with begin(write=True) as transaction:
                transaction.get(key)
                transaction.put(key, value)

        return update

    def batch_putter(self) -> Callable[[Sequence[Row]], object]:
        begin = self._environment.begin

        def put(rows: Sequence[Row]) -> None:
            with begin(write=True) as transaction:
                transaction.cursor().putmulti(rows)

        return put

    def loader(self) -> Callable[[Sequence[Row]], object]:
        begin = self._environment.begin

        def load(rows: Sequence[Row]) -> None:
            with begin(write=True) as transaction:
                transaction.cursor().putmulti(rows, append=True)

        return load

    def getter(self) -> Callable[[bytes], bytes | None]:
        if not self._has_writes:
            return cast("Callable[[bytes], bytes | None]", self._open().get)

        def get(key: bytes) -> bytes | None:
            return cast("bytes | None", (self._transaction or self._open()).get(key))

        return get

    def fresh_getter(self) -> Callable[[bytes], bytes | None]:
        begin = self._environment.begin
        transaction = begin()
        left = _GETS_A_TRANSACTION

        def get(key: bytes) -> bytes | None:
            nonlocal transaction, left
            left -= 1
            if not left:
                transaction.abort()
                transaction = begin()
                left = _GETS_A_TRANSACTION
            return transaction.get(key)

        return get

    def many_getter(self) -> Callable[[Sequence[bytes]], object]:
        cursor = self._open().cursor()
        return cursor.getmulti

    def rows(
        self, start: bytes | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Row]:
        cursor = self._open().cursor()
        if start is not None and not cursor.set_range(start):
            return iter(())
        found = cast("Iterator[Row]", cursor.iterprev() if reverse else cursor.iternext())
        return found if limit is None else islice(found, limit)

    def chunks(self, count: int) -> Iterator[Sequence[Row]]:
        rows = self.rows()
        while chunk := list(islice(rows, count)):
            yield chunk

    def fill(self, rows: Iterable[Row]) -> None:
        source = iter(rows)
        while True:
            with self._environment.begin(write=True) as transaction:
                put = transaction.put
                row = None
                for row in islice(source, ROWS_A_TRANSACTION):
                    put(*row)
            if row is None:
                return

    def finish(self) -> None:
        if self._transaction is not None:
            self._transaction.commit()
            self._transaction = None

    def close(self) -> None:
        self.finish()
        self._environment.close()


STORE = LmdbStore
