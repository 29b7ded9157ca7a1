"""A log-linear histogram of times: the plain Python twin and specification of `_histogram_c`.

The buckets are those of HdrHistogram (Gil Tene, hdrhistogram.org): up to 32 ns one for each
nanosecond, above that 16 of equal width in every power of two, over nine decades in 624 numbers.

Thread safety: `record` may be called from any thread. Between the lookup and the change of a count
no other Python code runs, as far as one interpreter lock goes; without that a count may be lost,
which is a figure for people.
"""

from __future__ import annotations

PART_BITS = 4
EXACT = 2 << PART_BITS
NANOSECONDS_MAX = (1 << 42) - 1
NANOSECONDS = 1_000_000_000
BUCKETS = ((42 - PART_BITS - 1) << PART_BITS) + EXACT


class Histogram:
    """Counts how long things took."""

    __slots__ = ("_counts", "count", "longest", "name", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.seconds = 0.0
        """The sum of all."""
        self.longest = 0.0
        self._counts = [0] * BUCKETS

    def record(self, seconds: float) -> None:
        """Count something that took so long, which is a finite time. A negative one counts as 0 in
        the buckets: clocks may be read in another order than they ran.
        """
        nanoseconds = int(seconds * NANOSECONDS)
        if nanoseconds < EXACT:
            bucket = max(0, nanoseconds)
        else:
            nanoseconds = min(nanoseconds, NANOSECONDS_MAX)
            shift = nanoseconds.bit_length() - PART_BITS - 1
            bucket = (shift << PART_BITS) + (nanoseconds >> shift)
        self._counts[bucket] += 1
        self.count += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)

    def counts(self) -> list[int]:
        """Return how many lie in each bucket."""
        return self._counts.copy()


def bucket_seconds(bucket: int) -> float:
    """Return the greatest time that a bucket holds."""
    if bucket < EXACT:
        return bucket / NANOSECONDS
    shift = (bucket >> PART_BITS) - 1
    part = (bucket & ((1 << PART_BITS) - 1)) + (1 << PART_BITS)
    return (((part + 1) << shift) - 1) / NANOSECONDS
