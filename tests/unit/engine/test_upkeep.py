"""Goal: background jobs run once for each key that waits, one at a time in each lane, and end with
`stop`.

Method: jobs that note when they begin and end, on a simulated machine under several schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import pytest

from holdfast.engine.upkeep import LANES, REST_SECONDS, Upkeep
from holdfast.env import SimEnv

SEEDS = range(6)


class Jobs:
    """An upkeep and what its jobs did."""

    def __init__(self, seed: int = 0) -> None:
        self.env = SimEnv(seed)
        self.errors: list[BaseException] = []
        self.upkeep = Upkeep(self.env, lambda lane, error: self.errors.append(error))
        self.log: list[tuple[str, Hashable, str]] = []
        self.running: set[str] = set()

    def submit(
        self, lane: str, key: Hashable, work: Callable[[], None] | None = None, seconds: float = 0.1
    ) -> None:
        def job() -> None:
            assert lane not in self.running, "a lane runs one job at a time"
            self.running.add(lane)
            self.log.append((lane, key, "begin"))
            self.env.sleep(seconds)
            self.running.discard(lane)
            self.log.append((lane, key, "end"))
            if work is not None:
                work()

        self.upkeep.submit(lane, key, job)

    def ended(self) -> list[Hashable]:
        return [key for _, key, what in self.log if what == "end"]


@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_of_one_lane_run_in_the_order_they_came(seed: int) -> None:
    jobs = Jobs(seed)
    for key in range(5):
        jobs.submit("flush", key)
    jobs.upkeep.wait_idle()
    assert [0, 1, 2, 3, 4] == jobs.ended()


@pytest.mark.parametrize("seed", SEEDS)
def test_lanes_do_not_wait_for_each_other(seed: int) -> None:
    jobs = Jobs(seed)
    jobs.submit("compact", "long", seconds=10.0)
    jobs.submit("interval", "longer", seconds=20.0)
    jobs.submit("log", "long too", seconds=15.0)
    for key in range(3):
        jobs.submit("flush", key)
    jobs.upkeep.wait_idle()
    assert [0, 1, 2, "long", "long too", "longer"] == jobs.ended()


def test_a_key_that_waits_is_not_queued_twice() -> None:
    jobs = Jobs()
    jobs.submit("flush", "first")
    for _ in range(5):
        jobs.submit("flush", "second")
    jobs.upkeep.wait_idle()
    assert ["first", "second"] == jobs.ended()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_key_that_runs_is_run_once_more(seed: int) -> None:
    jobs = Jobs(seed)
    jobs.submit("flush", "again", seconds=1.0)
    while not jobs.log:
        jobs.env.sleep(0.01)
    for _ in range(3):
        jobs.submit("flush", "again", seconds=1.0)
    jobs.submit("flush", "other")
    jobs.upkeep.wait_idle()
    assert ["again", "again", "other"] == sorted(map(str, jobs.ended()))


def test_a_job_may_submit_itself_again() -> None:
    jobs = Jobs()
    left = 3

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            jobs.submit("compact", 0, again)

    jobs.submit("compact", 0, again)
    jobs.upkeep.wait_idle()
    assert 0 == left


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_job_that_fails_is_reported_and_the_rest_goes_on(error: type[BaseException]) -> None:
    jobs = Jobs()

    def fail() -> None:
        raise error

    jobs.submit("flush", "bad", fail)
    jobs.submit("flush", "good")
    jobs.upkeep.wait_idle()
    assert [error] == [type(found) for found in jobs.errors]
    assert ["bad", "good"] == jobs.ended()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stop_waits_for_what_runs_and_drops_what_waits(seed: int) -> None:
    jobs = Jobs(seed)
    for key in range(4):
        jobs.submit("flush", key, seconds=1.0)
    while not jobs.log:
        jobs.env.sleep(0.01)
    jobs.upkeep.stop()
    assert jobs.upkeep.is_stopped
    assert [0] == jobs.ended()
    assert [] == jobs.env.unreturned()
    jobs.submit("flush", "late")
    jobs.upkeep.stop()
    jobs.upkeep.wait_idle()
    assert [0] == jobs.ended()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stop_ends_a_pause(seed: int) -> None:
    jobs = Jobs(seed)
    went_on: list[bool] = []
    jobs.submit("interval", 0, lambda: went_on.append(jobs.upkeep.pause(1000.0)))
    while not jobs.ended():
        jobs.env.sleep(0.01)
    jobs.upkeep.stop()
    assert [False] == went_on
    assert jobs.env.uptime < 100


def test_a_pause_lasts_as_long_as_it_was_asked_to() -> None:
    jobs = Jobs()
    times: list[float] = []

    def pause() -> None:
        began = jobs.env.uptime
        assert jobs.upkeep.pause(5.0)
        times.append(jobs.env.uptime - began)

    jobs.submit("interval", 0, pause)
    jobs.upkeep.wait_idle()
    assert 5.0 <= times[0] < 5.1


def test_threads_exist_only_while_there_is_work() -> None:
    jobs = Jobs()
    assert [] == jobs.env.unreturned()
    for round_ in range(3):
        for lane in LANES:
            jobs.submit(lane, round_)
        assert len(LANES) == len(jobs.env.unreturned())
        jobs.upkeep.wait_idle()
        jobs.env.sleep(2 * REST_SECONDS)
        assert [] == jobs.env.unreturned()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thread_that_rests_takes_the_next_job(seed: int) -> None:
    jobs = Jobs(seed)
    for key in range(5):
        jobs.submit("flush", key)
        jobs.upkeep.wait_idle()
        jobs.env.sleep(REST_SECONDS / 2)
        assert len(jobs.env.unreturned()) == 1
    assert jobs.upkeep._spawned == 1
    assert [0, 1, 2, 3, 4] == jobs.ended()
    began = jobs.env.uptime
    jobs.upkeep.stop()
    assert [] == jobs.env.unreturned()
    assert jobs.env.uptime - began < REST_SECONDS / 2, "a stop does not wait for its rest"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thread_that_rests_is_counted_on_for_one_job_only(seed: int) -> None:
    jobs = Jobs(seed)
    jobs.submit("flush", 0)
    jobs.upkeep.wait_idle()
    jobs.submit("compact", "long", seconds=10.0)
    jobs.submit("flush", 1)
    jobs.submit("flush", 2)
    jobs.submit("log", "short")
    jobs.env.sleep(1.0)
    assert [0, 1, 2] == [key for key in jobs.ended() if isinstance(key, int)]
    assert "short" in jobs.ended()
    assert "long" not in jobs.ended()
    jobs.upkeep.wait_idle()
    assert "long" in jobs.ended()


def test_a_job_whose_submit_was_interrupted_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = Jobs()
    jobs.submit("flush", 0)
    jobs.upkeep.wait_idle()
    jobs.env.sleep(REST_SECONDS / 2)

    class Interrupted:
        def notify(self) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs.upkeep, "_wake", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            jobs.submit("flush", 1)
    jobs.upkeep.wait_idle()
    assert [0, 1] == jobs.ended()


def test_an_unknown_lane_is_a_mistake() -> None:
    jobs = Jobs()
    with pytest.raises(AssertionError, match="lane"):
        jobs.upkeep.submit("other", 0, lambda: None)
