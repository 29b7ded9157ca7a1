"""Histories of Holdfast on simulated machines: clients that are threads or asyncio tasks under the
seeded scheduler, while the power is cut, syncs fail, files are flushed and merged, and clocks jump.

A trial has several lives. In each the database is opened, clients work on their plans, and one task
makes a storm of flushes, compactions, snapshots and jumps of the clocks. A life ends when all plans
are done, when a client hears that the database cannot go on, or with the power; then there is a
reopening on the same machine, or on one whose disk has what a power cut may leave. The last life
has no faults, and reads every key.

1. Each commit is durable when it is acknowledged wherever the power may go or a sync may fail. What
   was under way then has the outcome `unknown`.
2. Syncs fail in the ways of real file systems, but not in the way in which a sync claims success.
3. All of it follows from the seed: the same seed gives the same history.

Thread safety: the tasks of one simulated machine, of which one runs at a time.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from random import Random
from typing import Literal, get_args

import holdfast.aio
from holdfast.base import DatabaseSettings, Error
from holdfast.engine import Database, open_database
from holdfast.env import (
    CRASH_CLASSES,
    FAILED_SYNCS,
    CrashPoint,
    Env,
    FaultEnv,
    SimCrash,
    SimEnv,
    Task,
)
from holdfast.env.sim_schedule import Policy
from holdfast.testing import encrypted, sim_loop
from holdfast.testing.history import History, Isolation, Kind
from holdfast.testing.history_run import (
    AsyncSession,
    Load,
    Log,
    Plan,
    Session,
    draw_plan,
    final_plans,
)
from holdfast.testing.history_store import AsyncEngineStore, EngineStore
from holdfast.testing.oracle import FOLDER, abandon
from holdfast.testing.workload import SIZE_TIERED, TINY

Way = Literal["threads", "tasks", "both"]
"""What clients are: threads, asyncio tasks of event loops, or some of each."""

WAYS: tuple[Way, ...] = get_args(Way)
POLICIES: tuple[Policy, ...] = get_args(Policy)
ISOLATIONS: tuple[Isolation, ...] = get_args(Isolation)

HONEST_FAILURES = tuple(name for name in FAILED_SYNCS if name != "ext4-journal")
"""Where a failed sync says so. After one that claims success a power cut takes what was
acknowledged, whatever an engine does.
"""

LIVES_MAX = 40
"""A trial that needs more never comes to an end."""

STATES_DRAWN = 6
"""Of so many states of its class one is drawn that a power cut leaves."""

NEVER = 1 << 60
"""No machine does so many operations."""

AGE_SECONDS = 10
"""The age that transactions may have where that is limited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is run; everything else follows from the seed."""

    seed: int
    kind: Kind = "append"
    isolation: Isolation = "serializable"
    mixes: bool = False
    """Every other transaction asks for the level "snapshot" whatever `isolation` says."""
    way: Way = "threads"
    policy: Policy = "chance"
    count: int = 300
    """How many transactions."""
    clients: int = 5
    keyspaces: int = 3
    crashes: bool = True
    failed_syncs: bool = True
    storms: bool = True
    jumps: bool = True


@dataclass(slots=True)
class Outcome:
    """What came of a trial."""

    history: History
    happened: Counter[str] = field(default_factory=Counter)
    """How often what happened to the store, and what it told its clients."""


def draw_trial(seed: int, count: int) -> Trial:
    """Return one of all kinds of trials."""
    rng = Random(f"{seed}/trial")
    return Trial(
        seed=seed,
        kind=rng.choice(("append", "rmw")),
        isolation=rng.choice(ISOLATIONS),
        mixes=rng.random() < 0.2,
        way=rng.choice(WAYS),
        policy=rng.choice(POLICIES),
        count=count,
        clients=rng.randint(2, 8),
        keyspaces=rng.randint(1, 3),
        crashes=rng.random() < 0.6,
        failed_syncs=rng.random() < 0.4,
        storms=rng.random() < 0.8,
        jumps=rng.random() < 0.5,
    )


def run_trial(trial: Trial) -> Outcome:
    """Run a trial. Raises: what no fault explains."""
    # When cycles are collected depends on what this process did before.
    gc.collect()
    gc.disable()
    try:
        return _Run(trial).run()
    finally:
        gc.enable()


class _Run:
    """A trial under way."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._rng = Random(f"{trial.seed}/{trial}")
        self._load = Load(
            kind=trial.kind,
            isolation=trial.isolation,
            keys=self._rng.randint(2, 8),
            drift=self._rng.choice((10, 25, 60)),
            read_only=self._rng.choice((0.1, 0.3)),
        )
        self._log = Log()
        names = ("default", "one", "two")[: trial.keyspaces]
        is_safe = not (trial.crashes or trial.failed_syncs)
        self._store = EngineStore(
            kind=trial.kind,
            seed=str(trial.seed),
            names=names,
            durabilities=(None, "none", "interval") if is_safe else (None,),
            pause=self._pause,
        )
        self._awaiting = AsyncEngineStore(self._store)
        self._machine = SimEnv(trial.seed)
        self._settings = self._draw_settings()
        self._planned = 0
        self._happened: Counter[str] = Counter()
        self._sessions: list[Session] = []
        self._task_sessions: list[AsyncSession] = []

    def _draw_settings(self) -> DatabaseSettings:
        rng = self._rng
        return replace(
            rng.choice((TINY, SIZE_TIERED)),
            # Pages leave a pool of the smaller size at once.
            memory_bytes=rng.choice((64 << 10, 1 << 20)),
            max_transaction_age=AGE_SECONDS if self._trial.jumps else 0,
        )

    def _pause(self) -> None:
        """Let others run between two calls of a client, now and then; sometimes for so long that
        files are flushed and merged meanwhile.
        """
        choice = self._rng.random()
        if choice < 0.5:
            self._machine.sleep(0.0 if choice < 0.3 else 50e-6 if choice < 0.49 else 5e-3)

    def _plans(self) -> Iterator[Plan]:
        """Yield what is left to do, as long as the store can go on."""
        trial = self._trial
        while self._planned < trial.count and not self._store.is_down:
            plan = draw_plan(self._load, self._rng, self._planned)
            if trial.mixes and self._planned % 2:
                plan = plan._replace(isolation="snapshot")
            self._planned += 1
            yield plan

    # -- lives

    def run(self) -> Outcome:
        trial = self._trial
        count = {"threads": (trial.clients, 0), "tasks": (0, trial.clients)}
        threads, tasks = count.get(trial.way, (trial.clients // 2, (trial.clients + 1) // 2))
        self._sessions = [Session(self._store, self._log) for _ in range(threads)]
        self._task_sessions = [AsyncSession(self._awaiting, self._log) for _ in range(tasks)]
        for life in range(LIVES_MAX):
            if self._planned >= trial.count:
                break
            self._live(life)
        self._end()
        self._happened.update(asdict(self._store.served))
        self._happened["transactions"] = len(self._log.transactions)
        self._happened["unknown"] = sum(one.outcome == "unknown" for one in self._log.transactions)
        return Outcome(History(trial.kind, self._log.transactions), self._happened)

    def _live(self, life: int) -> None:
        """Open the database, serve clients, and close it, or lose power."""
        machine, rng = self._machine, self._rng
        machine.schedule(self._trial.policy)
        if self._trial.crashes and rng.random() < 0.8:
            operations = rng.choice((20, 200, 1500))
            machine.crash_at(machine.op_count + rng.randrange(operations), after=rng.random() < 0.5)
        database = None
        try:
            database = self._open(self._faulty())
            self._serve(database)
            self._close(database)
            self._happened["reopened"] += 1
        except SimCrash:
            self._happened["crashed"] += 1
            self._after_crash(database, life)
        except BaseException:
            abandon(machine, database)
            raise

    def _faulty(self) -> Env:
        """Return the machine, or one on which a sync fails."""
        rng = self._rng
        if not self._trial.failed_syncs or rng.random() < 0.3:
            return self._machine
        fails = FAILED_SYNCS[rng.choice(HONEST_FAILURES)]
        site = rng.choice(("*", "wal.*", "wal.record.*", "table.*", "manifest.*"))
        return FaultEnv(
            self._machine, [fails(site=site, nth=rng.choice((1, 3, 10, 30)) + rng.randrange(3))]
        )

    def _open(self, env: Env) -> Database | None:
        store = self._store
        store.is_down = False
        store.database = store.awaited = None
        try:
            database = open_database(FOLDER, settings=self._settings, env=env, key=encrypted.key())
        except (Error, OSError):
            # A sync failed meanwhile.
            self._happened["not opened"] += 1
            return None
        try:
            for name in store.names[1:]:
                database.keyspace(name)
        except (Error, OSError):
            store.is_down = True
        store.database = database
        store.awaited = holdfast.aio.Database(env, database)
        return database

    def _serve(self, database: Database | None) -> None:
        if database is None:
            return
        machine = self._machine
        tasks = [
            machine.spawn(f"client-{number}", partial(self._work, session))
            for number, session in enumerate(self._sessions)
        ]
        loops = 1 + self._rng.randrange(2)
        for number in range(loops if self._task_sessions else 0):
            share = self._task_sessions[number::loops]
            tasks.append(machine.spawn(f"loop-{number}", partial(self._work_in_loop, share)))
        self._storm(database, tasks)
        for task in tasks:
            task.join()

    def _work(self, session: Session) -> None:
        for plan in self._plans():
            session.run(plan)

    def _work_in_loop(self, sessions: list[AsyncSession]) -> None:
        async def work(session: AsyncSession) -> None:
            for plan in self._plans():
                await session.run(plan)
                await asyncio.sleep(0)

        works = [work(session) for session in sessions]

        async def work_all() -> None:
            # Of tasks that the power took there is nothing to say.
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            await asyncio.gather(*works)

        try:
            sim_loop.run(self._machine, work_all())
        except SimCrash:
            for each in works:
                # In this thread, as long as it has the turn.
                with suppress(SimCrash):
                    each.close()
            raise

    def _storm(self, database: Database, tasks: list[Task]) -> None:
        """Flush, compact, look and jump while clients work."""
        trial, machine, rng, store = self._trial, self._machine, self._rng, self._store
        while (trial.storms or trial.jumps) and self._planned < trial.count and not store.is_down:
            machine.sleep(rng.choice((0.0, 20e-6, 300e-6)))
            choice = rng.random()
            with suppress(Error, OSError):
                # Whoever commits hears of it, too.
                if trial.jumps and choice < 0.1:
                    self._happened["jumps"] += 1
                    seconds = rng.choice((0.0, 1.0, 2.0 * AGE_SECONDS))
                    machine.jump(seconds, rng.uniform(-1e6, 1e6))
                elif trial.storms and choice < 0.5:
                    self._happened["flushes"] += 1
                    database.flush()
                elif trial.storms and choice < 0.8:
                    self._happened["compactions"] += 1
                    database.compact()
                elif trial.storms:
                    with database.snapshot() as view:
                        len(view)
                    database.transactions()

    def _close(self, database: Database | None) -> None:
        store = self._store
        awaited, store.awaited, store.database = store.awaited, None, None
        if awaited is not None:
            awaited._bridge.stop()  # noqa: SLF001  the other handle closes the engine
        if database is not None:
            if store.is_down:
                self._happened["poisoned"] += 1
            with suppress(Error, OSError):
                database.close()

    def _after_crash(self, database: Database | None, life: int) -> None:
        """Be on a machine that booted from what a power cut may have left."""
        for session in (*self._sessions, *self._task_sessions):
            session.stop()
        self._store.database = self._store.awaited = None
        abandon(self._machine, database)
        self._machine = self._booted(f"{self._trial.seed}/{life}")

    def _booted(self, name: str) -> SimEnv:
        rng = Random(name)
        point = CrashPoint(self._machine)
        kind = rng.choice(("none", "all", *CRASH_CLASSES))
        states = list(islice(point.states((kind,), rng.randrange(1 << 30)), STATES_DRAWN))
        if not states:
            states = list(point.states(("none",)))
        return rng.choice(states).build()

    def _end(self) -> None:
        """Read every key, without faults."""
        machine = self._machine
        machine.schedule("chance")
        for after in (False, True):
            machine.crash_at(NEVER, after=after)
        database = self._open(machine)
        try:
            session = Session(self._store, self._log)
            for plan in final_plans(self._load, self._trial.count):
                session.run(plan)
        finally:
            self._close(database)
