"""Other settings for a keyspace that exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from holdfast.base import KeyspaceSettings
from holdfast.manifest import VersionEdit

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine


def tune_keyspace(engine: Engine, keyspace: int, settings: KeyspaceSettings) -> None:
    """Give a keyspace other settings. Durable when it returns; nothing is done when it has them.

    What is there stays as it is until it is written anew: tables have the pages and compression
    that they were written with, and levels get their new sizes by the compactions to come.
    Raises: LimitError when a fixed one differs; what an edit raises.
    """
    tree = engine.trees.get(keyspace)
    if tree is None:
        # It was dropped meanwhile.
        return
    tree.version.settings.check_kept(settings)
    if tree.version.settings != settings and engine.version_set is not None:
        engine.write_path.exclusive(lambda: _tune(engine, keyspace, settings))


def _tune(engine: Engine, keyspace: int, settings: KeyspaceSettings) -> None:
    # The log first: the edit must not survive a crash that takes an earlier commit.
    engine.write_path.sync_held()
    with engine.version_mutex:
        tree = engine.trees.get(keyspace)
        if tree is None:
            return

        def take_in() -> None:
            tree.version = engine.version.keyspaces[keyspace]
            engine.published(tree)

        # First, for want of memory does no harm here.
        engine.check_often_enough(settings)
        steps: Iterator[Callable[[], object]] = iter((take_in, engine.update_pace))
        engine.log_edit(VersionEdit(keyspaces_changed={keyspace: settings}))
        engine.carry_out(steps)
    engine.schedule_compaction()
