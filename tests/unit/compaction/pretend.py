"""A pretended tree: tables are sets of keys, each key standing for 64 KiB, and plans are carried
out in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby, pairwise

from holdfast.base import KeyspaceSettings
from holdfast.compaction import Plan, level_target, pick, window_of
from holdfast.manifest import KeyspaceVersion, Version, VersionEdit
from holdfast.sstable import TableInfo

KEY_BYTES = 64 * 1024
KEYSPACE = 1
SETTINGS = KeyspaceSettings()


def key(number: int) -> bytes:
    return number.to_bytes(5, "big")


class Tree:
    """A keyspace whose flushes and compactions happen at once.

    `tables` holds for each live table number -> {key: sequence number}, a delete being a negative
    one.
    """

    def __init__(self, settings: KeyspaceSettings = SETTINGS) -> None:
        self.version = Version().apply(
            VersionEdit(keyspaces_created=((KEYSPACE, "pretended", settings),), next_number=1)
        )
        self.tables: dict[int, dict[int, int]] = {}
        self.tables_new: dict[int, dict[int, int]] = {}
        self.expected: dict[int, int] = {}
        self.seq = 0
        self.now_us = 0
        self.flushed_bytes = 0
        self.written_bytes = 0
        self.moves = 0
        self.merges = 0
        self.drops = 0

    @property
    def keyspace(self) -> KeyspaceVersion:
        return self.version.keyspaces[KEYSPACE]

    def info(self, content: dict[int, int]) -> TableInfo:
        """Give a table with this content the next number."""
        number = self.version.next_number + len(self.tables_new)
        self.tables_new[number] = content
        seqs = [abs(seq) for seq in content.values()]
        return TableInfo(
            number=number,
            file_id=number.to_bytes(16, "big"),
            size_bytes=len(content) * KEY_BYTES,
            lower=key(min(content)),
            upper=key(max(content)) + b"\x00",
            seq_min=min(seqs),
            seq_max=max(seqs),
            entry_count=len(content),
            delete_count=sum(seq < 0 for seq in content.values()),
            range_tombstone_count=0,
            raw_bytes=len(content) * KEY_BYTES,
            root_checksum=0,
            created_us=self.now_us,
        )

    def flush(self, keys: Iterable[int], deleted: Iterable[int] = ()) -> None:
        """Write and delete keys and make one table of level 0 of them."""
        content = {}
        for number in keys:
            self.seq += 1
            content[number] = self.expected[number] = self.seq
        for number in deleted:
            self.seq += 1
            content[number] = -self.seq
            self.expected.pop(number, None)
        self.tables_new = {}
        tables = [
            self.info({number: content[number] for number in window})
            for window in self.windows(sorted(content))
        ]
        size = sum(table.size_bytes for table in tables)
        self.flushed_bytes += size
        self.written_bytes += size
        added = tuple((KEYSPACE, 0, table) for table in tables)
        self.log(VersionEdit(tables_added=added, flushed_seq={KEYSPACE: self.seq}))

    def place(self, level: int, keys: Iterable[int], deleted: Iterable[int] = ()) -> TableInfo:
        """Put a table with these keys right into a level."""
        self.flush(keys, deleted)
        table = self.keyspace.levels[0][0]
        self.tables_new = {}
        self.log(
            VersionEdit(
                tables_removed=((KEYSPACE, 0, table.number),),
                tables_added=((KEYSPACE, level, table),),
            )
        )
        return table

    def run(self, plan: Plan) -> None:
        """Carry out a plan."""
        self.tables_new = {}
        stays = plan.is_move or plan.is_drop
        outputs = [] if stays else [self.info(piece) for piece in self.merged(plan)]
        self.written_bytes += sum(table.size_bytes for table in outputs)
        self.moves += plan.is_move
        self.merges += not stays
        self.drops += plan.is_drop
        self.log(plan.edit(outputs))

    def merged(self, plan: Plan) -> list[dict[int, int]]:
        """The newest version of each key, cut at full tables; at the bottom without deletes."""
        content: dict[int, int] = {}
        for table in plan.tables:
            for number, seq in self.tables[table.number].items():
                if abs(seq) > abs(content.get(number, 0)):
                    content[number] = seq
        ordered = sorted(content)
        if plan.is_bottom:
            ordered = [number for number in ordered if content[number] > 0]
        step = max(1, self.keyspace.settings.table_bytes // KEY_BYTES)
        if plan.output_level == 0:
            step = len(ordered)
        pieces = [
            window[at : at + step]
            for window in self.windows(ordered)
            for at in range(0, len(window), step)
        ]
        return [{number: content[number] for number in piece} for piece in pieces]

    def windows(self, ordered: list[int]) -> list[list[int]]:
        """Cut sorted keys where a window begins, if there are windows."""
        settings = self.keyspace.settings
        if settings.compaction != "time-window":
            return [ordered]
        return [list(each) for _, each in groupby(ordered, lambda n: window_of(settings, key(n)))]

    def log(self, edit: VersionEdit) -> None:
        """Apply the edit; Version.apply checks that levels are disjoint and level 0 is in order."""
        self.tables.update(self.tables_new)
        next_number = self.version.next_number + len(self.tables_new)
        self.version = self.version.apply(replace(edit, next_number=next_number))
        live = self.version.table_numbers()
        self.tables = {number: keys for number, keys in self.tables.items() if number in live}

    def settle(self, pick: Callable[[KeyspaceVersion], Plan | None] = pick) -> None:
        """Compact until nothing is left to do. Fails when that does not end."""
        for _ in range(10_000):
            plan = pick(self.keyspace)
            if plan is None:
                return
            check_plan(self.keyspace, plan)
            self.run(plan)
        raise AssertionError("compaction does not come to rest")

    def read(self) -> dict[int, int]:
        """What a reader sees: the first version found, level by level, level 0 newest first."""
        found: dict[int, int] = {}
        for _, table in self.keyspace.tables():
            for number, seq in self.tables[table.number].items():
                found.setdefault(number, seq)
        return {number: seq for number, seq in found.items() if seq > 0}

    def check_rest(self) -> None:
        """Every level is within its target, and readers see what was written."""
        assert len(self.keyspace.levels[0]) < self.keyspace.settings.level0_tables
        for level in range(1, 6):
            size = sum(table.size_bytes for table in self.keyspace.levels[level])
            assert size < level_target(self.keyspace, level)
        assert self.read() == self.expected

    @property
    def amplification(self) -> float:
        return self.written_bytes / self.flushed_bytes


def check_plan(version: KeyspaceVersion, plan: Plan) -> None:
    """The invariants of plan.py, of a plan that was just made, stated without its helpers."""
    numbers = plan.input_numbers
    assert len(numbers) == len(plan.tables)
    for level, tables in plan.inputs:
        assert tables
        assert all(table in version.levels[level] for table in tables)
        inside = [t for t in version.levels[level] if t.lower < plan.upper and plan.lower < t.upper]
        if level == plan.output_level > 0:
            assert [t.number for t in inside] == [t.number for t in tables]
    for table in version.levels[plan.output_level] if plan.output_level else ():
        if table.lower < plan.upper and plan.lower < table.upper:
            assert table.number in numbers
    top = version.levels[plan.level]
    chosen = [table for table in top if table.number in numbers]
    if plan.level == 0:
        for table in top:
            for other in chosen:
                overlaps = table.lower < other.upper and other.lower < table.upper
                is_newer = table.seq_min > max(t.seq_max for t in chosen)
                is_older = table.seq_max < min(t.seq_min for t in chosen)
                may_stay = is_newer or (is_older and plan.output_level == 0)
                assert table.number in numbers or not overlaps or may_stay
    else:
        first = top.index(chosen[0])
        assert list(top[first : first + len(chosen)]) == chosen
    deeper = [
        table
        for level in version.levels[max(1, plan.output_level) :]
        for table in level
        if table.lower < plan.upper and plan.lower < table.upper
    ]
    if plan.output_level == 0:
        oldest = max(index for index, table in enumerate(top) if table.number in numbers)
        least = min(index for index, table in enumerate(top) if table.number in numbers)
        deeper += [t for t in top[least:oldest] if t.lower < plan.upper and plan.lower < t.upper]
        deeper += [t for t in top[oldest:] if t.lower < plan.upper and plan.lower < t.upper]
    assert plan.is_bottom == all(table.number in numbers for table in deeper)
    for table in deeper:
        if table.number not in numbers:
            assert any(lower <= table.lower and table.upper <= upper for lower, upper in plan.older)
    for (_, before), (after, _) in pairwise(plan.older):
        assert before < after


def check_drop(version: KeyspaceVersion, plan: Plan) -> None:
    """Invariant 4: what stays and shares keys with what goes is newer."""
    numbers = plan.input_numbers
    ordered = [table for _, table in version.tables()]
    for at, table in enumerate(ordered):
        for older in ordered[at + 1 :]:
            if table.number in numbers and older.number not in numbers:
                assert not (table.lower < older.upper and older.lower < table.upper)
