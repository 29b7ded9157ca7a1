"""Where the time of a workload of `holdfast bench` goes, by `perf` of Linux.

`./dev profile [workloads] [--engines ...] [--scale ...] [--write]` runs the pass that measures the
rate in a fresh process, as `holdfast bench` does, and samples the process meanwhile: nothing else
of the cell, neither its load nor its settling, is in the figures. A sample is taken each half
millisecond of processor time, so what waits for the disk or for another thread has none: the
difference between a unit's time and its processor time tells of that.

`--write` writes docs/results/profile.md.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from holdfast.testing.bench_measure import resident_bytes
from holdfast.testing.result_page import require_commit, result_page, write_page
from holdfast.testing.versus_child import Order, Passes
from holdfast.testing.versus_run import spawn
from holdfast.testing.versus_scale import SCALES
from holdfast.testing.versus_workload import WORKLOADS
from tools import tree

Key = TypeVar("Key")

PAGE = tree.ROOT / "docs" / "results" / "profile.md"
WORKLOADS_DEFAULT = ("fill-random", "commit", "get-cold")
ENGINES_DEFAULT = ("holdfast", "rocksdict")
FREQUENCY = 2000
ATTACH_SECONDS = 10.0
SHOWN = 14
SHARE_MIN = 1.0
"""Percent below which a function is not shown."""

EXPLANATION = """\
`unit` is the time of a put, commit or get, `processor` what of it all threads of the process
computed; the rest is waiting. `first thread` is the part of the samples in the thread that makes
the calls, the others work in the background. Then whose code it was, and which functions; what
begins with a room's name is Holdfast's compiled code, and the interpreter runs its plain Python.
Of cold gets the samples have what drops the page cache every 20 gets, too; the times have not."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of perf's report: a share in percent, the thread, the object, the function."""

    share: float
    thread: int
    code: str
    function: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What came of sampling one cell. Times are microseconds of a unit."""

    workload: str
    engine: str
    unit: float
    processor: float
    first_thread: int
    samples: list[Sample]


def readable(function: str) -> str:
    """Return the name of a compiled function of ours without the compiler's decoration."""
    found = re.fullmatch(r"__pyx_[a-z]+\d*_(8holdfast_.*)", function.partition(".")[0])
    if not found:
        return function
    left, parts = found[1], []
    while match := re.match(r"(\d+)", left):
        start = match.end()
        end = start + int(match[1])
        parts.append(left[start:end])
        left = left[end:].removeprefix("_")
    return ".".join([*parts[1:], left] if left else parts[1:])


def owner(code: str) -> str:
    """Return whose code an object file holds."""
    if code.startswith("[kernel"):
        return "kernel"
    if code.startswith(("libpython", "python")):
        return "interpreter"
    if code.startswith(("libc.", "libc-", "libpthread", "ld-", "[vdso]", "libm.")):
        return "C library"
    if code.startswith("_") and ".cpython-" in code:
        return "holdfast"
    if code.startswith("backend_c"):
        return "zstandard"
    return code.partition(".")[0]


def parse(report: str) -> Iterator[Sample]:
    """Yield the lines of `perf report` with the fields overhead, pid, dso and sym. What it calls
    pid is the number of a thread.
    """
    for line in report.splitlines():
        fields = [field.strip() for field in line.split(";")]
        if len(fields) != 4 or not fields[0].endswith("%"):
            continue
        thread = int(fields[1].partition(":")[0])
        function = re.sub(r"^\[[^]]*\] ", "", fields[3])
        yield Sample(float(fields[0][:-1]), thread, fields[2], readable(function))


def sampled(order: Order) -> Profile:
    """Run the measured pass of a cell in this process, and sample it."""
    passes = Passes(order)
    store, work = passes.begin()
    work.warm()
    resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "perf.data")
        recorder = attach(data)
        taken = work.plain()
        recorder.send_signal(signal.SIGINT)
        recorder.wait()
        fields = ["-F", "overhead,pid,dso,sym", "-t", ";", "--stdio", "--no-children"]
        report = subprocess.run(
            ["perf", "report", "-i", data, *fields, "-g", "none"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    if store:
        store.close()
    microseconds = 1e6 / taken.units
    return Profile(
        workload=order.workload,
        engine=order.engine,
        unit=taken.seconds * microseconds,
        processor=taken.cpu * microseconds,
        first_thread=os.getpid(),
        samples=list(parse(report)),
    )


def attach(data: str) -> subprocess.Popen[bytes]:
    """Let perf sample this process; return when it does. Raises: SystemExit."""
    recorder = subprocess.Popen(
        ["perf", "record", "-q", "-F", str(FREQUENCY), "-e", "cpu-clock", "-o", data, "-p",
         str(os.getpid())],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + ATTACH_SECONDS
    # Its file has a size as soon as it has written the head, with the counters open.
    while not os.path.exists(data) or not os.path.getsize(data):
        if recorder.poll() is not None or time.monotonic() > until:
            recorder.kill()
            said = recorder.communicate()[1].decode("ascii", "replace").strip()
            sys.exit(f"perf could not attach: {said or 'no answer'}")
        time.sleep(0.01)
    return recorder


def shown(profile: Profile) -> list[str]:
    """Return the lines of a page about a profile."""
    whole = sum(sample.share for sample in profile.samples) or 1.0
    first = sum(s.share for s in profile.samples if s.thread == profile.first_thread)
    owners: defaultdict[str, float] = defaultdict(float)
    functions: defaultdict[tuple[str, str], float] = defaultdict(float)
    for sample in profile.samples:
        owners[owner(sample.code)] += sample.share / whole * 100
        functions[owner(sample.code), sample.function] += sample.share / whole * 100
    lines = [
        f"### {profile.workload}, {profile.engine}", "",
        f"- unit: {profile.unit:,.2f} us", f"- processor: {profile.processor:,.2f} us",
        f"- first thread: {first / whole * 100:.0f} %",
        "- " + ", ".join(f"{name} {share:.0f} %" for name, share in most(owners, 6)),
        "", "| code | function | of all samples |", "| --- | --- | --: |",
    ]  # fmt: skip
    for (code, function), share in most(functions, SHOWN):
        if share >= SHARE_MIN:
            lines.append(f"| {code} | `{function}` | {share:.1f} % |")
    return [*lines, ""]


def most(shares: Mapping[Key, float], count: int) -> list[tuple[Key, float]]:
    """Return the largest shares, at most `count`."""
    return sorted(shares.items(), key=lambda item: item[1], reverse=True)[:count]


def run_cell(order: Order) -> Profile:
    """Sample a cell in a fresh process."""
    command = [sys.executable, "-m", "tools.sampling", "--cell", json.dumps(asdict(order))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    plain = json.loads(done.stdout)
    return Profile(**plain | {"samples": [Sample(**sample) for sample in plain["samples"]]})


def profiles(given: argparse.Namespace, folder: str) -> Iterator[Profile]:
    """Load what the workloads read, and yield a profile of each with each engine."""
    loaded: dict[tuple[str, str], str] = {}
    for workload in given.workloads:
        dataset = WORKLOADS[workload].data or ""
        for engine in given.engines:
            place = loaded.get((engine, dataset), "") if dataset else ""
            if dataset and not place:
                place = loaded[engine, dataset] = os.path.join(folder, f"{engine}-{dataset}")
                spawn(
                    Order(engine=engine, dataset=dataset, folder=place, scale=given.scale,
                          seed=given.seed)
                )  # fmt: skip
            cell = os.path.join(folder, "cell")
            yield run_cell(
                Order(engine=engine, workload=workload, data=place, folder=cell,
                      scale=given.scale, seed=given.seed)
            )  # fmt: skip
            shutil.rmtree(cell, ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb's arguments."""
    made = argparse.ArgumentParser(prog="./dev profile", description=__doc__)
    made.add_argument("workloads", nargs="*", default=list(WORKLOADS_DEFAULT), metavar="WORKLOAD")
    made.add_argument("--engines", default=",".join(ENGINES_DEFAULT), help="default: %(default)s")
    made.add_argument("--scale", choices=sorted(SCALES), default="full")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    made.add_argument("--cell", help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = parser().parse_args(arguments)
    if given.cell:
        print(json.dumps(asdict(sampled(Order(**json.loads(given.cell))))))
        return 0
    if not shutil.which("perf"):
        print("./dev profile: there is no `perf` here (Debian: linux-perf)", file=sys.stderr)
        return 2
    require_commit(parser(), writes=given.write)
    unknown = [name for name in given.workloads if name not in WORKLOADS]
    if unknown:
        parser().error(f"no such workload: {', '.join(unknown)}")
    given.engines = given.engines.split(",")
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="holdfast-profile-", dir=Path.cwd()) as folder:
        for profile in profiles(given, folder):
            part = shown(profile)
            print("\n".join(part), flush=True)
            lines += part
    if given.write:
        command = " ".join(["./dev profile", *arguments])
        page = result_page("where the time goes", command, lines, explanation=EXPLANATION)
        write_page(str(PAGE), page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
