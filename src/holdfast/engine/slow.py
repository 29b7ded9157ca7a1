"""Why a database is slow: what `db.why_slow()` returns, derived from counters alone.

Two kinds of causes. What writers waited for was timed while they waited. Reads that go to the disk
past deleted keys, or through operands of merges are told from how many of these that took, in the
last minute and since open, above a bound below which it is the ordinary course of things.

Thread safety: pure functions of what they are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.engine.history import Totals

READS_MIN = 100
"""Of fewer keys and rows nothing is said."""
PAGES_PER_READ_MIN = 0.1
DELETED_PER_ROW_MIN = 4.0
OPERANDS_PER_READ_MIN = 16.0

_WAITS = {
    "memtables": (
        "memtables are frozen faster than they are flushed",
        "write in larger batches or more evenly; if background_bytes_per_second is set, raise it",
        "background_bytes_per_second",
    ),
    "level0": (
        "level 0 has too many tables: compactions are behind",
        (
            "raise memtable_bytes, for fewer and larger tables; "
            "if background_bytes_per_second is set, raise it"
        ),
        "memtable_bytes",
    ),
    "debt": (
        "levels are far above their targets: compactions are behind",
        "raise level1_bytes; compaction='size-tiered' writes less for the same load",
        "level1_bytes",
    ),
    "log": (
        "the log is twice as long as it may be, and flushes have not freed it",
        "raise wal_bytes_max",
        "wal_bytes_max",
    ),
    "memory": (
        "memtables take three quarters of the memory budget",
        "raise memory_bytes, or lower memtable_bytes of keyspaces that are written to",
        "memory_bytes",
    ),
    "segment": (
        "the next segment of the log was not ready when the last one was full",
        "raise wal_segment_bytes",
        "wal_segment_bytes",
    ),
    "sync": (
        "commits wait for the device to sync the log",
        (
            "commit more at once: put_many, threads or asyncio share a sync; durability='interval' "
            "where the last moment may be lost"
        ),
        "sync_interval_ms",
    ),
}
"""What each wait means, what to do, and the setting that it is about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowCause:
    """One cause."""

    name: str
    """One of the causes of `WaitStats`, or `pool`, `tombstones` or `operands`."""
    meaning: str
    figure: str
    """The counters behind it, as a person reads them."""
    advice: str
    setting: str | None
    """The setting that the advice is about."""
    recent_count: int
    """How often in the last minute: waits, pages read, deleted keys passed over, operands."""
    recent_seconds: float | None
    """How long in the last minute; None where that is not timed."""
    seconds: float | None
    """How long since open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowReport:
    """What a database waited for, what cost most in the last minute first. `str` of it is for
    people. Empty when nobody waited for anything.
    """

    window_seconds: float
    """The length of the last minute: less when the database was opened since."""
    seconds_open: float
    causes: tuple[SlowCause, ...]

    def __str__(self) -> str:
        if not self.causes:
            return "nobody waited for anything since the database was opened"
        lines = [
            f"in the last {self.window_seconds:.0f} s, and since open {self.seconds_open:.0f} s:"
        ]
        for cause in self.causes:
            lines += [
                f"- {cause.name}: {cause.meaning}",
                f"  {cause.figure}",
                f"  {cause.advice}",
            ]
        return "\n".join(lines)


def explain(recent: Totals, ever: Totals) -> SlowReport:
    """Return the report of what happened recently, and ever since open; `at` of both is the length
    of that time.
    """
    causes = [
        *_waits(recent, ever),
        *_pool(recent, ever),
        *_tombstones(recent, ever),
        *_operands(recent, ever),
    ]
    causes.sort(key=lambda cause: (-(cause.recent_seconds or 0.0), -(cause.seconds or 0.0)))
    return SlowReport(window_seconds=recent.at, seconds_open=ever.at, causes=tuple(causes))


def _waits(recent: Totals, ever: Totals) -> Iterator[SlowCause]:
    for name, (meaning, advice, setting) in _WAITS.items():
        count, seconds = ever.waits.get(name, (0, 0.0))
        recent_count, recent_seconds = recent.waits.get(name, (0, 0.0))
        if count:
            yield SlowCause(
                name=name,
                meaning=meaning,
                figure=f"{recent_count:,} times, {recent_seconds:.3f} s; since open {count:,} "
                f"times, {seconds:.3f} s",
                advice=advice,
                setting=setting,
                recent_count=recent_count,
                recent_seconds=recent_seconds,
                seconds=seconds,
            )


def _pool(recent: Totals, ever: Totals) -> Iterator[SlowCause]:
    if _pages_per_read(recent) < PAGES_PER_READ_MIN and _pages_per_read(ever) < PAGES_PER_READ_MIN:
        return
    yield SlowCause(
        name="pool",
        meaning="reads go to files: the pages that they need do not fit the pool",
        figure=f"{_pages_per_read(recent):.2f} pages from files for each key or row, hit ratio "
        f"{_hit_ratio(recent):.3f}; since open {_pages_per_read(ever):.2f}, {_hit_ratio(ever):.3f}",
        advice="raise memory_bytes",
        setting="memory_bytes",
        recent_count=recent.pages_read,
        recent_seconds=None,
        seconds=None,
    )


def _tombstones(recent: Totals, ever: Totals) -> Iterator[SlowCause]:
    if max(_deleted_per_row(recent), _deleted_per_row(ever)) < DELETED_PER_ROW_MIN:
        return
    yield SlowCause(
        name="tombstones",
        meaning="scans pass over many deleted keys for each row that they give",
        figure=f"{_deleted_per_row(recent):.1f} deleted keys for each row; since open "
        f"{_deleted_per_row(ever):.1f}",
        advice="compact() the range; begin scans behind what was deleted; data that expires by age "
        "belongs into a keyspace with compaction='time-window'",
        setting="compaction",
        recent_count=recent.deleted,
        recent_seconds=None,
        seconds=None,
    )


def _operands(recent: Totals, ever: Totals) -> Iterator[SlowCause]:
    if max(_operands_per_read(recent), _operands_per_read(ever)) < OPERANDS_PER_READ_MIN:
        return
    yield SlowCause(
        name="operands",
        meaning="reads of merged keys work through many operands",
        figure=f"{_operands_per_read(recent):.1f} operands for each key or row; since open "
        f"{_operands_per_read(ever):.1f}",
        advice="give the merge function a combine; compact() makes values of operands",
        setting=None,
        recent_count=recent.operands,
        recent_seconds=None,
        seconds=None,
    )


def _operands_per_read(totals: Totals) -> float:
    asked = totals.reads + totals.rows
    return totals.operands / asked if asked >= READS_MIN else 0.0


def _pages_per_read(totals: Totals) -> float:
    asked = totals.reads + totals.rows
    return totals.pages_read / asked if asked >= READS_MIN else 0.0


def _hit_ratio(totals: Totals) -> float:
    asked = totals.pool_hits + totals.pool_misses
    return totals.pool_hits / asked if asked else 1.0


def _deleted_per_row(totals: Totals) -> float:
    passed = totals.rows + totals.deleted
    return totals.deleted / max(totals.rows, 1) if passed >= READS_MIN else 0.0
