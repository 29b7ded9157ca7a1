"""The latencies of an open database, and the percentiles that their histograms give.

A percentile is never less than the true one, and at most a sixteenth more.

What is measured, each from where its caller waits to where it goes on:

- `commit`: calls that asked for durability "commit"; of asyncio tasks, groups of them.
- `sync`: syncs of the log.
- `flush`, `compaction`: jobs, from the first read to the new version; moves and drops are none.
- `get`: one `get` in GET_SAMPLE, with the cost of two looks at the clock.
- `stall`: pauses of writers because background work was behind.

Thread safety: safe.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from holdfast.engine._histogram import Histogram
from holdfast.engine._histogram_py import bucket_seconds

GET_SAMPLE = 1021
"""One get in this many is measured: a prime, so that no pattern of calls hides one kind of them."""

LATENCIES = ("commit", "sync", "flush", "compaction", "get", "stall")
"""What is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyStats:
    """How long one kind of thing took since open, in seconds. All are 0 when there was none."""

    name: str
    count: int
    seconds: float
    """The sum."""
    p50: float
    p99: float
    p999: float
    max: float


def stats_of(histogram: Histogram) -> LatencyStats:
    """Return what a histogram has so far."""
    below = list(accumulate(histogram.counts()))
    longest = histogram.longest
    p50, p99, p999 = (_percentile(below, part, longest) for part in (500, 990, 999))
    return LatencyStats(
        name=histogram.name,
        count=below[-1],
        seconds=histogram.seconds,
        p50=p50,
        p99=p99,
        p999=p999,
        max=longest,
    )


def _percentile(below: list[int], thousandths: int, longest: float) -> float:
    """Return the bound of the first bucket up to which so many lie; at most the longest.

    Of each bucket is given how many lie up to its bound.
    """
    wanted = -(-below[-1] * thousandths // 1000)
    return min(bucket_seconds(bisect_left(below, wanted)), longest)


class Latencies:
    """The histograms of one open database."""

    __slots__ = LATENCIES

    def __init__(self) -> None:
        self.commit = Histogram("commit")
        self.sync = Histogram("sync")
        self.flush = Histogram("flush")
        self.compaction = Histogram("compaction")
        self.get = Histogram("get")
        self.stall = Histogram("stall")

    def stats(self) -> tuple[LatencyStats, ...]:
        """Return the figures of all of them."""
        histograms: list[Histogram] = [getattr(self, name) for name in LATENCIES]
        return tuple(stats_of(histogram) for histogram in histograms)
