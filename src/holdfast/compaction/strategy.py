"""What a strategy is: a pure function of an immutable version that says which compaction a keyspace
needs most. The setting `compaction` of the keyspace names it.

A strategy knows the version, the numbers of the tables that running compactions have, the time that
is handed in, and whether snapshots exist. So the engine, a test and the simulator drive the same
code. A strategy must cope with every version, because a compaction by hand brings tables to deeper
levels under all of them.

Levels mean the same to all: everything in a level is newer than what a deeper level has of the same
key, and a deeper level is one sorted run. They differ in which tables they merge, and when.

Thread safety: pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.compaction.plan import Plan
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo

NO_TABLES: frozenset[int] = frozenset()


class Strategy(Protocol):
    """One way to choose compactions."""

    def pick(
        self,
        version: KeyspaceVersion,
        busy: frozenset[int] = NO_TABLES,
        *,
        now_us: int = 0,
        snapshots_exist: bool = False,
    ) -> Plan | None:
        """Return the compaction that is needed most and takes no busy table, or None.

        `busy` are the numbers of all tables that running compactions have; `now_us` is the wall
        time in microseconds. While snapshots exist nothing is dropped that they may see.
        """
        ...

    def run_count(self, version: KeyspaceVersion) -> int:
        """Return how many sorted runs wait to be merged: what pacing compares with `level0_tables`.

        It is below `level0_tables` when nothing has to be done.
        """
        ...

    def debt_bytes(self, version: KeyspaceVersion) -> int:
        """Return the bytes that compaction is behind."""
        ...

    def place(
        self, version: KeyspaceVersion, tables: Sequence[TableInfo], busy: frozenset[int]
    ) -> list[int]:
        """Return the level of each of `tables`, which are ingested together: disjoint, sorted, and
        newer than everything in the version.

        `busy` are the numbers of all tables that running compactions have.
        """
        ...
