"""Small stores that are wrong on purpose, each in one way, for the checkers to find out.

`Model` is right: versions of each key by the number of their commit, reads from a snapshot, and
validation of what was read (`serializable`) or written (`snapshot`) at the commit, which first logs
and then shows what was written. Each class below it changes one step. `FAULTS` says of each what
level of a claim it breaks, which kinds of anomalies show it, and what it still keeps.

Commits take two calls, so that others come in between and so that a crash can. A crash forgets all
that is not in the log. There is no clock and no file; chance comes from the given generator.

Thread safety: none; one thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import ClassVar, NamedTuple

from holdfast.testing.anomaly import (
    READ_COMMITTED,
    SERIALIZABLE,
    SNAPSHOT,
    STRICT,
    STRONG_SNAPSHOT,
)
from holdfast.testing.history import History, Isolation, Kind, Value, absent_value
from holdfast.testing.history_run import Load, RefusedError, StoppedError, run_steps

SITES = 2
COUNT_MOST = 4000
"""A history has no more transactions, even if the fault never showed."""


@dataclass(slots=True, eq=False)
class Attempt:
    """A transaction of a model."""

    isolation: Isolation
    read_only: bool
    snapshot: int
    """It sees the commits up to this number."""
    horizon: int
    """It is validated against the commits behind this number: the same, in a right model."""
    site: int = 0
    reads: set[str] = field(default_factory=set)
    ranges: list[tuple[str, str]] = field(default_factory=list)
    writes: dict[str, Value] = field(default_factory=dict)
    before: dict[str, Value] = field(default_factory=dict)
    """What a model that writes in place has overwritten."""
    number: int = 0
    """Of its commit, once it has one."""
    sources: list[Attempt] = field(default_factory=list)
    """Whose writes in place it has read."""
    saw_unlogged: int = 0
    """The commit under way of which it read something."""

    def has_read_any(self, keys: Iterable[str]) -> bool:
        """Return whether it has read one of the keys, absent ones included."""
        return any(
            key in self.reads or any(lower <= key < upper for lower, upper in self.ranges)
            for key in keys
        )


class Entry(NamedTuple):
    """A commit in the log."""

    number: int
    writes: dict[str, Value]
    site: int


class Model:
    """A store that is right."""

    slowness: ClassVar[float] = 0.0
    """The chance that the second step of a commit is not done yet when a client asks."""

    def __init__(self, kind: Kind, rng: Random) -> None:
        self.rng = rng
        self.absent = absent_value(kind)
        self.tells_list = rng.random() < 0.5
        """Appending returns the list before."""
        self.versions: dict[str, list[tuple[int, Value]]] = {}
        self.log: list[Entry] = []
        self.last = 0
        """The newest commit that is seen."""
        self.sites: list[int] = [0]
        """Of each commit the site it was made at."""
        self.committing: Attempt | None = None
        self.attempts: list[Attempt] = []
        self.committed: list[Attempt] = []
        """Since the last crash, those that wrote something."""
        self.bites = 0
        """So often the fault changed what happened. In a right model it stays 0."""
        self._clients = 0

    def client(self) -> ModelClient:
        """Return a new client."""
        self._clients += 1
        return ModelClient(self, self._clients % SITES)

    def crash(self) -> None:
        """Forget what is not in the log."""
        self.versions, self.sites, self.last = {}, [0], 0
        self.committing = None
        self.attempts.clear()
        self.committed.clear()
        for entry in self.log:
            self._show(entry.number, entry.writes, entry.site)

    # The steps that faults change.

    def begin(self, isolation: Isolation, site: int, *, read_only: bool) -> Attempt:
        return Attempt(isolation, read_only, self.last, self.last, site)

    def read(self, attempt: Attempt, key: str) -> Value:
        """Return what the transaction sees, its own writes apart."""
        found = self.versions.get(key, [])
        at = bisect_right(found, attempt.snapshot, key=lambda version: version[0])
        return found[at - 1][1] if at else self.absent

    def own(self, attempt: Attempt, key: str) -> Value | None:
        """Return what the transaction sees of its own writes."""
        return attempt.writes.get(key)

    def write(self, attempt: Attempt, key: str, value: Value) -> None:
        attempt.writes[key] = value

    def conflicts(self, attempt: Attempt) -> bool:
        """Return whether the transaction must not commit."""
        return any(self.is_newer(attempt, key) for key in self.validated(attempt))

    def validated(self, attempt: Attempt) -> Iterable[str]:
        """Return the keys of which nobody else may have committed a version."""
        keys = set(attempt.writes)
        if attempt.isolation == "serializable":
            keys |= attempt.reads
            for lower, upper in attempt.ranges:
                keys.update(key for key in self.versions if lower <= key < upper)
        return keys

    def is_newer(self, attempt: Attempt, key: str) -> bool:
        found = self.versions.get(key)
        return bool(found) and found is not None and found[-1][0] > attempt.horizon

    def is_let_through(self, attempt: Attempt) -> bool:
        """Return whether committing the transaction is certainly an anomaly: it overwrites what it
        did not see, or it and another each missed what the other one wrote.
        """
        missed = {
            key
            for key in Model.validated(self, attempt)
            if self.versions.get(key, [(0, 0)])[-1][0] > attempt.snapshot
        }
        if not missed.isdisjoint(attempt.writes):
            return True
        for other in reversed(self.committed):
            if other.number <= attempt.snapshot:
                return False
            if not missed.isdisjoint(other.writes) and other.has_read_any(attempt.writes):
                return True
        return False

    def prepare(self, attempt: Attempt) -> None:
        """First step of a commit: log it."""
        self.log.append(Entry(attempt.number, attempt.writes, attempt.site))

    def finish(self, attempt: Attempt) -> None:
        """Second step: show it."""
        self._show(attempt.number, attempt.writes, attempt.site)

    def abort(self, attempt: Attempt) -> None:
        """Forget a transaction."""

    # The rest is the same for all.

    def commit(self, attempt: Attempt) -> bool:
        if attempt.number:
            if self.slowness and self.rng.random() < self.slowness:
                return False
            self.finish(attempt)
            self.committing = None
            self.committed.append(attempt)
            return True
        if not attempt.writes and attempt.read_only:
            return True
        if self.committing is not None:
            return False
        if self.conflicts(attempt):
            self.abort(attempt)
            raise RefusedError("another transaction committed what this one read or writes")
        self.bites += self.is_let_through(attempt)
        if not attempt.writes:
            return True
        attempt.number = self.last + 1
        self.committing = attempt
        self.prepare(attempt)
        return False

    def keys_seen(self, attempt: Attempt, lower: str, upper: str) -> list[str]:
        """Return the keys that may lie in a range for this transaction."""
        return sorted(
            key for key in self.versions.keys() | attempt.writes.keys() if lower <= key < upper
        )

    def _show(self, number: int, writes: dict[str, Value], site: int) -> None:
        for key, value in writes.items():
            self.versions.setdefault(key, []).append((number, value))
        self.last = number
        self.sites += [site] * (number + 1 - len(self.sites))


class ModelClient:
    """A client of a model."""

    def __init__(self, store: Model, site: int) -> None:
        self._store = store
        self._site = site
        self._attempt: Attempt | None = None

    def begin(self, isolation: Isolation, *, read_only: bool) -> None:
        """Begin a transaction."""
        self._attempt = self._store.begin(isolation, self._site, read_only=read_only)
        self._store.attempts.append(self._attempt)

    def get(self, key: str) -> Value:
        """Return the value of a key."""
        attempt = self._live()
        attempt.reads.add(key)
        return self._value(attempt, key)

    def scan(self, lower: str, upper: str) -> list[tuple[str, Value]]:
        """Return the keys of a range with their values."""
        attempt, store = self._live(), self._store
        attempt.ranges.append((lower, upper))
        rows = [(key, self._value(attempt, key)) for key in store.keys_seen(attempt, lower, upper)]
        return [row for row in rows if row[1] != store.absent]

    def append(self, key: str, element: int) -> tuple[int, ...] | None:
        """Append to a list."""
        before = self.get(key)
        before = before if isinstance(before, tuple) else ()
        self._store.write(self._live(), key, (*before, element))
        return before if self._store.tells_list else None

    def put(self, key: str, value: int) -> None:
        """Give a key a value."""
        self._store.write(self._live(), key, value)

    def commit(self) -> bool:
        """Do the next step of the commit."""
        attempt = self._live()
        is_done = False
        try:
            is_done = self._store.commit(attempt)
        except RefusedError:
            is_done = True
            raise
        finally:
            if is_done:
                self._end()
        return is_done

    def abort(self) -> None:
        """End the transaction without effect."""
        self._store.abort(self._live())
        self._end()

    def _value(self, attempt: Attempt, key: str) -> Value:
        own = self._store.own(attempt, key)
        return self._store.read(attempt, key) if own is None else own

    def _live(self) -> Attempt:
        if self._attempt is None or self._attempt not in self._store.attempts:
            raise StoppedError("the store stopped since this transaction began")
        return self._attempt

    def _end(self) -> None:
        self._store.attempts.remove(self._live())
        self._attempt = None


class NoValidation(Model):
    """Every transaction commits."""

    def conflicts(self, attempt: Attempt) -> bool:
        return False


class LostUpdate(Model):
    """What a transaction writes itself is not validated."""

    def validated(self, attempt: Attempt) -> Iterable[str]:
        return set(super().validated(attempt)) - set(attempt.writes)


class StaleSnapshot(Model):
    """A transaction reads from an older snapshot than the one it is validated against."""

    def begin(self, isolation: Isolation, site: int, *, read_only: bool) -> Attempt:
        attempt = super().begin(isolation, site, read_only=read_only)
        attempt.snapshot = max(0, self.last - self.rng.randrange(4))
        return attempt


class FracturedRead(Model):
    """A commit is shown by halves."""

    slowness: ClassVar[float] = 0.8

    def begin(self, isolation: Isolation, site: int, *, read_only: bool) -> Attempt:
        self.bites += read_only and self.committing is not None and len(self.committing.writes) > 1
        return super().begin(isolation, site, read_only=read_only)

    def prepare(self, attempt: Attempt) -> None:
        super().prepare(attempt)
        names = list(attempt.writes)
        half = {key: attempt.writes[key] for key in names[: (len(names) + 1) // 2]}
        self._show(attempt.number, half, attempt.site)

    def finish(self, attempt: Attempt) -> None:
        names = list(attempt.writes)
        rest = {key: attempt.writes[key] for key in names[(len(names) + 1) // 2 :]}
        self._show(attempt.number, rest, attempt.site)


class VisibleBeforeLogged(Model):
    """A commit is shown, and logged afterwards."""

    slowness: ClassVar[float] = 0.8

    def __init__(self, kind: Kind, rng: Random) -> None:
        super().__init__(kind, rng)
        self._told = 0
        """The commit under way that a client was told of."""

    def read(self, attempt: Attempt, key: str) -> Value:
        found = [number for number, _ in self.versions.get(key, []) if number <= attempt.snapshot]
        if self.committing and found and found[-1] == self.committing.number:
            attempt.saw_unlogged = found[-1]
        return super().read(attempt, key)

    def commit(self, attempt: Attempt) -> bool:
        is_done = super().commit(attempt)
        if is_done and attempt.saw_unlogged:
            self._told = attempt.saw_unlogged
        return is_done

    def crash(self) -> None:
        self.bites += self.committing is not None and self.committing.number == self._told
        self._told = 0
        super().crash()

    def prepare(self, attempt: Attempt) -> None:
        super().finish(attempt)

    def finish(self, attempt: Attempt) -> None:
        super().prepare(attempt)


class CollectedVersion(Model):
    """Versions that a reader needs are dropped."""

    def read(self, attempt: Attempt, key: str) -> Value:
        found = self.versions.get(key, [])
        oldest = self._oldest.get(key, attempt.snapshot + 1)
        self.bites += oldest <= attempt.snapshot < found[0][0] if found else 0
        return super().read(attempt, key)

    def __init__(self, kind: Kind, rng: Random) -> None:
        super().__init__(kind, rng)
        self._oldest: dict[str, int] = {}
        """Of each key the first version that there was."""

    def finish(self, attempt: Attempt) -> None:
        super().finish(attempt)
        for key, found in self.versions.items():
            self._oldest.setdefault(key, found[0][0])
            if self.rng.random() < 0.5:
                del found[:-1]


class DirtyRead(Model):
    """A transaction sees what others have not committed yet."""

    def read(self, attempt: Attempt, key: str) -> Value:
        others = [one for one in self.attempts if one is not attempt and key in one.writes]
        if others and self.rng.random() < 0.3:
            self.bites += 1
            return others[-1].writes[key]
        return super().read(attempt, key)

    def keys_seen(self, attempt: Attempt, lower: str, upper: str) -> list[str]:
        found = set(super().keys_seen(attempt, lower, upper))
        for one in self.attempts:
            found.update(key for key in one.writes if lower <= key < upper)
        return sorted(found)


class DirtyWrite(Model):
    """A transaction writes in place, and undoes that when it is aborted.

    What counts is that one commits which has read what another one undid, before or after.
    """

    def __init__(self, kind: Kind, rng: Random) -> None:
        super().__init__(kind, rng)
        self._writers: dict[str, Attempt] = {}
        """Of each key who wrote what is there, if that is not undone."""
        self._undone: list[Attempt] = []
        self._ended: list[Attempt] = []
        """Those that committed."""

    def read(self, attempt: Attempt, key: str) -> Value:
        writer = self._writers.get(key)
        if writer is not None and writer is not attempt:
            attempt.sources.append(writer)
        return self.value(key)

    def value(self, key: str) -> Value:
        found = self.versions.get(key)
        return found[-1][1] if found else self.absent

    def own(self, attempt: Attempt, key: str) -> Value | None:
        return None

    def write(self, attempt: Attempt, key: str, value: Value) -> None:
        attempt.before.setdefault(key, self.value(key))
        attempt.writes[key] = value
        self.versions[key] = [(self.last, value)]
        self._writers[key] = attempt

    def conflicts(self, attempt: Attempt) -> bool:
        return False

    def is_let_through(self, attempt: Attempt) -> bool:
        return False

    def commit(self, attempt: Attempt) -> bool:
        is_done = super().commit(attempt)
        if is_done:
            self._ended.append(attempt)
            self.bites += any(source in self._undone for source in attempt.sources)
        return is_done

    def finish(self, attempt: Attempt) -> None:
        self.last = attempt.number

    def abort(self, attempt: Attempt) -> None:
        for key, value in attempt.before.items():
            self.versions[key] = [(self.last, value)]
            self._writers.pop(key, None)
        self._undone.append(attempt)
        self.bites += any(attempt in one.sources for one in self._ended)


class WriteSkew(Model):
    """Only what was written is validated, whatever was asked for."""

    def validated(self, attempt: Attempt) -> Iterable[str]:
        return set(attempt.writes)


class Phantom(Model):
    """Of a range only the keys that were there are validated."""

    def validated(self, attempt: Attempt) -> Iterable[str]:
        keys = set(attempt.writes) | attempt.reads
        for lower, upper in attempt.ranges:
            keys.update(
                key
                for key in self.versions
                if lower <= key < upper and self.read(attempt, key) != self.absent
            )
        return keys


class LongFork(Model):
    """Each of two sites sees its own commits at once, and those of the other site later."""

    def __init__(self, kind: Kind, rng: Random) -> None:
        super().__init__(kind, rng)
        self._horizons = [0] * SITES
        """Up to these commits a site sees those of the other one."""

    def begin(self, isolation: Isolation, site: int, *, read_only: bool) -> Attempt:
        attempt = super().begin(isolation, site, read_only=read_only)
        late = max(0, self.last - self.rng.randrange(6))
        self._horizons[site] = attempt.horizon = max(self._horizons[site], late)
        # Readers of both sites that miss each other's newest commits are what a fork needs.
        hidden = set(self.sites[attempt.horizon + 1 :])
        self.bites += read_only and len(hidden) == SITES
        return attempt

    def is_seen(self, attempt: Attempt, number: int) -> bool:
        is_own = self.sites[number] == attempt.site
        return number <= (attempt.snapshot if is_own else attempt.horizon)

    def read(self, attempt: Attempt, key: str) -> Value:
        for number, value in reversed(self.versions.get(key, [])):
            if self.is_seen(attempt, number):
                return value
        return self.absent

    def is_newer(self, attempt: Attempt, key: str) -> bool:
        return any(not self.is_seen(attempt, number) for number, _ in self.versions.get(key, []))


class RealTime(Model):
    """Read-only transactions begin at an old snapshot."""

    def begin(self, isolation: Isolation, site: int, *, read_only: bool) -> Attempt:
        attempt = super().begin(isolation, site, read_only=read_only)
        if read_only:
            attempt.snapshot = max(0, self.last - self.rng.randrange(6))
        return attempt

    def read(self, attempt: Attempt, key: str) -> Value:
        found = [number for number, _ in self.versions.get(key, []) if number <= attempt.horizon]
        self.bites += bool(found) and found[-1] > attempt.snapshot
        return super().read(attempt, key)


class OwnWrites(Model):
    """A transaction does not see what it wrote, now and then."""

    def own(self, attempt: Attempt, key: str) -> Value | None:
        seen = super().own(attempt, key)
        if seen is None or self.rng.random() < 0.7:
            return seen
        self.bites += 1
        return None


class HalfAbort(Model):
    """An abort leaves one of the writes."""

    def abort(self, attempt: Attempt) -> None:
        for key, value in list(attempt.writes.items())[:1]:
            if self.committing is None:
                entry = Entry(self.last + 1, {key: value}, attempt.site)
                self.log.append(entry)
                self._show(*entry)
                self.bites += 1


class ReplayedTwice(Model):
    """Recovery appends what the last commits appended once more."""

    def crash(self) -> None:
        super().crash()
        for entry in self.log[-3:]:
            for key in entry.writes:
                value = self.versions[key][-1][1]
                if isinstance(value, tuple):
                    twice = (*value, *value[-1:])
                    self.versions[key][-1] = (self.versions[key][-1][0], twice)
                    self.bites += 1


class TornValue(Model):
    """A read returns what nobody wrote, now and then."""

    def read(self, attempt: Attempt, key: str) -> Value:
        value = super().read(attempt, key)
        if value == self.absent or self.rng.random() < 0.97:
            return value
        self.bites += 1
        return (*value[:-1], -value[-1]) if isinstance(value, tuple) else -value


class Fault(NamedTuple):
    """What a broken model is known to do."""

    model: type[Model]
    isolation: Isolation
    """What its clients ask for."""
    append: frozenset[str]
    """Kinds of anomalies, at least one of which shows in an append history."""
    rmw: frozenset[str]
    """The same of a read-modify-write history; of none, the fault does not show there."""
    keeps: frozenset[str] = frozenset()
    """The levels that its histories keep nevertheless."""
    crashes: float = 0.0
    bites: int = 12
    """A history goes on until the fault has changed so many answers."""
    load: Load = Load(kind="append", keys=6)


def _kinds(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


_WEAK = frozenset((READ_COMMITTED,))
_SNAPSHOTS = frozenset((READ_COMMITTED, SNAPSHOT, STRONG_SNAPSHOT))
_TIMELESS = frozenset((READ_COMMITTED, SNAPSHOT, SERIALIZABLE))

_SCANS = Load(kind="append", keys=6, scans=0.8, drift=3)
_READERS = Load(kind="append", keys=3, read_only=0.5, steps_max=6)

FAULTS: dict[str, Fault] = {
    "no validation": Fault(
        NoValidation,
        "serializable",
        _kinds("lost update, incompatible order, G-single-realtime, G-single"),
        _kinds("lost update"),
    ),
    "lost update": Fault(
        LostUpdate,
        "serializable",
        _kinds("lost update, incompatible order, G-single-realtime, G-single"),
        _kinds("lost update"),
    ),
    "stale snapshot": Fault(
        StaleSnapshot,
        "snapshot",
        _kinds("lost update, incompatible order, G-single-realtime, G-single"),
        _kinds("lost update, no strong snapshot order"),
    ),
    "fractured read": Fault(
        FracturedRead,
        "snapshot",
        _kinds("fractured read, non-repeatable read"),
        _kinds("no snapshot order, non-repeatable read, lost update"),
        bites=20,
        load=_READERS,
    ),
    "visible before logged": Fault(
        VisibleBeforeLogged,
        "serializable",
        _kinds("incompatible order, G-single-realtime, G1c-realtime, lost update"),
        _kinds("lost update, no strict serial order, no serial order"),
        crashes=0.03,
        bites=1,
    ),
    "live version collected": Fault(
        CollectedVersion,
        "snapshot",
        _kinds("fractured read, non-repeatable read, G-single, G-single-realtime"),
        _kinds("no snapshot order, non-repeatable read, no strong snapshot order"),
    ),
    "dirty read": Fault(
        DirtyRead,
        "serializable",
        _kinds("G1a, G1b, G1c"),
        _kinds("G1a, G1b, no read committed order"),
        bites=30,
    ),
    "dirty write": Fault(
        DirtyWrite,
        "serializable",
        _kinds("G0, G1a, G1b, G1c, incompatible order"),
        _kinds("G1a, G1b, no read committed order, own write not seen"),
        bites=6,
    ),
    "write skew": Fault(
        WriteSkew,
        "serializable",
        _kinds("write skew, G2, phantom"),
        _kinds("no serial order"),
        _SNAPSHOTS,
        bites=3,
    ),
    "phantom": Fault(
        Phantom,
        "serializable",
        _kinds("phantom"),
        _kinds("no serial order"),
        _SNAPSHOTS,
        bites=3,
        load=_SCANS,
    ),
    "long fork": Fault(
        LongFork,
        "snapshot",
        _kinds("long fork, G-nonadjacent"),
        _kinds("no snapshot order"),
        _WEAK,
        bites=50,
        load=_READERS,
    ),
    "real time": Fault(
        RealTime,
        "serializable",
        _kinds("G-single-realtime, G-nonadjacent-realtime"),
        _kinds("no strict serial order"),
        _TIMELESS,
    ),
    "own writes unseen": Fault(
        OwnWrites, "snapshot", _kinds("own write not seen"), _kinds("own write not seen")
    ),
    "half an abort": Fault(HalfAbort, "snapshot", _kinds("G1a"), _kinds("G1a")),
    "replayed twice": Fault(
        ReplayedTwice, "snapshot", _kinds("duplicated element"), frozenset(), crashes=0.01
    ),
    "torn value": Fault(
        TornValue, "snapshot", _kinds("unwritten value"), _kinds("unwritten value")
    ),
}

PROMISED: dict[Isolation, str] = {"serializable": STRICT, "snapshot": STRONG_SNAPSHOT}
"""The level that a right store keeps for those who ask for an isolation."""


def fault_kinds(fault: Fault, kind: Kind) -> frozenset[str]:
    """Return the kinds of anomalies that are expected in a history of this kind."""
    return fault.append if kind == "append" else fault.rmw


def broken_history(name: str, kind: Kind, seed: int) -> tuple[History, int]:
    """Return a history of a broken model, and how often its fault changed what happened."""
    fault = FAULTS[name]
    rng = Random(f"{name} {kind} {seed}")
    store = fault.model(kind, rng)
    load = replace(fault.load, kind=kind, isolation=fault.isolation)
    history = run_steps(
        store,
        load,
        rng,
        clients=rng.randint(4, 6),
        count=COUNT_MOST,
        crashes=fault.crashes,
        is_enough=lambda: store.bites >= fault.bites,
    )
    return history, store.bites
