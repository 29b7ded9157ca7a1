"""Goal: concurrent transactions behave as their level says, whatever flushes and compactions do.

Method: a Hypothesis state machine interleaves the steps of several transactions with each other and
with plain writes, flushes and compactions, over two keyspaces of a simulated machine with tiny
settings. Each transaction notes its calls and what they gave.

When a serializable transaction commits, the same calls on the newest state must give the same: it
behaves as if it ran alone at that moment. One that wrote nothing, or runs at the level "snapshot",
is compared with the state of its beginning. A ConflictError needs a reason: something it depends on
was written since.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from holdfast.base import ConflictError, DatabaseClosedError
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.txn import Transaction
from tests.model.strategies import tiny

NAMES = ("default", "other")
KEY_LIST = [b"k%02d" % number for number in range(8)]
KEYS = st.sampled_from(KEY_LIST)
BOUNDS = st.none() | KEYS
PICK = st.integers(0, 100)
NAME = st.sampled_from(NAMES)
FILLER = b"x" * 300
ISOLATION = st.sampled_from(["serializable", "serializable", "snapshot"])
CALLS = st.one_of(
    st.tuples(st.just("get"), NAME, KEYS),
    st.tuples(st.just("put"), NAME, KEYS, st.booleans()),
    st.tuples(st.just("delete"), NAME, KEYS),
    st.tuples(st.just("delete_range"), NAME, KEYS, KEYS),
    st.tuples(
        st.just("scan"), NAME, BOUNDS, BOUNDS, st.booleans(), st.integers(0, 4) | st.just(99)
    ),
    st.tuples(st.just("len"), NAME),
    st.tuples(st.sampled_from(["savepoint", "savepoint", "release", "undo"])),
)

State = dict[str, dict[bytes, bytes]]
Call = tuple[Any, ...]
"""(name of the call, keyspace, arguments)."""


def copy(state: State) -> State:
    return {name: dict(content) for name, content in state.items()}


def scan(
    content: dict[bytes, bytes],
    lower: bytes | None,
    upper: bytes | None,
    reverse: bool,
    count: int,
) -> list[tuple[bytes, bytes]]:
    rows = [
        (key, value)
        for key, value in sorted(content.items(), reverse=reverse)
        if (lower is None or key >= lower) and (upper is None or key < upper)
    ]
    return rows[:count]


class Model:
    """What one transaction should see and do: its calls on a copy of a state."""

    def __init__(self, state: State) -> None:
        self.state = copy(state)
        self.saved: list[State] = []

    def call(self, name: str, *arguments: Any) -> Any:
        if name == "savepoint":
            self.saved.append(copy(self.state))
            return None
        if name in ("release", "undo"):
            saved = self.saved.pop()
            if name == "undo":
                self.state = saved
            return None
        content = self.state[arguments[0]]
        if name == "get":
            return content.get(arguments[1])
        if name == "len":
            return len(content)
        if name == "put":
            content[arguments[1]] = arguments[2]
        elif name == "delete":
            content.pop(arguments[1], None)
        elif name == "delete_range":
            for key, _ in scan(content, arguments[1], arguments[2], False, 99):
                del content[key]
        else:
            return scan(content, *arguments[1:])
        return None


class Live:
    """A transaction, its calls so far and what they gave."""

    def __init__(self, txn: Transaction, state: State, began: int) -> None:
        self.txn = txn
        self.began = began
        self.before = copy(state)
        self.model = Model(state)
        self.calls: list[tuple[Call, Any]] = []
        self.savepoints: list[Any] = []

    def space(self, name: str) -> Any:
        return self.txn.keyspace(name, create=False)

    def call(self, name: str, *arguments: Any) -> Any:
        if name == "savepoint":
            savepoint = self.txn.savepoint()
            savepoint.__enter__()
            self.savepoints.append(savepoint)
            return None
        if name in ("release", "undo"):
            error = ValueError() if name == "undo" else None
            self.savepoints.pop().__exit__(None if error is None else ValueError, error, None)
            return None
        space = self.space(arguments[0])
        if name == "get":
            return space.get(arguments[1])
        if name == "len":
            return len(space)
        if name in ("put", "delete", "delete_range"):
            getattr(space, name)(*arguments[1:])
            return None
        lower, upper, reverse, count = arguments[1:]
        return list(islice(space.items(lower, upper, reverse=reverse), count))

    def step(self, *call: Any) -> None:
        found = self.call(*call)
        assert self.model.call(*call) == found, call
        self.calls.append((call, found))

    def replayed(self, state: State) -> State:
        """Return what the calls make of `state`, where they must give what they gave."""
        model = Model(state)
        for call, found in self.calls:
            assert model.call(*call) == found, call
        return model.state

    def writes(self) -> Iterator[tuple[str, bytes, bytes | None]]:
        """Yield (keyspace, key, None) or (keyspace, start, stop) of what is left to be written."""
        kept: list[list[Call]] = [[]]
        for call, _ in self.calls:
            if call[0] == "savepoint":
                kept.append([])
            elif call[0] in ("release", "undo"):
                inner = kept.pop()
                if call[0] == "release":
                    kept[-1] += inner
            else:
                kept[-1].append(call)
        for part in kept:
            for name, space, *arguments in part:
                if name in ("put", "delete"):
                    yield space, arguments[0], None
                elif name == "delete_range" and arguments[0] < arguments[1]:
                    yield space, arguments[0], arguments[1]

    def touches(self, space: str, low: bytes, high: bytes) -> bool:
        """Whether it may depend on a key of [low, high) in a keyspace."""
        if self.txn.isolation == "snapshot":
            spans = [
                (start, start + b"\0" if stop is None else stop)
                for name, start, stop in self.writes()
                if name == space
            ]
        else:
            spans = []
            for (name, *arguments), found in self.calls:
                if arguments and arguments[0] == space:
                    spans += read_span(name, arguments[1:], found)
        return any(max(low, start) < min(high, stop) for start, stop in spans)


def read_span(name: str, arguments: list[Any], found: Any) -> list[tuple[bytes, bytes]]:
    if name == "get":
        return [(arguments[0], arguments[0] + b"\0")]
    if name == "len":
        return [(b"", b"\xff")]
    if name != "scan" or not arguments[3]:
        return []
    lower, upper, reverse, count = arguments
    start, stop = lower or b"", b"\xff" if upper is None else upper
    if len(found) == count:
        last = found[-1][0]
        start, stop = (last, stop) if reverse else (start, last + b"\0")
    return [(start, stop)]


class TransactionMachine(RuleBasedStateMachine):
    """A database, its model, and transactions in the middle of their lives."""

    def __init__(self) -> None:
        super().__init__()
        self.env = SimEnv()
        self.database = open_database("/db", env=self.env, settings=tiny())
        self.database.keyspace("other")
        self.state: State = {name: {} for name in NAMES}
        self.written: list[tuple[str, bytes, bytes]] = []
        self.live: list[Live] = []
        self.count = 0

    @initialize(number=st.integers(0, 8), isolations=st.lists(ISOLATION, min_size=2, max_size=4))
    def fill(self, number: int, isolations: list[str]) -> None:
        for key in KEY_LIST[:number]:
            self.database.put(key, b"first" + FILLER, durability="none")
            self.state["default"][key] = b"first" + FILLER
        for isolation in isolations:
            self.begin(isolation)

    def begin(self, isolation: str) -> None:
        txn = self.database.transaction(isolation=isolation, durability="none")
        self.live.append(Live(txn, self.state, len(self.written)))

    def value(self, large: bool) -> bytes:
        self.count += 1
        return b"%d" % self.count + (FILLER if large else b"")

    @rule(pick=PICK, calls=st.lists(CALLS, min_size=1, max_size=6))
    def calls(self, pick: int, calls: list[Call]) -> None:
        live = self.live[pick % len(self.live)]
        for name, *arguments in calls:
            if name == "put":
                arguments = [*arguments[:2], self.value(arguments[2])]
            if name not in ("release", "undo") or live.savepoints:
                live.step(name, *arguments)

    @rule(pick=PICK, isolation=ISOLATION)
    def rollback(self, pick: int, isolation: str) -> None:
        live = self.live.pop(pick % len(self.live))
        self.begin(isolation)
        live.txn.rollback()
        with pytest.raises(DatabaseClosedError, match="rolled back"):
            live.txn.get(b"k")

    @rule(pick=PICK, isolation=ISOLATION)
    def commit(self, pick: int, isolation: str) -> None:
        live = self.live.pop(pick % len(self.live))
        try:
            self.end(live)
        finally:
            self.begin(isolation)

    def end(self, live: Live) -> None:
        """Commit a transaction and compare."""
        while live.savepoints:
            live.step("release")
        writes = list(live.writes())
        spans = [(name, low, low + b"\0" if high is None else high) for name, low, high in writes]
        touched = any(live.touches(*span) for span in self.written[live.began :])
        try:
            live.txn.commit()
        except ConflictError as error:
            assert writes, "one that wrote nothing always commits"
            assert touched, f"nothing that it depends on was written: {error}"
            return
        if not writes:
            live.replayed(live.before)
            return
        if live.txn.isolation == "serializable":
            self.state = live.replayed(self.state)
        else:
            after = live.replayed(live.before)
            for name, low, high in spans:
                for key in KEY_LIST:
                    if low <= key < high:
                        mine = after[name].get(key)
                        theirs = self.state[name].get(key)
                        assert theirs == live.before[name].get(key), "an update was lost"
                        self.state[name].pop(key, None)
                        if mine is not None:
                            self.state[name][key] = mine
        self.written += spans

    @rule(space=NAME, key=KEYS, large=st.booleans(), durability=st.sampled_from([None, "none"]))
    def plain_put(self, space: str, key: bytes, large: bool, durability: str | None) -> None:
        value = self.value(large)
        self.database.keyspace(space).put(key, value, durability=durability)
        self.state[space][key] = value
        self.written.append((space, key, key + b"\0"))

    @rule(space=NAME, key=KEYS)
    def plain_delete(self, space: str, key: bytes) -> None:
        self.database.keyspace(space).delete(key, durability="none")
        self.state[space].pop(key, None)
        self.written.append((space, key, key + b"\0"))

    @rule(space=NAME, start=KEYS, stop=KEYS)
    def plain_delete_range(self, space: str, start: bytes, stop: bytes) -> None:
        self.database.keyspace(space).delete_range(start, stop, durability="none")
        for key in [key for key in self.state[space] if start <= key < stop]:
            del self.state[space][key]
        if start < stop:
            self.written.append((space, start, stop))

    @rule(space=NAME, whole=st.booleans())
    def upkeep(self, space: str, whole: bool) -> None:
        keyspace = self.database.keyspace(space)
        (keyspace.compact if whole else keyspace.flush)()

    @invariant()
    def contents_are_equal(self) -> None:
        for name in NAMES:
            assert self.state[name] == dict(self.database.keyspace(name).items())

    def teardown(self) -> None:
        for live in self.live:
            live.txn.rollback()
        assert [] == self.database._engine.snapshots.live()
        self.database.close()


def test_concurrent_transactions_behave_as_their_level_says() -> None:
    deep = os.environ.get("HOLDFAST_HYPOTHESIS") == "deep"
    run_state_machine_as_test(
        TransactionMachine,
        settings=settings(max_examples=2_000 if deep else 60, stateful_step_count=40),
    )
