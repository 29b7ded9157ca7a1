"""Goal: a transaction that waits for nobody commits at once, beside the queue of commits, only if
that comes to the same as a group of its own: nothing was committed since its snapshot, nobody
leads, and there is nothing to be done before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.base import PURE, ConflictError, DatabaseClosedError
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, SimEnv
from tests.unit.engine.test_interrupts import SETTINGS

pytestmark = pytest.mark.skipif(PURE, reason="the plain twin commits by a group each time")


@pytest.fixture
def env() -> SimEnv:
    return SimEnv()


@pytest.fixture
def db(env: SimEnv) -> Iterator[Database]:
    with open_database("/db", env=env, settings=SETTINGS) as database:
        database.put_many({b"a": b"1", b"b": b"2"})
        database.keyspace("other")
        # A new keyspace is looked at by the next group.
        database[b"b"] = b"2"
        yield database


@pytest.fixture
def groups(db: Database, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many groups there were: an element each."""
    path, made = db._engine.write_path, []
    serve = path._serve

    def counted(group: Any) -> None:
        made.append(len(group))
        serve(group)

    monkeypatch.setattr(path, "_serve", counted)
    return made


def test_one_that_nobody_is_beside_needs_no_group(db: Database, groups: list[int]) -> None:
    seq, written = db.state.visible_seq, db.stats().writes
    with db.transaction(durability="none") as txn:
        txn[b"a"] = txn[b"b"] + b"!"
        txn.keyspace("other", create=False)[b"k"] = b"v"
        del txn[b"b"]
        txn.delete_range(b"x", b"z")
        list(txn.items())
    assert [] == groups
    assert {b"a": b"2!"} == dict(db.items())
    assert b"v" == db.keyspace("other")[b"k"]
    assert seq + 4 == db.state.visible_seq
    assert written + 4 == db.stats().writes
    assert not txn.is_open
    with pytest.raises(DatabaseClosedError, match="the transaction was committed"):
        txn.get(b"a")
    assert [] == db._engine.snapshots.live()
    # Others go on behind it, and it goes to the log in their order.
    db[b"c"] = b"3"
    assert [change.seq for change in db.changes()][-2:] == [seq + 4, seq + 5]


def test_it_becomes_durable_with_the_next_sync(env: SimEnv, db: Database) -> None:
    with db.transaction(durability="none") as txn:
        txn[b"a"] = b"lost"
    with open_database("/db", env=CrashPoint(env).state("none").build()) as found:
        assert b"1" == found[b"a"]
    db.sync()
    with open_database("/db", env=CrashPoint(env).state("none").build()) as found:
        assert b"lost" == found[b"a"]


OTHERS: dict[str, Callable[[Database], object]] = {
    "an unsynced put of a key it read": lambda db: db.put(b"b", b"x", durability="none"),
    "a transaction that committed at once": lambda db: db.run(
        lambda txn: txn.put(b"b", b"x"), durability="none"
    ),
    "a durable put": lambda db: db.put(b"b", b"x"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_came_since_is_checked(db: Database, groups: list[int], name: str) -> None:
    txn = db.transaction(durability="none")
    txn[b"a"] = txn[b"b"]
    OTHERS[name](db)
    groups.clear()
    with pytest.raises(ConflictError):
        txn.commit()
    assert [1] == groups
    assert b"1" == db[b"a"]


def test_what_has_nothing_to_do_with_it_only_costs_the_group(
    db: Database, groups: list[int]
) -> None:
    txn = db.transaction(durability="none")
    txn[b"a"] = txn[b"b"]
    db.put(b"c", b"x", durability="none")
    txn.commit()
    assert [1] == groups
    assert b"2" == db[b"a"]


def test_one_over_a_keyspace_that_was_dropped_is_refused(db: Database) -> None:
    txn = db.transaction(durability="none")
    txn.keyspace("other")[b"k"] = b"v"
    txn[b"a"] = b"half"
    db.drop_keyspace("other")
    with pytest.raises(DatabaseClosedError, match="dropped"):
        txn.commit()
    assert b"1" == db[b"a"]


def test_one_beside_a_leader_queues_behind_it(env: SimEnv, db: Database) -> None:
    """Whatever the schedule, no number is given twice and no count is lost."""

    def count(durability: str | None) -> None:
        def add(txn: Any) -> None:
            txn[b"n"] = b"%d" % (int(txn.get(b"n", b"0")) + 1)

        for _ in range(20):
            db.run(add, attempts=1_000, durability=durability)

    env.schedule("always")
    tasks = [
        env.spawn(f"task-{number}", lambda durability=durability: count(durability))
        for number, durability in enumerate(("none", None, "none", "interval"))
    ]
    for task in tasks:
        task.join()
    assert b"80" == db[b"n"]
    db.sync()
    seqs = [
        change.seq for change in db.changes() if any(op.key == b"n" for op in change.operations)
    ]
    assert len(seqs) == len(set(seqs)) == 80


class LetsOthers:
    """A mutex before which something happens."""

    def __init__(self, inner: Any, first: Callable[[], object]) -> None:
        self._inner = inner
        self._first = [first]

    def acquire(self) -> None:
        while self._first:
            self._first.pop()()
        self._inner.acquire()

    def release(self) -> None:
        self._inner.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_the_timer_that_ended_meanwhile_is_started_again(
    db: Database, monkeypatch: pytest.MonkeyPatch, groups: list[int]
) -> None:
    """While the commit waited for the mutex the last sync was done, and the timer ended."""
    db.put(b"c", b"3", durability="interval")
    db.sync()
    assert db.state.interval_armed
    txn = db.transaction(durability="interval")
    # One operation would need no mutex.
    txn[b"a"] = txn[b"d"] = b"2"
    path = db._engine.write_path
    groups.clear()

    def ends() -> None:
        db.state.interval_armed = False

    monkeypatch.setattr(path, "_mutex", LetsOthers(path._mutex, ends))
    txn.commit()
    assert [] == groups
    assert db.state.interval_armed


def test_a_memtable_that_is_full_is_frozen_all_the_same(db: Database) -> None:
    for number in range(300):
        with db.transaction(durability="none") as txn:
            txn[b"%04d" % number] = b"x" * 5000
    assert db.stats().flushes > 0
    assert 302 == len(db)


@pytest.mark.parametrize("kind", ["put", "delete", "merge", "range"])
def test_a_single_operation_needs_no_mutex(
    db: Database, groups: list[int], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is one step, as an unsynced put is. A range delete could not be taken back."""
    db.add(b"n", 1)
    groups.clear()
    path, taken = db._engine.write_path, []
    monkeypatch.setattr(path, "_mutex", LetsOthers(path._mutex, lambda: taken.append(1)))
    seq, written, size = db.state.visible_seq, db.stats().writes, db.state.user_bytes
    with db.transaction(durability="none") as txn:
        assert b"1" == txn[b"a"]
        if kind == "put":
            txn[b"a"] = b"22"
        elif kind == "delete":
            del txn[b"a"]
        elif kind == "merge":
            txn.add(b"n", 4)
        else:
            txn.delete_range(b"a", b"b")
    assert [] == groups
    assert [1] * (kind == "range") == taken
    assert (seq + 1, written + 1) == (db.state.visible_seq, db.stats().writes)
    assert size < db.state.user_bytes
    expected = {b"a": b"1", b"b": b"2", b"n": b"1"}
    if kind == "put":
        expected[b"a"] = b"22"
    elif kind == "merge":
        expected[b"n"] = b"5"
    else:
        del expected[b"a"]
    assert expected == dict(db.items())
    db.sync()
    assert seq + 1 == list(db.changes())[-1].seq
