"""Figures of a database as lines for people: at rest, and of one that is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from holdfast import KeyspaceStats, Stats
from holdfast.cli.text import shown
from holdfast.engine import LiveFigures

_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))


def rest_object(stats: Stats) -> dict[str, object]:
    """Return what is true of a database at rest; counters of an open one would all be zero."""
    return {
        "keyspaces": [
            asdict(keyspace)
            | {"table_bytes": keyspace.table_bytes, "sorted_runs": keyspace.sorted_runs}
            for keyspace in stats.keyspaces
        ],
        "table_bytes": stats.table_bytes,
        "memtable_bytes": stats.memtable_bytes,
        "last_seq": stats.last_seq,
        "space_amplification": stats.space_amplification,
        "read_amplification": sorted_runs(stats),
    }


def rest_lines(stats: Stats) -> list[str]:
    """Return the table of a database at rest."""
    rows = [("keyspace", "level", "tables", "bytes", "entries", "deletes")]
    for keyspace in stats.keyspaces:
        rows += _rows(keyspace)
    return [
        *_table(rows),
        "",
        f"tables               {stats.table_bytes:,} bytes",
        f"only in the log      {stats.memtable_bytes:,} bytes in memory",
        f"space amplification  {stats.space_amplification:.2f} (tables to their deepest levels)",
        f"read amplification   {sorted_runs(stats)} (sorted runs a lookup may have to ask)",
    ]


def live_lines(figures: LiveFigures, rates: Mapping[str, float]) -> list[str]:
    """Return the table of a database that is open, with what happened in each second."""
    stats = figures.stats
    rows: list[Sequence[str]] = [
        ("keyspace", "level", "tables", "bytes", "compacted", "rewrites", "space", "pages read")
    ]
    for keyspace in stats.keyspaces:
        rows += _live_rows(keyspace)
    lines = [
        f"open {stats.seconds_open:,.0f} s"
        + (", POISONED: it takes no more writes" if stats.poisoned else ""),
        (
            f"each second          {rates['writes']:,.0f} writes of "
            f"{rates['user_bytes']:,.0f} bytes, {rates['reads']:,.0f} reads, "
            f"{rates['rows']:,.0f} rows, {rates['pages_read']:,.0f} pages from files"
        ),
        (
            f"write amplification  {stats.write_amplification:.2f} records and tables, "
            f"{stats.disk_write_amplification:.2f} with zeros ahead of the log and manifests"
        ),
        (
            f"read amplification   {stats.read_amplification:.3f} pages, "
            f"{stats.read_bytes_amplification:,.0f} bytes from files for each key or row"
        ),
        f"space amplification  {stats.space_amplification:.2f}",
        (
            f"pool                 {stats.pool_bytes:,} of {stats.pool_capacity_bytes:,} bytes, "
            f"hit ratio {stats.pool_hit_ratio:.4f}"
        ),
        (
            f"memory and log       {stats.memtable_bytes:,} bytes in memtables, "
            f"{stats.wal_bytes:,} in the log"
        ),
    ]
    if stats.background_error is not None:
        lines.append(f"background work      failed: {_text(stats.background_error)}")
    lines += ["", *_table(_latency_rows(stats))]
    waits = [wait for wait in stats.waits if wait.count]
    if waits:
        head = ("writers waited for", "times", "seconds", "in the last minute")
        table = [
            (
                _text(wait.cause),
                f"{wait.count:,}",
                f"{wait.seconds:,.3f}",
                f"{wait.recent_seconds:.3f}",
            )
            for wait in waits
        ]
        lines += ["", *_table([head, *table])]
    lines += ["", *_table(rows)]
    if figures.keyspaces_left_out:
        lines.append(f"and {figures.keyspaces_left_out:,} smaller keyspaces")
    return lines


def sorted_runs(stats: Stats) -> int:
    """Return the sorted runs that a lookup may have to ask in the worst keyspace."""
    return max((keyspace.sorted_runs for keyspace in stats.keyspaces), default=0)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows in columns, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        f"{row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def _rows(keyspace: KeyspaceStats) -> list[tuple[str, str, str, str, str, str]]:
    name = _text(keyspace.name)
    rows = []
    if keyspace.memtable_bytes:
        rows.append((name, "log", "-", f"{keyspace.memtable_bytes:,}", "-", "-"))
    rows += [
        (
            name,
            str(level.level),
            f"{level.tables:,}",
            f"{level.bytes:,}",
            f"{level.entries:,}",
            f"{level.deletes:,}",
        )
        for level in keyspace.levels
        if level.tables
    ]
    return rows or [(name, "-", "0", "0", "0", "0")]


def _live_rows(keyspace: KeyspaceStats) -> list[tuple[str, ...]]:
    """Return a row for the keyspace and one for each level that has or had something."""
    name = _text(keyspace.name)
    rows: list[tuple[str, ...]] = [
        (
            name,
            "all",
            f"{sum(level.tables for level in keyspace.levels):,}",
            f"{keyspace.table_bytes:,}",
            f"{keyspace.compacted_bytes:,}",
            f"{keyspace.rewrites:.2f}",
            f"{keyspace.space_amplification:.2f}",
            f"{keyspace.pages_read:,}",
        )
    ]
    flushed = keyspace.flushed_bytes
    rows += [
        (
            name,
            str(level.level),
            f"{level.tables:,}",
            f"{level.bytes:,}",
            f"{level.compacted_bytes:,}",
            f"{(level.compacted_bytes + (0 if level.level else flushed)) / flushed:.2f}"
            if flushed
            else "-",
            "-",
            f"{level.pages_read:,}",
        )
        for level in keyspace.levels
        if level.tables or level.compacted_bytes or level.pages_read
    ]
    return rows


def _latency_rows(stats: Stats) -> list[tuple[str, ...]]:
    return [
        ("latency", "times", "p50", "p99", "p99.9", "max"),
        *(
            (
                _text(latency.name),
                f"{latency.count:,}",
                *map(_duration, (latency.p50, latency.p99, latency.p999, latency.max)),
            )
            for latency in stats.latencies
        ),
    ]


def _text(text: str) -> str:
    """Return a text that another process wrote so that no terminal obeys it."""
    return shown(text.encode("utf-8", "surrogateescape"))


def _duration(seconds: float) -> str:
    """Return a time with three digits or a little more."""
    if not seconds:
        return "-"
    unit, size = next(((name, size) for name, size in _UNITS if seconds >= size), _UNITS[-1])
    return f"{seconds / size:.3g} {unit}" if seconds < 1000 else f"{seconds:,.0f} s"
