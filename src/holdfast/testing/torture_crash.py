"""Torture by power cuts in the simulator, and by SIGKILL on the disk of this machine."""

from __future__ import annotations

import os

from holdfast.testing.crash import Explorer, Options, Outcome, Verdicts, record, replay
from holdfast.testing.exhaustive import LENGTH, count, explore, letters_of
from holdfast.testing.kills import KILLS_PER_LIFE, KillReport, run_life
from holdfast.testing.oracle import WorkloadError, Wrap
from holdfast.testing.torture_part import Failure, Figures, Part, bounded
from holdfast.testing.workload import CANONICAL, workload

DISKS = ("posix-min", "ext4-ordered", "xfs-delalloc", "cow-btrfs", "nvme-4k")
"""The profiles of disks that keep what they acknowledge."""

CONTENTS = 400
"""How many contents of a workload are opened at its first turn, unless more are needed to cover all
boundaries and keys; at each later one twice as many.
"""

CONTENTS_MAX = 50_000
NESTED = 20
"""How many crashes inside the recovery from each content, besides the first of each key."""

_LOST = "was acknowledged as durable"


def pair_of(item: int) -> tuple[str, str]:
    """Return the workload and the disk of an item: every pair comes once in a turn."""
    names, disks = len(CANONICAL), len(DISKS)
    # Both change from item to item, and after `names` items the disks are shifted by one.
    return CANONICAL[item % names], DISKS[(item + item // names) % disks]


class CrashPart(Part):
    """Item K is a sample of the crash states of a canonical workload on a disk, turn by turn.

    A turn has each workload on each disk. It covers every boundary and every key that is seen; each
    turn has other seeds, and runs more of each workload than the one before.
    """

    name = "crash"

    def __init__(self, seed: int, wrap: Wrap, contents: int = CONTENTS) -> None:
        self.failures: list[Failure] = []
        self.totals: dict[str, Outcome] = {}
        """By disk."""
        self._seed = seed
        self._wrap = wrap
        self._contents = contents
        self._done = 0
        self._seconds = 0.0
        self._boundaries = 0
        self._crashed_at = 0
        self._crashed_on = dict.fromkeys(DISKS, 0)
        self._lost = 0
        self._verdicts = Verdicts()

    @property
    def trials(self) -> int:
        """How many different contents were opened and judged."""
        return sum(total.distinct for total in self.totals.values())

    def step(self) -> None:
        item, self._done = self._done, self._done + 1
        name, disk = pair_of(item)
        turn = item // (len(CANONICAL) * len(DISKS))
        options = Options(
            limit=min(self._contents << turn, CONTENTS_MAX),
            nested_sample=NESTED,
            profile=disk,
            cover=True,
        )
        self._explore(name, self._seed + turn, options)

    def _explore(self, name: str, seed: int, options: Options) -> None:
        try:
            outcome = Explorer(workload(name, seed), options, self._wrap, self._verdicts).run()
        except WorkloadError as error:
            self._fail(name, seed, options.profile, "", (str(error),))
            return
        total = self.totals.setdefault(options.profile, Outcome(options.profile, seed))
        self._boundaries += outcome.boundaries
        self._crashed_at += len(outcome.crashed_at)
        self._crashed_on[options.profile] += len(outcome.crashed_at)
        total.boundaries += outcome.boundaries
        outcome.boundaries, outcome.crashed_at = 0, set()
        self._seconds += outcome.seconds
        total.add(outcome)
        for failure in outcome.failures:
            self._fail(name, seed, options.profile, failure.path, failure.complaints)

    def _fail(
        self, name: str, seed: int, disk: str, path: str, complaints: tuple[str, ...]
    ) -> None:
        self._lost += any(_LOST in line for line in complaints)
        item = ",".join((name, str(seed), disk, path))
        self.failures.append(Failure(self.name, item, complaints))

    def replay(self, item: str) -> None:
        name, seed, disk, path = item.split(",")
        try:
            if path:
                _, complaints = replay(name, int(seed), path, disk, self._wrap)
            else:
                record(workload(name, int(seed)), disk, self._wrap)
                complaints = []
        except WorkloadError as error:
            complaints = [str(error)]
        if complaints:
            self._fail(name, int(seed), disk, path, tuple(complaints))

    def figures(self) -> Figures:
        every = Outcome("all", self._seed)
        for total in self.totals.values():
            every.add(total)
        return {
            "workloads and disks run": self._done,
            "boundaries seen": self._boundaries,
            "boundaries with a crash": self._crashed_at,
            "crash states run": every.states,
            "of these inside a recovery (depth 2)": every.nested,
            "different contents opened and judged": every.distinct,
            "(call site, class, depth) keys seen": len(every.keys_seen),
            "(call site, class, depth) keys run": len(every.keys_covered),
            "acknowledged commits at stake, over all states": every.acknowledged,
            "crashes that lost an acknowledged commit": self._lost,
            "crash states in a second": round(every.states / max(self._seconds, 1e-9)),
            "seconds in crashes": round(self._seconds, 1),
        }

    def tables(self) -> dict[str, list[list[str]]]:
        rows = [["disk", "boundaries", "states", "nested", "contents", "keys", "failures"]]
        for disk, total in sorted(self.totals.items()):
            keys = f"{len(total.keys_covered)}/{len(total.keys_seen)}"
            boundaries = f"{self._crashed_on[disk]}/{total.boundaries}"
            counts = (total.states, total.nested, total.distinct)
            rows.append([disk, boundaries, *map(str, counts), keys, str(len(total.failures))])
        return {"Crash states by disk": rows}


class ExhaustivePart(Part):
    """Item K is workload K of all of up to four operations, cut off at every boundary.

    When all were run it goes on with the next disk, and then with the next seed.
    """

    name = "exhaustive"

    def __init__(self, seed: int, wrap: Wrap, first: int = 0) -> None:
        self.failures: list[Failure] = []
        self.total = Outcome("exhaustive", seed)
        self._seed = seed
        self._wrap = wrap
        self._first = self._next = first
        self._boundaries = 0
        self._lost = 0
        self._seconds = 0.0
        self._verdicts = Verdicts()

    @property
    def trials(self) -> int:
        """How many different contents were opened and judged."""
        return self.total.distinct

    def step(self) -> None:
        item, self._next = self._next, self._next + 1
        self._explore(item)

    def replay(self, item: str) -> None:
        self._explore(int(item))

    def _explore(self, item: int) -> None:
        turn, index = divmod(item, count())
        seed, disk = self._seed + turn // len(DISKS), DISKS[turn % len(DISKS)]
        try:
            outcome = explore(
                index, self._verdicts, Options(depth=1, profile=disk), seed, self._wrap
            )
        except WorkloadError as error:
            self._fail(item, f"{letters_of(index)}: {error}")
            return
        self._boundaries += outcome.boundaries
        self._seconds += outcome.seconds
        self.total.add(outcome)
        for failure in outcome.failures:
            for line in failure.complaints:
                self._fail(item, f"{letters_of(index)}, {failure.path}: {line}")

    def _fail(self, item: int, complaint: str) -> None:
        self._lost += _LOST in complaint
        self.failures.append(Failure(self.name, str(item), (complaint,)))

    def figures(self) -> Figures:
        total = self.total
        return {
            f"workloads of up to {LENGTH} operations": count(),
            "workloads run, of all disks": self._next - self._first,
            "first item": self._first,
            "next item": self._next,
            "boundaries seen": self._boundaries,
            "boundaries with a crash": len(total.crashed_at),
            "crash states run": total.states,
            "different contents opened and judged": total.distinct,
            "(call site, class, depth) keys seen": len(total.keys_seen),
            "(call site, class, depth) keys run": len(total.keys_covered),
            "crashes that lost an acknowledged commit": self._lost,
            "crash states in a second": round(total.states / max(self._seconds, 1e-9)),
        }

    def tables(self) -> dict[str, list[list[str]]]:
        return {}


class KillsPart(Part):
    """Item K is a life of a database whose writers are killed again and again."""

    name = "kills"

    def __init__(self, seed: int, folder: str, kills: int = KILLS_PER_LIFE) -> None:
        self.failures: list[Failure] = []
        self.report = KillReport()
        self._seed = seed
        self._folder = os.path.join(folder, "kills")
        self._kills = kills
        self._done = 0

    def step(self) -> None:
        item, self._done = self._done, self._done + 1
        self._live(item)

    def replay(self, item: str) -> None:
        self._live(int(item))

    def _live(self, index: int) -> None:
        with bounded(10 * 60):
            report = run_life(self._folder, seed=self._seed, index=index, kills=self._kills)
        total = self.report
        total.kills += report.kills
        total.finished += report.finished
        total.moments += report.moments
        total.acknowledged += report.acknowledged
        total.lives += report.lives
        total.recovery_seconds += report.recovery_seconds
        if report.failures:
            self.failures.append(Failure(self.name, str(index), tuple(report.failures)))

    def figures(self) -> Figures:
        report = self.report
        times = sorted(report.recovery_seconds) or [0.0]
        return {
            "kills": report.kills,
            "signals that came too late": report.finished,
            **{f"kills {moment}": count for moment, count in sorted(report.moments.items())},
            "databases killed": report.lives,
            "acknowledged batches checked after a kill": report.acknowledged,
            "reopening after a kill, median ms": round(times[len(times) // 2] * 1e3, 1),
            "reopening after a kill, most ms": round(times[-1] * 1e3, 1),
        }

    def tables(self) -> dict[str, list[list[str]]]:
        return {}
