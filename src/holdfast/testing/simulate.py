"""`./dev simulate`: the planner and the pacing of the engine over tables that do not exist.

A table is what the manifest knows of one, and a few *spans*: ranges of keys with the parts of them
that the table puts and deletes, spread evenly. Flushes come from a load, versions change by edits,
plans by `strategy_of`, delays by `write_pace`; only reading and writing is arithmetic. So a run
over terabytes and a million files takes no disk, and the same arguments always print the same.

What it prints, for each strategy and load:
- write amplification: bytes logged, flushed and compacted for each byte of the user;
- read amplification: runs that a point lookup has to ask, filters apart, the mean at the end;
- space amplification: bytes of tables for each byte of a table with only what is live;
- the share of time that writers were slowed or stopped, and the longest pause, when they write at
  WRITE_BYTES_PER_SECOND and one compaction at a time writes COMPACT_BYTES_PER_SECOND.

Of one key there is one version in a memtable, and range deletes do not exist here. Values do not
compress: ENTRY_BYTES stand in a table for each entry, DELETE_BYTES for each delete.

Thread safety: none; one thread.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from holdfast.base import KeyspaceSettings
from holdfast.base.settings import STRATEGIES
from holdfast.compaction import Pace, Plan, strategy_of, write_pace
from holdfast.compaction.job import WINDOW_CUTS_MAX
from holdfast.compaction.window import next_window_start
from holdfast.manifest import KeyspaceVersion, Version, VersionEdit
from holdfast.sstable import TableInfo
from holdfast.testing.numbers import one_or_more

MIB = 1 << 20
KEYSPACE = 1
KEY_BYTES = 8
ENTRY_BYTES = 1024
DELETE_BYTES = 24
LOG_BYTES = 12
"""What the log adds to an operation: its kind, its lengths, and its part of a record."""
WRITE_BYTES_PER_SECOND = 40 * MIB
COMPACT_BYTES_PER_SECOND = 120 * MIB
SAME_DENSITY = 0.02
"""Spans beside each other of which the parts differ less are one."""


@dataclass(frozen=True, slots=True)
class Span:
    """Keys from `lower` up to `upper`: the part of them that is put, and that is deleted."""

    lower: int
    upper: int
    puts: float
    deletes: float

    @property
    def size_bytes(self) -> float:
        """Bytes in a table."""
        width = self.upper - self.lower
        return width * (self.puts * ENTRY_BYTES + self.deletes * DELETE_BYTES)


@dataclass(frozen=True, slots=True)
class Flush:
    """What one memtable brings."""

    spans: Sequence[Span]
    operations: float
    """Writes of the user, overwritten ones counted."""
    live: float
    """Keys that are live afterwards."""
    clock: int
    """The greatest key so far, as a time."""


Load = Callable[[int, float], Iterator[Flush]]
"""From (count of flushes, operations of each) to the flushes."""


def overwrite(count: int, operations: float) -> Iterator[Flush]:
    """Random keys among as many as a quarter of all writes."""
    universe = max(1, int(operations * count / 4))
    part = -math.expm1(-operations / universe)
    missing = 1.0
    for _ in range(count):
        missing *= 1 - part
        yield Flush([Span(0, universe, part, 0.0)], operations, universe * (1 - missing), 0)


def insert(count: int, operations: float) -> Iterator[Flush]:
    """New keys, in no order: none is written twice."""
    universe = 1 << 50
    for number in range(1, count + 1):
        part = operations / universe
        yield Flush([Span(0, universe, part, 0.0)], operations, operations * number, 0)


def in_order(count: int, operations: float) -> Iterator[Flush]:
    """Keys in the order of time; each tenth flush brings one in a hundred late, from long ago."""
    step = int(operations)
    for number in range(1, count + 1):
        clock = number * step * 2
        spans = [Span(clock - 2 * step, clock, 0.5, 0.0)]
        if number % 10 == 0:
            back = clock // 2
            spans.insert(0, Span(back, back + step, 0.01, 0.0))
        yield Flush(spans, operations, operations * number, clock)


def queue(count: int, operations: float) -> Iterator[Flush]:
    """Elements come at the end and go at the front; four memtables of them wait."""
    step = int(operations / 2)
    for number in range(1, count + 1):
        clock = (number + 8) * step
        front = number * step
        spans = [Span(front - step, front, 0.0, 1.0), Span(clock - step, clock, 1.0, 0.0)]
        yield Flush(spans, operations, min(number, 8) * step, clock)


LOADS: dict[str, Load] = {
    "overwrite": overwrite,
    "insert": insert,
    "in-order": in_order,
    "queue": queue,
}


def merge(sources: Sequence[Sequence[Span]], *, is_bottom: bool) -> list[Span]:
    """Return the spans of a merge; the newest source comes first."""
    edges = sorted(
        {edge for spans in sources for span in spans for edge in (span.lower, span.upper)}
    )
    place = {edge: index for index, edge in enumerate(edges)}
    absent = [1.0] * len(edges)
    puts = [0.0] * len(edges)
    deletes = [0.0] * len(edges)
    for spans in sources:
        for span in spans:
            for at in range(place[span.lower], place[span.upper]):
                puts[at] += absent[at] * span.puts
                deletes[at] += absent[at] * span.deletes
                absent[at] *= max(0.0, 1 - span.puts - span.deletes)
    found: list[Span] = []
    for at, lower in enumerate(edges[:-1]):
        gone = 0.0 if is_bottom else deletes[at]
        if puts[at] + gone > 0:
            _append(found, Span(lower, edges[at + 1], puts[at], gone))
    return found


def _append(spans: list[Span], span: Span) -> None:
    """Append a span, or widen the last one if it is alike."""
    last = spans[-1] if spans else None
    if last is not None and last.upper == span.lower:
        scale = max(last.puts + last.deletes, span.puts + span.deletes)
        if abs(last.puts - span.puts) + abs(last.deletes - span.deletes) <= SAME_DENSITY * scale:
            left, right = last.upper - last.lower, span.upper - span.lower
            whole = left + right
            spans[-1] = Span(
                last.lower,
                span.upper,
                (last.puts * left + span.puts * right) / whole,
                (last.deletes * left + span.deletes * right) / whole,
            )
            return
    spans.append(span)


def cut(spans: Sequence[Span], limit: float, settings: KeyspaceSettings) -> list[list[Span]]:
    """Return the spans of each table: of `limit` bytes, and ending where a window begins."""
    tables: list[list[Span]] = [[]]
    is_windowed = settings.compaction == "time-window"
    size = 0.0
    stop: int | None = None
    waiting = list(reversed(spans))
    while waiting:
        span = waiting.pop()
        if stop is None and is_windowed and len(tables) <= WINDOW_CUTS_MAX:
            start = next_window_start(settings, key(span.lower))
            stop = None if start is None else int.from_bytes(start, "big")
        if stop is not None and stop <= span.lower:
            # The window ended in a gap between two spans.
            waiting.append(span)
            tables.append([])
            size, stop = 0.0, None
            continue
        density = span.size_bytes / (span.upper - span.lower)
        end = span.upper if stop is None else min(span.upper, stop)
        if limit - size < density * (end - span.lower):
            end = min(end, span.lower + max(1, math.ceil((limit - size) / density)))
        if end > span.lower:
            tables[-1].append(replace(span, upper=end))
            size += density * (end - span.lower)
        if end < span.upper:
            waiting.append(replace(span, lower=end))
        if size >= limit or end == stop:
            tables.append([])
            size, stop = 0.0, None
    return [table for table in tables if table]


def key(number: int) -> bytes:
    """Return a key of the simulation as bytes."""
    return number.to_bytes(KEY_BYTES, "big")


class Simulation:
    """One keyspace under one load."""

    def __init__(self, settings: KeyspaceSettings) -> None:
        self.settings = settings
        self.strategy = strategy_of(settings)
        self.version = Version().apply(
            VersionEdit(keyspaces_created=((KEYSPACE, "simulated", settings),), next_number=1)
        )
        self.contents: dict[int, list[Span]] = {}
        self.user_bytes = self.flushed_bytes = self.compacted_bytes = self.log_bytes = 0.0
        self.compacted_by_level = [0.0] * len(self.keyspace.levels)
        self.seconds = self.delayed_seconds = self.longest_pause = 0.0
        self.files = self.moves = self.merges = self.drops = 0
        self.live = 0.0
        self._seq = 0
        self._clock = 0
        self._job: Plan | None = None
        self._job_left = 0.0
        self._outputs: list[list[Span]] = []

    @property
    def keyspace(self) -> KeyspaceVersion:
        """The tables of now."""
        return self.version.keyspaces[KEYSPACE]

    def flush(self, flush: Flush) -> None:
        """Let writers write one memtable at their pace, and flush it."""
        self._write(flush)
        self._clock, self.live = flush.clock, flush.live
        self._seq += 1
        limit = max(self.settings.memtable_bytes, self.settings.table_bytes)
        tables = [self._table(spans) for spans in cut(flush.spans, 2 * limit, self.settings)]
        self.flushed_bytes += sum(table.size_bytes for table in tables)
        self._log(
            VersionEdit(
                tables_added=tuple((KEYSPACE, 0, table) for table in tables),
                flushed_seq={KEYSPACE: self._seq},
            )
        )
        if self._job is None:
            self._begin()

    def settle(self) -> None:
        """Carry out all compactions that are left."""
        while self._job is not None:
            self._work(self._job_left / COMPACT_BYTES_PER_SECOND)

    def _write(self, flush: Flush) -> None:
        puts = flush.operations * _put_part(flush.spans)
        size = puts * ENTRY_BYTES + (flush.operations - puts) * DELETE_BYTES
        self.user_bytes += size
        self.log_bytes += size + flush.operations * LOG_BYTES
        pause = 0.0
        while (pace := self._pace()).stop and self._job is not None:
            left = self._job_left / COMPACT_BYTES_PER_SECOND
            self._work(left)
            pause += left
        self.longest_pause = max(self.longest_pause, pause)
        delay = 0.0 if pace.stop else pace.seconds_per_mib * size / MIB
        self.delayed_seconds += pause + delay
        self._work(size / WRITE_BYTES_PER_SECOND + delay)

    def _pace(self) -> Pace:
        return write_pace(
            level0_count=self.strategy.run_count(self.keyspace),
            frozen_count=0,
            settings=self.settings,
            debt_bytes=self.strategy.debt_bytes(self.keyspace),
        )

    def _work(self, seconds: float) -> None:
        """Let that much time pass for the compactions."""
        self.seconds += seconds
        budget = seconds * COMPACT_BYTES_PER_SECOND
        while self._job is not None and self._job_left <= budget:
            budget -= self._job_left
            self._end()
            self._begin()
        if self._job is not None:
            self._job_left -= budget

    def _begin(self) -> None:
        # A key of the load in order is a time in microseconds.
        self._job = self.strategy.pick(self.keyspace, now_us=self._clock)
        self._job_left = 0.0
        self._outputs = []
        if self._job is None or self._job.is_move or self._job.is_drop:
            return
        sources = [self.contents[table.number] for table in self._job.tables]
        limit = float(self.settings.table_bytes) if self._job.output_level else math.inf
        merged = merge(sources, is_bottom=self._job.is_bottom)
        self._outputs = cut(merged, limit, self.settings)
        self._job_left = sum(span.size_bytes for spans in self._outputs for span in spans)

    def _end(self) -> None:
        plan = self._job
        if plan is None:
            return
        outputs = [self._table(spans, plan) for spans in self._outputs]
        size = sum(table.size_bytes for table in outputs)
        self.compacted_bytes += size
        self.compacted_by_level[plan.output_level] += size
        self.moves += plan.is_move
        self.drops += plan.is_drop
        self.merges += not (plan.is_move or plan.is_drop)
        self._log(plan.edit(outputs))
        if not plan.is_move:
            for number in plan.input_numbers:
                del self.contents[number]

    def _table(self, spans: list[Span], plan: Plan | None = None) -> TableInfo:
        self.files += 1
        self.contents[self.files] = spans
        inputs = () if plan is None else plan.tables
        puts = sum((span.upper - span.lower) * span.puts for span in spans)
        deletes = sum((span.upper - span.lower) * span.deletes for span in spans)
        size = int(sum(span.size_bytes for span in spans))
        return TableInfo(
            number=self.files,
            file_id=self.files.to_bytes(16, "big"),
            size_bytes=max(128, size),
            lower=key(spans[0].lower),
            upper=key(spans[-1].upper),
            seq_min=min((table.seq_min for table in inputs), default=self._seq),
            seq_max=max((table.seq_max for table in inputs), default=self._seq),
            entry_count=max(1, round(puts + deletes)),
            delete_count=min(round(deletes), max(1, round(puts + deletes))),
            range_tombstone_count=0,
            raw_bytes=size,
            root_checksum=0,
            created_us=self._clock,
        )

    def _log(self, edit: VersionEdit) -> None:
        self.version = self.version.apply(replace(edit, next_number=self.files + 1))

    @property
    def write_amplification(self) -> float:
        """Bytes logged, flushed and compacted for each byte of the user."""
        written = self.log_bytes + self.flushed_bytes + self.compacted_bytes
        return written / self.user_bytes if self.user_bytes else 0.0

    @property
    def space_amplification(self) -> float:
        """Bytes of tables for each byte that is live."""
        size = sum(table.size_bytes for _, table in self.keyspace.tables())
        return size / (self.live * ENTRY_BYTES) if self.live else 0.0

    @property
    def read_amplification(self) -> float:
        """Sorted runs that hold a key, the mean over the keys."""
        tables = [table for _, table in self.keyspace.tables()]
        if not tables:
            return 0.0
        widths = [
            int.from_bytes(table.upper, "big") - int.from_bytes(table.lower, "big")
            for table in tables
        ]
        lower = int.from_bytes(min(table.lower for table in tables), "big")
        upper = int.from_bytes(max(table.upper for table in tables), "big")
        return sum(widths) / (upper - lower)


def _put_part(spans: Sequence[Span]) -> float:
    puts = sum((span.upper - span.lower) * span.puts for span in spans)
    deletes = sum((span.upper - span.lower) * span.deletes for span in spans)
    return puts / (puts + deletes)


def simulate(settings: KeyspaceSettings, load: str, flushes: int) -> Simulation:
    """Run a load of so many memtables, and the compactions that are left at its end."""
    simulation = Simulation(settings)
    operations = settings.memtable_bytes / ENTRY_BYTES
    for flush in LOADS[load](flushes, operations):
        simulation.flush(flush)
    simulation.settle()
    return simulation


def settings_of(strategy: str, load: str) -> KeyspaceSettings:
    """Return the settings that a run has: the defaults, with windows of 16 memtables."""
    base = KeyspaceSettings(compaction=strategy)
    if load == "in-order" and strategy == "time-window":
        seconds = max(1, 32 * base.memtable_bytes // ENTRY_BYTES // 1_000_000)
        return replace(base, window_seconds=seconds)
    return base


def row(strategy: str, load: str, simulation: Simulation) -> str:
    """Return one line of the table."""
    share = simulation.delayed_seconds / simulation.seconds if simulation.seconds else 0.0
    tables = len(simulation.keyspace.numbers)
    return (
        f"| {load} | {strategy} | {simulation.files} | {tables} "
        f"| {simulation.write_amplification:.2f} | {simulation.read_amplification:.2f} "
        f"| {simulation.space_amplification:.2f} | {100 * share:.1f} % "
        f"| {simulation.longest_pause:.1f} s |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="./dev simulate", description="Drive the planner over tables that do not exist."
    )
    parser.add_argument("--strategy", choices=STRATEGIES, action="append")
    parser.add_argument("--load", choices=list(LOADS), action="append")
    parser.add_argument("--flushes", type=one_or_more, default=200, help="memtables of each run")
    given = parser.parse_args(arguments)
    print("| load | strategy | files made | at the end | write | read | space | slowed | longest |")
    print("|---|---|---|---|---|---|---|---|---|")
    for load in given.load or LOADS:
        for strategy in given.strategy or STRATEGIES:
            simulation = simulate(settings_of(strategy, load), load, given.flushes)
            print(row(strategy, load, simulation), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
