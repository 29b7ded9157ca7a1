"""The workloads of `holdfast bench`, by name. The docstring of each says what it measures.

A workload makes its work over an open store. One that says `data` starts from a database that was
loaded before, settled and closed; the others from an empty one.
"""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from holdfast.testing.versus_input import (
    key_of,
    large_rows,
    late_order,
    random_keys,
    rows_of,
    shuffled,
)
from holdfast.testing.versus_measure import (
    Beside,
    Calls,
    Cold,
    Filling,
    Operations,
    Scanning,
    Tasks,
    Threads,
    Work,
    bytes_of,
    drop_pages,
    one_row,
)
from holdfast.testing.versus_scale import BATCH_ROWS, KEY_BYTES, LIST_KEYS, VALUE_BYTES, Scale
from holdfast.testing.versus_store import Setup, Store
from holdfast.testing.versus_ycsb import YCSB, Mix, ycsb

SHORT_ROWS = 50
LOADS = 4
WRITER_ROWS = 50
WRITER_PAUSE_SECONDS = 0.01


@dataclass(slots=True, kw_only=True)
class Case:
    """What a workload is made from."""

    scale: Scale
    source: random.Random
    setup: Setup
    kind: type[Store]
    opened: Store | None

    @property
    def store(self) -> Store:
        """The open store. Raises: TypeError for a workload that opens its own."""
        if self.opened is None:
            raise TypeError("this workload opens its own store")
        return self.opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """How a workload is run."""

    make: Callable[[Case], Work]
    sync: str = "-"
    """The sync mode of its writes; "-" when it writes nothing."""
    data: str | None = None
    is_cold: bool = False
    opens: bool = True
    """Whether it is given an open store."""

    @property
    def has_writes(self) -> bool:
        """Whether it writes."""
        return self.sync != "-"


def fill_sequential(case: Case) -> Work:
    """New rows in the order of their keys, one by one. Rows have 116 bytes."""
    return Filling(case.store, rows_of(range(case.scale.rows), case.source))


def fill_random(case: Case) -> Work:
    """New rows in random order, one by one."""
    return Filling(case.store, rows_of(shuffled(case.scale.rows, case.source), case.source))


def fill_batch(case: Case) -> Work:
    """New rows in random order, 1,000 of them an atomic batch; the rate is in rows."""
    rows = rows_of(shuffled(case.scale.rows, case.source), case.source)
    batches = [rows[at : at + BATCH_ROWS] for at in range(0, len(rows), BATCH_ROWS)]
    work = Calls(case.store.batch_putter(), batches, units_each=len(batches[0]))
    work.user_bytes = work.live_bytes = bytes_of(rows)
    return work


def fill_ingest(case: Case) -> Work:
    """New rows in the order of their keys, in 4 durable loads, each atomic, the quickest way that
    an engine has; the rate is in rows.
    """
    rows = rows_of(range(case.scale.rows), case.source)
    size = -(-len(rows) // LOADS)
    loads = [rows[at : at + size] for at in range(0, len(rows), size)]
    work = Calls(case.store.loader(), loads, units_each=size)
    work.user_bytes = work.live_bytes = bytes_of(rows)
    return work


def overwrite(case: Case) -> Work:
    """Each row of a loaded database once more on average, keys drawn at random."""
    count = case.scale.rows
    numbers = case.source.choices(range(count), k=count)
    live = count * (KEY_BYTES + VALUE_BYTES)
    return Filling(case.store, rows_of(numbers, case.source), live)


def append_late(case: Case) -> Work:
    """New rows in the order of time; one in 20 comes late, by up to 5 % of all rows."""
    return Filling(case.store, rows_of(late_order(case.scale.rows, case.source), case.source))


def commit(case: Case) -> Work:
    """Durable commits of a row each, on one thread."""
    rows = rows_of(shuffled(case.scale.commits, case.source), case.source)
    put = case.store.committer()
    work = Operations([(put, row) for row in rows], case.store.finish)
    work.user_bytes = work.live_bytes = bytes_of(rows)
    return work


def commit_threads(case: Case) -> Work:
    """Durable commits of a row each, on 64 threads at the same time."""
    scale = case.scale
    rows = rows_of(shuffled(scale.threads * scale.thread_commits, case.source), case.source)
    shares = [rows[number :: scale.threads] for number in range(scale.threads)]
    return Threads(case.store.committer(), shares)


def transactions(case: Case) -> Work:
    """Transactions that read a row and put it, keys drawn at random, on one thread. RocksDB and
    LevelDB have none from Python: a get and a batch stand for one, without isolation.
    """
    numbers = case.source.choices(range(case.scale.rows), k=case.scale.rows)
    rows = rows_of(numbers, case.source)
    update = case.store.updater()
    work = Operations([(update, row) for row in rows], case.store.finish)
    work.user_bytes = bytes_of(rows)
    work.live_bytes = case.scale.rows * (KEY_BYTES + VALUE_BYTES)
    return work


def transactions_threads(case: Case) -> Work:
    """Durable transactions that read a row and put it, on 64 threads at the same time; to be
    compared with commit-threads.
    """
    scale = case.scale
    rows = rows_of(shuffled(scale.threads * scale.thread_commits, case.source), case.source)
    shares = [rows[number :: scale.threads] for number in range(scale.threads)]
    return Threads(case.store.updater(), shares)


def commit_tasks(case: Case) -> Work:
    """Durable commits of a row each, by 1,000 tasks of asyncio at the same time."""
    scale = case.scale
    rows = rows_of(shuffled(scale.tasks * scale.task_commits, case.source), case.source)
    shares = [rows[number :: scale.tasks] for number in range(scale.tasks)]
    return Tasks(case.kind, case.setup, shares)


def get_hot(case: Case) -> Work:
    """Gets of 1,000 hot keys, all in the cache."""
    hot = case.source.sample(range(case.scale.rows), case.scale.hot_keys)
    keys = random_keys(case.scale.reads, hot, case.source)
    return Calls(case.store.getter(), keys, warm=[key_of(number) for number in hot])


def get_warm(case: Case) -> Work:
    """Gets of any keys; all data are in the cache."""
    keys = random_keys(case.scale.reads, range(case.scale.rows), case.source)
    return Calls(case.store.getter(), keys, warm=every_key(case))


def get_cold(case: Case) -> Work:
    """Gets of any keys; the data are 10 times the cache, and every 20 gets the page cache is
    dropped (outside of the time), so that what the engine's cache lacks comes from the disk.
    """
    keys = random_keys(case.scale.cold_reads, range(case.scale.rows), case.source)
    return Cold(case.store.getter(), keys, partial(drop_pages, case.setup.folder))


def get_absent(case: Case) -> Work:
    """Gets of keys that are absent, each between two that are there."""
    keys = random_keys(case.scale.reads, range(case.scale.rows), case.source)
    absent = [key + b"x" for key in keys]
    return Calls(case.store.getter(), absent, warm=every_key(case))


def get_many(case: Case) -> Work:
    """Lists of 100 keys, drawn at random; all data are in the cache; the rate is in keys."""
    keys = random_keys(case.scale.reads, range(case.scale.rows), case.source)
    lists = [keys[at : at + LIST_KEYS] for at in range(0, len(keys), LIST_KEYS)]
    return Calls(case.store.many_getter(), lists, units_each=LIST_KEYS, warm=lists)


def get_writing(case: Case) -> Work:
    """Gets of any keys beside a thread that overwrites up to 5,000 rows a second."""
    scale, source, store = case.scale, case.source, case.store
    fresh = rows_of(shuffled(scale.rows, source), source)

    def write(stop: threading.Event) -> None:
        put, at = store.putter(), 0
        while not stop.wait(WRITER_PAUSE_SECONDS):
            for row in fresh[at : at + WRITER_ROWS]:
                put(*row)
            at = (at + WRITER_ROWS) % len(fresh)
        store.finish()

    keys = random_keys(scale.reads, range(scale.rows), source)
    return Beside(Calls(store.fresh_getter(), keys, warm=every_key(case)), write)


def scan(case: Case) -> Work:
    """All rows in order, taken one by one in a loop; the rate is in rows."""
    return Scanning(case.store.rows, case.scale.rows, one_row)


def scan_reverse(case: Case) -> Work:
    """All rows in reverse order, taken one by one in a loop; the rate is in rows."""
    return Scanning(partial(case.store.rows, reverse=True), case.scale.rows, one_row)


def scan_lists(case: Case) -> Work:
    """All rows in order, in lists of 1,000, the quickest way that an engine has; the rate is in
    rows. LMDB, LevelDB and RocksDB have no such call from Python: their rows are put into lists.
    """
    count = -(-case.scale.rows // BATCH_ROWS) + 1
    return Scanning(partial(case.store.chunks, BATCH_ROWS), count, len)


def scan_columns(case: Case) -> Work:
    """All rows in order, as columns of 1,000 rows in Arrow's layout, without an object for each;
    the rate is in rows. The others have no such call from Python: the rows are those of scan-lists.
    """
    count = -(-case.scale.rows // BATCH_ROWS) + 1
    return Scanning(partial(case.store.columns, BATCH_ROWS), count, len)


def scan_short(case: Case) -> Work:
    """Ranges of 50 rows from random keys on, each taken as a list."""
    rows = case.store.rows
    starts = random_keys(case.scale.reads // SHORT_ROWS, range(case.scale.rows), case.source)
    return Calls(lambda start: list(rows(start, limit=SHORT_ROWS)), starts, warm=starts)


def queue(case: Case) -> Work:
    """A queue: take the first row, delete it, put one behind the last; 1,000 rows wait at first.

    The first row is looked for from the start of all keys, over what was deleted before.
    """
    store, count = case.store, case.scale.queue_operations
    waiting = min(count, 1_000)
    rows = rows_of(range(waiting + count), case.source)
    store.fill(rows[:waiting])
    put, delete, look = store.putter(), store.deleter(), partial(store.rows, limit=1)

    def step(key: bytes, value: bytes) -> None:
        ((first, _),) = look()
        delete(first)
        put(key, value)

    work = Operations([(step, row) for row in rows[waiting:]], store.finish)
    work.user_bytes = bytes_of(rows[waiting:])
    work.live_bytes = bytes_of(rows[:waiting])
    return work


def large_put(case: Case) -> Work:
    """New rows with large values of random bytes, one by one."""
    return Filling(case.store, large_rows(case.scale, case.source))


def large_get(case: Case) -> Work:
    """Gets of large values, in random order; all data are in the cache."""
    numbers = range(case.scale.large_count)
    keys = random_keys(4 * case.scale.large_count, numbers, case.source)
    return Calls(case.store.getter(), keys, warm=[key_of(number) for number in numbers])


def mixed(case: Case, mix: Mix) -> Work:
    """Return the work of a mix of YCSB."""
    return ycsb(case.store, case.scale, case.source, mix)


def every_key(case: Case) -> list[bytes]:
    """Return all keys of the loaded rows: asking for each fills the cache."""
    return [key_of(number) for number in range(case.scale.rows)]


WORKLOADS: dict[str, Workload] = {
    "fill-sequential": Workload(make=fill_sequential, sync="none"),
    "fill-random": Workload(make=fill_random, sync="none"),
    "fill-batch": Workload(make=fill_batch, sync="none"),
    "fill-ingest": Workload(make=fill_ingest, sync="commit"),
    "overwrite": Workload(make=overwrite, sync="none", data="rows"),
    "append-late": Workload(make=append_late, sync="none"),
    "commit": Workload(make=commit, sync="commit"),
    "commit-threads": Workload(make=commit_threads, sync="commit"),
    "transactions": Workload(make=transactions, sync="none", data="rows"),
    "transactions-threads": Workload(make=transactions_threads, sync="commit"),
    "commit-tasks": Workload(make=commit_tasks, sync="commit", opens=False),
    "get-hot": Workload(make=get_hot, data="rows"),
    "get-warm": Workload(make=get_warm, data="rows"),
    "get-cold": Workload(make=get_cold, data="rows", is_cold=True),
    "get-absent": Workload(make=get_absent, data="rows"),
    "get-many": Workload(make=get_many, data="rows"),
    "get-writing": Workload(make=get_writing, sync="none", data="rows"),
    "scan": Workload(make=scan, data="rows"),
    "scan-reverse": Workload(make=scan_reverse, data="rows"),
    "scan-lists": Workload(make=scan_lists, data="rows"),
    "scan-columns": Workload(make=scan_columns, data="rows"),
    "scan-short": Workload(make=scan_short, data="rows"),
    "queue": Workload(make=queue, sync="none"),
    **{
        name: Workload(
            make=partial(mixed, mix=mix),
            sync="none" if mix.has_writes else "-",
            data="ycsb",
        )
        for name, mix in YCSB.items()
    },
    "large-put": Workload(make=large_put, sync="none"),
    "large-get": Workload(make=large_get, data="large"),
}


def description(name: str) -> str:
    """Return what a workload measures."""
    if name in YCSB:
        return YCSB[name].description
    return inspect.getdoc(WORKLOADS[name].make) or ""
