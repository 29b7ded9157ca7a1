"""Goal: a transaction that waits for nobody commits at once, beside the queue of commits, only if
that comes to the same as a group of its own: nothing was committed since its snapshot, nobody
leads, and there is nothing to be done before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.base import PURE, ConflictError, DatabaseClosedError
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, SimEnv
from tests.model.strategies import tiny
from tests.unit.engine.test_interrupts import SETTINGS

STEP_OPS_MAX = 16
"""As in `engine._core_c`."""

MANY_SETTINGS = tiny(memory_bytes=1 << 20, memtable_bytes=128 << 10)

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


@pytest.mark.parametrize("count", [1, 2, STEP_OPS_MAX, STEP_OPS_MAX + 1])
def test_one_that_read_of_a_keyspace_that_was_dropped_is_refused(db: Database, count: int) -> None:
    """Whatever it writes elsewhere depends on what it read."""
    txn = db.transaction(durability="none")
    txn.keyspace("other").get(b"k")
    txn.put_many({b"new %d" % number: b"v" for number in range(count)})
    db.drop_keyspace("other")
    with pytest.raises(DatabaseClosedError, match="dropped"):
        txn.commit()
    assert {b"a": b"1", b"b": b"2"} == dict(db.items())


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
    txn[b"a"] = b"2"
    # Puts alone would need no mutex.
    txn.delete_range(b"d", b"e")
    path = db._engine.write_path
    groups.clear()

    def ends() -> None:
        db.state.interval_armed = False

    monkeypatch.setattr(path, "_mutex", LetsOthers(path._mutex, ends))
    txn.commit()
    assert [] == path._mutex._first
    assert [] == groups
    assert db.state.interval_armed


def test_a_memtable_that_is_full_is_frozen_all_the_same(db: Database) -> None:
    for number in range(300):
        with db.transaction(durability="none") as txn:
            txn[b"%04d" % number] = b"x" * 5000
    assert db.stats().flushes > 0
    assert 302 == len(db)


MANY: list[tuple[int, int, bool]] = [
    # Rows, bytes of each value, and whether they need the mutex.
    (1, 10, False),
    (2, 10, False),
    (STEP_OPS_MAX, 10, False),
    (STEP_OPS_MAX + 1, 10, True),
    (2, 40_000, True),
]


@pytest.mark.parametrize(("count", "size", "waits"), MANY)
def test_a_few_puts_need_no_mutex(
    env: SimEnv, groups: list[int], monkeypatch: pytest.MonkeyPatch, count: int, size: int,
    waits: bool,
) -> None:  # fmt: skip
    """They are one step: others see all of them or none, and so does a crash."""
    rows = {b"%02d" % number: b"x" * size for number in range(count)}
    with open_database("/many", env=env, settings=MANY_SETTINGS) as db:
        db[b"first"] = b""
        path, taken = db._engine.write_path, []
        seq, written, size = db.state.visible_seq, db.stats().writes, db.state.user_bytes
        mutex = path._mutex
        monkeypatch.setattr(path, "_mutex", LetsOthers(mutex, lambda: taken.append(1)))
        db.put_many(rows, durability="none")
        monkeypatch.setattr(path, "_mutex", mutex)
        assert [1] * waits == taken
        assert (seq + count, written + count) == (db.state.visible_seq, db.stats().writes)
        assert size + sum(map(len, rows)) + sum(map(len, rows.values())) == db.state.user_bytes
        assert {**rows, b"first": b""} == dict(db.items())
        db.put_many({b"00": b"later", b"last": b""}, durability="none")
        with open_database("/many", env=CrashPoint(env).state("none").build()) as found:
            assert [b"first"] == list(found)
        db.sync()
        batches = [[op.key for op in change.operations] for change in db.changes()]
        assert [list(rows), [b"00", b"last"]] == batches[-2:]
        with open_database("/many", env=CrashPoint(env).state("none").build()) as found:
            assert {**rows, b"first": b"", b"00": b"later", b"last": b""} == dict(found.items())


@pytest.mark.parametrize("rows", [3, STEP_OPS_MAX])
@pytest.mark.parametrize("order", ["up", "down", "mixed"])
def test_small_batches_fill_memtable_after_memtable(env: SimEnv, rows: int, order: str) -> None:
    """Where the memory of a memtable ends they go another way, and nothing is lost or twice."""
    numbers = list(range(3000))
    if order == "down":
        numbers.reverse()
    elif order == "mixed":
        random.Random(rows).shuffle(numbers)
    model: dict[bytes, bytes] = {}
    with open_database("/fill", env=env, settings=MANY_SETTINGS) as db:
        for at in range(0, len(numbers), rows):
            batch = [(b"%05d" % number, b"%d" % at * 20) for number in numbers[at : at + rows]]
            db.put_many(batch, durability="none")
            model.update(batch)
        assert db.stats().flushes > 0
        assert model == dict(db.items())
        assert len(numbers) == db.state.visible_seq
    with open_database("/fill", env=env) as db:
        assert model == dict(db.items())


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
