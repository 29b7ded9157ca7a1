"""What `holdfast bench` shows of a run: tables for a terminal, JSON, a page for the documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.testing.bench_report import number
from holdfast.testing.versus_budget import Budget, amplification
from holdfast.testing.versus_child import Cell
from holdfast.testing.versus_run import Run
from holdfast.testing.versus_store import OURS, load
from holdfast.testing.versus_workload import WORKLOADS, description

MIB = 1 << 20
NONE = "-"

COLUMNS = (
    "engine",
    "sync",
    "rate/s",
    "times",
    "busy/s",
    "p50",
    "p99",
    "p99.9",
    "max",
    "cpu",
    "memory",
    "written",
    "w.amp",
    "device",
    "space",
    "s.amp",
)
LEGEND = """
`rate/s`: rows, keys or operations done in a second, as the median of the rounds.

`times`: how many times the engine's rate Holdfast's is; above 1, Holdfast is ahead.

`busy/s`: the rate beside one thread of the same process that only computes in Python.

`p50` to `max`: microseconds of single operations, from a pass of their own; of a batch, a list or
a range as a whole.

`cpu`: CPU time of the process, background threads included, in microseconds a unit of the rate.

`memory`: how much the resident memory of the process grew at most, in MiB; pages of files that are
mapped are part of it.

`written`: MiB that the process gave to calls that write until the database was closed, as the
kernel counts them (`wchar` of /proc/PID/io).

`w.amp`: that, divided by the bytes of keys and values that the workload wrote.

`device`: MiB that were written to the disk meanwhile, by whomever; a figure of the engine only
where the machine does nothing else.

`space`: MiB that the closed database takes on the disk.

`s.amp`: that, divided by the bytes of keys and values that it holds.
"""
"""What the columns mean."""


def legend() -> list[str]:
    """Return the meanings of the columns as a list of a page, one item a line."""
    return ["- " + " ".join(item.split()) for item in LEGEND.strip().split("\n\n")]


@dataclass(slots=True, kw_only=True)
class Report:
    """A run and what it depends on."""

    command: str
    machine: dict[str, str]
    scale: str
    rounds: int
    seed: int
    engines: list[str]
    settings: dict[str, tuple[str, str]]
    """Version and settings, in words, by engine."""
    run: Run
    budgets: list[Budget] = field(default_factory=list)

    @property
    def workloads(self) -> list[str]:
        """The workloads that gave anything, in their order."""
        return [name for name in WORKLOADS if any(cell.workload == name for cell in self.run.cells)]

    @property
    def peers(self) -> list[str]:
        """The engines but Holdfast."""
        return [engine for engine in self.engines if engine != OURS]

    def to_plain(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {
            "command": self.command,
            "machine": self.machine,
            "scale": self.scale,
            "rounds": self.rounds,
            "seed": self.seed,
            "versions": {engine: version for engine, (version, _) in self.settings.items()},
            "run": self.run.to_plain(),
            "ratios": {
                workload: {engine: self.run.ratio(workload, engine) for engine in self.peers}
                for workload in self.workloads
            },
            "budgets": [budget.to_plain() for budget in self.budgets],
        }


def shown(value: float | None) -> str:
    """Return a number with three digits, or a dash."""
    return NONE if value is None else number(value)


def row(run: Run, workload: str, engine: str) -> list[str] | None:
    """Return the cells of a line, None when there is nothing to show."""
    cell = run.median(workload, engine)
    if cell is None:
        return None
    sync = WORKLOADS[workload].sync
    has_writes = WORKLOADS[workload].has_writes
    return [
        engine,
        load(engine).syncs.get(sync, NONE),
        shown(cell.rate),
        NONE if engine == OURS else shown(run.ratio(workload, engine)),
        shown(cell.busy_rate),
        *[shown(value) for value in (cell.p50, cell.p99, cell.p999, cell.max, cell.cpu)],
        shown(cell.peak_bytes / MIB),
        *(writes(cell) if has_writes else [NONE] * 5),
    ]


def writes(cell: Cell) -> list[str]:
    """Return the figures of what was written."""
    space = cell.space_bytes / cell.live_bytes if cell.live_bytes else None
    return [
        shown(None if cell.written_bytes is None else cell.written_bytes / MIB),
        shown(amplification(cell)),
        shown(None if cell.device_bytes is None else cell.device_bytes / MIB),
        shown(cell.space_bytes / MIB),
        shown(space),
    ]


def rows(report: Report, workload: str) -> list[list[str]]:
    """Return the lines of a workload."""
    made = [row(report.run, workload, engine) for engine in report.engines]
    return [line for line in made if line]


def summary(report: Report) -> list[list[str]]:
    """Return a line for each workload: Holdfast's rate, and how many times each peer's it is."""
    lines = []
    for workload in report.workloads:
        ours = report.run.median(workload, OURS)
        best = report.run.best_peer(workload, report.engines)
        lines.append(
            [
                workload,
                shown(ours.rate if ours else None),
                best or NONE,
                shown(report.run.ratio(workload, best) if best else None),
                *[shown(report.run.ratio(workload, engine)) for engine in report.peers],
            ]
        )
    return lines


def summary_heads(report: Report) -> list[str]:
    """Return the heads of the summary."""
    return ["workload", "holdfast/s", "best peer", "times", *report.peers]


def budget_lines(budgets: Sequence[Budget]) -> list[list[str]]:
    """Return a line for each budget."""
    return [
        [
            budget.what,
            f"{budget.sign} {number(budget.bound)}",
            shown(budget.measured),
            budget.unit,
            budget.verdict,
        ]
        for budget in budgets
    ]


BUDGET_HEADS = ["budget", "bound", "measured", "unit", ""]


def aligned(heads: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
    """Return a table for a terminal; the first `left` columns are words."""
    table = [list(heads), *map(list, lines)]
    widths = [max(len(line[at]) for line in table) for at in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def piped(heads: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return a table for a page."""
    rule = ["---" if at < left else "--:" for at in range(len(heads))]
    return ["| " + " | ".join(line) + " |" for line in (heads, rule, *lines)]


def workload_table(report: Report, workload: str) -> str:
    """Return a workload for a terminal."""
    heads = [workload, *COLUMNS[1:]]
    return aligned(heads, rows(report, workload), 2)


def closing(report: Report) -> str:
    """Return what stands at the end of a run for a terminal."""
    parts = []
    if report.peers and report.workloads:
        parts.append(aligned(summary_heads(report), summary(report), 1))
    if report.budgets:
        parts.append(aligned(BUDGET_HEADS, budget_lines(report.budgets), 1))
    parts += report.run.left_out
    parts += failure_lines(report)
    return "\n\n".join(parts)


def failure_lines(report: Report) -> list[str]:
    """Return a sentence for each failure."""
    return [
        f"failed: {failure.workload} with {failure.engine}: {failure.reason}"
        for failure in report.run.failures
    ]


def page(report: Report, picture: str | None) -> str:
    """Return the page of a run."""
    lines = [
        "# Measured: side by side with the peers",
        "",
        "This page was written by the command below; nothing in it was typed by hand.",
        "[How to read it](../internals/bench.md).",
        "",
        f"    {report.command}",
        "",
        *[f"- {name}: {value}" for name, value in report.machine.items()],
        *[f"- {engine}: {version}" for engine, (version, _) in report.settings.items()],
        (
            f"- scale {report.scale}, {report.rounds} rounds, seed {report.seed}, "
            f"{report.run.seconds / 60:.0f} minutes"
        ),
        "",
        *[f"- {sentence}" for sentence in (*report.run.left_out, *failure_lines(report))],
        "",
        "## Ratios",
        "",
        "How many times Holdfast's rate is that of the best peer, and of each one.",
        "",
        *piped(summary_heads(report), summary(report), 1),
        "",
    ]
    if picture:
        lines += [f"![Holdfast's rate as a multiple of each peer's]({picture})", ""]
    lines += ["## Budgets", "", *piped(BUDGET_HEADS, budget_lines(report.budgets), 1), ""]
    lines += ["## Workloads", "", *legend(), ""]
    for workload in report.workloads:
        lines += [f"### {workload}", "", description(workload), ""]
        lines += [*piped(COLUMNS, rows(report, workload), 2), ""]
        lines += cold_note(report, workload)
    lines += ["## Settings of the engines", ""]
    for engine, (_, settings) in report.settings.items():
        lines += [f"### {engine}", "", settings, ""]
    return "\n".join(lines)


def cold_note(report: Report, workload: str) -> list[str]:
    """Return how well the page cache was dropped."""
    left = [
        f"{engine} {cell.resident:.1%}"
        for engine in report.engines
        if (cell := report.run.median(workload, engine)) and cell.resident is not None
    ]
    return [f"Left in the page cache after it was dropped: {', '.join(left)}.", ""] if left else []
