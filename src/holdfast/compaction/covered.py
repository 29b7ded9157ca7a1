"""Tables that a range tombstone covers whole: they are dropped by a manifest edit, and not read.

A table goes when one durable range tombstone of the tree lies over its whole range and is newer
than everything in it. Nothing older comes back, since the tombstone covers that as well and stays
until a merge finds nothing below it. Requires that no snapshot lives: whoever carries the plan out
looks again.

(RocksDB leaves this to the user, as DeleteFilesInRanges.)

Thread safety: a pure function of immutable versions.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.compaction.plan import Plan, make_drop, overlapping
from holdfast.manifest import KeyspaceVersion

TOMBSTONES_MAX = 1000
"""More are not looked at in one pick."""


def pick_covered(
    version: KeyspaceVersion,
    busy: frozenset[int],
    tombstones: Iterable[tuple[bytes, bytes, int]],
) -> Plan | None:
    """Return the plan that drops every table that is covered whole and not busy, or None.

    `tombstones` are range tombstones (start, stop, sequence number) of tables of this version.
    """
    found = {}
    for (start, stop, seq), _ in zip(tombstones, range(TOMBSTONES_MAX), strict=False):
        for level, tables in enumerate(version.levels):
            for table in tables if level == 0 else overlapping(tables, start, stop):
                is_inside = start <= table.lower and table.upper <= stop
                if is_inside and table.seq_max < seq and table.number not in busy:
                    found[table.number] = level, table
    if not found:
        return None
    return make_drop(version, list(found.values()), reason="a range tombstone covers it")
