"""Which checker judges a history."""

from __future__ import annotations

from holdfast.testing.anomaly import Report
from holdfast.testing.check_append import check_append
from holdfast.testing.check_rmw import check_rmw
from holdfast.testing.history import History


def judge(history: History) -> Report:
    """Return the report of the checker for this kind of history."""
    check = check_append if history.kind == "append" else check_rmw
    return check(history.transactions)
