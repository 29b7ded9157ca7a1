"""Holdfast as a store of histories: clients whose transactions are those of a database.

Keys are spread over several keyspaces by their number, so most transactions write to more than one
of them. A list is kept as numbers with commas between them, a number as its digits, and what is
absent is no key. Clients read and write in many ways that should make no difference: in either
direction, by the key or in batches, through savepoints that are kept or rolled back, behind deletes
and range deletes, with a whole keyspace deleted and written anew, with locks and without.

1. Refused (`RefusedError`) is what the engine says had no effect: a conflict, a deadlock, a lock
   that was not free in time, a snapshot that was too old, a full disk.
2. Any other error of the engine stops the client (`StoppedError`): what it was committing may have
   happened.
3. What a client writes into a savepoint that it rolls back is a number that nobody writes, so that
   a checker knows it.

Thread safety: each client belongs to one thread or task; a store is shared by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Generic, NoReturn, TypeVar

import holdfast.aio
from holdfast import txn as transactions
from holdfast.aio.transaction import Transaction as AsyncTransaction
from holdfast.aio.transaction import TransactionKeyspace as AsyncTransactionKeyspace
from holdfast.base import ConflictError, DiskFullError, Error, TransactionTooOldError
from holdfast.engine import Database
from holdfast.testing.history import Isolation, Kind, Value, absent_value
from holdfast.testing.history_run import RefusedError, StoppedError

NEVER = b"-7"
"""What is written where it is rolled back: no client writes a number below 1."""

LOCK_SECONDS = 0.05

Txn = TypeVar("Txn")
Space = TypeVar("Space")


@dataclass(slots=True)
class Served:
    """What a store saw of its clients."""

    committed: int = 0
    conflicts: int = 0
    too_old: int = 0
    stopped: int = 0
    undone: int = 0
    """Savepoints that were rolled back."""
    rewritten: int = 0
    """Ranges without an end, and whole keyspaces, that were deleted and written anew."""
    locks: int = 0


@dataclass(slots=True, kw_only=True)
class EngineStore:
    """A database that is tried. It may be replaced by what is there after a crash."""

    kind: Kind
    seed: str
    names: Sequence[str] = ("default",)
    """Its keyspaces; the default one is the first."""
    durabilities: Sequence[str | None] = (None,)
    """What commits draw from. Only with None alone it may be crashed."""
    oddity: float = 0.3
    """How often a client does something in an odd way."""
    pause: Callable[[], None] = lambda: None
    """Called before each call of a client."""
    database: Database | None = None
    awaited: holdfast.aio.Database | None = None
    is_down: bool = False
    """Whether a client was stopped: the store has to be opened again."""
    served: Served = field(default_factory=Served)
    _clients: int = 0

    def client(self) -> EngineClient:
        """Return a new client."""
        return EngineClient(self, self.new_rng())

    def crash(self) -> NoReturn:
        """Do not: a machine that can crash is in `history_machine`."""
        raise NotImplementedError

    def new_rng(self) -> Random:
        """Return what the next client draws from."""
        self._clients += 1
        return Random(f"{self.seed}/client/{self._clients}")

    def refused(self, error: Error) -> RefusedError:
        """Return what a client raises when the engine gave its transaction up."""
        if isinstance(error, TransactionTooOldError):
            self.served.too_old += 1
        else:
            self.served.conflicts += 1
        return RefusedError(str(error))

    def stopped(self, error: Exception) -> StoppedError:
        """Return what a client raises when the engine cannot go on."""
        self.is_down = True
        self.served.stopped += 1
        return StoppedError(str(error))


REFUSALS = (ConflictError, TransactionTooOldError, DiskFullError)


class AsyncEngineStore:
    """The same store for tasks."""

    def __init__(self, store: EngineStore) -> None:
        self._store = store

    def client(self) -> AsyncEngineClient:
        """Return a new client."""
        return AsyncEngineClient(self._store, self._store.new_rng())


def _plain(key: str) -> bytes:
    return key.encode("ascii")


def _value_of(kind: Kind, plain: object) -> Value:
    """Return what a value that was read means."""
    if plain is None:
        return absent_value(kind)
    if not isinstance(plain, bytes):
        raise TypeError(f"{plain!r} is not a value")
    if kind == "rmw":
        return int(plain)
    return tuple(map(int, plain.split(b",")))


def _appended(before: Value, element: int) -> bytes:
    if isinstance(before, int):
        raise TypeError("a number has no end to append to")
    return b",".join(b"%d" % each for each in (*before, element))


def _merged(kind: Kind, parts: Sequence[list[tuple[bytes, bytes]]]) -> list[tuple[str, Value]]:
    """Return the rows of all keyspaces in the order of their keys."""
    rows = sorted(row for part in parts for row in part)
    return [(key.decode("ascii"), _value_of(kind, value)) for key, value in rows]


class _Undone(Exception):  # noqa: N818  leaves a savepoint's block, so that it is rolled back
    pass


class _Client(Generic[Txn, Space]):
    """What clients have in common, whether they wait in a thread or in a task."""

    def __init__(self, store: EngineStore, rng: Random) -> None:
        self._store = store
        self._rng = rng
        self._txn: Txn | None = None
        self._spaces: list[Space] = []

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Translate what the engine raises; whatever it is, the transaction is over."""
        store = self._store
        try:
            store.pause()
            yield
        except REFUSALS as error:
            self._let_go()
            raise store.refused(error) from error
        except (Error, OSError) as error:
            self._let_go()
            raise store.stopped(error) from error
        except BaseException:
            self._let_go()
            raise

    def _let_go(self) -> None:
        txn, self._txn, self._spaces = self._txn, None, []
        if txn is not None:
            self._end(txn)

    def _end(self, txn: Txn) -> None:
        """End a transaction, whatever state its machine is in."""
        raise NotImplementedError  # unreachable: each client has its own

    def _is_odd(self) -> bool:
        return self._rng.random() < self._store.oddity

    def _locks(self) -> bool:
        """Whether a key is to be locked first."""
        locks = self._rng.random() < self._store.oddity / 4
        self._store.served.locks += locks
        return locks

    def _space(self, key: str) -> Space:
        return self._spaces[int(key[-6:]) % len(self._spaces)]

    def _ended(self) -> None:
        self._txn, self._spaces = None, []


class EngineClient(_Client[transactions.Transaction, transactions.TransactionKeyspace]):
    """A client. Implements `history_run.Client`."""

    def _end(self, txn: transactions.Transaction) -> None:
        let_go(txn)

    def begin(self, isolation: Isolation, *, read_only: bool) -> None:
        """Begin a transaction."""
        store = self._store
        database = store.database
        if database is None:
            raise StoppedError("there is no database")
        with self._calling():
            txn = self._txn = database.transaction(
                isolation=isolation,
                read_only=read_only,
                durability=self._rng.choice(store.durabilities),
            )
            others = [txn.keyspace(name, create=False) for name in store.names[1:]]
            self._spaces = [txn, *others]

    def get(self, key: str) -> Value:
        """Return the value of a key."""
        with self._calling():
            return self._get(self._space(key), _plain(key))

    def _get(self, space: transactions.TransactionKeyspace, plain: bytes) -> Value:
        found: object
        if not self._is_odd():
            found = space.get(plain)
        elif self._rng.random() < 0.5:
            found = space.get_many([plain])[0]
        elif plain in space:
            found = space[plain]
        else:
            found = None
        return _value_of(self._store.kind, found)

    def scan(self, lower: str, upper: str) -> Sequence[tuple[str, Value]]:
        """Return the keys from `lower` up to `upper` with their values, in order."""
        reverse = self._is_odd()
        with self._calling():
            parts: list[list[tuple[bytes, bytes]]] = []
            for space in self._spaces:
                rows = space.items(_plain(lower), _plain(upper), reverse=reverse)
                part: list[tuple[bytes, bytes]] = []
                for row in rows:
                    part.append(row)
                    if self._is_odd():
                        self._store.pause()
                parts.append(part)
            return _merged(self._store.kind, parts)

    def append(self, key: str, element: int) -> tuple[int, ...] | None:
        """Append to a list; return the list before."""
        space, plain = self._space(key), _plain(key)
        with self._calling():
            self._lock(space, plain)
            before = self._get(space, plain)
            self._write(space, plain, _appended(before, element))
        return before if isinstance(before, tuple) else None

    def put(self, key: str, value: int) -> None:
        """Give a key a value."""
        with self._calling():
            self._write(self._space(key), _plain(key), b"%d" % value)

    def _lock(self, space: transactions.TransactionKeyspace, plain: bytes) -> None:
        if self._locks():
            space.lock(plain, timeout=LOCK_SECONDS)

    def _write(self, space: transactions.TransactionKeyspace, plain: bytes, value: bytes) -> None:
        odd = self._rng.randrange(5) if self._is_odd() else -1
        if odd == 0:
            space.delete(plain)
        elif odd == 1:
            space.delete_range(plain, plain + b"\0")
        elif odd == 2:
            self._undo(space, plain)
        elif odd == 3 and self._txn is not None:
            with self._txn.savepoint():
                space[plain] = value
                self._undo(space, plain)
            return
        elif odd == 4:
            self._rewrite(space, plain)
        space[plain] = value

    def _rewrite(self, space: transactions.TransactionKeyspace, plain: bytes) -> None:
        """Delete a range that has no end and write again what was there. What others write there
        meanwhile would be lost, if that were no conflict.
        """
        self._store.served.rewritten += 1
        start, stop = self._rng.choice(((None, None), (plain, None), (None, plain + b"\0")))
        rows = list(space.items(start, stop))
        if start is None and stop is None:
            space.clear()
        else:
            space.delete_range(start, stop)
        self._store.pause()
        space.put_many(rows)

    def _undo(self, space: transactions.TransactionKeyspace, plain: bytes) -> None:
        """Write what nobody may see, and take it back."""
        txn = self._txn
        if txn is None:
            return
        self._store.served.undone += 1
        with suppress(_Undone), txn.savepoint():
            space[plain] = NEVER
            with txn.savepoint():
                for each in self._spaces:
                    each.put(plain, NEVER)
                space.delete_range(plain[:-1], plain[:-1] + b"\xff")
            self._store.pause()
            raise _Undone

    def commit(self) -> bool:
        """Commit; return True."""
        with self._calling():
            if self._txn is not None:
                self._txn.commit()
        self._ended()
        self._store.served.committed += 1
        return True

    def abort(self) -> None:
        """End the transaction without effect."""
        with self._calling():
            if self._txn is not None:
                self._txn.rollback()
        self._ended()


class AsyncEngineClient(_Client[AsyncTransaction, AsyncTransactionKeyspace]):
    """A client that is a task. Implements `history_run.AsyncClient`."""

    def _end(self, txn: AsyncTransaction) -> None:
        let_go(txn._txn)  # noqa: SLF001  there is no other way in when the machine is off

    async def begin(self, isolation: Isolation, *, read_only: bool) -> None:
        """Begin a transaction."""
        store = self._store
        database = store.awaited
        if database is None:
            raise StoppedError("there is no database")
        with self._calling():
            txn = self._txn = database.transaction(
                isolation=isolation,
                read_only=read_only,
                durability=self._rng.choice(store.durabilities),
            )
            others = [await txn.keyspace(name, create=False) for name in store.names[1:]]
            self._spaces = [txn, *others]

    async def get(self, key: str) -> Value:
        """Return the value of a key."""
        with self._calling():
            return await self._get(self._space(key), _plain(key))

    async def _get(self, space: AsyncTransactionKeyspace, plain: bytes) -> Value:
        found: object
        if self._is_odd():
            found = (await space.get_many([plain]))[0]
        else:
            found = await space.get(plain)
        return _value_of(self._store.kind, found)

    async def scan(self, lower: str, upper: str) -> Sequence[tuple[str, Value]]:
        """Return the keys from `lower` up to `upper` with their values, in order."""
        reverse = self._is_odd()
        with self._calling():
            parts: list[list[tuple[bytes, bytes]]] = []
            for space in self._spaces:
                rows = space.items(_plain(lower), _plain(upper), reverse=reverse)
                parts.append([row async for row in rows])
            return _merged(self._store.kind, parts)

    async def append(self, key: str, element: int) -> tuple[int, ...] | None:
        """Append to a list; return the list before."""
        space, plain = self._space(key), _plain(key)
        with self._calling():
            if self._locks():
                await space.lock(plain, timeout=LOCK_SECONDS)
            before = await self._get(space, plain)
            await self._write(space, plain, _appended(before, element))
        return before if isinstance(before, tuple) else None

    async def put(self, key: str, value: int) -> None:
        """Give a key a value."""
        with self._calling():
            await self._write(self._space(key), _plain(key), b"%d" % value)

    async def _write(self, space: AsyncTransactionKeyspace, plain: bytes, value: bytes) -> None:
        txn = self._txn
        odd = self._rng.randrange(4) if self._is_odd() else -1
        if odd == 0:
            self._store.served.rewritten += 1
            rows = [row async for row in space.items(plain)]
            await space.delete_range(plain, None)
            await space.put_many(rows)
        elif odd > 0 and txn is not None:
            self._store.served.undone += 1
            with suppress(_Undone):
                async with txn.savepoint():
                    await space.put(plain, NEVER)
                    await space.delete_range(plain, plain + b"\0")
                    raise _Undone
        await space.put(plain, value)

    async def commit(self) -> bool:
        """Commit; return True."""
        with self._calling():
            if self._txn is not None:
                await self._txn.commit()
        self._ended()
        self._store.served.committed += 1
        return True

    async def abort(self) -> None:
        """End the transaction without effect."""
        with self._calling():
            if self._txn is not None:
                await self._txn.rollback()
        self._ended()


def let_go(txn: transactions.Transaction) -> None:
    """End a transaction, whatever state its machine is in."""
    with suppress(BaseException):
        txn.rollback()
    # When the machine is off nobody can be told, and nobody is left to be warned.
    del txn._held[:]  # noqa: SLF001  and there is no other way to say so
