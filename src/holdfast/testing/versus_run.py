"""The parent of `holdfast bench`: runs cells in fresh processes, in turn, and gathers them.

For each workload, rounds follow one another; in each round every engine has a process of its own,
and the order of the engines moves on from round to round, so that what changes on the machine
meanwhile falls on all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from holdfast.testing.kept import Kept
from holdfast.testing.versus_child import Cell, Order
from holdfast.testing.versus_store import ENCRYPTED, OURS, load
from holdfast.testing.versus_workload import WORKLOADS

CELL_SECONDS = 3600.0
"""A process that takes longer hangs."""

MEDIANS = ("rate", "busy_rate", "p50", "p99", "p999", "max", "cpu", "peak_bytes")
COUNTERS = ("written_bytes", "dirtied_bytes", "device_bytes")


@dataclass(slots=True, kw_only=True)
class Failure:
    """A cell that gave nothing."""

    workload: str
    engine: str
    reason: str


@dataclass(slots=True)
class Run:
    """All cells of a run."""

    cells: list[Cell] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Sentences: what was asked for and could not be measured here, and why."""
    seconds: float = 0.0

    def rounds(self, workload: str, engine: str) -> list[Cell]:
        """Return the rounds of a workload with an engine."""
        return [cell for cell in self.cells if cell.workload == workload and cell.engine == engine]

    def median(self, workload: str, engine: str) -> Cell | None:
        """Return a cell with the median of each figure, None when there is none."""
        rounds = self.rounds(workload, engine)
        if not rounds:
            return None
        made = Cell(**asdict(rounds[0]))
        for name in MEDIANS:
            setattr(made, name, statistics.median(getattr(cell, name) for cell in rounds))
        for name in COUNTERS:
            known = [count for cell in rounds if (count := getattr(cell, name)) is not None]
            setattr(made, name, int(statistics.median(known)) if known else None)
        made.space_bytes = int(statistics.median(cell.space_bytes for cell in rounds))
        return made

    def ratio(self, workload: str, engine: str) -> float | None:
        """Return how many times an engine's rate Holdfast's is."""
        ours, theirs = self.median(workload, OURS), self.median(workload, engine)
        return ours.rate / theirs.rate if ours and theirs else None

    def best_peer(self, workload: str, engines: Sequence[str]) -> str | None:
        """Return the peer with the highest rate."""
        rates = {
            engine: cell.rate
            for engine in engines
            if engine not in {OURS, ENCRYPTED} and (cell := self.median(workload, engine))
        }
        return max(rates, key=rates.__getitem__) if rates else None

    def to_plain(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return {
            "seconds": round(self.seconds, 1),
            "left_out": self.left_out,
            "failures": [asdict(failure) for failure in self.failures],
            "cells": [asdict(cell) for cell in self.cells],
        }


class Runner:
    """Runs workloads with engines."""

    def __init__(
        self,
        *,
        engines: Sequence[str],
        workloads: Sequence[str],
        rounds: int,
        scale: str,
        seed: int,
        folder: str,
        kept: Kept,
    ) -> None:
        """Raises: ValueError, as `Kept.load`."""
        self._kept = kept
        known = kept.load()
        self._known = {
            (each["round"], *_names(each["cell"])): each for each in known.get("cells", [])
        }
        """What was measured before, as JSON has it, by round, workload and engine."""
        self._seconds_before: float = known.get("seconds", 0.0)
        self._engines = list(engines)
        self._workloads = list(workloads)
        self._rounds = rounds
        self._scale = scale
        self._seed = seed
        self._folder = folder
        self._loaded: dict[tuple[str, str], str] = {}
        self._began = time.monotonic()
        self._done = 0
        self.run = Run()

    def __call__(self) -> Iterator[str]:
        """Run everything; yields each workload's name when its rounds are done."""
        os.makedirs(self._folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=self._folder) as scratch:
            for workload in self._workloads:
                self._workload(workload, scratch)
                self.run.seconds = self._seconds()
                yield workload

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _workload(self, workload: str, scratch: str) -> None:
        engines = [engine for engine in self._engines if self._has(workload, engine)]
        for number in range(self._rounds):
            turn = number % len(engines) if engines else 0
            for engine in [*engines[turn:], *engines[:turn]]:
                self._tell(workload, engine, number)
                try:
                    self._cell(workload, engine, number, scratch)
                except subprocess.SubprocessError as error:
                    reason = last_line(error)
                    failure = Failure(workload=workload, engine=engine, reason=reason)
                    self.run.failures.append(failure)
                self._done += 1
        self._wipe()

    def _has(self, workload: str, engine: str) -> bool:
        """Whether an engine can run a workload; says so when not."""
        if WORKLOADS[workload].opens or load(engine).has_tasks():
            return True
        self.run.left_out.append(f"{workload} with {engine}: it has no interface for asyncio here")
        return False

    def _cell(self, workload: str, engine: str, number: int, scratch: str) -> None:
        known = self._known.get((number, workload, engine))
        if known is None:
            cell = self._measure(workload, engine, number, scratch)
            known = self._known[number, workload, engine] = {"round": number, "cell": asdict(cell)}
            self._kept.save({"seconds": self._seconds(), "cells": list(self._known.values())})
        self.run.cells.append(Cell(**known["cell"]))

    def _measure(self, workload: str, engine: str, number: int, scratch: str) -> Cell:
        data = WORKLOADS[workload].data
        order = Order(
            engine=engine,
            workload=workload,
            data=self._load(engine, data, scratch) if data else "",
            folder=os.path.join(scratch, "cell"),
            scale=self._scale,
            seed=self._seed + number,
        )
        try:
            return Cell(**json.loads(spawn(order)))
        finally:
            shutil.rmtree(order.folder, ignore_errors=True)

    def _load(self, engine: str, dataset: str, scratch: str) -> str:
        """Return the folder of a loaded database, which is made when it is first asked for."""
        if (engine, dataset) not in self._loaded:
            folder = os.path.join(scratch, f"{engine}-{dataset}")
            order = Order(
                engine=engine, dataset=dataset, folder=folder, scale=self._scale, seed=self._seed
            )
            spawn(order)
            self._loaded[engine, dataset] = folder
        return self._loaded[engine, dataset]

    def _tell(self, workload: str, engine: str, number: int) -> None:
        """Say what runs, to a person."""
        if sys.stderr is None or not sys.stderr.isatty():
            return
        total = len(self._workloads) * len(self._engines) * self._rounds
        seconds = int(time.monotonic() - self._began)
        line = (
            f"{self._done:4} of {total}, {seconds // 60}:{seconds % 60:02}  "
            f"{workload}, {engine}, round {number + 1}"
        )
        sys.stderr.write(f"\r{line:<70}")
        sys.stderr.flush()

    def _wipe(self) -> None:
        """Take the line away, so that what is printed next stands alone."""
        if sys.stderr is not None and sys.stderr.isatty():
            sys.stderr.write(f"\r{'':<70}\r")
            sys.stderr.flush()


def _names(cell: dict[str, Any]) -> tuple[str, str]:
    return cell["workload"], cell["engine"]


def spawn(order: Order) -> str:
    """Let a fresh process follow an order; return what it printed.

    Raises: CalledProcessError, TimeoutExpired.
    """
    variables = dict(os.environ)
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "holdfast.testing.versus_child", json.dumps(asdict(order))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=variables, timeout=CELL_SECONDS
    )
    return done.stdout


def last_line(error: subprocess.SubprocessError) -> str:
    """Return the reason that a process gave before it ended."""
    text = ""
    with contextlib.suppress(AttributeError):
        text = str(error.stderr or "").strip()  # type: ignore[attr-defined]  # both kinds have it
    return text.splitlines()[-1] if text else str(error)
