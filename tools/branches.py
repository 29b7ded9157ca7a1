"""Line and branch coverage of the rooms that decide what survives, and of every plain twin.

`./dev coverage [rooms] [--write]` runs the suites that concern them once with the compiled kernels
and, for what only then runs, once with the plain twins; prints a table and what no test reached,
and fails when a file is below 100 % of its branches. `--write` writes docs/results/coverage.md.

A line that no input can reach ends in `# unreachable: reason` and does not count; the table says
how many of them a file has.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools import tree

ROOMS = ("recovery", "manifest", "wal", "codec")
PAGE = tree.ROOT / "docs" / "results" / "coverage.md"
DATA = tree.ROOT / "build" / "coverage"
PRAGMA = r"# unreachable: \S"

SUITES = {
    "recovery": (
        "tests/unit/recovery",
        "tests/unit/engine/test_encrypted.py",
        "tests/unit/engine/test_key_files.py",
        "tests/unit/engine/test_rekey.py",
    ),
    "manifest": (
        "tests/unit/manifest",
        "tests/format/test_manifest.py",
        "tests/hostile/test_sealed_attacks.py",
    ),
    "wal": (
        "tests/unit/wal",
        "tests/format/test_wal.py",
        "tests/unit/engine/test_changes.py",
        "tests/unit/engine/test_rekey_log.py",
        "tests/hostile/test_sealed_attacks.py",
    ),
    "codec": ("tests/unit/codec", "tests/format/test_page.py", "tests/format/test_tuple.py"),
}
TWINS = ("tests/twin",)
PLAIN = ("tests/unit/recovery", "tests/unit/wal/test_format.py")
"""Run with HOLDFAST_PURE=1 as well: the choosers have a branch that only then is taken."""


@dataclass(frozen=True, slots=True)
class Covered:
    """What the tests reached of one file."""

    path: str
    lines: int
    lines_run: int
    branches: int
    branches_run: int
    excluded: int
    missing: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether no line and no branch is left."""
        return self.lines == self.lines_run and self.branches == self.branches_run


def wanted(rooms: Iterable[str]) -> list[str]:
    """Return the files that the table lists: those of the rooms, and all plain twins."""
    names = []
    for path in tree.files(".py", under="src/holdfast"):
        room = path.relative_to(tree.ROOT / "src" / "holdfast").parts[0]
        if room in rooms or re.fullmatch(r"_\w+_py\.py", path.name):
            names.append(tree.shown(path))
    return names


def measure(what: str, paths: Iterable[str], variables: dict[str, str]) -> int:
    """Run the tests in `paths` under coverage; returns the exit status of pytest."""
    print(f"./dev coverage: {what}", flush=True)
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={DATA / 'rc'}", "-m", "pytest"]
    return subprocess.run(
        [*command, "-q", "--no-header", "-p", "no:cacheprovider", *paths],
        cwd=tree.ROOT, env={**os.environ, **variables}, check=False,
    ).returncode  # fmt: skip


def prepare() -> None:
    """Forget earlier measurements and write coverage's settings."""
    DATA.mkdir(parents=True, exist_ok=True)
    for old in DATA.glob("data*"):
        old.unlink()
    lines = [
        "[run]",
        "branch = true",
        "core = ctrace",
        "parallel = true",
        "source = src/holdfast",
        f"data_file = {DATA / 'data'}",
        "[report]",
        f"exclude_also = {PRAGMA}",
    ]
    (DATA / "rc").write_text("\n".join(lines) + "\n", encoding="ascii")


def collect(files: Iterable[str]) -> list[Covered]:
    """Return what the measurements since `prepare` say of `files`."""
    rc, out = f"--rcfile={DATA / 'rc'}", str(DATA / "coverage.json")
    for words in (["combine", "-q", rc], ["json", "-q", rc, "-o", out, "-i"]):
        subprocess.run([sys.executable, "-m", "coverage", *words], cwd=tree.ROOT, check=True)
    with open(out, encoding="utf-8") as file:
        found = json.load(file)["files"]
    return [covered(path, found.get(path)) for path in files]


def covered(path: str, entry: dict[str, object] | None) -> Covered:
    """Return one file's row from coverage's JSON; a file that was never imported has no entry."""
    if entry is None:
        return Covered(path, 1, 0, 0, 0, 0, ("the file",))
    numbers: dict[str, int] = entry["summary"]  # type: ignore[assignment]  # plain JSON
    lines: list[int] = entry["missing_lines"]  # type: ignore[assignment]  # plain JSON
    branches: list[list[int]] = entry["missing_branches"]  # type: ignore[assignment]  # plain JSON
    missing = [str(line) for line in lines]
    missing += [
        f"{source}->{'exit' if target < 0 else target}"
        for source, target in branches
        if source not in lines and target not in lines
    ]
    return Covered(
        path,
        lines=numbers["num_statements"],
        lines_run=numbers["covered_lines"],
        branches=numbers["num_branches"],
        branches_run=numbers["covered_branches"],
        excluded=len(re.findall(PRAGMA, Path(tree.ROOT, path).read_text(encoding="ascii"))),
        missing=tuple(missing),
    )


def percent(part: int, whole: int) -> str:
    """Return a share with one digit, rounded down: only what is whole is 100 %."""
    return f"{part * 1000 // whole / 10:.1f} %" if whole else "100.0 %"


def table(rows: list[Covered]) -> list[str]:
    """Return the table, with a line for all files and the places that no test reached."""
    lines = [
        "| file | lines | run | branches | taken | unreachable | not reached |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    total = Covered(
        "all",
        lines=sum(row.lines for row in rows),
        lines_run=sum(row.lines_run for row in rows),
        branches=sum(row.branches for row in rows),
        branches_run=sum(row.branches_run for row in rows),
        excluded=sum(row.excluded for row in rows),
        missing=(),
    )
    for row in [*rows, total]:
        cells = [
            row.path.removeprefix("src/holdfast/"),
            f"{row.lines:,}",
            percent(row.lines_run, row.lines),
            f"{row.branches:,}",
            percent(row.branches_run, row.branches),
            str(row.excluded),
            ", ".join(row.missing),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def page(rows: list[Covered], rooms: list[str], commit: str) -> str:
    """Return docs/results/coverage.md."""
    return "\n".join(
        [
            "# Measured: coverage",
            "",
            "This page was written by the command below; nothing in it was typed by hand.",
            "What is measured and how: [test-strength.md](../internals/test-strength.md).",
            "",
            f"    ./dev coverage {' '.join(rooms)} --write",
            "",
            f"- Python: {sys.version.split()[0]}",
            f"- commit: {commit}",
            "",
            *table(rows),
            "",
        ]
    )


def commit_name() -> str:
    """Return the commit that was measured, and whether the sources differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=10", "--dirty"],
        cwd=tree.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="./dev coverage", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; or all")
    parser.add_argument("--write", action="store_true", help="write docs/results/coverage.md")
    given = parser.parse_args(arguments)
    from holdfast.testing.result_page import require_commit  # noqa: PLC0415  `mutate` loads this

    require_commit(parser, writes=given.write)
    rooms: list[str] = given.rooms or list(ROOMS)
    if set(rooms) - set(ROOMS):
        parser.error(f"the rooms are {', '.join(ROOMS)}")
    prepare()
    suites = [path for room in rooms for path in SUITES[room]]
    status = measure("compiled kernels", [*suites, *TWINS], {})
    status = measure("plain twins", PLAIN, {"HOLDFAST_PURE": "1"}) or status
    rows = collect(wanted(rooms))
    print("\n".join(table(rows)))
    if given.write:
        PAGE.write_text(page(rows, rooms, commit_name()), encoding="ascii")
    return status or (0 if all(row.is_whole for row in rows) else 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
