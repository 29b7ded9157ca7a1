"""The strategy "time-window": data of one span of time lies together, is merged once, and leaves
together.

The first 8 bytes of each key are a big-endian time since 1970, in `key_time_unit`; a *window* is
`window_seconds` of it, counted from 0, and so a range of keys. (docs/adr/0024 says why the time of
the key and not that of the writing.) Every job of such a keyspace cuts its tables where a window
begins, so flushed data that came late lies in tables of its own window. Shorter keys count as if
zeros followed. Any key is allowed; one that is no time lies in some window far away.

A window is *open* while it may still be written to in the ordinary course: until there are tables
of a later one. Windows that begin after now are no reason to close an earlier one, so keys that are
no time, and a clock that is wrong, close nothing.

Level 0 holds what was flushed, level 1 the windows, disjoint. The tables of level 0 that overlap,
in turn, are a *group*:
- a single full table that overlaps nothing goes to level 1 by the edit alone, open or not: keys in
  order are written once;
- a group of an open window waits until a key would be asked for in `level0_tables` tables; then its
  runs of similar size are merged, as by `tiered`;
- a table that spans several windows, as a range tombstone does, makes them one group, in which
  every run counts; where its runs of similar size share no keys, all of it goes to level 1;
- a group of a closed window is merged into level 1, with what it overlaps there, and is left alone
  from then on. Late data is merged with its window when it has at least 1/LATE_RATIO of the bytes
  that it overlaps, before that only with other late data of its window.

Retention drops whole tables: those whose last window ended `retention_seconds` ago, and those of
the oldest windows while all tables have more than `retention_bytes`. An older table that overlaps
and stays would show what the newer one hid, so the newer one stays with it. While a snapshot exists
nothing is dropped: it would see that.

From Cassandra's time-window strategy and InfluxDB's shards.

Thread safety: pure functions of immutable versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from holdfast.base import KeyspaceSettings
from holdfast.compaction.placement import places_up_to
from holdfast.compaction.plan import (
    SMALL_FRACTION,
    Plan,
    is_any_busy,
    make_drop,
    make_merge,
    make_plan,
    may_move,
    overlapping,
    seq_runs,
    span,
    total_bytes,
)
from holdfast.compaction.strategy import NO_TABLES
from holdfast.compaction.tiered import Run, similar
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo

TIME_BYTES = 8
TIME_LIMIT = 1 << (8 * TIME_BYTES)
UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
LATE_RATIO = 4
CROWDED_FACTOR = 8
"""With this many times `level0_tables` in level 0, small tables of an open window go on as well."""

Group = Sequence[TableInfo]


def window_of(settings: KeyspaceSettings, key: bytes) -> int:
    """Return the number of the window in which `key` lies."""
    time = int.from_bytes(key[:TIME_BYTES].ljust(TIME_BYTES, b"\x00"), "big")
    return time // _width(settings)


def window_start(settings: KeyspaceSettings, window: int) -> bytes | None:
    """Return the least key of a window, or None when no time is as late."""
    time = window * _width(settings)
    return time.to_bytes(TIME_BYTES, "big") if time < TIME_LIMIT else None


def last_window(settings: KeyspaceSettings, upper: bytes) -> int:
    """Return the last window of a range of keys up to `upper`, which is not in it."""
    window = window_of(settings, upper)
    start = window_start(settings, window)
    return window - 1 if window and start is not None and upper <= start else window


def next_window_start(settings: KeyspaceSettings, key: bytes) -> bytes | None:
    """Return the least key of the window after that of `key`, or None when there is none."""
    return window_start(settings, window_of(settings, key) + 1)


@cache
def _width(settings: KeyspaceSettings) -> int:
    return settings.window_seconds * UNITS_PER_SECOND[settings.key_time_unit]


class TimeWindow:
    """Merges each window once. See `strategy.Strategy`."""

    def pick(
        self,
        version: KeyspaceVersion,
        busy: frozenset[int] = NO_TABLES,
        *,
        now_us: int = 0,
        snapshots_exist: bool = False,
    ) -> Plan | None:
        """Return the drop of all that is too old or too much, else the merge of the oldest group
        that is due.
        """
        if is_any_busy((table for level in version.levels[:2] for table in level), busy):
            return None
        if not snapshots_exist:
            old = _expired(version, now_us)
            if old and not is_any_busy((table for _, table in old), busy):
                return make_drop(version, old, reason="windows are beyond the retention")
        open_from = _open_window(version, now_us)
        for group in groups_of(version.levels[0]):
            plan = self._pick_group(version, group, open_from)
            if plan is not None:
                return plan
        return None

    def run_count(self, version: KeyspaceVersion) -> int:
        """Return how many tables of level 0 a key may be in."""
        return max((_depth(group) for group in groups_of(version.levels[0])), default=0)

    def debt_bytes(self, version: KeyspaceVersion) -> int:
        """Return 0: a window may wait."""
        _ = version
        return 0

    def place(
        self, version: KeyspaceVersion, tables: Sequence[TableInfo], busy: frozenset[int]
    ) -> list[int]:
        """Return level 1 for what shares no keys with anything, but level 0 for small tables, which
        find others of their window from there.
        """
        small = version.settings.table_bytes // SMALL_FRACTION
        levels = places_up_to(version, tables, busy, [1])
        return [
            0 if table.size_bytes < small else level
            for table, level in zip(tables, levels, strict=True)
        ]

    def _pick_group(self, version: KeyspaceVersion, group: Group, open_from: int) -> Plan | None:
        """Return what a group needs, if anything."""
        settings = version.settings
        below = overlapping(version.levels[1], *span(group))
        small = settings.table_bytes // SMALL_FRACTION
        is_open = last_window(settings, span(group)[1]) >= open_from
        width = max(2, settings.level0_tables)
        is_crowded = len(version.levels[0]) >= CROWDED_FACTOR * width
        may_wait = is_open and not is_crowded and group[0].size_bytes < small
        if len(group) == 1 and not below and not may_wait:
            return _settled(version, group[0], small)
        runs = [Run(0, tables, total_bytes(tables)) for tables in seq_runs(group)]
        is_wide = window_of(settings, span(group)[0]) < last_window(settings, span(group)[1])
        if is_open and (len(runs) if is_wide else _depth(group)) < width:
            return None
        down = make_plan(version, 0, group, 1, below, reason="a window is closed")
        if not is_open and total_bytes(below) <= LATE_RATIO * total_bytes(group):
            return replace(down, score=1.0)
        if below:
            runs.append(Run(1, below, total_bytes(below)))
        found = similar(runs, width)
        if found is None and len(runs) >= 2 * width:
            found = 0, width
        if found is None:
            return None
        taken = [table for run in runs[found[0] : found[1]] for table in run.tables]
        if is_wide and _depth(taken) == 1:
            # Only one that is not among them binds them: they would be cut as they are.
            return replace(down, reason="windows that one table spans", score=1.0)
        return _merged(version, runs, *found)


def _merged(version: KeyspaceVersion, runs: Sequence[Run], first: int, last: int) -> Plan:
    """Return the merge of some runs of a group: into level 1 if nothing older is left."""
    inputs = [
        (level, [table for run in runs[first:last] if run.level == level for table in run.tables])
        for level in (0, 1)
    ]
    output_level = 1 if last == len(runs) else 0
    plan = make_merge(version, inputs, output_level, reason="runs of a window")
    return replace(plan, score=(last - first) / max(2, version.settings.level0_tables))


def _settled(version: KeyspaceVersion, table: TableInfo, small: int) -> Plan:
    """Return the move of a table that overlaps nothing, or its merge with small neighbours of its
    window.
    """
    settings = version.settings
    window = window_of(settings, table.lower)
    near = overlapping(
        version.levels[1], window_start(settings, window), window_start(settings, window + 1)
    )
    at = len(overlapping(near, None, table.lower))
    first = last = at
    size = table.size_bytes
    while size < small:
        if first > 0 and near[first - 1].size_bytes <= size:
            first -= 1
            size += near[first].size_bytes
        elif last < len(near) and near[last].size_bytes <= size:
            size += near[last].size_bytes
            last += 1
        else:
            break
    is_move = first == last and may_move(version, table, 1)
    plan = make_plan(
        version, 0, (table,), 1, near[first:last], reason="a table of a window", is_move=is_move
    )
    return replace(plan, score=1.0)


def groups_of(tables: Sequence[TableInfo]) -> list[Group]:
    """Return the groups of level 0, by key; the tables of each newest first. Each has tables that
    overlap in turn, and no two groups overlap.
    """
    place = {table.number: index for index, table in enumerate(tables)}
    groups: list[list[TableInfo]] = []
    upper = b""
    for table in sorted(tables, key=lambda table: table.lower):
        if groups and table.lower < upper:
            groups[-1].append(table)
            upper = max(upper, table.upper)
        else:
            groups.append([table])
            upper = table.upper
    return [sorted(group, key=lambda table: place[table.number]) for group in groups]


def _depth(group: Group) -> int:
    """Return the most tables of a group that hold one key."""
    # An end sorts before a start at the same key: upper bounds are exclusive.
    events = sorted(
        [(table.lower, 1) for table in group] + [(table.upper, -1) for table in group],
    )
    depth = most = 0
    for _, step in events:
        depth += step
        most = max(most, depth)
    return most


def _open_window(version: KeyspaceVersion, now_us: int) -> int:
    """Return the first window that is open: the last one with tables, but for those after now."""
    settings = version.settings
    now = now_us * UNITS_PER_SECOND[settings.key_time_unit] // 1_000_000 // _width(settings)
    limit = window_start(settings, now + 1)
    seen = [
        min(last_window(settings, table.upper), now)
        for table in version.levels[0]
        if limit is None or table.lower < limit
    ]
    # Sorted and disjoint: the last table that begins before the limit has the greatest upper bound.
    settled = overlapping(version.levels[1], None, limit)
    seen += [min(last_window(settings, table.upper), now) for table in settled[-1:]]
    return max(seen, default=0)


def _expired(version: KeyspaceVersion, now_us: int) -> list[tuple[int, TableInfo]]:
    """Return (level, table) of all that retention drops, oldest first."""
    settings = version.settings
    if not settings.retention_seconds and not settings.retention_bytes:
        return []
    units = UNITS_PER_SECOND[settings.key_time_unit]
    oldest = now_us * units // 1_000_000 - settings.retention_seconds * units
    ordered = sorted(
        (last_window(settings, table.upper), -level, table.seq_max, table.number, table)
        for level, table in version.tables()
    )
    left = total_bytes(table for *_, table in ordered)
    limit = settings.retention_bytes or left
    wanted: set[int] = set()
    for window, _, _, number, table in ordered:
        is_old = settings.retention_seconds > 0 and (window + 1) * _width(settings) <= oldest
        if not is_old and left <= limit:
            break
        wanted.add(number)
        left -= table.size_bytes
    return _without_older(version, wanted)


def _without_older(version: KeyspaceVersion, wanted: set[int]) -> list[tuple[int, TableInfo]]:
    """Return the wanted tables that no older table overlaps that stays, oldest first."""
    if not wanted:
        return []
    found: list[tuple[int, TableInfo]] = []
    stays: list[Sequence[TableInfo]] = []
    for level in range(len(version.levels) - 1, 0, -1):
        kept = []
        for table in version.levels[level]:
            if table.number in wanted and not _meets(stays, table):
                found.append((level, table))
            else:
                kept.append(table)
        stays.append(kept)
    kept = []
    for table in reversed(version.levels[0]):
        if (
            table.number in wanted
            and not _meets(stays, table)
            and not any(other.overlaps(table.lower, table.upper) for other in kept)
        ):
            found.append((0, table))
        else:
            kept.append(table)
    return found


def _meets(levels: Sequence[Sequence[TableInfo]], table: TableInfo) -> bool:
    return any(overlapping(level, table.lower, table.upper) for level in levels)
