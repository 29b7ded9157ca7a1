"""`holdfast bench`: the same workloads with Holdfast and its peers, side by side in one run.

Each cell (a workload, an engine, a round) runs in a fresh process, and the engines take turns.
docs/internals/bench.md says how to read the figures. `./dev bench` measures Holdfast alone.

Exit status: 0 good, 1 when a cell failed, 2 wrong usage. A missed budget is printed and changes
nothing else: a figure is evidence, not a verdict on a build.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence

from holdfast.cli.failure import wrong_usage
from holdfast.testing.bench_report import machine
from holdfast.testing.kept import Kept
from holdfast.testing.result_page import missing_commit
from holdfast.testing.versus_budget import budgets, measure_alone
from holdfast.testing.versus_picture import picture
from holdfast.testing.versus_report import Report, closing, page, workload_table
from holdfast.testing.versus_run import Runner
from holdfast.testing.versus_scale import SCALES
from holdfast.testing.versus_store import ENGINES, is_installed, settings_of
from holdfast.testing.versus_workload import WORKLOADS, description

PAGE = os.path.join("docs", "results", "bench.md")
ROUNDS = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add = parser.add_argument
    add("workloads", metavar="WORKLOAD", nargs="*", help="which (default: all); see --list")
    add("--list", action="store_true", help="say what each workload measures, and end")
    add("--engines", default=",".join(ENGINES), help=f"default: {','.join(ENGINES)}")
    add("--rounds", type=int, default=ROUNDS, help=f"of each cell (default: {ROUNDS})")
    add("--scale", choices=list(SCALES), default="small", help="how much (default: small)")
    add("--seed", type=int, default=1, help="other keys and values (default: 1)")
    add("--folder", metavar="DIR", default=".", help="where databases are made (default: here)")
    add("--json", metavar="FILE", help="write all cells of all rounds there")
    add("--picture", metavar="FILE", help="write bars of ratios there, as SVG")
    add("--resume", metavar="FILE", help="keep cells in FILE, and measure those that it lacks")
    add("--write", action="store_true", help="write the page, its picture and its JSON")
    add("--page", default=PAGE, metavar="FILE", help=f"which page (default: {PAGE})")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb. Raises: CommandError for wrong usage."""
    if arguments.list:
        for name in WORKLOADS:
            print(f"{name}\n    " + description(name).replace("\n", "\n    "))
        return 0
    workloads = arguments.workloads or list(WORKLOADS)
    asked = arguments.engines.split(",")
    refuse_unknown("workload", workloads, WORKLOADS)
    refuse_unknown("engine", asked, ENGINES)
    if reason := missing_commit(writes=arguments.write):
        raise wrong_usage(reason)
    if arguments.rounds < 1:
        raise wrong_usage("there is one round at least")
    engines = [engine for engine in asked if is_installed(engine)]
    found = machine(arguments.folder)
    try:
        runner = Runner(
            engines=engines,
            workloads=workloads,
            rounds=arguments.rounds,
            scale=arguments.scale,
            seed=arguments.seed,
            folder=arguments.folder,
            kept=Kept(
                arguments.resume,
                scale=arguments.scale,
                seed=arguments.seed,
                processor=found["processor"],
                disk=found["file system"],
            ),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise wrong_usage(f"--resume: {error}") from error
    runner.run.left_out += [
        f"{engine}: it is not installed; pip install '.[bench]' in a checkout brings the peers"
        for engine in asked
        if engine not in engines
    ]
    report = Report(
        command=command_of(arguments),
        machine=found,
        scale=arguments.scale,
        rounds=arguments.rounds,
        seed=arguments.seed,
        engines=engines,
        settings={engine: settings_of(engine) for engine in engines},
        run=runner.run,
    )
    for workload in runner():
        print(f"{workload_table(report, workload)}\n", flush=True)
    report.budgets = budgets(report.run, engines)
    if arguments.workloads:
        report.budgets = [budget for budget in report.budgets if budget.measured is not None]
    else:
        alone, failures = measure_alone(arguments.scale, arguments.folder)
        report.budgets += alone
        report.run.failures += failures
    print(closing(report))
    write_all(report, arguments)
    return 1 if report.run.failures else 0


def refuse_unknown(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Raise CommandError for the first name that is unknown."""
    for name in names:
        if name not in known:
            raise wrong_usage(f"there is no {what} {name!r}; there are {', '.join(known)}")


def command_of(arguments: argparse.Namespace) -> str:
    """Return the command line that repeats a run; the folder is the machine's own matter."""
    words = ["holdfast", "bench", *arguments.workloads]
    if arguments.engines != ",".join(ENGINES):
        words += ["--engines", arguments.engines]
    words += ["--scale", arguments.scale, "--rounds", str(arguments.rounds)]
    words += ["--seed", str(arguments.seed)]
    if arguments.write:
        words += ["--write"]
    if arguments.page != PAGE:
        words += ["--page", arguments.page]
    return shlex.join(words)


def write_all(report: Report, arguments: argparse.Namespace) -> None:
    """Write the files that were asked for."""
    figures = json.dumps(report.to_plain(), indent=1) + "\n"
    files = {}
    if arguments.json:
        files[arguments.json] = figures
    if arguments.picture:
        files[arguments.picture] = picture(report)
    if arguments.write:
        stem = arguments.page.removesuffix(".md")
        os.makedirs(os.path.dirname(stem) or ".", exist_ok=True)
        files[arguments.page] = page(report, os.path.basename(f"{stem}.svg"))
        files[f"{stem}.svg"] = picture(report)
        files[f"{stem}.json"] = figures
    for path, content in files.items():
        with open(path, "w", encoding="ascii") as file:
            file.write(content)
        print(f"wrote {path}", file=sys.stderr)
