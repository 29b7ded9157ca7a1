"""Rewriting tables where they are: each of a set becomes a new table of the same level.

For what a table is written with and not what is in it, such as the key that seals it. Plans are
computed from the version of their moment, and tables that other compactions took meanwhile are no
longer there to be rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.compaction.plan import Plan, make_plan
from holdfast.manifest import KeyspaceVersion

REASON = "rewrite"


class TableRenewal:
    """The steps that rewrite the tables with these numbers, one at a time."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = set(numbers)
        self.is_done = False
        """Whether there are no more plans."""

    def next_plan(self, version: KeyspaceVersion, busy: frozenset[int]) -> Plan | None:
        """Return the next plan, or None when there is none now.

        None and not `is_done`: running compactions have what is left; ask again when one has ended.
        """
        left = [
            (level, table) for level, table in version.tables() if table.number in self._numbers
        ]
        for level, table in left:
            if table.number not in busy:
                self._numbers.discard(table.number)
                return make_plan(version, level, (table,), level, (), reason=REASON)
        self.is_done = not left
        return None
