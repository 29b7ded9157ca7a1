"""What the one budget is charged beside pages: memtables, what is kept for them, and flushes and
compactions while they work.

A memtable takes its memory from one `SpareChunks`, which has what flushed ones left behind, and
what was made ready ahead of those that fill (ADRs 0043 and 0049). What a job works with is charged
as a lump, for as long as it is under way (ADR 0052): the pool makes room once, and not for each
buffer.

Thread safety: safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from holdfast.base import mark
from holdfast.bufferpool import BufferPool
from holdfast.codec import release_bodies
from holdfast.env import Env, release_memory
from holdfast.lsm import Tree
from holdfast.memtable import SpareChunks

AHEAD_BYTES = 8 << 20
"""Memory made ready ahead of memtables that fill: several chunks, so that the thread that makes
them may be late.
"""

FILLING_BYTES = 1 << 20
"""A memtable of this size is taken to go on growing: smaller ones do not take whole chunks."""

COMPACTION_BYTES = 28 << 20
"""What a compaction works with: pages read ahead, and of each part the pages that wait to be
written, the index and the filters of the table, and the hashes of its keys.
"""

FLUSH_BYTES = 8 << 20
"""What a flush works with, likewise."""

HOLES_BYTES = 8 << 20
"""When pages made so much room, their memory is given back."""


def give_back_freed() -> None:
    """Give freed memory back to the system. Takes milliseconds."""
    release_bodies()
    release_memory()


class EngineMemory:
    """What an engine takes of the budget for anything but pages. `is_compacting` says whether a
    compaction is under way.
    """

    def __init__(
        self,
        env: Env,
        pool: BufferPool,
        trees: Mapping[int, Tree],
        memory_bytes: int,
        is_compacting: Callable[[], bool],
    ) -> None:
        self.spare = SpareChunks()
        self._is_compacting = is_compacting
        self._pool = pool
        self._trees = trees
        self._memory_bytes = memory_bytes
        self._mutex = env.mutex()
        self._taken_before = 0
        """The least that was charged since memory was given back."""

    def charge(self) -> None:
        """Charge the memtables, the memory kept for the next one, and the work that is under way,
        to the one budget.
        """
        # The leader and flushes of several keyspaces come here at the same time.
        with self._mutex:
            trees = list(self._trees.values())
            held = sum(tree.memtable_bytes for tree in trees)
            # As long as there is a memtable in use, one more will follow it.
            self.spare.keep(self._bytes_max(trees) if held else 0)
            # What the pool says is right even when a signal handler ended an earlier call here.
            taken = held + self.spare.bytes_held + self._working_bytes(trees)
            self._pool.reserve(taken - self._pool.reserved_bytes)
            self._taken_before = min(self._taken_before, taken)

    @property
    def has_holes(self) -> bool:
        """Whether so many pages had to make room that it is time for `give_back`."""
        pool = self._pool
        taken = pool.reserved_bytes
        is_full = pool.used_bytes + taken + HOLES_BYTES >= self._memory_bytes
        return is_full and taken - self._taken_before >= HOLES_BYTES

    def give_back(self) -> None:
        """Give the memory of pages that made room to the system: they lay among others that stay,
        and the allocator would keep it. Takes milliseconds.
        """
        self._taken_before = self._pool.reserved_bytes
        mark("engine.memory_given_back")
        give_back_freed()

    def _working_bytes(self, trees: list[Tree]) -> int:
        """Return what flushes and compactions that are under way work with, or may. In a small
        budget their tables are small, too.
        """
        bytes_max, working = self._memory_bytes // 32, 0
        if any(tree.frozen for tree in trees):
            working += min(FLUSH_BYTES, bytes_max)
        if self._is_compacting():
            working += min(COMPACTION_BYTES, self._memory_bytes // 8)
        return working

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
