"""What each transaction asks of its database: a snapshot, its end, and a commit that waits for
nobody. The plain Python twin and specification of `_host_c`.

Thread safety: safe.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from holdfast.engine._core import FORKED, READ_ONLY
from holdfast.txn import Transaction
from holdfast.wal import WriteBatch

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine


class HostCore:
    """The part of `txn.Host` that each transaction uses."""

    def __init__(self, engine: Engine, batch_bytes_max: int) -> None:
        self._engine = engine
        self._state = engine.state
        self._snapshots = engine.snapshots
        self.batch_bytes_max = batch_bytes_max
        """The most bytes that one transaction may write, unless it is a single operation."""

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written."""
        return bool(self._state.flags & READ_ONLY)

    def acquire(self, held: list[int], holder: Transaction) -> Callable[[], None] | None:
        """Register the newest visible sequence number and put it into `held`. Return what is to be
        called before a read, or None.
        """
        snapshots = self._snapshots
        tenure = snapshots.acquire(held, holder)
        if snapshots.age_max or snapshots.bytes_max:
            return partial(snapshots.check, tenure)
        return None

    def release(self, held: list[int]) -> None:
        """Unregister the snapshot in `held` and take it out; does nothing when that is done."""
        if self._state.flags & FORKED:
            # Another thread of the parent may hold the registry's mutex for ever.
            held[:] = ()
        else:
            self._snapshots.release(held)

    def drop(self, held: list[int]) -> bool:
        """Like `release`, from a finalizer; return whether it was there."""
        return self._snapshots.drop(held)

    def commit_at_once(
        self,
        batch: WriteBatch,
        durability: str | None,
        keyspaces: tuple[int, ...],
        since: int,
    ) -> bool:
        """Write a batch if nobody has to wait for it, and nothing was committed behind `since`;
        return whether it was written.
        """
        state = self._state
        if durability != "none" and not (durability == "interval" and state.interval_armed):
            return False
        done = state.commit_at_once(batch, since, keyspaces, self._engine.write_path.memtables)
        if done and durability == "interval":
            # The timer may have ended while the commit waited for the mutex.
            self._engine.arm_interval()
        return done
