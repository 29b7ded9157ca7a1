"""Collects `Stats` and `Totals` from the rooms of an open engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.engine.history import Totals, Wait
from holdfast.engine.stats import (
    WAITS,
    Counters,
    KeyspaceStats,
    LevelStats,
    Rates,
    Stats,
    WaitStats,
)

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.lsm import Pages, Place, Tree


def collect_stats(engine: Engine) -> Stats:
    """Return the figures of this moment."""
    with engine.version_mutex:
        read = engine.store.pages_read()
        keyspaces = tuple(
            _keyspace_stats(tree, engine.counters, read) for tree in engine.trees.values()
        )
    now = collect_totals(engine, engine.env.monotonic())
    recent = engine.history.since(now)
    version_set, log = engine.version_set, engine.log
    counters, state, pool = engine.counters, engine.state, engine.pool
    error = engine.background_error
    return Stats(
        keyspaces=tuple(sorted(keyspaces, key=lambda keyspace: keyspace.name)),
        user_bytes_written=state.user_bytes + counters.ingested_user_bytes,
        wal_bytes_written=engine.log.bytes_logged if engine.log is not None else 0,
        flushed_bytes=counters.flushed_bytes,
        ingested_bytes=counters.ingested_bytes,
        compacted_bytes_read=counters.compacted_bytes_read,
        compacted_bytes_written=counters.compacted_bytes_written,
        writes=state.write_count + counters.ingested_entries,
        reads=state.read_count,
        flushes=counters.flushes,
        ingests=counters.ingests,
        compactions=counters.compactions,
        moves=counters.moves,
        drops=counters.drops,
        dropped_bytes=counters.dropped_bytes,
        entries_dropped=counters.entries_dropped,
        stall_seconds=counters.stall_seconds,
        wal_bytes=engine.log_bytes,
        wal_segments=len(engine.log.segments()) if engine.log is not None else 0,
        memtable_bytes=sum(keyspace.memtable_bytes for keyspace in keyspaces),
        pool_bytes=pool.used_bytes,
        pool_capacity_bytes=pool.capacity_bytes,
        pool_hits=pool.hits,
        pool_misses=pool.misses,
        tables_skipped=pool.tables_skipped,
        snapshots=len(engine.snapshots.live()),
        last_seq=state.visible_seq,
        poisoned=engine.is_poisoned,
        background_error=None if error is None else str(error),
        seconds_open=now.at - engine.history.first.at,
        wal_preallocated_bytes=log.bytes_allocated if log is not None else 0,
        wal_disk_bytes=log.bytes_written if log is not None else 0,
        manifest_bytes_written=version_set.bytes_written_ever if version_set is not None else 0,
        rows_scanned=now.rows,
        deleted_scanned=now.deleted,
        pages_read=now.pages_read,
        page_bytes_read=now.page_bytes_read,
        throttled_seconds=engine.throttle.waited_seconds,
        latencies=engine.latencies.stats(),
        waits=tuple(
            WaitStats(
                cause=cause,
                count=now.waits[cause][0],
                seconds=now.waits[cause][1],
                recent_seconds=recent.waits[cause][1],
            )
            for cause in WAITS
        ),
        recent=_rates(recent),
    )


def collect_totals(engine: Engine, at: float) -> Totals:
    """Return the counters of this moment, which is `at` of the monotonic clock. Takes no mutex."""
    state, pool, tally = engine.state, engine.pool, engine.store.tally
    pages, page_bytes = engine.store.pages_read_total()
    waits: dict[str, Wait] = dict.fromkeys(WAITS, (0, 0.0))
    waits.update(engine.counters.stalls)
    if engine.log is not None:
        waits["segment"] = engine.log.waits
    sync = engine.latencies.sync
    waits["sync"] = sync.count, sync.seconds
    return Totals(
        at=at,
        writes=state.write_count,
        user_bytes=state.user_bytes,
        reads=state.read_count,
        rows=tally.rows,
        deleted=tally.deleted,
        operands=engine.store.merge_tally.operands,
        pages_read=pages,
        page_bytes_read=page_bytes,
        pool_hits=pool.hits,
        pool_misses=pool.misses,
        waits=waits,
    )


def _rates(recent: Totals) -> Rates:
    seconds = recent.at
    per = 1.0 / seconds if seconds > 0.0 else 0.0
    return Rates(
        seconds=seconds,
        writes=recent.writes * per,
        reads=recent.reads * per,
        rows=recent.rows * per,
        user_bytes=recent.user_bytes * per,
        pages_read=recent.pages_read * per,
        page_bytes_read=recent.page_bytes_read * per,
    )


def _keyspace_stats(tree: Tree, counters: Counters, read: dict[Place, Pages]) -> KeyspaceStats:
    keyspace = tree.version.id
    levels = tuple(
        LevelStats(
            level=number,
            tables=len(tables),
            bytes=sum(info.size_bytes for info in tables),
            entries=sum(info.entry_count for info in tables),
            deletes=sum(info.delete_count for info in tables),
            compacted_bytes=counters.compacted_by_level.get((keyspace, number), 0),
            pages_read=read.get((keyspace, number), (0, 0))[0],
            page_bytes_read=read.get((keyspace, number), (0, 0))[1],
        )
        for number, tables in enumerate(tree.version.levels)
    )
    in_memory = tree.active.entry_count + sum(table.entry_count for table in tree.frozen)
    return KeyspaceStats(
        name=tree.version.name,
        entries_estimate=in_memory + sum(level.entries - level.deletes for level in levels),
        memtable_bytes=tree.memtable_bytes,
        frozen_memtables=len(tree.frozen),
        levels=levels,
        flushed_bytes=counters.flushed_by_keyspace.get(keyspace, 0),
        compaction=tree.version.settings.compaction,
    )
