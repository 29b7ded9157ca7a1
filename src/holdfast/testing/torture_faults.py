"""Torture by I/O errors and failed syncs, and by the fuzz targets.

A workload runs with one rule by which calls fail, drawn by the seed; `torture_trial` judges it.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from random import Random

import holdfast
from holdfast.env import FAILED_SYNCS, FaultRule
from holdfast.testing.oracle import Wrap
from holdfast.testing.torture_part import Failure, Figures, Part, bounded
from holdfast.testing.torture_trial import KindsRule, Trial
from holdfast.testing.workload import SEQUENTIAL, sequential

CODES = {
    code: errno.errorcode[code]
    for code in (
        errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EINTR,
    )
}  # fmt: skip
SURVIVABLE = tuple(sorted(set(FAILED_SYNCS) - {"ext4-journal"}))
"""Ways for syncs to fail. The one that is left out says that the sync worked."""

_CALLS_MAX = 400
"""The call that fails is at most this one; a rule that no call reaches is counted as untouched."""


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
    rule = KindsRule(kind=kind, nth=nth, times=times, error=code)
    return f"{kind} fail, {CODES[code]}, {often}", rule


class FaultsPart(Part):
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
        turn, index = divmod(item, len(SEQUENTIAL))
        work = sequential(SEQUENTIAL[index], self._seed + turn)
        what, rule = rule_of(rng)
        trial = Trial(work, [rule], rng, self._wrap)
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


class FuzzPart(Part):
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
