"""Transactions with await: reads that take a page from a file run in a thread, and commits of tasks
share groups with everybody else's.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop, wait  # noqa: TID251  aio knows event loops
from collections.abc import Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import TypeVar, cast, overload

from holdfast import engine, txn
from holdfast.aio.bridge import AT_ONCE_BYTES_MAX, TAKES_A_READ, Bridge, Commit, tell
from holdfast.aio.cursor import Cursor
from holdfast.base import check_key, check_value

Default = TypeVar("Default")


class TransactionKeyspace:
    """A keyspace within a transaction, for asyncio; see `holdfast.TransactionKeyspace`.

    An iterator reads some rows ahead, and what it read counts as read. One task at a time: a second
    one gets RuntimeError.
    """

    def __init__(self, bridge: Bridge, space: txn.TransactionKeyspace) -> None:
        self._bridge = bridge
        self._space = space

    @property
    def name(self) -> str:
        """The name of the keyspace."""
        return self._space.name

    # -- reading

    @overload
    async def get(self, key: object) -> bytes | None: ...
    @overload
    async def get(self, key: object, default: Default) -> bytes | Default: ...

    async def get(self, key: object, default: object = None) -> object:
        """Return the value of `key`, or `default` when it is absent."""
        plain = check_key(key)
        value = self._space.get_cached(plain, TAKES_A_READ)
        if value is TAKES_A_READ:
            return await self._bridge.run(partial(self._space.get, plain, default))
        return default if value is None else value

    async def contains(self, key: object) -> bool:
        """Return whether `key` has a value."""
        return await self.get(key) is not None

    async def get_many(self, keys: Iterable[object]) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        plain = [check_key(key) for key in keys]
        values = [self._space.get_cached(key, TAKES_A_READ) for key in plain]
        if TAKES_A_READ in values:
            return await self._bridge.run(partial(self._space.get_many, plain))
        return cast("list[bytes | None]", values)

    async def count(self) -> int:
        """Count the keys, by reading all of them."""
        return await self._bridge.run(self._space.__len__)

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
        rows = self._space.items(start, stop, prefix=prefix, reverse=reverse, limit=limit)
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
        rows = self._space.keys(start, stop, prefix=prefix, reverse=reverse, limit=limit)
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
        rows = self._space.values(start, stop, prefix=prefix, reverse=reverse, limit=limit)
        return Cursor(self._bridge, rows)

    # -- writing

    async def put(self, key: object, value: object) -> None:
        """Set `key` to `value`."""
        self._space.put(key, value)

    async def delete(self, key: object) -> None:
        """Remove `key`; nothing happens when it is absent."""
        self._space.delete(key)

    async def put_many(self, pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> None:
        """Write all `pairs`; of equal keys the last wins."""
        self._space.put_many(pairs)

    async def compare_and_set(self, key: object, expected: object, new: object) -> bool:
        """Set `key` to `new` if its value is `expected`, and return whether it was. None stands for
        an absent key. The key counts as read, whatever comes of it.
        """
        plain = check_key(key)
        if self._space.get_cached(plain, TAKES_A_READ) is TAKES_A_READ:
            return await self._bridge.run(
                partial(self._space.compare_and_set, plain, expected, new)
            )
        return self._space.compare_and_set(plain, expected, new)

    async def insert(self, key: object, value: object) -> bool:
        """Set `key` to `value` if it is absent, and return whether it was."""
        return await self.compare_and_set(key, None, check_value(value))

    async def merge(self, key: object, function: str, operand: object) -> None:
        """Apply a merge function to the value of `key`; see `TransactionKeyspace.merge`."""
        if self._space.has_merges:
            self._space.merge(key, function, operand)
        else:
            # The manifest is marked first.
            await self._bridge.run(partial(self._space.merge, check_key(key), function, operand))

    async def add(self, key: object, amount: int = 1) -> None:
        """Add `amount` to the number that `key` has, 0 when it is absent."""
        await self.merge(key, "add", amount)

    async def delete_range(self, start: object, stop: object) -> None:
        """Remove every key with `start` <= key < `stop`, whatever their number, as one operation.

        `start` None begins at the first key. `stop` None ends after the last one, which is read.
        """
        if stop is None:
            first = None if start is None else check_key(start)
            await self._bridge.run(partial(self._space.delete_range, first, None))
        else:
            self._space.delete_range(start, stop)

    async def clear(self) -> None:
        """Remove every key."""
        await self.delete_range(None, None)

    # -- locks

    async def lock(
        self,
        target: object,
        *,
        shared: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  the contract's name
    ) -> None:
        """Wait until no other transaction has a lock on `target`, a key or (start, stop), and lock
        it until this one ends; see `holdfast.TransactionKeyspace.lock`.
        """
        owner, span = self._space.owner(), self._space.span(target)
        owner.state.enter()
        try:
            await _take_lock(owner, span, shared, timeout)
            # What is locked may have to be read.
            await self._bridge.run(partial(owner.locked, span))
        finally:
            owner.state.leave()


async def _take_lock(
    owner: txn.Transaction, span: txn.Span, shared: bool, seconds: float | None
) -> None:
    loop = get_running_loop()
    # Before it is asked for: a timeout that is no number must not leave a request behind.
    until = txn.deadline(loop.time(), seconds)
    granted: Future[None] = loop.create_future()
    request = owner.request_lock(span, shared=shared, wake=partial(tell, loop, _settle, granted))
    table = owner.lock_table
    try:
        while request.is_waiting:
            left = txn.LOOK_SECONDS if until is None else until - loop.time()
            if left <= 0:
                raise table.timed_out(request, seconds)
            await wait([granted], timeout=min(left, txn.LOOK_SECONDS))
            table.look()
    except BaseException:
        table.withdraw(request)
        raise


def _settle(granted: Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)


class Transaction(TransactionKeyspace):
    """A transaction, for asyncio; it itself is its default keyspace. See `holdfast.Transaction`.

    With `async with` it commits at the end, and rolls back when an exception leaves the block. A
    commit whose task is cancelled may have taken effect or not, and never in half.
    """

    def __init__(
        self,
        bridge: Bridge,
        keyspace: engine.Keyspace,
        *,
        isolation: str = "serializable",
        read_only: bool = False,
        durability: str | None = None,
    ) -> None:
        self._txn = keyspace.begin(isolation=isolation, read_only=read_only, durability=durability)
        self._keyspace = keyspace
        super().__init__(bridge, self._txn)

    @property
    def isolation(self) -> str:
        """Its level: "serializable" or "snapshot"."""
        return self._txn.isolation

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self._txn.read_only

    @property
    def durability(self) -> str | None:
        """How durable its commit will be; None is "commit"."""
        return self._txn.durability

    @property
    def seq(self) -> int:
        """The sequence number it reads at."""
        return self._txn.seq

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self._txn.is_open

    async def keyspace(self, name: str, *, create: bool = True) -> TransactionKeyspace:
        """Return keyspace `name` within this transaction; see `holdfast.Transaction.keyspace`."""
        found = await self._bridge.run(partial(self._txn.keyspace, name, create=create))
        return self if found is self._txn else TransactionKeyspace(self._bridge, found)

    def savepoint(self) -> Savepoint:
        """Return an asynchronous context manager that rolls back to where its block began when an
        exception leaves it.
        """
        return Savepoint(self._txn.savepoint())

    async def commit(self) -> None:
        """Make all writes durable and visible, all or none, and end the transaction.

        Raises: ConflictError when a concurrent transaction won; what a commit raises.
        """
        if self._txn.state.batch.size <= AT_ONCE_BYTES_MAX and self._txn.commit_at_once():
            self._keyspace.beat()
            return
        prepared = self._txn.prepare()
        if prepared is None:
            return
        check = prepared.check
        try:
            if check is not None and check.is_large:
                await self._bridge.run(partial(self._keyspace.look_ahead, check))
            commit = Commit(
                self._bridge.mailbox(),
                prepared.batch,
                prepared.durability,
                prepared.keyspaces,
                check,
            )
            self._keyspace.submit(commit)
            await commit.future
        except BaseException as error:
            self._txn.finish(error, check)
            raise
        self._txn.finish(None)
        if prepared.durability == "interval" and not self._bridge.state.interval_armed:
            await self._bridge.run(self._keyspace.arm_interval)

    async def rollback(self) -> None:
        """Forget all writes and end the transaction; does nothing when it has ended."""
        self._txn.rollback()

    async def __aenter__(self) -> Transaction:
        self._txn.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._txn.rollback()
        elif self._txn.wants_end:
            await self.commit()


class Savepoint:
    """A place in a transaction to which it can be rolled back. Begins with its block."""

    def __init__(self, savepoint: txn.Savepoint) -> None:
        self._savepoint = savepoint

    async def rollback(self) -> None:
        """Undo what was written since the block began; the block goes on."""
        self._savepoint.rollback()

    async def __aenter__(self) -> Savepoint:
        self._savepoint.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._savepoint.__exit__(kind, error, trace)
