"""SQLite through the standard library's `sqlite3`.

- One table `(k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID`, `journal_mode=WAL`, `cache_size` as in the
  comparison, all else as by default (pages of 4 KiB, a checkpoint each 1,000 pages).
- Durable: `synchronous=FULL`, a transaction a row. Many threads share one connection under a lock,
  which is quicker than one each, as there is one writer at a time.
- Not synced: `synchronous=NORMAL` (syncs at checkpoints, and a crash takes the newest rows), 1,000
  rows a transaction, one `execute` a row.
- Statements are prepared once: `sqlite3` keeps them by their text.
- Workloads that only read use one transaction throughout, those that read and write on one thread
  the open one. A reader beside a writer has a connection of its own.
- Transactions: `BEGIN IMMEDIATE` to `COMMIT`, threads under the same lock.
- Batches: `executemany` in a transaction. Lists of keys: `k IN (...)`. Lists of rows: `fetchmany`.
- Tasks: one thread.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import ClassVar

from holdfast.testing.versus_store import ROWS_A_TRANSACTION, Put, Row, Setup, Store

_KIB = 1024
_MAKE = "CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID"
_PUT = "INSERT OR REPLACE INTO t VALUES (?, ?)"
_DELETE = "DELETE FROM t WHERE k = ?"
_GET = "SELECT v FROM t WHERE k = ?"


def version() -> str:
    """Return what runs."""
    return sqlite3.sqlite_version


class SqliteStore(Store):
    """A database of SQLite."""

    syncs: ClassVar[dict[str, str]] = {
        "commit": "synchronous=FULL",
        "none": "synchronous=NORMAL",
    }
    task_threads: ClassVar[int] = 1

    def __init__(self, setup: Setup) -> None:
        os.makedirs(setup.folder, exist_ok=True)
        self._file = os.path.join(setup.folder, "database.sqlite")
        self._cache_kib = max(setup.cache_bytes // _KIB, 1)
        self._synchronous = "FULL" if setup.sync == "commit" else "NORMAL"
        self._connection = self._connect()
        self._connection.execute(_MAKE)
        self._others: list[sqlite3.Connection] = []
        self._cursor = self._connection.cursor()
        self._lock = threading.Lock()
        self._left = 0

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        made.execute("PRAGMA journal_mode = WAL").fetchone()
        made.execute(f"PRAGMA synchronous = {self._synchronous}")
        made.execute(f"PRAGMA cache_size = -{self._cache_kib}")
        return made

    def _begin(self) -> None:
        """Begin a transaction when there is none."""
        if not self._connection.in_transaction:
            self._cursor.execute("BEGIN")
            self._left = ROWS_A_TRANSACTION

    def _count(self) -> None:
        """Count a write; commit when the transaction is full."""
        self._left -= 1
        if not self._left:
            self.finish()

    def putter(self) -> Put:
        execute = self._cursor.execute

        def put(key: bytes, value: bytes) -> None:
            if not self._left:
                self._begin()
            execute(_PUT, (key, value))
            self._count()

        return put

    def deleter(self) -> Callable[[bytes], object]:
        execute = self._cursor.execute

        def delete(key: bytes) -> None:
            if not self._left:
                self._begin()
            execute(_DELETE, (key,))
            self._count()

        return delete

    def committer(self) -> Put:
        execute, lock = self._connection.cursor().execute, self._lock

        def commit(key: bytes, value: bytes) -> None:
            with lock:
                execute(_PUT, (key, value))

        return commit

    def updater(self, isolation: str = "serializable") -> Put:
        self.finish()
        execute, lock = self._connection.cursor().execute, self._lock

        def update(key: bytes, value: bytes) -> None:
            with lock:
                execute("BEGIN IMMEDIATE")
                execute(_GET, (key,)).fetchone()
                execute(_PUT, (key, value))
                execute("COMMIT")

        return update

    def batch_putter(self) -> Callable[[Sequence[Row]], object]:
        cursor = self._cursor

        def put(rows: Sequence[Row]) -> None:
            cursor.execute("BEGIN")
            cursor.executemany(_PUT, rows)
            cursor.execute("COMMIT")

        return put

    def getter(self) -> Callable[[bytes], bytes | None]:
        self._begin()
        return _getter(self._connection)

    def fresh_getter(self) -> Callable[[bytes], bytes | None]:
        connection = self._connect()
        self._others.append(connection)
        return _getter(connection)

    def many_getter(self) -> Callable[[Sequence[bytes]], object]:
        self._begin()
        execute = self._cursor.execute

        def get(keys: Sequence[bytes]) -> list[Row]:
            marks = ",".join("?" * len(keys))
            return execute(f"SELECT k, v FROM t WHERE k IN ({marks})", keys).fetchall()

        return get

    def rows(
        self, start: bytes | None = None, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Row]:
        execute = self._connection.cursor().execute
        if limit is None and start is None:
            return execute(f"SELECT k, v FROM t ORDER BY k {'DESC' if reverse else 'ASC'}")
        bounds = (start or b"", -1 if limit is None else limit)
        return execute("SELECT k, v FROM t WHERE k >= ? ORDER BY k LIMIT ?", bounds)

    def chunks(self, count: int) -> Iterator[Sequence[Row]]:
        cursor = self._connection.cursor().execute("SELECT k, v FROM t ORDER BY k")
        while chunk := cursor.fetchmany(count):
            yield chunk

    def fill(self, rows: Iterable[Row]) -> None:
        source = iter(rows)
        execute = self._cursor.execute
        while True:
            execute("BEGIN")
            row = None
            for row in islice(source, ROWS_A_TRANSACTION):
                execute(_PUT, row)
            execute("COMMIT")
            if row is None:
                return

    def finish(self) -> None:
        self._left = 0
        if self._connection.in_transaction:
            self._cursor.execute("COMMIT")

    def close(self) -> None:
        self.finish()
        for connection in (*self._others, self._connection):
            connection.close()


def _getter(connection: sqlite3.Connection) -> Callable[[bytes], bytes | None]:
    execute = connection.cursor().execute

    def get(key: bytes) -> bytes | None:
        row = execute(_GET, (key,)).fetchone()
        return None if row is None else row[0]

    return get


STORE = SqliteStore
