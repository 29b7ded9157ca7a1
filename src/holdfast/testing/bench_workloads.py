"""The workloads of the bench, by name. Each runs in a process of its own and returns its figures.

A workload's docstring says what it measures; the report shows it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from holdfast.testing.bench_bulk import load, replay, series
from holdfast.testing.bench_commit import batches, commit, threads
from holdfast.testing.bench_counters import counters
from holdfast.testing.bench_encrypted import recovery_encrypted
from holdfast.testing.bench_held import held
from holdfast.testing.bench_measure import Figure, Options
from holdfast.testing.bench_recovery import recovery
from holdfast.testing.bench_rows import get, put
from holdfast.testing.bench_scan import scan
from holdfast.testing.bench_startup import startup
from holdfast.testing.bench_tasks import tasks

WORKLOADS: dict[str, Callable[[Options], list[Figure]]] = {
    "startup": startup,
    "put": put,
    "get": get,
    "scan": scan,
    "commit": commit,
    "threads": threads,
    "tasks": tasks,
    "batches": batches,
    "counters": counters,
    "held": held,
    "replay": replay,
    "recovery": recovery,
    "recovery_encrypted": recovery_encrypted,
    "load": load,
    "series": series,
}


def description(name: str) -> str:
    """Return what a workload measures."""
    return inspect.getdoc(WORKLOADS[name]) or ""
