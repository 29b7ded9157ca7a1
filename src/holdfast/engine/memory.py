"""The memory of memtables: what the one budget is charged for them, and what is kept for them.

A memtable takes its memory from one `SpareChunks`, which has what flushed ones left behind, and
what was made ready ahead of those that fill (ADRs 0043 and 0049).

Thread safety: safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from holdfast.bufferpool import BufferPool
from holdfast.env import Env
from holdfast.lsm import Tree
from holdfast.memtable import SpareChunks

AHEAD_BYTES = 8 << 20
"""Memory made ready ahead of memtables that fill: several chunks, so that the thread that makes
them may be late.
"""

FILLING_BYTES = 1 << 20
"""A memtable of this size is taken to go on growing: smaller ones do not take whole chunks."""


class MemtableMemory:
    """The memory of all memtables of an engine."""

    def __init__(
        self, env: Env, pool: BufferPool, trees: Mapping[int, Tree], memory_bytes: int
    ) -> None:
        self.spare = SpareChunks()
        self._pool = pool
        self._trees = trees
        self._memory_bytes = memory_bytes
        self._mutex = env.mutex()

    def charge(self) -> None:
        """Charge the memtables, and the memory kept for the next one, to the one budget."""
        # The leader and flushes of several keyspaces come here at the same time.
        with self._mutex:
            trees = list(self._trees.values())
            held = sum(tree.memtable_bytes for tree in trees)
            # As long as there is a memtable in use, one more will follow it.
            self.spare.keep(self._bytes_max(trees) if held else 0)
            # What the pool says is right even when a signal handler ended an earlier call here.
            self._pool.reserve(held + self.spare.bytes_held - self._pool.reserved_bytes)

    def _bytes_max(self, trees: list[Tree]) -> int:
        """Return how much may be kept beside the memtables."""
        following = max((tree.version.settings.memtable_bytes for tree in trees), default=0)
        return min(following, self._memory_bytes // 8)

    @property
    def is_short(self) -> bool:
        """Whether so much is missing ahead of memtables that fill that it is time for `prepare`:
        not for each chunk, since whoever puts pays for having it called.
        """
        wanted = self._wanted_bytes()
        return wanted - self.spare.bytes_held >= max(wanted // 2, self.spare.chunk_bytes, 1)

    def _wanted_bytes(self) -> int:
        """Return how much should be ready ahead of the memtables that fill."""
        if not self.spare.chunk_bytes:
            return 0
        trees = list(self._trees.values())
        wanted = sum(
            max(tree.version.settings.memtable_bytes - tree.active.bytes_used, 0)
            for tree in trees
            if tree.active.bytes_used >= FILLING_BYTES
        )
        return min(wanted, AHEAD_BYTES, self._bytes_max(trees))

    def prepare(self) -> None:
        """Make memory ready for memtables that fill. Background work.

        Want of memory does no harm: whoever puts finds its own, or the want of it.
        """
        chunk_bytes = self.spare.chunk_bytes
        with suppress(MemoryError):
            while (
                chunk_bytes
                and self.spare.bytes_held + chunk_bytes <= self._wanted_bytes()
                and self.spare.prepare()
            ):
                self.charge()
