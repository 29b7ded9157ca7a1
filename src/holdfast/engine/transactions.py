"""What a transaction gets from its database: snapshots, keyspaces, and the way to the log."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from holdfast.base import BATCH_BYTES_MAX, DatabaseClosedError
from holdfast.engine._core import FORKED
from holdfast.engine._host import HostCore
from holdfast.lsm import ReadView
from holdfast.txn import Check, LockTable, Owner
from holdfast.wal import WriteBatch

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.engine.keyspace import Keyspace


class TransactionHost(HostCore):
    """Implements `txn.Host` for the transactions over one keyspace. Thread safety: safe."""

    def __init__(self, engine: Engine, keyspace: Keyspace) -> None:
        # What one writes is in memory until it ends.
        HostCore.__init__(self, engine, min(BATCH_BYTES_MAX, engine.settings.memory_bytes))
        # A transaction holds the keyspace it is over anyway.
        self._keyspace = weakref.ref(keyspace)

    @property
    def locks(self) -> LockTable:
        """The locks that transactions ask for."""
        return self._engine.locks

    def release_locks(self, owner: Owner, kept: int) -> None:
        """Give back all locks of `owner` but the first `kept`."""
        # In a forked child nobody waits, and a thread of the parent may hold the mutex for ever.
        if not self._engine.state.flags & FORKED:
            self._engine.locks.release(owner, kept)

    def origin_of(self, held: list[int]) -> str:
        """Return where in the user's code the snapshot in `held` was taken."""
        return self._engine.snapshots.origin_of(held)

    def source(self, name: str, *, create: bool) -> Keyspace:
        """Return a keyspace. Raises: KeyError when it is absent and not to be created."""
        keyspace = self._keyspace()
        if keyspace is None:
            raise DatabaseClosedError("the database handle is gone")
        return keyspace.sibling(name, create=create)

    def look_ahead(self, check: Check) -> None:
        """Check what is visible already, if it is much. Raises: ConflictError."""
        # Read first: what is visible is in every view that is asked afterwards.
        visible = self._engine.state.visible_seq
        check.look_ahead(visible, self._view)

    def _view(self, keyspace: int) -> ReadView:
        tree = self._engine.trees.get(keyspace)
        if tree is None:
            raise DatabaseClosedError("a keyspace of this commit was dropped")
        return tree.view

    def commit(
        self,
        batch: WriteBatch,
        durability: str | None,
        keyspaces: tuple[int, ...],
        check: Check | None,
    ) -> None:
        """Write a batch if `check` holds right before."""
        engine = self._engine
        if check is not None and engine.state.visible_seq != check.since and check.is_large:
            self.look_ahead(check)
        engine.write_path.commit(batch, durability, keyspaces, check)
        if durability == "interval":
            # After the commit: a timer that runs before finds nothing to sync and ends.
            engine.arm_interval()
