"""What a compaction is: which tables go in, where the result goes, and what may be dropped on the
way.

A plan is computed from an immutable `KeyspaceVersion` and the numbers of the tables that running
compactions have, so a simulator can drive the policy. It stays valid while its own tables are busy,
because a level gives tables to one compaction at a time and no compaction takes a busy table:
nobody else writes into the range of its output level, or moves older data under it.

Invariants of a plan that merges or moves:
1. Inputs of a level below 0 are neighbours in that level. A table of level 0 that overlaps their
   common range and is no input is newer than all of them or, when the output level is 0 as well,
   newer or older than all of them.
2. Every table of the output level, if it is not 0, that overlaps the range of the inputs above it
   is an input, unless the plan is a move, where there is none.
3. Levels between the first input level and the output level hold nothing else that overlaps the
   range.
Of a plan that drops:
4. No table that stays and overlaps an input is older than it, so that no older version of a key
   comes back when a newer one goes; or a range tombstone that stays lies over the whole input.

Thread safety: pure functions and immutable values.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from math import inf

from holdfast.compaction.retain import united
from holdfast.manifest import KeyspaceVersion, VersionEdit
from holdfast.sstable import TableInfo

SMALL_FRACTION = 16
"""A table under this part of `table_bytes` is small: it is joined with others where that is cheap.
"""
MOVED_TABLES = 2
"""A table larger than this many full ones is cut by a rewrite instead of being moved."""
DELETE_FRACTION = 8
"""A table that would bring a greater part of deletes than 1 in this to the bottom is rewritten."""
DENSE_ENTRIES = 4
"""A merge is worth its work for the space alone when one in this many of its entries is a delete.
"""


RANGE_DELETES = 64
"""A range tombstone counts for this many deletes. It may cover none or all: what it covers of whole
tables is dropped without being read, so this is a guess at the rest.
"""


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
    older: tuple[tuple[bytes, bytes], ...] = ()
    """The ranges, ascending and disjoint, outside of which the same holds of single keys."""
    is_drop: bool = False
    """The tables leave the tree with what they hold, and nothing is read or written."""

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
        its own, a drop has none.
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
    inputs = ((level, tables), (output_level, below))
    return make_merge(version, inputs, output_level, reason=reason, is_move=is_move)


def make_merge(
    version: KeyspaceVersion,
    inputs: Sequence[tuple[int, Sequence[TableInfo]]],
    output_level: int,
    *,
    reason: str,
    is_move: bool = False,
) -> Plan:
    """Return the plan that takes (level, tables), from the highest level down, to
    `output_level`.
    """
    taken = tuple((level, tuple(tables)) for level, tables in inputs if tables)
    every = [table for _, tables in taken for table in tables]
    lower, upper = span(every)
    numbers = frozenset(table.number for table in every)
    older = united(
        (table.lower, table.upper)
        for table in older_tables(version, output_level, lower, upper, numbers)
    )
    return Plan(
        keyspace=version.id,
        level=taken[0][0],
        inputs=taken,
        output_level=output_level,
        is_move=is_move,
        is_bottom=not older,
        older=tuple(older),
        lower=lower,
        upper=upper,
        reason=reason,
    )


def make_drop(
    version: KeyspaceVersion, inputs: Sequence[tuple[int, TableInfo]], *, reason: str
) -> Plan:
    """Return the plan that drops (level, table) of some tables. It goes before all other plans."""
    by_level = tuple(
        (level, tuple(table for where, table in inputs if where == level))
        for level in range(len(version.levels))
    )
    taken = tuple((level, tables) for level, tables in by_level if tables)
    lower, upper = span(table for _, table in inputs)
    return Plan(
        keyspace=version.id,
        level=taken[0][0],
        inputs=taken,
        output_level=taken[-1][0],
        is_move=False,
        is_bottom=False,
        lower=lower,
        upper=upper,
        reason=reason,
        score=inf,
        is_drop=True,
    )


def may_move(version: KeyspaceVersion, table: TableInfo, output_level: int) -> bool:
    """Return whether a table that overlaps nothing of `output_level` gains nothing from a rewrite
    on its way there.
    """
    if table.size_bytes > MOVED_TABLES * version.settings.table_bytes:
        return False
    if (
        table.delete_count * DELETE_FRACTION <= table.entry_count
        and not table.range_tombstone_count
    ):
        return True
    return not is_bottom(
        version, output_level, table.lower, table.upper, frozenset((table.number,))
    )


def is_dense(tables: Iterable[TableInfo]) -> bool:
    """Return whether so many of the entries are deletes that merging the tables pays."""
    every = list(tables)
    deletes = sum(delete_weight(table) for table in every)
    entries = sum(table.entry_count - table.delete_count + delete_weight(table) for table in every)
    return deletes > 0 and deletes * DENSE_ENTRIES >= entries


def delete_weight(table: TableInfo) -> int:
    """Return how many deletes a table counts for, its range tombstones among them."""
    return table.delete_count + RANGE_DELETES * table.range_tombstone_count


def seq_runs(tables: Sequence[TableInfo]) -> list[list[TableInfo]]:
    """Return tables of level 0, newest first, as runs, newest first.

    Every sequence number of a run is greater than all of those behind it, so any runs that follow
    each other may be merged.
    """
    runs: list[list[TableInfo]] = []
    least = 0
    for table in tables:
        if runs and table.seq_max >= least:
            runs[-1].append(table)
            least = min(least, table.seq_min)
        else:
            runs.append([table])
            least = table.seq_min
    return runs


def span(tables: Iterable[TableInfo]) -> tuple[bytes, bytes]:
    """Return the common range [lower, upper) of at least one table."""
    every = list(tables)
    return min(table.lower for table in every), max(table.upper for table in every)


def total_bytes(tables: Iterable[TableInfo]) -> int:
    """Return the bytes of the tables."""
    return sum(table.size_bytes for table in tables)


def is_any_busy(tables: Iterable[TableInfo], busy: frozenset[int]) -> bool:
    """Return whether a running compaction has one of the tables."""
    return bool(busy) and any(table.number in busy for table in tables)


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
    """Return whether nothing older than the inputs is left in the tree: then deletes that no
    snapshot sees past may go.
    """
    found = older_tables(version, output_level, lower, upper, inputs)
    return next(iter(found), None) is None


def older_tables(
    version: KeyspaceVersion, output_level: int, lower: bytes, upper: bytes, inputs: frozenset[int]
) -> Iterator[TableInfo]:
    """Yield the tables at or below `output_level`, but for the inputs, that overlap [lower, upper).
    In level 0 only those behind an input count: the others are newer.
    """
    if output_level == 0:
        behind = dropwhile(lambda table: table.number not in inputs, version.levels[0])
        yield from (t for t in behind if t.number not in inputs and t.overlaps(lower, upper))
    for level in version.levels[max(output_level, 1) :]:
        for table in overlapping(level, lower, upper):
            if table.number not in inputs:
                yield table
