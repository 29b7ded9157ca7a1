"""Histories of Holdfast on this machine: threads and asyncio tasks of this process on a folder.

A run has slices, each with keys of its own. Between two of them the database is closed and opened
again now and then; meanwhile one thread flushes, compacts, and holds snapshots. The interpreter
switches threads as often as it can, so that calls meet in their middle. The same thread deletes to
the end of a keyspace, behind the keys of the clients, with what they commit meanwhile.

Nothing is taken away here, so commits need not be durable: those are the faster ones, which meet
each other more often. What happens without power is in `history_machine`.

Thread safety: one run at a time in a process, since it sets the interpreter's switch interval.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from random import Random

import holdfast
import holdfast.aio
from holdfast.base import DatabaseSettings, Error
from holdfast.engine import Database
from holdfast.env import PosixEnv
from holdfast.testing import encrypted
from holdfast.testing.history import History, Isolation, Kind
from holdfast.testing.history_run import (
    AsyncSession,
    Load,
    Log,
    Session,
    draw_plan,
    final_plans,
    run_threads,
)
from holdfast.testing.history_store import AsyncEngineStore, EngineStore, Served
from holdfast.testing.oracle import WorkloadError
from holdfast.testing.workload import SIZE_TIERED, TINY

SWITCH_SECONDS = 5e-6
STORM_SECONDS = 0.01

BEHIND = b"~"
"""Behind all keys of clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealRun:
    """What is run."""

    seed: int
    kind: Kind = "append"
    isolation: Isolation = "serializable"
    awaits: bool = False
    """Clients are tasks of an event loop, not threads."""
    slices: int = 5
    count: int = 2_000
    """How many transactions in a slice."""
    clients: int = 6
    settings: DatabaseSettings = TINY


@dataclass(slots=True)
class Slice:
    """A history that can be judged by itself, and what happened meanwhile."""

    history: History
    happened: Counter[str] = field(default_factory=Counter)


def draw_real_run(seed: int, slices: int, count: int) -> RealRun:
    """Return one of all kinds of runs."""
    rng = Random(f"{seed}/real")
    return RealRun(
        seed=seed,
        kind=rng.choice(("append", "rmw")),
        isolation=rng.choice(("serializable", "snapshot")),
        awaits=rng.random() < 0.2,
        slices=slices,
        count=count,
        clients=rng.randint(2, 8),
        settings=rng.choice((TINY, SIZE_TIERED, DatabaseSettings())),
    )


def run_real(run: RealRun, folder: str) -> Iterator[Slice]:
    """Run it in a new database and yield the slices."""
    rng = Random(f"{run.seed}/run")
    happened: Counter[str] = Counter()
    database = holdfast.open(folder, settings=run.settings, key=encrypted.key())
    try:
        for number in range(run.slices):
            store = EngineStore(
                kind=run.kind,
                seed=f"{run.seed}/{number}",
                names=("default", "one", "two")[: rng.randint(1, 3)],
                durabilities=("none",) * 30 + ("interval", None),
                pause=_yield_sometimes(Random(f"{run.seed}/{number}/yield")),
            )
            load = Load(
                kind=run.kind,
                isolation=run.isolation,
                keys=rng.randint(2, 10),
                prefix=f"{number:03d}-",
                read_only=rng.choice((0.1, 0.3)),
            )
            for name in store.names[1:]:
                database.keyspace(name)
            with _storm(database, happened), _often_switched():
                history = _run_slice(run, store, load, database)
            _count(store.served, history, happened)
            yield Slice(history, happened)
            happened = Counter()
            if rng.random() < 0.5:
                happened["reopened"] += 1
                database.close()
                database = holdfast.open(folder, key=encrypted.key())
            else:
                # The next slice has other keys.
                database.delete_range(load.prefix.encode(), load.prefix.encode() + b"\xff")
    finally:
        database.close()


def _run_slice(run: RealRun, store: EngineStore, load: Load, database: Database) -> History:
    store.database = database
    each = run.count // run.clients
    if not run.awaits:
        return run_threads(store, load, run.seed, threads=run.clients, count=each)
    log = Log()
    awaited = holdfast.aio.Database(PosixEnv(), database)
    store.awaited = awaited
    try:
        asyncio.run(_run_tasks(AsyncEngineStore(store), load, log, run, each))
    finally:
        awaited._bridge.stop()  # noqa: SLF001  the other handle closes the engine
    session = Session(store, log)
    for plan in final_plans(load, each * run.clients):
        session.run(plan)
    return History(run.kind, log.transactions)


async def _run_tasks(
    store: AsyncEngineStore, load: Load, log: Log, run: RealRun, each: int
) -> None:
    planned = count()

    async def work(session: AsyncSession, rng: Random) -> None:
        for _ in range(each):
            await session.run(draw_plan(load, rng, next(planned)))
            await asyncio.sleep(0)

    await asyncio.gather(
        *[
            work(AsyncSession(store, log), Random(f"{run.seed} {number}"))
            for number in range(run.clients)
        ]
    )


def _yield_sometimes(rng: Random) -> Callable[[], None]:
    def pause() -> None:
        if rng.random() < 0.1:
            time.sleep(0)

    return pause


@contextmanager
def _often_switched() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _storm(database: Database, happened: Counter[str]) -> Iterator[None]:
    """Flush, compact, delete to the end and look while clients work."""
    over = threading.Event()

    def storm() -> None:
        with suppress(Error):
            while not over.wait(STORM_SECONDS):
                _delete_to_the_end(database)
                happened["open_deletes"] += 1
                with database.snapshot() as view:
                    before = dict(view.items())
                    happened["flushes"] += 1
                    database.flush()
                    happened["compactions"] += 1
                    database.compact()
                    database.transactions()
                    if before != dict(view.items()):
                        raise WorkloadError("a snapshot changed")

    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            storm()
        except BaseException as error:  # noqa: BLE001  raised where the run was started
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def _delete_to_the_end(database: Database) -> None:
    """Write behind all keys of clients and delete it, with whatever they commit at that time. They
    write some of it anew, but nothing of what is deleted by then.
    """
    for number in range(8):
        database.put(BEHIND + b"%d" % number, b"", durability="none")
    database.delete_range(BEHIND, None, durability="none")
    if back := list(database.keys(BEHIND)):
        raise WorkloadError(f"deleted keys came back: {back}")


def _count(served: Served, history: History, happened: Counter[str]) -> None:
    happened["transactions"] += len(history.transactions)
    happened.update(asdict(served))
