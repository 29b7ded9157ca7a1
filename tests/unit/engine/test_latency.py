"""Goal: percentiles of the histogram are never less than the true ones, and at most a sixteenth
more.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine._histogram import Histogram
from holdfast.engine.latency import LATENCIES, Latencies, stats_of

NANOSECONDS = st.one_of(st.integers(0, 100), st.integers(0, 10**7), st.integers(0, 10**12))


@given(st.lists(NANOSECONDS, min_size=1, max_size=300))
def test_percentiles_are_true_within_a_sixteenth(taken: list[int]) -> None:
    histogram = Histogram("x")
    for nanoseconds in taken:
        histogram.record(nanoseconds / 1e9)
    stats = stats_of(histogram)
    ordered = sorted(taken)
    for thousandths, found in ((500, stats.p50), (990, stats.p99), (999, stats.p999)):
        true = ordered[-(-len(ordered) * thousandths // 1000) - 1]
        # A float of seconds may lie just below its nanosecond.
        assert true - 1 <= found * 1e9 + 0.01
        assert found * 1e9 <= true * 17 / 16 + 1
    assert stats.max == pytest.approx(ordered[-1] / 1e9)
    assert (len(taken), pytest.approx(sum(taken) / 1e9)) == (stats.count, stats.seconds)


def test_nothing_measured_is_zero() -> None:
    for stats in Latencies().stats():
        assert (0, 0.0, 0.0, 0.0) == (stats.count, stats.p50, stats.p999, stats.max)
    assert list(LATENCIES) == [stats.name for stats in Latencies().stats()]
