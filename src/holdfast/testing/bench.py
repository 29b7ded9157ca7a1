"""The bench: workloads from Python, each in a fresh process, with budgets beside the figures.

`./dev bench` runs all, `./dev bench put get` some, `./dev bench --list` says what there is. A
missed budget is printed and changes nothing else: a figure is evidence, not a verdict on a build,
and the machine may be shared. The exit status is 1 only when a workload failed to run.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from holdfast.testing.bench_measure import MIB, Figure, Options, fresh_python
from holdfast.testing.bench_report import Report, Result, machine, markdown, table
from holdfast.testing.bench_workloads import WORKLOADS, description
from holdfast.testing.numbers import one_or_more, positive
from holdfast.testing.result_page import require_commit

PAGE = "docs/results/part1.md"
GB = 10**9
CHILD = "--child"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    plain = Options()
    made = argparse.ArgumentParser(prog="./dev bench", description="Measure the engine.")
    made.add_argument("names", nargs="*", metavar="name", help="workloads; all when none is named")
    made.add_argument("--list", action="store_true", help="say what there is, and end")
    made.add_argument("--json", metavar="FILE", help="write all rounds of all figures there")
    made.add_argument("--write", action="store_true", help=f"write {PAGE}")
    made.add_argument("--folder", default=plain.folder, help="where the databases are made")
    made.add_argument(
        "--count", type=one_or_more, default=plain.count, help="rows of put, get and scan"
    )
    made.add_argument("--reads", type=one_or_more, default=plain.reads, help="lookups of a round")
    made.add_argument("--rounds", type=one_or_more, default=plain.rounds)
    made.add_argument(
        "--starts", type=one_or_more, default=plain.starts, help="fresh processes of a kind"
    )
    made.add_argument(
        "--commits", type=one_or_more, default=plain.commits, help="commits of a round"
    )
    made.add_argument("--threads", type=one_or_more, default=plain.threads)
    made.add_argument("--replay-mb", type=positive, default=plain.replay_bytes / MIB, help="in MiB")
    made.add_argument(
        "--load-gb", type=positive, default=plain.load_bytes / GB, help="in 10^9 bytes"
    )
    made.add_argument("--seed", type=int, default=plain.seed)
    return made


def options_from(given: argparse.Namespace) -> Options:
    """Return the options of a command line."""
    return Options(
        folder=given.folder,
        count=given.count,
        reads=given.reads,
        rounds=given.rounds,
        starts=given.starts,
        commits=given.commits,
        threads=given.threads,
        replay_bytes=int(given.replay_mb * MIB),
        load_bytes=int(given.load_gb * GB),
        seed=given.seed,
    )


def run_in_child(name: str, options: Options) -> list[Figure]:
    """Run a workload in a fresh process. Raises: CalledProcessError when it fails."""
    module = ["-m", "holdfast.testing.bench", CHILD]
    done = fresh_python([*module, name, json.dumps(options.to_plain())])
    return [Figure(**plain) for plain in json.loads(done)]


def child(name: str, options: str) -> int:
    """Be the fresh process: run a workload and print its figures as JSON."""
    figures = WORKLOADS[name](Options(**json.loads(options)))
    json.dump([figure.to_plain() for figure in figures], sys.stdout)
    return 0


def run(names: Sequence[str], report: Report) -> int:
    """Run workloads one after another, printing each; return how many failed."""
    failed = 0
    for name in names:
        before, began = os.getloadavg()[0], time.perf_counter()
        try:
            figures = run_in_child(name, report.options)
        except subprocess.CalledProcessError as error:
            print(f"{name}: the workload failed with status {error.returncode}\n", flush=True)
            failed += 1
            continue
        seconds = time.perf_counter() - began
        result = Result(name, figures, seconds, (before, os.getloadavg()[0]))
        report.results.append(result)
        print(f"{table(result)}\n", flush=True)
    return failed


def main(arguments: Sequence[str]) -> int:
    """Run the bench."""
    if arguments and arguments[0] == CHILD:
        return child(*arguments[1:])
    made = parser()
    given = made.parse_args(arguments)
    require_commit(made, writes=given.write)
    if given.list:
        for name in WORKLOADS:
            print(f"{name}\n    " + description(name).replace("\n", "\n    ").rstrip(" ") + "\n")
        return 0
    unknown = [name for name in given.names if name not in WORKLOADS]
    if unknown:
        print(f"no such workload: {unknown[0]}; there are {', '.join(WORKLOADS)}", file=sys.stderr)
        return 2
    options = options_from(given)
    command = shlex.join(["./dev", "bench", *arguments])
    report = Report(command, options, machine(options.folder))
    print("\n".join(f"{name}: {value}" for name, value in report.machine.items()), end="\n\n")
    failed = run(given.names or list(WORKLOADS), report)
    if given.json:
        with open(given.json, "w", encoding="ascii") as file:
            json.dump(report.to_plain(), file, indent=1)
    if given.write:
        os.makedirs(os.path.dirname(PAGE), exist_ok=True)
        with open(PAGE, "w", encoding="ascii") as file:
            file.write(markdown(report))
        print(f"wrote {PAGE}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
