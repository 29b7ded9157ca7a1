"""The report of the bench: tables for a terminal, JSON for programs, Markdown for the documents."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import holdfast
from holdfast.testing.bench_measure import Figure, Options
from holdfast.testing.bench_workloads import description

HEADINGS = ("", "unit", "sync", "min", "median", "max", "cpu", "busy", "budget", "")


@dataclass(slots=True)
class Result:
    """What one workload gave."""

    name: str
    figures: list[Figure]
    seconds: float
    """How long it took."""
    load: tuple[float, float]
    """Runnable processes of the machine, one-minute mean, before and after."""

    def to_plain(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {
            "name": self.name,
            "seconds": self.seconds,
            "load": list(self.load),
            "figures": [figure.to_plain() for figure in self.figures],
        }


@dataclass(slots=True)
class Report:
    """A run of the bench."""

    command: str
    options: Options
    machine: dict[str, str]
    results: list[Result] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {
            "command": self.command,
            "options": self.options.to_plain(),
            "machine": self.machine,
            "workloads": [result.to_plain() for result in self.results],
        }


def number(value: float) -> str:
    """Return a number with three digits, or all digits before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def cells(figure: Figure) -> tuple[str, ...]:
    """Return the row of a figure."""

    def median(values: list[float]) -> str:
        return number(sorted(values)[len(values) // 2]) if values else "-"

    verdict = {None: "", True: "met", False: "missed"}[figure.is_met]
    budget = "-"
    if figure.budget is not None:
        budget = f"{'>=' if figure.at_least else '<='} {number(figure.budget)}"
    return (
        figure.what,
        figure.unit,
        figure.sync,
        number(min(figure.rounds)),
        number(figure.median),
        number(max(figure.rounds)),
        median(figure.cpu),
        median(figure.beside),
        budget,
        verdict,
    )


def table(result: Result) -> str:
    """Return the figures of a workload as aligned columns."""
    rows = [(result.name, *HEADINGS[1:]), *[cells(figure) for figure in result.figures]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = []
    for row in rows:
        left = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}"
        right = "  ".join(
            f"{cell:>{width}}" for cell, width in zip(row[3:], widths[3:], strict=True)
        )
        lines.append(f"{left}  {right}".rstrip())
    lines.append(
        f"  ({result.seconds:.0f} s; load of the machine {result.load[0]:.1f} before, "
        f"{result.load[1]:.1f} after)"
    )
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """Return the whole report as a Markdown page."""
    lines = [
        "# Measured: the engine",
        "",
        "This page was written by the command below; nothing in it was typed by hand.",
        "",
        f"    {report.command}",
        "",
        *[f"- {name}: {value}" for name, value in report.machine.items()],
        "",
        "Keys have 16 bytes and values 100.",
        "An incompressible value is random; the second half of a half-compressible one is zeros.",
        "A row shows the least, median and greatest of several rounds.",
        (
            "`sync` is the durability of the writes: `commit` means that each is synced before the "
            "call returns, `none` that nothing waits for a sync."
        ),
        (
            "`cpu` is the CPU time of the whole process for each unit, background work included, "
            "as the median over the rounds."
        ),
        "`busy` is the median of rounds beside one Python thread that only computes.",
        "A budget is compared with the median.",
        "",
    ]
    for result in report.results:
        lines += section(result)
    return "\n".join(lines)


def section(result: Result) -> list[str]:
    """Return the lines of one workload."""
    lines = [f"## {result.name}", "", description(result.name), ""]
    lines.append("| what | unit | sync | min | median | max | cpu | busy | budget | |")
    lines.append("|---|---|---|--:|--:|--:|--:|--:|--:|---|")
    lines += [f"| {' | '.join(cells(figure))} |" for figure in result.figures]
    notes = {f"- {figure.what}: {figure.note}.": None for figure in result.figures if figure.note}
    lines += [
        "",
        *notes,
        (
            f"- The workload took {result.seconds:.0f} s; the load of the machine was "
            f"{result.load[0]:.1f} before and {result.load[1]:.1f} after it."
        ),
        "",
    ]
    return lines


def machine(folder: str) -> dict[str, str]:
    """Return what the figures depend on."""
    os.makedirs(folder, exist_ok=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{os.cpu_count()} x {processor()}",
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "file system": file_system(folder),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "Holdfast": f"{holdfast.__version__}{commit()}",
        "zstandard": version_of("zstandard"),
    }


def processor() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except FileNotFoundError:
        pass
    return platform.machine()


def file_system(folder: str) -> str:
    """Return the type of the file system under a folder."""
    place = os.path.realpath(folder)
    kind, longest = "unknown", -1
    try:
        with open("/proc/self/mounts", encoding="ascii", errors="replace") as file:
            for line in file:
                _, point, name, *_ = line.split()
                inside = place == point or place.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= longest:
                    kind, longest = name, len(point)
    except FileNotFoundError:
        pass
    return kind


def commit() -> str:
    """Return which commit of the repository runs, or nothing outside of one, as part of a line."""
    name = commit_name()
    return f", commit {name}" if name else ""


def commit_name() -> str:
    """Return which commit of the repository runs, "" outside of one."""
    name = _git(_folder(), "describe", "--always", "--abbrev=10")
    if name is None:
        return ""
    return f"{name.strip()}{'-dirty' if uncommitted() else ''}"


def uncommitted(folder: str | None = None) -> list[str]:
    """Return the files that differ from the commit of the repository that runs, or of `folder`;
    none outside of a repository. Pages of results do not count, nor what git does not know.
    """
    place = _folder() if folder is None else folder
    listed = _git(
        place, "status", "--porcelain", "--untracked-files=no", "--no-renames", "-z", "--",
        ":/", ":(exclude,top)docs/results",
    )  # fmt: skip
    return [line[3:] for line in (listed or "").split("\0") if line]


def _folder() -> str:
    return os.path.dirname(os.path.abspath(holdfast.__file__))


def _git(folder: str, *words: str) -> str | None:
    """Return what git says of the repository around a folder, or None where there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def version_of(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed" if sys.version_info < (3, 14) else "in the standard library"
