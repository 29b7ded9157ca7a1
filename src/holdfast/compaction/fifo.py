"""The strategy "fifo": nothing is rewritten, and whole tables are dropped, oldest first.

For caches and logs whose data has a date of expiry. A table goes when it was finished more than
`retention_seconds` ago, or while all tables together have more than `retention_bytes`. The order is
strictly that of age: a table goes only when everything older than it has gone. So a version that
goes never uncovers an older one of the same key, and a delete never goes before what it deletes.

Each flush is one table, and a read may have to ask every one of them. Tables that are small (under
1/SMALL_FRACTION of `table_bytes`) are merged when `level0_tables` of similar size follow each
other, so that a database that is often opened and closed does not end up with thousands; the result
is as old as the merge, so its data may stay longer than it had to, but never goes sooner. Each
merge needs several times the data of the one before, and so the time, so that all together they
keep data for about as long again as the last of them does.

While a snapshot exists nothing is dropped: it would see that. The idea is RocksDB's.

Thread safety: pure functions of immutable versions.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.compaction.plan import (
    SMALL_FRACTION,
    Plan,
    is_any_busy,
    make_drop,
    make_merge,
    seq_runs,
    total_bytes,
)
from holdfast.compaction.strategy import NO_TABLES
from holdfast.compaction.tiered import Run, similar
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo


class Fifo:
    """Drops what is old. See `strategy.Strategy`."""

    def pick(
        self,
        version: KeyspaceVersion,
        busy: frozenset[int] = NO_TABLES,
        *,
        now_us: int = 0,
        snapshots_exist: bool = False,
    ) -> Plan | None:
        """Return the drop of all that is too old or too much, else a merge of small tables."""
        old = [] if snapshots_exist else _expired(version, now_us)
        if old and not is_any_busy((table for _, table in old), busy):
            return make_drop(version, old, reason="tables are older or larger than the retention")
        return _join_small(version, busy)

    def run_count(self, version: KeyspaceVersion) -> int:
        """Return 0: writers wait for nothing but flushes."""
        _ = version
        return 0

    def debt_bytes(self, version: KeyspaceVersion) -> int:
        """Return 0: no work waits."""
        _ = version
        return 0

    def place(
        self, version: KeyspaceVersion, tables: Sequence[TableInfo], busy: frozenset[int]
    ) -> list[int]:
        """Return level 0 for all: it has the order of age, and they are the youngest."""
        _ = version, busy
        return [0] * len(tables)


def _by_age(version: KeyspaceVersion) -> list[tuple[int, TableInfo]]:
    """Return (level, table) of all tables, oldest first.

    Those of a deeper level share no keys, so among them any order keeps the rule.
    """
    found = [
        (level, table)
        for level in range(len(version.levels) - 1, 0, -1)
        for table in sorted(version.levels[level], key=lambda table: table.created_us)
    ]
    return [*found, *((0, table) for table in reversed(version.levels[0]))]


def _expired(version: KeyspaceVersion, now_us: int) -> list[tuple[int, TableInfo]]:
    """Return the oldest tables, up to the first that may stay."""
    settings = version.settings
    ordered = _by_age(version)
    left = total_bytes(table for _, table in ordered)
    limit = settings.retention_bytes or left
    oldest_us = now_us - settings.retention_seconds * 1_000_000
    found = []
    for level, table in ordered:
        is_old = settings.retention_seconds > 0 and table.created_us < oldest_us
        if not is_old and left <= limit:
            break
        found.append((level, table))
        left -= table.size_bytes
    return found


def _join_small(version: KeyspaceVersion, busy: frozenset[int]) -> Plan | None:
    """Return the merge of small runs of similar size that follow each other, if there are enough.

    Were a larger one taken with them, what is in it would never become old.
    """
    settings = version.settings
    small = settings.table_bytes // SMALL_FRACTION
    row: list[Run] = []
    for run in [*seq_runs(version.levels[0]), ()]:
        if run and total_bytes(run) < small and not is_any_busy(run, busy):
            # By what is in it: files of few rows are of one size.
            row.append(Run(0, run, sum(table.raw_bytes for table in run)))
            continue
        found = similar(row, max(2, settings.level0_tables))
        if found is not None:
            taken = [table for each in row[found[0] : found[1]] for table in each.tables]
            return make_merge(version, [(0, taken)], 0, reason="small tables are joined")
        row = []
    return None
