"""Histories as plain data: drawn once, run on a database under any settings, or on the model.

A step is a tuple of its name and arguments. `run` returns what every read of the history answered,
so two runs of one history can be compared. As a command the module runs histories with the twins
that its environment selects; see `main`.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

from hypothesis import strategies as st

from holdfast.base import DatabaseSettings
from holdfast.engine import Database, open_database
from holdfast.env import Env, PosixEnv
from holdfast.testing.model import DEFAULT, Model
from tests.model.strategies import BOUNDS, DURABILITIES, KEYS, LIMITS, PREFIXES, SIZES, tiny, value

Step = tuple[Any, ...]

VARIANTS: dict[str, DatabaseSettings] = {
    "tiny": tiny(),
    "tiny pages": tiny(page_bytes=256, memtable_bytes=16 << 10, table_bytes=64 << 10),
    "every entry a restart": tiny(restart_interval=1),
    "one restart": tiny(restart_interval=1024, page_bytes=4096),
    "no filter": tiny(filter_bits_per_key=0),
    "zstd": tiny(compression="zstd", compression_last="zstd"),
    "no compression": tiny(compression="none", compression_last="none"),
    "huge memtable": tiny(memtable_bytes=32 << 20, memory_bytes=256 << 20, wal_bytes_max=64 << 20),
    "tiny tables": tiny(memtable_bytes=32 << 10, table_bytes=4096, level1_bytes=16 << 10),
    "one table in level 0": tiny(level0_tables=1),
    "aligned records": tiny(wal_alignment_bytes=512, wal_segment_bytes=4096),
    "size-tiered": tiny(compaction="size-tiered"),
    "time-window": tiny(compaction="time-window", window_seconds=3600),
    "time-window of one second": tiny(
        compaction="time-window", window_seconds=1, key_time_unit="ns", level0_tables=3
    ),
    "fifo without a limit": tiny(compaction="fifo"),
    "defaults": DatabaseSettings(),
}

NAMES = st.sampled_from([DEFAULT, DEFAULT, "other"])
SLOTS = st.integers(0, 2)
WHAT = st.sampled_from(["items", "keys", "values"])


def bounds(**fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "start": BOUNDS,
            "stop": BOUNDS,
            "prefix": PREFIXES,
            "reverse": st.booleans(),
            "limit": LIMITS,
            **fixed,
        }
    )


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("put"), NAMES, KEYS, SIZES, DURABILITIES),
    st.tuples(st.just("delete"), NAMES, KEYS, DURABILITIES),
    st.tuples(st.just("merge"), NAMES, KEYS, SIZES, DURABILITIES),
    st.tuples(st.just("count"), NAMES, st.sampled_from([b"#1", b"#2"]), st.integers(1, 40)),
    st.tuples(st.just("put_many"), NAMES, st.lists(KEYS, max_size=9), SIZES, DURABILITIES),
    st.tuples(st.just("fill"), NAMES, st.integers(0, 99), st.integers(5, 60), SIZES),
    st.tuples(st.just("delete_range"), NAMES, BOUNDS, BOUNDS, DURABILITIES),
    st.tuples(st.just("scan"), NAMES, WHAT, bounds()),
    st.tuples(st.just("get_many"), NAMES, st.lists(KEYS, max_size=6)),
    st.tuples(st.just("len"), NAMES),
    st.tuples(st.just("open_cursor"), SLOTS, NAMES, WHAT, bounds()),
    st.tuples(st.just("step_cursor"), SLOTS, st.integers(0, 9)),
    st.tuples(st.just("open_snapshot"), SLOTS),
    st.tuples(st.just("read_snapshot"), SLOTS, st.lists(KEYS, max_size=4), bounds()),
    st.tuples(st.just("close_snapshot"), SLOTS),
    st.tuples(st.just("flush")),
    st.tuples(st.just("compact"), NAMES, BOUNDS, BOUNDS),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("drop")),
)
HISTORIES = st.lists(STEPS, min_size=10, max_size=60)


class Runner:
    """Runs steps on a database or a model and keeps what reads answer."""

    def __init__(self, subject: Database | Model, reopen: Callable[[], Database | Model]) -> None:
        self.subject: Any = subject
        self.answers: list[object] = []
        self._reopen = reopen
        self._cursors: dict[int, Any] = {}
        self._snapshots: dict[int, Any] = {}
        self._number = 0

    def run(self, steps: list[Step]) -> None:
        for name, *arguments in steps:
            self._number += 1
            getattr(self, name)(*arguments)

    def put(self, name: str, key: bytes, size: int, durability: str | None) -> None:
        content = value(self._number, size)
        self.subject.keyspace(name).put(key, content, durability=durability)

    def merge(self, name: str, key: bytes, size: int, durability: str | None) -> None:
        content = value(self._number, size)
        self.subject.keyspace(name).merge(key, "append", content, durability=durability)

    def count(self, name: str, key: bytes, times: int) -> None:
        for number in range(times):
            self.subject.keyspace(name).merge(key, "union", [b"%d" % number], durability="none")

    def delete(self, name: str, key: bytes, durability: str | None) -> None:
        self.subject.keyspace(name).delete(key, durability=durability)

    def put_many(self, name: str, keys: list[bytes], size: int, durability: str | None) -> None:
        content = value(self._number, size)
        pairs = [(key, content + b"%d" % index) for index, key in enumerate(keys)]
        self.subject.keyspace(name).put_many(pairs, durability=durability)

    def fill(self, name: str, first: int, count: int, size: int) -> None:
        content = value(self._number, size)
        pairs = {b"k%03d" % number: content for number in range(first, first + count)}
        self.subject.keyspace(name).put_many(pairs, durability="none")

    def delete_range(
        self, name: str, start: bytes | None, stop: bytes | None, durability: str | None
    ) -> None:
        self.subject.keyspace(name).delete_range(start, stop, durability=durability)

    def scan(self, name: str, what: str, limits: dict[str, Any]) -> None:
        self.answers.append(list(getattr(self.subject.keyspace(name), what)(**limits)))

    def get_many(self, name: str, keys: list[bytes]) -> None:
        keyspace = self.subject.keyspace(name)
        self.answers.append(keyspace.get_many(keys))
        self.answers.append([keyspace.get(key, 0) for key in keys])
        self.answers.append([key in keyspace for key in keys])

    def len(self, name: str) -> None:
        self.answers.append(len(self.subject.keyspace(name)))

    def open_cursor(self, slot: int, name: str, what: str, limits: dict[str, Any]) -> None:
        self._cursors[slot] = iter(getattr(self.subject.keyspace(name), what)(**limits))

    def step_cursor(self, slot: int, count: int) -> None:
        if slot in self._cursors:
            self.answers.append(list(islice(self._cursors[slot], count)))

    def open_snapshot(self, slot: int) -> None:
        self.close_snapshot(slot)
        self._snapshots[slot] = self.subject.snapshot()

    def read_snapshot(self, slot: int, keys: list[bytes], limits: dict[str, Any]) -> None:
        snapshot = self._snapshots.get(slot)
        if snapshot is not None:
            self.answers.append(list(snapshot.items(**limits)))
            self.answers.append(snapshot.get_many(keys))

    def close_snapshot(self, slot: int) -> None:
        snapshot = self._snapshots.pop(slot, None)
        if isinstance(self.subject, Database) and snapshot is not None:
            snapshot.close()

    def flush(self) -> None:
        if isinstance(self.subject, Database):
            self.subject.flush()

    def compact(self, name: str, start: bytes | None, stop: bytes | None) -> None:
        keyspace = self.subject.keyspace(name)
        if isinstance(self.subject, Database):
            keyspace.compact(start, stop)

    def reopen(self) -> None:
        self.forget()
        self.subject = self._reopen()
        self.answers.append(dump(self.subject))

    def drop(self) -> None:
        # A snapshot does not keep a keyspace from being dropped; the default one is not.
        if "other" in self.subject.keyspaces():
            self.subject.drop_keyspace("other")

    def forget(self) -> None:
        self._cursors.clear()
        for slot in list(self._snapshots):
            self.close_snapshot(slot)


def dump(subject: Any) -> dict[str, list[tuple[bytes, bytes]]]:
    """Return everything, in order, and read backwards and by key as well."""
    found = {}
    for name in subject.keyspaces():
        keyspace = subject.keyspace(name)
        rows = list(keyspace.items())
        assert rows[::-1] == list(keyspace.items(reverse=True))
        assert [content for _, content in rows] == keyspace.get_many([key for key, _ in rows])
        found[name] = rows
    return found


def run_on_model(steps: list[Step]) -> tuple[list[object], object]:
    """Return what the model answers, and what it holds in the end."""
    model = Model()
    runner = Runner(model, lambda: model)
    runner.run(steps)
    return runner.answers, dump(model)


def run_on_database(
    steps: list[Step], settings: DatabaseSettings, env: Env, folder: str, copy: str | None = None
) -> tuple[list[object], object]:
    """Return what a new database answers, and what it holds in the end.

    With `copy`, the folder is copied there while the database is open, as a killed process would
    leave it.
    """
    runner = Runner(open_database(folder, settings=settings, env=env), lambda: reopened())

    def reopened() -> Database:
        runner.subject.close()
        return open_database(folder, env=env)

    try:
        runner.run(steps)
        found = dump(runner.subject)
        if copy is not None:
            runner.subject.sync()
            # The folder is copied file by file, which is one moment only while nothing changes it.
            runner.subject._engine.upkeep.wait_idle()
            shutil.copytree(folder, copy)
        assert [] == runner.subject.verify().errors
    finally:
        runner.forget()
        runner.subject.close()
    return runner.answers, found


def open_and_dump(folder: str) -> object:
    """Return what a database holds that another process left."""
    with open_database(folder, create=False) as database:
        found = dump(database)
        assert [] == database.verify().errors
    return found


def run_all(histories: list[list[Step]], where: str) -> list[tuple[list[object], object]]:
    """Run each history in a folder of its own below `where`, under one variant after the other."""
    names = list(VARIANTS)
    results = []
    for number, steps in enumerate(histories):
        variant = VARIANTS[names[number % len(names)]]
        folder = f"{where}/{number}"
        results.append(run_on_database(steps, variant, PosixEnv(), folder, copy=f"{folder}.killed"))
    return results


def main(given: str, mine: str, others: str) -> None:
    """Run the histories in file `given` below folder `mine`, dump the databases below `others`, and
    print both results.
    """
    with open(given, encoding="ascii") as file:
        histories = ast.literal_eval(file.read())
    results = run_all(histories, mine)
    dumps = [
        (open_and_dump(f"{others}/{number}"), open_and_dump(f"{others}/{number}.killed"))
        for number in range(len(histories))
    ]
    print(repr((results, dumps)))


if __name__ == "__main__":
    main(*sys.argv[1:])
