"""Traces of the buffer pool: which pages the engine asks for, recorded from real runs of it.

A trace does not depend on a policy: it is recorded with a pool that keeps everything. The recording
pool is a subclass of the plain twin, so a recording runs in a process of its own with
HOLDFAST_PURE=1: `python -m holdfast.testing.pool_trace NAME SEED FILE`.

An event is (kind, file number, offset, bytes charged):

- ASK: a reader asks for a page, and would put it into the pool.
- PEEK: a compaction asks for a page; it uses one that is there and puts none in. No bytes.
- PIN: a page that enters pinned, as index roots do when their table is opened, or that a reader
  asks for and then pins while there is room for that, as filters.
- DROP: a file is gone.

Thread safety: one thread, the main one; background threads of the engine are told apart.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any
from unittest import mock

import holdfast
from holdfast.bufferpool import PAGE_OVERHEAD_BYTES, BufferPool, Page
from holdfast.engine import Database, opening

ASK, PEEK, PIN, DROP = range(4)

Event = tuple[int, int, int, int]

POOL_BYTES = 1 << 30
"""The recording pool keeps all pages."""


class Recorder:
    """Collects the events of a run while it is told to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._charges: dict[tuple[int, int], int] = {}
        self._pinned: set[tuple[int, int]] = set()
        self._aside = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take what happens in the block for background work, in whatever thread it is done."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def ask(self, key: tuple[int, int]) -> None:
        """Note that a page is asked for. What it is charged is known when it was put."""
        is_reader = not self._aside and threading.current_thread() is threading.main_thread()
        self.events.append((ASK if is_reader else PEEK, *key, 0))

    def put(self, key: tuple[int, int], page: Page, pinned: bool) -> None:
        """Note that a page enters."""
        self._charges[key] = len(page) + PAGE_OVERHEAD_BYTES
        if pinned:
            self._pinned.add(key)
            if self.events and self.events[-1][1:3] != key:
                self.events.append((PIN, *key, 0))

    def drop(self, number: int) -> None:
        """Note that a file is gone."""
        self.events.append((DROP, number, 0, 0))

    def trace(self) -> list[Event]:
        """Return the events with what each page is charged; pages pinned before them come first."""
        asked = {(file, offset) for kind, file, offset, _ in self.events if kind == PIN}
        before = [(PIN, *key, self._charges[key]) for key in sorted(self._pinned - asked)]
        found: list[Event] = [*before]
        for kind, file, offset, _ in self.events:
            key = (file, offset)
            if kind == DROP:
                found.append((DROP, file, 0, 0))
            elif kind == PEEK or key not in self._charges:
                found.append((PEEK, *key, 0))
            else:
                found.append((PIN if key in self._pinned else kind, *key, self._charges[key]))
        return found


def recording_pool(recorder: Recorder) -> type[BufferPool]:
    """Return a pool that keeps everything and tells the recorder. Requires: HOLDFAST_PURE=1."""

    class RecordingPool(BufferPool):
        def __init__(self, capacity_bytes: int) -> None:
            super().__init__(max(capacity_bytes, POOL_BYTES))

        def get(self, file_number: int, offset: int) -> Page | None:
            recorder.ask((file_number, offset))
            return super().get(file_number, offset)

        def put(self, file_number: int, offset: int, page: Page, pinned: bool = False) -> None:
            recorder.put((file_number, offset), page, pinned)
            super().put(file_number, offset, page, pinned)

        def drop_file(self, file_number: int) -> None:
            recorder.drop(file_number)
            super().drop_file(file_number)

    return RecordingPool


# --- what is recorded


ROWS = 20_000
VALUE_BYTES = 200
READS = 20_000
SCANS = 6
ZIPF_EXPONENT = 0.99


def key_of(number: int) -> bytes:
    """Return the key of a row."""
    return b"%012d" % number


class Run:
    """One database, its random numbers, and its recorder."""

    def __init__(self, db: Database, recorder: Recorder, seed: int, rows: int, reads: int) -> None:
        self.db = db
        self.recorder = recorder
        self.random = random.Random(seed)
        self.rows = rows
        self.reads = reads
        self._zipf = list(accumulate((n + 1) ** -ZIPF_EXPONENT for n in range(rows)))
        self._places = list(range(rows))
        self.random.shuffle(self._places)

    def put(self, number: int) -> None:
        """Write a row."""
        value = self.random.randbytes(VALUE_BYTES)
        self.db.put(key_of(number), value, durability="none")

    def zipf(self) -> int:
        """Return a row, few of them most of the time, anywhere in the order of keys."""
        return self._places[self.rank()]

    def rank(self) -> int:
        """Return a number by Zipf's law: 0 the most often."""
        return min(bisect(self._zipf, self.random.random() * self._zipf[-1]), self.rows - 1)

    def get(self, number: int) -> None:
        """Read a row."""
        self.db.get(key_of(number))

    def scan(self, start: int, count: int) -> None:
        """Read rows in order."""
        for _ in self.db.items(start=key_of(start), limit=count):
            pass


def uniform(run: Run) -> None:
    """Lookups of any row."""
    for _ in range(run.reads):
        run.get(run.random.randrange(run.rows))


def zipf(run: Run) -> None:
    """Lookups by Zipf's law."""
    for _ in range(run.reads):
        run.get(run.zipf())


def scan_mixed_in(run: Run) -> None:
    """Lookups by Zipf's law, and now and then a scan of everything."""
    for read in range(run.reads):
        run.get(run.zipf())
        if read % (run.reads // SCANS) == run.reads // SCANS // 2:
            run.scan(0, run.rows)


def short_scans(run: Run) -> None:
    """Scans of up to 100 rows, which begin by Zipf's law."""
    for _ in range(run.reads // 10):
        run.scan(run.zipf(), run.random.randrange(100))


def loop(run: Run) -> None:
    """The same third of the rows again and again, in order."""
    for _ in range(3 * SCANS):
        run.scan(run.rows // 3, run.rows // 3)


def compaction_beside(run: Run) -> None:
    """Lookups by Zipf's law while rows are written over, flushed and compacted."""
    for read in range(run.reads):
        run.get(run.zipf())
        if read % 3 == 0:
            run.put(run.random.randrange(run.rows))
        if read % (run.reads // SCANS) == run.reads // SCANS // 2:
            with run.recorder.aside():
                run.db.compact()


def time_order(run: Run) -> None:
    """Rows arrive in time order; most reads are of the newest ones, some of any."""
    newest = run.rows - 1
    for read in range(run.reads):
        if read % 3 == 0:
            newest += 1
            run.put(newest)
        if read % 10 == 0:
            run.get(run.random.randrange(newest))
        else:
            run.get(newest - run.rank())


TRACES: dict[str, Callable[[Run], None]] = {
    "uniform": uniform,
    "zipf": zipf,
    "scan mixed in": scan_mixed_in,
    "short scans": short_scans,
    "loop": loop,
    "compaction beside": compaction_beside,
    "time order": time_order,
}


def record(name: str, seed: int, rows: int = ROWS, reads: int = READS) -> list[Event]:
    """Run a workload and return its trace. Requires: HOLDFAST_PURE=1.

    Raises: KeyError when there is no such trace.
    """
    work = TRACES[name]
    recorder = Recorder()
    with (
        mock.patch.object(opening, "BufferPool", recording_pool(recorder)),
        tempfile.TemporaryDirectory() as folder,
    ):
        settings = holdfast.DatabaseSettings(memory_bytes=8 << 20)
        with holdfast.open(os.path.join(folder, "db"), settings=settings) as db:
            run = Run(db, recorder, seed, rows, reads)
            numbers = list(range(rows))
            if name != "time order":
                run.random.shuffle(numbers)
            for number in numbers:
                run.put(number)
            db.flush()
            db.compact()
            recorder.events.clear()
            work(run)
        return recorder.trace()


def main(arguments: list[str]) -> int:
    """Record one trace into a file."""
    name, seed, rows, reads, path = arguments
    trace: list[Any] = record(name, int(seed), int(rows), int(reads))
    with open(path, "w", encoding="ascii") as file:
        json.dump(trace, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
