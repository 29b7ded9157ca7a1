"""Goal: the rate of a throttle is kept over any stretch, urgency divides its waits, and a stop ends
them at once.
"""

from __future__ import annotations

import pytest

from holdfast.base import KeyspaceSettings
from holdfast.compaction import Throttle, background_urgency, write_pace
from holdfast.compaction.throttle import BURST_SECONDS, SLICE_SECONDS
from holdfast.env import SimEnv

MIB = 1 << 20


class Machine:
    """A throttle on a simulated clock, at an urgency that the test sets."""

    def __init__(self, rate: int) -> None:
        self.env = SimEnv()
        self.urgency = 0.0
        self.goes_on = True
        self.pauses: list[float] = []
        self.throttle = Throttle(self.env, rate, urgency=lambda: self.urgency, pause=self.pause)

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.env.sleep(seconds)
        return self.goes_on

    def seconds(self, count: int, size: int) -> float:
        began = self.env.monotonic()
        for _ in range(count):
            self.throttle.spend(size)
        return self.env.monotonic() - began


@pytest.mark.parametrize("size", [1000, MIB, 7 * MIB])
def test_the_rate_is_kept(size: int) -> None:
    machine = Machine(10 * MIB)
    count = 100 * MIB // size
    took = machine.seconds(count, size)
    assert count * size / (10 * MIB) == pytest.approx(took + BURST_SECONDS, rel=0.02, abs=0.2)
    # Each look at the clock takes a little time, too.
    assert took * 0.85 < machine.throttle.waited_seconds <= took
    assert max(machine.pauses) <= SLICE_SECONDS


@pytest.mark.parametrize(("urgency", "factor"), [(0.5, 2), (0.9, 10)])
def test_urgency_divides_the_wait(urgency: float, factor: int) -> None:
    machine = Machine(MIB)
    machine.urgency = urgency
    assert machine.seconds(20, MIB) == pytest.approx(20 / factor, rel=0.05, abs=0.2)


def test_at_full_urgency_nobody_waits_and_nothing_is_owed_later() -> None:
    machine = Machine(MIB)
    machine.urgency = 1.0
    machine.seconds(100, MIB)
    assert machine.pauses == []
    machine.urgency = 0.0
    assert machine.seconds(1, MIB) <= 1.0 + SLICE_SECONDS


def test_urgency_that_comes_during_a_wait_ends_it() -> None:
    machine = Machine(MIB)

    def pause(seconds: float) -> bool:
        machine.env.sleep(seconds)
        machine.urgency = 1.0 if machine.env.monotonic() > 2.0 else 0.0
        return True

    machine.throttle._pause = pause
    assert machine.seconds(1, 100 * MIB) < 2.0 + 2 * SLICE_SECONDS


def test_a_stop_ends_the_wait() -> None:
    machine = Machine(MIB)
    machine.goes_on = False
    assert machine.seconds(1, 100 * MIB) <= 2 * SLICE_SECONDS


def test_no_limit_asks_nothing() -> None:
    machine = Machine(0)
    machine.throttle.spend(1 << 50)
    assert machine.pauses == []


def test_two_jobs_share_the_rate() -> None:
    machine = Machine(10 * MIB)
    began = machine.env.monotonic()

    def job() -> None:
        for _ in range(50):
            machine.throttle.spend(MIB)

    tasks = [machine.env.spawn("job", job) for _ in range(2)]
    for task in tasks:
        task.join()
    assert machine.env.monotonic() - began == pytest.approx(10.0, rel=0.05)


SETTINGS = KeyspaceSettings(level0_tables=4, level1_bytes=MIB)


def urgency(
    level0_count: int = 0, frozen_count: int = 0, active_fill: float = 0.0, debt_bytes: int = 0
) -> float:
    return background_urgency(
        level0_count=level0_count,
        frozen_count=frozen_count,
        active_fill=active_fill,
        debt_bytes=debt_bytes,
        settings=SETTINGS,
    )


def test_urgency_is_full_where_writers_begin_to_be_slowed() -> None:
    """So a limit on background work never is why they wait."""
    assert urgency() == urgency(4) == urgency(active_fill=1.0) == 0.0
    for level0 in range(30):
        for frozen in range(7):
            for debt in range(0, 140 * MIB, 4 * MIB):
                pace = write_pace(
                    level0_count=level0, frozen_count=frozen, debt_bytes=debt, settings=SETTINGS
                )
                if pace.stop or pace.seconds_per_mib > 0.0:
                    assert urgency(level0, frozen, 0.0, debt) == 1.0


def test_urgency_only_rises() -> None:
    for values in (
        [urgency(level0_count=count) for count in range(12)],
        [urgency(frozen_count=1, active_fill=part / 10) for part in range(15)],
        [urgency(frozen_count=count) for count in range(4)],
        [urgency(debt_bytes=size) for size in range(0, 20 * MIB, MIB)],
    ):
        assert values == sorted(values)
        assert values[0] == 0.0
        assert values[-1] == 1.0
