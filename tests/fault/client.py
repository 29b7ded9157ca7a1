"""A client that meets faults, and knows what a database must still hold after them.

It keeps every state since the last one that was acknowledged as durable. A refused call
(DiskFullError) must have changed nothing. The first call that fails in another way may or may not
have taken effect, and after it the database must refuse every write.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import holdfast
from holdfast.base import DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database, opening
from holdfast.env import CrashPoint, CrashState, Env, FaultRule, SimEnv
from holdfast.env.protocol import Condition, Mutex

FOLDER = "/db"
DATA_SUFFIXES = (".table", ".wal", ".manifest")
MUTATING = frozenset("create rename unlink make_dir sync_dir write allocate truncate sync".split())
SECONDS_MAX = 300.0
OPERATIONS_MAX = 5_000

TINY = DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=4 << 10,
    wal_bytes_max=16 << 10,
    sync_interval_ms=10,
    keyspace=KeyspaceSettings(
        memtable_bytes=4 << 10,
        page_bytes=256,
        restart_interval=4,
        table_bytes=4 << 10,
        level0_tables=2,
        level1_bytes=8 << 10,
        level_ratio=2,
    ),
)

State = dict[str, dict[bytes, bytes]]


class Hang(BaseException):
    """The simulated machine waited or worked for much longer than any call may take."""


class _BoundedCondition:
    def __init__(self, machine: BoundedEnv, inner: Condition) -> None:
        self._machine = machine
        self._inner = inner
        self.notify = inner.notify
        self.notify_all = inner.notify_all

    def wait(self, timeout: float | None = None) -> bool:
        self._machine.check_bounds()
        return self._inner.wait(timeout)


class BoundedEnv(SimEnv):
    """A simulated machine on which nothing may wait or work for ever."""

    def check_bounds(self) -> None:
        # A machine without power unwinds its tasks.
        if self.powered and self.uptime > SECONDS_MAX:
            raise Hang(f"{self.uptime:.0f} s of simulated time passed")

    def condition(self, mutex: Mutex) -> Condition:
        return _BoundedCondition(self, super().condition(mutex))

    def sleep(self, seconds: float) -> None:
        self.check_bounds()
        super().sleep(seconds)

    def _begin(self) -> int:
        if self.op_count > OPERATIONS_MAX:
            raise Hang(f"{self.op_count} operations were done")
        return super()._begin()


class MutationRule(FaultRule):
    """A fault rule that is only about calls which change files or make them durable."""

    __slots__ = ()

    def matches(self, kind: str, site: str, path: str) -> bool:
        return kind in MUTATING and super().matches(kind, site, path)


def content(database: Database) -> State:
    """Return what a scan of all keyspaces finds."""
    return {name: dict(database.keyspace(name).items()) for name in database.keyspaces()}


class Client:
    """Runs calls against one database and judges every outcome."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.database: Database | None = None
        self.states: list[State] = []
        """Those since the last durable one; a clean reopen finds the last. None: not created."""
        self.unknown: list[State] = []
        """States that a call with unknown outcome may have led to."""
        self.errors: list[BaseException] = []

    @property
    def state(self) -> State:
        return self.states[-1]

    def acceptable(self) -> list[State]:
        """Return what a crash may leave."""
        return [*self.states, *self.unknown]

    # -- calls

    def open(self, settings: DatabaseSettings | None = None, *, create: bool = False) -> bool:
        """Open, or note why not. Return whether it is open."""
        try:
            self.database = holdfast.open(FOLDER, create=create, settings=settings, env=self.env)
        except (holdfast.Error, OSError) as error:
            self.errors.append(error)
            if create and not self.states:
                self.unknown.append({"default": {}})
            return False
        if self.states:
            found = content(self.database)
            assert found in self.acceptable(), "an open finds something else"
            self.states = [found]
        else:
            self.states = [{"default": {}}]
        self.unknown = []
        return True

    def change(
        self,
        call: Callable[[Database], object],
        model: Callable[[State], object],
        *,
        durable: bool = True,
    ) -> bool:
        """Run a call that changes something. Return whether it succeeded."""
        database = self.database
        assert database is not None
        after = copy.deepcopy(self.state)
        model(after)
        was_poisoned = database.stats().poisoned
        try:
            call(database)
        except holdfast.DiskFullError as error:
            assert not was_poisoned, "a poisoned database says that the disk is full"
            self.errors.append(error)
        except holdfast.DatabasePoisonedError as error:
            self.errors.append(error)
            assert database.stats().poisoned
            if not was_poisoned:
                self.unknown.append(after)
        else:
            assert not was_poisoned, "a poisoned database acknowledged a change"
            self.states.append(after)
            if durable:
                self.states = [after]
        self.check()
        return self.states[-1] is after

    def maintain(self, call: Callable[[Database], object], *, durable: bool = False) -> bool:
        """Run a call that changes nothing a user sees. Return whether it succeeded."""
        database = self.database
        assert database is not None
        try:
            call(database)
        except (holdfast.DiskFullError, holdfast.DatabasePoisonedError) as error:
            self.errors.append(error)
            self.check()
            return False
        if durable:
            self.states = self.states[-1:]
        self.check()
        return True

    def check(self) -> None:
        """Compare the open database with the newest state: reads work, whatever failed."""
        assert self.database is not None
        found = content(self.database)
        if found != self.state:
            # A refused edit is unknown only on disk; in memory it did not happen.
            raise AssertionError(
                f"the open database shows {_shape(found)}, not {_shape(self.state)}"
            )

    def close(self) -> bool:
        """Close; return whether it was a clean close."""
        database, self.database = self.database, None
        if database is None:
            return False
        try:
            database.close()
        except (holdfast.DiskFullError, holdfast.DatabasePoisonedError) as error:
            self.errors.append(error)
            return False
        self.states = self.states[-1:]
        return True


def _shape(state: State) -> str:
    return ", ".join(f"{name}: {len(pairs)} keys" for name, pairs in state.items())


@contextmanager
def machine_switched_off(machine: SimEnv, client: Client | None = None) -> Iterator[None]:
    """Leave no thread of a machine behind, whatever happens."""
    try:
        yield
    finally:
        machine.cut_power()
        if client is not None and client.database is not None:
            # There is no power to close it with when the interpreter ends.
            opening._open_databases.discard(client.database)


def check_found(
    found: State | None, acceptable: list[State], *, may_be_absent: bool = False
) -> None:
    """Check that what was found is acceptable."""
    if found is None:
        assert may_be_absent, "the database is gone"
    else:
        shapes = "; ".join(map(_shape, acceptable))
        assert found in acceptable, f"an open finds {_shape(found)}; acceptable are {shapes}"


def judge(machine: SimEnv) -> State | None:
    """Open the database of a machine without any fault; it must work.

    Returns what it holds, None when there is no database.
    """
    try:
        database = holdfast.open(FOLDER, create=False, env=machine)
    except FileNotFoundError:
        return None
    found = content(database)
    report = database.verify()
    assert report.ok, report.errors
    database[b"~probe"] = b"works"
    database.close()
    assert not machine.unreturned(), machine.unreturned()
    with holdfast.open(FOLDER, create=False, env=machine) as database:
        found["default"][b"~probe"] = b"works"
        assert content(database) == found, "a second open finds something else"
        del found["default"][b"~probe"]
    return found


_found_after: dict[str, State | None] = {}


def judge_crash(machine: SimEnv, acceptable: list[State], *, may_be_absent: bool = False) -> None:
    """Cut the power, in a copy of the machine, and judge what is left: nothing or all unsynced."""
    point = CrashPoint(machine)
    for name in ("none", "all"):
        state = point.state(name)
        content_hash = state.content_hash
        if content_hash not in _found_after:
            copied = booted(state)
            with machine_switched_off(copied):
                _found_after[content_hash] = judge(copied)
        check_found(_found_after[content_hash], acceptable, may_be_absent=may_be_absent)


def booted(state: CrashState) -> BoundedEnv:
    """Return a machine that booted from a crash state."""
    made = state.build()
    machine = BoundedEnv(made.seed)
    machine.disk = made.disk
    machine.wall_start = made.wall_start
    return machine
