"""Open tables and the lives of their files.

Every table of the current version is open, once. A table that left the current version is *doomed*:
its file is unlinked and its pages leave the pool when no read view holds it any more. Views are
watched through weak references, so a forgotten cursor keeps its files exactly as long as it lives.

Invariants:
1. A table that some live view holds is open.
2. A file is unlinked only after the manifest edit that removed its table was synced (the caller
   dooms it after that).

Thread safety: guarded by the caller's mutex, except that views may die in any thread at any time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from holdfast.base import CorruptionError, mark
from holdfast.bufferpool import BufferPool
from holdfast.cursor import ScanTally
from holdfast.env import Env
from holdfast.lsm._view import ReadView
from holdfast.lsm.merged import MergeTally
from holdfast.memtable import Memtable
from holdfast.merge import Merges
from holdfast.sstable import TableInfo, TableReader, table_name

Place = tuple[int, int]
"""A keyspace and a level."""
Pages = tuple[int, int]
"""A number of pages and the bytes they have in files."""


class TableStore:
    """The open tables of a database."""

    def __init__(
        self, env: Env, folder: str, pool: BufferPool, merges: Merges | None = None
    ) -> None:
        self.merges = Merges() if merges is None else merges
        self.merge_tally = MergeTally()
        """The merge functions of the database."""
        self._env = env
        self._folder = folder
        self._pool = pool
        self._open: dict[int, TableReader] = {}
        self._doomed: set[int] = set()
        self._views: dict[weakref.ref[ReadView], frozenset[int]] = {}
        self._died: list[weakref.ref[ReadView]] = []
        self._places: dict[int, Place] = {}
        self._read_before: dict[Place, Pages] = {}
        """Pages that were read of tables which are closed."""
        self.tally = ScanTally()
        """What all cursors of all views together gave."""
        self.keeps_files: Callable[[], bool] = lambda: False
        """Says that nothing may be removed now: `purge` leaves files as orphans for the next open.
        """

    def reader(self, info: TableInfo) -> TableReader:
        """Return the open reader of a table, opening it when needed.

        Raises: CorruptionError when the file is missing, damaged or another one than the manifest
        says; OSError.
        """
        reader = self._open.get(info.number)
        if reader is None:
            path = f"{self._folder}/{table_name(info.number)}"
            try:
                file = self._env.open(path)
            except FileNotFoundError:
                raise CorruptionError(
                    path, 0, "the manifest names this table, and it is missing"
                ) from None
            try:
                reader = TableReader(file, info.number, info.file_id, self._pool, info)
            except BaseException:
                file.close()
                raise
            self._open[info.number] = reader
        return reader

    def forget(self, info: TableInfo) -> None:
        """Close the reader of a table that enters no version."""
        reader = self._open.pop(info.number, None)
        if reader is not None:
            reader.close()
            self._pool.drop_file(info.number)

    def place(self, keyspace: int, level: int, numbers: Iterable[int]) -> None:
        """Note where tables lie: what was read of them counts there from now on."""
        for number in numbers:
            self._places[number] = keyspace, level

    def pages_read(self) -> dict[Place, Pages]:
        """Return what lookups and scans read from files, by the place where a table lies or lay
        last.
        """
        found = dict(self._read_before)
        for number, reader in self._open.items():
            _add_pages(found, self._places.get(number), reader)
        return found

    def pages_read_total(self) -> Pages:
        """Return the sum of `pages_read`. Needs no mutex: a figure for people."""
        pages = size = 0
        for reader in list(self._open.values()):
            pages, size = pages + reader.pages_read, size + reader.bytes_read
        for before in list(self._read_before.values()):
            pages, size = pages + before[0], size + before[1]
        return pages, size

    def watch(self, view: ReadView) -> None:
        """Keep the tables of `view` until it dies."""
        view.tally = self.tally
        numbers = frozenset(reader.number for level in view.levels for reader in level)
        self._views[weakref.ref(view, self._died.append)] = numbers

    def hold(self, readers: Iterable[TableReader]) -> ReadView:
        """Return what keeps tables until it dies, and no memtable, as the view of a tree does: for
        who works on tables for long.
        """
        view = ReadView(Memtable(), (), (tuple(readers),))
        self.watch(view)
        return view

    def doom(self, numbers: Iterable[int]) -> None:
        """Mark tables that left the current version; `purge` removes those that no view holds."""
        self._doomed.update(numbers)

    def purge(self) -> list[int]:
        """Close and unlink the doomed tables that no live view holds. Return their numbers.

        A file that cannot be unlinked stays an orphan, which the next open removes.
        """
        while self._died:
            self._views.pop(self._died.pop(), None)
        if not self._doomed:
            return []
        held = frozenset[int]().union(*self._views.values())
        gone = sorted(self._doomed - held)
        for number in gone:
            reader = self._open.get(number)
            if reader is not None:
                # First: it asks for memory, and then nothing has happened yet.
                _add_pages(self._read_before, self._places.get(number), reader)
            self._doomed.discard(number)
            self._open.pop(number, None)
            self._places.pop(number, None)
            if reader is not None:
                reader.close()
            self._pool.drop_file(number)
            if self.keeps_files():
                continue
            try:
                self._env.unlink(
                    f"{self._folder}/{table_name(number)}", site="table.obsolete.unlink"
                )
            except OSError:
                mark("table.unlink_failed")
        return gone

    def end_views(self, reason: str) -> None:
        """Let the cursors of all views that are still held raise DatabaseClosedError(reason).

        Takes no lock, for a forked child.
        """
        for reference in list(self._views):
            view = reference()
            if view is not None:
                view.ended = reason

    def close(self) -> None:
        """Close all tables; cursors that are still held raise DatabaseClosedError."""
        self.end_views("the database is closed")
        for reader in self._open.values():
            reader.close()
        self._open.clear()


def _add_pages(sums: dict[Place, Pages], place: Place | None, reader: TableReader) -> None:
    if place is not None and reader.pages_read:
        pages, size = sums.get(place, (0, 0))
        sums[place] = pages + reader.pages_read, size + reader.bytes_read
