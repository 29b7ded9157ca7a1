"""Goal: under any history of calls the database answers as a plain dictionary does, also after a
crash.

Method: a Hypothesis state machine makes the same calls on a database and on its model (of
`holdfast.testing.model`) and compares after every step. The machine is simulated, its settings are
tiny, so that dozens of
writes go through flushes, compactions and new segments while snapshots and cursors stay open. The
power goes between two calls or at any operation of the disk within one; what is found then must be
a prefix of the commits with every durable one, and the history goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.base import DatabaseClosedError, DatabaseSettings
from holdfast.engine import Database, Keyspace, Snapshot, open_database
from holdfast.env import CRASH_CLASSES, CrashPoint, SimCrash, SimEnv
from holdfast.testing.model import DEFAULT, Model, ModelSnapshot
from tests.model.strategies import BOUNDS, DURABILITIES, KEYS, LIMITS, PREFIXES, SIZES, tiny, value

FOLDER = "/db"
NAMES = st.sampled_from([DEFAULT, DEFAULT, DEFAULT, "other", "third"])
WHAT = st.sampled_from(["items", "keys", "values"])
PICK = st.integers(0, 1_000)
CRASH_WAYS = st.tuples(st.sampled_from(CRASH_CLASSES), PICK)
SETTINGS = st.sampled_from(
    [
        tiny(),
        tiny(filter_bits_per_key=0, restart_interval=1, compression="zstd"),
        tiny(level0_tables=1, wal_alignment_bytes=512),
    ]
)


class DatabaseMachine(RuleBasedStateMachine):
    """A database and its model, taken through the same history."""

    key: ClassVar[bytes | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.env = SimEnv()
        self.database: Database | None = None
        self.writes = 0
        self.births: dict[str, int] = {DEFAULT: 0}
        self.snapshots: list[tuple[Snapshot, ModelSnapshot, dict[str, int]]] = []
        self.cursors: list[tuple[Any, list[Any]]] = []
        self.dropped: list[Keyspace] = []
        self.crash_way = (CRASH_CLASSES[0], 0)
        self.crashes = 0

    # -- running calls

    def run(self, call: Callable[[], object], change: Callable[[], object] | None = None) -> bool:
        """Make one call on the database, and the same on the model; return whether the power
        stayed on.
        """
        durable = self.model.durable
        if change is not None:
            change()
        try:
            call()
        except SimCrash:
            # It was not acknowledged.
            self.model.durable = durable
            self.reboot()
            return False
        return True

    def open(self, given: DatabaseSettings | None = None) -> None:
        self.database = open_database(FOLDER, env=self.env, settings=given, key=self.key)

    @property
    def db(self) -> Database:
        assert self.database is not None
        return self.database

    def forget_readers(self) -> None:
        for cursor, _ in self.cursors:
            cursor.close()
        self.cursors.clear()
        self.snapshots.clear()
        self.dropped.clear()

    def reboot(self) -> None:
        """Switch the machine off, lose what it may lose, and start again on what is left."""
        self.crashes += 1
        point = CrashPoint(self.env)
        kind, number = self.crash_way
        count = number % 16
        states = list(islice(point.states((kind,), seed=number), count + 1))
        state = states[-1] if states else point.state("none")
        self.env.cut_power()
        with suppress(SimCrash):
            self.db.close()
        self.database = None
        self.forget_readers()
        self.env = state.build()
        self.open()
        found = {name: dict(self.db.keyspace(name).items()) for name in self.db.keyspaces()}
        assert self.model.recover(found), f"{state.name} left {found}"
        for name in [name for name in self.births if name not in found]:
            del self.births[name]
        for name in found:
            self.births.setdefault(name, self.writes)

    def keyspace(self, name: str) -> Keyspace:
        return self.db.keyspace(name, create=False)

    # -- the beginning

    @initialize(seed=PICK, given=SETTINGS, profile=st.sampled_from(["posix-min", "ext4-ordered"]))
    def create(self, seed: int, given: DatabaseSettings, profile: str) -> None:
        self.env = SimEnv(seed, profile)
        self.open(given)

    # -- writing

    @rule(name=NAMES, key=KEYS, size=SIZES, durability=DURABILITIES)
    def put(self, name: str, key: bytes, size: int, durability: str | None) -> None:
        self.write(name, lambda one, content: one.put(key, content, durability=durability), size)

    @rule(name=NAMES, key=KEYS, size=SIZES, durability=DURABILITIES)
    def merge(self, name: str, key: bytes, size: int, durability: str | None) -> None:
        self.write(
            name,
            lambda one, content: one.merge(key, "append", content, durability=durability),
            size,
        )

    @rule(name=NAMES, key=KEYS, durability=DURABILITIES)
    def delete(self, name: str, key: bytes, durability: str | None) -> None:
        self.write(name, lambda one, _: one.delete(key, durability=durability))

    @rule(name=NAMES, keys=st.lists(KEYS, max_size=12), size=SIZES, durability=DURABILITIES)
    def put_many(self, name: str, keys: list[bytes], size: int, durability: str | None) -> None:
        self.write(
            name,
            lambda one, content: one.put_many(
                [(key, content + b"%d" % index) for index, key in enumerate(keys)],
                durability=durability,
            ),
            size,
        )

    @rule(name=NAMES, start=BOUNDS, stop=BOUNDS, durability=DURABILITIES)
    def delete_range(
        self, name: str, start: bytes | None, stop: bytes | None, durability: str | None
    ) -> None:
        self.write(name, lambda one, _: one.delete_range(start, stop, durability=durability))

    @rule(name=NAMES, key=KEYS)
    def mapping_calls(self, name: str, key: bytes) -> None:
        if name not in self.births:
            return
        if key in self.model.keyspace(name):
            self.write(name, lambda one, _: one.__delitem__(key))
        elif self.run(lambda: self.misses(name, key)):
            self.write(name, lambda one, content: one.__setitem__(key, content), 9)

    def misses(self, name: str, key: bytes) -> None:
        keyspace = self.keyspace(name)
        with pytest.raises(KeyError):
            del keyspace[key]
        with pytest.raises(KeyError):
            keyspace[key]

    @rule(
        name=NAMES, first=st.integers(0, 99), count=st.integers(5, 60), step=st.integers(1, 3),
        size=SIZES, durability=DURABILITIES,
    )  # fmt: skip
    def fill(
        self, name: str, first: int, count: int, step: int, size: int, durability: str | None
    ) -> None:
        """Write so many keys that levels get several tables."""
        keys = [b"k%03d" % number for number in range(first, first + count * step, step)]
        self.write(
            name,
            lambda one, content: one.put_many(
                {key: key + content for key in keys}, durability=durability
            ),
            size,
        )

    @rule(
        name=NAMES, keys=st.sets(KEYS, max_size=6), first=st.integers(0, 99),
        count=st.integers(0, 60), size=SIZES,
    )  # fmt: skip
    def ingest(self, name: str, keys: set[bytes], first: int, count: int, size: int) -> None:
        """Load some tables at once, beside or over what is there."""
        every = keys.union(b"k%03d" % number for number in range(first, first + count))
        self.write(
            name,
            lambda one, content: one.ingest([(key, key[:9] + content) for key in sorted(every)]),
            size,
        )

    def write(self, name: str, write: Callable[[Any, bytes], object], size: int = 0) -> None:
        if name not in self.births:
            return
        self.writes += 1
        content = value(self.writes, size)
        self.run(
            lambda: write(self.keyspace(name), content),
            lambda: write(self.model.keyspace(name), content),
        )

    # -- keyspaces

    @rule(name=st.sampled_from(["other", "third"]))
    def create_keyspace(self, name: str) -> None:
        self.writes += 1
        self.births.setdefault(name, self.writes)
        self.run(lambda: self.db.keyspace(name), lambda: self.model.keyspace(name))

    @rule(name=st.sampled_from(["other", "third"]))
    def drop_keyspace(self, name: str) -> None:
        if name not in self.births:
            self.run(lambda: self.drop_nothing(name))
            return
        del self.births[name]
        self.run(lambda: self.drop(name), lambda: self.model.drop_keyspace(name))

    def drop(self, name: str) -> None:
        keyspace = self.keyspace(name)
        self.db.drop_keyspace(name)
        self.dropped.append(keyspace)

    def drop_nothing(self, name: str) -> None:
        with pytest.raises(KeyError):
            self.db.drop_keyspace(name)

    # -- reading

    @rule(
        name=NAMES, start=BOUNDS, stop=BOUNDS, prefix=PREFIXES, reverse=st.booleans(), limit=LIMITS,
        what=WHAT,
    )  # fmt: skip
    def scan(self, name: str, what: str, **bounds: Any) -> None:
        if name in self.births:
            expected = getattr(self.model.keyspace(name), what)(**bounds)
            self.run(
                lambda: self.equal(expected, list(getattr(self.keyspace(name), what)(**bounds)))
            )

    @rule(name=NAMES, keys=st.lists(KEYS, max_size=8))
    def read(self, name: str, keys: list[bytes]) -> None:
        if name in self.births:
            self.run(lambda: self.compare_reads(self.model.keyspace(name), name, keys))

    def compare_reads(self, model: Any, name: str, keys: list[bytes]) -> None:
        keyspace = self.keyspace(name)
        self.equal(model.get_many(keys), keyspace.get_many(keys))
        for key in keys:
            self.equal(model.get(key, "absent"), keyspace.get(key, "absent"))
            self.equal(key in model, key in keyspace)
        self.equal(len(model), len(keyspace))

    @staticmethod
    def equal(expected: object, actual: object) -> None:
        assert expected == actual

    # -- cursors that stay open

    @precondition(lambda self: len(self.cursors) < 5)
    @rule(
        name=NAMES, start=BOUNDS, stop=BOUNDS, prefix=PREFIXES, reverse=st.booleans(), limit=LIMITS,
        what=WHAT,
    )  # fmt: skip
    def open_cursor(self, name: str, what: str, **bounds: Any) -> None:
        if name in self.births:
            expected = getattr(self.model.keyspace(name), what)(**bounds)

            def call() -> None:
                self.cursors.append((getattr(self.keyspace(name), what)(**bounds), expected))

            self.run(call)

    @precondition(lambda self: self.cursors)
    @rule(pick=PICK, count=st.integers(0, 6))
    def step_cursor(self, pick: int, count: int) -> None:
        cursor, expected = self.cursors[pick % len(self.cursors)]

        def call() -> None:
            rows = cursor.next_chunk(count) if pick % 2 else list(islice(cursor, count))
            self.equal(expected[:count], rows)
            del expected[:count]

        self.run(call)

    @precondition(lambda self: self.cursors)
    @rule(pick=PICK, to_the_end=st.booleans())
    def close_cursor(self, pick: int, to_the_end: bool) -> None:
        cursor, expected = self.cursors.pop(pick % len(self.cursors))
        if not to_the_end or self.run(lambda: self.equal(expected, list(cursor))):
            cursor.close()

    # -- snapshots

    @precondition(lambda self: len(self.snapshots) < 4)
    @rule()
    def open_snapshot(self) -> None:
        model = self.model.snapshot()

        def call() -> None:
            self.snapshots.append((self.db.snapshot(), model, dict(self.births)))

        self.run(call)

    @precondition(lambda self: self.snapshots)
    @rule(
        pick=PICK, start=BOUNDS, stop=BOUNDS, prefix=PREFIXES, reverse=st.booleans(), limit=LIMITS,
        keys=st.lists(KEYS, max_size=4),
    )  # fmt: skip
    def read_snapshot(self, pick: int, keys: list[bytes], **bounds: Any) -> None:
        snapshot, model, births = self.snapshots[pick % len(self.snapshots)]

        def call() -> None:
            for name, born in births.items():
                if self.births.get(name) != born:
                    continue
                frozen, expected = snapshot.keyspace(name), model.keyspace(name)
                self.equal(expected.items(**bounds), list(frozen.items(**bounds)))
                self.equal(expected.get_many(keys), frozen.get_many(keys))
                self.equal(len(expected), len(frozen))

        self.run(call)

    @precondition(lambda self: self.snapshots and len(self.cursors) < 5)
    @rule(pick=PICK, reverse=st.booleans())
    def open_cursor_of_snapshot(self, pick: int, reverse: bool) -> None:
        snapshot, model, _ = self.snapshots[pick % len(self.snapshots)]

        def call() -> None:
            cursor = snapshot.items(reverse=reverse)
            self.cursors.append((cursor, model.items(reverse=reverse)))

        self.run(call)

    @precondition(lambda self: self.snapshots)
    @rule(pick=PICK, forget=st.booleans())
    def close_snapshot(self, pick: int, forget: bool) -> None:
        snapshot, _, _ = self.snapshots.pop(pick % len(self.snapshots))
        if not forget and self.run(snapshot.close):
            self.run(lambda: self.refuses(snapshot))

    @staticmethod
    def refuses(closed: Snapshot | Keyspace) -> None:
        with pytest.raises(DatabaseClosedError):
            closed.get(b"a")

    # -- upkeep

    @rule()
    def flush(self) -> None:
        self.run(lambda: self.db.flush(), lambda: self.model.sync())

    @rule(name=NAMES)
    def flush_keyspace(self, name: str) -> None:
        if name in self.births:
            self.run(lambda: Keyspace.flush(self.keyspace(name)))

    @rule(name=NAMES, start=BOUNDS, stop=BOUNDS)
    def compact(self, name: str, start: bytes | None, stop: bytes | None) -> None:
        if name in self.births:
            self.run(lambda: self.keyspace(name).compact(start, stop))

    @rule(name=NAMES)
    def compact_all(self, name: str) -> None:
        if name in self.births:
            self.run(lambda: self.keyspace(name).compact())

    @rule()
    def sync(self) -> None:
        self.run(lambda: self.db.sync(), lambda: self.model.sync())

    @rule()
    def let_time_pass(self) -> None:
        self.run(lambda: self.env.sleep(1.0), lambda: self.model.interval_passed())

    @rule()
    def verify(self) -> None:
        self.run(lambda: self.equal([], self.db.verify().errors))

    # -- the end of a process life

    @rule()
    def reopen(self) -> None:
        self.forget_readers()
        if self.run(lambda: self.db.close(), lambda: self.model.sync()):
            self.run(lambda: self.equal([], self.env.unreturned()))
            self.run(self.open)

    # -- what holds after every step

    @invariant()
    def equals_the_model(self) -> None:
        if self.database is not None:
            self.run(self.compare_all)

    def compare_all(self) -> None:
        self.equal(sorted(self.births), self.db.keyspaces())
        for name in self.births:
            self.equal(self.model.keyspace(name).items(), list(self.keyspace(name).items()))
        for keyspace in self.dropped:
            self.refuses(keyspace)

    def teardown(self) -> None:
        if self.database is None:
            return
        for step in self.last_steps():
            self.run(step)
        self.forget_readers()
        # A crash that was armed may come now; the next machine has none.
        while not self.run(self.db.close):
            pass
        assert [] == self.env.unreturned()

    def last_steps(self) -> Iterator[Callable[[], object]]:
        yield lambda: [self.equal(rest, list(cursor)) for cursor, rest in self.cursors]
        yield lambda: self.equal([], self.db.verify().errors)
        yield self.compare_all


class CrashingMachine(DatabaseMachine):
    """The same on a machine whose power goes now and then."""

    @rule(way=CRASH_WAYS)
    def crash_now(self, way: tuple[str, int]) -> None:
        self.crash_way = way
        self.reboot()

    @rule(way=CRASH_WAYS, operations=st.integers(0, 60), after=st.booleans())
    def crash_soon(self, way: tuple[str, int], operations: int, after: bool) -> None:
        self.crash_way = way
        self.env.crash_at(self.env.op_count + operations, after=after)


class EncryptedMachine(CrashingMachine):
    """The same with a key, which changes now and then."""

    key = bytes(range(32))

    @rule(rewrite=st.booleans())
    def rekey(self, rewrite: bool) -> None:
        """The new key is the old one: a crash leaves either in force."""
        self.run(lambda: self.db.rekey(self.key, rewrite=rewrite))


IS_CI = os.environ.get("HOLDFAST_HYPOTHESIS", "ci") == "ci"
IS_PURE = os.environ.get("HOLDFAST_PURE") == "1"


def examples(count: int) -> int:
    """Return how many histories are tried: few where every run draws the same ones."""
    return (count // 2 if IS_PURE else count) if IS_CI else settings.default.max_examples


@pytest.mark.filterwarnings("ignore:a snapshot of:ResourceWarning")
def test_every_history_gives_what_the_model_gives() -> None:
    run_state_machine_as_test(
        DatabaseMachine, settings=settings(max_examples=examples(120), stateful_step_count=60)
    )


@pytest.mark.filterwarnings("ignore:a snapshot of:ResourceWarning")
def test_a_crash_leaves_a_prefix_of_the_commits() -> None:
    run_state_machine_as_test(
        CrashingMachine, settings=settings(max_examples=examples(120), stateful_step_count=40)
    )


@pytest.mark.filterwarnings("ignore:a snapshot of:ResourceWarning")
def test_so_it_is_with_a_key() -> None:
    run_state_machine_as_test(
        EncryptedMachine, settings=settings(max_examples=examples(60), stateful_step_count=40)
    )
