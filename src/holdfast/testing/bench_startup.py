"""How long a fresh interpreter takes until it can use the engine."""

from __future__ import annotations

import resource
import time

from holdfast.testing.bench_measure import Figure, Options, Rounds, fresh_python, scaled, scratch

IMPORT_MS = 40.0
MILLISECONDS = 1e3

BARE = "bare interpreter"
OPEN = "import sys, holdfast; holdfast.open(sys.argv[1]).close()"
PROGRAMS = {
    BARE: "pass",
    "import holdfast": "import holdfast",
    "import holdfast, and holdfast.open (loads the engine)": "import holdfast; holdfast.open",
    "the same, and create, close": OPEN,
    "first open: the same, and open what is there, close": OPEN,
}
WRITING = ("create", "open what")


def startup(options: Options) -> list[Figure]:
    """Fresh processes, interleaved: each program in turn, again and again.

    The rows behind the first are what each program takes more than the bare interpreter of the same
    turn. `import holdfast` alone loads little: the engine comes with the first use of its names.
    What is opened is small and was closed cleanly: a first open is the wait until it can be used.
    """
    taken: dict[str, Rounds] = {what: Rounds() for what in PROGRAMS}
    with scratch(options) as folder:
        existing = f"{folder}-existing"
        # The first start writes the bytecode of what it imports; it does not count.
        run(OPEN, existing, Rounds())
        for turn in range(options.starts):
            for what, program in PROGRAMS.items():
                fresh = f"{folder}-{turn}"
                run(program, fresh if "create" in what else existing, taken[what])
    bare = taken.pop(BARE)
    figures = [
        Figure(
            what=BARE,
            unit="ms",
            rounds=scaled(bare.wall, MILLISECONDS),
            cpu=scaled(bare.cpu, MILLISECONDS),
        )
    ]
    for what, rounds in taken.items():
        writes = any(word in what for word in WRITING)
        figures.append(
            Figure(
                what=what,
                unit="ms more",
                sync="commit" if writes else "-",
                rounds=more_than(bare.wall, rounds.wall),
                cpu=more_than(bare.cpu, rounds.cpu),
                budget=None if writes else IMPORT_MS,
            )
        )
    return figures


def more_than(bare: list[float], taken: list[float]) -> list[float]:
    """Return how many milliseconds each round took more than the bare one of the same turn."""
    return [(one - other) * MILLISECONDS for one, other in zip(taken, bare, strict=True)]


def run(program: str, folder: str, rounds: Rounds) -> None:
    """Run a program in a fresh interpreter and note its time from start to end."""
    began, cpu = time.perf_counter(), cpu_of_children()
    fresh_python(["-c", program, folder])
    rounds.wall.append(time.perf_counter() - began)
    rounds.cpu.append(cpu_of_children() - cpu)


def cpu_of_children() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
