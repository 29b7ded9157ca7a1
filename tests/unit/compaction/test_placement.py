"""Goal: an ingested table goes as deep as its strategy likes, and never where it hides something,
is hidden by something, or meets what a running compaction makes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.base import KeyspaceSettings
from holdfast.base.limits import LEVELS_MAX
from holdfast.compaction import compression_at, strategy_of
from holdfast.manifest import KeyspaceVersion
from holdfast.sstable import TableInfo

KIB = 1 << 10
SMALL = KeyspaceSettings(table_bytes=64 * KIB, level1_bytes=256 * KIB, level_ratio=4)
TIERED = replace(SMALL, compaction="size-tiered")
WINDOW = replace(SMALL, compaction="time-window", window_seconds=100)
FIFO = replace(SMALL, compaction="fifo")
LAST = LEVELS_MAX - 1
NOTHING: frozenset[int] = frozenset()


def table(lower: bytes, upper: bytes, number: int = 1, size: int = 64 * KIB) -> TableInfo:
    return TableInfo(
        number=number,
        file_id=bytes(16),
        size_bytes=size,
        lower=lower,
        upper=upper,
        seq_min=number,
        seq_max=number,
        entry_count=9,
        delete_count=0,
        range_tombstone_count=0,
        raw_bytes=size,
        root_checksum=1,
        created_us=number,
    )


def version(settings: KeyspaceSettings, **levels: Any) -> KeyspaceVersion:
    """A version with the tables of `l0`, `l1` and so on."""
    made = tuple(tuple(levels.get(f"l{level}", ())) for level in range(LEVELS_MAX))
    return KeyspaceVersion(id=1, name="k", settings=settings, levels=made, flushed_seq=99)


def place(
    settings: KeyspaceSettings,
    tables: list[TableInfo],
    busy: frozenset[int] = NOTHING,
    **levels: Any,
) -> list[int]:
    found = version(settings, **levels)
    return strategy_of(settings).place(found, tables, busy)


NEW = [table(b"d", b"e", 90), table(b"f", b"g", 91)]


def test_an_empty_tree_takes_them_where_there_is_room() -> None:
    """Level 1 holds 256 KiB, level 2 a MiB, level 3 four."""
    assert place(SMALL, NEW) == [1, 1]
    assert place(SMALL, [table(b"d", b"e", 90, 257 * KIB)]) == [2]
    assert place(SMALL, [table(b"d", b"e", 90, 2048 * KIB)]) == [3]
    assert place(SMALL, [table(b"d", b"e", 90, 1 << 50)]) == [LAST]
    assert place(TIERED, NEW) == [LAST, LAST]
    assert place(WINDOW, NEW) == [1, 1]
    assert place(FIFO, NEW) == [0, 0]


def test_a_level_that_is_in_use_is_deep_enough() -> None:
    assert place(SMALL, NEW, l3=[table(b"x", b"y")]) == [3, 3]
    full = [table(b"x", b"y", 1, 255 * KIB)]
    assert place(SMALL, NEW, l1=full) == [2, 2]


@pytest.mark.parametrize("level", range(LEVELS_MAX))
def test_it_goes_above_what_shares_its_keys(level: int) -> None:
    levels = {f"l{level}": [table(b"dd", b"ee")], "l6": [table(b"dd", b"ee", 2), table(b"x", b"y")]}
    expected = max(0, level - 1)
    assert place(SMALL, NEW, **levels) == [expected, LAST]
    assert place(TIERED, NEW, **levels) == [0, LAST]
    assert place(WINDOW, NEW, **levels) == [int(level > 1), 1]


def test_bounds_that_touch_share_nothing() -> None:
    beside = [table(b"c", b"d", 1), table(b"e", b"f", 2), table(b"g", b"h", 3)]
    assert place(SMALL, NEW, l2=beside) == [2, 2]
    assert place(SMALL, NEW, l0=beside, l4=[table(b"x", b"y", 4)]) == [4, 4]


def test_it_keeps_out_of_the_range_of_running_compactions() -> None:
    """Their results may cover the gap in which it lies."""
    inputs = {"l1": [table(b"a", b"b", 1)], "l2": [table(b"dx", b"e", 2), table(b"f", b"fa", 3)]}
    lies = [table(b"b", b"d", 90), table(b"fb", b"g", 91)]
    assert place(SMALL, lies, **inputs) == [2, 2]
    assert place(SMALL, lies, frozenset([1, 2]), **inputs) == [0, 2]
    assert place(SMALL, lies, frozenset([1, 3]), **inputs) == [0, 2]
    assert place(TIERED, lies, frozenset([1, 2]), **inputs) == [0, LAST]
    assert place(SMALL, lies, frozenset([77]), **inputs) == [2, 2]


def test_few_bytes_find_company_in_level_0() -> None:
    few = [table(b"d", b"e", 90, 2 * KIB), table(b"f", b"g", 91, KIB)]
    assert place(SMALL, few) == [0, 0]
    assert place(SMALL, [*NEW, table(b"h", b"i", 92, KIB)]) == [1, 1, 1]
    assert place(WINDOW, [*NEW, table(b"h", b"i", 92, KIB)]) == [1, 1, 0]


def test_the_tables_of_one_load_are_one_run_of_level_0() -> None:
    load = [replace(info, seq_min=50, seq_max=50) for info in NEW]
    flushed = table(b"a", b"z", 40)
    found = version(SMALL, l0=[*load, flushed])
    assert strategy_of(SMALL).run_count(found) == 2


def test_what_has_nothing_behind_it_is_compressed_like_the_last_level() -> None:
    settings = replace(SMALL, compression="none", compression_last="lz4")
    found = version(settings, l0=[table(b"d", b"e")], l4=[table(b"a", b"b", 2)])
    assert compression_at(found, b"e") == "lz4"
    assert compression_at(found, b"dz") == compression_at(found, b"a") == "none"
    assert compression_at(version(settings), b"") == "lz4"
    assert compression_at(version(replace(settings, compaction="fifo")), b"") == "none"
