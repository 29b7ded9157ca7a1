"""Recovery: how long a database whose process died keeps its user waiting."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import holdfast
from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.testing.bench_bulk import ROOMY, copy_synced, log_rows
from holdfast.testing.bench_measure import (
    MIB,
    Figure,
    Options,
    fresh_python,
    scaled,
    scratch,
    settle,
    values_of,
)

SECONDS_P99 = 1.0
LOG_SHARES = (0.0, 1 / 16, 1 / 4, 1.0)
"""Sizes of the log, as parts of the largest one."""
TABLE_COUNTS = (0, 100, 1_000)
OPENINGS_A_ROUND = 8
MILLISECONDS = 1e3
TABLE_ROWS = 150


def recovery(options: Options) -> list[Figure]:
    """`holdfast.open` after a process that ended without a close, up to the first read and the
    first durable write.

    Each opening is one of a fresh, synced copy, with the default settings, by a process that has
    the engine loaded; what is read is the first row. The log holds groups of many rows, and each
    table of the others has keys of its own. The 99th percentile is the nearest rank; a slope is
    that of the least-squares line through all openings of its kind.
    """
    figures: list[Figure] = []
    openings = options.rounds * OPENINGS_A_ROUND
    logs = [int(options.replay_bytes * share) for share in LOG_SHARES]
    points: list[tuple[float, float]] = []
    for size in logs:
        reads, writes = _openings(options, openings, "log", size)
        points += [(size / MIB, seconds * MILLISECONDS) for seconds in writes]
        what = f"{size / MIB:g} MiB of log"
        figures.append(_figure(f"open and read, {what}", "-", reads))
        figures.append(_figure(f"open and write, {what}", "commit", writes))
    slowest = _rank(sorted(scaled(writes, MILLISECONDS)), 0.99)
    figures.append(
        Figure(
            what=f"open and write, {logs[-1] / MIB:g} MiB of log, 99th percentile",
            unit="ms",
            sync="commit",
            rounds=[slowest],
            budget=SECONDS_P99 * MILLISECONDS,
        )
    )
    figures.append(_slope("slope of open and write", "ms/MiB of log", points))
    points = []
    for count in TABLE_COUNTS:
        reads, writes = _openings(options, openings, "tables", min(count, options.count // 100))
        points += [(count / 100, seconds * MILLISECONDS) for seconds in writes]
        figures.append(_figure(f"open and read, {count:,} tables", "-", reads))
        figures.append(_figure(f"open and write, {count:,} tables", "commit", writes))
    figures.append(_slope("slope of open and write", "ms/100 tables", points))
    return figures


def leave(kind: str, folder: str, amount: int, options: dict[str, Any]) -> NoReturn:
    """Write a database with so many bytes of log or so many tables, and end without a close."""
    MAKERS[kind](folder, amount, Options(**options))
    os._exit(0)


def _leave_log(folder: str, size: int, options: Options) -> None:
    wanted = replace(options, replay_bytes=size)
    log_rows(
        wanted,
        folder,
        lambda database, key, value: database.put(key, value, durability="none"),
        None,
    )


def _leave_tables(folder: str, count: int, options: Options) -> None:
    # Every table has keys of its own, above those of the table before: none is ever merged.
    keyspace = KeyspaceSettings(compression="none", compression_last="none", level0_tables=64)
    database = holdfast.open(folder, settings=replace(ROOMY, keyspace=keyspace))
    values = itertools.cycle(values_of("incompressible", options.seed))
    for table in range(count):
        for row in range(TABLE_ROWS):
            database.put(b"%016d" % (table * TABLE_ROWS + row), next(values), durability="none")
        database.flush()
    settle(database)


MAKERS: dict[str, Callable[[str, int, Options], None]] = {
    "log": _leave_log,
    "tables": _leave_tables,
}


def _openings(
    options: Options, count: int, kind: str, amount: int
) -> tuple[list[float], list[float]]:
    """Return, for each opening, the seconds up to the first read and up to the first write."""
    reads, writes = [], []
    with scratch(options) as folder:
        plain = options.to_plain()
        fresh_python(
            [
                "-c",
                f"from {__name__} import leave; leave({kind!r}, {folder!r}, {amount}, {plain!r})",
            ]
        )
        for number in range(count):
            copy = f"{folder}-copy-{number}"
            copy_synced(folder, copy)
            began = time.perf_counter()
            with holdfast.open(copy, settings=DatabaseSettings()) as database:
                next(database.items(limit=1), None)
                reads.append(time.perf_counter() - began)
                database[b"first"] = b"write"
                writes.append(time.perf_counter() - began)
            shutil.rmtree(copy)
    return reads, writes


def _figure(what: str, sync: str, seconds: list[float]) -> Figure:
    ordered = sorted(scaled(seconds, MILLISECONDS))
    return Figure(
        what=what,
        unit="ms",
        sync=sync,
        rounds=ordered,
        note=f"{len(ordered)} openings, p99 {_rank(ordered, 0.99):.1f} ms",
    )


def _rank(ordered: list[float], share: float) -> float:
    """Return the value that so large a share of a sorted list does not exceed (nearest rank)."""
    return ordered[math.ceil(share * len(ordered)) - 1]


def _slope(what: str, unit: str, points: list[tuple[float, float]]) -> Figure:
    """Return the slope of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    note = f"at none of it {mean_y - slope * mean_x:.1f} ms"
    return Figure(what=what, unit=unit, sync="commit", rounds=[slope], note=note)
