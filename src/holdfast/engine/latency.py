"""Latencies as log-linear histograms, and the percentiles they give.

The buckets are those of HdrHistogram (Gil Tene, hdrhistogram.org): up to 32 ns one for each
nanosecond, above that 16 of equal width in every power of two. So a percentile is never less than
the true one, and at most a sixteenth more, over nine decades in 624 numbers.

What is measured, each from where its caller waits to where it goes on:

- `commit`: calls that asked for durability "commit"; of asyncio tasks, groups of them.
- `sync`: syncs of the log.
- `flush`, `compaction`: jobs, from the first read to the new version; moves and drops are none.
- `get`: one `get` in GET_SAMPLE, with the cost of two looks at the clock.
- `stall`: pauses of writers because background work was behind.

Thread safety: `record` may be called from any thread. Between the lookup and the change of a count
no other Python code runs, as far as one interpreter lock goes; without that a count may be lost,
which is a figure for people.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

GET_SAMPLE = 1021
"""One get in this many is measured: a prime, so that no pattern of calls hides one kind of them."""

LATENCIES = ("commit", "sync", "flush", "compaction", "get", "stall")
"""What is measured."""

_PART_BITS = 4
_EXACT = 2 << _PART_BITS
_NANOSECONDS_MAX = (1 << 42) - 1
_NANOSECONDS = 1_000_000_000
_BUCKETS = ((42 - _PART_BITS - 1) << _PART_BITS) + _EXACT


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


class Histogram:
    """Counts how long things took."""

    __slots__ = ("_counts", "_max", "count", "name", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.seconds = 0.0
        self._counts = [0] * _BUCKETS
        self._max = 0.0

    def record(self, seconds: float) -> None:
        """Count something that took so long."""
        nanoseconds = int(seconds * _NANOSECONDS)
        if nanoseconds < _EXACT:
            bucket = max(0, nanoseconds)
        else:
            nanoseconds = min(nanoseconds, _NANOSECONDS_MAX)
            shift = nanoseconds.bit_length() - _PART_BITS - 1
            bucket = (shift << _PART_BITS) + (nanoseconds >> shift)
        self._counts[bucket] += 1
        self.count += 1
        self.seconds += seconds
        self._max = max(self._max, seconds)

    def stats(self) -> LatencyStats:
        """Return what there is so far."""
        below = list(accumulate(self._counts))
        total = below[-1]
        p50, p99, p999 = (self._percentile(below, part) for part in (500, 990, 999))
        return LatencyStats(
            name=self.name,
            count=total,
            seconds=self.seconds,
            p50=p50,
            p99=p99,
            p999=p999,
            max=self._max,
        )

    def _percentile(self, below: list[int], thousandths: int) -> float:
        """Return the bound of the first bucket up to which so many lie; at most the maximum.

        Of each bucket is given how many lie up to its bound.
        """
        wanted = -(-below[-1] * thousandths // 1000)
        return min(bucket_seconds(bisect_left(below, wanted)), self._max)


def bucket_seconds(bucket: int) -> float:
    """Return the greatest time that a bucket holds."""
    if bucket < _EXACT:
        return bucket / _NANOSECONDS
    shift = (bucket >> _PART_BITS) - 1
    part = (bucket & ((1 << _PART_BITS) - 1)) + (1 << _PART_BITS)
    return (((part + 1) << shift) - 1) / _NANOSECONDS


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
        return tuple(histogram.stats() for histogram in histograms)
