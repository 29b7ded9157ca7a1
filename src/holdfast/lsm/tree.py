"""One keyspace's tree: its memtables and the tables of its current version, published as a
`ReadView`.

The tree knows no log and no manifest: the engine tells it when a memtable was flushed and which
tables it has now.

Thread safety: `freeze` and `install` are serialised by the caller; `view` may be read at any time.
"""

from __future__ import annotations

from holdfast.base import require
from holdfast.lsm._view import ReadView
from holdfast.lsm.merged import MergeReads
from holdfast.lsm.tables import TableStore
from holdfast.manifest import KeyspaceVersion
from holdfast.memtable import Memtable, SpareChunks
from holdfast.sstable import TableReader


class Tree:
    """The memtables and tables of one keyspace."""

    def __init__(self, store: TableStore, version: KeyspaceVersion, spare: SpareChunks) -> None:
        self._store = store
        self._spare = spare
        self.version = version
        self.active = Memtable(spare=spare)
        self.frozen: tuple[Memtable, ...] = ()
        self._levels = self._open_levels(version)
        self._merges = MergeReads(store.merges, store.merge_tally)
        self.view = self._publish()

    def _open_levels(self, version: KeyspaceVersion) -> tuple[tuple[TableReader, ...], ...]:
        for number, level in enumerate(version.levels):
            self._store.place(version.id, number, (info.number for info in level))
        return tuple(tuple(self._store.reader(info) for info in level) for level in version.levels)

    def _watched(
        self,
        active: Memtable,
        frozen: tuple[Memtable, ...],
        levels: tuple[tuple[TableReader, ...], ...],
        merges: MergeReads,
    ) -> ReadView:
        view = ReadView(active, frozen, levels, merges)
        self._store.watch(view)
        return view

    def _publish(self) -> ReadView:
        self.view = self._watched(self.active, self.frozen, self._levels, self._merges)
        return self.view

    @property
    def memtable_bytes(self) -> int:
        """Bytes of all memtables, active and frozen."""
        return self.active.bytes_used + sum(table.bytes_used for table in self.frozen)

    @property
    def unflushed_seq(self) -> int | None:
        """The least sequence number that only memtables hold, or None when they are empty."""
        held = [table.seq_min for table in (self.active, *self.frozen) if table.seq_min]
        return min(held, default=None)

    def freeze(self) -> Memtable:
        """Freeze the active memtable, start a new one and publish. Return the frozen one.

        Raises: MemoryError with nothing changed.
        """
        frozen = self.active
        active, waiting = Memtable(frozen.gaps, self._spare), (frozen, *self.frozen)
        view = self._watched(active, waiting, self._levels, self._merges)
        frozen.freeze()
        self.active, self.frozen, self.view = active, waiting, view
        return frozen

    def adopt(self, memtable: Memtable) -> None:
        """Publish `memtable` in place of the empty active one."""
        require(not self.active.seq_min, "only an empty memtable is replaced")
        self.active = memtable
        self._publish()

    def install(self, version: KeyspaceVersion, flushed: Memtable | None = None) -> None:
        """Publish the tables of `version`, and drop the memtable that became one of them.

        Requires: `flushed` is the oldest frozen memtable: tables replace memtables in order.
        Raises: MemoryError with nothing changed.
        """
        levels, frozen = self._open_levels(version), self.frozen
        if flushed is not None:
            require(frozen and frozen[-1] is flushed, "memtables are flushed oldest first")
            frozen = frozen[:-1]
        # A table that is newer than all that was there came past the memtables: nobody noted it.
        known = max(_seq_max(self.version), 0 if flushed is None else flushed.seq_max)
        if _seq_max(version) > known:
            self.active.gaps.clear(_seq_max(version))
        # What is known of values was read from the old tables, of which some may have been dropped.
        merges = MergeReads(self._store.merges, self._store.merge_tally)
        view = self._watched(self.active, frozen, levels, merges)
        # One after the other: nothing here needs memory.
        self.version = version
        self.frozen = frozen
        self._levels = levels
        self._merges = merges
        self.view = view


def _seq_max(version: KeyspaceVersion) -> int:
    return max((table.seq_max for _, table in version.tables()), default=0)
