"""Goal: both twins of the histogram count the same time in the same bucket.

Method: times around the bounds of all buckets, below and beyond them, and drawn ones.
"""

from __future__ import annotations

import math
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine import _histogram_c, _histogram_py

TWINS = [pytest.param(_histogram_c, id="c"), pytest.param(_histogram_py, id="py")]
twins = pytest.mark.parametrize("twin", TWINS)
BUCKETS = _histogram_py.BUCKETS


def bucket_of(twin: ModuleType, seconds: float) -> int:
    histogram = twin.Histogram("x")
    histogram.record(seconds)
    (found,) = (bucket for bucket, count in enumerate(histogram.counts()) if count)
    return int(found)


@twins
def test_buckets_meet_without_a_gap(twin: ModuleType) -> None:
    """What lies just above the bound of a bucket is in the next one."""
    for bucket in range(40, 600):
        seconds = _histogram_py.bucket_seconds(bucket) + 1.5e-9
        assert bucket_of(twin, seconds) == bucket + 1
    assert [bucket_of(twin, (n + 0.5) / 1e9) for n in range(33)] == list(range(33))


@twins
@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(-1.0, 0), (0.0, 0), (1e-12, 0), (1e9, BUCKETS - 1), (1e290, BUCKETS - 1)],
)
def test_times_beyond_the_buckets_are_counted(
    twin: ModuleType, seconds: float, bucket: int
) -> None:
    assert bucket_of(twin, seconds) == bucket


@given(st.lists(st.floats(-1, 1e5, allow_nan=False), max_size=50))
def test_the_twins_count_alike(times: list[float]) -> None:
    both = [twin.Histogram("name") for twin in (_histogram_c, _histogram_py)]
    for histogram in both:
        for seconds in times:
            histogram.record(seconds)
    one, other = both
    assert one.counts() == other.counts()
    assert sum(one.counts()) == one.count == other.count == len(times)
    assert (one.name, one.seconds, one.longest) == (other.name, other.seconds, other.longest)


@given(st.integers(0, BUCKETS - 2), st.integers(-3, 3))
def test_the_twins_agree_about_the_bounds(bucket: int, steps: int) -> None:
    seconds = _histogram_py.bucket_seconds(bucket)
    for _ in range(abs(steps)):
        seconds = math.nextafter(seconds, math.inf if steps > 0 else 0.0)
    assert bucket_of(_histogram_c, seconds) == bucket_of(_histogram_py, seconds)


@twins
def test_counts_are_a_copy(twin: ModuleType) -> None:
    histogram = twin.Histogram("x")
    histogram.counts()[0] = 7
    assert not any(histogram.counts())
