"""Ingest: pairs in key order become tables at once, without the log and without memtables.

1. The tables are written and synced like those of a flush, while everything else goes on. Their
   entries have no sequence number yet.
2. With the leadership, what was committed before is made durable, and the keyspace's memtables are
   flushed: a memtable must not hide what is newer than it.
3. The next sequence number becomes that of all rows, and one manifest edit takes in all tables with
   it. It is the moment of the commit. Then the view with them is published, and the number becomes
   visible, both under the version mutex: no compaction may see the tables before every new snapshot
   sees the number.

Whatever fails before the edit leaves nothing behind but files that no manifest names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base import DatabaseClosedError, require
from holdfast.compaction import (
    JobResult,
    JobStoppedError,
    UnreadableInputError,
    compression_at,
    run_ingest,
    strategy_of,
)
from holdfast.engine._core import FORKED
from holdfast.engine.compact import while_open
from holdfast.engine.snapshot import FORKED_TEXT
from holdfast.manifest import VersionEdit

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.lsm import Tree


def ingest(engine: Engine, keyspace: int, pairs: Iterable[tuple[object, object]]) -> int:
    """Add pairs of ascending keys to a keyspace as one durable commit; return their number.

    Raises: what the iterable raises, as it is; TypeError, ValueError, LimitError; DiskFullError,
    MemoryError, DatabasePoisonedError, DatabaseClosedError, ReadOnlyError. Then nothing is changed,
    unless the database is poisoned and nobody knows.
    """
    return while_open(engine, partial(_ingest, engine, keyspace, pairs))


def _ingest(engine: Engine, keyspace: int, pairs: Iterable[tuple[object, object]]) -> int:
    engine.write_path.check_writable()
    tree = _tree(engine, keyspace)
    cause: BaseException | None = None
    try:
        result = run_ingest(
            engine.env,
            engine.folder,
            pairs,
            allocate_number=engine.numbers.allocate,
            compression_at=lambda first: compression_at(tree.version, first),
            settings=tree.version.settings,
            origin=tree.version.origin,
            should_stop=lambda: engine.upkeep.is_stopped,
            is_forked=lambda: bool(engine.state.flags & FORKED),
        )
    except UnreadableInputError as error:
        cause = error.__cause__
    except OSError as error:
        raise engine.failure(error) from error
    except JobStoppedError:
        if engine.state.flags & FORKED:
            raise DatabaseClosedError(FORKED_TEXT) from None
        raise DatabaseClosedError("the database was closed during the ingest") from None
    if cause is not None:
        # Of the iterable; outside of the handlers, so that it keeps its own cause and context.
        raise cause
    if result.tables:
        _take_in(engine, keyspace, result)
        engine.schedule_compaction()
    return result.entries_written


def _take_in(engine: Engine, keyspace: int, result: JobResult) -> None:
    """Make the written tables a part of the database, or remove them."""
    installed: list[bool] = []

    def discard() -> None:
        # What became of a failed edit is not known, and then nothing is removed.
        if not installed and not engine.is_poisoned:
            with engine.version_mutex:
                engine.discard(result.tables)

    try:
        # Most of it, so that commits do not wait for it.
        engine.flush([keyspace])
        engine.write_path.exclusive(partial(_install, engine, keyspace, result, installed))
    except BaseException:
        engine.env.uninterrupted(discard)
        raise


def _install(engine: Engine, keyspace: int, result: JobResult, installed: list[bool]) -> None:
    """Log the edit and show the tables. Requires: the leadership."""
    tree = _tree(engine, keyspace)
    engine.freeze(tree)
    # What was committed before must not be lost when this is not.
    engine.write_path.sync_held()
    state = engine.state
    require(state.buffer.op_count == 0, "what is in the buffer ends with the last number")
    with engine.version_mutex:
        if tree.frozen:
            engine.wait_flushed({keyspace: tree.frozen[0]})
        seq = state.next_seq
        following = seq + 1
        user_bytes = sum(info.raw_bytes for info in result.tables)
        tables = [replace(info, seq_min=seq, seq_max=seq) for info in result.tables]
        strategy = strategy_of(tree.version.settings)
        levels = strategy.place(tree.version, tables, frozenset(engine.busy_tables))
        edit = VersionEdit(
            tables_added=tuple(
                (keyspace, level, info) for level, info in zip(levels, tables, strict=True)
            ),
            flushed_seq={keyspace: seq},
        )

        def show() -> None:
            # Rows are visible from here on: the view has them already.
            state.next_seq = following
            state.visible_seq = seq

        def count() -> None:
            engine.counters.note_ingested(
                entries=result.entries_written,
                user_bytes=user_bytes,
                table_bytes=result.bytes_written,
            )

        # Made before the edit, behind which nothing may fail.
        steps: Iterator[Callable[[], object]] = iter(
            (
                lambda: installed.append(True),
                lambda: tree.install(engine.version.keyspaces[keyspace]),
                lambda: engine.published(tree),
                show,
                engine.update_pace,
                count,
            )
        )
        # Once an edit names them it is too late to find that they cannot be read.
        for info in tables:
            engine.store.reader(info)
        engine.log_edit(edit)
        engine.carry_out(steps)


def _tree(engine: Engine, keyspace: int) -> Tree:
    tree = engine.trees.get(keyspace)
    if tree is None:
        raise DatabaseClosedError("the keyspace of this ingest was dropped")
    return tree
