"""Chooses the twin of the histogram of latencies."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.engine._histogram_py import Histogram
else:
    from holdfast.engine._histogram_c import Histogram

__all__ = ["Histogram"]
