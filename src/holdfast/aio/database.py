"""A database with await."""

from __future__ import annotations

from asyncio import Future, get_running_loop, sleep  # noqa: TID251  aio knows event loops
from collections.abc import Awaitable, Callable
from functools import partial
from os import PathLike
from types import TracebackType
from typing import TypeVar

from holdfast import engine
from holdfast.aio.bridge import Bridge, Commit, work
from holdfast.aio.changes import Changes
from holdfast.aio.keyspace import Keyspace
from holdfast.aio.snapshot import Snapshot
from holdfast.aio.transaction import Transaction
from holdfast.base import ConflictError, DatabaseSettings, Error, KeyspaceSettings
from holdfast.crypto import Key, KeySource
from holdfast.engine import CLOSED, FORKED, Report, SlowReport, Stats, TransactionInfo
from holdfast.env import Env
from holdfast.recovery import key_source
from holdfast.txn import Retry

Result = TypeVar("Result")


class Database(Keyspace):
    """An open database folder, for asyncio; it itself is its default keyspace.

    Close it when done, or use it with `async with`. Thread safety: safe, also with several event
    loops at the same time. After a fork the child's handle raises DatabaseClosedError.
    """

    def __init__(self, env: Env, database: engine.Database) -> None:
        super().__init__(Bridge(env, database.state), database)
        self._database = database

    @property
    def path(self) -> str:
        """The folder."""
        return self._database.path

    @property
    def settings(self) -> DatabaseSettings:
        """The settings in force."""
        return self._database.settings

    # -- keyspaces

    async def keyspace(
        self, name: str, *, create: bool = True, settings: KeyspaceSettings | None = None
    ) -> Keyspace:
        """Return keyspace `name`; a new one is created durably, unless `create` is False (then
        KeyError).
        """
        found = await self._bridge.run(
            partial(self._database.keyspace, name, create=create, settings=settings)
        )
        return self if found is self._database else Keyspace(self._bridge, found)

    async def keyspaces(self) -> list[str]:
        """Return the names of all keyspaces, sorted; the default one is among them."""
        return self._database.keyspaces()

    async def drop_keyspace(self, name: str) -> None:
        """Remove a keyspace with everything in it, durably.

        Raises: KeyError; LimitError for the default one.
        """
        await self._bridge.run(partial(self._database.drop_keyspace, name))

    # -- the whole database

    def snapshot(self) -> Snapshot:
        """Return the database as it is now, frozen; close it when done."""
        return Snapshot(self._bridge, self._database.snapshot())

    def changes(self, since: int = 0, *, follow: bool = False) -> Changes:
        """Iterate over the committed batches behind sequence number `since`, with `async for`; see
        `holdfast.Database.changes`.
        """
        return Changes(self._bridge, self._database.change_feed(since), follow=follow)

    def transaction(
        self,
        *,
        isolation: str = "serializable",
        read_only: bool = False,
        durability: str | None = None,
    ) -> Transaction:
        """Begin a transaction; use it with `async with`. See `holdfast.Database.transaction`."""
        return Transaction(
            self._bridge,
            self._database,
            isolation=isolation,
            read_only=read_only,
            durability=durability,
        )

    async def run(
        self,
        function: Callable[[Transaction], Awaitable[Result]],
        *,
        attempts: int = 10,
        isolation: str = "serializable",
        durability: str | None = None,
    ) -> Result:
        """Await `function(transaction)`, commit, and return its result; again, after a short random
        pause, when the transaction loses to another one. See `holdfast.Database.run`.
        """
        retry = Retry(self._bridge.env, attempts)
        while True:
            try:
                async with self.transaction(isolation=isolation, durability=durability) as txn:
                    result = await function(txn)
                return result  # noqa: RET504  the commit is behind the block
            except ConflictError as error:
                pause = retry.pause_after(error)
            await sleep(pause)

    async def transactions(self) -> list[TransactionInfo]:
        """Return the live transactions and snapshots; see `holdfast.Database.transactions`."""
        return self._database.transactions()

    async def compact(
        self,
        start: object = None,
        stop: object = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Bring all keyspaces to the last level, or with a bound that range of the default one; see
        `holdfast.Database.compact`. `progress` is called in another thread.
        """
        await super().compact(start, stop, progress=progress)

    async def sync(self) -> None:
        """Make every earlier write durable, whatever durability it was made with."""
        commit = Commit(self._bridge.mailbox(), None, None)
        self._database.submit(commit)
        await commit.future

    async def verify(self) -> Report:
        """Read and check every byte of every file; damage is in the report, not raised."""
        return await self._bridge.run(self._database.verify)

    async def backup(
        self,
        folder: str | PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Copy the database as it is now to a new or empty folder, durably; see
        `holdfast.Database.backup`. `progress` is called in another thread. A backup whose task is
        cancelled goes on.
        """
        await self._bridge.run(partial(self._database.backup, folder, progress=progress))

    async def stats(self) -> Stats:
        """Return sizes, counters and amplifications."""
        return await self._bridge.run(self._database.stats)

    async def why_slow(self) -> SlowReport:
        """Return what this database waited for; see `holdfast.Database.why_slow`."""
        return await self._bridge.run(self._database.why_slow)

    async def rekey(
        self,
        key: Key | KeySource | None = None,
        *,
        rewrite: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Change the key of an encrypted database; see `holdfast.Database.rekey`. A key that is
        callable, and `progress`, are called in another thread. A change whose task is cancelled
        goes on.
        """
        try:
            source = key_source(key)
        finally:
            # What a traceback shows of this frame must not be the key.
            del key
        await self._bridge.run(
            partial(self._database.rekey, source, rewrite=rewrite, progress=progress)
        )

    async def root_digest(self) -> bytes:
        """Return 48 bytes that stand for everything that was committed until now, and make it
        durable; see `holdfast.Database.root_digest`.
        """
        return await self._bridge.run(self._database.root_digest)

    async def close(self) -> None:
        """Flush and close; a second close is harmless. Tasks that still wait are served or refused.

        A close whose task is cancelled goes on. Raises: DatabasePoisonedError when a sync failed
        meanwhile.
        """
        if self._bridge.state.flags & (CLOSED | FORKED):
            self._database.close()
            return
        loop = get_running_loop()
        future: Future[None] = loop.create_future()
        env = self._bridge.env
        # Not in the crew: closing waits for what runs there.
        task = env.spawn("holdfast-aio-close", partial(work, env, loop, future, self._end))
        await future
        task.join()

    def _end(self) -> None:
        try:
            self._database.close()
        finally:
            self._bridge.stop()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except Error:
            # What ended the block says more than that the end was not clean.
            if error is None:
                raise

    def __repr__(self) -> str:
        state = "closed" if self._bridge.state.flags & CLOSED else "open"
        return f"<holdfast.aio.Database {self.path!r} {state}>"
