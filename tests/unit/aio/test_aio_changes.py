"""The change feed with await: the same changes, and a task that waits loses nothing."""

import asyncio

import pytest

import holdfast.aio
from holdfast.aio.changes import CHUNK_CHANGES
from holdfast.base import ChangesGoneError, DatabaseClosedError, DatabaseSettings
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.testing import sim_loop

SETTINGS = DatabaseSettings(wal_keep_bytes=1 << 20)


def run(main, settings=SETTINGS, seed=1):
    machine = SimEnv(seed)
    database = open_database("/db", settings=settings, env=machine)

    async def wrapped():
        async with holdfast.aio.Database(machine, database) as db:
            await main(db, database)

    sim_loop.run(machine, wrapped())
    assert machine.unreturned() == []


def test_they_are_those_of_the_plain_feed():
    async def main(db, database):
        for number in range(2 * CHUNK_CHANGES + 3):
            await db.put(b"%04d" % number, b"x")
        async with db.transaction() as txn:
            await txn.put(b"a", b"1")
            await txn.delete(b"0000")
        expected = list(database.changes())
        assert len(expected) == 2 * CHUNK_CHANGES + 4
        assert [change async for change in db.changes()] == expected
        assert [change async for change in db.changes(expected[-2].seq)] == expected[-1:]
        assert [change async for change in db.changes(expected[-1].seq)] == []
        with pytest.raises(ValueError, match="the sequence numbers are 0 to"):
            db.changes(10_000)

    run(main)


def test_one_that_follows_gets_what_comes_until_the_close():
    async def main(db, database):
        found = []

        async def follow():
            async for change in db.changes(follow=True):
                found.append(change)

        task = asyncio.ensure_future(follow())
        for number in range(20):
            await db.put(b"%02d" % number, b"x")
            await asyncio.sleep(0.01 * (number % 3))
        await asyncio.sleep(1)
        assert found == list(database.changes())
        await db.close()
        with pytest.raises(DatabaseClosedError):
            await asyncio.wait_for(task, 10)

    run(main)


def test_a_task_that_is_cancelled_while_it_waits_loses_nothing():
    async def main(db, database):
        feed = db.changes(follow=True)
        found = []
        for number in range(30):
            await db.put(b"%02d" % number, b"x")
            task = asyncio.ensure_future(feed.__anext__())
            await asyncio.sleep(0 if number % 2 else 1e-5 * number)
            task.cancel()
            try:
                found.append(await task)
            except asyncio.CancelledError:
                pass
        while len(found) < 30:
            found.append(await asyncio.wait_for(anext(feed), 10))
        assert found == list(database.changes())

    run(main)


def test_changes_that_are_gone_are_an_error_again_and_again():
    async def main(db, database):
        for number in range(200):
            await db.put(b"%04d" % number, b"x" * 100)
        await db.flush()
        feed = db.changes()
        for _ in range(2):
            with pytest.raises(ChangesGoneError):
                while True:
                    await anext(feed)

    run(main, DatabaseSettings(wal_segment_bytes=4096, wal_bytes_max=8192))
