"""Changing the key of an encrypted database, and rewriting what older data keys sealed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base import WrongKeyError
from holdfast.compaction import TableRenewal
from holdfast.crypto import KeySource, SealedEnv
from holdfast.engine.compact import carry_out_plans, while_open
from holdfast.sstable import SealedTable, TableInfo, table_name

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
    if source is not None:
        env.ring.replace(source, new_epoch=True)
        with engine.version_mutex:
            engine.rewrite_manifest()
    if rewrite:
        engine.flush(list(engine.trees))
        while_open(engine, partial(_rewrite, engine, env, progress))


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
