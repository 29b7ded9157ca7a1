"""The main job on real input: record, be killed, come back, and show that nothing is missing.

A child process records this machine's own telemetry and replays ten real time series, with durable
commits in small batches; after each commit it tells its parent, through a pipe, which samples are
acknowledged. The parent kills it with SIGKILL at a random moment, opens the database, measures how
long that takes, and checks that every acknowledged sample of all rounds is there with the right
value, that no batch is there in part, and that every byte verifies. Three rounds; then a picture of
one series and the figures of the run. The exit status is 1 when anything is missing.

Every sample carries the number and the size of its batch, so that a batch in part would show. The
time of a commit is compared with a bare write and fdatasync of as many bytes, into a preallocated
file of the same folder, measured by the same process every few commits.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import cast

import holdfast
from holdfast.codec import checksum, pack_tuple, unpack_tuple
from holdfast.testing import encrypted

SOURCE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(holdfast.__file__)))
DATA = os.path.join("..", "shared", "data", "nab")
"""Where the series are, seen from the root of a checkout."""

ROUNDS = 3
SECONDS_MIN, SECONDS_MAX = 0.8, 2.2
"""A round is killed so long after its first acknowledgement."""

ROWS_PER_BATCH = 8
BARE_EVERY = 16
"""A bare write and sync is measured after so many commits."""

_TELEMETRY_SECONDS = 0.01
_BARE_FILE_BYTES = 8 << 20
_RECORD_BYTES = 80
"""The header of a log record; a bare write is as long as the record of the batch before it."""

_POSITION = pack_tuple(("position",))
_WORD_BYTES_MIN = 8
_START_SECONDS_MAX = 60.0
_PLOT_COLUMNS, _PLOT_LINES = 72, 10

Sample = tuple[bytes, bytes]


# -- what is recorded


def telemetry() -> dict[str, float]:
    """Return figures of this machine now: from /proc where there is one, else what Python knows."""
    figures: dict[str, float] = {}
    try:
        figures |= _proc_figures()
    except (OSError, ValueError, IndexError):
        # No Linux, or a container that hides them.
        figures["process.seconds"] = time.process_time()
        figures["clock.drift"] = time.time() - time.monotonic()
    figures["load"] = os.getloadavg()[0]
    return figures


def _proc_figures() -> dict[str, float]:
    figures: dict[str, float] = {}
    names = ("user", "nice", "system", "idle", "iowait")
    jiffies = _read("/proc/stat").split("\n", 1)[0].split()[1:]
    figures |= {f"cpu.{name}": float(count) for name, count in zip(names, jiffies, strict=False)}
    for line in _read("/proc/meminfo").splitlines():
        name, rest = line.split(":", 1)
        if name in {"MemAvailable", "Dirty"}:
            figures[f"memory.{name}"] = float(rest.split()[0])
    disks = [line.split() for line in _read("/proc/diskstats").splitlines()]
    figures["disk.sectors_written"] = sum(float(words[9]) for words in disks)
    nets = [line.split(":", 1)[1].split() for line in _read("/proc/net/dev").splitlines()[2:]]
    figures["net.bytes_received"] = sum(float(words[0]) for words in nets)
    return figures


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def read_rows(folder: str) -> list[tuple[str, int, str, float]]:
    """Return (series, index, timestamp, value) of all series of a folder, taking turns."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".csv"))
    except FileNotFoundError:
        return []
    series = []
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8", newline="") as file:
            _, *rows = csv.reader(file)
        label = name.removesuffix(".csv")
        series.append([(label, index, row[0], float(row[1])) for index, row in enumerate(rows)])
    return [row for turn in zip_longest(*series) for row in turn if row is not None]


# -- the writer, which is killed


class _Writer:
    """Records until it is killed."""

    def __init__(self, folder: str, data: str) -> None:
        self._rows = read_rows(data)
        self._database = holdfast.open(os.path.join(folder, "demo.hf"), key=encrypted.key())
        position, batch = unpack_tuple(
            self._database[_POSITION] if _POSITION in self._database else pack_tuple((0, 0))
        )
        self._position = cast("int", position)
        self._batch = cast("int", batch)
        self._telemetry_next = 0.0
        self._bare = os.open(os.path.join(folder, "bare"), os.O_RDWR | os.O_CREAT)
        os.pwrite(self._bare, bytes(_BARE_FILE_BYTES), 0)
        os.fsync(self._bare)
        self._bare_at = 0

    def run(self) -> None:
        """Commit batch after batch and acknowledge each on standard output."""
        bare_ns = 0
        while True:
            samples = self._next_batch()
            began = time.perf_counter_ns()
            self._database.put_many([*samples, (_POSITION, self._position_value())])
            commit_ns = time.perf_counter_ns() - began
            names = [f"{key.hex()}:{checksum(value):x}" for key, value in samples]
            line = " ".join([str(self._batch), str(commit_ns), str(bare_ns), *names]) + "\n"
            os.write(1, line.encode())
            bare_ns = self._measure_bare(samples) if self._batch % BARE_EVERY == 0 else 0

    def _position_value(self) -> bytes:
        return pack_tuple((self._position, self._batch))

    def _next_batch(self) -> list[Sample]:
        """Return the samples of the next batch: rows, and telemetry when it is due."""
        self._batch += 1
        rows = self._rows[self._position : self._position + ROWS_PER_BATCH]
        self._position += len(rows)
        found = [((series, index), stamp, value) for series, index, stamp, value in rows]
        now = time.time()
        if now >= self._telemetry_next or not rows:
            self._telemetry_next = now + _TELEMETRY_SECONDS
            at = time.time_ns()
            found += [((name, at), "", value) for name, value in telemetry().items()]
        return [
            (pack_tuple(key), pack_tuple((self._batch, len(found), stamp, value)))
            for key, stamp, value in found
        ]

    def _measure_bare(self, samples: list[Sample]) -> int:
        """Return how long a write and sync takes of about as many bytes as the record had."""
        size = _RECORD_BYTES + sum(len(key) + len(value) + 4 for key, value in samples)
        if self._bare_at > _BARE_FILE_BYTES - size:
            self._bare_at = 0
        data = b"\x55" * size
        began = time.perf_counter_ns()
        os.pwrite(self._bare, data, self._bare_at)
        os.fdatasync(self._bare)
        took = time.perf_counter_ns() - began
        self._bare_at += size
        return took


# -- the parent, which kills and checks


@dataclass(slots=True)
class Findings:
    """What the rounds gave."""

    acknowledged: dict[bytes, int] = field(default_factory=dict)
    """The checksum of the value of each acknowledged sample, by its key."""
    batches: int = 0
    writing_seconds: float = 0.0
    commit_ns: list[int] = field(default_factory=list)
    bare_ns: list[int] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def kill_round(folder: str, data: str, seconds: float, findings: Findings) -> int:
    """Run the writer, kill it `seconds` after its first acknowledgement, and note what it
    acknowledged. Return how many samples that were.
    """
    command = [sys.executable, "-m", "holdfast.testing.demo", "--writer", "--dir", folder]
    environment = os.environ | {"PYTHONPATH": SOURCE_ROOT}
    before = len(findings.acknowledged)
    with subprocess.Popen(
        [*command, "--data", data], stdout=subprocess.PIPE, env=environment
    ) as child:
        if child.stdout is None:
            raise RuntimeError("a child was started without its pipe")
        lines = _read_until_killed(child, child.stdout.fileno(), seconds)
    if child.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the writer ended by itself with status {child.returncode}")
    # The pipe may end within a line: what that one says was not wholly said.
    for line in lines.split(b"\n")[:-1]:
        _, commit_ns, bare_ns, *samples = line.split()
        findings.batches += 1
        findings.commit_ns.append(int(commit_ns))
        if int(bare_ns):
            findings.bare_ns.append(int(bare_ns))
        for sample in samples:
            key, digest = sample.split(b":")
            findings.acknowledged[bytes.fromhex(key.decode())] = int(digest, 16)
    findings.writing_seconds += seconds
    return len(findings.acknowledged) - before


def _read_until_killed(child: subprocess.Popen[bytes], pipe: int, seconds: float) -> bytes:
    """Return all that the child wrote before it was killed."""
    pieces: list[bytes] = []
    deadline = time.monotonic() + _START_SECONDS_MAX
    is_killed = False
    while True:
        left = deadline - time.monotonic()
        if left <= 0 and not is_killed:
            child.kill()
            is_killed = True
        if not is_killed and not select.select([pipe], [], [], left)[0]:
            continue
        piece = os.read(pipe, 1 << 20)
        if not piece:
            return b"".join(pieces)
        if not pieces:
            deadline = time.monotonic() + seconds
        pieces.append(piece)


def check_round(folder: str, findings: Findings) -> dict[str, list[tuple[int, float]]]:
    """Open what the killed writer left and compare it with all that was ever acknowledged.

    Return the samples of each series.
    """
    began = time.perf_counter()
    database = holdfast.open(os.path.join(folder, "demo.hf"), create=False, key=encrypted.key())
    findings.recovery_seconds.append(time.perf_counter() - began)
    series: dict[str, list[tuple[int, float]]] = {}
    present: Counter[int] = Counter()
    sizes: dict[int, int] = {}
    missing = wrong = 0
    with database:
        for key, digest in findings.acknowledged.items():
            if key not in database:
                missing += 1
            elif checksum(database[key]) != digest:
                wrong += 1
        for key, value in cast("Iterator[Sample]", database.items()):
            if key != _POSITION:
                name, at = cast("tuple[str, int]", unpack_tuple(key))
                batch, size, _, figure = cast("tuple[int, int, str, float]", unpack_tuple(value))
                present[batch] += 1
                sizes[batch] = size
                series.setdefault(name, []).append((at, figure))
        report = database.verify()
        shown = _words_shown(folder, series) if encrypted.is_used() else 0
    halves = sum(present[batch] != size for batch, size in sizes.items())
    gaps = max(sizes, default=0) - len(sizes)
    for count, what in (
        (missing, "acknowledged samples are missing"),
        (wrong, "samples have a wrong value"),
        (halves, "batches are there in part"),
        (gaps, "batches are missing below the last one"),
        (len(report.errors), "places are damaged"),
        (shown, "names stand in a file that is encrypted"),
    ):
        if count:
            findings.faults.append(f"{count:,} {what}")
    return series


def _words_shown(folder: str, series: dict[str, list[tuple[int, float]]]) -> int:
    """Return how many names of series, where they are long enough not to stand there by chance,
    stand in some file of the database.
    """
    base = os.path.join(folder, "demo.hf")
    words = [name.encode() for name in series if len(name) >= _WORD_BYTES_MIN]
    found = 0
    for name in os.listdir(base):
        with open(os.path.join(base, name), "rb") as file:
            data = file.read()
        found += sum(word in data for word in words)
    return found


# -- the picture and the figures


def plot(points: list[tuple[int, float]]) -> list[str]:
    """Return a plot of a series: the mean of each column's share of the points."""
    points = sorted(points)
    columns = min(_PLOT_COLUMNS, len(points))
    means = []
    for column in range(columns):
        share = points[len(points) * column // columns : len(points) * (column + 1) // columns]
        means.append(sum(value for _, value in share) / len(share))
    low, high = min(means), max(means)
    scale = (_PLOT_LINES - 1) / (high - low) if high > low else 0.0
    heights = [round((mean - low) * scale) for mean in means]
    lines = []
    for height in range(_PLOT_LINES - 1, -1, -1):
        marks = "".join("*" if found == height else " " for found in heights)
        label = f"{low + height / scale:10.2f}" if scale else f"{low:10.2f}"
        lines.append(f"{label} |{marks.rstrip()}")
    return [*lines, " " * 11 + "+" + "-" * columns]


def picture(series: dict[str, list[tuple[int, float]]]) -> list[str]:
    """Return the plot of the most telling series that is there, under its name."""
    wanted = ("nyc_taxi", "machine_temperature_system_failure", "memory.MemAvailable", "load")
    name = next((name for name in wanted if len(series.get(name, ())) > 1), None)
    if name is None:
        return []
    return [f"{name}, {len(series[name]):,} samples read back:", *plot(series[name])]


def _percentiles(times_ns: list[int]) -> str:
    if not times_ns:
        return "not measured"
    ordered = sorted(times_ns)
    middle, high = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"p50 {middle / 1e3:,.0f} us, p99 {high / 1e3:,.0f} us"


def figures(folder: str, findings: Findings) -> list[str]:
    """Return the figures of the run, a line each."""
    base = os.path.join(folder, "demo.hf")
    size = sum(os.path.getsize(os.path.join(base, name)) for name in os.listdir(base))
    samples, seconds = len(findings.acknowledged), findings.writing_seconds
    commits = findings.batches / seconds
    recovery = ", ".join(f"{took * 1e3:.0f} ms" for took in findings.recovery_seconds)
    return [
        f"acknowledged    {samples:,} samples in {findings.batches:,} durable commits",
        f"rate            {samples / seconds:,.0f} samples/s, {commits:,.0f} commits/s, one thread",
        f"commit          {_percentiles(findings.commit_ns)}",
        f"bare sync       {_percentiles(findings.bare_ns)} (write and fdatasync of as many bytes)",
        f"recovery        {recovery}",
        f"on disk         {size:,} bytes",
    ]


def run_demo(folder: str, data: str, seed: int) -> int:
    """Run all rounds in `folder`; return the exit status."""
    chance = random.Random(seed)
    findings = Findings()
    series: dict[str, list[tuple[int, float]]] = {}
    rows = len(read_rows(data))
    kind = ", encrypted" if encrypted.is_used() else ""
    print(f"demo: seed {seed}, in {folder}{kind}")
    print(f"demo: {rows:,} samples of real series to replay, and this machine's telemetry")
    for number in range(1, ROUNDS + 1):
        seconds = chance.uniform(SECONDS_MIN, SECONDS_MAX)
        count = kill_round(folder, data, seconds, findings)
        series = check_round(folder, findings)
        verdict = "; ".join(findings.faults) or "every acknowledged sample is there"
        print(
            f"round {number}: {count:,} samples acknowledged, SIGKILL after {seconds:.2f} s, "
            f"reopened in {findings.recovery_seconds[-1] * 1e3:.0f} ms: {verdict}",
            flush=True,
        )
        if findings.faults:
            print(f"demo: FAILED; the database is in {folder}", file=sys.stderr)
            return 1
    print("\n".join(["", *picture(series), "", *figures(folder, findings)]))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Record, be killed, come back, and miss nothing."
    )
    parser.add_argument("--dir", help="where the database is made and stays (default: a new one)")
    parser.add_argument("--seed", type=int, help="behind the moments of the kills")
    parser.add_argument("--data", default=DATA, help=f"CSV files to replay (default: {DATA})")
    parser.add_argument("--encrypted", action="store_true", help="with a key")
    parser.add_argument("--writer", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    encrypted.use(given.encrypted or encrypted.is_used())
    if given.writer:
        try:
            _Writer(given.dir, given.data).run()
        except BrokenPipeError:
            # The parent is gone, and with it whoever wanted to know.
            return 1
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    if given.dir is not None:
        os.makedirs(given.dir, exist_ok=True)
        return run_demo(given.dir, given.data, seed)
    folder = tempfile.mkdtemp(prefix="holdfast-demo-")
    status = run_demo(folder, given.data, seed)
    if status == 0:
        # After a failure it stays, for whoever looks into it.
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
