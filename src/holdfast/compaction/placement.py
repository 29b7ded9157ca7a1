"""Where ingested tables go: the deepest level that suits the strategy and where they hide nothing
and are hidden by nothing.

What is ingested is newer than everything in the tree. So a table may lie in a level only when
nothing in it, nor in a level above, shares keys with the table; level 0 takes it always. And it
stays out of the range of what running compactions have: their results go into that range, wherever
the inputs leave gaps in it.

Thread safety: pure functions of immutable versions.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.compaction.plan import overlapping, span
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo


def places_up_to(
    version: KeyspaceVersion,
    tables: Sequence[TableInfo],
    busy: frozenset[int],
    levels: Sequence[int],
) -> list[int]:
    """Return for each table the deepest of `levels`, ascending, where it may lie, or 0."""
    taken = [table for _, table in version.tables() if table.number in busy]
    found = []
    for table in tables:
        free = 0
        if not taken or not table.overlaps(*span(taken)):
            free = _free_level(version, table)
        found.append(max((level for level in levels if level <= free), default=0))
    return found


def _free_level(version: KeyspaceVersion, table: TableInfo) -> int:
    """Return the deepest level such that neither it nor one above shares keys with the table; 0
    also when level 0 does.
    """
    if any(other.overlaps(table.lower, table.upper) for other in version.levels[0]):
        return 0
    free = 0
    for level in range(1, len(version.levels)):
        if overlapping(version.levels[level], table.lower, table.upper):
            break
        free = level
    return free


def compression_at(version: KeyspaceVersion, first: bytes) -> str:
    """Return the compression of an ingested table that begins with `first`: that of the last level
    when no table lies there or behind, so that it will have nothing below it.

    Where it will go is not known before its last key is.
    """
    settings = version.settings
    if settings.compaction == "fifo" or any(
        table.overlaps(first, None) for _, table in version.tables()
    ):
        return settings.compression
    return settings.compression_last
