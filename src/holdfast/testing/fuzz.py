"""`./dev fuzz`: feeds damaged bytes to every decoder, in a way that knows the formats.

    ./dev fuzz                                       every target for ten seconds
    ./dev fuzz table wal --seconds 600 --seed 7      some targets for longer
    ./dev fuzz page --executions 5000                a run that ends at the same place everywhere
    ./dev fuzz --executions 1000000                  so many of all targets together
    ./dev fuzz --executions 10000000 --write         also docs/results/fuzz.md
    ./dev fuzz table --replay fuzz/table/FILE        one input again, with its traceback
    HOLDFAST_BUILD=asan ./dev fuzz --seconds 60      the kernels under the sanitizers

Each target runs in a process of its own, with its memory limited; an input that kills the process
is kept like any other finding. Findings are written to `fuzz/<target>/` and replayed by every later
run. Exit status: 0 good, 1 something was found, 2 wrong usage. docs/internals/fuzzing.md says more.

Thread safety: one run of a process; processes share only the folder of the corpus. What a target
finds depends on its seed and corpus, not on what runs beside it, so `--jobs` changes no digest.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from holdfast.testing import (
    fuzz_codec,
    fuzz_csv,
    fuzz_folder,
    fuzz_live,
    fuzz_log,
    fuzz_manifest,
    fuzz_merge,
    fuzz_page,
    fuzz_salvage,
    fuzz_sealed,
    fuzz_table,
)
from holdfast.testing.bench_report import commit_name, machine
from holdfast.testing.fuzz_oracle import Target
from holdfast.testing.fuzz_record import PAGE, Entry, Record
from holdfast.testing.fuzz_run import SLOW_SECONDS, Fault, Fuzzer, Limits, Scratch
from holdfast.testing.numbers import one_or_more, positive
from holdfast.testing.result_page import require_commit

_MODULES = (
    fuzz_codec, fuzz_page, fuzz_table, fuzz_log, fuzz_manifest, fuzz_csv, fuzz_folder, fuzz_live,
    fuzz_merge, fuzz_sealed, fuzz_salvage,
)  # fmt: skip
TARGETS: dict[str, Target] = {
    target.name: target for module in _MODULES for target in module.TARGETS
}

SHARES = {
    "folder": 1, "salvaged-log": 2, "payload": 2, "segment": 2, "sealed": 4, "csv": 4, "table": 6,
    "salvaged-manifest": 6, "salvaged-table": 8, "manifest": 8,
}  # fmt: skip
SHARE_OTHERS = 25
"""What part of `--executions` a target gets: the slow ones get less of it, so that each takes about
as long as another."""

FOLDER = "fuzz"
HEADROOM_BYTES = 1 << 30
"""Address space that a process may take beyond what it begins with. A length that a file claims and
that nobody checked is mostly more, and becomes a MemoryError, which no decoder may raise."""

HANG_SECONDS = 120
SANITIZED_SLOWNESS = 10
WORKER_FOUND = 10
"""The exit status of a target's process that found something; a sanitizer ends one with 1."""

_SHOWN = 8
_RESULT = ".json"


def read_corpus(folder: str, target: Target) -> list[bytes]:
    """Return the seeds of a target and then its files, sorted by name, each content once."""
    inputs = dict.fromkeys(target.seeds())
    place = os.path.join(folder, target.name)
    if os.path.isdir(place):
        for name in sorted(os.listdir(place)):
            with open(os.path.join(place, name), "rb") as file:
                inputs[file.read()] = None
    return list(inputs)


def write_input(folder: str, target: str, data: bytes, prefix: str) -> str:
    """Write an input into the corpus and return its path."""
    place = os.path.join(folder, target)
    os.makedirs(place, exist_ok=True)
    name = f"{prefix}-{hashlib.blake2b(data, digest_size=5).hexdigest()}.bin"
    path = os.path.join(place, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def is_sanitized() -> bool:
    """Return whether the address sanitizer is loaded into this process."""
    return "asan" in os.environ.get("LD_PRELOAD", "")


def limit_memory() -> None:
    """Limit the address space. The sanitizer takes terabytes of it and has its own limit."""
    if is_sanitized():
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM_BYTES, resource.RLIM_INFINITY))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev fuzz", description="Feed damaged bytes to readers."
    )
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help=f"all, or of {', '.join(TARGETS)}")
    add("--seconds", type=positive, help="time of each target; 10 where nothing else is said")
    add("--executions", type=one_or_more, help="executions of the targets together")
    add("--seed", type=int, default=1, help="another seed, other inputs (default: 1)")
    add("--corpus", default=FOLDER, metavar="FOLDER", help=f"default: {FOLDER}")
    add(
        "--jobs",
        type=one_or_more,
        default=os.cpu_count() or 1,
        help="targets at once; default: the cores",
    )
    add("--keep", action="store_true", help="add inputs that show something new to the corpus")
    add("--replay", metavar="FILE", help="execute one input and show what comes out")
    add("--in-process", action="store_true", help="without a process and limits for each target")
    add("--write", action="store_true", help=f"add what each target did to {PAGE} when it ends")
    add("--worker", metavar="FILE", help=argparse.SUPPRESS)
    return parser


def _fuzz(target: Target, given: argparse.Namespace) -> int:
    """Run one target in this process, report, and return the exit status."""
    corpus = read_corpus(given.corpus, target)
    slowness = SANITIZED_SLOWNESS if is_sanitized() else 1
    fuzzer = Fuzzer(
        target,
        corpus,
        given.seed,
        Limits(slow_seconds=SLOW_SECONDS * slowness),
        Scratch(given.worker) if given.worker else None,
        _rearm if given.worker else None,
    )
    fuzzer.run(given.executions, given.seconds)
    rate = fuzzer.executions / max(fuzzer.seconds, 1e-9)
    found = sum(fault.count for fault in fuzzer.faults.values())
    if given.worker:
        with open(given.worker + _RESULT, "w", encoding="ascii") as file:
            json.dump([fuzzer.executions, fuzzer.seconds, fuzzer.reach.count, found], file)
    print(
        f"{target.name:9} seed {given.seed:<5} executions {fuzzer.executions:8}  {rate:7.0f}/s  "
        f"corpus {len(corpus):4} + {len(fuzzer.kept):4}  lines {fuzzer.reach.count:4}  "
        f"findings {found}  digest {fuzzer.digest}",
        flush=True,
    )
    if given.keep:
        for data in fuzzer.kept:
            write_input(given.corpus, target.name, data, "new")
    for fault in list(fuzzer.faults.values())[:_SHOWN]:
        _report(fuzzer, fault, given)
    return 1 if fuzzer.faults else 0


def _report(fuzzer: Fuzzer, fault: Fault, given: argparse.Namespace) -> None:
    name = fuzzer.target.name
    path = write_input(given.corpus, name, fuzzer.shrink(fault), "found")
    print(f"  FOUND {fault.count} times, first by execution {fault.execution}: {fault.signature}")
    for line in fault.trace.rstrip().splitlines()[-12:]:
        print(f"    {line}")
    print(f"  replay: ./dev fuzz {name} --replay {path}", flush=True)


def _replay(target: Target, path: str) -> int:
    with open(path, "rb") as file:
        data = file.read()
    for feature in target.run(data):
        print(feature)
    print("nothing is wrong")
    return 0


def shared(names: list[str], executions: int) -> dict[str, int]:
    """Return how many executions each target gets of so many, at least one."""
    total = sum(SHARES.get(name, SHARE_OTHERS) for name in names)
    return {name: max(1, executions * SHARES.get(name, SHARE_OTHERS) // total) for name in names}


def table(results: dict[str, list[float] | None]) -> str:
    """Return what each target did and all together; None is a target whose process ended."""
    lines = [f"{'target':10} {'executions':>11} {'seconds':>8} {'per second':>10} {'findings':>8}"]
    total = [0.0, 0.0, 0.0]
    for name, result in results.items():
        if result is None:
            lines.append(f"{name:10} its process ended")
            total[2] += 1
            continue
        executions, seconds, _, found = result
        total = [a + b for a, b in zip(total, (executions, seconds, found), strict=True)]
        lines.append(_row(name, executions, seconds, found))
    return "\n".join([*lines, _row("together", *total)])


def _row(name: str, executions: float, seconds: float, found: float) -> str:
    rate = executions / max(seconds, 1e-9)
    return f"{name:10} {executions:11,.0f} {seconds:8.1f} {rate:10,.0f} {found:8.0f}"


def _all(names: list[str], given: argparse.Namespace) -> int:
    """Run each target in a process of its own; show a table when there are several."""
    counts = None if given.executions is None else shared(names, given.executions)
    results: dict[str, list[float] | None] = dict.fromkeys(names)
    record = Record() if given.write else None

    def supervise(name: str) -> int:
        arguments = _options(given, None if counts is None else counts[name])
        status = _supervise(name, arguments, given, results)
        if record is not None:
            record.add(_entry(name, results[name], given))
        return status

    # Those that are slow begin first, so that none of them is left over for one core at the end.
    slow_first = sorted(names, key=lambda name: SHARES.get(name, SHARE_OTHERS))
    with ThreadPoolExecutor(max(1, given.jobs)) as pool:
        status = max(pool.map(supervise, slow_first))
    if len(names) > 1:
        print(table(results), flush=True)
    return status


def _entry(name: str, result: list[float] | None, given: argparse.Namespace) -> Entry:
    """Return what a target did, for the record."""
    words = ["./dev", "fuzz", *given.targets]
    if given.executions is not None:
        words += ["--executions", str(given.executions)]
    if given.seconds is not None:
        words += ["--seconds", f"{given.seconds:g}"]
    # A process that ended did not say how far it came.
    executions, seconds, _, found = result or [0, 0.0, 0, 1]
    return Entry(
        target=name,
        seed=given.seed,
        commit=commit_name(),
        python=machine(".")["Python"],
        command=shlex.join([*words, "--seed", str(given.seed), "--write"]),
        executions=int(executions),
        seconds=round(seconds, 1),
        findings=int(found),
    )


def _supervise(
    name: str,
    arguments: list[str],
    given: argparse.Namespace,
    results: dict[str, list[float] | None],
) -> int:
    """Run a target in a process of its own; keep the input that ends it. Return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        held = os.path.join(folder, "input")
        with open(held, "wb"):
            pass
        command = [sys.executable, "-m", "holdfast.testing.fuzz", name, *arguments]
        status = subprocess.run([*command, "--worker", held], check=False).returncode
        results[name] = None
        if os.path.exists(held + _RESULT):
            with open(held + _RESULT, encoding="ascii") as file:
                results[name] = json.load(file)
        if status in (0, WORKER_FOUND):
            return int(status != 0)
        path = write_input(given.corpus, name, Scratch.held(held), "killed")
    print(f"  FOUND an input that ended the process with status {status}")
    print(f"  replay: ./dev fuzz {name} --replay {path}", flush=True)
    return 1


def _options(given: argparse.Namespace, executions: int | None) -> list[str]:
    """Return the options of a target's own process."""
    options = ["--seed", str(given.seed), "--corpus", given.corpus]
    if executions is not None:
        options += ["--executions", str(executions)]
    if given.seconds is not None:
        options += ["--seconds", str(given.seconds)]
    return [*options, "--keep"] if given.keep else options


def main(arguments: list[str]) -> int:
    """Run the command. Returns the exit status: 0 good, 1 something was found, 2 wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    require_commit(parser, writes=given.write)
    names: Iterable[str] = given.targets
    if not given.targets or given.targets == ["all"]:
        names = TARGETS
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]}; there are {', '.join(TARGETS)}")
    if given.seconds is None and given.executions is None:
        given.seconds = 10.0
    if given.replay:
        if len(given.targets) != 1:
            parser.error("--replay needs one target")
        return _replay(TARGETS[given.targets[0]], given.replay)
    if given.worker:
        faulthandler.enable()
        limit_memory()
        return max([_fuzz(TARGETS[name], given) for name in names]) and WORKER_FOUND
    if given.in_process:
        counts = {} if given.executions is None else shared(list(names), given.executions)
        status = 0
        for name in names:
            given.executions = counts.get(name)
            status = max(status, _fuzz(TARGETS[name], given))
        return status
    return _all(list(names), given)


def _rearm() -> None:
    """End the process, with a traceback, when the next executions do not end."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
