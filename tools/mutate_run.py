"""Runs the tests on mutants: one forked process for each, in a pytest that has everything loaded.

`Warm` starts a pytest in a forked process, which collects the suites, runs each test once under
coverage to learn which lines it reaches and how long it takes, and then waits. A mutant inside a
function costs a fork: the child gives the function its changed code and runs the tests that reach
the changed line, the quickest first, until one fails. A mutant of a module's or class's body is
imported anew: `cold` forks a process that has pytest but not yet Holdfast.
Tests that noticed other mutants of the same function come first: one of them mostly notices this
one, too.

Several workers take mutants from one list. Each is a pair of forked processes: one that waits for
mutants in a pytest that knows all tests, and one that hands them over or runs them cold.

Limits: a mutant in which one test uses far more processor time than that test needs, or that stands
still, is stopped and counts as noticed.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import importlib.util
import math
import mmap
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import coverage
import hypothesis
import pytest
from _pytest.runner import runtestprotocol

from tools import tree
from tools.mutants import Mutant

SURVIVED, KILLED, TIME, UNREACHED = "survived", "killed", "time limit", "not reached"

SECONDS_MAX = 6.0
"""Processor time of the tests of one mutant, as they take without it; slower ones are left out."""
SLOWER_MAX = 5
"""A test that uses so many times its own processor time, and ALLOWANCE_SECONDS more, is stopped.
It was measured under coverage, which alone makes it slower than it is here.
"""
ALLOWANCE_SECONDS = 3
IMPORT_SECONDS = 3.0
"""Generous, for importing everything anew."""
STILL_SECONDS = 15.0
"""A process that used no processor time for so long, and did not want any, waits for ever."""
MEMORY_MAX = 1 << 30
"""More than the process has when it is forked."""
LOG = tree.ROOT / "build" / "mutate.log"
"""What the tests print."""

OPTIONS = ["-q", "-s", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
OPTIONS += ["-o", "faulthandler_timeout=0", "-W", "ignore::pytest.PytestAssertRewriteWarning"]

hypothesis.settings.register_profile(
    "mutate",
    derandomize=True,
    deadline=None,
    database=None,
    # A failure is enough, it need not be a small one.
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


@dataclass(slots=True)
class Baseline:
    """What the tests do without a mutant."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By test."""
    reaching: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    """By file and line: the tests that run it."""
    failed: list[str] = field(default_factory=list)

    def of(self, tests: Sequence[str]) -> dict[str, float]:
        """Return what these tests take."""
        return {test: self.seconds[test] for test in tests}


def chosen(baseline: Baseline, mutant: Mutant) -> list[str]:
    """Return the tests for a mutant, the quickest first."""
    lines = baseline.reaching.get(str(mutant.path), {})
    if mutant.function:
        return _quickest(baseline, lines.get(mutant.line, []))
    # What a module or class says may be looked at by a test that runs none of its lines.
    reaching = {test for tests in lines.values() for test in tests}
    others = baseline.seconds.keys() - reaching
    return [*_quickest(baseline, reaching), *_quickest(baseline, others)]


def _quickest(baseline: Baseline, tests: Iterable[str]) -> list[str]:
    ordered = sorted(tests, key=lambda test: (baseline.seconds[test], test))
    total, taken = 0.0, 0
    for test in ordered:
        total += baseline.seconds[test]
        if taken and total > SECONDS_MAX:
            break
        taken += 1
    return ordered[:taken]


class Warm:
    """A pytest that waits for mutants in processes of its own, one for each worker."""

    def __init__(self, suites: Sequence[str], mutants: Sequence[Mutant], workers: int) -> None:
        self._here, there = multiprocessing.Pipe()
        ends = [multiprocessing.Pipe() for _ in range(workers)]
        self._own, served = [own for own, _ in ends], [far for _, far in ends]
        self._process = _fork(lambda: _serve(there, served, suites, mutants))
        for far in (there, *served):
            far.close()
        self.baseline: Baseline = self._here.recv()

    def run(self, worker: int, mutant: Mutant, tests: Sequence[str]) -> str:
        """Return what became of a mutant of a function's body."""
        own = self._own[worker]
        own.send((mutant.path, mutant.name, tests, self.baseline.of(tests)))
        result: str = own.recv()
        return result

    def close(self) -> None:
        """End the processes."""
        for own in self._own:
            own.send(None)
        os.waitpid(self._process, 0)


def _fork(work: Callable[[], int]) -> int:
    """Run `work` in a forked process, which ends with what it returns; returns its id."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        status = work()
    except BaseException:  # noqa: BLE001  the process ends in any case
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _serve(
    pipe: Connection, served: Sequence[Connection], suites: Sequence[str], mutants: Sequence[Mutant]
) -> int:
    _prepare_process()
    status = pytest.main([*OPTIONS, *suites], plugins=[_Server(pipe, served, mutants)])
    return int(status)


def _prepare_process() -> None:
    """Give the tests what they look for, and their output to a file of its own."""
    os.chdir(tree.ROOT)
    os.environ["HOLDFAST_HYPOTHESIS"] = "mutate"
    os.environ.pop("HOLDFAST_PURE", None)
    for path in (str(tree.ROOT), str(tree.ROOT / "src")):
        if path not in sys.path:
            sys.path.insert(0, path)
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)


class _Server:
    """The plugin that takes the place of pytest's loop over the tests."""

    def __init__(
        self, pipe: Connection, served: Sequence[Connection], mutants: Sequence[Mutant]
    ) -> None:
        self._pipe = pipe
        self._served = served
        self._mutants = {(mutant.path, mutant.name): mutant for mutant in mutants}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        self._pipe.send(
            in_child(lambda: _measured(session.items, {path for path, _ in self._mutants}))
        )
        workers = [_fork(lambda own=own: self._work(own, items)) for own in self._served]  # type: ignore[misc]  # mypy cannot infer it
        for own in self._served:
            own.close()
        for process in workers:
            os.waitpid(process, 0)
        return True

    def _work(self, pipe: Connection, items: Mapping[str, pytest.Item]) -> int:
        """Try mutants until there is none."""
        for other in self._served:
            if other is not pipe:
                other.close()  # So that the end of the other worker is seen.
        noticed: Counter[tuple[str, str]] = Counter()
        begun = mmap.mmap(-1, 8)
        while (job := pipe.recv()) is not None:
            path, name, tests, seconds = job
            mutant = self._mutants[path, name]
            where = f"{path}:{mutant.function}"
            order = _likely_first(tests, seconds, {test: noticed[where, test] for test in tests})
            result = _try_warm(mutant, [items[test] for test in order], seconds, begun)
            if result != SURVIVED:
                noticed[where, order[int.from_bytes(begun[:8], "little")]] += 1
            pipe.send(result)
        return 0


def _likely_first(
    tests: Sequence[str], seconds: Mapping[str, float], noticed: Mapping[str, int]
) -> list[str]:
    """Return the tests in the order of what each costs for a mutant that it notices, by how many of
    the same function it noticed.
    """
    return sorted(tests, key=lambda test: (seconds[test] + 0.001) / (noticed[test] + 0.1))


def in_child(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a forked process, so that it leaves no trace in this one."""
    receiving, sending = multiprocessing.Pipe(duplex=False)

    def child() -> int:
        sending.send(work())
        return 0

    process = _fork(child)
    sending.close()
    try:
        return receiving.recv()
    finally:
        os.waitpid(process, 0)
        receiving.close()


def _measured(items: Sequence[pytest.Item], files: Iterable[Path]) -> Baseline:
    """Run every test once; return what each reaches and takes."""
    baseline = Baseline()
    measure = coverage.Coverage(
        data_file=None, config_file=False, include=[str(path) for path in files]
    )
    measure.set_option("run:core", "ctrace")
    measure.start()
    for item, following in zip(items, [*items[1:], None], strict=True):
        measure.switch_context(item.nodeid)
        start = time.process_time()
        if _has_failed(item, following):
            baseline.failed.append(item.nodeid)
        baseline.seconds[item.nodeid] = time.process_time() - start
    measure.stop()
    data = measure.get_data()
    for path in data.measured_files():
        baseline.reaching[path] = {
            line: [test for test in tests if test]
            for line, tests in data.contexts_by_lineno(path).items()
        }
    return baseline


def _has_failed(item: pytest.Item, following: pytest.Item | None) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _try_warm(
    mutant: Mutant, items: Sequence[pytest.Item], seconds: Mapping[str, float], begun: mmap.mmap
) -> str:
    """Run the tests in a child whose function has the changed code; `begun` gets the index of the
    last one.
    """
    folder = tempfile.mkdtemp(prefix="holdfast-mutant-")

    begun[:8] = bytes(8)

    def child() -> int:
        try:
            if not _give_code(mutant):
                return 2
        except ValueError:
            return 2  # Code that does not fit the function, which no test would then see.
        # The temporary folders of tests are private to each child.
        items[0].config._tmp_path_factory._basetemp = Path(folder)  # type: ignore[attr-defined]  # noqa: SLF001  pytest has no other way
        for at, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
            begun[:8] = at.to_bytes(8, "little")
            _allow(seconds[item.nodeid])
            if _has_failed(item, following):
                return 1
        return 0

    try:
        return _judge(child)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _give_code(mutant: Mutant) -> bool:
    """Give every function that has the mutant's old code the new one; return whether one had."""
    new = _code_of(mutant.code(), mutant)
    found = False
    for each in gc.get_objects():
        if isinstance(each, types.FunctionType):
            old = each.__code__
            if (
                old.co_firstlineno == mutant.function_line
                and old.co_qualname == mutant.function
                and Path(old.co_filename) == mutant.path
            ):
                each.__code__ = new
                found = True
    return found


def _code_of(code: types.CodeType, mutant: Mutant) -> types.CodeType:
    waiting = [code]
    while waiting:
        each = waiting.pop()
        if each.co_firstlineno == mutant.function_line and each.co_qualname == mutant.function:
            return each
        waiting.extend(inner for inner in each.co_consts if isinstance(inner, types.CodeType))
    raise ValueError(f"no code for {mutant.name}")


def _allow(seconds: float) -> None:
    """Let this process go on for what a test needs that takes `seconds` without a mutant."""
    limit = time.process_time() + ALLOWANCE_SECONDS + SLOWER_MAX * seconds
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), most))


def _judge(child: Callable[[], int]) -> str:
    """Fork, wait, and say what the tests said."""

    def limited() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            memory = int(file.read().split()[0]) * resource.getpagesize() + MEMORY_MAX
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return child()

    process = _fork(limited)
    status = _wait(process)
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        return TIME
    if os.WIFSIGNALED(status):
        return KILLED
    code = os.WEXITSTATUS(status)
    if code == 2:
        raise RuntimeError("a mutant was not given to its function")
    return KILLED if code else SURVIVED


def _wait(process: int) -> int | None:
    """Return the status of a process, or None when it stood still and was stopped."""
    used, since, pause = -1.0, time.monotonic(), 0.002
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
        now = _processor_time(process)
        if now > used or not _is_asleep(process):
            used, since = now, time.monotonic()
        elif time.monotonic() - since > STILL_SECONDS:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None


def _processor_time(process: int) -> float:
    """Return the ticks that a process used."""
    with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return float(fields[11]) + float(fields[12])


def _is_asleep(process: int) -> bool:
    """Return whether every thread waits for something that is neither a processor nor a disk: on a
    busy machine one that waits for these may get nothing for long.
    """
    try:
        states = [
            file.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
            for file in Path(f"/proc/{process}/task").glob("*/stat")
        ]
    except OSError:
        return False  # A thread ended meanwhile.
    return set(states) == {"S"}


class _Changed(importlib.machinery.SourceFileLoader):
    """Loads a module from the code of a mutant."""

    def __init__(self, name: str, mutant: Mutant) -> None:
        super().__init__(name, str(mutant.path))
        self._mutant = mutant

    def get_code(self, fullname: str) -> types.CodeType:
        return self._mutant.code()


class _Finder(importlib.abc.MetaPathFinder):
    """Gives the changed module in place of the one on disk."""

    def __init__(self, mutant: Mutant) -> None:
        relative = mutant.path.relative_to(tree.ROOT / "src").with_suffix("")
        self._name = ".".join(relative.parts)
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = _Changed(fullname, self._mutant)
        return importlib.util.spec_from_file_location(fullname, self._mutant.path, loader=loader)


class _Order:
    """The plugin that leaves only the chosen tests, in their order, and bounds what each uses."""

    def __init__(self, tests: Sequence[str], seconds: Mapping[str, float]) -> None:
        self._tests = tests
        self._seconds = seconds

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        _allow(self._seconds[nodeid])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {test: at for at, test in enumerate(self._tests)}
        items[:] = sorted(
            (item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid]
        )


def cold(mutant: Mutant, tests: Sequence[str], seconds: Mapping[str, float]) -> str:
    """Run the tests in a process that imports the changed module."""
    if "holdfast" in sys.modules:
        raise RuntimeError("a changed module would not be imported: Holdfast is loaded already")
    folder = tempfile.mkdtemp(prefix="holdfast-mutant-")

    def child() -> int:
        _allow(IMPORT_SECONDS)
        _prepare_process()
        sys.meta_path.insert(0, _Finder(mutant))
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        options = [*OPTIONS, "-x", f"--basetemp={folder}/t"]
        status = pytest.main([*options, *files], plugins=[_Order(tests, seconds)])
        return 0 if status == pytest.ExitCode.OK else 1

    try:
        return _judge(child)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _attempt(warm: Warm, worker: int, mutant: Mutant) -> str:
    """Return what became of one mutant."""
    tests = chosen(warm.baseline, mutant)
    if not tests:
        return UNREACHED
    if mutant.function:
        return warm.run(worker, mutant, tests)
    return cold(mutant, tests, warm.baseline.of(tests))


def attempts(
    warm: Warm, mutants: Sequence[Mutant], workers: int, end: float
) -> Iterator[tuple[Mutant, str]]:
    """Yield what became of each mutant, as it becomes known; none is begun after the time `end`."""
    left = iter(range(len(mutants)))
    busy: list[Connection] = []
    processes = []

    def work(pipe: Connection, worker: int) -> int:
        while (index := pipe.recv()) is not None:
            pipe.send((index, _attempt(warm, worker, mutants[index])))
        return 0

    def hand(pipe: Connection) -> bool:
        index = next(left, None) if time.monotonic() < end else None
        pipe.send(index)
        return index is not None

    for worker in range(workers):
        here, there = multiprocessing.Pipe()
        processes.append(_fork(lambda own=there, worker=worker: work(own, worker)))  # type: ignore[misc]  # mypy cannot infer it
        there.close()
        if hand(here):
            busy.append(here)
    while busy:
        for pipe in cast("list[Connection]", wait(busy)):
            index, result = pipe.recv()
            yield mutants[index], result
            if not hand(pipe):
                busy.remove(pipe)
    for process in processes:
        os.waitpid(process, 0)
