"""The strategy "size-tiered": sorted runs of similar size are merged together.

A run is what one flush or one merge made. The runs of a keyspace are ordered by age; when
`level0_tables` of them that follow each other are of similar size, they become one. So each byte is
rewritten once for each time that the data has grown by this factor, which is much less often than
in levels; for that, a read asks more runs, and obsolete versions stay longer: until their run meets
the newer one, up to about as much as the live data and, while the largest merge runs, once more.

How runs lie in a version (docs/adr/0023): a run of level 0 is the tables whose sequence numbers
mix, usually one table; a deeper level is one run. A merge goes to the deepest place that is newer
than the next older run: to the last level when there is none, to the level above the older run's,
or back to level 0, where it is one table of any size. So the oldest runs lie in the deepest levels,
cut into tables, and what reads and recovery know of levels holds as it is.

Runs are chosen, in this order:
- a tail of runs, down to the oldest, in which one of DENSE_ENTRIES entries is a delete, unless
  snapshots keep what they delete: the merge drops them with what they delete, so what it rewrites
  is paid for by them;
- the newest runs that are similar: none is more than SIMILAR times as large as the mean of those
  that are newer;
- when there are more than RUNS_MAX_FACTOR times `level0_tables` runs, the `level0_tables` in a row
  with the fewest bytes.

From Cassandra's size-tiered and RocksDB's universal compaction.

Thread safety: pure functions of immutable versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.base.limits import LEVELS_MAX
from holdfast.compaction.placement import places_up_to
from holdfast.compaction.plan import (
    DENSE_ENTRIES,
    Plan,
    is_any_busy,
    make_merge,
    seq_runs,
    total_bytes,
)
from holdfast.compaction.strategy import NO_TABLES
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo

SIMILAR = 2
RUNS_MAX_FACTOR = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Tables that are newer than those of older runs and share no keys, in most cases."""

    level: int
    tables: Sequence[TableInfo]
    size_bytes: int


class SizeTiered:
    """Merges runs of similar size. See `strategy.Strategy`."""

    def pick(
        self,
        version: KeyspaceVersion,
        busy: frozenset[int] = NO_TABLES,
        *,
        now_us: int = 0,
        snapshots_exist: bool = False,
    ) -> Plan | None:
        """Return the merge that is needed most, of runs of which none is busy."""
        _ = now_us
        runs = runs_of(version)
        if any(is_any_busy(run.tables, busy) for run in runs):
            return None
        width = max(2, version.settings.level0_tables)
        if not snapshots_exist:
            first = dense_tail(runs)
            if first is not None:
                return _plan(version, runs, first, len(runs), "many deletes", 1.0)
        found = similar(runs, width)
        if found is not None:
            reason = "runs of similar size"
            return _plan(version, runs, *found, reason, (found[1] - found[0]) / width)
        if len(runs) > RUNS_MAX_FACTOR * width:
            first = min(
                range(len(runs) - width + 1),
                key=lambda at: sum(run.size_bytes for run in runs[at : at + width]),
            )
            return _plan(version, runs, first, first + width, "too many runs", 1.0)
        return None

    def run_count(self, version: KeyspaceVersion) -> int:
        """Return the length of the next merge, or how many runs there are above the most."""
        runs = runs_of(version)
        width = max(2, version.settings.level0_tables)
        found = similar(runs, width)
        above = max(0, len(runs) - (RUNS_MAX_FACTOR - 1) * width)
        return max(above, 0 if found is None else found[1] - found[0])

    def debt_bytes(self, version: KeyspaceVersion) -> int:
        """Return 0: the larger a merge is, the longer it may wait."""
        _ = version
        return 0

    def place(
        self, version: KeyspaceVersion, tables: Sequence[TableInfo], busy: frozenset[int]
    ) -> list[int]:
        """Return the last level, with the oldest run, for what shares no keys with anything; else
        level 0, as a run of its own.
        """
        return places_up_to(version, tables, busy, [LEVELS_MAX - 1])


def runs_of(version: KeyspaceVersion) -> list[Run]:
    """Return the sorted runs, newest first."""
    runs = [Run(0, tables, total_bytes(tables)) for tables in seq_runs(version.levels[0])]
    runs += [
        Run(level, version.levels[level], total_bytes(version.levels[level]))
        for level in range(1, LEVELS_MAX)
        if version.levels[level]
    ]
    return runs


def similar(runs: Sequence[Run], width: int) -> tuple[int, int] | None:
    """Return (first, last) of the newest `width` or more runs in a row of similar size, or None."""
    for first in range(len(runs) - width + 1):
        last, total = first, 0
        while last < len(runs) and (
            last == first or runs[last].size_bytes * (last - first) <= SIMILAR * total
        ):
            total += runs[last].size_bytes
            last += 1
        if last - first >= width:
            return first, last
    return None


def dense_tail(runs: Sequence[Run]) -> int | None:
    """Return the first of the runs down to the oldest that have the most deletes for their entries,
    or None when these are too few to pay for a merge.
    """
    best: tuple[float, int] | None = None
    deletes = entries = 0
    for first in range(len(runs) - 1, -1, -1):
        deletes += sum(table.delete_count for table in runs[first].tables)
        entries += sum(table.entry_count for table in runs[first].tables)
        if deletes * DENSE_ENTRIES >= max(1, entries):
            best = max(best or (0.0, first), (deletes / entries, first))
    return None if best is None else best[1]


def _plan(
    version: KeyspaceVersion, runs: Sequence[Run], first: int, last: int, reason: str, score: float
) -> Plan:
    """Return the merge of runs[first:last]."""
    output_level = LEVELS_MAX - 1 if last == len(runs) else max(0, runs[last].level - 1)
    inputs = [
        (level, [table for run in runs[first:last] if run.level == level for table in run.tables])
        for level in range(LEVELS_MAX)
    ]
    return replace(make_merge(version, inputs, output_level, reason=reason), score=score)
