"""What a compaction is: which tables go in, where the result goes, and what may be dropped on the
way.

A plan is computed from an immutable `KeyspaceVersion` and the numbers of the tables that running
compactions have, so a simulator can drive the policy. It stays valid while its own tables are busy,
because a level gives tables to one compaction at a time and no compaction takes a busy table:
nobody else writes into the range of its output level, or moves older data under it.

Invariants of a plan:
1. Inputs of a level below 0 are neighbours in that level; inputs of level 0 hold every table of
   level 0 that overlaps their common range.
2. Every table of the output level that overlaps the range of the inputs above it is an input,
   unless the plan is a move, where there is none.
3. Levels between the first input level and the output level hold nothing that overlaps the range.

Thread safety: pure functions and immutable values.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.manifest import KeyspaceVersion, VersionEdit
from holdfast.sstable import TableInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One compaction."""

    keyspace: int
    level: int
    """The highest level that gives tables."""
    inputs: tuple[tuple[int, tuple[TableInfo, ...]], ...]
    """(level, tables), from the highest level down; tables in the order of their level."""
    output_level: int
    is_move: bool
    """The tables change their level and nothing is read or written."""
    is_bottom: bool
    """No older version of any key in the range lies outside the inputs."""
    lower: bytes
    upper: bytes
    """The range [lower, upper) of all inputs."""
    reason: str
    score: float = 0.0
    """How urgent it is; plans of other keyspaces may be more so."""

    @property
    def tables(self) -> tuple[TableInfo, ...]:
        """All inputs."""
        return tuple(table for _, tables in self.inputs for table in tables)

    @property
    def input_numbers(self) -> frozenset[int]:
        """The numbers of all inputs: busy while the plan is carried out."""
        return frozenset(table.number for table in self.tables)

    @property
    def input_bytes(self) -> int:
        """The bytes of all inputs."""
        return total_bytes(self.tables)

    def edit(
        self, outputs: Sequence[TableInfo] = (), *, next_number: int | None = None
    ) -> VersionEdit:
        """Return the edit that puts `outputs` in the place of the inputs; a move has no outputs of
        its own.
        """
        return VersionEdit(
            tables_removed=tuple(
                (self.keyspace, level, table.number)
                for level, tables in self.inputs
                for table in tables
            ),
            tables_added=tuple(
                (self.keyspace, self.output_level, table)
                for table in (self.tables if self.is_move else outputs)
            ),
            next_number=next_number,
        )


def make_plan(
    version: KeyspaceVersion,
    level: int,
    tables: Sequence[TableInfo],
    output_level: int,
    below: Sequence[TableInfo],
    *,
    reason: str,
    is_move: bool = False,
) -> Plan:
    """Return the plan that takes `tables` of `level` and `below` of `output_level` to
    `output_level`.
    """
    inputs = ((level, tuple(tables)), (output_level, tuple(below)))
    every = (*tables, *below)
    lower, upper = span(every)
    numbers = frozenset(table.number for table in every)
    return Plan(
        keyspace=version.id,
        level=level,
        inputs=tuple((where, which) for where, which in inputs if which),
        output_level=output_level,
        is_move=is_move,
        is_bottom=is_bottom(version, output_level, lower, upper, numbers),
        lower=lower,
        upper=upper,
        reason=reason,
    )


def span(tables: Iterable[TableInfo]) -> tuple[bytes, bytes]:
    """Return the common range [lower, upper) of at least one table."""
    every = list(tables)
    return min(table.lower for table in every), max(table.upper for table in every)


def total_bytes(tables: Iterable[TableInfo]) -> int:
    """Return the bytes of the tables."""
    return sum(table.size_bytes for table in tables)


def overlapping(
    level: Sequence[TableInfo], lower: bytes | None, upper: bytes | None
) -> Sequence[TableInfo]:
    """Return the tables of a sorted level that share keys with [lower, upper)."""
    first = 0 if lower is None else bisect_right(level, lower, key=lambda table: table.upper)
    last = len(level) if upper is None else bisect_left(level, upper, key=lambda table: table.lower)
    return level[first : max(first, last)]


def level0_group(tables: Sequence[TableInfo], lower: bytes, upper: bytes) -> list[TableInfo]:
    """Return the tables of level 0 that overlap [lower, upper) or, in turn, the range of those
    found; newest first.

    Whatever is older and overlaps one of them is among them, so none of their keys has an older
    version left behind in level 0.
    """
    found: list[TableInfo] = []
    while True:
        wider = [table for table in tables if table.overlaps(lower, upper)]
        if len(wider) == len(found):
            return wider
        found = wider
        lower, upper = min(lower, *(t.lower for t in found)), max(upper, *(t.upper for t in found))


def is_bottom(
    version: KeyspaceVersion, output_level: int, lower: bytes, upper: bytes, inputs: frozenset[int]
) -> bool:
    """Return whether no table at or below `output_level`, but for the inputs, overlaps [lower,
    upper).

    Then nothing older than the inputs is left in the tree, and deletes that no snapshot sees past
    may go.
    """
    return all(
        table.number in inputs
        for level in version.levels[max(output_level, 1) :]
        for table in overlapping(level, lower, upper)
    )
