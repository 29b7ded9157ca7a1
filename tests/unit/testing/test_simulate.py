"""The simulator: its arithmetic, its repeatability, and that it says what the engine does."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.base.settings import STRATEGIES
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.testing.bench_bulk import amplifications
from holdfast.testing.simulate import (
    ENTRY_BYTES,
    LOADS,
    Simulation,
    Span,
    cut,
    main,
    merge,
    simulate,
)

SMALL = KeyspaceSettings(
    memtable_bytes=1 << 20,
    table_bytes=64 << 10,
    level0_tables=4,
    level1_bytes=256 << 10,
    level_ratio=4,
    compression="none",
    compression_last="none",
)
OPERATIONS = 64


def test_a_merge_counts_what_hides_what() -> None:
    """Half of the keys over half of them, independently: a quarter is hidden."""
    half = [Span(0, 100, 0.5, 0.0)]
    assert merge([half, half], is_bottom=False) == [Span(0, 100, 0.75, 0.0)]
    deletes = [Span(0, 50, 0.0, 1.0)]
    whole = [Span(0, 100, 1.0, 0.0)]
    assert merge([deletes, whole], is_bottom=False) == [
        Span(0, 50, 0.0, 1.0),
        Span(50, 100, 1.0, 0.0),
    ]
    assert merge([deletes, whole], is_bottom=True) == [Span(50, 100, 1.0, 0.0)]


def test_tables_are_cut_by_size_and_where_a_window_begins() -> None:
    spans = [Span(0, 100, 1.0, 0.0)]
    pieces = cut(spans, 30 * ENTRY_BYTES, SMALL)
    assert [(piece[0].lower, piece[-1].upper) for piece in pieces] == [
        (0, 30),
        (30, 60),
        (60, 90),
        (90, 100),
    ]
    windowed = replace(SMALL, compaction="time-window", window_seconds=40, key_time_unit="s")
    pieces = cut(spans, 1e9, windowed)
    assert [piece[-1].upper for piece in pieces] == [40, 80, 100]
    apart = [Span(0, 10, 1.0, 0.0), Span(90, 100, 1.0, 0.0)]
    assert cut(apart, 1e9, windowed) == [[apart[0]], [apart[1]]]


@pytest.mark.parametrize("load", list(LOADS))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_ends_and_repeats(strategy: str, load: str) -> None:
    settings = replace(SMALL, memtable_bytes=64 << 10, compaction=strategy)
    first, second = (simulate(settings, load, 40) for _ in range(2))
    assert first.write_amplification == second.write_amplification > 1.9
    assert first.keyspace == second.keyspace
    assert first.files >= 40


def test_keys_in_order_are_written_twice_with_the_log() -> None:
    settings = replace(SMALL, memtable_bytes=64 << 10, compaction="time-window", window_seconds=1)
    assert simulate(settings, "in-order", 200).write_amplification <= 2.2


def test_the_command_prints_a_line_for_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--flushes", "3", "--load", "queue", "--strategy", "fifo"]) == 0
    assert capsys.readouterr().out.count("| queue | fifo | 3 | 3 |") == 1


@pytest.mark.parametrize("strategy", ["leveled", "size-tiered"])
def test_bench_stats_and_simulator_agree_within_a_tenth(strategy: str) -> None:
    """Random overwrites: 40 flushes of 64 puts, each compacted before the next."""
    flushes = 40
    settings = replace(SMALL, compaction=strategy)
    env = SimEnv()
    database = open_database("/db", env=env, settings=DatabaseSettings(keyspace=settings))
    since = env.op_count
    rng = random.Random(1)
    universe = OPERATIONS * flushes // 4
    for _ in range(flushes):
        for _ in range(OPERATIONS):
            number = rng.randrange(universe)
            database.put(number.to_bytes(8, "big"), rng.randbytes(1000), durability="none")
        database.flush()
        database._engine.upkeep.wait_idle()
    stats = database.stats()
    written = sum(
        int(op.detail[1])
        for op in env.op_log[since:]
        if op.kind == "write" and op.site.startswith(("wal.record", "table."))
    )
    simulation = Simulation(settings)
    for flush in LOADS["overwrite"](flushes, OPERATIONS):
        simulation.flush(flush)
        simulation.settle()
    measured = written / stats.user_bytes_written
    print(measured, stats.write_amplification, simulation.write_amplification)
    assert stats.write_amplification == pytest.approx(measured, rel=0.02)
    figures = amplifications(stats, written, 0, 0)
    benched = {figure.what: figure.rounds for figure in figures}
    assert [stats.write_amplification] in benched.values()
    assert simulation.write_amplification == pytest.approx(measured, rel=0.1)
    by_level = [
        sum(keyspace.levels[level].compacted_bytes for keyspace in stats.keyspaces)
        for level in range(7)
    ]
    assert sum(by_level) == stats.compacted_bytes_written
    database.close()


def test_what_is_rewritten_does_not_depend_on_the_size_of_values(tmp_path: Path) -> None:
    """The same bytes as values of 1, 16 and 256 KiB, four times overwritten: the figures of
    docs/adr/0025 (shown by `./dev test tests/unit/testing/test_simulate.py -k size_of_values -rP`).
    """
    settings = DatabaseSettings(
        keyspace=replace(SMALL, table_bytes=1 << 20, level1_bytes=4 << 20, level_ratio=10)
    )
    found = []
    for value_bytes in (1 << 10, 16 << 10, 256 << 10):
        rng = random.Random(1)
        with open_database(str(tmp_path / f"{value_bytes}"), settings=settings) as database:
            count = (40 << 20) // value_bytes
            for number in range(count):
                key = b"%08d" % rng.randrange(count // 4)
                database.put(key, rng.randbytes(value_bytes), durability="none")
                if number % max(1, count // 40) == 0:
                    database._engine.upkeep.wait_idle()
            database.flush()
            database._engine.upkeep.wait_idle()
            stats = database.stats()
        compacted = stats.compacted_bytes_written / stats.user_bytes_written
        print(
            f"values of {value_bytes >> 10} KiB: write amplification "
            f"{stats.write_amplification:.2f}, of which compaction {compacted:.2f}"
        )
        found.append(stats.write_amplification)
    assert max(found) < 1.25 * min(found)
