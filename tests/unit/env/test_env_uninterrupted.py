"""Steps that must not be left half done: signal handlers raise before or after them."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from holdfast.env import Env, FaultEnv, PosixEnv, SimEnv

ENVS = [PosixEnv, SimEnv, lambda: FaultEnv(PosixEnv())]


class InterruptError(BaseException):
    pass


@pytest.fixture
def handler() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise InterruptError

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("make", ENVS)
def test_a_result_and_an_error_come_through(make: type[Env]) -> None:
    env = make()
    assert 7 == env.uninterrupted(lambda: 7)
    with pytest.raises(ZeroDivisionError):
        env.uninterrupted(lambda: 1 // 0)


def test_a_signal_is_raised_when_the_step_has_ended(handler: None) -> None:
    for _ in range(20):
        done = []

        def step() -> None:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.002)
            done.append("all of it")

        with pytest.raises(InterruptError):
            PosixEnv().uninterrupted(step)
        assert ["all of it"] == done


def test_a_step_that_a_signal_hits_at_any_moment_is_done_wholly_or_not_at_all(
    handler: None,
) -> None:
    env = PosixEnv()
    began: list[int] = []
    ended: list[int] = []
    until = time.monotonic() + 0.5
    stopping = threading.Event()

    def disturb() -> None:
        while not stopping.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.0007)

    def step() -> None:
        began.append(1)
        for _ in range(20):
            time.sleep(0)
        ended.append(1)

    thread = threading.Thread(target=disturb)
    hits = 0
    try:
        thread.start()
        while time.monotonic() < until:
            try:
                env.uninterrupted(step)
            except InterruptError:
                hits += 1
            assert len(began) == len(ended)
    except InterruptError:
        # It hit this test and not the step.
        pass
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        stopping.set()
        thread.join()
    assert len(began) == len(ended)


def test_another_thread_runs_the_step_itself() -> None:
    found: list[int] = []
    env = PosixEnv()
    thread = threading.Thread(target=lambda: found.append(env.uninterrupted(threading.get_ident)))
    thread.start()
    thread.join()
    assert [thread.ident] == found


def test_without_threads_the_step_is_done_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert threading.get_ident() == PosixEnv().uninterrupted(threading.get_ident)


def test_without_memory_for_locks_the_step_is_done_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise RuntimeError("can't allocate lock")

    env = PosixEnv()
    monkeypatch.setattr(threading, "Lock", refuse)
    assert threading.get_ident() == env.uninterrupted(threading.get_ident)
