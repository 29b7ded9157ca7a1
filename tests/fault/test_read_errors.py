"""Reads that fail: the caller gets the error, nobody gets a wrong answer, and the database lives.

The data lies in tables whose pages are not in memory, so that every read goes to the disk.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

import holdfast
from holdfast.base import marks_seen
from holdfast.env import CrashPoint, CrashState, FaultEnv, FaultRule
from tests.fault.client import FOLDER, TINY, BoundedEnv, booted, content, machine_switched_off

PAIRS = {b"key %03d" % number: b"value %d " % number * 20 for number in range(80)}
READING = frozenset("read open size list_dir file_size lock_file".split())


class ReadRule(FaultRule):
    """A fault rule that is only about calls which change nothing."""

    __slots__ = ()

    def matches(self, kind: str, site: str, path: str) -> bool:
        return kind in READING and super().matches(kind, site, path)


@pytest.fixture(scope="module")
def closed() -> CrashState:
    """A disk with a database on it that was closed."""
    machine = BoundedEnv(1)
    with holdfast.open(FOLDER, settings=TINY, env=machine) as database:
        database.put_many(PAIRS)
        database.keyspace("other")[b"key"] = b"value"
        database.compact()
    return CrashPoint(machine).state("all")


def from_a_snapshot(db: holdfast.Database) -> dict[bytes, bytes]:
    with db.snapshot() as view:
        return dict(view.items())


CALLS: dict[str, tuple[Callable[[holdfast.Database], object], object]] = {
    "get": (lambda db: db[b"key 050"], PAIRS[b"key 050"]),
    "get of an absent key": (lambda db: db.get(b"key 050x"), None),
    "get_many": (lambda db: db.get_many(list(PAIRS)), list(PAIRS.values())),
    "items": (lambda db: dict(db.items()), PAIRS),
    "items in reverse": (lambda db: list(db.items(reverse=True)), sorted(PAIRS.items())[::-1]),
    "a prefix": (lambda db: len(list(db.keys(prefix=b"key 04"))), 10),
    "len": (lambda db: len(db), 80),
    "a snapshot": (from_a_snapshot, PAIRS),
    "verify": (lambda db: db.verify().ok, True),
    "compact": (lambda db: db.compact(), None),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_kth_read_of_a_call_fails(closed: CrashState, name: str) -> None:
    call, expected = CALLS[name]
    k, struck = 1, 1
    while struck:
        machine = booted(closed)
        env = FaultEnv(machine)
        with machine_switched_off(machine), holdfast.open(FOLDER, env=env) as database:
            rule = ReadRule(nth=k)
            env.add(rule)
            before = env.injected
            try:
                found = call(database)
            except OSError as error:
                assert error.errno == errno.EIO
            else:
                # Only what has other ways to the answer may succeed in spite of the error.
                assert env.injected == before, f"the error at read {k} was hidden"
                assert found == expected
            struck = env.injected
            env.clear()
            assert not database.stats().poisoned
            assert call(database) == expected
            assert dict(database.items()) == PAIRS
            database[b"key 000"] = PAIRS[b"key 000"]
        k += 1
    assert k > 1


def test_an_iterator_that_failed_keeps_failing(closed: CrashState) -> None:
    machine = booted(closed)
    env = FaultEnv(machine)
    with machine_switched_off(machine), holdfast.open(FOLDER, env=env) as database:
        rows = database.items()
        first = [next(rows) for _ in range(3)]
        env.add(FaultRule(kind="read", path="*.table", times=None))
        with pytest.raises(OSError):
            for _ in range(len(PAIRS)):
                next(rows)
        env.clear()
        for _ in range(2):
            with pytest.raises(OSError):
                next(rows)
        assert first == sorted(PAIRS.items())[:3]
        assert dict(database.items()) == PAIRS


@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
def test_the_kth_read_of_an_open_fails(closed: CrashState, times: int | None) -> None:
    k, struck = 1, 1
    while struck:
        machine = booted(closed)
        env = FaultEnv(machine, [ReadRule(nth=k, times=times)])
        with machine_switched_off(machine):
            try:
                database = holdfast.open(FOLDER, create=False, env=env)
            except OSError as error:
                assert error.errno == errno.EIO
            else:
                env.clear()
                assert content(database) == {"default": PAIRS, "other": {b"key": b"value"}}
                database.close()
            assert not machine.unreturned()
            struck = env.injected
            env.clear()
            with holdfast.open(FOLDER, create=False, env=env) as database:
                assert content(database) == {"default": PAIRS, "other": {b"key": b"value"}}
                assert database.verify().ok
        k += 1
    assert k > 5


def test_background_work_that_cannot_read_lets_writes_go_on_for_a_while(closed: CrashState) -> None:
    """A compaction that cannot read its tables leaves them; writes stop only when they must wait
    for it.
    """
    machine = booted(closed)
    env = FaultEnv(machine)
    with machine_switched_off(machine):
        database = holdfast.open(FOLDER, env=env)
        state = dict(PAIRS)
        written = 0
        for name in machine.list_dir(FOLDER):
            if name.endswith(".table"):
                env.add(FaultRule(kind="read", path=name, times=None))
        with pytest.raises(holdfast.DatabasePoisonedError, match="Input/output error"):
            for number in range(400):
                key = b"key %03d" % (number * 7 % 80)
                database[key] = value = b"new %d " % number * 30
                state[key] = value
                written += 1
        assert written > 20
        assert "engine.compaction_input_unreadable" in marks_seen()
        env.clear()
        assert dict(database.items()) == state
        with pytest.raises(holdfast.DatabasePoisonedError):
            database.close()
        with holdfast.open(FOLDER, env=env) as database:
            assert dict(database.items()) == state
            database[b"key 000"] = b"works"
