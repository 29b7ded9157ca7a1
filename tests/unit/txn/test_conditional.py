"""Goal: compare-and-set and insert-if-absent are one step, whoever else writes, and survive what a
put survives.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast.aio
from holdfast.base import (
    ConflictError,
    DatabaseClosedError,
    DatabaseSettings,
    KeyspaceSettings,
    LimitError,
    ReadOnlyError,
    marks_seen,
)
from holdfast.engine import Database, Keyspace, open_database
from holdfast.env import CrashPoint, SimEnv

TINY = DatabaseSettings(
    memory_bytes=64 * 1024,
    wal_segment_bytes=8 * 1024,
    wal_bytes_max=32 * 1024,
    keyspace=KeyspaceSettings(memtable_bytes=4 * 1024, table_bytes=4 * 1024, level0_tables=2),
)
SEEDS = range(12)
DURABILITIES = [None, "commit", "interval", "none"]


@pytest.fixture
def db() -> Iterator[Database]:
    with open_database("/db", env=SimEnv()) as database:
        yield database
        assert [] == database._engine.snapshots.live()


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("name", ["default", "other"])
def test_it_writes_only_over_what_is_expected(
    db: Database, name: str, durability: str | None
) -> None:
    space = db.keyspace(name)
    assert not space.compare_and_set(b"k", b"1", b"2", durability=durability)
    assert b"k" not in space
    assert space.compare_and_set(b"k", None, bytearray(b"1"), durability=durability)
    assert not space.compare_and_set(b"k", None, b"2", durability=durability)
    assert not space.compare_and_set(b"k", b"", b"2", durability=durability)
    assert b"1" == space[b"k"]
    assert space.compare_and_set(memoryview(b"k"), memoryview(b"1"), b"", durability=durability)
    assert b"" == space[b"k"]
    assert space.compare_and_set(b"k", b"", None, durability=durability)
    assert b"k" not in space
    assert space.compare_and_set(b"k", None, None, durability=durability)


@pytest.mark.parametrize("durability", DURABILITIES)
def test_insert_writes_only_what_is_absent(db: Database, durability: str | None) -> None:
    assert db.insert(b"k", b"1", durability=durability)
    assert not db.insert(b"k", b"2", durability=durability)
    db.delete_range(b"a", b"z")
    assert db.insert(b"k", b"3", durability=durability)
    assert b"3" == db[b"k"]


def test_what_cannot_be_written_is_refused_whatever_the_value(db: Database) -> None:
    for call in (
        lambda: db.compare_and_set("k", b"", b""),
        lambda: db.compare_and_set(b"k", "v", b""),
        lambda: db.compare_and_set(b"k", b"1", "v"),
        lambda: db.insert(b"k", None),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(LimitError):
        db.compare_and_set(b"k" * 70_000, b"1", b"2")
    with pytest.raises(ValueError, match="durability"):
        db.compare_and_set(b"k", b"1", b"2", durability="often")
    other = db.keyspace("other")
    db.drop_keyspace("other")
    with pytest.raises(DatabaseClosedError, match="dropped"):
        other.insert(b"k", b"")
    db.close()
    with pytest.raises(DatabaseClosedError):
        db.insert(b"k", b"")


def test_a_database_that_is_only_read_refuses_it() -> None:
    machine = SimEnv()
    open_database("/db", env=machine).close()
    with open_database("/db", env=machine, read_only=True) as db:
        with pytest.raises(ReadOnlyError):
            db.compare_and_set(b"k", b"not there", b"")
        with (
            pytest.raises(ReadOnlyError),
            db.transaction() as txn,
        ):
            txn.compare_and_set(b"k", b"not there", b"")


def test_a_transaction_compares_with_its_own_writes_and_has_read_the_key(db: Database) -> None:
    db[b"k"] = b"1"
    with db.transaction() as txn:
        assert not txn.insert(b"k", b"2")
        txn[b"k"] = b"2"
        assert txn.compare_and_set(b"k", b"2", b"3")
        assert not txn.compare_and_set(b"k", b"1", b"4")
        assert txn.compare_and_set(b"k", b"3", None)
        assert txn.insert(b"k", b"5")
        assert txn.keyspace("other").insert(b"o", b"6")
    assert (b"5", b"6") == (db[b"k"], db.keyspace("other")[b"o"])
    txn = db.transaction()
    # What did not write depends on the key all the same: its answer must still hold.
    assert not txn.compare_and_set(b"k", b"other", b"")
    txn[b"answer"] = b"no"
    db[b"k"] = b"other"
    with pytest.raises(ConflictError):
        txn.commit()


def test_it_is_run_again_when_the_key_was_changed_and_changed_back(db: Database) -> None:
    """The value is what counts, and not that nobody wrote."""
    db[b"k"] = b"1"
    begin, begun = db.begin, []

    def begin_late(**given: object) -> object:
        txn = begin(**given)  # type: ignore[arg-type]
        begun.append(txn)
        if len(begun) == 1:
            db[b"k"] = b"2"
            db[b"k"] = b"1"
        return txn

    db.begin = begin_late  # type: ignore[method-assign,assignment]
    assert db.compare_and_set(b"k", b"1", b"3")
    assert 2 == len(begun)
    assert "engine.compare_again" in marks_seen()
    assert b"3" == db[b"k"]


def test_a_key_that_went_without_a_trace_is_absent(db: Database) -> None:
    """Compaction drops a key with its delete. While somebody compares, it must not."""
    db[b"k"] = b"1"
    begin = db.begin

    def begin_late(**given: object) -> object:
        txn = begin(**given)  # type: ignore[arg-type]
        db.delete(b"k")
        db.compact()
        return txn

    db.begin = begin_late  # type: ignore[method-assign,assignment]
    assert not db.compare_and_set(b"k", b"1", b"2")
    assert b"k" not in db


@pytest.mark.parametrize("durability", DURABILITIES)
def test_what_may_be_put_may_be_put_under_a_condition(durability: str | None) -> None:
    """Also when it is more than transactions of many writes may have."""
    machine = SimEnv()
    large, larger = (bytes([fill]) * (16 * TINY.memory_bytes + fill) for fill in range(2))
    with open_database("/db", settings=TINY, env=machine) as db:
        db.put(b"by itself", large, durability=durability)
        assert db.insert(b"k", large, durability=durability)
        assert db.compare_and_set(b"k", large, larger, durability=durability)
        assert larger == db[b"k"] == db.setdefault(b"d", larger)
        assert larger == db.pop(b"k")
        with db.transaction(durability=durability) as txn:
            assert txn.insert(b"k", larger)
            assert larger == txn[b"k"]
            # It is alone.
            with pytest.raises(LimitError):
                txn[b"and"] = b""
        assert [b"by itself", b"d", b"k"] == list(db)
    with open_database("/db", settings=TINY, env=machine) as db:
        assert larger == db[b"k"]


def count(space: Keyspace, durability: str | None) -> None:
    while True:
        value = space.get(b"n")
        following = b"%d" % (1 if value is None else int(value) + 1)
        if space.compare_and_set(b"n", value, following, durability=durability):
            return


@pytest.mark.parametrize("durability", [None, "none"])
def test_threads_lose_no_update(tmp_path: Path, durability: str | None) -> None:
    each, threads = 60, 4
    with open_database(str(tmp_path / "db"), settings=TINY) as db:
        winners: list[int] = []

        def work(number: int) -> None:
            for turn in range(each):
                count(db, durability)
                if db.insert(b"turn %d" % turn, b"%d" % number, durability=durability):
                    winners.append(turn)
                # Plain writes and transactions beside it.
                db.put(b"plain %d" % number, b"x" * 100, durability="none")
                db.run(lambda txn: txn.put(b"t", txn.get(b"t", b"") + b"x"), attempts=1000)

        tasks = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
        assert b"%d" % (each * threads) == db[b"n"]
        assert list(range(each)) == sorted(winners)
        assert each * threads == len(db[b"t"])


@pytest.mark.parametrize("seed", SEEDS)
def test_schedules_lose_no_update_and_a_crash_no_acknowledged_one(seed: int) -> None:
    """Each seed is another schedule. After it the power goes."""
    machine = SimEnv(seed)
    db = open_database("/db", settings=TINY, env=machine)
    inserted: dict[bytes, bytes] = {}

    def work(number: int) -> None:
        for turn in range(6):
            count(db, None)
            key, value = b"turn %d" % turn, b"%d" % number
            if db.insert(key, value):
                assert key not in inserted
                inserted[key] = value
            db.put(b"plain %d" % number, b"x" * 300, durability="none")

    tasks = [machine.spawn(f"worker-{n}", lambda n=n: work(n)) for n in range(3)]
    for task in tasks:
        task.join()
    assert b"18" == db[b"n"]
    assert inserted == dict(db.items(prefix=b"turn"))
    with open_database("/db", env=CrashPoint(machine).state("none").build()) as again:
        assert b"18" == again[b"n"]
        assert inserted == dict(again.items(prefix=b"turn"))
    db.close()
    assert machine.unreturned() == []


def test_tasks_lose_no_update(tmp_path: Path) -> None:
    async def work(db: holdfast.aio.Database, number: int, winners: list[int]) -> None:
        other = await db.keyspace("other")
        for turn in range(10):
            while True:
                value = await db.get(b"n")
                following = b"%d" % (int(value or b"0") + 1)  # type: ignore[call-overload]
                if await db.compare_and_set(b"n", value, following):
                    break
            if await other.insert(b"turn %d" % turn, b"%d" % number, durability="interval"):
                winners.append(turn)

    async def main() -> None:
        async with await holdfast.aio.open(str(tmp_path / "db")) as db:
            winners: list[int] = []
            await asyncio.gather(*(work(db, number, winners) for number in range(8)))
            assert b"80" == await db.get(b"n")
            assert list(range(10)) == sorted(winners)
            assert "aio.compare_again" in marks_seen()
            await db.flush()
            async with db.transaction() as txn:
                assert not await txn.insert(b"n", b"")
                assert await txn.compare_and_set(b"n", b"80", b"81")
            assert b"81" == await db.get(b"n")
            assert [] == db._database._engine.snapshots.live()

    asyncio.run(main())
