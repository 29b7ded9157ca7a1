"""The flush job: frozen memtables become level-0 tables, oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base import CorruptionError, DiskFullError
from holdfast.compaction import JobResult, run_flush
from holdfast.manifest import VersionEdit
from holdfast.memtable import Memtable

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.lsm import Tree


def flush_frozen(engine: Engine, keyspace: int) -> None:
    """Flush all frozen memtables of a keyspace and install their tables.

    Raises: DiskFullError with nothing changed; DatabasePoisonedError after a failed sync.
    """
    while True:
        tree = engine.trees.get(keyspace)
        if tree is None or not tree.frozen:
            return
        memtable = tree.frozen[-1]
        began = engine.env.monotonic()
        result = write_tables(engine, tree, memtable)
        _make_log_durable(engine, memtable, result)
        engine.env.uninterrupted(partial(_install, engine, tree, memtable, result))
        # Its memory is for the next one now, which is counted.
        del memtable
        engine.memory.charge()
        engine.schedule_compaction()
        engine.latencies.flush.record(engine.env.monotonic() - began)


def write_tables(engine: Engine, tree: Tree, memtable: Memtable) -> JobResult:
    """Write the oldest frozen memtable as tables; their files and the folder are synced.

    Whatever is older is in the tables of the current version. A compaction that replaces them
    meanwhile brings no key into a range where they had none.
    """
    version = tree.version
    return run_flush(
        engine.env,
        engine.folder,
        memtable,
        allocate_number=engine.numbers.allocate,
        snapshots=engine.snapshots.live(),
        settings=version.settings,
        older=[table for _, table in version.tables()],
        spend=engine.throttle.spend,
        merges=engine.merges,
        origin=version.origin,
    )


def _make_log_durable(engine: Engine, memtable: Memtable, result: JobResult) -> None:
    """Make the log durable up to the last operation of `memtable`, so that its tables may enter the
    manifest: a crash must not keep the half of a batch that is in them.

    Not before they are written, when most of the log has reached the disk by itself.
    """
    log = engine.log
    if log is None:
        return
    try:
        log.sync_beside(memtable.seq_max)
    except MemoryError:
        with engine.version_mutex:
            engine.discard(result.tables)
        raise


def _install(engine: Engine, tree: Tree, memtable: Memtable, result: JobResult) -> None:
    keyspace = tree.version.id
    with engine.version_mutex:
        if keyspace not in engine.trees:
            engine.discard(result.tables)
            return
        log = engine.log
        if log is None:
            return
        needed = log.first_needed(engine.unflushed_seq(memtable) - 1)
        dropped: list[int] = []

        def count() -> None:
            engine.counters.note_written(keyspace, 0, result.bytes_written, is_flush=True)
            engine.counters.flushes += 1
            engine.counters.flushed_bytes += result.bytes_written
            engine.counters.entries_dropped += result.entries_dropped

        # Made before the edit, behind which nothing may fail.
        steps: Iterator[Callable[[], object]] = iter(
            (
                lambda: tree.install(engine.version.keyspaces[keyspace], memtable),
                lambda: engine.published(tree),
                lambda: dropped.extend(log.forget_before(needed.number)),
                lambda: engine.progressed("flush"),
                engine.store.purge,
                count,
            )
        )
        try:
            # Once an edit names them it is too late to find that they cannot be read.
            for info in result.tables:
                engine.store.reader(info)
            engine.log_edit(
                VersionEdit(
                    tables_added=tuple((keyspace, 0, info) for info in result.tables),
                    flushed_seq={keyspace: memtable.seq_max},
                    wal_first=needed.number,
                    wal_first_lsn=needed.lsn_first,
                    wal_first_salt=needed.salt,
                )
            )
        except (CorruptionError, OSError, DiskFullError, MemoryError):
            if not engine.is_poisoned:
                engine.discard(result.tables)
            raise
        engine.carry_out(steps)
    engine.unlink_segments(dropped)
