"""Closing: what is in memory becomes tables, and the manifest says that the end was clean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.base import DatabasePoisonedError, DiskFullError, mark
from holdfast.engine._core import CLOSED, CLOSING, FORKED, POISONED
from holdfast.engine.flush import flush_frozen
from holdfast.manifest import VersionEdit

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine


def close_engine(engine: Engine) -> None:
    """Close an engine; a second close is harmless, and so is one in a forked child.

    Everything acknowledged is kept whatever happens here. Raises: DiskFullError or
    DatabasePoisonedError when the flush could not be done; the files are closed and the lock is
    given back all the same.
    """
    flags = engine.state.flags
    if flags & CLOSED:
        return
    if flags & FORKED:
        # The parent owns the files; the child only forgets them.
        engine.state.flags |= CLOSED
        return
    if engine.log is None or flags & POISONED:
        engine.upkeep.stop()
        engine.release()
        return
    try:
        _flush_everything(engine)
    finally:
        engine.upkeep.stop()
        engine.release()


def _flush_everything(engine: Engine) -> None:
    def stop_writing() -> None:
        for tree in list(engine.trees.values()):
            if tree.active.seq_min:
                engine.write_path.sync_held()
                with engine.version_mutex:
                    tree.freeze()
                    engine.published(tree)
        engine.write_path.sync_held()
        engine.state.flags |= CLOSING

    engine.write_path.exclusive(stop_writing)
    # Background jobs end first: two flushes of one keyspace must not run at the same time.
    engine.upkeep.stop()
    try:
        for keyspace in list(engine.trees):
            flush_frozen(engine, keyspace)
    except DiskFullError:
        # The log has everything; the next open flushes it.
        mark("engine.close_disk_full")
        return
    with engine.version_mutex:
        if engine.is_poisoned:
            raise DatabasePoisonedError("a sync failed while the database was closing; reopen it")
        engine.log_edit(VersionEdit(clean=True))
        # Tables that a reader held when they left the version, and that nobody holds any more.
        engine.store.purge()
