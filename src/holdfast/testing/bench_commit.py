"""Durable commits, beside a bare write and sync of the same bytes on the same disk."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial

import holdfast
from holdfast.engine import Database
from holdfast.testing.bench_measure import (
    KEY_BYTES,
    MIB,
    VALUE_BYTES,
    Figure,
    Options,
    quotients,
    rounds_of,
    scratch,
    values_of,
)

BARE_RATIO = 1.15
THREADS_MULTIPLE = 5.0
BATCH_ROWS = (1, 10, 100, 1_000)
SLICES = 10
CROWD_SLICES = 5
FILE_BYTES = 16 * MIB
ZEROS_BYTES = 1 << 16
"""Zeros are written by so many, as the log does, which makes the syncs behind them cheaper."""
FIRST_BYTE = 4096


class BareFile:
    """A preallocated file of zeros, to which records are written one behind the other.

    It is made as the log makes its segments, and a record that does not fit begins again at the
    front, so no write changes the size of the file or where its blocks lie.
    """

    def __init__(self, path: str, record_bytes: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        for offset in range(0, FILE_BYTES, ZEROS_BYTES):
            os.pwrite(self._descriptor, bytes(ZEROS_BYTES), offset)
        os.fsync(self._descriptor)
        self._record = os.urandom(record_bytes)
        self._offset = FIRST_BYTE

    def write(self, count: int) -> int:
        """Write and sync `count` records; return their number."""
        descriptor, record, offset = self._descriptor, self._record, self._offset
        size = len(record)
        for _ in range(count):
            if offset > FILE_BYTES - size:
                offset = FIRST_BYTE
            os.pwrite(descriptor, record, offset)
            os.fdatasync(descriptor)
            offset += size
        self._offset = offset
        return count

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Committer:
    """Commits rows with keys in time order, each in a transaction of its own."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self._values = values_of("incompressible", seed)
        self._numbers = itertools.count()

    def rows(self, count: int) -> list[tuple[bytes, bytes]]:
        """Return new rows."""
        values = self._values
        return [
            (b"%0*d" % (KEY_BYTES, number), values[number % len(values)])
            for number in itertools.islice(self._numbers, count)
        ]

    def commit(self, count: int) -> int:
        """Commit `count` rows; return their number."""
        database = self.database
        for key, value in self.rows(count):
            database[key] = value
        return count

    def commit_batches(self, batches: int, size: int) -> int:
        """Commit so many batches of `size` rows; return the number of rows."""
        for _ in range(batches):
            self.database.put_many(self.rows(size))
        return batches * size

    def log_bytes(self) -> int:
        """Return what one commit of one row adds to the log."""
        before = self.database.stats().wal_bytes_written
        self.commit(1)
        return self.database.stats().wal_bytes_written - before


class Together:
    """Threads that do `work(index)` at the same time, each its own. They live as long as this and
    begin together, so that starting them is not part of what is measured.
    """

    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._do = work
        self._barrier = threading.Barrier(count + 1)
        self._ended = False
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(at,)) for at in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self) -> None:
        """Let all do their work once, and wait for the last one."""
        self._barrier.wait()
        self._barrier.wait()
        if self._failures:
            raise self._failures.pop()

    def close(self) -> None:
        """End the threads."""
        self._ended = True
        self._barrier.wait()
        for thread in self._threads:
            thread.join()

    def _work(self, at: int) -> None:
        while True:
            self._barrier.wait()
            if self._ended:
                return
            try:
                self._do(at)
            except BaseException as error:  # noqa: BLE001  the main thread raises it
                self._failures.append(error)
            self._barrier.wait()


class Crowd(Together):
    """Threads that commit rows of their own at the same time."""

    def __init__(self, committer: Committer, count: int) -> None:
        self._database = committer.database
        self._committer = committer
        self._shares: list[list[tuple[bytes, bytes]]] = [[] for _ in range(count)]
        super().__init__(count, self._commit)

    def commit(self, each: int) -> int:
        """Commit so many rows from each thread; return their number."""
        self._shares[:] = [self._committer.rows(each) for _ in self._threads]
        self.run()
        return each * len(self._threads)

    def _commit(self, at: int) -> None:
        for key, value in self._shares[at]:
            self._database[key] = value


@contextlib.contextmanager
def opened(options: Options) -> Iterator[tuple[Committer, BareFile, int]]:
    """Give a database, a bare file beside it, and how many bytes a commit logs."""
    with scratch(options) as folder, holdfast.open(folder) as database:
        committer = Committer(database, options.seed)
        logged = committer.log_bytes()
        bare = BareFile(f"{folder}-bare", logged)
        try:
            # The first round of a fresh file or log is another thing than those that follow.
            committer.commit(options.commits)
            bare.write(options.commits)
            yield committer, bare, logged
        finally:
            bare.close()


def commit(options: Options) -> list[Figure]:
    """`db[key] = value` on one thread, and pwrite + fdatasync of as many bytes as that logs.

    Both take turns in one process and one folder, a tenth of a round at a time, and each pair of
    rounds makes one quotient. The bare file is written through Python too.
    """
    with opened(options) as (committer, bare, logged):
        slice_commits = max(options.commits // SLICES, 1)
        plain, ours = rounds_of(
            options.rounds,
            lambda: bare.write(slice_commits),
            lambda: committer.commit(slice_commits),
            slices=SLICES,
        )
    ratio = Figure(
        what="durable commit / bare write and sync",
        unit="times",
        sync="commit",
        rounds=quotients(ours.wall, plain.wall),
        cpu=quotients(ours.cpu, plain.cpu),
        beside=quotients(ours.beside, plain.beside),
        budget=BARE_RATIO,
    )
    note = f"{logged} bytes logged for {KEY_BYTES + VALUE_BYTES} of key and value"
    return [
        plain.figure("bare pwrite + fdatasync", "us", sync="commit"),
        ours.figure("durable commit", "us", sync="commit").with_budget(None, note=note),
        ratio,
    ]


def batches(options: Options) -> list[Figure]:
    """`db.put_many(rows)`, one durable transaction a call; making the rows counts."""
    with opened(options) as (committer, _, _):
        rounds = rounds_of(
            options.rounds,
            *[
                partial(committer.commit_batches, max(options.commits // 10, 1), size)
                for size in BATCH_ROWS
            ],
        )
    return [
        taken.figure(f"put_many of {size:,} rows, durable", "us/row", sync="commit")
        for size, taken in zip(BATCH_ROWS, rounds, strict=True)
    ]


def threads(options: Options) -> list[Figure]:
    """`db[key] = value` on one thread and on many at once, in turns.

    The many begin together; their time ends when the last one has committed its last row.
    """
    many = options.threads
    each = max(options.commits // 20, 1)
    with (
        opened(options) as (committer, bare, _),
        contextlib.closing(Crowd(committer, many)) as crowd,
    ):
        crowd.commit(each)
        slice_commits = max(options.commits // CROWD_SLICES, 1)
        plain, one, all_of_them = rounds_of(
            options.rounds,
            lambda: bare.write(slice_commits),
            lambda: committer.commit(slice_commits),
            lambda: crowd.commit(each),
            slices=CROWD_SLICES,
        )
    multiple = Figure(
        what=f"rate of {many} threads / rate of one",
        unit="times",
        sync="commit",
        rounds=quotients(one.wall, all_of_them.wall),
        beside=quotients(one.beside, all_of_them.beside),
        budget=THREADS_MULTIPLE,
        at_least=True,
    )
    return [
        plain.figure("bare pwrite + fdatasync", "us", sync="commit"),
        one.figure("durable commit, 1 thread", "us/commit", sync="commit"),
        all_of_them.figure(f"durable commit, {many} threads", "us/commit", sync="commit"),
        multiple,
    ]
