"""Closing: what is in memory becomes tables, and the manifest says that the end was clean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.base import DatabasePoisonedError, DiskFullError, mark
from holdfast.engine._core import CLOSED, CLOSING, FORKED
from holdfast.engine.flush import flush_frozen
from holdfast.engine.upkeep import SHORTAGE_SECONDS
from holdfast.manifest import VersionEdit

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine

SHORTAGE_TRIES = 500
"""How often a close that has no memory for a step of its end tries again."""


def close_engine(engine: Engine) -> None:
    """Close an engine; a second close is harmless, and so is one in a forked child.

    One from the middle of a call to the database, or of background work, raises ReentryError with
    nothing done. Otherwise everything acknowledged as durable is kept whatever happens here; so is
    everything else unless it raises. A close while another thread closes waits for it. Raises:
    DiskFullError when unsynced writes have no room in the log; DatabasePoisonedError when a sync
    failed now or earlier. The files are closed and the lock is given back all the same.
    """
    if engine.state.flags & CLOSED:
        return
    if engine.state.flags & FORKED:
        # The parent owns the files; the child only forgets them.
        engine.state.flags |= CLOSED
        return
    engine.write_path.require_outside()
    with engine.closing_mutex:
        if engine.state.flags & CLOSED:
            return
        try:
            # An earlier close that was interrupted took back the right to write.
            is_cut_off = engine.state.flags & CLOSING
            if engine.log is not None and not engine.is_poisoned and not is_cut_off:
                _flush_everything(engine)
        finally:
            # Whatever stops the stop, an interrupt say, the handle is closed behind it.
            try:
                _stop_work(engine)
            finally:
                _release(engine)
        if engine.is_poisoned:
            raise DatabasePoisonedError(
                "a sync or write failed, so writes that were not durable may be lost; reopen it"
            )


def _stop_work(engine: Engine) -> None:
    """Return when nobody reads or writes tables any more but for lookups and iterators.

    A compaction that went on would write into the folder when another process may have it.
    """
    # No compaction begins from now on.
    engine.state.flags |= CLOSING

    def stop() -> None:
        engine.upkeep.stop()
        own = {engine.env.thread_id()}
        with engine.version_mutex:
            engine.room.notify_all()
            while engine.compacting - own:
                engine.room.wait(1.0)
        engine.committer.stop()

    _insist(engine, stop)


def _release(engine: Engine) -> None:
    """Give everything back, the lock last."""
    _insist(engine, lambda: engine.env.uninterrupted(engine.release))


def _insist(engine: Engine, step: Callable[[], None]) -> None:
    """Do a step of the end that may be done again, which must not be left for want of memory."""
    for _ in range(SHORTAGE_TRIES):
        try:
            step()
        except MemoryError:
            mark("engine.closed_again")
            engine.env.sleep(SHORTAGE_SECONDS)
        else:
            return
    raise MemoryError("no memory to end the work of a database that is closed")


def _say_clean(engine: Engine) -> None:
    """Say in the manifest that the end was clean. Requires: the version mutex. Raises: as
    `Engine.log_edit`.

    Of a manifest with edits, damage can take the last ones away as a crash would, and no log needs
    to know of them: that of a keyspace that nobody wrote to. A manifest that is one snapshot was
    synced before its marker was there, so whatever befalls it is told (ADR 0053).
    """
    edit = VersionEdit(clean=True)
    if engine.version_set is not None and engine.version_set.has_edits:
        try:
            engine.rewrite_manifest(edit)
        except (DiskFullError, MemoryError):
            if engine.is_poisoned:
                raise
            mark("engine.clean_end_appended")
        else:
            return
    engine.log_edit(edit)


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
    _stop_work(engine)
    try:
        for keyspace in list(engine.trees):
            flush_frozen(engine, keyspace)
        with engine.version_mutex:
            if engine.is_poisoned:
                return
            _say_clean(engine)
            # Tables that a reader held when they left the version, and that nobody holds any more.
            engine.store.purge()
    except OSError as error:
        failure = engine.failure(error)
        if isinstance(failure, DatabasePoisonedError):
            raise failure from error
        mark("engine.close_disk_full")
    except DiskFullError:
        # The log has everything; the next open flushes it.
        mark("engine.close_disk_full")
