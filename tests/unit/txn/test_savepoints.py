"""Goal: savepoints nest to any depth; a rollback takes exactly the writes since, and nothing of
what was read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from holdfast.base import ConflictError, DatabaseClosedError, marks_seen
from holdfast.engine import Database, open_database
from holdfast.env import SimEnv
from holdfast.memtable import Memtable
from holdfast.txn import keyspace


@pytest.fixture
def db() -> Iterator[Database]:
    with open_database("/db", env=SimEnv()) as database:
        database.keyspace("other")
        yield database


def test_an_exception_undoes_the_block_and_goes_on(db: Database) -> None:
    with db.transaction() as txn:
        txn[b"a"] = b"1"
        with pytest.raises(ZeroDivisionError), txn.savepoint():
            txn[b"a"] = b"2"
            txn.keyspace("other")[b"b"] = b"2"
            txn.delete_range(None, b"z")
            assert b"a" not in txn
            raise ZeroDivisionError
        assert b"1" == txn[b"a"]
        assert b"b" not in txn.keyspace("other")
        with txn.savepoint():
            txn[b"c"] = b"3"
    assert {b"a": b"1", b"c": b"3"} == dict(db.items())
    assert {} == dict(db.keyspace("other").items())


def test_a_block_may_be_undone_and_go_on(db: Database) -> None:
    with db.transaction() as txn:
        with txn.savepoint() as savepoint:
            txn[b"a"] = b"1"
            savepoint.rollback()
            assert b"a" not in txn
            txn[b"b"] = b"2"
            savepoint.rollback()
            txn[b"c"] = b"3"
        with pytest.raises(RuntimeError, match="the savepoint has ended"):
            savepoint.rollback()
    assert {b"c": b"3"} == dict(db.items())


def test_what_was_read_in_an_undone_block_still_counts(db: Database) -> None:
    """The program knows it, so what it does later may depend on it."""
    db[b"a"] = b"1"
    txn = db.transaction()
    with pytest.raises(ZeroDivisionError), txn.savepoint():
        txn[b"x"] = txn[b"a"]
        raise ZeroDivisionError
    txn[b"b"] = b""
    db[b"a"] = b"2"
    with pytest.raises(ConflictError):
        txn.commit()


def test_what_was_written_in_an_undone_block_does_not(db: Database) -> None:
    txn = db.transaction(isolation="snapshot")
    with pytest.raises(ZeroDivisionError), txn.savepoint():
        txn[b"a"] = b""
        raise ZeroDivisionError
    txn[b"b"] = b""
    db[b"a"] = b"2"
    txn.commit()
    assert b"2" == db[b"a"]


def test_an_iterator_of_an_undone_block_does_not_show_its_writes(db: Database) -> None:
    db.put_many({b"a": b"", b"b": b"", b"c": b""})
    with db.transaction() as txn:
        before = txn.keys()
        with pytest.raises(ZeroDivisionError), txn.savepoint():
            clean = txn.keys()
            txn[b"aa"] = b""
            dirty = txn.keys()
            next(dirty)
            raise ZeroDivisionError
        with pytest.raises(DatabaseClosedError, match="a savepoint that was rolled back"):
            next(dirty)
        assert [b"a", b"b", b"c"] == list(before) == list(clean)


def test_a_commit_waits_for_no_savepoint(db: Database) -> None:
    txn = db.transaction()
    txn[b"a"] = b"1"
    with txn.savepoint():
        with pytest.raises(RuntimeError, match="a savepoint of the transaction is still open"):
            txn.commit()
        txn[b"b"] = b"2"
    txn.commit()
    assert {b"a": b"1", b"b": b"2"} == dict(db.items())
    with pytest.raises(ZeroDivisionError), db.transaction() as txn, txn.savepoint():
        txn[b"c"] = b""
        txn.rollback()
        raise ZeroDivisionError
    with db.transaction() as txn, txn.savepoint():
        txn.rollback()
    assert b"c" not in db


def test_an_outer_one_that_is_undone_takes_the_inner_ones(db: Database) -> None:
    with db.transaction() as txn:
        outer, inner = txn.savepoint(), txn.savepoint()
        with ExitStack() as stack:
            stack.enter_context(outer)
            txn[b"a"] = b""
            stack.enter_context(inner)
            txn[b"b"] = b""
            with pytest.raises(RuntimeError, match="a savepoint inside this one is still open"):
                outer.__exit__(None, None, None)
            with pytest.raises(RuntimeError, match="was begun already"):
                outer.__enter__()
            outer.rollback()
            assert [] == list(txn)
            txn[b"c"] = b""
        with pytest.raises(RuntimeError, match="the savepoint has ended"):
            inner.rollback()
    assert [b"c"] == list(db)


def test_a_thousand_deep(db: Database) -> None:
    with db.transaction() as txn, ExitStack() as stack:
        points = []
        for number in range(1000):
            txn[b"n"] = b"%d" % number
            points.append(stack.enter_context(txn.savepoint()))
        assert b"999" == txn[b"n"]
        points[500].rollback()
        assert b"500" == txn[b"n"]
        assert [(b"n", b"500")] == list(txn.items())
    assert b"500" == db[b"n"]


def test_many_in_a_row_leave_one_memtable(db: Database) -> None:
    with db.transaction() as txn:
        for number in range(500):
            with txn.savepoint():
                txn[b"%d" % number] = b""
                if number % 100 == 7:
                    txn.delete_range(b"1", b"2")
        assert 1 == len(txn.tables)
        rows = len(txn)
    assert rows == len(db)


def test_without_memory_to_merge_they_stay_apart(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    with db.transaction() as txn:
        txn[b"a"] = b"1"
        with monkeypatch.context() as patched, txn.savepoint():
            patched.setattr(keyspace, "_copy", no_memory)
            txn[b"a"] = b"2"
            txn[b"b"] = b"2"
        assert 2 == len(txn.tables)
        with txn.savepoint():
            txn[b"a"] = b"3"
            txn[b"c"] = b"4"
        assert 2 == len(txn.tables)
        assert {b"a": b"3", b"b": b"2", b"c": b"4"} == dict(txn.items())
    assert {b"a": b"3", b"b": b"2", b"c": b"4"} == dict(db.items())
    assert "txn.savepoint_not_merged" in marks_seen()


@pytest.mark.parametrize("below", [1, 6])
@pytest.mark.parametrize("above", [1, 6])
def test_operands_that_were_copied_before_memory_ended_count_once(
    db: Database, monkeypatch: pytest.MonkeyPatch, below: int, above: int
) -> None:
    """Whichever memtable takes in the other."""
    copy = keyspace._copy

    def too_late(source: Memtable, target: Memtable) -> None:
        copy(source, target)
        raise MemoryError

    expected = b"base" + b"x" * below + b"y" * above
    db[b"k"] = b"base"
    with db.transaction() as txn:
        for _ in range(below):
            txn.merge(b"k", "append", b"x")
        with monkeypatch.context() as patched, txn.savepoint():
            patched.setattr(keyspace, "_copy", too_late)
            for _ in range(above):
                txn.merge(b"k", "append", b"y")
        assert 2 == len(txn.tables)
        assert expected == txn[b"k"]
        assert [(b"k", expected)] == list(txn.items())
        assert [expected] == list(txn.values(reverse=True))
    assert expected == db[b"k"]


@pytest.mark.parametrize("round_", range(20))
def test_random_blocks_beside_a_dictionary(db: Database, rng: random.Random, round_: int) -> None:
    def block(depth: int, model: dict[bytes, bytes]) -> dict[bytes, bytes]:
        for _ in range(rng.randrange(6)):
            key = b"%d" % rng.randrange(8)
            choice = rng.random()
            if choice < 0.5:
                txn[key] = model[key] = b"%d" % rng.randrange(1000)
            elif choice < 0.6:
                txn.delete(key)
                model.pop(key, None)
            elif choice < 0.7:
                txn.delete_range(key, b"6")
                model = {each: value for each, value in model.items() if not key <= each < b"6"}
            elif depth < 6:
                try:
                    with txn.savepoint():
                        inner = block(depth + 1, dict(model))
                        if rng.random() < 0.4:
                            raise ZeroDivisionError
                    model = inner
                except ZeroDivisionError:
                    pass
            assert sorted(model.items()) == list(txn.items())
            assert sorted(model.items(), reverse=True) == list(txn.items(reverse=True))
            assert model.get(key) == txn.get(key)
        return model

    with db.transaction() as txn:
        model = block(0, {})
    assert model == dict(db.items())
