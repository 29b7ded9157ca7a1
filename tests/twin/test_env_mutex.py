"""Both twins of `holdfast.env._mutex`: a mutex says so when its holder would wait for itself."""

from __future__ import annotations

import _thread
import pickle
import signal
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from holdfast.base import PURE
from holdfast.env import ReentryError, _mutex_py

if not PURE:
    from holdfast.env import _mutex_c

MODULES: tuple[ModuleType, ...] = (_mutex_py,) if PURE else (_mutex_c, _mutex_py)


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__[-1])
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param.OwnedMutex
    return made


def test_it_is_taken_once_and_released_by_anyone(make: Callable[[], Any]) -> None:
    mutex = make()
    assert mutex.acquire()
    assert not mutex.acquire(blocking=False)
    assert not mutex.acquire(False)
    assert not mutex.acquire(timeout=0.001)
    assert not mutex.acquire(True, 0.0)
    thread = threading.Thread(target=mutex.release)
    thread.start()
    thread.join()
    with mutex as taken:
        assert taken is True
        assert not mutex.acquire(blocking=False)
    with pytest.raises(RuntimeError):
        mutex.release()
    assert mutex.acquire(timeout=0)


def test_its_holder_must_not_wait_for_it(make: Callable[[], Any]) -> None:
    mutex = make()
    with mutex:
        for again in (mutex.acquire, mutex.__enter__):
            with pytest.raises(ReentryError, match="wait for itself: a mutex"):
                again()
        assert not mutex.acquire(blocking=False), "the error gave it back"
    assert mutex.acquire(blocking=False)


def test_who_was_said_to_hold_it_must_not_wait_for_it(make: Callable[[], Any]) -> None:
    mutex = make()
    thread = threading.Thread(target=mutex.acquire)
    thread.start()
    thread.join()
    mutex.hand_to(_thread.get_ident())
    with pytest.raises(ReentryError):
        mutex.acquire()
    mutex.release()
    with mutex:
        pass


def test_threads_exclude_each_other(make: Callable[[], Any]) -> None:
    mutex, total = make(), [0]

    def add() -> None:
        for _ in range(300):
            with mutex:
                before = total[0]
                time.sleep(0)
                total[0] = before + 1

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [1800]


def test_a_wait_ends_in_time_or_when_it_is_free(make: Callable[[], Any]) -> None:
    mutex = make()
    mutex.acquire()
    began = time.monotonic()
    assert not mutex.acquire(timeout=0.05)
    assert 0.04 < time.monotonic() - began < 5
    timer = threading.Timer(0.05, mutex.release)
    timer.start()
    assert mutex.acquire(timeout=60)
    timer.join()


@pytest.mark.parametrize("timeout", [-1, 60])
def test_a_handler_ends_a_wait_without_the_mutex(make: Callable[[], Any], timeout: float) -> None:
    mutex = make()
    thread = threading.Thread(target=mutex.acquire)
    thread.start()
    thread.join()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            mutex.acquire(timeout=timeout)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    mutex.release()
    with mutex:
        pass


def test_a_handler_that_returns_does_not_end_a_wait(make: Callable[[], Any]) -> None:
    mutex = make()
    thread = threading.Thread(target=mutex.acquire)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGALRM, lambda *_: mutex.release())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert mutex.acquire()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_one_that_is_held_may_be_forgotten(make: Callable[[], Any]) -> None:
    for _ in range(100):
        make().acquire()


def test_the_error_can_be_sent() -> None:
    error = pickle.loads(pickle.dumps(ReentryError("a thing")))
    assert "a thing" == error.what
    assert "a thing of the database is taken" in str(error)


def test_want_of_memory_for_the_lock_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("can't allocate lock")

    monkeypatch.setattr(threading, "Lock", refuse)
    with pytest.raises(MemoryError):
        _mutex_py.OwnedMutex()
