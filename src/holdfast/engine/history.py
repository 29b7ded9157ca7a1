"""What was counted at earlier moments: so the last minute can be told from the time since open.

A `Totals` holds counters that only grow. The difference of two of them is what happened in between.
One is kept for each second in which something was asked or written, for a little more than
WINDOW_SECONDS; while nothing happens none is taken, since nothing changes.

Thread safety: `note` and `since` may be called from any thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

WINDOW_SECONDS = 60.0
"""What "recent" means."""
BEAT_SECONDS = 1.0
"""The least time between two totals that are kept."""

KEPT_MAX = 70

Wait = tuple[int, float]
"""How often somebody waited, and how many seconds together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Counters at one moment of the monotonic clock."""

    at: float
    writes: int = 0
    user_bytes: int = 0
    reads: int = 0
    rows: int = 0
    deleted: int = 0
    operands: int = 0
    pages_read: int = 0
    page_bytes_read: int = 0
    pool_hits: int = 0
    pool_misses: int = 0
    waits: Mapping[str, Wait] = field(default_factory=dict)

    def since(self, before: Totals) -> Totals:
        """Return what happened between `before` and this; `at` is the seconds in between."""
        waits = {}
        for cause, (count, seconds) in self.waits.items():
            count_before, seconds_before = before.waits.get(cause, (0, 0.0))
            waits[cause] = count - count_before, max(seconds - seconds_before, 0.0)
        return Totals(
            at=self.at - before.at,
            writes=self.writes - before.writes,
            user_bytes=self.user_bytes - before.user_bytes,
            reads=self.reads - before.reads,
            rows=self.rows - before.rows,
            deleted=self.deleted - before.deleted,
            operands=self.operands - before.operands,
            # A table that goes while they are summed may be counted twice, once.
            pages_read=max(self.pages_read - before.pages_read, 0),
            page_bytes_read=max(self.page_bytes_read - before.page_bytes_read, 0),
            pool_hits=self.pool_hits - before.pool_hits,
            pool_misses=self.pool_misses - before.pool_misses,
            waits=waits,
        )


class History:
    """Totals of the last minute. `first` is the moment of open."""

    def __init__(self, first: Totals) -> None:
        self.first = first
        # Appending to it is one step, and the oldest one goes by itself.
        self._kept: deque[Totals] = deque([first], maxlen=KEPT_MAX)

    def note(self, totals: Totals) -> None:
        """Keep what is counted now."""
        self._kept.append(totals)

    def since(self, now: Totals) -> Totals:
        """Return what happened in the last minute, or since open when that is shorter."""
        start = now.at - WINDOW_SECONDS
        before = self.first
        for totals in list(self._kept):
            if totals.at > start:
                break
            before = totals
        # Where `before` is older than a minute nothing happened until the minute began.
        return replace(now.since(before), at=min(now.at - before.at, WINDOW_SECONDS))
