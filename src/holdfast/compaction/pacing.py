"""Pacing: how much writers must wait so that flushes and compactions keep up.

Three measures, each with a point where slowing starts and one where writing stops: the tables of
level 0, the frozen memtables, and the bytes above the levels' targets. The *pressure* of each rises
linearly from 0 to 1 in between, and the greatest decides. The delay is `SECONDS_PER_MIB_AT_HALF * p
/ (1 - p)` seconds for each MiB written: next to nothing at first, and beyond all bounds as the stop
comes near, so that writers meet the rate of compaction before they meet the stop, and a long pause
is rare.

Where the machine's owner limits the rate of background writes, the *urgency* of these says how far
that limit may be kept: it rises from 0, where flushes and compactions have all the time they want,
to 1, where writers would begin to be slowed because of them.

Thread safety: pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from holdfast.base import KeyspaceSettings

LEVEL0_SOFT = 2
LEVEL0_STOP = 5
"""Times `level0_tables`."""
FROZEN_SOFT = 1
FROZEN_STOP = 5
"""Frozen memtables. The first one is the ordinary course of a flush."""
DEBT_SOFT = 16
DEBT_STOP = 128
"""Times `level1_bytes`."""
SECONDS_PER_MIB_AT_HALF = 0.02
"""The delay half-way between the two points: 50 MiB a second."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a writer must do before it writes."""

    stop: bool
    """Wait until background work has finished something."""
    seconds_per_mib: float
    """Else: wait this long for each MiB. Infinite when `stop`."""
    cause: str = field(default="", compare=False)
    """Which measure decided: `level0`, `memtables` or `debt`; "" when nothing waits."""


def write_pace(
    *, level0_count: int, frozen_count: int, settings: KeyspaceSettings, debt_bytes: int = 0
) -> Pace:
    """Return the pace for a keyspace in this state: continuous, and never quicker when one of the
    measures rises.
    """
    pressure, cause = max(
        (
            _pressure(
                level0_count,
                LEVEL0_SOFT * settings.level0_tables,
                LEVEL0_STOP * settings.level0_tables,
            ),
            "level0",
        ),
        (_pressure(frozen_count, FROZEN_SOFT, FROZEN_STOP), "memtables"),
        (
            _pressure(
                debt_bytes, DEBT_SOFT * settings.level1_bytes, DEBT_STOP * settings.level1_bytes
            ),
            "debt",
        ),
    )
    if pressure >= 1:
        return Pace(True, inf, cause)
    if pressure <= 0:
        return Pace(False, 0.0)
    return Pace(False, SECONDS_PER_MIB_AT_HALF * pressure / (1 - pressure), cause)


def background_urgency(
    *,
    level0_count: int,
    frozen_count: int,
    active_fill: float,
    settings: KeyspaceSettings,
    debt_bytes: int = 0,
) -> float:
    """Return how urgent background work on a keyspace in this state is, from 0 to 1.

    `active_fill` says how full the active memtable is: a flush has time until that is frozen too.
    """
    waiting = frozen_count - FROZEN_SOFT + min(active_fill, 1.0) if frozen_count else 0.0
    return max(
        _pressure(level0_count, settings.level0_tables, LEVEL0_SOFT * settings.level0_tables),
        _pressure(debt_bytes, 0, DEBT_SOFT * settings.level1_bytes),
        _pressure(waiting, 0, 1),
    )


def _pressure(value: float, soft: int, stop: int) -> float:
    return min(max(0.0, (value - soft) / (stop - soft)), 1.0)
