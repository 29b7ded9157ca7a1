"""Goal: a memtable works with the cursors of the room below, through the names that leave it."""

from __future__ import annotations

import itertools

import pytest

import holdfast.memtable
from holdfast.cursor import MergeCursor, UserCursor
from holdfast.memtable import Memtable


def test_all_names_are_listed() -> None:
    assert ["Memtable", "SpareChunks"] == holdfast.memtable.__all__


def test_a_user_reads_two_memtables_and_their_tombstones() -> None:
    older = Memtable()
    for seq in range(1, 11):
        older.put(seq, 1, b"%02d" % seq, b"old")
    older.freeze()
    newer = Memtable()
    newer.delete_range(11, b"03", b"06")
    newer.put(12, 1, b"04", b"new")
    newer.put(13, 0, b"10", b"")

    def rows(snapshot: int) -> list[object]:
        return list(
            UserCursor(
                MergeCursor([newer.cursor(), older.cursor()]),
                [newer.range_tombstones, older.range_tombstones],
                snapshot,
                b"02",
            )
        )

    kept = [(b"%02d" % seq, b"old") for seq in (6, 7, 8, 9)]
    assert [(b"02", b"old"), (b"04", b"new"), *kept] == rows(13)
    assert [(b"02", b"old"), *kept, (b"10", b"old")] == rows(11)
    assert [(b"%02d" % seq, b"old") for seq in range(2, 11)] == rows(10)


def test_a_snapshot_hides_what_is_written_during_a_scan() -> None:
    table = Memtable()
    for seq in range(1, 101):
        table.put(seq, 1, b"%03d" % seq, b"%d" % seq)
    found = []
    seq = 100
    for key in UserCursor(table.cursor(), table.range_tombstones, snapshot=100, what=1):
        found.append(key)
        for written in (key, key + b"a"):
            seq += 1
            table.put(seq, 1, written, b"later")
    assert [b"%03d" % each for each in range(1, 101)] == found
    assert 300 == table.entry_count


@pytest.mark.parametrize("value_bytes", [0, 100, 10_000])
def test_bytes_used_grows_with_what_is_kept(value_bytes: int) -> None:
    table = Memtable()
    used = [table.bytes_used]
    for seq in range(1, 50):
        table.put(seq, 1, b"key", bytes(value_bytes))
        used.append(table.bytes_used)
    table.delete_range(50, b"a", b"b")
    used.append(table.bytes_used)
    assert all(after >= before + value_bytes for before, after in itertools.pairwise(used[:-1]))
    assert used[-1] > used[-2]
