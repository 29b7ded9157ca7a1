"""Kills `holdfast import` with SIGKILL at random moments and judges what comes back.

A life of a database: a piece of a real series is imported in small batches by a child process,
which is killed; what is there is compared with what the child had acknowledged; that is repeated,
and at last an import runs to its end and the export must equal the input. A moment is drawn as a
place in the sequence of acknowledgements, from before the first (the database is being opened or
made) to after the last (it is being closed), and a delay behind it.

After every kill the rows must be what was there before, overwritten by the first batches of the
file: at least those that were acknowledged as durable, no batch in part, and nothing else.

SIGKILL takes the process and leaves the machine: what the kernel has is kept. The power is cut by
`holdfast.testing.crash`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock, Timer
from typing import cast

import holdfast
from holdfast.cli import main as command
from holdfast.codec import pack_tuple
from holdfast.testing import encrypted
from holdfast.testing.numbers import one_or_more

SOURCE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(holdfast.__file__)))
DATA = os.path.join("..", "shared", "data", "nab")
"""Where the series are, seen from the root of a checkout."""

KEYSPACE = "series"
KILLS_PER_LIFE = 8
_BATCHES = (1, 7, 20, 100, 400)
_BATCH_COUNT_MAX = 150
_DELAY_SECONDS = 0.004
_OPENING_SECONDS = 0.06
_CLOSING_SECONDS = 0.03
_HANG_SECONDS = 120.0

SMALL = holdfast.DatabaseSettings(
    memory_bytes=1 << 20,
    wal_segment_bytes=16 << 10,
    wal_bytes_max=64 << 10,
    keyspace=holdfast.KeyspaceSettings(
        memtable_bytes=8 << 10, table_bytes=16 << 10, level1_bytes=32 << 10, page_bytes=1 << 10
    ),
)
"""Small enough for segments to rotate, memtables to be flushed and tables to be compacted."""

Pairs = dict[bytes, bytes]


class KillError(Exception):
    """A killed database came back wrong."""


@dataclass(slots=True)
class KillReport:
    """What a run did."""

    kills: int = 0
    finished: int = 0
    """Children that had ended before the signal came."""
    moments: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lives: int = 0
    recovery_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        times = sorted(self.recovery_seconds) or [0.0]
        moments = ", ".join(f"{count} {name}" for name, count in sorted(self.moments.items()))
        return (
            f"{self.kills} kills in {self.lives} lives ({moments}), {self.finished} came too late\n"
            f"{self.acknowledged} batches were acknowledged before a kill\n"
            f"reopening took {times[len(times) // 2] * 1e3:.1f} ms in the middle, "
            f"{times[-1] * 1e3:.1f} ms at most\n"
            f"{len(self.failures)} failures"
        )


@dataclass(frozen=True, slots=True)
class Series:
    """Rows of a CSV file with a header."""

    header: list[str]
    rows: list[list[str]]

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Return what an import writes, in its order."""
        return [(pack_tuple(row[:1]), pack_tuple(row[1:])) for row in self.rows]

    def exported(self) -> str:
        """Return what an export must be: rows in key order, of equal keys the last."""
        rows = {row[0].encode(): row for row in self.rows}
        lines = [self.header, *(rows[key] for key in sorted(rows))]
        return "".join(",".join(row) + "\n" for row in lines)

    def write(self, path: str) -> None:
        """Write the series as CSV."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([self.header, *self.rows])


def read_series(folder: str) -> list[Series]:
    """Return the series of all CSV files of a folder; a made one where there is none."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".csv"))
    except FileNotFoundError:
        names = []
    found = []
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        found.append(Series(header, rows))
    made = [[f"2026-11-22 {at // 60 % 24:02}:{at % 60:02}", str(at * at)] for at in range(3_000)]
    return found or [Series(["timestamp", "value"], made)]


@dataclass(slots=True)
class _Life:
    """One database, from its creation to the import that completes it."""

    folder: str
    series: Series
    chance: random.Random
    batch: int
    durability: str
    present: Pairs = field(default_factory=dict)
    is_made: bool = False

    @property
    def database(self) -> str:
        return os.path.join(self.folder, "killed.hf")

    @property
    def source(self) -> str:
        return os.path.join(self.folder, f"{KEYSPACE}.csv")

    def start(self) -> subprocess.Popen[str]:
        """Start an import."""
        arguments = ["import", self.database, self.source, "--key", self.series.header[0], "--json"]
        arguments += ["--batch", str(self.batch), "--durability", self.durability]
        arguments += encrypted.arguments()
        return subprocess.Popen(
            [sys.executable, "-m", "holdfast", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": SOURCE_ROOT},
        )

    def kill_once(self) -> tuple[bool, str, int]:
        """Run an import and kill it; return whether the signal came in time, the moment's name, and
        how many batches were acknowledged. Raises: KillError when the import itself fails.
        """
        count = -(-len(self.series.rows) // self.batch)
        share = self.chance.uniform(-0.2, 1.2)
        if share < 0:
            moment, trigger, wait = "while opening", 0, self.chance.uniform(0, _OPENING_SECONDS)
        elif share < 1:
            trigger = 1 + int(share * count)
            moment, wait = "while importing", self.chance.uniform(0, _DELAY_SECONDS)
        else:
            moment, trigger = "while closing", count + 1
            wait = self.chance.uniform(0, _CLOSING_SECONDS)
        acknowledged = 0
        child = self.start()
        watchdog = Timer(_HANG_SECONDS, child.kill)
        watchdog.daemon = True
        watchdog.start()
        with child:
            for place, line in enumerate(child.stdout or ()):
                acknowledged += json.loads(line)["event"] == "committed"
                if place == trigger:
                    time.sleep(wait)
                    child.send_signal(signal.SIGKILL)
            message = child.stderr.read() if child.stderr is not None else ""
        if watchdog.finished.is_set():
            raise KillError(f"the import hung {moment}, after {acknowledged} acknowledgements")
        watchdog.cancel()
        if child.returncode not in {0, -signal.SIGKILL}:
            raise KillError(f"the import failed with status {child.returncode}: {message}")
        return child.returncode != 0, moment, acknowledged

    def reopen(self, acknowledged: int) -> float:
        """Open the database after a kill and judge it; return how long opening took.

        Raises: KillError; what `holdfast.open` raises.
        """
        began = time.perf_counter()
        try:
            database = holdfast.open(
                self.database,
                create=False,
                read_only=self.chance.random() < 0.3,
                key=encrypted.key(),
            )
        except FileNotFoundError:
            if acknowledged or self.is_made:
                raise KillError("the database is gone") from None
            return time.perf_counter() - began
        with database:
            took = time.perf_counter() - began
            self.is_made = True
            found: Pairs = {}
            if KEYSPACE in database.keyspaces():
                rows = database.keyspace(KEYSPACE).items()
                found = dict(cast("Iterator[tuple[bytes, bytes]]", rows))
            report = database.verify()
        if not report.ok:
            raise KillError(f"{report}; {report.errors[0]}")
        self.judge(found, acknowledged if self.durability == "commit" else 0)
        self.present = found
        return took

    def judge(self, found: Pairs, acknowledged: int) -> None:
        """Compare what was found with what may be there. Raises: KillError."""
        pairs = self.series.pairs()
        rows = {key: value for key, value in found.items() if key >= b"\x10"}
        if rows and len(rows) == len(found):
            raise KillError("there are rows, but not the names of their columns")
        expected = {key: value for key, value in self.present.items() if key >= b"\x10"}
        batches = [pairs[at : at + self.batch] for at in range(0, len(pairs), self.batch)]
        for done in range(len(batches) + 1):
            if done:
                expected.update(batches[done - 1])
            if done >= acknowledged and rows == expected:
                return
        raise KillError(
            f"{len(rows)} rows are no whole batches of the file; {acknowledged} batches of "
            f"{self.batch} rows were acknowledged over {len(self.present)} earlier keys"
        )

    def complete(self) -> None:
        """Import to the end; the export must be the input. Raises: KillError."""
        child = self.start()
        _, message = child.communicate()
        if child.returncode != 0:
            raise KillError(f"the last import failed with status {child.returncode}: {message}")
        output = os.path.join(self.folder, "exported.csv")
        if command(["export", self.database, "--output", output, *encrypted.arguments()]) != 0:
            raise KillError("the export failed")
        with open(output, encoding="utf-8", newline="") as file:
            if file.read() != self.series.exported():
                raise KillError("the export is not the input")


class _Run:
    """Lives in several threads until enough kills are done."""

    def __init__(self, folder: str, series: list[Series], kills: int, seed: int) -> None:
        self._folder = folder
        self._series = series
        self._kills = kills
        self._seed = seed
        self._lock = Lock()
        self._begun = 0
        self.report = KillReport()

    def run(self, jobs: int) -> KillReport:
        """Run all lives."""
        with ThreadPoolExecutor(jobs) as pool:
            for done in [pool.submit(self._work) for _ in range(jobs)]:
                done.result()
        return self.report

    def live(self, index: int, kills: int = KILLS_PER_LIFE) -> bool:
        """Run one life, with so many kills; return whether all was well."""
        folder = os.path.join(self._folder, f"life-{index}")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        try:
            life = self._make(index, folder)
            for _ in range(kills):
                is_killed, moment, acknowledged = life.kill_once()
                took = life.reopen(acknowledged)
                with self._lock:
                    self.report.kills += is_killed
                    self.report.finished += not is_killed
                    self.report.moments[moment] += is_killed
                    self.report.acknowledged += acknowledged
                    self.report.recovery_seconds.append(took)
            life.complete()
        except (KillError, holdfast.Error, OSError) as error:
            # The folder stays, for whoever looks into it.
            with self._lock:
                self.report.failures.append(f"seed {self._seed}, life {index}, {folder}: {error}")
                self.report.lives += 1
            return False
        shutil.rmtree(folder)
        with self._lock:
            self.report.lives += 1
        return True

    def _work(self) -> None:
        while True:
            with self._lock:
                if self.report.kills >= self._kills:
                    return
                index = self._begun
                self._begun += 1
            if not self.live(index):
                # So that a run in which all lives fail ends.
                with self._lock:
                    self.report.kills += KILLS_PER_LIFE

    def _make(self, index: int, folder: str) -> _Life:
        chance = random.Random(f"{self._seed}/{index}")
        whole = self._series[index % len(self._series)]
        batch = chance.choice(_BATCHES)
        count = min(len(whole.rows), batch * _BATCH_COUNT_MAX, 3_000)
        start = chance.randrange(len(whole.rows) - count + 1)
        series = Series(whole.header, whole.rows[start : start + count])
        durability = chance.choice(["commit"] * 4 + ["interval", "none"])
        life = _Life(folder, series, chance, batch, durability)
        series.write(life.source)
        if index % 4:
            # The others are made by the import, and may be killed while they are.
            holdfast.open(life.database, settings=SMALL, key=encrypted.key()).close()
            life.is_made = True
        return life


def run_kills(folder: str, data: str, *, kills: int, seed: int, jobs: int = 2) -> KillReport:
    """Kill imports of the series in folder `data` until `kills` signals came in time.

    Lives are made in `folder`; only those that failed stay there.
    """
    return _Run(folder, read_series(data), kills, seed).run(jobs)


def run_life(folder: str, *, seed: int, index: int, kills: int = KILLS_PER_LIFE) -> KillReport:
    """Run life `index` of a run with this seed, on a series that is made, as the only one."""
    run = _Run(folder, read_series(""), kills, seed)
    run.live(index, kills)
    return run.report


def main(arguments: list[str] | None = None) -> int:
    """Run the harness; the exit status is 1 when a database came back wrong."""
    parser = argparse.ArgumentParser(prog="kills", description="Kill imports and judge the rest.")
    parser.add_argument("folder", nargs="?", help="where databases are made (default: a new one)")
    parser.add_argument("--kills", type=one_or_more, default=200, help="signals (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="behind all moments (default: 1)")
    parser.add_argument("--jobs", type=one_or_more, default=2, help="lives at a time (default: 2)")
    parser.add_argument("--data", default=DATA, help=f"CSV files to import (default: {DATA})")
    parser.add_argument("--encrypted", action="store_true", help="with a key")
    given = parser.parse_args(arguments)
    encrypted.use(given.encrypted)
    folder = given.folder or tempfile.mkdtemp(prefix="holdfast-kills-")
    os.makedirs(folder, exist_ok=True)
    print(f"kills: seed {given.seed}, in {folder}", flush=True)
    began = time.perf_counter()
    report = run_kills(folder, given.data, kills=given.kills, seed=given.seed, jobs=given.jobs)
    print(report)
    print(f"{time.perf_counter() - began:.1f} s")
    for failure in report.failures:
        print(f"FAILED: {failure}")
    if not given.folder and not report.failures:
        shutil.rmtree(folder)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
