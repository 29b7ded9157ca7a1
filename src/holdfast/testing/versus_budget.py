"""The budgets of Holdfast, each with what a run measured.

Most compare two cells of the run. What needs no peer (a bare file, recovery, a fresh interpreter)
is taken from the workloads of `./dev bench`, which run after the others.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from holdfast.testing.bench import run_in_child
from holdfast.testing.bench_measure import MIB, Figure, Options
from holdfast.testing.versus_child import Cell
from holdfast.testing.versus_run import Failure, Run
from holdfast.testing.versus_store import ENCRYPTED, OURS

ROCKSDB = "rocksdict"
LMDB = "lmdb"
AT_LEAST, AT_MOST = ">=", "<="

ALONE = {
    "tiny": ("commit",),
    "small": ("commit", "replay", "startup"),
    "full": ("commit", "replay", "recovery", "startup"),
}
"""The workloads of `./dev bench` that have a budget here, by scale."""

OPTIONS = {
    "tiny": Options(rounds=1, starts=1, commits=10),
    "small": Options(rounds=3, starts=5, commits=300, replay_bytes=16 * MIB),
    "full": Options(rounds=5, starts=11, commits=2_000, replay_bytes=64 * MIB),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One line: what was promised and what was measured."""

    what: str
    sign: str
    bound: float
    unit: str
    measured: float | None
    """None: not measured in this run."""

    @property
    def verdict(self) -> str:
        """Whether it is met."""
        if self.measured is None:
            return "not measured"
        is_met = self.measured >= self.bound
        if self.sign == AT_MOST:
            is_met = self.measured <= self.bound
        return "met" if is_met else "missed"

    def to_plain(self) -> dict[str, object]:
        """Return a dictionary that JSON can hold."""
        return {**asdict(self), "verdict": self.verdict}


def of_rates(run: Run, what: str, bound: float, ours: str, engine: str, theirs: str) -> Budget:
    """Return a budget of the rate of our workload to that of another one, or of another engine."""
    one, other = run.median(ours, OURS), run.median(theirs, engine)
    measured = one.rate / other.rate if one and other else None
    return Budget(what=what, sign=AT_LEAST, bound=bound, unit="times", measured=measured)


def budgets(run: Run, engines: Sequence[str]) -> list[Budget]:
    """Return the budgets that compare cells of a run."""
    rate = partial(of_rates, run)

    def ahead(what: str, workload: str) -> Budget:
        best = run.best_peer(workload, engines)
        ratio = run.ratio(workload, best) if best else None
        return Budget(what=what, sign=AT_LEAST, bound=1.0, unit="times", measured=ratio)

    def compared(what: str, workload: str, figure: Callable[[Cell], float | None]) -> Budget:
        one, other = run.median(workload, OURS), run.median(workload, ROCKSDB)
        ours = figure(one) if one else None
        theirs = figure(other) if other else None
        measured = ours / theirs if ours is not None and theirs else None
        return Budget(what=what, sign=AT_MOST, bound=1.0, unit="times", measured=measured)

    def sealed(what: str, workload: str, bound: float) -> Budget:
        return Budget(
            what=f"{what}, time with a key to without",
            sign=AT_MOST,
            bound=bound,
            unit="times",
            measured=run.ratio(workload, ENCRYPTED),
        )

    in_order = run.median("fill-sequential", OURS)
    return [
        rate("put in order, to RocksDB", 4.0, "fill-sequential", ROCKSDB, "fill-sequential"),
        rate("put in random order, to RocksDB", 4.0, "fill-random", ROCKSDB, "fill-random"),
        ahead("durable commit, to the best peer", "commit"),
        rate("64 threads, to one", 5.0, "commit-threads", OURS, "commit"),
        ahead("64 threads, to the best peer", "commit-threads"),
        rate("1,000 tasks, to one thread", 25.0, "commit-tasks", OURS, "commit"),
        rate("hot get, to LMDB", 1.0, "get-hot", LMDB, "get-hot"),
        rate("hot get, to RocksDB", 2.0, "get-hot", ROCKSDB, "get-hot"),
        rate("cold get, to RocksDB", 1.0, "get-cold", ROCKSDB, "get-cold"),
        rate("scan row by row, to LMDB", 1.0, "scan", LMDB, "scan"),
        rate("scan in batches, to LMDB's row by row", 3.0, "scan-columns", LMDB, "scan"),
        rate(
            "64 threads of transactions, to commits",
            0.85,
            "transactions-threads",
            OURS,
            "commit-threads",
        ),
        rate(
            "YCSB F serializable, to snapshot",
            1 / 1.3,
            "ycsb-f-serializable",
            OURS,
            "ycsb-f-snapshot",
        ),
        ahead("transaction, to the best peer", "transactions"),
        sealed("pool reads", "get-hot", 1.05),
        sealed("cold get", "get-cold", 1.15),
        sealed("load of sorted rows", "fill-ingest", 1.25),
        sealed("put in random order", "fill-random", 1.25),
        compared("write amplification of overwrites, to RocksDB", "overwrite", amplification),
        Budget(
            what="write amplification of keys in order",
            sign=AT_MOST,
            bound=2.2,
            unit="times",
            measured=amplification(in_order) if in_order else None,
        ),
        compared("space after overwrites, to RocksDB", "overwrite", lambda one: one.space_bytes),
        compared("p99.9 of overwrites, to RocksDB", "overwrite", lambda cell: cell.p999),
        compared("slowest overwrite, to RocksDB", "overwrite", lambda cell: cell.max),
    ]


def amplification(cell: Cell) -> float | None:
    """Return the bytes written for each byte of keys and values that the workload wrote."""
    if cell.written_bytes is None or not cell.user_bytes:
        return None
    return cell.written_bytes / cell.user_bytes


def measure_alone(scale: str, folder: str) -> tuple[list[Budget], list[Failure]]:
    """Run the workloads of `./dev bench` that have budgets here; return what they gave."""
    made: list[Budget] = []
    failures = []
    for name in ALONE[scale]:
        try:
            figures = run_in_child(name, replace(OPTIONS[scale], folder=folder))
        except subprocess.CalledProcessError as error:
            failures.append(Failure(workload=name, engine=OURS, reason=str(error)))
            continue
        made += [of_figure(figure) for figure in figures if figure.budget is not None]
    return made, failures


def of_figure(figure: Figure) -> Budget:
    """Return the budget that a figure of `./dev bench` carries."""
    return Budget(
        what=figure.what,
        sign=AT_LEAST if figure.at_least else AT_MOST,
        bound=figure.budget or 0.0,
        unit=figure.unit,
        measured=figure.median,
    )
