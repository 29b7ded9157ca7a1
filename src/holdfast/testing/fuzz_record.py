"""The record of fuzz runs: what each target did in each run, added up over all of them.

Millions of executions take hours, and may be spread over several runs with different seeds. What a
target did is recorded when it ends, so that a run which is cut off counts as far as it came. A
target that runs again with the same seed at the same commit does the same again: then the later
result takes the place of the earlier one.

Thread safety: `add` may be called from any thread; one process records at a time.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass

from holdfast.testing.bench_report import machine
from holdfast.testing.result_page import write_page

PAGE = os.path.join("docs", "results", "fuzz.md")
RECORD = os.path.join("docs", "results", "fuzz.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What one target did in one run."""

    target: str
    seed: int
    commit: str
    python: str
    command: str
    executions: int
    seconds: float
    """Of one core."""
    findings: int
    """Executions that broke a rule; one when the process ended by itself."""

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes a run the same run."""
        return self.target, self.seed, self.commit


class Record:
    """All entries, in a file beside the page that shows them. Raises: OSError, ValueError for a
    file that is no record.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.entries: dict[tuple[str, int, str], Entry] = {}
        if os.path.exists(RECORD):
            with open(RECORD, encoding="ascii") as file:
                for plain in json.load(file):
                    entry = Entry(**plain)
                    self.entries[entry.key] = entry

    def add(self, entry: Entry) -> None:
        """Take an entry in and write record and page."""
        with self._mutex:
            # The order is that in which they ended.
            self.entries.pop(entry.key, None)
            self.entries[entry.key] = entry
            entries = list(self.entries.values())
            write_page(RECORD + ".new", json.dumps([asdict(e) for e in entries], indent=1) + "\n")
            os.replace(RECORD + ".new", RECORD)
            write_page(PAGE, page(entries))


def page(entries: list[Entry]) -> str:
    """Return the page that shows the entries, of which there is one at least."""
    lines = [
        "# Measured: fuzzing",
        "",
        "This page was written by the commands that it names; nothing in it was typed by hand.",
        "It adds up all runs in fuzz.json; each target's last run replayed what was found before.",
        "What the targets are and what counts as a finding: [fuzzing.md](../internals/fuzzing.md).",
        "",
        *(f"- {name}: {value}" for name, value in machine(".").items() if name != "Holdfast"),
        "",
        "## Targets",
        "",
        "| target | runs | executions | core seconds | per second | findings | in the last run |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    by_target: dict[str, list[Entry]] = {}
    for entry in entries:
        by_target.setdefault(entry.target, []).append(entry)
    lines += [_row(target, found) for target, found in sorted(by_target.items())]
    lines += [_row("together", entries, last=False), "", "## Runs", ""]
    lines += ["| command | commit | targets | executions | findings |", "|---|---|--:|--:|--:|"]
    by_run: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        by_run.setdefault((entry.command, entry.commit), []).append(entry)
    for (command, commit), found in sorted(by_run.items()):
        lines.append(
            f"| `{command}` | {commit} | {len(found)} | {sum(e.executions for e in found):,} "
            f"| {sum(e.findings for e in found):,} |"
        )
    return "\n".join(lines) + "\n"


def _row(name: str, entries: list[Entry], *, last: bool = True) -> str:
    executions = sum(entry.executions for entry in entries)
    seconds = sum(entry.seconds for entry in entries)
    shown = f"{entries[-1].findings:,}" if last else "-"
    return (
        f"| {name} | {len(entries)} | {executions:,} | {seconds:,.0f} "
        f"| {executions / max(seconds, 1e-9):,.0f} | {sum(e.findings for e in entries):,} "
        f"| {shown} |"
    )
