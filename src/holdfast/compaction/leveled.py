"""The leveled strategy: which compaction a keyspace needs most, if any.

Level 0 holds what was flushed, by age. Every deeper level is one sorted run of disjoint tables,
`level_ratio` times as large as the one above. A level's *score* says how far it is above its
target; the highest score of at least 1 goes first:

- level 0: its number of runs over `level0_tables`, because each run costs every read; a run is a
  table, or the tables of one ingest or large flush, whose numbers mix;
- level n: its bytes over its target, which is at most `level1_bytes * level_ratio ** (n - 1)`. A
  table whose deletes are more than half of its entries counts DELETE_WEIGHT times, unless snapshots
  would keep the deleted data anyway: space comes back sooner for a little extra work;
- tables that a compaction already has are not counted, and the last level has no target.

What lies above the deepest level may hide as much there. So a level's target is not only its place
in the row, but also, `level_ratio` by `level_ratio` from the deepest level up, a part of what that
one has, though never less than `level1_bytes`: space stays near the live data whatever its size,
and while the deepest level is young, tables are moved to it and not rewritten. (RocksDB's dynamic
level bytes.)

When no level is above its target, tables of which many entries are deletes are brought down, or
rewritten where nothing older lies below them: as long as one of DENSE_ENTRIES entries of the merge
is a delete, so that the deletes pay for it. A queue is the case: its deletes lie where every scan
begins. Range tombstones count as deletes; what they cover whole is dropped before (`covered`).

A level gives tables to one compaction at a time. A second one might write between the tables of the
first, into a range of the output level where neither has a table yet.

Inside level n the table is taken that overlaps the fewest bytes of level n + 1 for each of its own.
Against going round the keys this writes as much when keys are overwritten evenly and 8 percent less
when some are overwritten more often (10.7 against 10.7 times, and 8.9 against 9.6, in the
simulation of tests/unit/compaction), and it finds at once the tables that overlap nothing, which is
the rule for data that arrives in time order.

A table that overlaps nothing is moved by a manifest edit alone, so data in key order is written
once. Three cases are merged although they could move. A table that would bring more than
1/DELETE_FRACTION deletes, or range tombstones, to the bottom: a rewrite drops them. A table larger
than MOVED_TABLES full ones: a rewrite cuts it. A table that is small (under 1/SMALL_FRACTION of
`table_bytes`) and finds neighbours to join. A small result joins neighbours of its size or less in
the output level, so tables double in size, as the carries of a binary counter, and their number
stays bounded.

Leveled trees are from O'Neil's LSM tree and LevelDB; the choice by overlap is RocksDB's.

Thread safety: pure functions of immutable versions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from holdfast.base.limits import LEVELS_MAX
from holdfast.compaction.placement import places_up_to
from holdfast.compaction.plan import (
    SMALL_FRACTION,
    Plan,
    delete_weight,
    is_any_busy,
    is_bottom,
    is_dense,
    level0_group,
    make_plan,
    may_move,
    overlapping,
    seq_runs,
    span,
    total_bytes,
)
from holdfast.compaction.strategy import NO_TABLES
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo

DELETE_WEIGHT = 1.5
EXPANDED_TABLES = 25
"""A compaction takes more tables of its upper level for free as long as its inputs stay below this
many full tables.
"""


def level_limit(version: KeyspaceVersion, level: int) -> int:
    """Return the bytes that `level`, from 1 on, never should exceed."""
    limit: int = version.settings.level1_bytes * version.settings.level_ratio ** (level - 1)
    return limit


def level_target(version: KeyspaceVersion, level: int) -> int:
    """Return the bytes that `level`, from 1 on, should not exceed: its limit, and above the deepest
    level not more than a part of what that one has.
    """
    limit = level_limit(version, level)
    deepest = max((n for n in range(1, LEVELS_MAX) if version.levels[n]), default=level)
    if deepest <= level:
        return limit
    ratio: int = version.settings.level_ratio ** (deepest - level)
    share = total_bytes(version.levels[deepest]) // ratio
    return min(limit, max(share, version.settings.level1_bytes))


def scores(
    version: KeyspaceVersion, busy: frozenset[int], *, snapshots_exist: bool
) -> list[tuple[float, int]]:
    """Return (score, level) of every level but the last, the most urgent first."""
    waiting = len(seq_runs([table for table in version.levels[0] if table.number not in busy]))
    found = [(waiting / version.settings.level0_tables, 0)]
    for level in range(1, LEVELS_MAX - 1):
        weighed = sum(
            table.size_bytes
            * (DELETE_WEIGHT if not snapshots_exist and _is_mostly_deletes(table) else 1)
            for table in version.levels[level]
            if table.number not in busy
        )
        found.append((weighed / level_target(version, level), level))
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def debt_bytes(version: KeyspaceVersion) -> int:
    """Return the bytes that lie above the limits of their levels."""
    debt = 0
    if len(version.levels[0]) > version.settings.level0_tables:
        debt += total_bytes(version.levels[0])
    for level in range(1, LEVELS_MAX - 1):
        debt += max(0, total_bytes(version.levels[level]) - level_limit(version, level))
    return debt


class Leveled:
    """Keeps levels within their targets. See `strategy.Strategy`."""

    def pick(
        self,
        version: KeyspaceVersion,
        busy: frozenset[int] = NO_TABLES,
        *,
        now_us: int = 0,
        snapshots_exist: bool = False,
    ) -> Plan | None:
        """Return the compaction of the most urgent level, else of tables full of deletes."""
        _ = now_us
        return pick(version, busy, snapshots_exist=snapshots_exist)

    def run_count(self, version: KeyspaceVersion) -> int:
        """Return the runs of level 0."""
        return len(seq_runs(version.levels[0]))

    def debt_bytes(self, version: KeyspaceVersion) -> int:
        """Return the bytes above the limits of their levels."""
        return debt_bytes(version)

    def place(
        self, version: KeyspaceVersion, tables: Sequence[TableInfo], busy: frozenset[int]
    ) -> list[int]:
        """Return the levels in which compactions would bring the tables to rest: at most the
        deepest one that is in use, or the first that has room for all of them. Few bytes go to
        level 0, where they find company.
        """
        total = total_bytes(tables)
        if total < _small_bytes(version):
            return [0] * len(tables)
        deepest = 1
        for level in range(1, LEVELS_MAX):
            if version.levels[level]:
                deepest = level
        while deepest < LEVELS_MAX - 1 and level_limit(version, deepest) < total + total_bytes(
            version.levels[deepest]
        ):
            deepest += 1
        return places_up_to(version, tables, busy, range(1, deepest + 1))


def pick(
    version: KeyspaceVersion, busy: frozenset[int] = NO_TABLES, *, snapshots_exist: bool = False
) -> Plan | None:
    """Return the compaction that is needed most and takes no busy table, or None.

    `busy` are the numbers of all tables that running compactions have.
    """
    for score, level in scores(version, busy, snapshots_exist=snapshots_exist):
        if score < 1:
            break
        plan = _pick_level0(version, busy) if level == 0 else _pick_deeper(version, level, busy)
        if plan is not None:
            return replace(plan, score=score)
    return None if snapshots_exist else _pick_dense(version, busy)


def _pick_dense(version: KeyspaceVersion, busy: frozenset[int]) -> Plan | None:
    """Return a merge that is paid for by the deletes among its inputs."""
    reason = "many deletes"
    if not is_any_busy(version.levels[0], busy):
        tried: set[int] = set()
        # A table of deletes among others that do not share its keys is not waited for.
        for seed in reversed(version.levels[0]):
            if seed.number in tried or not is_dense((seed,)):
                continue
            group = level0_group(version.levels[0], seed.lower, seed.upper)
            tried.update(table.number for table in group)
            below = overlapping(version.levels[1], *span(group))
            if is_dense((*group, *below)) and not is_any_busy(below, busy):
                return _settled(version, 0, group, below, busy, reason)
    for level in range(1, LEVELS_MAX):
        if is_any_busy(version.levels[level], busy):
            continue
        for table in version.levels[level]:
            if not is_dense((table,)):
                continue
            numbers = frozenset((table.number,))
            if is_bottom(version, level, table.lower, table.upper, numbers):
                return make_plan(version, level, (table,), level, (), reason=reason)
            below = overlapping(version.levels[level + 1], table.lower, table.upper)
            if is_dense((table, *below)) and not is_any_busy(below, busy):
                return _settled(version, level, (table,), below, busy, reason)
    return None


def _is_mostly_deletes(table: TableInfo) -> bool:
    return delete_weight(table) > table.entry_count - table.delete_count


def _small_bytes(version: KeyspaceVersion) -> int:
    return version.settings.table_bytes // SMALL_FRACTION


def _pick_level0(version: KeyspaceVersion, busy: frozenset[int]) -> Plan | None:
    """Return a compaction of the oldest tables that can go."""
    tables = version.levels[0]
    if is_any_busy(tables, busy):
        return None
    tried: set[int] = set()
    for seed in reversed(tables):
        if seed.number in tried:
            continue
        group = _with_small_groups(version, level0_group(tables, seed.lower, seed.upper))
        tried.update(table.number for table in group)
        below = overlapping(version.levels[1], *span(group))
        if not is_any_busy(below, busy):
            return _settled(version, 0, group, below, busy, "level 0 has too many tables")
    return None


def _with_small_groups(version: KeyspaceVersion, group: list[TableInfo]) -> list[TableInfo]:
    """Return the group, joined by other tables of level 0 while all of it is small.

    What it would have to take from level 1 counts, so that two small tables far apart do not
    rewrite all between them.
    """
    tables = version.levels[0]
    small = _small_bytes(version)
    numbers = {table.number for table in group}
    for other in reversed(tables):
        if total_bytes(group) >= small:
            break
        if other.number in numbers:
            continue
        joined = level0_group(tables, *span((*group, other)))
        below = overlapping(version.levels[1], *span(joined))
        if total_bytes(joined) + total_bytes(below) <= version.settings.table_bytes:
            group = joined
            numbers = {table.number for table in group}
    return group


def _pick_deeper(version: KeyspaceVersion, level: int, busy: frozenset[int]) -> Plan | None:
    """Return the compaction of the table with the least overlap."""
    under = version.levels[level + 1]
    if is_any_busy(version.levels[level], busy):
        return None
    best: tuple[float, int] | None = None
    chosen: tuple[TableInfo, Sequence[TableInfo]] | None = None
    for table in version.levels[level]:
        below = overlapping(under, table.lower, table.upper)
        rank = (total_bytes(below) / table.size_bytes, table.number)
        if (best is None or rank < best) and not is_any_busy(below, busy):
            best, chosen = rank, (table, below)
    if chosen is None:
        return None
    table, below = chosen
    tables = _expanded(version, level, table, below)
    return _settled(version, level, tables, below, busy, f"level {level} is above its target")


def _expanded(
    version: KeyspaceVersion, level: int, table: TableInfo, below: Sequence[TableInfo]
) -> Sequence[TableInfo]:
    """Return the tables of `level` that can go along without a further table of the next level.

    What of the next level is rewritten anyway then takes in more, and a small table that overlaps
    nothing finds company.
    """
    limit = EXPANDED_TABLES * version.settings.table_bytes if below else _small_bytes(version)
    tables = version.levels[level]
    first = bisect_left(tables, table.lower, key=lambda other: other.lower)
    last = first + 1
    size = table.size_bytes + total_bytes(below)
    lower, upper = span((table, *below))
    for step in (-1, 1):
        while True:
            at = first - 1 if step < 0 else last
            if not 0 <= at < len(tables):
                break
            other = tables[at]
            reaches = other.overlaps(lower, upper) or not below
            met = overlapping(version.levels[level + 1], other.lower, other.upper)
            if (
                not reaches
                or size + other.size_bytes > limit
                or any(under not in below for under in met)
            ):
                break
            size += other.size_bytes
            first, last = min(first, at), max(last, at + 1)
    grown = tables[first:last]
    if list(overlapping(version.levels[level + 1], *span(grown))) != list(below):
        return (table,)
    return grown


def _settled(
    version: KeyspaceVersion,
    level: int,
    tables: Sequence[TableInfo],
    below: Sequence[TableInfo],
    busy: frozenset[int],
    reason: str,
) -> Plan:
    """Return the plan for these inputs: a move if it can be one, with small neighbours of the
    output level if it is small.
    """
    output_level = level + 1
    joined = _with_small_neighbours(version, output_level, tables, below, busy)
    if len(tables) == 1 and not joined and may_move(version, tables[0], output_level):
        return make_plan(version, level, tables, output_level, (), reason=reason, is_move=True)
    return make_plan(version, level, tables, output_level, joined, reason=reason)


def _with_small_neighbours(
    version: KeyspaceVersion,
    output_level: int,
    tables: Sequence[TableInfo],
    below: Sequence[TableInfo],
    busy: frozenset[int],
) -> Sequence[TableInfo]:
    """Return `below` and, while all inputs together are small, neighbours of at most their size."""
    level = version.levels[output_level]
    lower, _ = span((*tables, *below))
    first = bisect_left(level, lower, key=lambda table: table.lower)
    last = first + len(below)
    size = total_bytes(tables) + total_bytes(below)
    while size < _small_bytes(version):
        for at in (first - 1, last):
            if (
                0 <= at < len(level)
                and level[at].size_bytes <= size
                and level[at].number not in busy
            ):
                size += level[at].size_bytes
                first, last = min(first, at), max(last, at + 1)
                break
        else:
            break
    return level[first:last]
