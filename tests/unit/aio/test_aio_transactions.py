"""Goal: transactions with await do what those of threads do, and their commits share groups."""

from __future__ import annotations

import asyncio
from math import nan
from pathlib import Path

import pytest

import holdfast.aio
from holdfast.aio import Transaction
from holdfast.base import (
    ConflictError,
    DatabaseClosedError,
    DatabaseSettings,
    DeadlockError,
    TransactionTooOldError,
)


def run(path: Path, body: object) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(str(path / "db")) as db:
            await body(db)  # type: ignore[operator]
            snapshots = db._database._engine.snapshots
            for _ in range(500):
                # The thread that commits may be about to let go of a commit that was cancelled.
                if not snapshots.live():
                    break
                await asyncio.sleep(0.01)
            assert [] == snapshots.live()

    asyncio.run(main())


def test_reads_writes_and_ends(tmp_path: Path) -> None:
    async def body(db: holdfast.aio.Database) -> None:
        await db.put_many({b"a": b"1", b"b": b"2"})
        await db.flush()
        async with db.transaction() as txn:
            assert b"1" == await txn.get(b"a")
            assert [b"1", None] == await txn.get_many([b"a", b"x"])
            await txn.put(b"c", b"3")
            await txn.delete(b"b")
            assert not await txn.contains(b"b")
            assert 2 == await txn.count()
            other = await txn.keyspace("other")
            assert txn is await txn.keyspace("default")
            await other.put_many({b"o": b"1"})
            assert [(b"o", b"1")] == [row async for row in other.items()]
            with pytest.raises(ZeroDivisionError):
                async with txn.savepoint():
                    await txn.clear()
                    assert [] == [key async for key in txn.keys()]
                    raise ZeroDivisionError
            async with txn.savepoint() as savepoint:
                await txn.delete_range(b"a", b"c")
                await savepoint.rollback()
            assert [b"3", b"1"] == [value async for value in txn.values(reverse=True)]
        assert [(b"a", b"1"), (b"c", b"3")] == [row async for row in db.items()]
        with pytest.raises(DatabaseClosedError, match="was committed"):
            await txn.get(b"a")
        with pytest.raises(ZeroDivisionError):
            async with db.transaction(durability="interval") as txn:
                await txn.put(b"a", b"")
                raise ZeroDivisionError
        assert not txn.is_open
        async with db.transaction(durability="interval") as txn:
            await txn.put(b"i", b"")
        await txn.rollback()
        txn = db.transaction()
        await txn.commit()

    run(tmp_path, body)


def test_a_conflict_is_the_losers(tmp_path: Path) -> None:
    async def body(db: holdfast.aio.Database) -> None:
        one, two = db.transaction(), db.transaction(isolation="snapshot")
        for txn in (one, two):
            await txn.get(b"n")
            await txn.put(b"n", b"")
        results = await asyncio.gather(one.commit(), two.commit(), return_exceptions=True)
        assert [None, ConflictError] == [results[0], type(results[1])]
        assert not two.is_open
        large = db.transaction()
        await large.get_many([b"%d" % number for number in range(100)])
        await large.put(b"m", b"")
        await db.put(b"55", b"")
        with pytest.raises(ConflictError, match="key b'55'"):
            await large.commit()

    run(tmp_path, body)


def test_counters_of_many_tasks(tmp_path: Path) -> None:
    async def body(db: holdfast.aio.Database) -> None:
        async def step(txn: Transaction) -> int:
            n = int(await txn.get(b"n", b"0"))  # type: ignore[call-overload]
            await asyncio.sleep(0)
            await txn.put(b"n", b"%d" % (n + 1))
            return n

        seen = await asyncio.gather(
            *(db.run(step, attempts=1000, durability="none") for _ in range(20))
        )
        assert list(range(20)) == sorted(seen)
        assert b"20" == await db.get(b"n")

        async def loses(txn: Transaction) -> None:
            await txn.get(b"n")
            await db.put(b"n", b"0")
            await txn.put(b"m", b"")

        with pytest.raises(ConflictError) as caught:
            await db.run(loses, attempts=2)
        assert ["the transaction was run 2 times and lost each time"] == caught.value.__notes__

    run(tmp_path, body)


def test_a_commit_that_is_cancelled_is_decided(tmp_path: Path) -> None:
    """The snapshot is held until the check was made, and not longer."""

    async def body(db: holdfast.aio.Database) -> None:
        for _ in range(5):
            txn = db.transaction()
            await txn.get(b"a")
            await txn.put(b"a", b"")
            await txn.put(b"b", b"")
            task = asyncio.create_task(txn.commit())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not txn.is_open
            await db.sync()
            assert await db.contains(b"a") == await db.contains(b"b")

    run(tmp_path, body)


def test_locks_are_waited_for_without_a_thread(tmp_path: Path) -> None:
    async def body(db: holdfast.aio.Database) -> None:
        async def step() -> None:
            async with db.transaction(durability="none") as txn:
                await txn.lock(b"n")
                n = int(await txn.get(b"n", b"0"))  # type: ignore[call-overload]
                await asyncio.sleep(0)
                await txn.put(b"n", b"%d" % (n + 1))

        await asyncio.gather(*(step() for _ in range(60)))
        assert b"60" == await db.get(b"n")
        one, two = db.transaction(), db.transaction()
        await one.lock(b"a")
        await two.lock((b"b", None))
        with pytest.raises(ConflictError, match="was not free within"):
            await two.lock(b"a", timeout=0.01)
        waiting = asyncio.create_task(two.lock(b"a", shared=True))
        await asyncio.sleep(0.01)
        with pytest.raises(DeadlockError):
            await one.lock(b"c")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        waiting = asyncio.create_task(two.lock(b"a", shared=True))
        await asyncio.sleep(0.01)
        await one.rollback()
        await waiting
        await two.rollback()

    run(tmp_path, body)


def test_a_block_of_one_that_was_ended_for_its_age_raises(tmp_path: Path) -> None:
    """It did not commit, and must not look as if it had."""

    async def main() -> None:
        settings = DatabaseSettings(max_transaction_age=1)
        async with await holdfast.aio.open(str(tmp_path / "db"), settings=settings) as db:
            with pytest.raises(TransactionTooOldError, match="max_transaction_age is 1"):
                async with db.transaction() as txn:
                    await txn.put(b"k", b"v")
                    await asyncio.sleep(1.1)
                    await db.put(b"x", b"1")
                    await db.flush()
                    assert not txn.is_open
            assert await db.get(b"k") is None
            assert [] == await db.transactions()

    asyncio.run(main())


def test_a_lock_whose_timeout_is_no_number_asks_for_nothing(tmp_path: Path) -> None:
    async def body(db: holdfast.aio.Database) -> None:
        one, two, three = db.transaction(), db.transaction(), db.transaction()
        await one.lock(b"k")
        with pytest.raises(TypeError):
            await two.lock(b"k", timeout="1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="not nan"):
            await two.lock(b"k", timeout=nan)
        await one.rollback()
        await three.lock(b"k", timeout=0)
        await three.rollback()
        await two.rollback()

    run(tmp_path, body)
