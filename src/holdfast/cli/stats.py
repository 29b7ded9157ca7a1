"""`holdfast stats DB`: sizes of keyspaces and levels, and the amplifications they amount to."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from holdfast import KeyspaceStats, Stats
from holdfast.cli.opening import add_database, open_database
from holdfast.cli.text import shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add_database(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    with open_database(arguments.database, read_only=True) as database:
        stats = database.stats()
    if arguments.json:
        print(json.dumps(_plain(stats)))
    else:
        print("\n".join(_lines(stats)))
    return 0


def _plain(stats: Stats) -> dict[str, object]:
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
        "read_amplification": _sorted_runs(stats),
    }


def _lines(stats: Stats) -> list[str]:
    rows = [("keyspace", "level", "tables", "bytes", "entries", "deletes")]
    for keyspace in stats.keyspaces:
        rows += _rows(keyspace)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{row[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return [
        *lines,
        "",
        f"tables               {stats.table_bytes:,} bytes",
        f"only in the log      {stats.memtable_bytes:,} bytes in memory",
        f"space amplification  {stats.space_amplification:.2f} (tables to their deepest levels)",
        f"read amplification   {_sorted_runs(stats)} (sorted runs a lookup may have to ask)",
    ]


def _rows(keyspace: KeyspaceStats) -> list[tuple[str, str, str, str, str, str]]:
    name = shown(keyspace.name.encode())
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


def _sorted_runs(stats: Stats) -> int:
    return max((keyspace.sorted_runs for keyspace in stats.keyspaces), default=0)
