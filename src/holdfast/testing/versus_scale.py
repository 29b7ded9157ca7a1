"""How much each workload of `holdfast bench` does: three scales, from seconds to hours."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20

KEY_BYTES = 16
VALUE_BYTES = 100
YCSB_VALUE_BYTES = 1_000
BATCH_ROWS = 1_000
LIST_KEYS = 100
COLD_RATIO = 10
"""How many times the cache the data of a cold workload are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The numbers of a scale. Constant after construction."""

    rows: int
    reads: int
    cold_reads: int
    hot_keys: int
    commits: int
    threads: int
    thread_commits: int
    """Of each thread."""
    tasks: int
    task_commits: int
    """Of each task."""
    ycsb_rows: int
    ycsb_operations: int
    queue_operations: int
    large_count: int
    large_bytes: int
    cache_bytes: int
    memtable_bytes: int
    busy_seconds: float
    """How long the pass beside a busy thread takes at most."""

    @property
    def cold_cache_bytes(self) -> int:
        """A tenth of the rows."""
        return self.rows * (KEY_BYTES + VALUE_BYTES) // COLD_RATIO


SCALES = {
    "tiny": Scale(
        rows=1_500,
        reads=300,
        cold_reads=100,
        hot_keys=20,
        commits=10,
        threads=4,
        thread_commits=2,
        tasks=20,
        task_commits=1,
        ycsb_rows=50,
        ycsb_operations=60,
        queue_operations=60,
        large_count=3,
        large_bytes=10_000,
        cache_bytes=8 * MIB,
        memtable_bytes=64 * KIB,
        busy_seconds=0.01,
    ),
    "small": Scale(
        rows=100_000,
        reads=50_000,
        cold_reads=1_000,
        hot_keys=1_000,
        commits=200,
        threads=64,
        thread_commits=10,
        tasks=1_000,
        task_commits=2,
        ycsb_rows=10_000,
        ycsb_operations=10_000,
        queue_operations=5_000,
        large_count=200,
        large_bytes=64 * KIB,
        cache_bytes=64 * MIB,
        memtable_bytes=2 * MIB,
        busy_seconds=0.1,
    ),
    "full": Scale(
        rows=2_000_000,
        reads=300_000,
        cold_reads=20_000,
        hot_keys=1_000,
        commits=5_000,
        threads=64,
        thread_commits=400,
        tasks=1_000,
        task_commits=50,
        ycsb_rows=200_000,
        ycsb_operations=200_000,
        queue_operations=100_000,
        large_count=2_000,
        large_bytes=256 * KIB,
        cache_bytes=512 * MIB,
        memtable_bytes=32 * MIB,
        busy_seconds=1.0,
    ),
}
