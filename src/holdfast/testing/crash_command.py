"""The command `./dev crash`.

Exit status: 0 good, 1 failures found, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

from holdfast.env import CRASH_CLASSES, PROFILES
from holdfast.testing import encrypted
from holdfast.testing.crash import (
    FAILURES_SHOWN,
    Options,
    Outcome,
    Verdicts,
    record,
    replay,
    run,
)
from holdfast.testing.exhaustive import count, explore
from holdfast.testing.mutants import MUTANTS, hunt, sync_sites, without
from holdfast.testing.numbers import none_or_more, one_or_more, positive
from holdfast.testing.workload import CANONICAL, EXHAUSTIVE, SECTORS, disk_of, workload

NAMES = (*CANONICAL, *SECTORS)


def _run_part(name: str, seed: int, options: Options) -> Outcome:
    return run(name, seed=seed, options=options)


def run_all(
    names: Iterable[str],
    *,
    seed: int,
    options: Options,
    jobs: int,
    report: Callable[[Outcome], None],
    profile: str | None = None,
) -> list[Outcome]:
    """Run workloads one after the other, each shared by `jobs` processes, on disks of `profile` or
    each on the disk that it is for.
    """
    outcomes = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for name in names:
            mine = replace(options, profile=profile or disk_of(name))
            parts = [
                pool.submit(_run_part, name, seed, replace(mine, part=(index, jobs)))
                for index in range(jobs)
            ]
            outcome = parts[0].result()
            for part in parts[1:]:
                outcome.add(part.result())
            report(outcome)
            outcomes.append(outcome)
    return outcomes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev crash", description="Cut the power everywhere.")
    add = parser.add_argument
    add("--workload", action="append", help="only this one; may be repeated")
    add(
        "--exhaustive",
        type=one_or_more,
        metavar="LENGTH",
        help="all workloads of so many operations",
    )
    add("--items", metavar="FIRST:LAST", help="of these, those from FIRST up to LAST")
    add("--seed", type=int, default=0, help="of the machine, and of the steps of 'mixed'")
    add("--seeds", type=one_or_more, default=1, help="how many seeds to run, from --seed on")
    add("--depth", type=int, default=2, choices=(1, 2), help="2 also cuts inside recovery")
    add("--classes", default=",".join(CRASH_CLASSES), help="separated by commas")
    add(
        "--profile",
        choices=sorted(PROFILES),
        help="what disks may lose; posix-min but for sectors_*",
    )
    add("--budget", type=positive, help="seconds in all; the states are then sampled")
    add("--cover", action="store_true", help="go on until every boundary and key had a state run")
    add(
        "--nested-sample",
        type=none_or_more,
        help="nested states for each content; all of them by default",
    )
    add("--jobs", type=one_or_more, default=2, help="processes")
    add("--mutants", action="store_true", help="break every sync in turn; each must be noticed")
    add("--encrypted", action="store_true", help="with a key")
    add("--state", help="run one state again: K:STATE or K:STATE/K:STATE")
    add("--list", action="store_true", help="show the workloads and how many operations they have")
    return parser


def _list(seed: int) -> int:
    for name in NAMES:
        work = workload(name, seed)
        recording = record(work)
        sites = len({operation.site for operation in recording.operations})
        print(
            f"{name:22} steps {len(work.steps):3}  commits {recording.history.submitted:3}  "
            f"operations {len(recording.operations):4}  call sites {sites:2}"
        )
    return 0


def _replay(name: str, arguments: argparse.Namespace) -> int:
    profile = arguments.profile or disk_of(name)
    explained, complaints = replay(name, arguments.seed, arguments.state, profile)
    for line in explained:
        print(line)
    for line in complaints:
        print(f"FAILED: {line}")
    if not complaints:
        print("passed")
    return 1 if complaints else 0


def _show(outcome: Outcome) -> None:
    print(f"seed {outcome.seed:<4} {outcome}", flush=True)
    for failure in outcome.failures[:FAILURES_SHOWN]:
        for line in failure.complaints:
            print(f"  FAILED: {line}")
        print(f"  replay: {failure.replay}", flush=True)


def _hunt() -> int:
    """Run every mutant until a workload notices it."""
    mutants = {f"taken out: {site[1]}": without(site) for site in sync_sites()}
    mutants.update({mutant.name: mutant.wrap for mutant in MUTANTS})
    survivors = 0
    for name, wrap in mutants.items():
        failure = hunt(wrap)
        survivors += failure is None
        noticed = f"{failure.workload} {failure.path}" if failure else "SURVIVED"
        print(f"{name:46} {noticed}", flush=True)
    print(f"mutants {len(mutants)}  noticed {len(mutants) - survivors}")
    return 1 if survivors else 0


def _exhaust(given: argparse.Namespace, options: Options) -> int:
    """Run every short workload, in this process. Raises: ValueError for items that are none."""
    first, last = 0, count(given.exhaustive)
    if given.items:
        begin, _, end = given.items.partition(":")
        first, last = int(begin or first), min(last, int(end or last))
    total = Outcome(f"{EXHAUSTIVE}{given.exhaustive}", given.seed)
    verdicts = Verdicts()
    boundaries = done = 0
    began = time.perf_counter()
    for item in range(first, last):
        if given.budget is not None and time.perf_counter() - began > given.budget:
            total.is_complete = False
            break
        outcome = explore(
            item, verdicts, replace(options, budget=None), given.seed, length=given.exhaustive
        )
        total.add(outcome)
        boundaries += outcome.boundaries
        done += 1
        if outcome.failures:
            _show(outcome)
        if len(total.failures) >= FAILURES_SHOWN:
            break
    total.boundaries = boundaries
    total.seconds = time.perf_counter() - began
    print(f"seed {given.seed:<4} {total}")
    print(f"workloads {first} to {first + done} of {count(given.exhaustive)}")
    return 1 if total.failures else 0


def main(arguments: list[str]) -> int:
    """Run the command. Returns the exit status: 0 good, 1 failures found, 2 wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    encrypted.use(given.encrypted)
    names = given.workload or list(NAMES)
    for name in names:
        if name not in NAMES and not name.startswith(EXHAUSTIVE):
            parser.error(f"--workload knows {', '.join(NAMES)}")
    classes = tuple(given.classes.split(","))
    if not set(classes) <= {*CRASH_CLASSES, "power-set"}:
        parser.error(f"--classes knows {', '.join(CRASH_CLASSES)}, power-set")
    if given.list:
        return _list(given.seed)
    if given.state:
        if len(names) != 1:
            parser.error("--state needs one --workload")
        try:
            return _replay(names[0], given)
        except (KeyError, IndexError, ValueError) as error:
            parser.error(f"there is no state {given.state}: {error!r}")
    runs = len(names) * given.seeds
    options = Options(
        classes=classes,
        depth=given.depth,
        budget=None if given.budget is None else given.budget / runs,
        nested_sample=given.nested_sample,
        profile=given.profile or "posix-min",
        cover=given.cover,
    )
    if given.mutants:
        return _hunt()
    if given.exhaustive is not None:
        try:
            return _exhaust(given, options)
        except ValueError:
            parser.error("--items is FIRST:LAST")
    total = Outcome("total", given.seed)
    boundaries = 0
    began = time.perf_counter()
    for seed in range(given.seed, given.seed + given.seeds):
        for outcome in run_all(
            names, seed=seed, options=options, jobs=given.jobs, report=_show, profile=given.profile
        ):
            total.add(outcome)
            boundaries += outcome.boundaries
    total.boundaries = boundaries
    total.seconds = time.perf_counter() - began
    print(f"          {total}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
