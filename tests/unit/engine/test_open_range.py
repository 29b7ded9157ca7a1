"""Goal: a range delete without an end is one operation: it takes all that was committed before it,
and nothing else.

Method: others write between its call and its commit, in its group, or beside it under many
schedules; what a table holds is at the end of each key range that there can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
import holdfast.aio
from holdfast.base import KEY_BYTES_MAX, ConflictError, DiskFullError
from holdfast.engine import Database, Submission, open_database
from holdfast.engine.open_range import upper_bound
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.wal import WriteBatch
from tests.model.strategies import tiny
from tests.unit.engine.test_write_path import SEEDS, spawn_all

LONGEST = b"\xff" * KEY_BYTES_MAX


def opened(env: Any = None) -> Database:
    return open_database("/db", env=env or SimEnv(), settings=tiny())


@contextmanager
def before_the_commit(owner: Any, name: str, act: Callable[[], None]) -> Iterator[None]:
    """Have `act` called once, when `owner.name` is, before it."""
    real = getattr(owner, name)

    def late(*arguments: Any) -> Any:
        setattr(owner, name, real)
        act()
        return real(*arguments)

    setattr(owner, name, late)
    yield
    assert getattr(owner, name) == real


@pytest.mark.parametrize("durability", ["commit", "none"])
def test_a_clear_takes_what_others_wrote_since_it_was_called(durability: str) -> None:
    """It took the later one of two only, that before the last key of when it was called."""
    with opened() as database:

        def write() -> None:
            database.put(b"z", b"1", durability=durability)
            database.put(b"a", b"1", durability=durability)

        for clear in (
            database.clear,
            lambda: database.delete_range(None, None, durability=durability),
            lambda: database.delete_range(b"a", None, durability=durability),
        ):
            database[b"m"] = b"1"
            with before_the_commit(database._engine.write_path, "commit", write):
                clear()
            assert list(database.items()) == []


def test_a_clear_that_is_awaited_takes_what_others_wrote_since(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            keyspace = db._keyspace

            def write() -> None:
                keyspace[b"z"] = b"1"
                keyspace[b"a"] = b"1"

            for clear in (db.clear, lambda: db.delete_range(b"a", None, durability="none")):
                await db.put(b"m", b"1")
                with before_the_commit(keyspace, "submit", write):
                    await clear()
                assert await db.count() == 0

    asyncio.run(main())


class Nobody:
    def receive(self, served: list[Submission]) -> None:
        """Is told, and does nothing."""


def test_a_clear_takes_those_before_it_in_its_group_and_no_later_one() -> None:
    with opened() as database:
        database[b"m"] = b"1"
        check = database.open_range(b"b")
        assert check is not None
        earlier, later = (
            database.batch_of({b"y": b"", LONGEST: b""}),
            database.batch_of({b"c": b"2", b"z": b"2"}),
        )
        earlier.merge(database.id, b"z", database.merge_value("add", 1))
        parts = [
            Submission(Nobody(), batch, "none", (database.id,), condition)
            for batch, condition in ((earlier, None), (check.batch, check), (later, None))
        ]
        database._engine.write_path.commit_for_others(parts, 0)
        assert [part.error for part in parts] == [None] * 3
        assert list(database.items()) == [(b"c", b"2"), (b"z", b"2")]


def test_a_clear_that_is_alone_in_its_group_has_no_more_than_it_needs() -> None:
    """The range in the log, and so in tables, ends right behind the last key."""
    with opened() as database:
        database.put_many({b"a": b"", b"m": b""})
        check = database.open_range(None)
        assert check is not None
        assert check.batch.op_count == 0
        database._engine.write_path.commit(check.batch, None, (database.id,), check)
        ((_, _, start, stop),) = check.batch.operations()
        assert (start, stop) == (b"", b"m\0")
        # A group whose leader was interrupted is gone through again.
        database.put(b"n", b"")
        database._engine.write_path.commit(check.batch, None, (database.id,), check)
        ((_, _, start, stop),) = check.batch.operations()
        assert (start, stop) == (b"", b"n\0")
        assert database.open_range(None) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clear_beside_appenders_is_one_moment(seed: int) -> None:
    """Of keys that are written in some order, what is left is an end of that order, and of two that
    are written by one step both are there or none.
    """
    with opened(SimEnv(seed)) as database:
        database.put_many({b"l": b"", b"m": b""})

        def writer(number: int, durability: str) -> Callable[[], None]:
            def run() -> None:
                for at in range(9):
                    pair = {b"%c %d %d" % (side, number, at): b"" for side in b"az"}
                    database.put_many(pair, durability=durability)

            return run

        writers = [writer(number, how) for number, how in enumerate(("commit", "none") * 2)]
        spawn_all(database._engine.env, *writers[:2], database.clear, *writers[2:])
        left = [[key[1:] for key in database.keys(prefix=side)] for side in (b"a", b"z")]
        assert left[0] == left[1]
        for number in range(len(writers)):
            kept = [int(key[-1:]) for key in left[0] if key.startswith(b" %d" % number)]
            assert kept == list(range(9 - len(kept), 9))
        assert not {b"l", b"m"} & set(database)


@pytest.mark.parametrize("key", [b"", b"m", b"\xff" * 9, LONGEST[:-1], LONGEST])
@pytest.mark.parametrize("where", ["memtable", "table", "last level", "range"])
def test_a_clear_ends_behind_every_source(key: bytes, where: str) -> None:
    with opened() as database:
        database.put(key, b"v" * 10)
        if where == "range":
            database.delete_range(b"", key)
        if where != "memtable":
            database.flush()
        if where == "last level":
            database.compact()
        database.put_many({key[:1]: b"", b"": b""})
        bound = upper_bound(database.view)
        assert key < bound <= max(key + b"\0", b"\0")
        database.clear()
        assert list(database.items()) == []
        assert list(database.items(reverse=True)) == []
        database.flush()
        database.compact()
        assert list(database.items()) == []
    with opened() as empty:
        assert upper_bound(empty.view) == b""


def test_a_clear_of_merges(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db") as database:
        for number in range(5):
            database.add(b"%d" % number, 1)
        with before_the_commit(
            database._engine.write_path, "commit", lambda: database.add(b"9", 1)
        ):
            database.delete_range(b"2", None)
        assert list(database) == [b"0", b"1"]
        database.add(b"9", 2)
        assert database[b"9"] == b"2"


def test_a_clear_of_nothing_writes_nothing() -> None:
    env = SimEnv()
    with opened(env) as database:
        before = env.op_count
        database.clear()
        database.delete_range(b"a", None)
        assert env.op_count == before
        database[b"a"] = b""
        database.clear()
        before = env.op_count
        database.clear()
        assert env.op_count == before
        with pytest.raises(ValueError, match="durability"):
            database.delete_range(None, None, durability="sometimes")


def test_a_clear_without_room_removes_nothing() -> None:
    env = FaultEnv(SimEnv())
    with opened(env) as database:
        database.put_many({b"a": b"", b"b": b""})
        env.add(FaultRule(site="wal.record.write", error=28))
        with pytest.raises(DiskFullError):
            database.clear()
        assert list(database) == [b"a", b"b"]
        database.clear()
        assert list(database) == []


@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
def test_a_clear_in_a_transaction_is_one_moment(isolation: str) -> None:
    """Who wrote meanwhile what it would remove is in its way; it never takes the later one only."""
    with opened() as database:
        database[b"m"] = b"1"
        txn = database.transaction(isolation=isolation)
        with pytest.raises(ConflictError), txn:
            txn.clear()
            database[b"z"] = b"1"
            database[b"a"] = b"1"
        assert list(database) == [b"a", b"m", b"z"]
        with database.transaction(isolation=isolation) as txn:
            txn[b"zz"] = b"1"
            txn.clear()
        assert list(database) == []


def test_what_a_batch_without_a_condition_holds_stays() -> None:
    with opened() as database:
        assert isinstance(database.range_batch(None, b"b"), WriteBatch)
        assert database.range_batch(b"b", b"a").op_count == 0
