"""Torture by every I/O error: each call of small workloads fails in each way, once and for ever.

A workload runs once untouched, which counts its calls. A *point* is a workload, a way to fail and
the number of the call that fails: what the untouched run counted is all that there is, since runs
are the same up to the call that fails. So the points can be numbered, and a run can say how many of
them it tried. After the last one the same is done with another seed.

The workloads: those of `workload` but for the drawn one, and one that begins with what a power cut
left, so that every call of a recovery that has a log to replay fails too. Those of several clients
are a part of their own (see torture_clients).

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from random import Random

from holdfast.env import FAILED_SYNCS, CrashPoint, FaultRule, SimEnv
from holdfast.testing.clients import Clients
from holdfast.testing.crash import same_machine
from holdfast.testing.oracle import History, Wrap, abandon
from holdfast.testing.torture_clients import ClientTrial
from holdfast.testing.torture_part import Failure, Figures, Part, bounded
from holdfast.testing.torture_trial import (
    CHANGES,
    DESCRIPTORS,
    KINDS,
    FaultySession,
    KindsRule,
    Start,
    Trial,
    watching,
)
from holdfast.testing.workload import SEQUENTIAL, TINY, Flush, Put, Workload, sequential

CLIENT_WORKLOADS = {
    "clients": (2, 6, 60),
    "clients_large": (3, 5, 900),
    "clients_many": (4, 4, 200),
}
"""By name, how many clients commit how often values of how many bytes."""

CUT_BYTES = 40
"""What a write that is cut short still does: half a header of a record."""

RECOVERY = "recovery"
WORKLOADS = (*(name for name in SEQUENTIAL if name != "mixed"), RECOVERY)
ONCE, EVER = "once", "from then on"
LYING = "ext4-journal"
"""The way in which a sync claims success."""

_STRIDE = 0.6180339887
"""Points are tried in an order that goes over all of them evenly, however few there is time for."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way for a call to fail."""

    name: str
    kinds: frozenset[str]
    """What it happens to."""
    rules: Callable[[int, int | None, Sequence[str]], list[FaultRule]]
    """Makes the rules by which the call of this number fails, as often as asked; given all calls of
    the run.
    """
    modes: tuple[str, ...] = (ONCE, EVER)


@dataclass(frozen=True, slots=True)
class Point:
    """A call of a workload, and how it fails."""

    work: Workload | Clients
    start: Start | None
    calls: tuple[str, ...]
    """The kinds of all calls of the workload."""
    way: Way
    mode: str
    nth: int


def _failing(code: int, group: str) -> Way:
    def rules(nth: int, times: int | None, calls: Sequence[str]) -> list[FaultRule]:
        return [KindsRule(kind=group, nth=nth, times=times, error=code)]

    return Way(f"{group} fail, {errno.errorcode[code]}", KINDS[group], rules)


def _opening(code: int) -> Way:
    def rules(nth: int, times: int | None, calls: Sequence[str]) -> list[FaultRule]:
        return [FaultRule(kind="open", nth=nth, times=times, error=code)]

    return Way(f"open fails, {errno.errorcode[code]}", frozenset(("open",)), rules)


def _cut_short(code: int) -> Way:
    def rules(nth: int, times: int | None, calls: Sequence[str]) -> list[FaultRule]:
        return [FaultRule(kind="write", nth=nth, times=times, error=code, partial=CUT_BYTES)]

    return Way(f"write cut short, {errno.errorcode[code]}", frozenset(("write",)), rules)


def _failed_sync(name: str) -> Way:
    make = FAILED_SYNCS[name]

    def rules(nth: int, times: int | None, calls: Sequence[str]) -> list[FaultRule]:
        return [make(nth=nth, times=times)]

    kind = "write" if name == "write-back" else "sync"
    return Way(f"failed sync, {name}", frozenset((kind,)), rules)


def _aborted_journal() -> Way:
    """Return what ext4 and XFS do when their journal cannot be written: nothing can be changed any
    more until the next mount.
    """

    def rules(nth: int, times: int | None, calls: Sequence[str]) -> list[FaultRule]:
        changes = [kind for kind in calls if kind in CHANGES]
        syncs = [index for index, kind in enumerate(changes, 1) if kind in KINDS["syncs"]]
        return [
            KindsRule(kind="syncs", nth=nth),
            KindsRule(kind="changes", nth=syncs[nth - 1] + 1, times=None, error=errno.EROFS),
        ]

    return Way("failed sync, read-only ever after", KINDS["syncs"], rules, (EVER,))


ERROR_WAYS = (
    *(
        _failing(code, "changes")
        for code in (
            errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EINTR,
        )
    ),
    *(_failing(code, "reads") for code in (errno.EIO, errno.EINTR)),
    *map(_opening, DESCRIPTORS),
    *map(_cut_short, (errno.EIO, errno.ENOSPC)),
)  # fmt: skip
SYNC_WAYS = (*map(_failed_sync, FAILED_SYNCS), _aborted_journal())


def crashed_start(seed: int) -> tuple[Workload, Start]:
    """Return a disk after a power cut, whose log has commits of two keyspaces to replay, and a
    workload that goes on there.
    """
    before = sequential("memtable_rotation", seed)
    machine = SimEnv(seed)
    history = History()
    session = FaultySession(machine, history, before.settings)
    session.open()
    for step in (*before.steps, Put(b"last", "other")):
        session.run(step)
    state = CrashPoint(machine).state("none")
    abandon(machine, session.handle)
    after = (Put(b"new"), Put(b"unsynced", durability="none"), Flush(), Put(b"newer", "other"))
    return Workload(RECOVERY, seed, after, TINY), Start(state, history)


CLIENT_WAYS = (
    *(_failing(code, "changes") for code in (errno.EIO, errno.ENOSPC, errno.EMFILE)),
    *map(_cut_short, (errno.EIO, errno.ENOSPC)),
    *(_failed_sync(name) for name in FAILED_SYNCS if name != LYING),
    _aborted_journal(),
)


def client_work(name: str, seed: int) -> Clients:
    """Return a workload of several clients. Raises: KeyError when there is none of this name."""
    clients, turns, value_bytes = CLIENT_WORKLOADS[name]
    return Clients(name, seed, TINY, clients, turns, value_bytes)


def calls_of(work: Workload | Clients, start: Start | None) -> tuple[str, ...]:
    """Return the kinds of all calls of a workload that nothing disturbs.

    Raises: AssertionError when something is wrong all the same.
    """
    noted: list[str] = []
    rule = watching(lambda kind, site, path: noted.append(kind))
    trial = _trial_of(work, [rule], Random(work.seed), same_machine, start)
    trial.run()
    if trial.complaints:
        raise AssertionError(f"{work.name}, untouched: {trial.complaints}")
    return tuple(noted)


def _work_of(name: str, seed: int) -> tuple[Workload | Clients, Start | None]:
    if name == RECOVERY:
        return crashed_start(seed)
    return client_work(name, seed) if name in CLIENT_WORKLOADS else sequential(name, seed), None


def points_of(ways: Sequence[Way], seed: int, names: Sequence[str] = WORKLOADS) -> list[Point]:
    """Return all points of the workloads. Raises: AssertionError when an untouched run fails."""
    points: list[Point] = []
    for name in names:
        work, start = _work_of(name, seed)
        calls = calls_of(work, start)
        for way in ways:
            count = sum(kind in way.kinds for kind in calls)
            points += [
                Point(work, start, calls, way, mode, nth)
                for mode in way.modes
                for nth in range(1, count + 1)
            ]
    return points


def scattered(index: int, count: int) -> int:
    """Return the place of step `index` in an order that visits each of `count` places once."""
    stride = max(1, int(count * _STRIDE))
    while gcd(stride, count) != 1:
        stride += 1
    return index * stride % count


class PointsPart(Part):
    """Item K is point K, in the order of `scattered`. It is done when all of the seed were tried;
    the items behind them are those of the next seeds.
    """

    def __init__(
        self,
        name: str,
        ways: Sequence[Way],
        seed: int,
        wrap: Wrap,
        workloads: Sequence[str] = WORKLOADS,
    ) -> None:
        self.name = name
        self.failures: list[Failure] = []
        self.runs: Counter[tuple[str, str]] = Counter()
        """By way, and what there was of it."""
        self._ways = ways
        self._seed = seed
        self._wrap = wrap
        self._workloads = workloads
        self._lists: list[list[Point]] = []
        self._done = 0
        self._tried: set[int] = set()

    @property
    def is_done(self) -> bool:
        """Whether every point of the seed was tried."""
        return len(self._tried) == len(self.points())

    def points(self, turn: int = 0) -> list[Point]:
        """Return the points of the seed that is this turn's."""
        while len(self._lists) <= turn:
            self._lists.append(
                points_of(self._ways, self._seed + len(self._lists), self._workloads)
            )
        return self._lists[turn]

    def step(self) -> None:
        """Try the next point."""
        item, self._done = self._done, self._done + 1
        self._do(item)

    def replay(self, item: str) -> None:
        """Try one point again."""
        self._do(int(item))

    def _do(self, item: int) -> None:
        turn, index = 0, item
        while index >= len(self.points(turn)):
            index -= len(self.points(turn))
            turn += 1
        points = self.points(turn)
        point = points[scattered(index, len(points))]
        if turn == 0:
            self._tried.add(index)
        trial = run_point(point, self._wrap, Random(f"{self._seed}/{self.name}/{item}"))
        name = point.way.name
        self.runs[name, "runs"] += 1
        self.runs[name, "poisoned"] += trial.poisoned
        self.runs[name, "lost"] += bool(trial.losses)
        self.runs[name, "errors"] += trial.env.injected
        if trial.complaints:
            title = f"{point.work.name} seed {point.work.seed}: {name}, {point.mode}, {point.nth}"
            self.failures.append(Failure(self.name, str(item), (title, *trial.complaints)))

    def figures(self) -> Figures:
        """Return what was done so far."""
        count = len(self.points())
        totals = Counter[str]()
        for (_, what), times in self.runs.items():
            totals[what] += times
        return {
            "points": count,
            "points tried": len(self._tried),
            "points tried, percent": round(100 * len(self._tried) / count, 2),
            "runs": totals["runs"],
            "errors injected": totals["errors"],
            "runs that poisoned": totals["poisoned"],
            "runs in which a sync lied and something was lost": totals["lost"],
        }

    def tables(self) -> dict[str, list[list[str]]]:
        """Return the runs by way."""
        lines = [["way to fail", "points", "runs", "poisoned", "lost by a lie"]]
        for way in self._ways:
            count = sum(point.way is way for point in self.points())
            cells = [count, *(self.runs[way.name, what] for what in ("runs", "poisoned", "lost"))]
            lines.append([way.name, *map(str, cells)])
        return {f"Every call fails ({self.name})": lines}


def _trial_of(
    work: Workload | Clients,
    rules: Sequence[FaultRule],
    rng: Random,
    wrap: Wrap,
    start: Start | None,
    *,
    lasting: bool = False,
    lying: bool = False,
) -> Trial | ClientTrial:
    if isinstance(work, Clients):
        return ClientTrial(work, rules, rng, wrap)
    return Trial(work, rules, rng, wrap, start=start, lasting=lasting, lying=lying)


def run_point(point: Point, wrap: Wrap, rng: Random) -> Trial | ClientTrial:
    """Run the workload of a point, and judge it."""
    times = 1 if point.mode == ONCE else None
    rules = point.way.rules(point.nth, times, point.calls)
    trial = _trial_of(
        point.work,
        rules,
        rng,
        wrap,
        point.start,
        lasting=times is None and point.way.kinds <= CHANGES,
        lying=point.way.name.endswith(LYING),
    )
    try:
        with bounded():
            trial.run()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  whatever comes out is a finding
        trial.complaints.append(f"{type(error).__name__}: {error}")
    if not trial.env.injected:
        trial.complaints.append("the call that was to fail was not reached")
    return trial


def errors_part(seed: int, wrap: Wrap) -> PointsPart:
    """Return the part that fails every call."""
    return PointsPart("errors", ERROR_WAYS, seed, wrap)


def syncs_part(seed: int, wrap: Wrap) -> PointsPart:
    """Return the part that fails every sync, with what it does to the disk and to the cache."""
    return PointsPart("syncs", SYNC_WAYS, seed, wrap)


def clients_part(seed: int, wrap: Wrap) -> PointsPart:
    """Return the part that fails calls and syncs while several clients commit at once."""
    return PointsPart("clients", CLIENT_WAYS, seed, wrap, tuple(CLIENT_WORKLOADS))
