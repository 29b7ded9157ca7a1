"""What `db.stats()` returns: sizes, counters since open, rates of the last minute, latencies, and
the amplifications.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.engine.latency import LatencyStats

WAITS = ("memtables", "level0", "debt", "log", "memory", "segment", "sync")
"""What writers wait for; `why_slow` says what each means."""


@dataclass(slots=True)
class Counters:
    """Bytes moved since open.

    Guarded by the engine's version mutex, except `stall_seconds` (the leader's).
    """

    flushed_bytes: int = 0
    compacted_bytes_read: int = 0
    compacted_bytes_written: int = 0
    flushes: int = 0
    compactions: int = 0
    moves: int = 0
    drops: int = 0
    dropped_bytes: int = 0
    entries_dropped: int = 0
    stall_seconds: float = 0.0
    ingests: int = 0
    ingested_entries: int = 0
    ingested_user_bytes: int = 0
    ingested_bytes: int = 0
    """Bytes of the tables that ingests have written."""
    stalls: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By cause how often writers were slowed or stopped, and for how long; the leader's."""
    flushed_by_keyspace: dict[int, int] = field(default_factory=dict)
    compacted_by_level: dict[tuple[int, int], int] = field(default_factory=dict)
    """By keyspace and level that they were written to."""

    def note_stall(self, cause: str, seconds: float) -> None:
        """Count a pause of writers. Requires: the leadership."""
        count, before = self.stalls.get(cause, (0, 0.0))
        self.stalls[cause] = count + 1, before + seconds
        self.stall_seconds += seconds

    def note_written(
        self, keyspace: int, level: int, count: int, *, is_flush: bool = False
    ) -> None:
        """Count bytes of tables that entered a level."""
        if is_flush:
            flushed = self.flushed_by_keyspace
            flushed[keyspace] = flushed.get(keyspace, 0) + count
        else:
            place = keyspace, level
            self.compacted_by_level[place] = self.compacted_by_level.get(place, 0) + count

    def note_ingested(self, *, entries: int, user_bytes: int, table_bytes: int) -> None:
        """Count an ingest that is visible."""
        self.ingests += 1
        self.ingested_entries += entries
        self.ingested_user_bytes += user_bytes
        self.ingested_bytes += table_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelStats:
    """One level of one keyspace."""

    level: int
    tables: int
    bytes: int
    entries: int
    deletes: int
    compacted_bytes: int = 0
    """Bytes that compactions have written to it since open."""
    pages_read: int = 0
    """Pages that lookups and scans have read from the files of tables that lie there, or lay there
    last, since open.
    """
    page_bytes_read: int = 0
    """What these pages have in the files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyspaceStats:
    """One keyspace.

    `entries_estimate` counts versions, so it is an upper bound of `len(keyspace)` but for pending
    deletes.
    """

    name: str
    entries_estimate: int
    memtable_bytes: int
    frozen_memtables: int
    levels: tuple[LevelStats, ...] = field(default=())
    flushed_bytes: int = 0
    """Bytes of tables that flushes have written since open."""
    compaction: str = "leveled"
    """Its strategy."""

    @property
    def compacted_bytes(self) -> int:
        """Bytes of tables that compactions have written since open."""
        return sum(level.compacted_bytes for level in self.levels)

    @property
    def table_bytes(self) -> int:
        """Bytes of all its tables."""
        return sum(level.bytes for level in self.levels)

    @property
    def pages_read(self) -> int:
        """Pages that lookups and scans have read from files since open."""
        return sum(level.pages_read for level in self.levels)

    @property
    def rewrites(self) -> float:
        """Bytes that flushes and compactions wrote for each byte that was flushed since open: its
        part of the write amplification; 0.0 before any.
        """
        written = self.flushed_bytes + self.compacted_bytes
        return written / self.flushed_bytes if self.flushed_bytes else 0.0

    @property
    def space_amplification(self) -> float:
        """Bytes of its tables for each byte in its deepest filled level; 1.0 when it has none."""
        deepest = next((level.bytes for level in reversed(self.levels) if level.bytes), 0)
        return self.table_bytes / deepest if deepest else 1.0

    @property
    def sorted_runs(self) -> int:
        """Sorted runs a read may have to ask, memtables apart: its read amplification at worst."""
        level0 = sum(level.tables for level in self.levels if level.level == 0)
        return level0 + sum(1 for level in self.levels if level.level > 0 and level.tables)


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitStats:
    """One thing that writers wait for."""

    cause: str
    """One of `memtables`, `level0`, `debt`, `log`, `memory`, `segment` and `sync`."""
    count: int
    seconds: float
    recent_seconds: float
    """Of these, in the last minute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """What happened in each second of the last minute, or of the time since open."""

    seconds: float
    """What this is the mean of."""
    writes: float
    reads: float
    rows: float
    user_bytes: float
    pages_read: float
    page_bytes_read: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """A database at one moment. Counters start at open; sizes are of now. All sizes are bytes."""

    keyspaces: tuple[KeyspaceStats, ...]
    user_bytes_written: int
    wal_bytes_written: int
    flushed_bytes: int
    ingested_bytes: int
    """Bytes of the tables that ingests have written."""
    compacted_bytes_read: int
    compacted_bytes_written: int
    writes: int
    reads: int
    flushes: int
    ingests: int
    compactions: int
    moves: int
    drops: int
    dropped_bytes: int
    entries_dropped: int
    stall_seconds: float
    wal_bytes: int
    wal_segments: int
    memtable_bytes: int
    pool_bytes: int
    pool_capacity_bytes: int
    pool_hits: int
    pool_misses: int
    tables_skipped: int
    """Tables that scans left out, since a filter denied their prefix, since open."""
    snapshots: int
    last_seq: int
    poisoned: bool
    background_error: str | None
    seconds_open: float
    wal_preallocated_bytes: int
    """Zeros with which segments of the log were filled before their first record."""
    wal_disk_bytes: int
    """All that was given to the disk for the log: records, these zeros, headers and links."""
    manifest_bytes_written: int
    rows_scanned: int
    """Rows that `items`, `keys` and `values` gave."""
    deleted_scanned: int
    """Deleted keys that they passed over on the way."""
    pages_read: int
    """Pages that lookups and scans have read from files. Compactions are not among them."""
    page_bytes_read: int
    throttled_seconds: float
    """What background jobs waited because of `background_bytes_per_second`."""
    latencies: tuple[LatencyStats, ...]
    waits: tuple[WaitStats, ...]
    recent: Rates

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(keyspace.table_bytes for keyspace in self.keyspaces)

    @property
    def write_amplification(self) -> float:
        """Bytes of records logged and of tables flushed, ingested and compacted for each byte the
        user wrote since open; 0.0 before any. The zeros of segments are not counted: see
        `disk_write_amplification`.
        """
        if not self.user_bytes_written:
            return 0.0
        tables = self.flushed_bytes + self.ingested_bytes + self.compacted_bytes_written
        written = self.wal_bytes_written + tables
        return written / self.user_bytes_written

    @property
    def disk_write_amplification(self) -> float:
        """Bytes given to the disk for each byte the user wrote since open, as the kernel counts
        them: the log with the zeros and headers of its segments, tables and manifests; 0.0 before
        any.
        """
        if not self.user_bytes_written:
            return 0.0
        tables = self.flushed_bytes + self.ingested_bytes + self.compacted_bytes_written
        written = self.wal_disk_bytes + tables + self.manifest_bytes_written
        return written / self.user_bytes_written

    @property
    def read_amplification(self) -> float:
        """Pages read from files for each key read and row scanned since open; 0.0 before any."""
        asked = self.reads + self.rows_scanned
        return self.pages_read / asked if asked else 0.0

    @property
    def read_bytes_amplification(self) -> float:
        """Bytes read from files for each key read and row scanned since open; 0.0 before any."""
        asked = self.reads + self.rows_scanned
        return self.page_bytes_read / asked if asked else 0.0

    @property
    def pool_hit_ratio(self) -> float:
        """The part of the pages asked for that the pool had, since open; 1.0 before any."""
        asked = self.pool_hits + self.pool_misses
        return self.pool_hits / asked if asked else 1.0

    @property
    def space_amplification(self) -> float:
        """Bytes of all tables for each byte of those in the deepest filled levels; 1.0 when there
        are none.
        """
        deepest = sum(
            next((level.bytes for level in reversed(keyspace.levels) if level.bytes), 0)
            for keyspace in self.keyspaces
        )
        return self.table_bytes / deepest if deepest else 1.0
