"""The crash explorer: cuts the power at every operation of a workload and judges what comes back.

A workload runs once on a simulated machine. Before its first and after each of its mutating
operations the moment is kept, with the bounds of what a crash there may leave. For each moment the
named classes of `holdfast.env` give what the disk may then hold; each content is opened and judged
by `oracle.examine` once, and compared with the bounds of every moment that can leave it. While a
crashed database is opened the same is done again (depth 2): the power goes at every operation of
recovery, and what is found must be the very state that the undisturbed recovery found.

A state is named by its path, `K:STATE` or `K:STATE/K:STATE`: K operations were done when the power
went, and STATE says what survived. The same workload, seed, profile and path replay the same run.

Two moments share their verdict when the disk holds the same bytes. For that the machines that boot
after a crash draw the same random numbers and show the same time, whatever moment and workload they
come from; both differ between the first life, the second and the third. `Verdicts` are kept from
run to run.

Where not everything is run, each boundary and each key (call site, class, depth) comes first once;
then the keys take turns. When enough contents were opened, the states whose content is known are
still compared with their bounds, which costs next to nothing.

Source: ALICE (OSDI 2014), CrashMonkey and ACE (OSDI 2018); reports of the coverage by (call site,
class) are FoundationDB's idea.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from holdfast.env import CRASH_CLASSES, CrashPoint, CrashState, Operation, SimEnv
from holdfast.testing.oracle import (
    ABSENT,
    Finding,
    History,
    Recovered,
    Wrap,
    abandon,
    examine,
)
from holdfast.testing.session import Work
from holdfast.testing.workload import workload

NESTED_CLASSES = ("none", "all", "prefix", "torn-last")
"""The classes that are tried while recovery runs."""

FAILURES_SHOWN = 5
WALL_START = 1_767_225_600.0
"""The first moment of 2026, UTC: a whole number of the ticks below."""
_BOOT_SECONDS = 3600.0
_VERDICTS_MAX = 1_000_000
_SIGNATURE_BYTES = 16


def same_machine(machine: SimEnv) -> SimEnv:
    """Return the simulated machine itself: nothing is between it and the engine."""
    return machine


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a run at which the power may go."""

    index: int
    """How many operations were done."""
    site: str
    """The call site of the last of them."""
    point: CrashPoint
    lower: int
    """The last commit that was acknowledged as durable before the next operation."""
    upper: int
    """The last commit that was submitted."""


@dataclass(slots=True)
class Recording:
    """One undisturbed run of a workload."""

    history: History
    moments: list[Moment]
    operations: list[Operation]
    steps: list[int]
    """How many operations were done when each step began."""


def record(work: Work, profile: str = "posix-min", wrap: Wrap = same_machine) -> Recording:
    """Run a workload on a fresh machine and keep all its moments.

    Raises: WorkloadError when the database gives a wrong answer without any crash.
    """
    machine = SimEnv(work.seed, profile)
    history = work.new_history()
    moments: list[Moment] = []
    steps: list[int] = []
    waiting = Moment(0, "start", CrashPoint(machine), ABSENT, history.submitted)

    def keep(operation: Operation) -> None:
        # What was acknowledged up to this operation counts for the moment that it ends.
        nonlocal waiting
        moments.append(_with_lower(waiting, history.durable))
        point = CrashPoint(machine)
        index = operation.number + 1
        waiting = Moment(index, operation.site, point, ABSENT, history.submitted)

    machine.observer = keep
    try:
        database = work.run(wrap(machine), history, lambda: steps.append(machine.op_count))
    except BaseException:
        machine.cut_power()
        raise
    moments.append(_with_lower(waiting, history.durable))
    abandon(machine, database)
    settled, lower, upper = history.settled()
    moments = [
        replace(moment, lower=lower(moment.lower), upper=upper(moment.upper)) for moment in moments
    ]
    return Recording(settled, moments, machine.op_log, steps)


def _with_lower(moment: Moment, lower: int) -> Moment:
    return replace(moment, lower=lower)


def boot(work: Work, state: CrashState, life: int) -> SimEnv:
    """Return a machine that booted from a crash state, for life number `life` + 1."""
    machine = state.build(random.Random(f"{work.seed}/life/{life}").getrandbits(64))
    machine.wall_start = WALL_START + _BOOT_SECONDS * life
    # A file says when it was made: were it to the microsecond, no two recoveries were alike.
    machine.wall_tick = _BOOT_SECONDS
    return machine


class Verdicts:
    """What was found in contents that were judged before.

    They hold for runs with the same `wrap`, of any workload and profile.
    """

    def __init__(self) -> None:
        self.recovered: Recovered = {}
        self._found: dict[tuple[int, int, str], Finding] = {}

    def get(self, seed: int, life: int, content: str, history: History) -> Finding | None:
        """Return what was found in a content, as `history` numbers it; None when that is not known,
        or when there was something wrong, which is then found and told again.
        """
        known = self._found.get((seed, life, content))
        if known is None or known.complaints:
            return None
        numbers = history.numbers_of(known.digest) if known.digest else known.numbers
        return Finding(numbers, known.digest) if numbers else None

    def put(self, seed: int, life: int, content: str, finding: Finding) -> None:
        """Keep what was found."""
        if len(self._found) >= _VERDICTS_MAX:
            self._found.clear()
        kept = Finding(finding.numbers, finding.digest, finding.complaints)
        self._found[seed, life, content] = kept


@dataclass(frozen=True, slots=True)
class Failure:
    """A crash that the database did not survive."""

    workload: str
    seed: int
    profile: str
    path: str
    complaints: tuple[str, ...]

    @property
    def replay(self) -> str:
        """The command that runs this one state again."""
        profile = "" if self.profile == "posix-min" else f" --profile {self.profile}"
        return (
            f"./dev crash --workload {self.workload} --seed {self.seed}{profile} "
            f'--state "{self.path}"'
        )


@dataclass(slots=True)
class Outcome:
    """What a run tried and what came of it."""

    workload: str
    seed: int
    boundaries: int = 0
    states: int = 0
    """Crash states that were compared with the bounds of their moment, nested ones included."""
    nested: int = 0
    """How many of them lay inside a recovery."""
    distinct: int = 0
    """Different contents that were opened and judged."""
    seconds: float = 0.0
    keys_seen: set[tuple[str, str, int]] = field(default_factory=set)
    """(call site, class, depth) of all states there were."""
    keys_covered: set[tuple[str, str, int]] = field(default_factory=set)
    """The same of those that were run."""
    crashed_at: set[tuple[str, int, str, int]] = field(default_factory=set)
    """(workload, seed, profile, operations done): where a state of the first depth was run."""
    acknowledged: int = 0
    """Commits that were acknowledged as durable before the crash, counted again for each state of
    the first depth.
    """
    failures: list[Failure] = field(default_factory=list)
    is_complete: bool = True
    """Whether every state was run, so no budget ended it and nothing was sampled."""

    def add(self, other: Outcome) -> None:
        """Count another part of the same run, which began at the same time."""
        self.boundaries = max(self.boundaries, other.boundaries)
        self.states += other.states
        self.nested += other.nested
        self.distinct += other.distinct
        self.seconds = max(self.seconds, other.seconds)
        self.keys_seen |= other.keys_seen
        self.keys_covered |= other.keys_covered
        self.crashed_at |= other.crashed_at
        self.acknowledged += other.acknowledged
        self.failures += other.failures
        self.is_complete = self.is_complete and other.is_complete

    def __str__(self) -> str:
        rate = self.states / self.seconds if self.seconds else 0.0
        boundaries = f"{len(self.crashed_at)}/{self.boundaries}"
        extent = "complete" if self.is_complete else "sampled"
        return (
            f"{self.workload:22} boundaries {boundaries:>11}  states {self.states:8} "
            f"(nested {self.nested:8})  distinct {self.distinct:7}  {rate:6.0f} states/s  "
            f"keys {len(self.keys_covered):4}/{len(self.keys_seen):<4}  "
            f"failures {len(self.failures):2}  {extent}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How much of a workload's crash states is run."""

    classes: tuple[str, ...] = CRASH_CLASSES
    depth: int = 2
    budget: float | None = None
    """Seconds after which the run ends. Boundaries and keys then come first, once each."""
    nested_sample: int | None = None
    """How many nested states are run for each content, besides the first of each key; None is all
    of them.
    """
    limit: int | None = None
    """How many contents are opened; the order is that of a run with a budget."""
    cover: bool = False
    """Whether limit and budget wait until each boundary and each key that was seen has had a state
    run.
    """
    last_step: bool = False
    """Whether the power goes only from the beginning of the last step on."""
    failures_max: int = FAILURES_SHOWN
    profile: str = "posix-min"
    part: tuple[int, int] = (0, 1)
    """(index, count): run the share of the contents that falls to this process."""


class Explorer:
    """Runs the crash states of one recording."""

    def __init__(
        self, work: Work, options: Options, wrap: Wrap, verdicts: Verdicts | None = None
    ) -> None:
        self._work = work
        self._verdicts = verdicts or Verdicts()
        self._options = options
        self._wrap = wrap
        self._began = time.perf_counter()
        self._found: dict[str, Finding] = {}
        self._found_nested: dict[str, Finding] = {}
        self.outcome = Outcome(work.name, work.seed)
        self._recording = record(work, options.profile, wrap)
        if options.last_step:
            first = self._recording.steps[-1]
            self._recording.moments = [
                moment for moment in self._recording.moments if moment.index >= first
            ]

    def run(self) -> Outcome:
        """Run the states until all are done, the budget is used up or enough failed."""
        outcome = self.outcome
        outcome.boundaries = len(self._recording.moments)
        for is_first, moment, state in self._in_order():
            if self._is_over() and not (is_first and self._options.cover):
                outcome.is_complete = False
                if not self._is_full() or self._has_failed():
                    break
                if state.content_hash not in self._found:
                    continue
            self._judge(moment, state)
        outcome.seconds = time.perf_counter() - self._began
        return outcome

    def _is_over(self) -> bool:
        return self._has_failed() or self._is_full() or self._is_late()

    def _has_failed(self) -> bool:
        return len(self.outcome.failures) >= self._options.failures_max

    def _is_full(self) -> bool:
        limit = self._options.limit
        return limit is not None and self.outcome.distinct >= limit

    def _is_late(self) -> bool:
        budget = self._options.budget
        return budget is not None and time.perf_counter() - self._began > budget

    def _mine(self, state: CrashState) -> bool:
        index, count = self._options.part
        return int(state.content_hash[:_SIGNATURE_BYTES], 16) % count == index

    def _states(self) -> Iterator[tuple[Moment, CrashState]]:
        for moment in self._recording.moments:
            for state in moment.point.states(self._options.classes, self._work.seed):
                self.outcome.keys_seen.add((moment.site, state.kind, 1))
                if self._mine(state):
                    yield moment, state

    def _in_order(self) -> Iterable[tuple[bool, Moment, CrashState]]:
        """Return the states, by operation, or, when some may be left, the first of each boundary
        and key and then the keys taking turns. Each comes with whether it is such a first.
        """
        if self._options.budget is None and self._options.limit is None:
            return ((False, moment, state) for moment, state in self._states())
        chance = random.Random(f"{self._work.seed}/order")
        turns: dict[tuple[str, str], int] = {}
        boundaries: set[int] = set()
        ranked: list[tuple[int, int, Moment, CrashState]] = []
        everything = list(self._states())
        chance.shuffle(everything)
        for moment, state in everything:
            key = moment.site, state.kind
            turn = turns.get(key, 0)
            turns[key] = turn + 1
            if moment.index not in boundaries:
                boundaries.add(moment.index)
                turn = 0
            ranked.append((turn, len(ranked), moment, state))
        ranked.sort(key=lambda entry: entry[:2])
        return [(turn == 0, moment, state) for turn, _, moment, state in ranked]

    def _judge(self, moment: Moment, state: CrashState) -> None:
        """Run a state of the first depth, and those inside its recovery when it is a new one."""
        outcome = self.outcome
        path = f"{moment.index}:{state.name}"
        outcome.states += 1
        run_of = outcome.workload, outcome.seed, self._options.profile
        outcome.crashed_at.add((*run_of, moment.index))
        outcome.acknowledged += max(0, moment.lower)
        outcome.keys_covered.add((moment.site, state.kind, 1))
        finding = self._found.get(state.content_hash)
        is_new = finding is None
        if finding is None:
            finding = self._examine(state, 1)
            self._found[state.content_hash] = finding
        complaints = list(finding.complaints) if is_new else []
        wrong = finding.complain_of_bounds(moment.lower, moment.upper)
        if wrong:
            complaints.append(wrong)
        if complaints:
            self._fail(path, complaints)
        elif is_new and self._options.depth > 1:
            self._judge_nested(path, finding)
        finding.points.clear()

    def _examine(self, state: CrashState, life: int) -> Finding:
        seed, content, history = self._work.seed, state.content_hash, self._recording.history
        keep = life < self._options.depth
        if not keep:
            known = self._verdicts.get(seed, life, content, history)
            if known is not None:
                return known
        self.outcome.distinct += 1
        finding = examine(
            boot(self._work, state, life),
            history,
            self._wrap,
            keep=keep,
            brief=life > 1,
            recovered=self._verdicts.recovered,
        )
        self._verdicts.put(seed, life, content, finding)
        return finding

    def _judge_nested(self, path: str, outer: Finding) -> None:
        """Cut the power inside the recovery that led to `outer`."""
        outcome = self.outcome
        for index, site, state in self._nested_states(path, outer):
            key = site, state.kind, 2
            content = state.content_hash
            finding = self._found.get(content) or self._found_nested.get(content)
            is_first = self._options.cover and key not in outcome.keys_covered
            if self._is_over() and not is_first:
                outcome.is_complete = False
                if not self._is_full() or self._has_failed():
                    return
                if finding is None:
                    continue
            outcome.states += 1
            outcome.nested += 1
            outcome.keys_covered.add(key)
            complaints: list[str] = []
            if finding is None:
                finding = self._examine(state, 2)
                self._found_nested[content] = finding
                complaints += finding.complaints
            complaints += complain_of_nested(outer, finding)
            if complaints:
                self._fail(f"{path}/{index}:{state.name}", complaints)

    def _nested_states(self, path: str, outer: Finding) -> Iterable[tuple[int, str, CrashState]]:
        """Return the states inside a recovery: all, or the first of each new key and a sample."""
        seen = self.outcome.keys_seen
        firsts: list[tuple[int, str, CrashState]] = []
        found: list[tuple[int, str, CrashState]] = []
        for index, (point, site) in enumerate(outer.points):
            for state in point.states(NESTED_CLASSES, self._work.seed):
                key = site, state.kind, 2
                (found if key in seen else firsts).append((index, site, state))
                seen.add(key)
        sample = self._options.nested_sample
        if sample is None or sample >= len(found):
            return firsts + found
        self.outcome.is_complete = False
        return firsts + random.Random(f"{self._work.seed}/{path}").sample(found, sample)

    def _fail(self, path: str, complaints: list[str]) -> None:
        self.outcome.failures.append(
            Failure(
                self._work.name, self._work.seed, self._options.profile, path, tuple(complaints)
            )
        )


def complain_of_nested(outer: Finding, inner: Finding) -> list[str]:
    """Say what is wrong when a recovery that was cut off is repeated.

    What an open finds is decided by what the disk held before it.
    """
    if not inner.numbers or inner.numbers == outer.numbers:
        return []
    # A database that did not exist may be created by the open that was cut off.
    if outer.numbers == (ABSENT,) and 0 in inner.numbers:
        return []
    wanted, got = outer.numbers[0], inner.numbers[0]
    return [f"recovery finds state {wanted}, but after one that was cut off state {got}"]


def run(
    name: str, *, seed: int = 0, options: Options | None = None, wrap: Wrap = same_machine
) -> Outcome:
    """Run the crash states of a workload in this process.

    Raises: KeyError for an unknown workload; WorkloadError when it fails without any crash.
    """
    return Explorer(workload(name, seed), options or Options(), wrap).run()


def replay(
    name: str, seed: int, path: str, profile: str = "posix-min", wrap: Wrap = same_machine
) -> tuple[list[str], list[str]]:
    """Run one state again. Returns what survived of each change, and what is wrong.

    Raises: KeyError, IndexError when there is no such state.
    """
    work = workload(name, seed)
    recording = record(work, profile, wrap)
    steps = path.split("/")
    explained: list[str] = []

    def live(life: int, point: CrashPoint) -> Finding:
        index, _, named = steps[life - 1].partition(":")
        state = point.state(named, seed)
        explained.extend((f"-- life {life} ends after {index} operations", state.explain()))
        machine = boot(work, state, life)
        finding = examine(machine, recording.history, wrap, keep=life < len(steps), brief=life > 1)
        explained.append(f"-- found: state {', '.join(map(str, finding.numbers)) or 'unknown'}")
        return finding

    moment = recording.moments[int(steps[0].partition(":")[0])]
    finding = live(1, moment.point)
    wrong = finding.complain_of_bounds(moment.lower, moment.upper)
    explained.append(f"-- may be found: state {moment.lower} to {moment.upper}")
    if len(steps) == 1:
        return explained, [*finding.complaints, *([wrong] if wrong else [])]
    inner = live(2, finding.points[int(steps[1].partition(":")[0])][0])
    return explained, [*inner.complaints, *complain_of_nested(finding, inner)]
