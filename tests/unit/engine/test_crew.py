"""Goal: every job that was submitted runs, also when its thread lacks memory while it waits, and
after a job that ended its thread.

Method: crews of a simulated machine under several schedules, whose waits fail.
"""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.base import marks_seen
from holdfast.engine.crew import LINGER_SECONDS, Crew
from holdfast.env import SimEnv
from tests.fault.test_memory_regressions import once

SEEDS = range(6)


def make(seed: int, size_max: int) -> tuple[SimEnv, Crew, list[int]]:
    machine = SimEnv(seed)
    return machine, Crew(machine, "crew", size_max), []


def wait_for(machine: SimEnv, ran: list[int], count: int) -> None:
    deadline = machine.monotonic() + 10
    while len(ran) < count:
        assert machine.monotonic() < deadline, "a job never runs"
        machine.sleep(1e-3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size_max", [1, 3])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_thread_that_has_no_memory_to_wait_takes_the_next_job(
    monkeypatch: pytest.MonkeyPatch, seed: int, size_max: int, after: bool
) -> None:
    machine, crew, ran = make(seed, size_max)
    struck = once(monkeypatch, type(machine.condition(machine.mutex())), "wait", after=after)
    for number in range(8):
        crew.submit(lambda: ran.append(1))
        wait_for(machine, ran, number + 1)
        machine.sleep(1e-3)
    assert struck
    assert "engine.crew_without_memory" in marks_seen()
    assert 1 == len(machine.unreturned())
    machine.sleep(3 * LINGER_SECONDS)
    assert [] == machine.unreturned()
    crew.stop()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thread_that_has_no_memory_to_rest_either_goes_on(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    machine, crew, ran = make(seed, 1)
    once(monkeypatch, type(machine.condition(machine.mutex())), "wait")
    sleep = machine.sleep
    struck = once(monkeypatch, machine, "sleep")
    crew.submit(lambda: ran.append(1))
    while not struck:
        sleep(1e-3)
    crew.submit(lambda: ran.append(1))
    wait_for(machine, ran, 2)
    assert "engine.no_memory_to_rest" in marks_seen()
    crew.stop()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thread_that_a_job_ended_is_not_counted_on(seed: int) -> None:
    machine, crew, ran = make(seed, 1)

    def fail() -> None:
        raise LookupError

    crew.submit(fail)
    machine.sleep(2 * LINGER_SECONDS)
    assert [] == machine.unreturned()
    crew.submit(lambda: ran.append(1))
    wait_for(machine, ran, 1)
    crew.stop()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thread_that_cannot_be_started_is_not_counted_on(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    machine, crew, ran = make(seed, 1)
    with monkeypatch.context() as patched:
        once(patched, machine, "spawn")
        with pytest.raises(MemoryError):
            crew.submit(lambda: ran.append(1))
    crew.submit(lambda: ran.append(2))
    wait_for(machine, ran, 1)
    crew.stop()
    assert [2] == ran
    assert [] == machine.unreturned()


@pytest.mark.parametrize("seed", SEEDS)
def test_threads_are_as_many_as_there_are_jobs_and_no_more_than_allowed(seed: int) -> None:
    machine, crew, ran = make(seed, 3)
    most: list[Any] = []

    def job() -> None:
        most.append(len(machine.unreturned()))
        machine.sleep(1e-2)
        ran.append(1)

    for _ in range(2):
        for _ in range(7):
            crew.submit(job)
        wait_for(machine, ran, 7)
        ran.clear()
        machine.sleep(3 * LINGER_SECONDS)
        assert [] == machine.unreturned()
    assert 3 == max(most)
    crew.stop()
