"""What every workload of the bench uses: options, figures, rounds, input data, folders.

A figure is a list of rounds, so that the report can show their minimum, median and maximum. A round
is taken alone and then, where the workload asks for it, beside one thread that only computes: it
holds the interpreter lock whenever it can get it, which is what a busy application does to an
engine.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from holdfast.engine import Database

KEY_BYTES = 16
VALUE_BYTES = 100
ROW_BYTES = KEY_BYTES + VALUE_BYTES
MIB = 1 << 20
MICROSECONDS = 1e6
VALUES_KEPT = 4096

VALUE_KINDS = ("incompressible", "half-compressible")
"""Values of random bytes, and values whose second half is zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much each workload does."""

    folder: str = "build"
    count: int = 1_000_000
    """Rows of put, get and scan."""
    reads: int = 200_000
    """Lookups of one round."""
    rounds: int = 5
    starts: int = 11
    """Fresh processes of each kind."""
    commits: int = 1_000
    """Durable commits of one round."""
    threads: int = 64
    replay_bytes: int = 64 * MIB
    load_bytes: int = 2 * 10**9
    seed: int = 1

    def to_plain(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Figure:
    """One row of the report."""

    what: str
    unit: str
    rounds: list[float]
    sync: str = "-"
    """The durability of its writes: commit, none, or - when nothing is written."""
    cpu: list[float] = field(default_factory=list)
    """CPU time of the process in the same unit, all its threads together; empty: not taken."""
    beside: list[float] = field(default_factory=list)
    """The rounds beside a busy thread; empty: not taken."""
    budget: float | None = None
    at_least: bool = False
    """Whether the budget is a lower bound."""
    note: str = ""

    @property
    def median(self) -> float:
        """The figure that is compared with the budget."""
        return statistics.median(self.rounds)

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps within the budget; None when there is no budget."""
        if self.budget is None:
            return None
        return self.median >= self.budget if self.at_least else self.median <= self.budget

    def with_budget(
        self, budget: float | None, *, at_least: bool = False, note: str = ""
    ) -> Figure:
        """Return the figure with a budget and a note."""
        return replace(self, budget=budget, at_least=at_least, note=note or self.note)

    def to_plain(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return asdict(self)


@dataclass(slots=True)
class Rounds:
    """The rounds of one piece of work, in seconds a unit."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], int]) -> None:
        """Do the work alone; it returns how many units it did."""
        wall, cpu, units = timed(work)
        self.wall.append(wall / units)
        self.cpu.append(cpu / units)

    def take_beside(self, work: Callable[[], int]) -> None:
        """Do the work beside a busy thread."""
        with busy_thread():
            wall, _, units = timed(work)
        self.beside.append(wall / units)

    def figure(self, what: str, unit: str, *, sync: str = "-") -> Figure:
        """Return the figure in microseconds a unit."""
        return Figure(
            what=what,
            unit=unit,
            sync=sync,
            rounds=scaled(self.wall, MICROSECONDS),
            cpu=scaled(self.cpu, MICROSECONDS),
            beside=scaled(self.beside, MICROSECONDS),
        )


def scaled(values: list[float], factor: float) -> list[float]:
    """Return the values times a factor."""
    return [value * factor for value in values]


def quotients(above: list[float], below: list[float]) -> list[float]:
    """Return the quotient of each pair of neighbouring rounds."""
    return [one / other for one, other in zip(above, below, strict=True)]


def timed(work: Callable[[], int]) -> tuple[float, float, int]:
    """Return wall seconds, CPU seconds of the process, and what the work returned."""
    began, cpu = time.perf_counter(), time.process_time()
    units = work()
    return time.perf_counter() - began, time.process_time() - cpu, units


def rounds_of(count: int, *works: Callable[[], int], slices: int = 1) -> list[Rounds]:
    """Take `count` rounds of each work, interleaved: all of them alone, all of them beside.

    A round is the sum of `slices` calls. The works take turns slice by slice, so that what changes
    on the machine meanwhile falls on all of them.
    """
    taken = [Rounds() for _ in works]
    for _ in range(count):
        for rounds, (wall, cpu, units) in zip(taken, turns(slices, works), strict=True):
            rounds.wall.append(wall / units)
            rounds.cpu.append(cpu / units)
        with busy_thread():
            for rounds, (wall, _, units) in zip(taken, turns(slices, works), strict=True):
                rounds.beside.append(wall / units)
    return taken


def turns(slices: int, works: Sequence[Callable[[], int]]) -> list[tuple[float, float, int]]:
    """Do each work in turn, `slices` times; return the sums of wall, CPU and units of each."""
    sums = [(0.0, 0.0, 0)] * len(works)
    for _ in range(slices):
        for index, work in enumerate(works):
            wall, cpu, units = timed(work)
            before = sums[index]
            sums[index] = (before[0] + wall, before[1] + cpu, before[2] + units)
    return sums


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """Run one thread that only computes in Python."""
    stopping = False

    def compute() -> None:
        number = 0
        while not stopping:
            for _ in range(1_000):
                number = (number * 31 + 7) % 1_000_003

    thread = threading.Thread(target=compute, name="busy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping = True
        thread.join()


@contextlib.contextmanager
def scratch(options: Options) -> Iterator[str]:
    """Give a folder for one database, on the disk under test, and remove it afterwards."""
    os.makedirs(options.folder, exist_ok=True)
    outer = tempfile.mkdtemp(prefix="bench-", dir=options.folder)
    try:
        yield os.path.join(outer, "db")
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def fresh_python(arguments: Sequence[str]) -> str:
    """Run a fresh interpreter that finds what this one finds; return what it printed.

    Raises: CalledProcessError when it fails.
    """
    variables = dict(os.environ)
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    # An interpreter that keeps no bytecode compiles everything at every start.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=variables)
    return done.stdout


def settle(database: Database) -> None:
    """Flush, and wait until no compaction is left to do."""
    database.flush()
    database._engine.upkeep.wait_idle()  # noqa: SLF001  users need not wait for it


def sequential_keys(count: int) -> list[bytes]:
    """Return keys in order; neighbours share all but their last digits, as real keys do."""
    return [b"%016d" % number for number in range(count)]


def values_of(kind: str, seed: int) -> list[bytes]:
    """Return values of one kind, enough of them that no page holds many twice."""
    source = random.Random(seed)
    filled = VALUE_BYTES if kind == "incompressible" else VALUE_BYTES // 2
    return [source.randbytes(filled) + bytes(VALUE_BYTES - filled) for _ in range(VALUES_KEPT)]


def fill(database: Database, keys: list[bytes], values: list[bytes]) -> int:
    """Put all keys without a sync; return their number."""
    put = database.put
    for key, value in zip(keys, itertools.cycle(values), strict=False):
        put(key, value, durability="none")
    return len(keys)


def resident_bytes() -> int:
    """Return what the process holds in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_resident_bytes() -> int:
    """Return the most that the process ever held in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
