"""A commit that nobody else is beside takes a path of its own: it does what a group of one does.

The same program runs with that path and without it, while calls of the disk fail or are interrupted
in every way. Both must say the same, do the same to the disk, and leave the same database behind.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.base import (
    PURE,
    DatabaseClosedError,
    DatabasePoisonedError,
    DatabaseSettings,
    KeyspaceSettings,
)
from holdfast.engine import Database, open_database
from holdfast.engine._core import BUSY
from holdfast.env import FaultEnv, FaultRule, File, PosixEnv, SimEnv, take_effect
from holdfast.lsm import ReadView
from holdfast.memtable import Memtable

pytestmark = pytest.mark.skipif(PURE, reason="the plain twin has one path for all commits")

SETTINGS = DatabaseSettings(
    wal_segment_bytes=1 << 20, keyspace=KeyspaceSettings(memtable_bytes=1 << 20)
)
ROUNDS = 3


def counted(database: Database) -> list[object]:
    """What comes to the queue of commits from now on."""
    path: Any = database._engine.write_path
    real, seen = path._run, list[object]()

    def run(waiter: object) -> None:
        seen.append(waiter)
        real(waiter)

    path._run = run
    return seen


class Run:
    """What one run of the program said and did."""

    def __init__(self, alone: bool, *rules: FaultRule) -> None:
        self.sim = SimEnv(1)
        env = FaultEnv(self.sim)
        database = open_database("/db", env=env, settings=SETTINGS)
        if not alone:
            database._engine.state.path = None
        self.said: list[str] = []
        # The first commit of a life looks for room, and goes with everybody.
        database[b"first"] = b"0"
        for rule in rules:
            env.add(rule)
        queue = counted(database)
        self.program(database)
        self.queued = len(queue)
        self.say(database.close)
        self.ops = list(self.sim.op_log)
        self.injected = env.injected
        env.clear()
        with open_database("/db", env=env) as again:
            self.left = list(again.items())

    def program(self, database: Database) -> None:
        for number in range(ROUNDS):
            key = b"key %d" % number
            for call in (
                lambda key=key: database.__setitem__(key, b"v" * 40),
                lambda key=key: database.put(key, b"", durability="commit"),
                lambda key=key: database.put(b"loose", key, durability="none"),
                lambda: database.delete(b"key 0"),
            ):
                self.say(call)
                state = database._engine.state
                self.said.append(repr((state.next_seq, state.visible_seq, state.write_count)))
                self.said.append(repr((state.user_bytes, state.buffer.op_count, state.flags)))
                self.said.append(repr(list(database.items())))

    def say(self, call: Callable[[], object]) -> None:
        try:
            call()
            self.said.append("done")
        except BaseException as error:
            self.said.append(f"{error!r} from {error.__cause__!r}")


def interrupts(call: Callable[[], object], file: File | None) -> None:
    raise KeyboardInterrupt


def interrupts_after(call: Callable[[], object], file: File | None) -> None:
    call()
    raise KeyboardInterrupt


def interrupts_and_hides(call: Callable[[], object], file: File | None) -> None:
    try:
        raise OSError(errno.EIO, "hidden")
    finally:
        raise KeyboardInterrupt


WAYS: dict[str, dict[str, Any]] = {
    "error": {"error": errno.EIO},
    "error, done": {"error": errno.EIO, "effect": take_effect},
    "full disk": {"error": errno.ENOSPC},
    "cut short": {"error": errno.EDQUOT, "partial": 50},
    "full disk again": {"error": errno.ENOSPC, "times": 3},
    "interrupted": {"effect": interrupts},
    "interrupted, done": {"effect": interrupts_after},
    "interrupted, hiding": {"effect": interrupts_and_hides},
}


def agreed(*rules: FaultRule) -> Run:
    """Run both ways; return what the path of its own did."""
    alone, grouped = Run(True, *rules), Run(False, *rules)
    assert alone.said == grouped.said
    assert alone.ops == grouped.ops
    assert alone.left == grouped.left
    return alone


def test_it_does_the_same_and_nobody_queues() -> None:
    assert Run(True).queued == 0
    assert Run(False).queued == 3 * ROUNDS
    assert dict(agreed().left)[b"loose"] == b"key 2"


@pytest.mark.parametrize("nth", [1, 2, 4])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["write", "sync"])
def test_it_fails_in_the_same_way(kind: str, way: str, nth: int) -> None:
    run = agreed(FaultRule(kind=kind, site="wal.*", nth=nth, **WAYS[way]))
    assert run.injected > 0
    assert any("from" in line for line in run.said)


def with_a_full_memtable() -> Database:
    """Its view shows a memtable that takes nothing, which stands in for one without memory."""
    database = open_database("/db", env=SimEnv(1), settings=SETTINGS)
    database[b"first"] = b"0"
    full = Memtable()
    full.freeze()
    database.view = ReadView(full, (), ())
    return database


def test_what_the_log_has_is_applied_again() -> None:
    database = with_a_full_memtable()
    queue = counted(database)
    database[b"a"] = b"1"
    assert queue == []
    database.view = database._engine.trees[database.id].view
    assert list(database.items()) == [(b"a", b"1"), (b"first", b"0")]
    database.close()


def test_what_cannot_be_applied_poisons(monkeypatch: pytest.MonkeyPatch) -> None:
    database = with_a_full_memtable()

    def fail(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr("holdfast.engine.write_path.apply_buffer", fail)
    with pytest.raises(MemoryError):
        database[b"a"] = b"1"
    monkeypatch.undo()
    with pytest.raises(DatabasePoisonedError):
        database[b"b"] = b"2"
    assert not database._engine.state.flags & BUSY
    with pytest.raises(DatabasePoisonedError):
        database.close()


def test_a_dropped_keyspace_is_refused() -> None:
    database = open_database("/db", env=SimEnv(1), settings=SETTINGS)
    one = database.keyspace("one")
    one[b"a"] = b"1"
    database.drop_keyspace("one")
    with pytest.raises(DatabaseClosedError):
        one[b"a"] = b"2"


def test_threads_that_come_meanwhile_are_led_on(tmp_path: Any) -> None:
    """The first of four waits for the disk; the others queue behind it and are one group."""
    database = open_database(str(tmp_path / "db"), env=PosixEnv(), settings=SETTINGS)
    database[b"first"] = b"0"
    path: Any = database._engine.write_path
    log: Any = path._log
    real = log.append
    syncing, go_on = threading.Event(), threading.Event()
    groups = list[int]()

    def append(buffer: Any, seq_first: int, *, durable: bool = False) -> int:
        groups.append(buffer.op_count)
        if len(groups) == 1:
            syncing.set()
            assert go_on.wait(60)
        return int(real(buffer, seq_first, durable=durable))

    log.append = append
    threads = [
        threading.Thread(target=database.__setitem__, args=(b"%d" % number, b"v"))
        for number in range(4)
    ]
    threads[0].start()
    assert syncing.wait(60)
    assert database._engine.state.flags & BUSY
    assert path._leader is path.alone
    for thread in threads[1:]:
        thread.start()
    while len(path._queue) < 4:
        threads[0].join(0.01)
    go_on.set()
    for thread in threads:
        thread.join()
    assert groups == [1, 3]
    assert not database._engine.state.flags & BUSY
    assert (path._leader, path._queue, path._group) == (None, [], [])
    del log.append
    database[b"last"] = b"v"
    assert list(database.keys()) == [b"0", b"1", b"2", b"3", b"first", b"last"]
    database.close()
