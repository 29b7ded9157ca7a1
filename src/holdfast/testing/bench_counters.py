"""Counters that many threads change at the same time: merges, beside transactions that read, write
and run again when they lose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import holdfast
from holdfast.engine import Database, Transaction
from holdfast.testing.bench_commit import Together
from holdfast.testing.bench_measure import Figure, Options, quotients, rounds_of, scratch

COUNTER_MULTIPLE = 5.0
"""How much faster an add is at the least than a transaction that reads the counter."""
ATTEMPTS_MAX = 1_000_000
KEY = b"counter"


class Counters:
    """Threads that count up one key, each in one of two ways."""

    def __init__(self, database: Database, threads: int, each: int, durability: str | None) -> None:
        self._database = database
        self._each = each
        self._durability = durability
        self._count = threads * each
        self._expected = int(database[KEY])
        self._adders = Together(threads, lambda _: self._add())
        self._readers = Together(threads, lambda _: self._run())

    def add(self) -> int:
        """Count up by merges; return how often."""
        return self._counted(self._adders)

    def retry(self) -> int:
        """Count up by transactions that are run again when they lose; return how often."""
        return self._counted(self._readers)

    def close(self) -> None:
        """End the threads."""
        self._adders.close()
        self._readers.close()

    def _counted(self, threads: Together) -> int:
        threads.run()
        self._expected += self._count
        if self._database[KEY] != b"%d" % self._expected:
            raise ValueError(f"the counter is {self._database[KEY]!r}, not {self._expected}")
        return self._count

    def _add(self) -> None:
        add, durability = self._database.add, self._durability
        for _ in range(self._each):
            add(KEY, durability=durability)

    def _run(self) -> None:
        def count_up(txn: Transaction) -> None:
            txn[KEY] = b"%d" % (int(txn[KEY]) + 1)

        run, durability = self._database.run, self._durability
        for _ in range(self._each):
            run(count_up, attempts=ATTEMPTS_MAX, durability=durability)


@contextlib.contextmanager
def counting(options: Options, each: int, durability: str | None) -> Iterator[Counters]:
    """Give threads that count up one key of a new database, which has a value already."""
    with scratch(options) as folder, holdfast.open(folder) as database:
        database[KEY] = b"0"
        with contextlib.closing(Counters(database, options.threads, each, durability)) as made:
            made.add()
            made.retry()
            yield made


def counters(options: Options) -> list[Figure]:
    """Many threads count up one key: `db.add`, and `db.run` of a transaction that reads the number
    and writes the next one, in turns; durable and not synced.

    The counter is read after each turn, and must be right. One who loses pauses, as `db.run` does,
    so the CPU column says more about the work of the retries than the time does.
    """
    figures: list[Figure] = []
    works: tuple[tuple[str | None, str, int], ...] = (
        (None, "commit", max(options.commits // 200, 1)),
        # So many that waking the threads is little beside it.
        ("none", "none", options.commits * 5),
    )
    for durability, sync, each in works:
        with counting(options, each, durability) as made:
            ways: list[Callable[[], int]] = [made.retry, made.add]
            retried, added = rounds_of(options.rounds, *ways)
        figures += [
            retried.figure(f"db.run on one key, {options.threads} threads", "us", sync=sync),
            added.figure(f"db.add on one key, {options.threads} threads", "us", sync=sync),
            Figure(
                what="rate of db.add / rate of db.run",
                unit="times",
                sync=sync,
                rounds=quotients(retried.wall, added.wall),
                cpu=quotients(retried.cpu, added.cpu),
                beside=quotients(retried.beside, added.beside),
                budget=COUNTER_MULTIPLE,
                at_least=True,
            ),
        ]
    return figures
