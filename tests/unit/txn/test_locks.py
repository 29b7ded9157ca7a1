"""Goal: locks exclude each other in the order they were asked for, deadlocks are found when they
come about, and nothing is held when its transaction has ended, however it ended.
"""

from __future__ import annotations

import gc
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import ConflictError, DatabaseClosedError, DeadlockError, marks_seen, successor
from holdfast.engine import Database, open_database
from holdfast.env import SimEnv
from holdfast.txn import LockTable, Owner, Span, Transaction


def key(name: bytes) -> Span:
    return Span(0, name, successor(name))


class Locks:
    """A table, owners by letter, and what waits."""

    def __init__(self) -> None:
        self.table = LockTable(SimEnv())
        self.owners: dict[str, Owner] = {}
        self.woken: list[str] = []
        self.requests: dict[str, Any] = {}

    def owner(self, name: str) -> Owner:
        return self.owners.setdefault(name, Owner(name))

    def ask(self, name: str, span: Span, *, shared: bool = False) -> bool:
        """Return whether it was granted at once."""
        request = self.table.request(
            self.owner(name), span, shared=shared, wake=lambda: self.woken.append(name)
        )
        self.requests[name] = request
        return request.granted

    def end(self, name: str) -> list[str]:
        """Return who got a lock by that."""
        self.woken = []
        self.table.release(self.owner(name))
        return self.woken


@pytest.fixture
def locks() -> Locks:
    return Locks()


def test_exclusive_ones_wait_in_order(locks: Locks) -> None:
    assert locks.ask("a", key(b"k"))
    assert locks.ask("a", key(b"k"))
    assert not locks.ask("b", key(b"k"))
    assert not locks.ask("c", key(b"k"), shared=True)
    assert not locks.ask("d", key(b"k"), shared=True)
    assert not locks.ask("e", key(b"k"))
    assert locks.ask("x", key(b"other"))
    assert locks.ask("x", Span(1, b"", None)), "another keyspace"
    assert [] == locks.end("x")
    assert ["b"] == locks.end("a")
    assert ["c", "d"] == locks.end("b")
    assert [] == locks.end("c")
    assert ["e"] == locks.end("d")


def test_shared_ones_do_not_starve_an_exclusive_one(locks: Locks) -> None:
    assert locks.ask("a", key(b"k"), shared=True)
    assert locks.ask("b", key(b"k"), shared=True)
    assert not locks.ask("c", key(b"k"))
    assert not locks.ask("d", key(b"k"), shared=True)
    assert [] == locks.end("a")
    assert ["c"] == locks.end("b")
    assert ["d"] == locks.end("c")


@pytest.mark.parametrize(
    ("held", "asked", "free"),
    [
        (Span(0, b"b", b"d"), key(b"a"), True),
        (Span(0, b"b", b"d"), key(b"b"), False),
        (Span(0, b"b", b"d"), key(b"c\xff"), False),
        (Span(0, b"b", b"d"), key(b"d"), True),
        (Span(0, b"b", b"d"), Span(0, b"a", b"b"), True),
        (Span(0, b"b", b"d"), Span(0, b"a", b"b\0"), False),
        (Span(0, b"b", b"d"), Span(0, b"c", None), False),
        (Span(0, b"b", None), Span(0, b"z", None), False),
        (key(b"k"), Span(0, b"", None), False),
        (key(b"k"), Span(0, b"l", None), True),
        (key(b"k"), Span(0, b"k", b"k"), True),
    ],
)
def test_ranges(locks: Locks, held: Span, asked: Span, free: bool) -> None:
    assert locks.ask("a", held)
    assert free == locks.ask("b", asked)
    locks.end("a")
    assert locks.requests["b"].granted


def test_a_holder_that_wants_more_goes_to_the_front(locks: Locks) -> None:
    assert locks.ask("a", key(b"k"), shared=True)
    assert locks.ask("b", key(b"k"), shared=True)
    assert not locks.ask("c", key(b"k"))
    assert not locks.ask("a", key(b"k"))
    assert ["a"] == locks.end("b")
    assert ["c"] == locks.end("a")


def test_two_that_both_want_more_are_a_deadlock(locks: Locks) -> None:
    assert locks.ask("a", key(b"k"), shared=True)
    assert locks.ask("b", key(b"k"), shared=True)
    assert not locks.ask("a", key(b"k"))
    with pytest.raises(DeadlockError) as caught:
        locks.ask("b", key(b"k"))
    assert (
        "waiting would never end: b waits for key b'k', which a holds; a waits for key b'k', "
        "which b holds; run it again"
    ) == str(caught.value)
    assert ["a"] == locks.end("b")
    assert "txn.deadlock" in marks_seen()


@pytest.mark.parametrize("length", [2, 3, 10, 300])
def test_a_cycle_is_found_when_it_is_closed(locks: Locks, length: int) -> None:
    names = [f"t{number}" for number in range(length)]
    for name in names:
        assert locks.ask(name, key(name.encode()))
    for name, following in itertools.pairwise(names):
        assert not locks.ask(name, key(following.encode()))
    with pytest.raises(DeadlockError) as caught:
        locks.ask(names[-1], key(b"t0"))
    assert length == str(caught.value).count(" waits for key ")
    # The others go on, from the end of the chain to its start.
    for at in range(length - 1, 0, -1):
        assert [names[at - 1]] == locks.end(names[at])


def test_a_cycle_through_the_queue_is_found(locks: Locks) -> None:
    """`c` waits for `b` only because it came later."""
    assert locks.ask("a", key(b"k"), shared=True)
    assert locks.ask("c", key(b"other"))
    assert not locks.ask("b", key(b"k"))
    assert not locks.ask("c", key(b"k"), shared=True)
    with pytest.raises(DeadlockError, match="c waits for key b'k', which b waits for"):
        locks.ask("a", key(b"other"))


def test_one_that_gives_up_lets_those_behind_it_through(locks: Locks) -> None:
    assert locks.ask("a", key(b"k"), shared=True)
    assert not locks.ask("b", key(b"k"))
    assert not locks.ask("c", key(b"k"), shared=True)
    locks.table.withdraw(locks.requests["b"])
    assert ["c"] == locks.woken
    locks.table.withdraw(locks.requests["b"])


def test_random_requests_against_the_definition(rng: random.Random) -> None:
    """No two that are granted are in each other's way; whoever waits is in the way of somebody
    before it; there is never a cycle; all end.
    """
    for _ in range(30):
        locks = Locks()
        names = [f"t{number}" for number in range(8)]
        for _ in range(120):
            name = rng.choice(names)
            owner = locks.owner(name)
            if owner.waiting is not None or rng.random() < 0.2:
                if owner.waiting is None:
                    locks.end(name)
                continue
            start = b"%d" % rng.randrange(6)
            stop = successor(start) if rng.random() < 0.7 else b"%d" % rng.randrange(6, 9)
            try:
                locks.ask(name, Span(0, start, stop), shared=rng.random() < 0.5)
            except DeadlockError:
                locks.end(name)
            granted = [each for other in locks.owners.values() for each in other.grants]
            for one in granted:
                assert not any(one.blocks(other) for other in granted)
            for at, each in enumerate(locks.table._queue):
                before = [*granted, *locks.table._queue[:at]]
                assert any(other.blocks(each) for other in before)
        for _ in names:
            for name in names:
                if locks.owner(name).waiting is None:
                    locks.end(name)
        assert ([], {}, []) == (locks.table._queue, locks.table._keys, locks.table._ranges)


@pytest.fixture
def db() -> Iterator[Database]:
    with open_database("/db", env=SimEnv(3)) as database:
        yield database
        assert [] == database._engine.locks._queue
        assert {} == database._engine.locks._keys
        assert [] == database._engine.locks._ranges


ENDS: list[Callable[[Transaction], object]] = [
    lambda txn: txn.commit(),
    lambda txn: txn.rollback(),
    lambda txn: (txn.put(b"a", b""), txn.commit()),
]


@pytest.mark.parametrize("end", ENDS)
def test_the_end_gives_all_back(db: Database, end: Callable[[Transaction], object]) -> None:
    txn, other = db.transaction(), db.transaction()
    txn.lock(b"a")
    txn.lock((b"m", None), shared=True)
    txn.keyspace("second").lock(b"a")
    with pytest.raises(
        ConflictError,
        match=r"key b'a' was not free within 0 seconds: the transaction of .*:\d+ had",
    ):
        other.lock(b"a", timeout=0)
    assert "txn.lock_timed_out" in marks_seen()
    other.lock(b"x", shared=True, timeout=0)
    end(txn)
    other.lock((b"a", b"c"), timeout=0)
    other.rollback()
    with pytest.raises(DatabaseClosedError, match="rolled back"):
        other.lock(b"a")


def test_one_that_is_forgotten_gives_all_back(db: Database) -> None:
    txn, other = db.transaction(), db.transaction()
    txn.lock(b"a")
    with pytest.warns(ResourceWarning, match="never ended"):
        del txn
        gc.collect()
    other.lock(b"a", timeout=0)
    other.rollback()


def test_a_savepoint_that_is_undone_gives_back_what_it_took(db: Database) -> None:
    with db.transaction() as txn:
        txn.lock(b"a")
        with pytest.raises(ZeroDivisionError), txn.savepoint():
            txn.lock(b"b")
            raise ZeroDivisionError
        with txn.savepoint():
            txn.lock(b"c")
        other = db.transaction()
        other.lock(b"b", timeout=0)
        for held in (b"a", b"c"):
            with pytest.raises(ConflictError):
                other.lock(held, timeout=0)
        other.rollback()


def test_a_lock_reads_the_newest_state_or_loses_at_once(db: Database) -> None:
    db[b"n"] = b"1"
    txn = db.transaction()
    db[b"n"] = b"2"
    txn.lock(b"n")
    assert b"2" == txn[b"n"]
    db[b"m"] = b"new"
    txn.lock(b"other")
    with pytest.raises(ConflictError, match="key b'm'"):
        txn.lock((b"l", b"n"))
    txn[b"n"] = b"3"
    txn.commit()
    assert b"3" == db[b"n"]


@pytest.mark.parametrize("seed", range(8))
def test_counters_with_locks_never_lose(seed: int) -> None:
    machine = SimEnv(seed)
    db = open_database("/db", env=machine)

    def work() -> None:
        for _ in range(5):
            with db.transaction(durability="none") as txn:
                txn.lock(b"n")
                n = int(txn.get(b"n", b"0"))  # type: ignore[arg-type]
                machine.sleep(1e-6)
                txn[b"n"] = b"%d" % (n + 1)

    tasks = [machine.spawn(f"task {number}", work) for number in range(4)]
    for task in tasks:
        task.join()
    assert b"20" == db[b"n"]
    db.close()


@pytest.mark.parametrize("seed", range(8))
def test_transfers_that_lock_in_any_order_all_end(seed: int) -> None:
    """Deadlocks are found, and `run` runs the loser again."""
    machine = SimEnv(seed)
    db = open_database("/db", env=machine)
    accounts = [b"a", b"b", b"c"]
    db.put_many(dict.fromkeys(accounts, b"100"))

    def work(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        for _ in range(4):
            source, target = rng.sample(accounts, 2)

            def transfer(txn: Transaction, source: bytes = source, target: bytes = target) -> None:
                txn.lock(source)
                machine.sleep(1e-5)
                txn.lock(target)
                txn[source] = b"%d" % (int(txn[source]) - 1)
                txn[target] = b"%d" % (int(txn[target]) + 1)

            db.run(transfer, attempts=50, durability="none")

    tasks = [machine.spawn(f"task {n}", lambda n=n: work(n)) for n in range(4)]  # type: ignore[misc]
    for task in tasks:
        task.join()
    assert 300 == sum(map(int, db.values()))
    assert [] == db._engine.locks._queue
    db.close()


def test_a_lock_whose_timeout_is_no_number_asks_for_nothing() -> None:
    with open_database("/db", env=SimEnv()) as db:
        one, two, three = (db.transaction() for _ in range(3))
        one.lock(b"k")
        with pytest.raises(TypeError):
            two.lock(b"k", timeout="1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="not nan"):
            two.lock(b"k", timeout=nan)
        one.rollback()
        three.lock(b"k", timeout=0)
        three.rollback()
        two.rollback()


CALLS_OF_ANOTHER_THREAD: list[Callable[[Transaction, Any], object]] = [
    lambda txn, _: txn.lock(b"k"),
    lambda txn, _: txn.savepoint().__enter__(),
    lambda _, savepoint: savepoint.rollback(),
]


@pytest.mark.parametrize("call", CALLS_OF_ANOTHER_THREAD)
def test_what_another_thread_ends_before_the_turn_takes_no_lock_and_no_savepoint(
    call: Callable[[Transaction, Any], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(str(tmp_path / "db")) as db:
        txn = db.transaction()
        savepoint = txn.savepoint()
        savepoint.__enter__()
        # Who uses the transaction for the first time is looked up before the turn is taken.
        kernel = sys.modules[type(txn.state).__module__]
        real = kernel.this_thread

        def ends() -> object:
            monkeypatch.setattr(kernel, "this_thread", real)
            txn.rollback()
            return real()

        def use() -> None:
            monkeypatch.setattr(kernel, "this_thread", ends)
            with pytest.raises(DatabaseClosedError):
                call(txn, savepoint)
            used.append(True)

        used: list[bool] = []
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert used
        with db.transaction() as other:
            other.lock(b"k", timeout=0)
