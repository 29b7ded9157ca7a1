"""Torture by I/O errors and failed syncs, and by the fuzz targets.

A workload runs with one rule by which calls fail. When the first error reaches the client, reads
must go on; a crash at that moment, a close, and another open without faults must each leave a state
that is allowed: nothing that was acknowledged as durable is lost, and what was refused for want of
room does not come back. Every error must be told, or be one that the database handles itself.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from random import Random

import holdfast
from holdfast.engine import Database
from holdfast.env import (
    FAILED_SYNCS,
    CrashPoint,
    Fault,
    FaultEnv,
    FaultRule,
    SimEnv,
)
from holdfast.testing.crash import same_machine
from holdfast.testing.oracle import ABSENT, History, Wrap, abandon, content, examine
from holdfast.testing.torture_part import Failure, Figures, bounded
from holdfast.testing.workload import (
    CANONICAL,
    Session,
    Step,
    Wait,
    Workload,
    WorkloadError,
    workload,
)

CODES = {
    code: errno.errorcode[code]
    for code in (
        errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EINTR,
    )
}  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT)
CHANGES = frozenset(
    ("create", "rename", "unlink", "make_dir", "sync_dir", "write", "allocate", "truncate", "sync")
)
READS = frozenset(("open", "read", "size", "file_size", "list_dir"))
SURVIVABLE = tuple(sorted(set(FAILED_SYNCS) - {"ext4-journal"}))
"""Ways for syncs to fail. The one that is left out says that the sync worked."""

_CALLS_MAX = 400
"""The call that fails is at most this one; a rule that no call reaches is counted as untouched."""


class _KindsRule(FaultRule):
    """A rule about several kinds of calls: `kind` is a name of them."""

    __slots__ = ()

    def matches(self, kind: str, site: str, path: str) -> bool:
        return kind in (CHANGES if self.kind == "changes" else READS)


def rule_of(rng: Random) -> tuple[str, FaultRule]:
    """Return a rule and what it does."""
    draw = rng.random()
    times = rng.choice((1, 1, 1, 3, None))
    often = {1: "once", 3: "thrice", None: "from then on"}[times]
    nth = int(_CALLS_MAX ** rng.random())
    if draw < 0.3:
        name = rng.choice(SURVIVABLE)
        return f"failed sync, {name}, {often}", FAILED_SYNCS[name](nth=nth, times=times)
    code = rng.choice(list(CODES))
    if draw < 0.45:
        partial = rng.choice((1, 8, 40, 79, 81, 300, 4096))
        rule = FaultRule(kind="write", nth=nth, times=times, error=code, partial=partial)
        return f"write cut short, {CODES[code]}, {often}", rule
    kind = "changes" if draw < 0.85 else "reads"
    rule = _KindsRule(kind=kind, nth=nth, times=times, error=code)
    return f"{kind} fail, {CODES[code]}, {often}", rule


def is_handled_inside(fault: Fault) -> bool:
    """Return whether no call need report this failure, because the database handles it itself."""
    if fault.kind in READS or fault.kind == "unlink":
        # Answers are compared; a file that is not removed is removed by the next open.
        return True
    if fault.error in FULL:
        return fault.site.startswith(("table.", "wal.segment.", "manifest."))
    return False


class FaultySession(Session):
    """A client whose calls may fail."""

    background_errors = 0

    def close(self) -> None:
        """Close; the handle is of no use afterwards, whatever comes of it."""
        try:
            super().close()
        except BaseException:
            with suppress(holdfast.Error, OSError):
                self.database.close()
            raise
        finally:
            self._database = None

    @property
    def handle(self) -> Database | None:
        """The database, if it is open."""
        return self._database

    def run(self, step: Step) -> None:
        """Run a step. What only time makes durable is durable when the background did its work."""
        durable = self.history.durable
        step.run(self)
        stats = self.database.stats()
        if stats.background_error is not None:
            self.background_errors += 1
        if isinstance(step, Wait) and (stats.poisoned or stats.background_error is not None):
            self.history.durable = durable


class Trial:
    """One run of a workload under a rule."""

    def __init__(self, work: Workload, rule: FaultRule, rng: Random, wrap: Wrap) -> None:
        self.complaints: list[str] = []
        self.machine = SimEnv(work.seed)
        self.env = FaultEnv(wrap(self.machine), [rule])
        self.history = History()
        self._work = work
        self._rng = rng
        self._session = FaultySession(self.env, self.history, work.settings)
        self._upper = 0
        self._told = False

    def run(self) -> None:
        """Run it, and judge it into `complaints`."""
        try:
            self._run()
        except WorkloadError as error:
            self.complaints.append(str(error))
        finally:
            abandon(self.machine, self._session.handle)

    def _run(self) -> None:
        try:
            self._session.open()
            for step in self._work.steps:
                self._session.run(step)
            self._session.check()
            self._session.close()
        except (holdfast.Error, OSError) as error:
            self._told = True
            self.env.clear()
            self._upper = self._bound(error)
        else:
            self._upper = self.history.submitted
        self.env.clear()
        database = self._session.handle
        lower = self.history.durable
        if database is not None:
            lower = self._go_on(database, lower)
        else:
            self._crash(lower)
        if self.machine.unreturned():
            self.complaints.append(f"after the end {self.machine.unreturned()}")
        is_told = self._told or self._session.background_errors > 0
        if not is_told and not all(map(is_handled_inside, self.env.faults)):
            self.complaints.append(f"nobody was told of {self.env.faults}")
        finding = examine(self.machine, self.history, same_machine)
        self._judge("an open without faults", finding.complaints, finding.numbers, lower)

    def _bound(self, error: Exception) -> int:
        """Return the last commit that may be found: one that was refused for want of room not."""
        submitted = self.history.submitted
        database = self._session.handle
        is_refused = isinstance(error, holdfast.DiskFullError)
        if is_refused and database is not None and not database.stats().poisoned:
            return submitted - 1 if self._is_commit_refused(database) else submitted
        return submitted

    def _is_commit_refused(self, database: Database) -> bool:
        """Return whether the error came of a commit, not of a flush behind it."""
        return content(database) == self.history.at(max(0, self.history.submitted - 1))

    def _go_on(self, database: Database, lower: int) -> int:
        """Read from a database that met an error, crash it in a copy, and close it.

        Returns the first commit that may be found after the close.
        """
        shown = self.history.numbers(content(database))
        if not any(self.history.submitted - 1 <= number for number in shown):
            self.complaints.append(f"after the error, reads show state {shown}")
        self._crash(lower)
        for name in list(self._session.snapshots):
            self._session.close_snapshot(name)
        try:
            database.close()
        except (holdfast.Error, OSError):
            self._told = True
            return lower
        return max(lower, min(shown, default=lower))

    def _crash(self, lower: int) -> None:
        """Cut the power, in copies of the machine."""
        point = CrashPoint(self.machine)
        states = [point.state("none"), point.state("all")]
        states += [*point.states(("random",), self._rng.randrange(1 << 16))][:2]
        for state in {state.content_hash: state for state in states}.values():
            machine = state.build()
            finding = examine(machine, self.history, same_machine, brief=True)
            machine.cut_power()
            when = f"a crash after the error, {state.name}"
            self._judge(when, finding.complaints, finding.numbers, lower)

    def _judge(
        self, when: str, complaints: Iterable[str], numbers: tuple[int, ...], lower: int
    ) -> None:
        self.complaints += [f"{when}: {line}" for line in complaints]
        if numbers and not any(lower <= number <= self._upper for number in numbers):
            bounds = f"{'no database' if lower == ABSENT else lower} to {self._upper}"
            self.complaints.append(f"{when}: found state {numbers}, allowed are {bounds}")


class FaultsPart:
    """Item K is one run of a workload under one rule."""

    name = "faults"

    def __init__(self, seed: int, wrap: Wrap) -> None:
        self.failures: list[Failure] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        """By rule and by whether it struck."""
        self.points: set[tuple[str, str, int | None]] = set()
        """Kind, call site and error of what failed."""
        self._seed = seed
        self._wrap = wrap
        self._done = 0
        self._injected = 0

    def step(self) -> None:
        item, self._done = self._done, self._done + 1
        self._do(item)

    def replay(self, item: str) -> None:
        self._do(int(item))

    def _do(self, item: int) -> None:
        rng = Random(f"{self._seed}/faults/{item}")
        work = workload(CANONICAL[item % len(CANONICAL)], self._seed + item // len(CANONICAL))
        what, rule = rule_of(rng)
        trial = Trial(work, rule, rng, self._wrap)
        try:
            with bounded():
                trial.run()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  whatever comes out is a finding
            trial.complaints.append(f"{type(error).__name__}: {error}")
        self._injected += trial.env.injected
        self.points |= {(fault.kind, fault.site, fault.error) for fault in trial.env.faults}
        self.counts[what, "struck" if trial.env.injected else "untouched"] += 1
        if trial.complaints:
            title = f"{work.name} seed {work.seed}: {what}, call {rule.nth}"
            self.failures.append(Failure(self.name, str(item), (title, *trial.complaints)))

    def figures(self) -> Figures:
        struck = {what: n for (what, how), n in self.counts.items() if how == "struck"}
        syncs = sum(count for what, count in struck.items() if what.startswith("failed sync"))
        return {
            "runs with an I/O error": sum(struck.values()) - syncs,
            "runs with a failed sync": syncs,
            "runs that the rule did not touch": sum(self.counts.values()) - sum(struck.values()),
            "errors injected": self._injected,
            "I/O error points (call, site, error)": len(self.points),
        }

    def tables(self) -> dict[str, list[list[str]]]:
        lines = [["fault", "runs"]]
        totals = Counter[str]()
        for (what, how), count in self.counts.items():
            totals[what.rpartition(",")[0]] += count if how == "struck" else 0
        lines += [[what, str(count)] for what, count in sorted(totals.items()) if count]
        return {"Runs by fault": lines}


# --- fuzz targets

FUZZ_MODULE = "holdfast.testing.fuzz"
_LINE = re.compile(r"executions +(\d+) .*findings (\d+)")


class FuzzPart:
    """Item K is some seconds of fuzz target K, in a process of its own."""

    name = "fuzz"

    def __init__(self, seed: int, folder: str, seconds: float = 5.0) -> None:
        self.failures: list[Failure] = []
        self._targets: list[str] = []
        if find_spec(FUZZ_MODULE) is not None:
            self._targets = list(import_module(FUZZ_MODULE).TARGETS)
        self._seed = seed
        self._folder = os.path.join(folder, "fuzz")
        self._seconds = seconds
        self._done = 0
        self._executions = 0
        self._findings = 0

    def step(self) -> None:
        item, self._done = self._done, self._done + 1
        target = self._targets[item % len(self._targets)]
        seed = self._seed + item // len(self._targets)
        arguments = [target, "--seed", str(seed), "--seconds", f"{self._seconds:g}"]
        self._run(f"{target},{seed}", arguments)

    def replay(self, item: str) -> None:
        target, seed = item.split(",")
        self._run(item, [target, "--seed", seed, "--seconds", f"{4 * self._seconds:g}"])

    def _run(self, item: str, arguments: list[str]) -> None:
        command = [sys.executable, "-m", FUZZ_MODULE, *arguments, "--corpus", self._folder]
        root = os.path.dirname(os.path.dirname(os.path.abspath(holdfast.__file__)))
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": root},
        )
        for executions, findings in _LINE.findall(done.stdout):
            self._executions += int(executions)
            self._findings += int(findings)
        if done.returncode:
            self.failures.append(Failure(self.name, item, tuple(done.stdout.splitlines()[-12:])))

    def figures(self) -> Figures:
        return {
            "fuzz targets run": min(self._done, len(self._targets)),
            "fuzz executions": self._executions,
            "fuzz findings": self._findings,
        }

    def tables(self) -> dict[str, list[list[str]]]:
        return {}
