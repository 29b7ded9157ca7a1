"""Changing the key of an encrypted database, and rewriting what older data keys sealed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base import WrongKeyError, mark
from holdfast.compaction import TableRenewal
from holdfast.crypto import KeyRing, KeySource, Protection, SealedEnv, Secret
from holdfast.engine.compact import carry_out_plans, while_open
from holdfast.manifest import VersionEdit
from holdfast.sstable import SealedTable, TableInfo, table_name
from holdfast.wal import segments_beyond

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine

Progress = Callable[[int, int], None]


def rekey(
    engine: Engine, source: KeySource | None, *, rewrite: bool, progress: Progress | None
) -> None:
    """Put a new key in force, and rewrite what older data keys sealed; see `Database.rekey`."""
    env = engine.env
    engine.write_path.check_writable()
    if not isinstance(env, SealedEnv):
        raise WrongKeyError("the database is not encrypted: make a new one with a key and copy it")
    # This may wait for a key service, which nobody who closes should have to.
    protected = None if source is None else env.ring.protect(source)
    while_open(engine, partial(_change, engine, env, protected, rewrite, progress))


def _change(
    engine: Engine,
    env: SealedEnv,
    protected: tuple[Protection, Secret] | None,
    rewrite: bool,
    progress: Progress | None,
) -> None:
    if protected is not None:
        env.uninterrupted(partial(_go_over, engine, env.ring, *protected))
    if protected is not None or rewrite:
        # The segment at hand, and one that is ready, are sealed under what the old key may open.
        engine.write_path.begin_segment()
    if rewrite:
        engine.flush(list(engine.trees))
        env.uninterrupted(partial(_drop_segments, engine))
        _rewrite(engine, env, progress)


def _go_over(engine: Engine, ring: KeyRing, protection: Protection, wrapping: Secret) -> None:
    """Write the key file, and a manifest that it opens and no older one does."""
    with engine.version_mutex:
        # Behind a close the folder may be somebody else's.
        engine.write_path.check_writable()
        ring.replace(protection, wrapping)
        engine.rewrite_manifest()


def _drop_segments(engine: Engine) -> None:
    """Drop the segments whose operations are all in tables, as a flush does that has some."""
    with engine.version_mutex:
        log = engine.log
        if log is None:
            return
        needed = log.first_needed(engine.unflushed_seq() - 1)
        if needed.number > engine.version.wal_first:
            engine.log_edit(
                VersionEdit(
                    wal_first=needed.number,
                    wal_first_lsn=needed.lsn_first,
                    wal_first_salt=needed.salt,
                )
            )
            log.forget_before(needed.number)
    # A flush may have dropped some in the manifest, and not have come to remove them.
    try:
        needless = segments_beyond(engine.env, engine.folder, engine.version.wal_first, 0)
    except OSError:
        # They are orphans for the next open.
        mark("wal.unlink_failed")
    else:
        engine.unlink_segments(needless)


def _rewrite(engine: Engine, env: SealedEnv, progress: Progress | None) -> None:
    """Rewrite tables until none is left that an older key opens: a compaction that was under way
    when the epoch began may still add some.
    """
    while True:
        engine.write_path.check_writable()
        old = _old_tables(engine, env)
        total = sum(info.size_bytes for tables in old.values() for info in tables)
        if not total:
            return

        def done(size: int, total: int = total) -> None:
            if progress is not None:
                progress(size, total)

        for keyspace, tables in old.items():
            tree = engine.trees.get(keyspace)
            if tree is not None:
                work = TableRenewal(info.number for info in tables)
                carry_out_plans(engine, tree, work, done=done)


def _old_tables(engine: Engine, env: SealedEnv) -> dict[int, list[TableInfo]]:
    """Return the tables that are not sealed in the current epoch, by keyspace."""
    found: dict[int, list[TableInfo]] = {}
    with engine.version_mutex:
        for keyspace in engine.version.keyspaces.values():
            for _, info in keyspace.tables():
                file = env.open(f"{engine.folder}/{table_name(info.number)}")
                try:
                    is_old = isinstance(file, SealedTable) and file.epoch != env.ring.epoch
                finally:
                    file.close()
                if is_old:
                    found.setdefault(keyspace.id, []).append(info)
    return found
