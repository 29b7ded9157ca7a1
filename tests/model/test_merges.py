"""Goal: a database with merged keys gives the answers of a plain dictionary, whatever flushes,
compactions, snapshots, reopens and transactions come in between.

Method: random calls on both. "append" and "tag", which cannot be combined, show each operand and
its place; "add" fails on some of what the others leave, and then a read must say so and nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from holdfast.base import MergeError
from holdfast.engine import Database, Snapshot, open_database
from holdfast.env import CrashPoint, SimEnv
from holdfast.merge import Merges
from holdfast.testing.workload import TINY

KEYS = [b"a", b"b", b"c", b"d", b"e", b"f"]
FUNCTIONS = {"tag": lambda value, operands: b"/".join([value or b"", *operands])}
MERGES = Merges(FUNCTIONS)
STRATEGIES = ["leveled", "size-tiered"]

State = dict[bytes, object]
"""Values, or the error that a read must raise."""


def applied(state: Mapping[bytes, object], key: bytes, function: str, operand: Any) -> object:
    before = state.get(key)
    if before is MergeError:
        return MergeError
    assert before is None or isinstance(before, bytes)
    try:
        return MERGES.fold(key, before, [MERGES.value_of(function, operand)])
    except MergeError:
        return MergeError


def read(call: Callable[[], object]) -> object:
    try:
        return call()
    except MergeError:
        return MergeError


class Run:
    """A database, its model, and snapshots of both."""

    def __init__(self, rng: Random, strategy: str) -> None:
        self.rng = rng
        self.settings = replace(TINY, keyspace=replace(TINY.keyspace, compaction=strategy))
        self.machine = SimEnv(rng.randrange(1 << 30))
        self.db = self.open(self.machine)
        self.state: State = {}
        self.views: list[tuple[Snapshot, State]] = []

    def open(self, machine: SimEnv) -> Database:
        return open_database("/db", settings=self.settings, merges=FUNCTIONS, env=machine)

    def operand(self) -> tuple[str, Any]:
        rng = self.rng
        function = rng.choice(["append", "append", "append", "tag", "tag", "add"])
        return function, rng.randrange(9) if function == "add" else b"%d" % rng.randrange(9)

    def write(self, target: Any, state: State, **durability: str | None) -> None:
        """Do one write on the database, or a transaction of it, and on a model."""
        rng, key = self.rng, self.rng.choice(KEYS)
        choice = rng.random()
        if choice < 0.72:
            function, operand = self.operand()
            target.merge(key, function, operand, **durability)
            state[key] = applied(state, key, function, operand)
        elif choice < 0.84:
            value = rng.choice([b"", b"5", b"0"]) + b"x" * rng.choice([0, 0, 0, 300])
            target.put(key, value, **durability)
            state[key] = value
        elif choice < 0.94:
            target.delete(key, **durability)
            state.pop(key, None)
        else:
            start, stop = sorted((key, rng.choice(KEYS)))
            target.delete_range(start, stop)
            for each in [each for each in state if start <= each < stop]:
                del state[each]

    def transact(self) -> None:
        rng = self.rng
        state = dict(self.state)
        txn = self.db.transaction(isolation=rng.choice(["serializable", "snapshot"]))
        for _ in range(rng.randrange(1, 30)):
            if rng.random() < 0.3:
                inside = dict(state)
                with txn.savepoint() as point:
                    for _ in range(rng.randrange(4)):
                        self.write(txn, inside)
                    if rng.random() < 0.5:
                        point.rollback()
                    else:
                        state = inside
            self.write(txn, state)
            if rng.random() < 0.3:
                self.compare(txn, state)
        self.compare(txn, state)
        if rng.random() < 0.8:
            txn.commit()
            self.state = state
        else:
            txn.rollback()

    def step(self) -> None:
        rng = self.rng
        choice = rng.random()
        if choice < 0.8:
            self.write(self.db, self.state, durability=rng.choice(["none", "none", None]))
        elif choice < 0.86:
            self.transact()
        elif choice < 0.9:
            self.db.flush()
        elif choice < 0.92:
            self.db.compact()
        elif choice < 0.94:
            rows = {key: b"7" for key in KEYS if rng.random() < 0.4}
            self.db.ingest(rows)
            self.state.update(rows)
        elif choice < 0.97 and len(self.views) < 3:
            self.views.append((self.db.snapshot(), dict(self.state)))
        elif choice < 0.985 and self.views:
            view, state = self.views.pop(rng.randrange(len(self.views)))
            self.compare(view, state)
            view.close()
        else:
            self.reopen()

    def reopen(self) -> None:
        for view, _ in self.views:
            view.close()
        self.views.clear()
        if self.rng.random() < 0.5:
            self.db.close()
        else:
            self.db.sync()
            self.machine = CrashPoint(self.machine).state("none").build()
        self.db = self.open(self.machine)

    def compare(self, target: Any, state: State) -> None:
        for key in KEYS:
            assert state.get(key) == read(lambda key=key: target.get(key))  # type: ignore[misc]
        keys = sorted(state)
        assert keys == list(target.keys())
        assert keys[::-1] == list(target.keys(reverse=True))
        wrong = [key for key in keys if state[key] is MergeError]
        if not wrong:
            rows = sorted(state.items())
            assert rows == list(target.items())
            assert rows[::-1] == list(target.items(reverse=True))
            assert [value for _, value in rows] == list(target.values())
            assert [state.get(key) for key in KEYS] == target.get_many(KEYS)
            return
        # A scan comes to the first one.
        rows = [(key, value) for key, value in sorted(state.items()) if key < wrong[0]]
        assert rows == list(target.items(stop=wrong[0]))
        assert MergeError is read(lambda: list(target.items()))
        after = [(key, value) for key, value in sorted(state.items()) if key > wrong[-1]]
        assert after[::-1] == list(target.items(start=wrong[-1] + b"\x00", reverse=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("number", range(6))
def test_the_answers_are_those_of_a_dictionary(rng: Random, number: int, strategy: str) -> None:
    run = Run(Random(rng.random() + number), strategy)
    for _ in range(250):
        run.step()
        if run.rng.random() < 0.2:
            run.compare(run.db, run.state)
            for view, state in run.views:
                run.compare(view, state)
    for view, state in run.views:
        run.compare(view, state)
        view.close()
    run.compare(run.db, run.state)
    run.db.compact()
    run.compare(run.db, run.state)
    assert not run.db.verify().errors
    run.db.close()
