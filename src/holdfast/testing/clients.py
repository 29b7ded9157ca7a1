"""Workloads of several clients: threads that commit at once while flushes and compactions run.

Nobody can say beforehand in which order such commits happen. Each writes a marker of its own, and
when its call has returned, the sequence number of the marker is looked up. After the run the
history is put in that order, which is the order of the log. What a crash may leave is then what it
is for one client: a prefix of the order that has every commit which was acknowledged as durable.
A prefix that has a commit which was not submitted yet is impossible.

Most commits are transactions over two keyspaces, some of which read a counter and write it back. A
history has their changes in the order of the log, so a counter that is not one more than before
shows a transaction that should have lost.

The threads are tasks of the simulated machine, so the seed decides their schedule. The clients may
also be asyncio tasks of several event loops on that machine.

Thread safety: the tasks of one simulated machine, of which one runs at a time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import holdfast.aio
from holdfast.base import DatabaseSettings
from holdfast.engine import Database, open_database
from holdfast.env import Env, Task
from holdfast.testing import encrypted, sim_loop
from holdfast.testing.oracle import (
    ABSENT,
    DEFAULT,
    FOLDER,
    History,
    State,
    WorkloadError,
    content,
    rows,
)
from holdfast.txn import ISOLATIONS, Transaction

OTHER = "other"
_SHARED_KEYS = 5
_COUNTER = b"counter"
ATTEMPTS = 1_000
"""A transaction that loses so often meets nobody who ever ends."""

Change = Callable[[State], object]


class ClientHistory(History):
    """A history whose order is found out afterwards.

    During the run `submitted` counts calls that began, and `durable` counts acknowledgements, from
    `ABSENT` on; `settled` turns both into numbers of states.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changes: list[Change] = []
        self._seqs: list[int] = []
        self._acknowledged: list[list[int]] = []

    def begin(self, change: Change) -> int:
        """Note that a commit begins; return what names it."""
        self._changes.append(change)
        self._seqs.append(0)
        self.submitted = len(self._changes)
        return len(self._changes) - 1

    def end(self, commit: int, seq: int, *, is_durable: bool) -> None:
        """Note that a commit returned, and its sequence number."""
        self._seqs[commit] = seq
        if is_durable:
            self.acknowledge_all([commit])

    def returned(self) -> list[int]:
        """Return the commits that have returned."""
        return [commit for commit, seq in enumerate(self._seqs) if seq]

    def in_order(self) -> list[int]:
        """Return the commits that have returned, in the order of the log."""
        return sorted(self.returned(), key=self._seqs.__getitem__)

    def change_of(self, commit: int) -> Change:
        """Return what a commit changes."""
        return self._changes[commit]

    def acknowledged(self) -> set[int]:
        """Return the commits that are known to be durable, though not those before them."""
        return {commit for some in self._acknowledged for commit in some}

    def acknowledge_all(self, commits: Iterable[int]) -> None:
        """Note that these commits, and all before them, were acknowledged as durable."""
        self._acknowledged.append(list(commits))
        self.durable += 1

    def settled(self) -> tuple[History, Callable[[int], int], Callable[[int], int]]:
        """Return the history in the order of the log, and what turns counts of acknowledgements and
        of calls that began into the bounds of what a crash may leave. Requires: all have returned.
        """
        if not all(self._seqs):
            raise WorkloadError("a commit never returned")
        order = sorted(range(len(self._seqs)), key=self._seqs.__getitem__)
        numbers = {commit: number for number, commit in enumerate(order, 1)}
        ordered = History()
        for commit in order:
            ordered.submit(self._changes[commit])
        ordered.acknowledge(ordered.submitted)

        def lower(count: int) -> int:
            known = [numbers[commit] for some in self._acknowledged[: count + 1] for commit in some]
            return max(known, default=ABSENT if count == ABSENT else 0)

        def upper(count: int) -> int:
            return next((n - 1 for n, commit in enumerate(order, 1) if commit >= count), len(order))

        return ordered, lower, upper


@dataclass(frozen=True, slots=True)
class Clients:
    """Some clients that commit, each so often, and one that flushes and compacts meanwhile."""

    name: str
    seed: int
    settings: DatabaseSettings
    clients: int
    turns: int
    value_bytes: int
    loops: int = 0
    """How many event loops share the clients as tasks, each in a thread; 0: they are threads."""

    @property
    def steps(self) -> tuple[int, ...]:
        """The commits of each client."""
        return tuple(range(self.clients * self.turns))

    def new_history(self) -> ClientHistory:
        """Return a history for one run."""
        return ClientHistory()

    def run(
        self, env: Env, history: History, on_step: Callable[[], None] = lambda: None
    ) -> Database | None:
        """Run all clients and close. Raises: WorkloadError for a wrong answer."""
        if not isinstance(history, ClientHistory):
            raise TypeError("clients need a history whose order is found out afterwards")
        on_step()
        database = open_database(
            FOLDER, create=True, settings=self.settings, env=env, key=encrypted.key()
        )
        history.acknowledge_all(())
        commit = history.begin(lambda state: state.update({OTHER: {}}))
        database.keyspace(OTHER)
        # A keyspace has no sequence number; nothing was committed before it.
        history.end(commit, -1, is_durable=True)
        awaited = holdfast.aio.Database(env, database)
        tasks = self._spawn_clients(env, history, database, awaited)
        self._maintain(env, history, database)
        for task in tasks:
            task.join()
        awaited._bridge.stop()  # noqa: SLF001  the other handle closes the engine
        ordered = history.settled()[0]
        if content(database) != ordered.state:
            raise WorkloadError(f"before any crash: {ordered.difference(content(database))}")
        database.close()
        history.acknowledge_all(history.returned())
        return None

    def _spawn_clients(
        self,
        env: Env,
        history: ClientHistory,
        database: Database,
        awaited: holdfast.aio.Database,
    ) -> list[Task]:
        clients = [Client(self, env, history, database, number) for number in range(self.clients)]
        if not self.loops:
            return [
                env.spawn(f"client-{number}", client.run) for number, client in enumerate(clients)
            ]

        async def run_all(share: list[Client]) -> None:
            await asyncio.gather(*[client.run_as_task(awaited) for client in share])

        def run_loop(number: int) -> None:
            sim_loop.run(env, run_all(clients[number :: self.loops]))

        return [
            env.spawn(f"loop-{number}", partial(run_loop, number)) for number in range(self.loops)
        ]

    def _maintain(self, env: Env, history: ClientHistory, database: Database) -> None:
        for turn in range(3):
            env.sleep(200e-6)
            # What has returned by now is visible, so the flush makes it durable.
            known = history.returned()
            database.flush()
            history.acknowledge_all(known)
            if turn:
                database.compact()


def _next(count: object) -> bytes:
    """Return the value of the counter behind this one."""
    return b"%d" % (int(count) + 1 if isinstance(count, bytes) else 1)


@dataclass(frozen=True, slots=True)
class Planned:
    """A commit: of the marker alone, or a transaction."""

    marker: bytes
    durability: str | None
    change: Change
    puts: tuple[tuple[str, bytes], ...] = ()
    gone: tuple[str, bytes] = ("", b"")
    counts: bool = False
    isolation: str = "serializable"
    """Both levels promise that nobody else writes the counter in between."""


class _UndoneError(Exception):
    """Leaves a savepoint's block, so that it is rolled back."""


class Client:
    """One thread or task of commits."""

    def __init__(
        self, work: Clients, env: Env, history: ClientHistory, database: Database, number: int
    ) -> None:
        self._work = work
        self._env = env
        self._history = history
        self._database = database
        self._number = number
        self._rng = random.Random(f"{work.seed}/client/{number}")

    def run(self) -> None:
        for turn in range(self._work.turns):
            self._commit(self._plan(turn))
            if self._rng.random() < 0.3:
                self._look(turn)

    def _commit(self, planned: Planned) -> None:
        seq_before, commit = self._begin(planned)
        self._write(planned)
        self._end(planned, commit, seq_before)

    def _write(self, planned: Planned) -> None:
        marker, durability = planned.marker, planned.durability
        if not planned.puts:
            self._database.put(marker, self._value(marker, marker), durability=durability)
        else:
            self._database.run(
                partial(self._transact, planned),
                attempts=ATTEMPTS,
                isolation=planned.isolation,
                durability=durability,
            )

    def _transact(self, planned: Planned, txn: Transaction) -> None:
        other = txn.keyspace(OTHER, create=False)
        spaces = {DEFAULT: txn, OTHER: other}
        if planned.counts:
            txn[_COUNTER] = _next(txn.get(_COUNTER))
        with suppress(_UndoneError), txn.savepoint():
            for space in spaces.values():
                space[planned.marker] = b"never committed"
            with txn.savepoint():
                other.clear()
            raise _UndoneError
        with txn.savepoint():
            for name, key in planned.puts:
                spaces[name][key] = self._value(key, planned.marker)
        spaces[planned.gone[0]].delete(planned.gone[1])

    async def run_as_task(self, database: holdfast.aio.Database) -> None:
        """Do what `run` does, as a task of an event loop."""
        for turn in range(self._work.turns):
            planned = self._plan(turn)
            seq_before, commit = self._begin(planned)
            if not planned.puts:
                await database.put(
                    planned.marker,
                    self._value(planned.marker, planned.marker),
                    durability=planned.durability,
                )
            else:
                await database.run(
                    partial(self._transact_as_task, planned),
                    attempts=ATTEMPTS,
                    isolation=planned.isolation,
                    durability=planned.durability,
                )
            self._end(planned, commit, seq_before)
            if self._rng.random() < 0.3:
                await self._look_as_task(database, turn)

    async def _transact_as_task(self, planned: Planned, txn: holdfast.aio.Transaction) -> None:
        other = await txn.keyspace(OTHER, create=False)
        spaces = {DEFAULT: txn, OTHER: other}
        if planned.counts:
            await txn.put(_COUNTER, _next(await txn.get(_COUNTER)))
        with suppress(_UndoneError):
            async with txn.savepoint():
                for space in spaces.values():
                    await space.put(planned.marker, b"never committed")
                raise _UndoneError
        for name, key in planned.puts:
            await spaces[name].put(key, self._value(key, planned.marker))
        await spaces[planned.gone[0]].delete(planned.gone[1])

    def _value(self, key: bytes, marker: bytes) -> bytes:
        text = marker + b" of " + key + b" "
        size = max(0, self._work.value_bytes - len(text))
        return text + random.Random(text).randbytes(size)

    def _plan(self, turn: int) -> Planned:
        marker = b"client/%d/%03d" % (self._number, turn)
        durability = self._rng.choice((None, None, "none"))
        if self._rng.random() < 0.4:
            return self._plan_put(marker, durability)
        return self._plan_transaction(marker, durability)

    def _plan_put(self, marker: bytes, durability: str | None) -> Planned:
        """The marker alone."""
        value = self._value(marker, marker)
        return Planned(marker, durability, lambda state: state[DEFAULT].update({marker: value}))

    def _plan_transaction(self, marker: bytes, durability: str | None) -> Planned:
        """The marker and keys that others write, too, in both keyspaces; one deletion; perhaps the
        counter.
        """
        rng = self._rng
        puts = [(DEFAULT, marker), (OTHER, marker)]
        puts += [(rng.choice((DEFAULT, OTHER)), b"key/%d" % rng.randrange(_SHARED_KEYS))]
        gone = rng.choice((DEFAULT, OTHER)), b"key/%d" % rng.randrange(_SHARED_KEYS)
        counts, isolation = rng.random() < 0.5, rng.choice(ISOLATIONS)

        def change(state: State) -> None:
            if counts:
                state[DEFAULT][_COUNTER] = _next(state[DEFAULT].get(_COUNTER))
            for name, key in puts:
                state[name][key] = self._value(key, marker)
            state[gone[0]].pop(gone[1], None)

        return Planned(marker, durability, change, tuple(puts), gone, counts, isolation)

    def _begin(self, planned: Planned) -> tuple[int, int]:
        """Return the newest number before the commit, and what names the commit."""
        seq_before = self._database.state.visible_seq
        return seq_before, self._history.begin(planned.change)

    def _end(self, planned: Planned, commit: int, seq_before: int) -> None:
        seq = self._seq_of(planned.marker, seq_before, self._database.state.visible_seq)
        self._history.end(commit, seq, is_durable=planned.durability is None)

    def _seq_of(self, marker: bytes, absent: int, present: int) -> int:
        """Return the sequence number of a marker that `present` sees and `absent` does not."""
        keyspace = self._database.keyspace(DEFAULT)
        while present - absent > 1:
            middle = (absent + present) // 2
            if keyspace.get_at(marker, middle) is None:
                absent = middle
            else:
                present = middle
        if keyspace.get_at(marker, present) is None:
            raise WorkloadError(f"{marker!r} was written and cannot be read")
        return present

    def _look(self, turns: int) -> None:
        """A scan shows every commit of this client that has returned."""
        prefix = b"client/%d/" % self._number
        found = [key for key, _ in rows(self._database.items(prefix=prefix))]
        if len(found) != turns + 1:
            raise WorkloadError(f"client {self._number} wrote {turns + 1} markers, sees {found}")

    async def _look_as_task(self, database: holdfast.aio.Database, turns: int) -> None:
        prefix = b"client/%d/" % self._number
        found = [key async for key, _ in database.items(prefix=prefix)]
        if len(found) != turns + 1:
            raise WorkloadError(f"client {self._number} wrote {turns + 1} markers, sees {found}")
