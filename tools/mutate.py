"""Tests of the tests: change the code a little, again and again, and see whether a test notices.

`./dev mutate [ROOM or file ...] --seed S [--minutes M] [--jobs N] [--write]` tries the mutants of
the rooms' Python files, plain twins included, in the random order of the seed until all were tried
or the time is up. It prints those that survived or were stopped, and a table; `--write` writes
docs/results/mutation.md. What cannot be noticed, or need not, is explained in tools/survivors.toml
under the name of the mutant.
"""

import argparse
import math
import os
import random
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools import tree
from tools.branches import ROOMS, SUITES, commit_name, percent
from tools.mutants import Mutant, mutants
from tools.mutate_run import KILLED, SURVIVED, TIME, UNREACHED, Warm, attempts, in_child

PACKAGE = tree.ROOT / "src" / "holdfast"
PAGE = tree.ROOT / "docs" / "results" / "mutation.md"
EXPLAINED = tree.ROOT / "tools" / "survivors.toml"

TWINS = {
    "recovery": ("tests/twin/test_recovery_apply.py",),
    "manifest": (),
    "wal": (
        "tests/twin/test_wal_buffer.py",
        "tests/twin/test_wal_scan.py",
        "tests/twin/test_wal_unseal.py",
    ),
    "codec": (
        "tests/twin/test_codec_checksum.py",
        "tests/twin/test_codec_envelope.py",
        "tests/twin/test_codec_lz4.py",
        "tests/twin/test_codec_varint.py",
    ),
}


@dataclass(slots=True)
class Outcome:
    """What a run found."""

    all: list[Mutant]
    results: dict[Mutant, str] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, *results: str, where: str = "") -> int:
        """Return how many mutants of the files that begin with `where` had one of the results."""
        return sum(
            result in results and shown(mutant).startswith(where)
            for mutant, result in self.results.items()
        )

    def survivors(self) -> list[Mutant]:
        """Return what no test noticed, in the order of files and lines."""
        kept = [mutant for mutant, result in self.results.items() if result in LEFT]
        return sorted(kept, key=lambda mutant: (shown(mutant), mutant.line, mutant.name))


LEFT = (SURVIVED, UNREACHED)


def shown(mutant: Mutant) -> str:
    """Return a mutant's file as tables name it."""
    return str(mutant.path.relative_to(PACKAGE))


def explanations() -> dict[tuple[str, str], str]:
    """Return why a mutant is left alive, by file and name."""
    with EXPLAINED.open("rb") as file:
        entries = tomllib.load(file).get("survivor", [])
    return {(entry["file"], entry["name"]): entry["why"] for entry in entries}


def files_of(given: Sequence[str]) -> list[Path]:
    """Return the source files that rooms and files on the command line mean."""
    found = []
    for path in tree.files(".py", under="src/holdfast"):
        room, name = path.relative_to(PACKAGE).parts[0], path.name
        # Packages list names, and choosers choose: there is nothing to change.
        is_chooser = name.startswith("_") and path.with_name(f"{path.stem}_py.py").exists()
        if name == "__init__.py" or is_chooser:
            continue
        if room in given or str(path.relative_to(PACKAGE)) in given:
            found.append(path)
    return found


def run(
    files: Sequence[Path], seed: int, minutes: float | None, only: str, workers: int
) -> Outcome:
    """Try the mutants of `files` in the order of `seed`."""
    found = [each for path in files for each in mutants(path) if only in each.name]
    outcome = Outcome(list(found))
    random.Random(seed).shuffle(found)  # noqa: S311  an order that replays
    rooms = [room for room in ROOMS if any(shown(each).startswith(room + "/") for each in found)]
    suites = list(dict.fromkeys(path for room in rooms for path in (*SUITES[room], *TWINS[room])))
    start = time.monotonic()
    print(f"./dev mutate: {len(found)} mutants; running the tests without one", flush=True)
    workers = min(workers, len(found))
    warm = Warm(suites, found, workers)
    try:
        if warm.baseline.failed:
            sys.exit(f"./dev mutate: these fail without a mutant: {warm.baseline.failed}")
        end = math.inf if minutes is None else start + minutes * 60
        for mutant, result in attempts(warm, found, workers, end):
            outcome.results[mutant] = result
            if result != KILLED:
                print(f"{shown(mutant)}:{mutant.line}: {result}: {mutant.name}", flush=True)
    finally:
        warm.close()
    outcome.seconds = time.monotonic() - start
    return outcome


def table(outcome: Outcome, known: Mapping[tuple[str, str], str]) -> list[str]:
    """Return the table by file, with a line for each room and one for all."""
    lines = [
        "| file | mutants | tried | killed | time limit | survived | of these explained | killed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    names = sorted({shown(mutant) for mutant in outcome.all})
    rooms = sorted({name.partition("/")[0] for name in names})
    groups = [name for room in rooms for name in (*_below(room, names), room + "/")]
    for where in [*groups, ""]:
        tried = outcome.count(KILLED, TIME, SURVIVED, UNREACHED, where=where)
        killed = outcome.count(KILLED, TIME, where=where)
        left = [each for each in outcome.survivors() if shown(each).startswith(where)]
        cells = [
            where or "all",
            f"{sum(shown(mutant).startswith(where) for mutant in outcome.all):,}",
            f"{tried:,}",
            f"{outcome.count(KILLED, where=where):,}",
            str(outcome.count(TIME, where=where)),
            str(len(left)),
            str(sum((shown(mutant), mutant.name) in known for mutant in left)),
            percent(killed, tried),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _below(room: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(room + "/")]


def kinds(outcome: Outcome) -> list[str]:
    """Return the table by kind of change."""
    tried = Counter(mutant.kind for mutant in outcome.results)
    left = Counter(mutant.kind for mutant in outcome.survivors())
    rows = [f"| {kind} | {tried[kind]:,} | {left[kind]} |" for kind in sorted(tried)]
    return ["| change | tried | survived |", "|---|--:|--:|", *rows]


def listed(outcome: Outcome, known: Mapping[tuple[str, str], str]) -> list[str]:
    """Return the survivors with their explanations."""
    lines = []
    for mutant in outcome.survivors():
        name = mutant.name.replace("|", "\\|")
        why = known.get((shown(mutant), mutant.name), "")
        lines.append(f"| {shown(mutant)}:{mutant.line} | `{name}` | {why} |")
    return ["| where | change | why it is left |", "|---|---|---|", *lines]


def page(outcome: Outcome, command: str, known: Mapping[tuple[str, str], str]) -> str:
    """Return docs/results/mutation.md."""
    return "\n".join(
        [
            "# Measured: mutants",
            "",
            "This page was written by the command below; nothing in it was typed by hand.",
            "What is tried and what is not: [test-strength.md](../internals/test-strength.md).",
            "",
            f"    {command}",
            "",
            f"- Python: {sys.version.split()[0]}",
            f"- commit: {commit_name()}",
            f"- mutants: {len(outcome.all):,}, of which {len(outcome.results):,} were tried",
            f"- seconds: {outcome.seconds:,.0f}",
            "",
            *table(outcome, known),
            "",
            *kinds(outcome),
            "",
            "## Survivors",
            "",
            *listed(outcome, known),
            "",
        ]
    )


def _missing_commit() -> str:
    """Return why no page may be written. For a process of its own: what is changed must not be
    loaded here, or a mutant of a module's body would never be imported.
    """
    from holdfast.testing.result_page import missing_commit  # noqa: PLC0415  see above

    return missing_commit(writes=True)


def main(arguments: list[str]) -> int:
    """Run the command; returns 1 when less than 85 % of the mutants were killed."""
    parser = argparse.ArgumentParser(prog="./dev mutate", description=__doc__)
    parser.add_argument(
        "what", nargs="*", metavar="ROOM", help="a room, or a file as wal/reader.py"
    )
    parser.add_argument("--seed", type=int, default=1, help="the order of the mutants")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="how many run at a time"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="those with this in their name")
    parser.add_argument("--write", action="store_true", help="write docs/results/mutation.md")
    given = parser.parse_args(arguments)
    if given.jobs < 1 or not (given.minutes is None or 0 < given.minutes < math.inf):
        parser.error("--jobs and --minutes are finite numbers above 0")
    reason = in_child(_missing_commit) if given.write else ""
    if reason:
        parser.error(reason)
    files = files_of(given.what or ROOMS)
    if not files:
        parser.error(f"the rooms are {', '.join(ROOMS)}")
    outcome = run(files, given.seed, given.minutes, given.only, given.jobs)
    known = explanations()
    print("\n".join(table(outcome, known)))
    killed = outcome.count(KILLED, TIME)
    print(f"killed: {killed} of {len(outcome.results)} in {outcome.seconds:.0f} s")
    if given.write:
        command = f"./dev mutate {' '.join(arguments)}"
        PAGE.write_text(page(outcome, command, known), encoding="ascii")
    return 0 if killed * 100 >= len(outcome.results) * 85 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
