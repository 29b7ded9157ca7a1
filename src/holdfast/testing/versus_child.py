"""A fresh process of `holdfast bench`: it loads a database, or measures one cell.

A cell is a workload with an engine in a round. It is done in three passes, each with a database of
its own, so that none finds what the one before left: for the rate, for the latencies, and beside a
busy thread. What a workload only reads, all passes read in one place.

The parent gives the order as JSON in the argument, and gets JSON on standard output.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import sys
import time
from array import array
from dataclasses import asdict, dataclass

from holdfast.testing.bench_measure import busy_thread, resident_bytes
from holdfast.testing.versus_input import DATASETS
from holdfast.testing.versus_measure import (
    NEVER,
    Peak,
    Taken,
    Work,
    drop_pages,
    percentile,
    resident_share,
    space_bytes,
    sync_files,
    written,
)
from holdfast.testing.versus_scale import KIB, SCALES
from holdfast.testing.versus_store import Setup, Store, load
from holdfast.testing.versus_workload import WORKLOADS, Case

MICROSECONDS = 1e6
NANOSECONDS = 1e9
CACHE_BYTES_MIN = 64 * KIB
LOAD_PARTS = 16
"""What is read is loaded in so many parts, each with a flush and background work to its end. So how
many sorted runs a lookup asks is no matter of chance: engines that merge four of them, as all here
do that have some, have merged the last ones too.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the process is to do."""

    engine: str
    workload: str = ""
    """Empty: load `dataset` into `folder`."""
    dataset: str = ""
    data: str = ""
    """The folder of the loaded database that the workload begins with."""
    folder: str
    """Where databases are made; for a load the database itself."""
    scale: str
    seed: int


@dataclass(slots=True, kw_only=True)
class Cell:
    """What a cell gave. Times are in microseconds, rates in units a second."""

    workload: str
    engine: str
    rate: float
    busy_rate: float
    p50: float
    p99: float
    p999: float
    max: float
    cpu: float
    """CPU time of the process for each unit."""
    peak_bytes: int
    user_bytes: int
    written_bytes: int | None
    dirtied_bytes: int | None
    device_bytes: int | None
    live_bytes: int
    space_bytes: int
    resident: float | None = None
    """Of a cold workload: which part of the files the page cache held after it was dropped."""


class Passes:
    """The passes of one cell."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._workload = WORKLOADS[order.workload]
        self._scale = SCALES[order.scale]
        self._kind = load(order.engine)
        self._resident: float | None = None
        cold = max(self._scale.cold_cache_bytes, CACHE_BYTES_MIN)
        own = os.path.join(order.folder, "database")
        self._has_own = self._workload.has_writes or not self._workload.data
        self._setup = Setup(
            folder=own if self._has_own else order.data,
            cache_bytes=cold if self._workload.is_cold else self._scale.cache_bytes,
            memtable_bytes=self._scale.memtable_bytes,
            sync=self._workload.sync,
            has_writes=self._workload.has_writes,
            is_cold=self._workload.is_cold,
        )

    def run(self) -> Cell:
        """Do the passes."""
        opened = resident_bytes()
        store, work = self.begin()
        opened = resident_bytes() - opened if store else 0
        cell = self._rate(store, work, opened)
        self._latencies(cell)
        self._busy(cell)
        return cell

    def begin(self) -> tuple[Store | None, Work]:
        """Prepare the folder, open the store and make the work."""
        setup, workload, order = self._setup, self._workload, self._order
        os.makedirs(order.folder, exist_ok=True)
        if self._has_own:
            shutil.rmtree(setup.folder, ignore_errors=True)
            if workload.data:
                shutil.copytree(order.data, setup.folder)
                # Pages that are not written yet would be taken off the count with their file.
                sync_files(setup.folder)
        if workload.is_cold:
            sync_files(setup.folder)
            drop_pages(setup.folder)
            self._resident = resident_share(setup.folder)
        store = self._kind(setup) if workload.opens else None
        source = random.Random(order.seed)
        case = Case(scale=self._scale, source=source, setup=setup, kind=self._kind, opened=store)
        if workload.data and store:
            if not list(store.rows(limit=1)):
                raise ValueError(f"the loaded database in {setup.folder} is empty")
            # What the look began is over before the work begins.
            store.finish()
        return store, workload.make(case)

    def _rate(self, store: Store | None, work: Work, opened_bytes: int) -> Cell:
        gc.collect()
        before = resident_bytes()
        peak = Peak()
        written_before = written(self._order.folder)
        work.warm()
        taken = work.plain()
        peak_bytes = peak.bytes() - before + opened_bytes
        if store:
            if self._workload.has_writes:
                store.settle()
            store.close()
        if self._has_own:
            sync_files(self._setup.folder)
        wrote = written(self._order.folder).since(written_before)
        return Cell(
            workload=self._order.workload,
            engine=self._order.engine,
            rate=rate_of(taken),
            busy_rate=0.0,
            p50=0.0,
            p99=0.0,
            p999=0.0,
            max=0.0,
            cpu=taken.cpu / taken.units * MICROSECONDS,
            peak_bytes=max(peak_bytes, 0),
            user_bytes=work.user_bytes,
            written_bytes=wrote.calls,
            dirtied_bytes=wrote.dirtied,
            device_bytes=wrote.device,
            live_bytes=work.live_bytes,
            space_bytes=space_bytes(self._setup.folder),
            resident=self._resident,
        )

    def _latencies(self, cell: Cell) -> None:
        store, work = self.begin()
        work.warm()
        latencies = array("q", bytes(8 * work.count))
        work.clocked(latencies, NEVER)
        if store:
            store.close()
        # A scan in lists may need fewer than it was given room for.
        ordered = sorted(value for value in latencies if value)
        cell.p50, cell.p99, cell.p999, cell.max = (
            percentile(ordered, share) / NANOSECONDS * MICROSECONDS
            for share in (0.5, 0.99, 0.999, 1.0)
        )

    def _busy(self, cell: Cell) -> None:
        store, work = self.begin()
        work.warm()
        latencies = array("q", bytes(8 * work.count))
        with busy_thread():
            until = time.perf_counter_ns() + int(self._scale.busy_seconds * NANOSECONDS)
            cell.busy_rate = rate_of(work.clocked(latencies, until))
        if store:
            store.close()


def rate_of(taken: Taken) -> float:
    """Return units a second."""
    return taken.units / taken.seconds


def load_dataset(order: Order) -> None:
    """Make a loaded database."""
    scale = SCALES[order.scale]
    setup = Setup(
        folder=order.folder,
        cache_bytes=scale.cache_bytes,
        memtable_bytes=scale.memtable_bytes,
        sync="none",
        has_writes=True,
    )
    store = load(order.engine)(setup)
    rows = DATASETS[order.dataset](scale, random.Random(order.seed))
    part = -(-len(rows) // LOAD_PARTS)
    for at in range(0, len(rows), part):
        store.fill(rows[at : at + part])
        store.settle()
    store.close()
    sync_files(order.folder)


def main(argument: str) -> int:
    """Follow the order."""
    order = Order(**json.loads(argument))
    # The collector would go through the inputs again and again; no engine needs it.
    gc.disable()
    if not order.workload:
        load_dataset(order)
        return 0
    json.dump(asdict(Passes(order).run()), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
