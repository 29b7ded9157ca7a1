"""Clients that drive a store and write down what they see: the runner of histories.

A store is anything that meets `Store`: the broken models of `broken_engines`, or an engine behind a
short adapter. Each `Session` is a client with a transaction at a time, taken from a list of plans.
`run_steps` lets a seeded scheduler choose whose operation comes next, in one thread, so the same
seed gives the same history; `run_threads` gives each session a thread.

1. `began` is drawn before the store is asked for a transaction, `ended` after the outcome is known.
2. Only what returned is written down. An operation that was refused ends its transaction with
   `fail`; a commit during which the store stopped has the outcome `unknown`.
3. Elements and numbers are unique in a run, so a history can be judged whole.
4. The last transactions of a run read every key: nothing that was written stays unread.

Thread safety: sessions share the clock and the list of transactions only, both by one step of the
interpreter; each session belongs to one thread.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from holdfast.testing.history import (
    Append,
    History,
    Isolation,
    Kind,
    Operation,
    Outcome,
    Put,
    Read,
    Scan,
    Transaction,
    Value,
)


class RefusedError(Exception):
    """The store gave a transaction up, before or at its commit; it has no effect."""


class StoppedError(Exception):
    """The store stopped; a commit that was under way may have happened."""


class Client(Protocol):
    """One client's way into a store; it has one transaction at a time.

    Any call may raise RefusedError or StoppedError. After either the transaction is over.
    """

    def begin(self, isolation: Isolation, *, read_only: bool) -> None:
        """Begin a transaction."""

    def get(self, key: str) -> Value:
        """Return the value of a key: 0 or the empty list if it is absent."""

    def scan(self, lower: str, upper: str) -> Sequence[tuple[str, Value]]:
        """Return the keys from `lower` up to `upper` with their values, in order."""

    def append(self, key: str, element: int) -> tuple[int, ...] | None:
        """Append to a list; return the list before, if the store read it for this."""

    def put(self, key: str, value: int) -> None:
        """Give a key a value."""

    def commit(self) -> bool:
        """Return whether it is committed now; if not, ask again later.

        It raises RefusedError if the transaction conflicts with another.
        """

    def abort(self) -> None:
        """End the transaction without effect."""


class AsyncClient(Protocol):
    """A `Client` whose calls are awaited."""

    async def begin(self, isolation: Isolation, *, read_only: bool) -> None:
        """Begin a transaction."""

    async def get(self, key: str) -> Value:
        """Return the value of a key."""
        ...

    async def scan(self, lower: str, upper: str) -> Sequence[tuple[str, Value]]:
        """Return the keys from `lower` up to `upper` with their values, in order."""
        ...

    async def append(self, key: str, element: int) -> tuple[int, ...] | None:
        """Append to a list; return the list before, if the store read it for this."""

    async def put(self, key: str, value: int) -> None:
        """Give a key a value."""

    async def commit(self) -> bool:
        """Return whether it is committed now; if not, ask again later."""
        ...

    async def abort(self) -> None:
        """End the transaction without effect."""


class AsyncStore(Protocol):
    """A store whose clients are tasks."""

    def client(self) -> AsyncClient:
        """Return a new client."""
        ...


class Store(Protocol):
    """What is tried."""

    def client(self) -> Client:
        """Return a new client."""

    def crash(self) -> None:
        """Stop, lose what is not durable, and recover; open transactions raise StoppedError."""


Calls = Generator[Callable[[], Any] | None, Any, None]  # what a call answers depends on it

Verb = Literal["read", "scan", "append", "update"]


class Step(NamedTuple):
    """One operation that a plan asks for; `update` reads a key and writes it."""

    verb: Verb
    key: str
    upper: str = ""


class Plan(NamedTuple):
    """A transaction that is to be."""

    steps: tuple[Step, ...]
    isolation: Isolation = "serializable"
    read_only: bool = False
    is_aborted: bool = False
    """It is given up at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What plans are drawn from."""

    kind: Kind
    isolation: Isolation = "serializable"
    keys: int = 5
    prefix: str = "k"
    steps_max: int = 4
    read_only: float = 0.3
    """So much of the transactions."""
    aborts: float = 0.08
    scans: float = 0.2
    """So much of the reads."""
    drift: int = 25
    """After so many transactions the oldest key in use gives way to a new one."""


def key_name(load: Load, index: int) -> str:
    """Return the name of a key; names sort as their numbers."""
    return f"{load.prefix}{index:06d}"


def draw_plan(load: Load, rng: Random, number: int) -> Plan:
    """Return a transaction of a load: that with this number."""
    first = number // load.drift
    is_reader = rng.random() < load.read_only
    writes: Verb = "append" if load.kind == "append" else "update"
    steps: list[Step] = []
    for _ in range(rng.randint(2 if is_reader else 1, load.steps_max)):
        index = first + rng.randrange(load.keys)
        if not is_reader and rng.random() < 0.55:
            steps.append(Step(writes, key_name(load, index)))
        elif rng.random() < load.scans:
            upper = key_name(load, min(first + load.keys, index + rng.randint(1, 3)))
            steps.append(Step("scan", key_name(load, index), upper))
        else:
            steps.append(Step("read", key_name(load, index)))
    is_aborted = not is_reader and rng.random() < load.aborts
    return Plan(tuple(steps), load.isolation, is_reader, is_aborted)


@dataclass(slots=True)
class Log:
    """What all sessions of a run share."""

    transactions: list[Transaction] = field(default_factory=list)
    clock: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    values: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    processes: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class _Script:
    """What a client does, one call after the other, and what is written down of it; whoever drives
    it makes the calls, and waits for them if they are to be awaited.
    """

    def __init__(self, store: Store | AsyncStore, log: Log) -> None:
        self._store = store
        self._log = log
        self._client: Client | AsyncClient | None = None
        self._process = next(log.processes)
        self._plan: Plan | None = None
        self._calls: Calls | None = None
        self._is_committing = False
        self._began = 0
        self._operations: list[Operation] = []

    @property
    def is_idle(self) -> bool:
        """Whether it has no transaction."""
        return self._plan is None

    def stop(self) -> None:
        """The store stopped: end the transaction, and be a new client from now on."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()
        self._stopped()

    def _stopped(self) -> None:
        if self._plan is not None:
            self._end("unknown" if self._is_committing else "fail")
        # The next one is asked for when the store may be there again.
        self._client = None
        self._process = next(self._log.processes)

    def _prepare(self, plan: Plan) -> None:
        self._plan, self._is_committing, self._operations = plan, False, []
        self._began = next(self._log.clock)
        if self._client is None:
            self._client = self._store.client()
        self._calls = self._transact(self._client, plan)

    def _transact(self, client: Client | AsyncClient, plan: Plan) -> Calls:
        """Yield the calls of a transaction, and None behind those that belong together."""
        try:
            yield partial(client.begin, plan.isolation, read_only=plan.read_only)
            yield None
            for step in plan.steps:
                yield from self._do(client, step)
                yield None
            if plan.is_aborted:
                yield client.abort
                outcome: Outcome = "fail"
            else:
                self._is_committing = True
                while not (yield client.commit):
                    yield None
                outcome = "ok"
        except RefusedError:
            outcome = "fail"
        except StoppedError:
            self._stopped()
            return
        self._end(outcome)

    def _do(self, client: Client | AsyncClient, step: Step) -> Calls:
        operations = self._operations
        if step.verb == "read":
            operations.append(Read(step.key, (yield partial(client.get, step.key))))
        elif step.verb == "scan":
            rows = yield partial(client.scan, step.key, step.upper)
            operations.append(Scan(step.key, step.upper, tuple(rows)))
        elif step.verb == "append":
            element = next(self._log.values)
            before = yield partial(client.append, step.key, element)
            if before is not None:
                operations.append(Read(step.key, before))
            operations.append(Append(step.key, element))
        else:
            operations.append(Read(step.key, (yield partial(client.get, step.key))))
            value = next(self._log.values)
            yield partial(client.put, step.key, value)
            operations.append(Put(step.key, value))

    def _end(self, outcome: Outcome) -> None:
        plan, self._plan = self._plan, None
        if plan is None:
            return
        transaction = Transaction(
            next(self._log.numbers),
            self._process,
            outcome,
            self._began,
            next(self._log.clock),
            plan.isolation,
            tuple(self._operations),
        )
        self._log.transactions.append(transaction)


class Session(_Script):
    """A client at work: one operation of the store for each `step`."""

    def __init__(self, store: Store, log: Log) -> None:
        super().__init__(store, log)

    def begin(self, plan: Plan) -> None:
        """Begin a transaction."""
        self._prepare(plan)
        self.step()

    def step(self) -> None:
        """Do the next operation of the transaction, or end it."""
        calls = self._calls
        call = None if calls is None else next(calls, None)
        while calls is not None and call is not None:
            try:
                answer = call()
            except (RefusedError, StoppedError) as error:
                call = _thrown(calls, error)
            else:
                call = _sent(calls, answer)

    def run(self, plan: Plan) -> None:
        """Run a whole transaction."""
        self.begin(plan)
        while not self.is_idle:
            self.step()


class AsyncSession(_Script):
    """The same with calls that are awaited."""

    def __init__(self, store: AsyncStore, log: Log) -> None:
        super().__init__(store, log)

    async def run(self, plan: Plan) -> None:
        """Run a whole transaction."""
        self._prepare(plan)
        while not self.is_idle:
            await self._step()

    async def _step(self) -> None:
        calls = self._calls
        call = None if calls is None else next(calls, None)
        while calls is not None and call is not None:
            try:
                answer = await call()
            except (RefusedError, StoppedError) as error:
                call = _thrown(calls, error)
            else:
                call = _sent(calls, answer)


def _sent(calls: Calls, answer: object) -> Callable[[], Any] | None:
    try:
        return calls.send(answer)
    except StopIteration:
        return None


def _thrown(calls: Calls, error: Exception) -> Callable[[], Any] | None:
    try:
        return calls.throw(error)
    except StopIteration:
        return None


def run_steps(
    store: Store,
    load: Load,
    rng: Random,
    *,
    clients: int,
    count: int,
    crashes: float = 0.0,
    is_enough: Callable[[], bool] = bool,
    log: Log | None = None,
) -> History:
    """Run `count` transactions of a load, their operations interleaved as `rng` says.

    `crashes` is the chance of a crash before each step. It begins no more transactions once
    `is_enough` says so. One client makes a serial history.
    """
    log = Log() if log is None else log
    first = len(log.transactions)
    sessions = [Session(store, log) for _ in range(clients)]
    left, planned = count, 0
    while left or not all(session.is_idle for session in sessions):
        if is_enough():
            left = 0
        if crashes and rng.random() < crashes:
            store.crash()
            for session in sessions:
                session.stop()
        session = sessions[rng.randrange(clients)]
        if not session.is_idle:
            session.step()
        elif left:
            session.begin(draw_plan(load, rng, planned))
            planned += 1
            left -= 1
    _read_all(store, load, log, planned)
    return History(load.kind, log.transactions[first:])


def run_threads(store: Store, load: Load, seed: int, *, threads: int, count: int) -> History:
    """Run `count` transactions of a load in each of so many threads at once."""
    log = Log()
    failures: list[BaseException] = []

    def work(session: Session, rng: Random) -> None:
        try:
            for at in range(count):
                session.run(draw_plan(load, rng, at * threads))
        except BaseException as error:  # noqa: BLE001  it is raised where the run was started
            failures.append(error)

    workers = [
        threading.Thread(target=work, args=(Session(store, log), Random(f"{seed} {number}")))
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    _read_all(store, load, log, count * threads)
    return History(load.kind, log.transactions)


def final_plans(load: Load, count: int) -> tuple[Plan, Plan]:
    """Return transactions that read every key of the first `count` plans of a load."""
    keys = count // load.drift + load.keys
    reads = tuple(Step("read", key_name(load, index)) for index in range(keys))
    whole = Step("scan", key_name(load, 0), key_name(load, keys))
    return Plan(reads, load.isolation, read_only=True), Plan((whole,), load.isolation)


def _read_all(store: Store, load: Load, log: Log, count: int) -> None:
    session = Session(store, log)
    for plan in final_plans(load, count):
        session.run(plan)
