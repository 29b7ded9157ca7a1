"""What runs the steps of a workload: a client that tells a history what it asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.base import DatabaseSettings
from holdfast.engine import Database, Keyspace, Snapshot, open_database
from holdfast.env import Env
from holdfast.testing import encrypted
from holdfast.testing.oracle import FOLDER, History, State, WorkloadError, content, rows


class Session:
    """A client that runs steps against a database and tells the history what it asked for."""

    def __init__(self, env: Env, history: History, settings: DatabaseSettings) -> None:
        self.env = env
        self.history = history
        self.settings = settings
        self.interval_number = 0
        """The last commit that was made with durability "interval"."""
        self.touched: dict[str, int] = {}
        """The last commit that touched each keyspace."""
        self.snapshots: dict[str, tuple[Snapshot, State]] = {}
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        """The open database."""
        if self._database is None:
            raise WorkloadError("the workload has not opened the database")
        return self._database

    def open(self) -> None:
        """Open the database; the first time it is created."""
        is_new = self.history.durable < 0
        settings = self.settings if is_new else None
        self._database = open_database(
            FOLDER, create=is_new, settings=settings, env=self.env, key=encrypted.key()
        )
        self.all_durable()
        self.check()

    def close(self) -> None:
        """Close the database, which makes everything durable."""
        for name in list(self.snapshots):
            self.close_snapshot(name)
        self.database.close()
        self.all_durable()

    def check(self) -> None:
        """Compare the whole database with the newest state."""
        if content(self.database) != self.history.state:
            difference = self.history.difference(content(self.database))
            raise WorkloadError(f"before any crash: {difference}")

    def all_durable(self) -> None:
        """Note that every commit so far was acknowledged as durable."""
        self.history.acknowledge(self.history.submitted)

    def commit(
        self,
        change: Callable[[State, int], object],
        call: Callable[[int], object],
        durability: str | None,
        *keyspaces: str,
    ) -> None:
        """Run one commit that touches `keyspaces`.

        `change` does to the model what `call` does to the database.
        """
        number = self.history.submitted + 1
        self.touched.update(dict.fromkeys(keyspaces, number))
        self.history.submit(lambda state: change(state, number))
        call(number)
        if durability in (None, "commit"):
            self.history.acknowledge(number)
        elif durability == "interval":
            self.interval_number = number

    def keyspace(self, name: str) -> Keyspace:
        """Return a keyspace that exists."""
        return self.database.keyspace(name, create=False)

    def close_snapshot(self, name: str) -> None:
        """Compare a snapshot with the state that it was taken of, and close it."""
        snapshot, state = self.snapshots.pop(name)
        with snapshot:
            for keyspace, pairs in state.items():
                if dict(rows(snapshot.keyspace(keyspace).items())) != pairs:
                    raise WorkloadError(f"snapshot {name} does not show its keyspace {keyspace}")


class Step(Protocol):
    """One thing that a client does."""

    def run(self, session: Session) -> None:
        """Do it, and tell the history."""
        ...


def value_of(number: int, key: bytes, size: int) -> bytes:
    """Return the value that commit `number` gives to `key`: it says so, and is hard to compress."""
    text = b"commit %d of %s " % (number, key)
    return text + random.Random(text).randbytes(max(0, size - len(text)))


class Work(Protocol):
    """What can be run and cut off."""

    @property
    def name(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def steps(self) -> Sequence[object]: ...

    def new_history(self) -> History:
        """Return a history for one run."""
        ...

    def run(self, env: Env, history: History, on_step: Callable[[], None] = ...) -> Database | None:
        """Run it; return the database if it is left open."""
        ...
