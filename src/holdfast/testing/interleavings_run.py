"""`./dev interleavings`: every interleaving of a scope, in processes beside each other.

    ./dev interleavings                              the scopes small and deletes
    ./dev interleavings --scope whole --jobs 2       that of three operations: hours
    ./dev interleavings --scope whole --minutes 5    so much of it, the sets drawn at random
    ./dev interleavings --resume FILE                goes on where FILE says, after Ctrl-C too
    ./dev interleavings --write                      also docs/results/interleavings.md

Exit status: 0 good, 1 a run was not as the definition has it; 2 wrong usage.

Thread safety: none; one thread, and processes of its own.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from random import Random

from holdfast.testing import encrypted
from holdfast.testing.interleavings import SCOPES, Arena, Tally, judge_set, sets_of_programs
from holdfast.testing.kept import Kept
from holdfast.testing.numbers import one_or_more, positive
from holdfast.testing.pieces import do_pieces
from holdfast.testing.result_page import require_commit, result_page, write_page

PAGE = "docs/results/interleavings.md"

CHUNK = 100
"""So many sets of programs are one piece of work."""

FAULTS_SHOWN = 10

EXPLANATION = """\
What a scope has, what is left out because it could not differ, and how a run is judged is in \
`src/holdfast/testing/interleavings.py`.
A run has keys of its own in a database that others used before; a fault is a run that no serial \
order explains, or in which another transaction lost than the definition says."""


@cache
def _sets(scope: str, seed: int) -> list[tuple[str, ...]]:
    """Return the sets of a scope, in an order that the seed decides."""
    found = list(sets_of_programs(SCOPES[scope]))
    Random(seed).shuffle(found)
    return found


def _piece(scope: str, seed: int, first: int) -> Tally:
    tally = Tally()
    with Arena() as arena:
        for chosen in _sets(scope, seed)[first : first + CHUNK]:
            judge_set(arena, chosen, tally)
    return tally


class Progress:
    """What the scopes of a run came to so far, kept in the file `path` if there is one."""

    def __init__(self, seed: int, path: str | None) -> None:
        """Raises: ValueError, as `Kept.load`."""
        self._file = Kept(path, seed=seed, encrypted=encrypted.key() is not None)
        kept = self._file.load()
        self.seconds: float = kept.get("seconds", 0.0)
        self.tallies = {name: Tally(**tally) for name, tally in kept.get("scopes", {}).items()}

    def add(self, scope: str, tally: Tally, seconds: float) -> Tally:
        """Add the next piece of a scope, which took so long; return what the scope came to."""
        total = self.tallies.setdefault(scope, Tally())
        total.add(tally)
        self.seconds += seconds
        kept = {
            "seconds": self.seconds,
            "scopes": {name: asdict(each) for name, each in self.tallies.items()},
        }
        self._file.save(kept)
        return total


def explore(
    scope: str, seed: int, jobs: int, minutes: float | None, progress: Progress
) -> tuple[Tally, int]:
    """Run what is left of a scope, or as much of it as there is time for; return what came of it,
    and how many sets there are.
    """
    count = len(_sets(scope, seed))
    total = progress.tallies.get(scope, Tally())
    began = last = time.monotonic()
    told = 0.0
    # Pieces come in their order, and each but the last has as many sets.
    pieces = ((scope, seed, at) for at in range(total.sets, count, CHUNK))
    for tally in do_pieces(
        _piece, pieces, jobs, lambda: minutes is None or time.monotonic() - began < 60 * minutes
    ):
        now = time.monotonic()
        total = progress.add(scope, tally, now - last)
        last = now
        if now - began > told + 10:
            told = now - began
            print(f"{scope}: {total.sets:,} of {count:,} sets, {total.runs:,} runs", flush=True)
    return total, count


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    parser = argparse.ArgumentParser(prog="./dev interleavings", description=__doc__.split("\n")[0])
    parser.add_argument("--scope", action="append", choices=list(SCOPES), help="may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the sets")
    parser.add_argument("--minutes", type=positive, help="for each scope")
    parser.add_argument("--jobs", type=one_or_more, default=2, help="processes")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    parser.add_argument("--resume", metavar="FILE", help="go on with what FILE holds")
    parser.add_argument("--encrypted", action="store_true", help="with a key")
    given = parser.parse_args(arguments)
    require_commit(parser, writes=given.write)
    encrypted.use(given.encrypted)
    try:
        progress = Progress(given.seed, given.resume)
    except ValueError as error:
        parser.error(str(error))
    rows = [
        "| scope | operations | in one | transactions | sets | run | runs | grouped | lost | bad |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    faults: list[str] = []
    for name in given.scope or ["small", "deletes"]:
        tally, count = explore(name, given.seed, given.jobs, given.minutes, progress)
        scope = SCOPES[name]
        rows.append(
            f"| {name} | {' '.join(scope.alphabet)} | {scope.operations} | {scope.transactions} "
            f"| {count:,} | {tally.sets:,} | {tally.runs:,} | {tally.grouped:,} | {tally.lost:,} "
            f"| {len(tally.faults)} |"
        )
        faults += tally.faults
    print("\n".join([*rows, *faults[:FAULTS_SHOWN]]))
    if given.write:
        command = shlex.join(["./dev", "interleavings", *arguments])
        write_page(
            PAGE,
            result_page(
                "every interleaving of small transactions",
                command,
                rows,
                explanation=EXPLANATION,
                seconds=progress.seconds,
            ),
        )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
