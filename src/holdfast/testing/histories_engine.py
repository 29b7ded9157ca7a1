"""`./dev histories --engine`: histories of Holdfast itself, each judged by what its level allows.

    ./dev histories --engine                            50,000 transactions
    ./dev histories --engine --transactions 10000000    as many as that
    ./dev histories --engine --minutes 5 --seed 7       as many as there is time for, others
    ./dev histories --engine --keep DIR                 keep each history with an anomaly in DIR
    ./dev histories --engine --write                    also docs/results/histories.md

The work is cut into pieces, each of which follows from the seed and its number: some trials on
simulated machines (`history_machine`), then a run of threads or tasks of this process in a
temporary folder (`history_real`). The first kind is the same in every run.

Thread safety: none; one thread, and processes of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from holdfast.testing import encrypted
from holdfast.testing.broken_engines import PROMISED
from holdfast.testing.history import History, Isolation, write_history
from holdfast.testing.history_machine import Trial, draw_trial, run_trial
from holdfast.testing.history_real import RealRun, draw_real_run, run_real
from holdfast.testing.judge import judge
from holdfast.testing.kept import Kept
from holdfast.testing.pieces import do_pieces
from holdfast.testing.result_page import result_page, write_page

PAGE = "docs/results/histories.md"

TRIALS = 8
"""How many simulated machines there are in a piece,"""
TRIAL_TRANSACTIONS = 400
"""with so many transactions each;"""
SLICES = 5
"""and how many slices of a run on this machine,"""
SLICE_TRANSACTIONS = 4_000
"""with so many each."""

PER_SEED = 1_000_003

EXPLANATION = """\
A history counts as an anomaly if the checker says that the level which the clients asked for is \
broken: strict serializable for `serializable`, strong snapshot for `snapshot` and for histories \
in which both levels were asked for.
What is unknown after a crash or a failed sync is judged as unknown.
What the clients do and what happens to the store is in \
[histories.md](../internals/histories.md)."""


@dataclass(slots=True)
class Row:
    """Histories of one sort."""

    histories: int = 0
    transactions: int = 0
    anomalies: int = 0


@dataclass(slots=True)
class Piece:
    """What a piece of the work came to."""

    rows: dict[str, Row] = field(default_factory=dict)
    happened: dict[str, Counter[str]] = field(default_factory=dict)
    """By where it happened."""
    wrong: list[tuple[str, History, str]] = field(default_factory=list)
    """(label, history, report) of each with an anomaly that was judged in this run."""

    def judge(self, where: str, label: str, history: History, isolation: Isolation) -> None:
        """Judge a history of clients that asked for `isolation`, the weakest of theirs."""
        row = self.rows.setdefault(f"{where} | {history.kind} | {isolation}", Row())
        row.histories += 1
        row.transactions += len(history.transactions)
        report = judge(history)
        if PROMISED[isolation] in report.violated():
            row.anomalies += 1
            self.wrong.append((label, history, str(report)))

    def add(self, other: Piece) -> None:
        """Add what another piece came to."""
        for name, row in other.rows.items():
            mine = self.rows.setdefault(name, Row())
            mine.histories += row.histories
            mine.transactions += row.transactions
            mine.anomalies += row.anomalies
        for where, happened in other.happened.items():
            self.happened.setdefault(where, Counter()).update(happened)
        self.wrong += other.wrong

    @property
    def transactions(self) -> int:
        """How many transactions were judged."""
        return sum(row.transactions for row in self.rows.values())

    @property
    def anomalies(self) -> int:
        """How many histories had one."""
        return sum(row.anomalies for row in self.rows.values())


class Progress:
    """What a run came to so far, kept in the file `path` after every piece if there is one, so that
    a run of hours can be cut off and gone on with.
    """

    def __init__(self, seed: int, path: str | None, folder: str | None) -> None:
        """Raises: ValueError, as `Kept.load`."""
        self.seed = seed
        self._file = Kept(path, seed=seed, folder=folder, encrypted=encrypted.key() is not None)
        kept = self._file.load()
        self.pieces: int = kept.get("pieces", 0)
        """How many pieces are done, from the first one of the seed on."""
        self.seconds: float = kept.get("seconds", 0.0)
        self.total = Piece(
            rows={name: Row(*row) for name, row in kept.get("rows", {}).items()},
            happened={name: Counter(row) for name, row in kept.get("happened", {}).items()},
        )

    def add(self, piece: Piece, seconds: float) -> None:
        """Add the next piece, and how long the run took since the last one was added."""
        self.pieces += 1
        self.seconds += seconds
        self.total.add(piece)
        kept = {
            "pieces": self.pieces,
            "seconds": self.seconds,
            "rows": {
                name: [row.histories, row.transactions, row.anomalies]
                for name, row in self.total.rows.items()
            },
            "happened": self.total.happened,
        }
        self._file.save(kept)


def judge_trial(piece: Piece, trial: Trial) -> None:
    """Run a trial on a simulated machine, and judge it."""
    outcome = run_trial(trial)
    where = f"simulated, {trial.way}"
    piece.happened.setdefault("simulated", Counter()).update(outcome.happened)
    isolation: Isolation = "snapshot" if trial.mixes else trial.isolation
    piece.judge(where, f"machine-{trial.seed}", outcome.history, isolation)


def judge_real_run(piece: Piece, run: RealRun, folder: str | None) -> None:
    """Run clients of this process in a temporary folder within `folder`, and judge each slice."""
    where = "real, tasks" if run.awaits else "real, threads"
    with tempfile.TemporaryDirectory(prefix="holdfast-histories-", dir=folder) as place:
        for number, part in enumerate(run_real(run, os.path.join(place, "db"))):
            piece.happened.setdefault("real", Counter()).update(part.happened)
            piece.judge(where, f"real-{run.seed}-{number}", part.history, run.isolation)


def do_piece(seed: int, folder: str | None = None) -> Piece:
    """Do a piece of the work, what is on a real disk within `folder`. Raises: what no fault
    explains.
    """
    piece = Piece()
    try:
        for number in range(TRIALS):
            judge_trial(piece, draw_trial(seed * TRIALS + number, TRIAL_TRANSACTIONS))
        judge_real_run(piece, draw_real_run(seed, SLICES, SLICE_TRANSACTIONS), folder)
    except BaseException as error:
        error.add_note(f"in piece {seed}")
        raise
    return piece


def collect(
    progress: Progress,
    jobs: int,
    transactions: int | None,
    minutes: float | None,
    folder: str | None = None,
) -> None:
    """Do pieces of the work until there are so many transactions, or the time is up; None is no
    limit. Real clients write within `folder`.
    """
    total = progress.total
    began = last = time.monotonic()

    def goes_on() -> bool:
        if transactions is not None and total.transactions >= transactions:
            return False
        return minutes is None or time.monotonic() - began < 60 * minutes

    first = progress.seed * PER_SEED + progress.pieces
    pieces = ((number, folder) for number in count(first))
    for piece in do_pieces(do_piece, pieces, jobs, goes_on):
        now = time.monotonic()
        progress.add(piece, now - last)
        last = now
        print(
            f"{total.transactions:,} transactions in {progress.seconds:.0f} s, "
            f"{total.anomalies} with anomalies",
            flush=True,
        )


def tables(piece: Piece) -> list[str]:
    """Return what was done and found as tables."""
    lines = ["## Judged", ""]
    lines.append("| where, clients | kind | asked for | histories | transactions | anomalies |")
    lines.append("|---|---|---|--:|--:|--:|")
    for name, row in sorted(piece.rows.items()):
        lines.append(f"| {name} | {row.histories:,} | {row.transactions:,} | {row.anomalies:,} |")
    histories = sum(row.histories for row in piece.rows.values())
    lines.append(f"| all | | | {histories:,} | {piece.transactions:,} | {piece.anomalies:,} |")
    lines += ["", "## What happened meanwhile", "", "| | simulated | real |", "|---|--:|--:|"]
    simulated = piece.happened.get("simulated", Counter())
    real = piece.happened.get("real", Counter())
    for name in sorted({*simulated, *real}):
        lines.append(f"| {name} | {simulated[name]:,} | {real[name]:,} |")
    return lines


def keep(folder: str, piece: Piece) -> None:
    """Write each history with an anomaly into a folder."""
    os.makedirs(folder, exist_ok=True)
    for label, history, _ in piece.wrong:
        with open(f"{folder}/{label}.jsonl", "w", encoding="ascii") as file:
            write_history(file, history)
        print(f"kept {folder}/{label}.jsonl")


def run(given: argparse.Namespace, command: str) -> int:
    """Run the verb; return its exit status."""
    transactions: int | None = given.transactions
    if transactions is None and given.minutes is None:
        transactions = 50_000
    try:
        progress = Progress(given.seed, given.resume, given.folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    collect(progress, given.jobs, transactions, given.minutes, given.folder)
    total = progress.total
    print("\n".join(tables(total)))
    for label, _, report in total.wrong[:3]:
        print(f"\n{label}\n{report}")
    if given.keep and total.wrong:
        keep(given.keep, total)
    if given.write:
        text = result_page(
            "histories of the engine",
            command,
            tables(total),
            explanation=EXPLANATION,
            seconds=progress.seconds,
            folder=given.folder,
        )
        write_page(PAGE, text)
    return 1 if total.anomalies else 0
