"""A keyspace with await: what holds for one of the engine holds for this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar, cast, overload

from holdfast import engine
from holdfast.aio.bridge import AT_ONCE_BYTES_MAX, TAKES_A_READ, Bridge, Commit
from holdfast.aio.cursor import Cursor
from holdfast.aio.transaction import Transaction
from holdfast.base import ConflictError, check_key, check_value, mark
from holdfast.engine import Condition, check_durability
from holdfast.wal import WriteBatch

Default = TypeVar("Default")

MANY_KEYS = 256
"""`get_many` of more keys runs in a thread, whether they are cached or not."""


class Keyspace:
    """A named, ordered mapping of bytes to bytes inside a database, for asyncio.

    Every call does what that of `holdfast.Keyspace` does, and raises the same. A call that is
    cancelled may have taken effect or not, and never in half. Thread safety: safe, also with
    several event loops at the same time.
    """

    def __init__(self, bridge: Bridge, keyspace: engine.Keyspace) -> None:
        self._bridge = bridge
        self._keyspace = keyspace
        self._ids = (keyspace.id,)

    @property
    def name(self) -> str:
        """The name it was created with."""
        return self._keyspace.name

    # -- reading

    @overload
    async def get(self, key: object) -> bytes | None: ...
    @overload
    async def get(self, key: object, default: Default) -> bytes | Default: ...

    async def get(self, key: object, default: object = None) -> object:
        """Return the value of `key`, or `default` when it is absent."""
        value = self._keyspace.get_cached(key, TAKES_A_READ)
        if value is TAKES_A_READ:
            return await self._bridge.run(partial(self._keyspace.get, check_key(key), default))
        return default if value is None else value

    async def contains(self, key: object) -> bool:
        """Return whether `key` has a value."""
        return await self.get(key) is not None

    async def get_many(self, keys: Iterable[object]) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent, as of one moment."""
        plain = [check_key(key) for key in keys]
        if len(plain) <= MANY_KEYS:
            view, seq = self._keyspace.read_point()
            values = [view.get_cached(key, seq, TAKES_A_READ) for key in plain]
            if TAKES_A_READ not in values:
                self._keyspace.state.read_count += len(plain)
                return cast("list[bytes | None]", values)
        return await self._bridge.run(partial(self._keyspace.get_many, plain))

    async def count(self) -> int:
        """Count the keys, by reading all of them; `stats` has an estimate at once."""
        return await self._bridge.run(self._keyspace.__len__)

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
        rows = self._keyspace.items(start, stop, prefix=prefix, reverse=reverse, limit=limit)
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
        rows = self._keyspace.keys(start, stop, prefix=prefix, reverse=reverse, limit=limit)
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
        rows = self._keyspace.values(start, stop, prefix=prefix, reverse=reverse, limit=limit)
        return Cursor(self._bridge, rows)

    # -- writing

    async def put(self, key: object, value: object, *, durability: str | None = None) -> None:
        """Set `key` to `value`."""
        batch = self._keyspace.begin_put(key, value, durability)
        if batch is not None:
            commit = Commit(self._bridge.mailbox(), batch, durability, self._ids)
            self._keyspace.submit(commit)
            await commit.future
            if durability == "interval":
                await self._arm_interval()

    async def delete(self, key: object, *, durability: str | None = None) -> None:
        """Remove `key`; nothing happens when it is absent."""
        batch = self._keyspace.begin_delete(key, durability)
        if batch is not None:
            await self._commit(batch, durability)

    async def put_many(
        self,
        pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]],
        *,
        durability: str | None = None,
    ) -> None:
        """Write all `pairs` as one atomic transaction; of equal keys the last wins."""
        batch = self._keyspace.batch_of(pairs)
        if batch.size > AT_ONCE_BYTES_MAX or not self._keyspace.commit_at_once(batch, durability):
            await self._commit(batch, durability)

    async def compare_and_set(
        self, key: object, expected: object, new: object, *, durability: str | None = None
    ) -> bool:
        """Set `key` to `new` if its value is `expected`, as one step, and return whether it was.
        None stands for an absent key. See `holdfast.Keyspace.compare_and_set`.
        """
        check_durability(durability)
        wanted = None if expected is None else check_value(expected)
        value = None if new is None else check_value(new)
        plain = check_key(key)
        self._keyspace.check_writable()
        while await self.get(plain) == wanted:
            try:
                async with Transaction(self._bridge, self._keyspace, durability=durability) as txn:
                    done = await txn.compare_and_set(plain, wanted, value)
                return done  # noqa: RET504  the commit is behind the block
            except ConflictError:
                mark("aio.compare_again")
        return False

    async def insert(self, key: object, value: object, *, durability: str | None = None) -> bool:
        """Set `key` to `value` if it is absent, as one step, and return whether it was."""
        return await self.compare_and_set(key, None, check_value(value), durability=durability)

    async def merge(
        self, key: object, function: str, operand: object, *, durability: str | None = None
    ) -> None:
        """Apply the merge function named `function` to the value of `key`, which is not read; see
        `holdfast.Keyspace.merge`.
        """
        plain = check_key(key)
        if self._keyspace.has_merges:
            value = self._keyspace.merge_value(function, operand)
        else:
            # The manifest is marked first.
            make = partial(self._keyspace.merge_value, function, operand)
            value = await self._bridge.run(make)
        batch = self._keyspace.begin_merge(plain, value, durability)
        if batch is not None:
            await self._commit(batch, durability)

    async def add(self, key: object, amount: int = 1, *, durability: str | None = None) -> None:
        """Add `amount` to the number that `key` has, 0 when it is absent."""
        await self.merge(key, "add", amount, durability=durability)

    async def ingest(self, pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]) -> int:
        """Write `pairs`, whose keys ascend, straight into tables, as one durable atomic
        transaction; return their number. They are read in another thread.
        """
        return await self._bridge.run(partial(self._keyspace.ingest, pairs))

    async def delete_range(
        self, start: object, stop: object, *, durability: str | None = None
    ) -> None:
        """Remove every key with `start` <= key < `stop`, whatever their number, as one operation.

        `start` None begins at the first key. `stop` None ends after the last one of the moment of
        the commit.
        """
        if stop is None:
            check_durability(durability)
            # A key may have to be read.
            first = None if start is None else check_key(start)
            check = await self._bridge.run(partial(self._keyspace.open_range, first))
            batch = WriteBatch() if check is None else check.batch
            await self._commit(batch, durability, check)
        else:
            await self._commit(self._keyspace.range_batch(start, stop), durability)

    async def clear(self) -> None:
        """Remove every key, as one operation."""
        await self.delete_range(None, None)

    async def _commit(
        self, batch: WriteBatch, durability: str | None, check: Condition | None = None
    ) -> None:
        commit = Commit(self._bridge.mailbox(), batch, durability, self._ids, check)
        if not batch.op_count and check is None:
            # Raises what a commit would raise, and writes nothing.
            self._keyspace.put_many(())
            return
        self._keyspace.submit(commit)
        await commit.future
        if durability == "interval":
            await self._arm_interval()

    async def _arm_interval(self) -> None:
        if not self._bridge.state.interval_armed:
            await self._bridge.run(self._keyspace.arm_interval)

    # -- upkeep

    async def flush(self) -> None:
        """Write what only memory and the log hold into tables. Returns when they are installed."""
        await self._bridge.run(self._keyspace.flush)

    async def compact(
        self,
        start: object = None,
        stop: object = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Bring [start, stop) to the last level: the space of deleted data comes back. `progress`
        is called in another thread.
        """
        await self._bridge.run(partial(self._keyspace.compact, start, stop, progress=progress))

    def __repr__(self) -> str:
        return f"<holdfast.aio.Keyspace {self.name!r}>"
