"""Collects `Stats` from the rooms of an open engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.engine.stats import Counters, KeyspaceStats, LevelStats, Stats

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.lsm import Tree


def collect_stats(engine: Engine) -> Stats:
    """Return the figures of this moment."""
    with engine.version_mutex:
        keyspaces = tuple(_keyspace_stats(tree, engine.counters) for tree in engine.trees.values())
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
    )


def _keyspace_stats(tree: Tree, counters: Counters) -> KeyspaceStats:
    levels = tuple(
        LevelStats(
            level=number,
            tables=len(tables),
            bytes=sum(info.size_bytes for info in tables),
            entries=sum(info.entry_count for info in tables),
            deletes=sum(info.delete_count for info in tables),
            compacted_bytes=counters.compacted_by_level.get((tree.version.id, number), 0),
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
        flushed_bytes=counters.flushed_by_keyspace.get(tree.version.id, 0),
        compaction=tree.version.settings.compaction,
    )
