"""Manual compaction: bring everything in a range of keys to the last level, and drop there what can
be dropped.

The work is a sequence of plans, each computed from the version of its moment, so that it goes on
beside flushes and the ordinary compactions. It always ends: a plan starts at a greater (level, key)
than the one before, and what arrives behind it is left alone.

Thread safety: the caller serialises calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.compaction.plan import Plan, level0_group, make_plan, overlapping, span, total_bytes
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo

STEP_TABLES = 16
"""A step stops taking tables of its upper level when its inputs are this many full tables."""
REASON = "manual compaction"


class RangeCompaction:
    """The steps of one manual compaction of [start, stop); None is unbounded."""

    def __init__(
        self,
        version: KeyspaceVersion,
        start: bytes | None,
        stop: bytes | None,
        *,
        rewrite_last: bool = False,
    ) -> None:
        """Plan from `version`. With `rewrite_last`, tables that lie in the last level are rewritten
        even if they have no deletes, which also drops old versions that a snapshot kept when they
        were written.
        """
        self._start = start
        self._stop = stop
        self._rewrite_last = rewrite_last
        deepest = max((level for level, tables in enumerate(version.levels) if tables), default=0)
        self._last_level = max(1, deepest)
        self._number_last = max(version.numbers, default=0)
        self._level = 0
        self._position = start
        self.is_done = False
        """Whether there are no more plans."""
        self.bytes_ahead = self._bytes_ahead(version)
        """Bytes of the tables that all rewrites together take, about: what comes down is taken
        again at each level that has something.
        """

    def _bytes_ahead(self, version: KeyspaceVersion) -> int:
        first = self._level0(version)
        total, coming, is_merged = 0, total_bytes(first), False
        for level in range(1, self._last_level + 1):
            size = total_bytes(overlapping(version.levels[level], self._start, self._stop))
            if coming and (size or (level == 1 and len(first) > 1)):
                total += coming + size
                is_merged = True
            coming += size
        # What only moves is rewritten in the last level, once.
        return total if is_merged else coming

    def next_plan(self, version: KeyspaceVersion, busy: frozenset[int]) -> Plan | None:
        """Return the next plan, or None when there is none now.

        None and not `is_done`: a running compaction is in the way; ask again when one has ended.
        Requires: the plan before was carried out. If it cannot be, give up the whole compaction.
        """
        while not self.is_done:
            ahead = overlapping(version.levels[self._level], self._position, self._stop)
            if self._level == 0:
                group = self._level0(version)
                plan = None if not group else self._merge(version, 0, group)
            elif self._level < self._last_level:
                plan = None if not ahead else self._downward(version, ahead)
            else:
                plan = self._in_place(version, ahead)
            if plan is None:
                self._next_level()
            elif self._is_blocked(version, plan, busy):
                return None
            else:
                self._advance(plan)
                return plan
        return None

    def _level0(self, version: KeyspaceVersion) -> list[TableInfo]:
        """Return the tables of level 0 in the range and all that overlap them in turn."""
        tables = [table for table in version.levels[0] if table.overlaps(self._start, self._stop)]
        return level0_group(version.levels[0], *span(tables)) if tables else []

    def _downward(self, version: KeyspaceVersion, ahead: Sequence[TableInfo]) -> Plan:
        """Return a plan for the first tables ahead: a move of as many as can move, or a merge of
        bounded size.
        """
        under = version.levels[self._level + 1]
        movable = 0
        while movable < len(ahead) and not overlapping(under, *span(ahead[: movable + 1])):
            movable += 1
        plan = None
        if movable:
            plan = make_plan(
                version,
                self._level,
                ahead[:movable],
                self._level + 1,
                (),
                reason=REASON,
                is_move=True,
            )
            if not (plan.is_bottom and _has_deletes(plan.tables)):
                return plan
        count = 1
        limit = STEP_TABLES * version.settings.table_bytes
        while count < len(ahead):
            taken = ahead[: count + 1]
            if total_bytes(taken) + total_bytes(overlapping(under, *span(taken))) > limit:
                break
            count += 1
        return self._merge(version, self._level, ahead[:count])

    def _merge(self, version: KeyspaceVersion, level: int, tables: Sequence[TableInfo]) -> Plan:
        below = overlapping(version.levels[level + 1], *span(tables))
        is_move = len(tables) == 1 and not below
        plan = make_plan(version, level, tables, level + 1, below, reason=REASON, is_move=is_move)
        if is_move and plan.is_bottom and _has_deletes(tables):
            return make_plan(version, level, tables, level + 1, below, reason=REASON)
        return plan

    def _in_place(self, version: KeyspaceVersion, ahead: Sequence[TableInfo]) -> Plan | None:
        """Return a rewrite of the next table of the last level that was there from the start and
        may hold what can be dropped.

        One table at a time: two have a gap between them into which another compaction might write.
        """
        for table in ahead:
            if table.number <= self._number_last and (self._rewrite_last or _has_deletes((table,))):
                return make_plan(version, self._level, (table,), self._level, (), reason=REASON)
        return None

    def _is_blocked(self, version: KeyspaceVersion, plan: Plan, busy: frozenset[int]) -> bool:
        """Return whether the plan takes a busy table, or a second compaction would take tables of
        its upper level.
        """
        if plan.level != plan.output_level and any(
            table.number in busy for table in version.levels[plan.level]
        ):
            return True
        return not busy.isdisjoint(plan.input_numbers)

    def _advance(self, plan: Plan) -> None:
        if plan.level == 0:
            self._next_level()
        else:
            self._position = plan.inputs[0][1][-1].upper

    def _next_level(self) -> None:
        self._level += 1
        self._position = self._start
        self.is_done = self._level > self._last_level


def plan_range(
    version: KeyspaceVersion, start: bytes | None, stop: bytes | None, *, rewrite_last: bool = False
) -> RangeCompaction:
    """Return the manual compaction of [start, stop), planned from `version`."""
    return RangeCompaction(version, start, stop, rewrite_last=rewrite_last)


def _has_deletes(tables: Sequence[TableInfo]) -> bool:
    return any(table.delete_count or table.range_tombstone_count for table in tables)
