"""Goal: what a keyspace has of a mutable mapping is one step each, whoever else writes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import (
    ConflictError,
    DatabaseClosedError,
    DatabaseSettings,
    KeyspaceSettings,
    ReadOnlyError,
    marks_seen,
)
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, SimEnv

TINY = DatabaseSettings(
    memory_bytes=64 * 1024,
    wal_segment_bytes=8 * 1024,
    wal_bytes_max=32 * 1024,
    keyspace=KeyspaceSettings(memtable_bytes=4 * 1024, table_bytes=4 * 1024, level0_tables=2),
)
SEEDS = range(8)
NUMBERS = itertools.count()
ITEMS = {b"%03d" % number: b"value %d" % number for number in range(24)}


@pytest.fixture
def db() -> Iterator[Database]:
    with open_database("/db", env=SimEnv()) as database:
        yield database
        assert [] == database._engine.snapshots.live()


class Named:
    """No mapping, and has what `dict.update` asks for."""

    def keys(self) -> list[bytes]:
        return [b"a", b"b"]

    def __getitem__(self, key: bytes) -> bytes:
        return key * 2


# -- alone


@pytest.mark.parametrize("name", ["default", "other"])
def test_pop_takes_what_is_there(db: Database, name: str) -> None:
    space = db.keyspace(name)
    space[b"a"] = b"1"
    assert b"1" == space.pop(bytearray(b"a"))
    assert b"a" not in space
    with pytest.raises(KeyError):
        space.pop(b"a")
    assert space.pop(b"a", None) is None
    assert b"other" == space.pop(b"a", b"other")
    with pytest.raises(TypeError, match="encode"):
        space.pop("a", None)


def test_popitem_takes_the_first_key(db: Database) -> None:
    db.put_many({b"b": b"2", b"a": b"1", b"c": b"3"})
    assert [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")] == [db.popitem() for _ in range(3)]
    with pytest.raises(KeyError, match="empty"):
        db.popitem()


def test_setdefault_writes_only_what_is_absent(db: Database) -> None:
    assert b"1" == db.setdefault(b"a", bytearray(b"1"))
    assert b"1" == db.setdefault(b"a", b"2") == db.setdefault(b"a") == db[b"a"]
    with pytest.raises(TypeError):
        db.setdefault(b"b")


def test_update_takes_what_a_dict_takes(db: Database) -> None:
    db.update({b"a": b"1"})
    db.update([(b"a", b"2"), [b"b", b"3"]])  # type: ignore[list-item]
    assert {b"a": b"2", b"b": b"3"} == dict(db.items())
    db.update(Named())
    assert {b"a": b"aa", b"b": b"bb"} == dict(db.items())
    other = db.keyspace("other")
    other.update(db)
    other.update()
    assert dict(db.items()) == dict(other.items())
    with pytest.raises(TypeError, match="encode"):
        db.update({b"c": b""}, d=b"")
    with pytest.raises(TypeError):
        db.update(5)
    assert b"c" not in db


def test_update_is_one_batch(db: Database) -> None:
    before = db.stats().last_seq
    with pytest.raises(TypeError):
        db.update([(b"a", b"1"), (b"b", None)])
    assert (b"a" not in db, before) == (True, db.stats().last_seq)
    db.update(item for item in ITEMS.items())
    (change,) = db.changes(before)
    assert len(ITEMS) == len(change.operations)


def counts(db: Database) -> tuple[int, int]:
    stats = db.stats()
    (commits,) = (each.count for each in stats.latencies if each.name == "commit")
    return commits, stats.last_seq


def test_a_delete_is_one_commit(db: Database) -> None:
    db[b"a"] = b"1"
    commits, operations = counts(db)
    del db[b"a"]
    assert (commits + 1, operations + 1) == counts(db)
    with pytest.raises(KeyError):
        del db[b"a"]
    assert (commits + 1, operations + 1) == counts(db)


def test_a_database_that_is_only_read_refuses_what_is_there() -> None:
    machine = SimEnv()
    with open_database("/db", env=machine) as database:
        database[b"a"] = b"1"
    with open_database("/db", env=machine, read_only=True) as database:
        for call in (
            lambda: database.pop(b"a"),
            database.popitem,
            lambda: database.__delitem__(b"a"),
            lambda: database.setdefault(b"b", b""),
            lambda: database.update({b"b": b""}),
        ):
            with pytest.raises(ReadOnlyError, match="read_only=True"):
                call()
        assert database.pop(b"b", None) is None
        assert b"1" == database.setdefault(b"a", b"2")


@pytest.mark.parametrize("name", ["default", "other"])
def test_it_is_false_when_it_is_empty_and_one_key_says_so(db: Database, name: str) -> None:
    space = db.keyspace(name)
    assert not space
    with db.transaction() as txn:
        assert not txn.keyspace(name)
    space.update(ITEMS)
    with db.snapshot() as view, db.transaction(read_only=True) as txn:
        space.clear()
        before = db.stats().rows_scanned
        assert view.keyspace(name)
        assert txn.keyspace(name)
        assert not space
        assert before + 2 == db.stats().rows_scanned


def test_a_transaction_that_is_not_empty_has_read_its_first_key(db: Database) -> None:
    db.update(ITEMS)
    txn = db.transaction()
    assert txn
    txn[b"a"] = b""
    db[b"020"] = b"changed"
    txn.commit()
    txn = db.transaction()
    assert txn
    txn[b"a"] = b""
    db[b""] = b"before the first"
    with pytest.raises(ConflictError):
        txn.commit()


def test_what_has_ended_is_neither(db: Database) -> None:
    view, txn = db.snapshot(), db.transaction()
    view.close()
    txn.rollback()
    db.close()
    for mapping in (db, view, txn):
        for call in (len, bool):
            with pytest.raises(DatabaseClosedError):
                call(mapping)


# -- beside others


def between(db: Database, meanwhile: Callable[[], object]) -> list[int]:
    """Have `meanwhile` happen right behind the beginning of the next transaction."""
    begin, begun = db.begin, []

    def begin_late(**given: Any) -> object:
        txn = begin(**given)
        begun.append(1)
        if len(begun) == 1:
            meanwhile()
        return txn

    db.begin = begin_late  # type: ignore[method-assign,assignment]
    return begun


def test_what_goes_in_between_is_not_taken_twice(db: Database) -> None:
    for call, missing in (
        (lambda: db.pop(b"a", b"gone"), b"gone"),
        (lambda: db.pop(b"a"), KeyError),
        (lambda: db.__delitem__(b"a"), KeyError),
    ):
        db[b"a"] = b"1"
        begun = between(db, lambda: db.delete(b"a"))
        if missing is KeyError:
            with pytest.raises(KeyError):
                call()
        else:
            assert missing == call()
        assert 2 == len(begun)
    assert "engine.take_again" in marks_seen()


def test_a_value_that_comes_in_between_is_the_one_that_is_taken(db: Database) -> None:
    db[b"a"] = b"1"
    between(db, lambda: db.put(b"a", b"2"))
    assert b"2" == db.pop(b"a")
    assert b"a" not in db


def test_popitem_goes_on_with_the_key_behind_one_that_went(db: Database) -> None:
    db.update({b"a": b"1", b"b": b"2"})
    between(db, lambda: db.delete(b"a"))
    assert (b"b", b"2") == db.popitem()


def test_popitem_leaves_alone_what_another_call_is_taking(db: Database) -> None:
    """So that several takers of a queue do not all want the same item."""
    db.update({b"a": b"1", b"b": b"2", b"c": b"3"})
    others: list[tuple[bytes, bytes]] = []
    begun = between(db, lambda: others.append(db.popitem()))
    assert (b"a", b"1") == db.popitem()
    assert [(b"b", b"2")] == others
    assert 2 == len(begun)  # nobody tried in vain
    assert (b"c", b"3") == db.popitem()


def test_popitem_takes_what_another_call_is_taking_when_there_is_nothing_else(
    db: Database,
) -> None:
    db[b"a"] = b"1"
    others: list[tuple[bytes, bytes]] = []
    between(db, lambda: others.append(db.popitem()))
    with pytest.raises(KeyError, match="the keyspace is empty"):
        db.popitem()
    assert [(b"a", b"1")] == others


def test_what_a_failed_popitem_was_taking_is_taken_by_the_next(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.update({b"a": b"1", b"b": b"2"})

    def fail(key: bytes) -> None:
        raise RuntimeError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(db, "_take", fail)
        with pytest.raises(RuntimeError, match="not now") as kept:
            db.popitem()
    assert (b"a", b"1") == db.popitem()
    del kept


def test_setdefault_returns_what_came_in_between(db: Database) -> None:
    between(db, lambda: db.put(b"a", b"2"))
    assert b"2" == db.setdefault(b"a", b"1") == db[b"a"]


def take_by_pop(db: Database) -> Iterator[bytes]:
    for key in ITEMS:
        if db.pop(key, None) is not None:
            yield key


def take_by_del(db: Database) -> Iterator[bytes]:
    for key in ITEMS:
        try:
            del db[key]
        except KeyError:
            continue
        yield key


def take_by_popitem(db: Database) -> Iterator[bytes]:
    while True:
        try:
            key, value = db.popitem()
        except KeyError:
            return
        assert value == ITEMS[key]
        yield key


def give_by_setdefault(db: Database) -> Iterator[bytes]:
    mine = b"%d" % next(NUMBERS)
    for key in ITEMS:
        if db.setdefault(b"new " + key, mine) == mine:
            yield key


WAYS = [take_by_pop, take_by_del, take_by_popitem, give_by_setdefault]


@pytest.mark.parametrize("way", WAYS)
def test_threads_share_what_there_is(
    tmp_path: Path, way: Callable[[Database], Iterator[bytes]]
) -> None:
    with open_database(str(tmp_path / "db"), settings=TINY) as db:
        db.update(ITEMS)
        taken: list[bytes] = []
        tasks = [threading.Thread(target=lambda: taken.extend(way(db))) for _ in range(4)]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
        assert sorted(ITEMS) == sorted(taken)


@pytest.mark.parametrize("way", WAYS[:3])
@pytest.mark.parametrize("seed", SEEDS)
def test_schedules_share_what_there_is_and_a_crash_brings_nothing_back(
    seed: int, way: Callable[[Database], Iterator[bytes]]
) -> None:
    machine = SimEnv(seed)
    db = open_database("/db", settings=TINY, env=machine)
    db.update(ITEMS)
    taken: list[bytes] = []
    tasks = [machine.spawn(f"worker-{n}", lambda: taken.extend(way(db))) for n in range(3)]
    for task in tasks:
        task.join()
    assert sorted(ITEMS) == sorted(taken)
    with open_database("/db", env=CrashPoint(machine).state("none").build()) as again:
        assert 0 == len(again)
    db.close()
    assert machine.unreturned() == []
