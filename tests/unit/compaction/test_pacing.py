"""The pace of writers: where it begins, where it ends, and that it only rises in between."""

from itertools import pairwise
from math import inf

import pytest

from holdfast.base import KeyspaceSettings
from holdfast.compaction import Pace, write_pace

SETTINGS = KeyspaceSettings(level0_tables=4, level1_bytes=1 << 20)
MIB = 1 << 20


def pace(level0_count: int = 0, frozen_count: int = 0, debt_bytes: int = 0) -> Pace:
    return write_pace(
        level0_count=level0_count,
        frozen_count=frozen_count,
        debt_bytes=debt_bytes,
        settings=SETTINGS,
    )


def test_nothing_waits_below_the_soft_limits() -> None:
    assert pace(8, 1, 16 * MIB) == Pace(stop=False, seconds_per_mib=0.0)
    assert write_pace(level0_count=0, frozen_count=0, settings=SETTINGS) == pace()


@pytest.mark.parametrize("state", [(20, 0, 0), (0, 5, 0), (0, 0, 128 * MIB), (99, 99, 2**60)])
def test_writing_stops_at_the_hard_limits(state: tuple[int, int, int]) -> None:
    assert pace(*state) == Pace(stop=True, seconds_per_mib=inf)


def test_half_way_is_50_mib_a_second() -> None:
    assert pace(level0_count=14).seconds_per_mib == pytest.approx(0.02)
    assert pace(frozen_count=3).seconds_per_mib == pytest.approx(0.02)
    assert pace(debt_bytes=72 * MIB).seconds_per_mib == pytest.approx(0.02)


def test_the_pace_only_rises_and_has_no_steps() -> None:
    """Along each measure; a thousandth of the way changes little until the stop is near."""
    for measure in ("level0_count", "frozen_count"):
        delays = [pace(**{measure: value}).seconds_per_mib for value in range(25)]
        assert delays == sorted(delays)
    step = 128 * MIB // 1000
    delays = [pace(debt_bytes=value).seconds_per_mib for value in range(0, 120 * MIB, step)]
    assert delays == sorted(delays)
    assert all(b - a < 0.006 for a, b in pairwise(delays))
    assert pace(debt_bytes=128 * MIB - 1).seconds_per_mib > 1000


def test_the_worst_measure_decides() -> None:
    assert pace(14, 2, 17 * MIB) == pace(14)


def test_the_least_setting_still_has_room_between_soft_and_stop() -> None:
    least = KeyspaceSettings(level0_tables=1)
    stops = [
        write_pace(level0_count=count, frozen_count=0, settings=least).stop for count in range(7)
    ]
    assert stops == [False] * 5 + [True] * 2
