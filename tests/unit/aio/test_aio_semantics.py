"""Goal: the awaited face does what the plain one does, on a real machine and a simulated one."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest

import holdfast
import holdfast.aio
from holdfast.aio import bridge
from holdfast.aio.cursor import CHUNK_BYTES, CHUNK_ROWS, FIRST_ROWS
from holdfast.base import PURE, DatabaseSettings, KeyspaceSettings
from holdfast.engine.committer import Committer
from holdfast.env import SimEnv
from holdfast.testing import sim_loop
from tests.model.strategies import tiny


async def listed(cursor: holdfast.aio.Cursor[Any]) -> list[Any]:
    return [row async for row in cursor]


def test_a_first_tour(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            await db.put(b"a", b"1")
            await db.put_many({b"b": b"2", b"c": b"3", b"d": b"4"})
            await db.delete(b"c")
            assert await db.get(b"a") == b"1"
            assert await db.get(bytearray(b"a")) == b"1"
            assert await db.get(b"c") is None
            assert await db.get(b"c", b"else") == b"else"
            assert await db.get_many([b"a", b"c", b"d"]) == [b"1", None, b"4"]
            assert [await db.contains(key) for key in (b"a", b"c")] == [True, False]
            assert await db.count() == 3
            assert await listed(db.items(reverse=True)) == [
                (b"d", b"4"), (b"b", b"2"), (b"a", b"1"),
            ]  # fmt: skip
            assert await listed(db.keys(b"b")) == [b"b", b"d"]
            assert await listed(db.values(limit=1)) == [b"1"]
            await db.delete_range(b"b", b"c")
            await db.delete_range(b"d", None)
            assert await listed(db.keys()) == [b"a"]
            await db.clear()
            assert await db.count() == 0
            await db.put_many([])

    asyncio.run(main())


def test_a_compaction_without_bounds_is_of_all_keyspaces(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            other = await db.keyspace("other")
            for value in (b"old", b"new"):
                await db.put(b"k", value)
                await other.put(b"k", value)
                await db.flush()
            for compact, left in (
                (lambda: db.compact(b"x"), 4),
                (lambda: db.compact(b""), 3),
                (db.compact, 2),
            ):
                await compact()
                stats = await db.stats()
                entries = [level.entries for each in stats.keyspaces for level in each.levels]
                assert left == sum(entries)

    asyncio.run(main())


def test_keyspaces_and_snapshots(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            metrics = await db.keyspace("metrics")
            await metrics.put(b"k", b"old")
            assert await db.keyspaces() == ["default", "metrics"]
            assert await db.keyspace("default") is db
            with pytest.raises(KeyError):
                await db.keyspace("absent", create=False)
            async with db.snapshot() as view:
                await metrics.put(b"k", b"new")
                await db.put(b"later", b"1")
                frozen = await view.keyspace("metrics")
                assert await frozen.get(b"k") == b"old"
                assert await listed(frozen.items()) == [(b"k", b"old")]
                assert await listed(frozen.keys()), await listed(frozen.values())
                assert await view.get(b"later") is None
                assert await view.get_many([b"later"]) == [None]
                assert not await view.contains(b"later")
                assert await view.count() == 0
            with pytest.raises(holdfast.DatabaseClosedError):
                await view.get(b"later")
            await view.close()
            assert await metrics.get(b"k") == b"new"
            assert (metrics.name, db.path) == ("metrics", str(tmp_path / "db"))
            assert "metrics" in repr(metrics)
            await db.drop_keyspace("metrics")
            with pytest.raises(holdfast.DatabaseClosedError, match="dropped"):
                await metrics.put(b"k", b"v")

    asyncio.run(main())


def test_upkeep_and_a_reopen(tmp_path: Path) -> None:
    async def main() -> None:
        db = await holdfast.aio.open(tmp_path / "db", settings=tiny())
        assert "open" in repr(db)
        for number in range(50):
            await db.put(b"%03d" % number, b"v" * 100)
        await db.flush()
        await db.compact()
        await db.put(b"unsynced", b"1", durability="none")
        await db.sync()
        assert (await db.verify()).ok
        assert (await db.stats()).writes == 51
        await db.close()
        await db.close()
        assert "closed" in repr(db)

    asyncio.run(main())
    with holdfast.open(tmp_path / "db") as db:
        assert len(db) == 51


@pytest.mark.parametrize("durability", ["none", "interval", "commit"])
def test_every_durability(tmp_path: Path, durability: str) -> None:
    async def main() -> None:
        settings = DatabaseSettings(sync_interval_ms=10)
        async with await holdfast.aio.open(tmp_path / "db", settings=settings) as db:
            await asyncio.gather(
                *[db.put(b"%d" % number, b"1", durability=durability) for number in range(20)]
            )
            await db.put_many([(b"a", b"1")], durability=durability)
            await db.delete(b"0", durability=durability)
            assert await db.count() == 20
            if durability == "interval":
                log = db._database._engine.log
                assert log is not None
                while log.durable_seq < 22:  # noqa: ASYNC110  nobody tells it
                    await asyncio.sleep(0.005)

    asyncio.run(main())


def test_an_unsynced_put_needs_no_thread(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            before = threading.active_count()
            for number in range(100):
                await db.put(b"%d" % number, b"1", durability="none")
                assert await db.get(b"%d" % number) == b"1"
                assert await db.get_many([b"0", b"%d" % number]) == [b"1", b"1"]
            assert threading.active_count() == before
            stats = await db.stats()
            assert (stats.writes, stats.reads) == (100, 300)

    asyncio.run(main())


@pytest.mark.skipif(PURE, reason="the plain twin commits by a group each time")
def test_unsynced_batches_need_a_thread_only_when_they_are_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted, beats = list[int](), list[float]()
    submit = Committer.submit

    def counted(committer: Committer, submission: Any) -> None:
        submitted.append(submission.batch.size)
        submit(committer, submission)

    monkeypatch.setattr(Committer, "submit", counted)

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            pulse = db._database._engine.pulse
            monkeypatch.setattr(pulse, "beat", beats.append)
            for number in range(3):
                digit = b"%d" % number
                await db.put_many({b"a": digit, b"b": b"2"}, durability="none")
                async with db.transaction(durability="none") as txn:
                    assert await txn.get(b"a") == digit
                    await txn.put(b"c", digit)
            assert submitted == []
            # What an open database does once a second is looked for.
            assert len(beats) == 6
            assert (await db.stats()).writes == 9
            await db.put_many({b"long": b"1" * bridge.AT_ONCE_BYTES_MAX}, durability="none")
            assert len(submitted) == 1
            async with db.transaction(durability="none") as txn:
                await txn.put(b"c", b"2" * bridge.AT_ONCE_BYTES_MAX)
            assert len(submitted) == 2
            await db.put_many({b"a": b"3"}, durability="commit")
            async with db.transaction() as txn:
                await txn.put(b"b", b"3")
            assert len(submitted) == 4
            with pytest.raises(ValueError, match="durability is 'bogus'"):
                await db.put_many({b"a": b"4"}, durability="bogus")
            late = db.transaction(durability="none")
            await late.put(b"a", await late.get(b"b"))
            await db.put(b"b", b"5")
            with pytest.raises(holdfast.ConflictError):
                await late.commit()
            assert [b"3", b"5"] == await db.get_many([b"a", b"b"])

    asyncio.run(main())


def test_what_is_not_cached_is_read_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    monkeypatch.setattr(
        bridge, "work", lambda *given, work=bridge.work: (threads.append(given), work(*given))[1]
    )
    settings = DatabaseSettings(keyspace=KeyspaceSettings(page_bytes=512))
    with holdfast.open(tmp_path / "db", settings=settings) as plain:
        plain.put_many([(b"%04d" % number, b"%d" % number * 20) for number in range(1000)])

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            key, value = b"0500", b"500" * 20
            assert await db.get(key) == value
            assert len(threads) == 1
            assert await db.get(key) == value
            assert await db.get_many([key]) == [value]
            assert len(threads) == 1, "the page is cached now"
            assert await db.get_many([b"0001", key]) == [b"1" * 20, value]
            assert len(threads) == 2
            async with db.snapshot() as view:
                assert await view.get(key) == value
                assert len(threads) == 2
                assert await view.get(b"0900") == b"900" * 20
                assert len(threads) == 3
            keys = [b"%04d" % number for number in range(400)]
            assert await db.get_many(keys) == [b"%d" % number * 20 for number in range(400)]

    asyncio.run(main())


def test_a_scan_comes_in_chunks_and_stays_at_its_moment(tmp_path: Path) -> None:
    count = FIRST_ROWS + 2 * CHUNK_ROWS + 5

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            await db.put_many([(b"%06d" % number, b"v") for number in range(count)])
            rows = db.keys()
            first = await anext(rows)
            await db.clear()
            assert [first, *await listed(rows)] == [b"%06d" % number for number in range(count)]
            with pytest.raises(StopAsyncIteration):
                await anext(rows)
            assert await listed(db.keys()) == []

    asyncio.run(main())


def test_a_chunk_is_bounded_in_bytes(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            await db.put_many([(b"%d" % number, bytes(CHUNK_BYTES)) for number in range(5)])
            rows = db.items()
            for number in range(5):
                assert (await anext(rows))[0] == b"%d" % number
                assert not rows._rows
            rows = db.values()
            assert len(await anext(rows)) == CHUNK_BYTES
            assert not rows._rows

    asyncio.run(main())


def test_a_scan_that_is_left_early_lets_go(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            await db.put_many([(b"%d" % number, b"v") for number in range(100)])
            rows = db.items()
            async for _ in rows:
                break
            await rows.aclose()
            await rows.aclose()
            assert await listed(rows) == []
            reading = db.items()
            request = asyncio.ensure_future(anext(reading))
            await asyncio.sleep(0)
            await reading.aclose()
            with pytest.raises(StopAsyncIteration):
                await request
            assert await listed(reading) == []

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(6))
def test_tasks_do_what_a_dictionary_does(seed: int) -> None:
    """Random calls of several tasks, each with keys of its own, on a simulated machine."""
    machine = SimEnv(seed)

    async def client(db: holdfast.aio.Database, number: int) -> dict[bytes, bytes]:
        rng = random.Random(f"{seed}/{number}")
        model: dict[bytes, bytes] = {}
        prefix = b"%d/" % number
        for turn in range(60):
            key = prefix + b"%d" % rng.randrange(12)
            durability = rng.choice([None, None, "none", "interval"])
            what = rng.random()
            if what < 0.5:
                value = b"%d " % turn * rng.choice([1, 50])
                await db.put(key, value, durability=durability)
                model[key] = value
            elif what < 0.6:
                await db.delete(key, durability=durability)
                model.pop(key, None)
            elif what < 0.7:
                pairs = {prefix + b"%d" % rng.randrange(12): b"%d" % turn for _ in range(3)}
                await db.put_many(pairs, durability=durability)
                model |= pairs
            elif what < 0.75:
                stop = prefix + b"%d" % rng.randrange(12)
                await db.delete_range(key, stop, durability=durability)
                model = {k: v for k, v in model.items() if not key <= k < stop}
            elif what < 0.8:
                await rng.choice([db.flush, db.compact, db.sync])()
            elif what < 0.9:
                assert await db.get(key) == model.get(key)
                assert await db.get_many([key, prefix]) == [model.get(key), None]
            else:
                reverse = rng.random() < 0.5
                rows = await listed(db.items(prefix=prefix, reverse=reverse))
                assert rows == sorted(model.items(), reverse=reverse)
        return model

    async def main() -> None:
        async with await holdfast.aio.open("/db", settings=tiny(), env=machine) as db:
            models = await asyncio.gather(*[client(db, number) for number in range(4)])
            assert dict(await listed(db.items())) == {k: v for m in models for k, v in m.items()}
            assert (await db.verify()).ok
        async with await holdfast.aio.open("/db", env=machine) as db:
            assert dict(await listed(db.items())) == {k: v for m in models for k, v in m.items()}

    sim_loop.run(machine, main())
    assert machine.unreturned() == []


def test_several_loops_and_threads_share_a_handle(tmp_path: Path) -> None:
    plain = holdfast.open(tmp_path / "db")
    db = holdfast.aio.Database(holdfast.env.PosixEnv(), plain)  # type: ignore[attr-defined]
    errors: list[BaseException] = []

    async def client(loop: int, number: int) -> None:
        for turn in range(20):
            key = b"%d/%d/%d" % (loop, number, turn)
            await db.put(key, key)
            assert await db.get(key) == key

    async def clients(loop: int) -> None:
        await asyncio.gather(*[client(loop, number) for number in range(10)])

    def run_loop(loop: int) -> None:
        try:
            asyncio.run(clients(loop))
        except BaseException as error:
            errors.append(error)

    def run_thread() -> None:
        for turn in range(50):
            plain[b"thread/%d" % turn] = b"1"

    threads = [threading.Thread(target=run_loop, args=(loop,)) for loop in range(3)]
    threads.append(threading.Thread(target=run_thread))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(plain) == 3 * 10 * 20 + 50
    asyncio.run(db.close())
    with holdfast.open(tmp_path / "db") as again:
        assert len(again) == 650


def test_tasks_share_records_and_syncs() -> None:
    machine = SimEnv(3)

    async def main() -> None:
        async with await holdfast.aio.open("/db", env=machine) as db:
            done = len(machine.op_log)
            await asyncio.gather(*[db.put(b"%d" % number, b"1") for number in range(500)])
            sites = [operation.site for operation in machine.op_log[done:]]
            assert 1 <= sites.count("wal.record.sync") <= 3
            assert sites.count("wal.record.write") == sites.count("wal.record.sync")

    sim_loop.run(machine, main())
