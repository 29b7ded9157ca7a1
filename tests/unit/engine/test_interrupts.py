"""Goal: a thread that is interrupted in the middle of a commit harms nobody else.

Method: a signal handler may raise in the main thread at every entry of a function and behind every
call. A profile function raises there in its place, at each such point of a commit in turn, while
other tasks of a simulated machine commit; a leadership that is lost shows as a deadlock. A second
test sends real signals.
"""

from __future__ import annotations

import gc
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest

from holdfast.base import PURE, DatabasePoisonedError, marks_seen
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, SimEnv
from tests.model.strategies import tiny

ROOMS = ("engine", "wal", "recovery")
SETTINGS = tiny(wal_segment_bytes=4 << 10, memtable_bytes=1 << 20)
"""Segments so small that some commits go to the next one."""
TASKS, COMMITS = 3, 6
pytestmark = pytest.mark.skipif(PURE, reason="a kernel's step is one step only when it is compiled")


class Interruptor:
    """Raises KeyboardInterrupt at event number `at` of the code of the rooms, in this thread."""

    def __init__(self, at: int, rooms: tuple[str, ...] = ROOMS) -> None:
        self._left = at
        self._folders = tuple(f"{os.sep}holdfast{os.sep}{room}{os.sep}" for room in rooms)
        self.struck = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if (
            code.co_flags & inspect.CO_GENERATOR
            or code.co_name == "__del__"
            or not any(folder in code.co_filename for folder in self._folders)
        ):
            # A generator may be closing, and there as in a finalizer an exception goes nowhere.
            return
        self.strike()

    def strike(self) -> None:
        """Pass an event."""
        if self._left == 0 and not self.struck:
            self.struck = True
            sys.setprofile(None)
            raise KeyboardInterrupt
        self._left -= 1

    def run(self, call: Callable[[], object]) -> None:
        sys.setprofile(self)
        try:
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)


class Clients:
    """Tasks that commit, each to keys of its own, and what was acknowledged to them."""

    def __init__(self, env: SimEnv, database: Database) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self.poisoned = False
        self._database = database
        self._tasks = [
            env.spawn(f"client {number}", lambda number=number: self._run(number))  # type: ignore[misc]
            for number in range(TASKS)
        ]

    def _run(self, number: int) -> None:
        for count in range(1, COMMITS + 1):
            key = b"client %d" % number
            try:
                self._database.put(key, b"%d" % count, durability=[None, "none"][count % 2])
            except DatabasePoisonedError:
                self.poisoned = True
                return
            self.acknowledged[key] = count

    def join(self) -> None:
        for task in self._tasks:
            task.join()


def interrupted(seed: int, at: int, durability: str | None) -> tuple[bool, bool]:
    """Interrupt one of the main task's commits at a point; return (was there one, poisoned)."""
    env = SimEnv(seed)
    database = open_database("/db", env=env, settings=SETTINGS)
    filler = b"x" * 300
    database.put(b"main", b"0" + filler)
    clients = Clients(env, database)
    interruptor = Interruptor(at)
    done = 0

    def commit_twice() -> None:
        nonlocal done
        for number in (1, 2):
            value = b"%d" % number + filler
            if durability == "none":
                # A put of this kind needs no group.
                database.put_many([(b"main", value)], durability=durability)
            else:
                database.put(b"main", value, durability=durability)
            done = number

    interruptor.run(commit_twice)
    clients.join()
    poisoned = database.stats().poisoned
    assert poisoned or not clients.poisoned
    number = int(database[b"main"][:1])
    assert number in (done, done + 1)
    for key, count in clients.acknowledged.items():
        assert b"%d" % count == database[key], "what was acknowledged is visible"
    if not poisoned:
        database[b"main"] = b"3" + filler
        number = 3
    durable = CrashPoint(env).state("none").build()
    with suppress(DatabasePoisonedError):
        database.close()
    with open_database("/db", env=durable) as database:
        assert poisoned or number == int(database[b"main"][:1])
        for key, count in clients.acknowledged.items():
            # A poisoned database may lose what was acknowledged with durability "none".
            assert int(database.get(key, b"0")) >= (count - count % 2 if poisoned else count)
    return interruptor.struck, poisoned


@pytest.mark.parametrize("durability", [None, "none"])
def test_an_interrupted_commit_leaves_the_others_alone(durability: str | None) -> None:
    points = poisoned = 0
    for seed in range(4):
        struck = True
        at = 0
        while struck:
            struck, is_poisoned = interrupted(seed, at, durability)
            poisoned += is_poisoned
            points += struck
            at += 1
    assert points > 100
    # Only while the log changes from one state to the next can nobody say what an interrupted call
    # did. That takes microseconds.
    print(f"{poisoned} of {points} points poison")
    assert poisoned <= points // 5
    assert "engine.commit_interrupted" in marks_seen()


class AlarmError(BaseException):
    """What the signal handler raises; it is no Exception, as KeyboardInterrupt."""


def test_signals_do_not_stop_the_other_threads(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "db"), settings=SETTINGS)
    end = time.monotonic() + 2.0
    counts = [0, 0, 0]
    poisoned = threading.Event()

    def commit(thread: int) -> None:
        while time.monotonic() < end:
            try:
                database.put(b"%d" % thread, b"%d" % (counts[thread] + 1))
            except DatabasePoisonedError:
                poisoned.set()
                return
            counts[thread] += 1

    armed = False

    def strike(number: int, frame: object) -> None:
        if armed:
            raise AlarmError

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    before = signal.signal(signal.SIGALRM, strike)
    strikes = 0
    # Hypothesis has a callback in the garbage collector; what a handler raises there is lost.
    gc.disable()
    try:
        while time.monotonic() < end and not poisoned.is_set():
            with suppress(AlarmError, DatabasePoisonedError):
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.00007 * (strikes % 40))
                strikes += 1
                try:
                    while time.monotonic() < end and not poisoned.is_set():
                        database[b"main"] = b"%d" % strikes
                finally:
                    # None may be raised later, where nobody expects it; one that another thread was
                    # given may come when the timer is off.
                    armed = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a commit waits for a leader that is gone"
    with suppress(DatabasePoisonedError):
        database.close()
    with open_database(str(tmp_path / "db")) as database:
        for number, count in enumerate(counts):
            assert int(database.get(b"%d" % number, b"0")) >= count
