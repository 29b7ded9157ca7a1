"""`holdfast torture`: everything that finds faults, turn by turn, for a given time, from one seed.

The parts take turns: power cuts in the simulator, those of all short workloads, kills on this
machine's disk, damaged files, bit flips, I/O errors and failed syncs, drawn and one after another,
and the fuzz targets. At the end a scoreboard says what was done and what came of it.
docs/internals/torture.md says what each figure means.

What item K of a part is depends on the seed only; the time decides how many items there are. Each
failure comes with the line that runs its item again. (The moment of a kill is drawn by the seed,
but what the killed process had done by then is the machine's to decide.)

Parts of one group take turns in one process; groups, with "/" between them, run side by side, each
in a process of its own. Which process did an item makes no difference to what the item is.

Exit status: 0 good, 1 when anything failed, 2 wrong usage.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast.testing import encrypted
from holdfast.testing.bench_report import machine
from holdfast.testing.crash import same_machine
from holdfast.testing.mutants import without
from holdfast.testing.numbers import none_or_more, not_negative
from holdfast.testing.oracle import Wrap
from holdfast.testing.result_page import missing_commit
from holdfast.testing.torture_crash import CrashPart, ExhaustivePart, KillsPart
from holdfast.testing.torture_damage import DamagePart
from holdfast.testing.torture_faults import FaultsPart, FuzzPart
from holdfast.testing.torture_flips import FlipsPart
from holdfast.testing.torture_part import Failure, Figures, Part, bound_of, is_going
from holdfast.testing.torture_points import clients_part, errors_part, syncs_part

PARTS = (
    "crash", "exhaustive", "kills", "damage", "flips", "faults", "errors", "syncs", "clients",
    "fuzz",
)  # fmt: skip
PLAIN_ONLY = ("fuzz",)
"""Parts that a key changes nothing of: the targets of the fuzzer make their own input, and files of
encrypted databases are one of them.
"""

PAGE = os.path.join("docs", "results", "torture.md")
TURN_SECONDS = 10.0
MINUTES = 5.0

Plain = dict[str, Any]
"""What JSON holds, read back: only this module writes it."""


@dataclass(slots=True)
class Report:
    """A run and what came of it."""

    command: str
    machine: dict[str, str]
    figures: dict[str, Figures] = field(default_factory=dict)
    """By part; "all" holds what concerns all of them."""
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    failures: list[tuple[Failure, str]] = field(default_factory=list)
    """Each with the line that replays it."""

    def add_plain(self, plain: Plain) -> None:
        """Add the parts of another process's report, as `to_plain` gives it."""
        self.figures.update(plain["figures"])
        self.tables.update(plain["tables"])
        for entry in plain["failures"]:
            failure = Failure(entry["part"], entry["item"], tuple(entry["complaints"]))
            self.failures.append((failure, entry["replay"]))

    def to_plain(self) -> Plain:
        """Return a dictionary that JSON can hold."""
        return {
            "command": self.command,
            "machine": self.machine,
            "figures": self.figures,
            "tables": self.tables,
            "failures": [
                {
                    "part": failure.part,
                    "item": failure.item,
                    "complaints": list(failure.complaints),
                    "replay": line,
                }
                for failure, line in self.failures
            ],
        }


def configure(parser: argparse.ArgumentParser) -> None:
    """Say what the verb takes."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="where databases are made; on the disk to be tried")
    add("--seed", type=int, default=1, help="another seed, other items (default: 1)")
    add("--minutes", type=not_negative, default=MINUTES, help=f"how long (default: {MINUTES:g})")
    add(
        "--parts",
        default=",".join(PARTS),
        help=f"groups with / between them run side by side (default: {','.join(PARTS)})",
    )
    add(
        "--first-workload",
        type=none_or_more,
        default=0,
        metavar="ITEM",
        help="where that part begins",
    )
    add("--json", action="store_true", help="print one JSON object")
    add("--write", action="store_true", help="write the page")
    add("--page", default=PAGE, metavar="FILE", help=f"the page that is written (default: {PAGE})")
    add("--replay", metavar="PART:ITEM", help="run one item again")
    add(
        "--first-flip",
        type=none_or_more,
        default=0,
        metavar="ITEM",
        help="where the part flips begins",
    )
    add("--encrypted", action="store_true", help="with a key; without the part fuzz")
    add("--without", metavar="KIND:SITE", help="take a sync out, such as sync:wal.record.sync")


def make_parts(names: list[str], given: argparse.Namespace, wrap: Wrap) -> list[Part]:
    """Return the parts of these names. Raises: KeyError for an unknown one."""
    seed, folder = given.seed, given.folder
    makers: dict[str, Callable[[], Part]] = {
        "crash": lambda: CrashPart(seed, wrap),
        "exhaustive": lambda: ExhaustivePart(seed, wrap, given.first_workload),
        "kills": lambda: KillsPart(seed, folder),
        "damage": lambda: DamagePart(seed, folder),
        "flips": lambda: FlipsPart(seed, given.first_flip),
        "faults": lambda: FaultsPart(seed, wrap),
        "errors": lambda: errors_part(seed, wrap),
        "syncs": lambda: syncs_part(seed, wrap),
        "clients": lambda: clients_part(seed, wrap),
        "fuzz": lambda: FuzzPart(seed, folder),
    }
    return [makers[name]() for name in names]


def take_turns(parts: list[Part], seconds: float) -> None:
    """Let the parts take turns until the time is over or each is done or has found enough.

    Each does one item at least. What is begun is ended.
    """
    end = time.monotonic() + seconds
    turn = min(TURN_SECONDS, seconds / (2 * len(parts)))
    is_first = True
    while is_first or time.monotonic() < end:
        going = [part for part in parts if is_going(part)]
        if not going:
            return
        for part in going:
            until = min(time.monotonic() + turn, end)
            if not is_first and time.monotonic() >= end:
                return
            _step(part)
            while time.monotonic() < until and is_going(part):
                _step(part)
        is_first = False


def _step(part: Part) -> None:
    """Do an item. A part that fails itself is a failure too, and no reason to lose a long run."""
    try:
        part.step()
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        what = "".join(traceback.format_exception(error)[-2:]).strip()
        part.failures.append(Failure(part.name, "none", (f"the part itself failed: {what}",)))


def summary(report: Report, seed: int, seconds: float) -> Figures:
    """Return the figures that concern all parts: loss, above all."""
    parts = report.figures
    crashes = [parts[name] for name in ("crash", "exhaustive") if name in parts]
    trials = sum(int(part["different contents opened and judged"]) for part in crashes)
    lost = sum(int(part["crashes that lost an acknowledged commit"]) for part in crashes)
    if "kills" in parts:
        trials += int(parts["kills"]["kills"])
    found: Figures = {"seed": str(seed), "seconds": round(seconds, 1)}
    if trials:
        found["trials: different contents after a crash, and kills"] = trials
        found["acknowledged commits lost"] = "some" if lost else 0
        found["loss in a trial, at most (95 %)"] = bound_of(lost, trials)
    found["failures"] = len(report.failures)
    return found


def replay_line(failure: Failure, given: argparse.Namespace) -> str:
    """Return the command that runs an item again."""
    words = ["holdfast", "torture", given.folder, "--seed", str(given.seed)]
    if given.without:
        words += ["--without", given.without]
    if given.encrypted:
        words += ["--encrypted"]
    return shlex.join([*words, "--replay", f"{failure.part}:{failure.item}"])


def command_of(given: argparse.Namespace) -> str:
    """Return the command line, whatever the folder was."""
    words = ["holdfast", "torture", "--seed", str(given.seed), "--minutes", f"{given.minutes:g}"]
    words += ["--parts", given.parts, "DIR"]
    if given.first_flip:
        words += ["--first-flip", str(given.first_flip)]
    if given.first_workload:
        words += ["--first-workload", str(given.first_workload)]
    if given.without:
        words += ["--without", given.without]
    if given.encrypted:
        words += ["--encrypted"]
    if given.write:
        words += ["--write"]
    if given.page != PAGE:
        words += ["--page", given.page]
    return shlex.join(words)


def run_here(names: list[str], given: argparse.Namespace, wrap: Wrap, report: Report) -> None:
    """Run parts in this process, and add what was done."""
    parts = make_parts(names, given, wrap)
    take_turns(parts, given.minutes * 60)
    for part in parts:
        report.figures[part.name] = part.figures()
        report.tables.update(part.tables())
        report.failures += [(failure, replay_line(failure, given)) for failure in part.failures]


def run_side_by_side(groups: list[str], given: argparse.Namespace, report: Report) -> None:
    """Run each group of parts in a process of its own, and add what was done.

    Raises: ChildProcessError when one of them ended without a report.
    """
    words = [sys.executable, "-m", "holdfast.testing.torture", given.folder, "--json"]
    words += ["--seed", str(given.seed), "--minutes", str(given.minutes)]
    words += ["--first-flip", str(given.first_flip)]
    words += ["--first-workload", str(given.first_workload)]
    if given.encrypted:
        words += ["--encrypted"]
    if given.without:
        words += ["--without", given.without]
    with contextlib.ExitStack() as stack:
        children = []
        for group in groups:
            command = [*words, "--parts", group]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.enter_context(child)
            stack.callback(child.kill)
            children.append(child)
        for group, child in zip(groups, children, strict=True):
            output, _ = child.communicate()
            try:
                report.add_plain(json.loads(output))
            except ValueError:
                told = f"the process of {group} ended with status {child.returncode}, unreported"
                raise ChildProcessError(told) from None


# --- showing


def plain(report: Report) -> str:
    """Return the scoreboard for a terminal."""
    lines = [f"{name}: {value}" for name, value in report.machine.items()]
    for part, figures in report.figures.items():
        lines += ["", part]
        lines += [f"  {name:62} {_shown(value):>12}" for name, value in figures.items()]
    for title, rows in report.tables.items():
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += ["", title]
        for row in rows:
            cells = [f"{row[0]:{widths[0]}}"]
            cells += [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  " + "  ".join(cells))
    for failure, line in report.failures:
        lines += ["", *(f"FAILED ({failure.part}): {text}" for text in failure.complaints)]
        lines.append(f"  replay: {line}")
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """Return the scoreboard as a page of the documents."""
    lines = [
        "# Measured: reliability",
        "",
        "This page was written by the command below; nothing in it was typed by hand.",
        "What each figure means and what is not covered: [torture.md](../internals/torture.md).",
        "",
        f"    {report.command}",
        "",
        *(f"- {name}: {value}" for name, value in report.machine.items()),
    ]
    for part, figures in report.figures.items():
        lines += ["", f"## {part}", "", "| what | how much |", "|---|--:|"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in figures.items()]
    for title, (headings, *rows) in report.tables.items():
        lines += ["", f"## {title}", "", f"| {' | '.join(headings)} |"]
        lines.append("|---|" + "--:|" * (len(headings) - 1))
        lines += [f"| {' | '.join(row)} |" for row in rows]
    if report.failures:
        lines += ["", "## Failures", ""]
        lines += [
            f"- {failure.part}: {'; '.join(failure.complaints)}; replay: `{line}`"
            for failure, line in report.failures
        ]
    return "\n".join(lines) + "\n"


def _shown(value: float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


# --- the command


def run(given: argparse.Namespace) -> int:
    """Run the verb."""
    if given.encrypted and given.parts == ",".join(PARTS):
        given.parts = ",".join(name for name in PARTS if name not in PLAIN_ONLY)
    groups = given.parts.split("/")
    names = given.parts.replace("/", ",").split(",")
    wrap: Wrap = same_machine
    if given.without:
        kind, _, site = given.without.partition(":")
        wrap = without((kind, site))
    if given.replay:
        names = [given.replay.partition(":")[0]]
    if reason := missing_commit(writes=given.write):
        print(f"holdfast torture: {reason}", file=sys.stderr)
        return 2
    if unknown := [name for name in names if name not in PARTS]:
        print(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if given.encrypted and (plain_only := [name for name in names if name in PLAIN_ONLY]):
        print(
            f"the part {plain_only[0]} makes its own input, sealed files too: "
            "run it without --encrypted",
            file=sys.stderr,
        )
        return 2
    encrypted.use(given.encrypted)
    if len(set(names)) < len(names):
        print("a part is named twice", file=sys.stderr)
        return 2
    # Children work in their own folders, so the path has to hold from there too.
    os.makedirs(given.folder, exist_ok=True)
    if given.replay:
        return _replay(make_parts(names, given, wrap)[0], given)
    report = Report(command_of(given), machine(given.folder), {"all": {}})
    began = time.monotonic()
    if len(groups) > 1:
        run_side_by_side(groups, given, report)
    else:
        run_here(names, given, wrap, report)
    report.figures["all"] = summary(report, given.seed, time.monotonic() - began)
    print(json.dumps(report.to_plain()) if given.json else plain(report))
    if given.write:
        with open(given.page, "w", encoding="ascii") as file:
            # What was wrong names files of the folder that was given.
            file.write(markdown(report).replace(given.folder, "DIR"))
    return 1 if report.failures else 0


def _replay(part: Part, given: argparse.Namespace) -> int:
    try:
        part.replay(given.replay.partition(":")[2])
    except (ValueError, KeyError, IndexError) as error:
        print(f"there is no item {given.replay}: {error!r}", file=sys.stderr)
        return 2
    for failure in part.failures:
        for line in failure.complaints:
            print(f"FAILED: {line}")
    if not part.failures:
        print("passed")
    return 1 if part.failures else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="holdfast torture", description=__doc__.split("\n")[0])
    configure(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
