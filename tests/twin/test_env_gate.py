"""Both twins of `holdfast.env._gate`: a gate lets one thread through each time it is opened, also
when whoever opened it keeps the interpreter lock.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from holdfast.base import PURE
from holdfast.env import _gate_py

if not PURE:
    from holdfast.env import _gate_c

MODULES: tuple[ModuleType, ...] = (_gate_py,) if PURE else (_gate_c, _gate_py)


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__[-1])
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param.PatientGate
    return made


def test_it_is_made_shut_and_shuts_behind_each_one(make: Callable[[], Any]) -> None:
    gate = make()
    for _ in range(3):
        assert gate.acquire(blocking=False) is False
        assert gate.acquire(False) is False
        assert gate.acquire(True, 0.0) is False
        assert gate.acquire(timeout=0.001) is False
        gate.release()
        assert gate.acquire() is True
    gate.release()
    assert gate.acquire(False) is True


def test_an_open_one_cannot_be_opened(make: Callable[[], Any]) -> None:
    gate = make()
    gate.release()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            gate.release()
    assert gate.acquire(timeout=60)
    assert not gate.acquire(blocking=False)


def test_a_wait_ends_in_time_or_when_it_opens(make: Callable[[], Any]) -> None:
    gate = make()
    began = time.monotonic()
    assert not gate.acquire(timeout=0.05)
    assert 0.04 < time.monotonic() - began < 5
    timer = threading.Timer(0.05, gate.release)
    timer.start()
    assert gate.acquire(timeout=60)
    timer.join()


def test_one_goes_through_though_the_other_stays(make: Callable[[], Any]) -> None:
    """Whoever opens the gate never goes to sleep, nor does anybody else."""
    gate, through = make(), threading.Event()

    def wait() -> None:
        assert gate.acquire()
        through.set()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.01)
    gate.release()
    deadline = time.monotonic() + 60
    while not through.is_set():
        assert time.monotonic() < deadline
    thread.join()


def test_threads_let_each_other_through(make: Callable[[], Any]) -> None:
    gates = [make() for _ in range(8)]
    order: list[int] = []

    def pass_on(number: int) -> None:
        for _ in range(200):
            assert gates[number].acquire(timeout=60)
            order.append(number)
            gates[(number + 1) % len(gates)].release()

    threads = [threading.Thread(target=pass_on, args=(number,)) for number in range(len(gates))]
    for thread in threads:
        thread.start()
    gates[0].release()
    for thread in threads:
        thread.join()
    assert order == [*range(len(gates))] * 200


@pytest.mark.parametrize("timeout", [-1, 60])
def test_a_handler_ends_a_wait_with_the_gate_shut(make: Callable[[], Any], timeout: float) -> None:
    gate = make()

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            gate.acquire(timeout=timeout)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not gate.acquire(blocking=False)
    gate.release()
    assert gate.acquire()


def test_a_handler_that_returns_does_not_end_a_wait(make: Callable[[], Any]) -> None:
    gate = make()
    before = signal.signal(signal.SIGALRM, lambda *_: gate.release())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert gate.acquire()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_one_that_is_shut_or_open_may_be_forgotten(make: Callable[[], Any]) -> None:
    for _ in range(100):
        make()
        make().release()


def test_want_of_memory_for_the_lock_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("can't allocate lock")

    monkeypatch.setattr(threading, "Lock", refuse)
    with pytest.raises(MemoryError):
        _gate_py.PatientGate()
