"""`./dev histories`: what the checkers of histories find, and that they find nothing in right ones.

    ./dev histories                       every broken model, serial and concurrent right ones
    ./dev histories --seed 7 --runs 40    other histories, twice as many of each broken model
    ./dev histories --write               also docs/results/checkers.md
    ./dev histories --keep DIR            keep each history that was misjudged in DIR
    ./dev histories --check FILE          judge a history that was kept, and print the report
    ./dev histories --show "long fork"    print the report of one history of a broken model
    ./dev histories --engine              histories of the engine itself; see histories_engine

Exit status: 0 good, 1 an anomaly was missed, there was a false alarm, or FILE has an anomaly; 2
wrong usage.

How to read a report: docs/internals/histories.md.

Thread safety: none; one thread.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import get_args

from holdfast.testing import encrypted, histories_engine
from holdfast.testing.anomaly import LEVELS, READ_COMMITTED, Report
from holdfast.testing.broken_engines import (
    FAULTS,
    PROMISED,
    Model,
    broken_history,
    fault_kinds,
)
from holdfast.testing.check_small import levels_kept
from holdfast.testing.history import History, Isolation, Kind, read_history, write_history
from holdfast.testing.history_run import Load, run_steps
from holdfast.testing.judge import judge
from holdfast.testing.numbers import none_or_more, one_or_more, positive
from holdfast.testing.result_page import require_commit, result_page, write_page
from holdfast.testing.small_histories import small_histories, with_times

PAGE = "docs/results/checkers.md"
EXPLANATION = """\
A history of a broken model counts as found if the checker says that what the model promises is \
broken, and names a kind of anomaly that the fault is known for.
A history of a right model counts as a false alarm if the checker says that what the model \
promises is broken.
A small history counts as a disagreement if the checker and a trial of all orders differ on any \
level from snapshot on; half of them have random times and a few unknown outcomes.
What the faults and the kinds are: [histories.md](../internals/histories.md)."""
KINDS: tuple[Kind, ...] = get_args(Kind)
ISOLATIONS: tuple[Isolation, ...] = get_args(Isolation)
SMALL = ((2, 2, 1.0), (2, 3, 0.5), (3, 2, 0.3), (3, 3, 0.02))
"""Transactions, their operations at most, and the share of shapes and of results that is tried."""


@dataclass(slots=True)
class Tally:
    """Histories of one sort, and what was made of them."""

    histories: int = 0
    good: int = 0
    transactions: int = 0
    seconds: float = 0.0
    """Of the processor, that the checker took."""
    kinds: Counter[str] = field(default_factory=Counter)
    """In how many histories each kind was found."""
    wrong: list[tuple[str, History, Report]] = field(default_factory=list)

    def add(self, name: str, history: History, expected: frozenset[str], claim: str) -> None:
        """Judge a history: of a broken model if kinds are `expected`, else of a right one."""
        begin = time.process_time()
        report = judge(history)
        self.seconds += time.process_time() - begin
        self.histories += 1
        self.transactions += len(history.transactions)
        self.kinds.update(report.kinds())
        is_alarm = claim in report.violated()
        if is_alarm and report.kinds() & expected if expected else not is_alarm:
            self.good += 1
        else:
            self.wrong.append((name, history, report))


def broken(seed: int, runs: int) -> Iterator[tuple[str, Kind, Tally]]:
    """Yield what was found in `runs` histories of each broken model and each kind."""
    for name, fault in FAULTS.items():
        for kind in KINDS:
            expected = fault_kinds(fault, kind)
            if not expected:
                continue
            tally = Tally()
            for run in range(runs):
                history, _ = broken_history(name, kind, seed * 1_000_003 + run)
                label = f"{name}-{kind}-{run}".replace(" ", "-")
                tally.add(label, history, expected, PROMISED[fault.isolation])
            yield name, kind, tally


def serial(seed: int, kind: Kind, count: int) -> Tally:
    """Judge serial histories: of one client, with aborts, every other one with crashes."""
    tally = Tally()
    for run in range(count):
        rng = Random(f"serial {kind} {seed} {run}")
        load = Load(kind=kind, keys=rng.randint(1, 5), drift=rng.randint(2, 20))
        history = run_steps(
            Model(kind, rng),
            load,
            rng,
            clients=1,
            count=rng.randint(1, 16),
            crashes=0.02 if run % 2 else 0.0,
        )
        tally.add(f"serial-{kind}-{run}", history, frozenset(), PROMISED["serializable"])
    return tally


def right(seed: int, kind: Kind, isolation: Isolation, count: int, size: int) -> Tally:
    """Judge histories of a right model with concurrent clients and crashes."""
    tally = Tally()
    for run in range(count):
        rng = Random(f"right {kind} {isolation} {seed} {run}")
        load = Load(kind=kind, isolation=isolation, keys=rng.randint(2, 8))
        history = run_steps(
            Model(kind, rng),
            load,
            rng,
            clients=rng.randint(2, 8),
            count=size,
            crashes=0.005 if run % 2 else 0.0,
        )
        label = f"right-{kind}-{isolation}-{run}"
        tally.add(label, history, frozenset(), PROMISED[isolation])
    return tally


def small(seed: int, kind: Kind, transactions: int, operations: int, share: float) -> Tally:
    """Compare the checker with the oracle on a share of all small histories."""
    tally = Tally()
    rng = Random(f"small {kind} {transactions} {operations} {seed}")
    levels = frozenset(LEVELS) - {READ_COMMITTED}
    for history in small_histories(kind, transactions, operations, rng, share):
        for found in (history, with_times(history, rng)):
            begin = time.process_time()
            report = judge(History(kind, found))
            tally.seconds += time.process_time() - begin
            tally.histories += 1
            tally.transactions += len(found)
            if levels - report.violated() == levels_kept(found):
                tally.good += 1
            else:
                label = f"small-{kind}-{tally.histories}"
                tally.wrong.append((label, History(kind, found), report))
    return tally


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _speed(tally: Tally) -> str:
    return f"{tally.transactions / max(tally.seconds, 1e-9):,.0f}"


def _checks(given: argparse.Namespace) -> tuple[list[str], list[Tally]]:
    """Run everything; return the lines of the tables, and the tallies."""
    lines = ["## Broken models", ""]
    tallies: list[Tally] = []
    head = (
        "fault",
        "kind",
        "histories",
        "found",
        "transactions",
        "what was found, most often first",
    )
    lines += [_row(*head), "|---|---|--:|--:|--:|---|"]
    for name, kind, tally in broken(given.seed, given.runs):
        kinds = ", ".join(what for what, _ in tally.kinds.most_common(5))
        transactions = f"{tally.transactions:,}"
        lines.append(_row(name, kind, tally.histories, tally.good, transactions, kinds))
        print(lines[-1], flush=True)
        tallies.append(tally)
    found = f"{sum(tally.good for tally in tallies):,}"
    lines.append(_row("all", "", f"{sum(tally.histories for tally in tallies):,}", found, "", ""))
    lines += ["", "## Right models", ""]
    head = (
        "histories of",
        "kind",
        "histories",
        "false alarms",
        "transactions",
        "judged in a second of the processor",
    )
    lines += [_row(*head), "|---|---|--:|--:|--:|--:|"]
    for what, kind, tally in _right_tallies(given):
        alarms = tally.histories - tally.good
        numbers = f"{tally.histories:,}", alarms, f"{tally.transactions:,}", _speed(tally)
        lines.append(_row(what, kind, *numbers))
        print(lines[-1], flush=True)
        tallies.append(tally)
    lines += ["", "## Small histories and the definition", ""]
    titles = ("transactions", "operations, at most", "kind", "histories", "disagreements")
    lines += [_row(*titles), "|--:|--:|---|--:|--:|"]
    for count, operations, share in SMALL:
        for kind in KINDS:
            tally = small(given.seed, kind, count, operations, min(1, share * given.small))
            wrong = tally.histories - tally.good
            lines.append(_row(count, operations, kind, f"{tally.histories:,}", wrong))
            print(lines[-1], flush=True)
            tallies.append(tally)
    return lines, tallies


def _right_tallies(given: argparse.Namespace) -> Iterator[tuple[str, Kind, Tally]]:
    for kind in KINDS:
        yield "one client after the other", kind, serial(given.seed, kind, given.serial // 2)
    for isolation in ISOLATIONS:
        for kind in KINDS:
            tally = right(given.seed, kind, isolation, given.right, 200)
            yield f"clients at once, {isolation}", kind, tally
    for kind in KINDS:
        tally = right(given.seed, kind, "serializable", given.slices, 10_000)
        yield "slices of 10,000, serializable", kind, tally


def _keep(folder: str, tallies: Sequence[Tally]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, history, report in (one for tally in tallies for one in tally.wrong):
        path = f"{folder}/{name}.jsonl"
        with open(path, "w", encoding="ascii") as file:
            write_history(file, history)
        print(f"{path}: {', '.join(sorted(report.kinds())) or 'nothing found'}")


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    parser = argparse.ArgumentParser(prog="./dev histories", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--runs", type=one_or_more, default=20, help="of each broken model and kind"
    )
    parser.add_argument("--serial", type=none_or_more, default=100_000, help="serial histories")
    parser.add_argument(
        "--right", type=none_or_more, default=200, help="of each right model and kind"
    )
    parser.add_argument(
        "--slices", type=none_or_more, default=2, help="long histories of each kind"
    )
    parser.add_argument("--small", type=positive, default=1.0, help="more or fewer small histories")
    parser.add_argument("--keep", metavar="DIR", help="keep misjudged histories there")
    parser.add_argument("--check", metavar="FILE", help="judge the history in FILE")
    parser.add_argument("--show", metavar="FAULT", choices=list(FAULTS), help="print one report")
    parser.add_argument("--kind", choices=KINDS, default="append", help="of --show")
    parser.add_argument("--write", action="store_true", help="write the page of results")
    parser.add_argument("--engine", action="store_true", help="judge the engine, not models")
    parser.add_argument(
        "--transactions", type=one_or_more, help="of --engine; 50,000 if nothing is said"
    )
    parser.add_argument("--minutes", type=positive, help="of --engine")
    parser.add_argument("--jobs", type=one_or_more, default=2, help="of --engine: processes")
    parser.add_argument("--folder", metavar="DIR", help="of --engine: where real clients write")
    parser.add_argument("--resume", metavar="FILE", help="of --engine: go on with what FILE holds")
    parser.add_argument("--encrypted", action="store_true", help="of --engine: with a key")
    given = parser.parse_args(arguments)
    require_commit(parser, writes=given.write)
    encrypted.use(given.encrypted)
    if given.check or given.show:
        if given.check:
            with open(given.check, encoding="ascii") as file:
                history = read_history(file)
        else:
            history, _ = broken_history(given.show, given.kind, given.seed)
        report = judge(history)
        print(report)
        return 1 if report.counts else 0
    if given.engine:
        return histories_engine.run(given, shlex.join(["./dev", "histories", *arguments]))
    lines, tallies = _checks(given)
    wrong = sum(len(tally.wrong) for tally in tallies)
    print(f"{wrong} histories were misjudged")
    if given.keep and wrong:
        _keep(given.keep, tallies)
    if given.write:
        command = shlex.join(["./dev", "histories", *arguments])
        text = result_page("checkers of histories", command, lines, explanation=EXPLANATION)
        write_page(PAGE, text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
