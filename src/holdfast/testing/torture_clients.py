"""Torture by I/O errors while several clients commit at once.

A run begins when the database is there. Clients commit, some durably, some not, while another one
flushes and compacts; call K fails, once or from then on. A client goes on after it was refused for
want of room, and after a poisoning it asks once more and must be refused.

What a commit came to is known: it *returned*, and its sequence number was looked up; it was
*refused* for want of room, with nothing written; or it is *in doubt*, because the database was
poisoned meanwhile. What may be found after a crash: the commits that returned, in the order of
their numbers, up to some place that is not before the last one that was acknowledged as durable;
then, only behind all of them, commits in doubt, in any order. Never one that was refused. Each
commit writes a marker of its own and is found wholly or not at all.

Nobody may wait for ever, no two clients are told one object, and a commit that begins after the
poisoning is not acknowledged.

Thread safety: the tasks of one simulated machine, of which one runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random

import holdfast
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, Env, FaultEnv, FaultRule, SimEnv
from holdfast.env.protocol import Condition, Mutex
from holdfast.testing import encrypted
from holdfast.testing.clients import OTHER, Change, Client, ClientHistory, Clients, Planned
from holdfast.testing.crash import same_machine
from holdfast.testing.oracle import (
    FOLDER,
    History,
    WorkloadError,
    Wrap,
    abandon,
    content,
    examine,
    rows,
    state_digest,
)
from holdfast.testing.torture_part import HangError
from holdfast.testing.torture_trial import (
    DESCRIPTORS,
    FULL,
    NAMED_BY_NOBODY,
    is_handled_inside,
    watching,
)

UPTIME_MAX = 300.0
"""A run takes less than a second of simulated time; one that takes so many waits for ever."""

MOMENTS_MAX = 4
"""At so many of the errors that clients are told the power is cut."""


class Outcomes(ClientHistory):
    """A history that knows which commits are in doubt."""

    def __init__(self) -> None:
        super().__init__()
        self.doubtful: set[int] = set()


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment at which the power may go, and what was known then."""

    name: str
    point: CrashPoint
    begun: int
    acknowledged: frozenset[int]


class _BoundedCondition:
    """A condition that is not waited for once the run is over its time. Implements `Condition`."""

    def __init__(self, inner: Condition, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check
        self.notify = inner.notify
        self.notify_all = inner.notify_all

    def wait(self, timeout: float | None = None) -> bool:
        self._check()
        return self._inner.wait(timeout)


class _BoundedEnv(FaultEnv):
    """An env whose calls fail by rules, and in which nobody waits for ever."""

    def __init__(self, inner: Env, check: Callable[[], None]) -> None:
        super().__init__(inner)
        self._check = check

    def condition(self, mutex: Mutex) -> Condition:
        return _BoundedCondition(super().condition(mutex), self._check)


class Allowed(History):
    """The states that may be found: those of the commits that returned, one after the other, and
    behind the last one, under its successor's number, those with commits in doubt.
    """

    def __init__(self, order: Iterable[int], doubtful: Iterable[int], outcomes: Outcomes) -> None:
        super().__init__()
        self.state[OTHER] = {}
        self.submit(lambda state: None)
        for commit in order:
            self.submit(outcomes.change_of(commit))
        self.returned = self.submitted
        self._branches: set[bytes] = set()
        known = list(doubtful)
        for count in range(1, len(known) + 1):
            for chosen in permutations(known, count):
                self._branch([outcomes.change_of(commit) for commit in chosen])

    def _branch(self, changes: Sequence[Change]) -> None:
        """Add the state after changes that follow the last commit that returned."""
        branch = {name: dict(pairs) for name, pairs in self.state.items()}
        for change in changes:
            change(branch)
        self._branches.add(state_digest(branch))
        for name, pairs in branch.items():
            self._keys[name].update(dict.fromkeys(pairs))

    def numbers_of(self, digest: bytes) -> tuple[int, ...]:
        found = super().numbers_of(digest)
        return (*found, self.returned + 1) if digest in self._branches else found


class _FaultyClient(Client):
    """A client whose commits may fail."""

    trial: ClientTrial

    def run(self) -> None:
        self._mine: list[bytes] = []
        super().run()

    def _commit(self, planned: Planned) -> None:
        trial = self.trial
        was_poisoned = trial.is_poisoned
        seq_before, commit = self._begin(planned)
        try:
            self._write(planned)
        except (holdfast.Error, OSError) as error:
            trial.note(error, f"client {self._number}")
            # A client has one commit in doubt at most: those that follow begin too late.
            is_refused = was_poisoned or isinstance(error, holdfast.DiskFullError)
            if not is_refused:
                trial.outcomes.doubtful.add(commit)
            return
        if was_poisoned:
            trial.complaints.append(f"{planned.marker!r} was acknowledged after the poisoning")
        self._end(planned, commit, seq_before)
        self._mine.append(planned.marker)

    def _look(self, turns: int) -> None:
        """A scan shows every commit of this client that has returned, and no other."""
        prefix = b"client/%d/" % self._number
        found = [key for key, _ in rows(self._database.items(prefix=prefix))]
        if found != self._mine:
            text = f"client {self._number} was told of {self._mine} and sees {found}"
            raise WorkloadError(text)


class ClientTrial:
    """One run of clients under rules, and its judgement."""

    def __init__(self, work: Clients, rules: Sequence[FaultRule], rng: Random, wrap: Wrap) -> None:
        self.complaints: list[str] = []
        self.losses: list[str] = []
        """Nothing: no sync lies here."""
        self.outcomes = Outcomes()
        self.poisoned = False
        self.machine = SimEnv(work.seed)
        self.env = _BoundedEnv(wrap(self.machine), self._check_time)
        self._work = work
        self._rules = rules
        self._rng = rng
        self._database: Database | None = None
        self._moments: list[Moment] = []
        self._errors: list[BaseException] = []

    @property
    def is_poisoned(self) -> bool:
        """Whether the database is poisoned now."""
        database = self._database
        return database is not None and database._engine.is_poisoned  # noqa: SLF001  takes no lock

    def run(self) -> None:
        """Run it, and judge it into `complaints`."""
        try:
            self._run()
        except WorkloadError as error:
            self.complaints.append(str(error))
        finally:
            abandon(self.machine, self._database)

    def note(self, error: Exception, who: str) -> None:
        """Note what somebody was told."""
        if any(error is other for other in self._errors):
            self.complaints.append(f"{who} was told the object of another one: {error!r}")
        self._errors.append(error)
        if not self.env.injected:
            self.complaints.append(f"{who} was told {error!r} and nothing had failed")
        if isinstance(error, holdfast.DiskFullError):
            failed = {fault.error for fault in self.env.faults}
            if not failed & {*FULL, *DESCRIPTORS}:
                self.complaints.append(f"{who} was told {error!r} after {self.env.faults}")
        elif not isinstance(error, holdfast.DatabasePoisonedError) or not self.is_poisoned:
            self.complaints.append(f"{who} was told {error!r}, poisoned: {self.is_poisoned}")
        if len(self._moments) < MOMENTS_MAX:
            self._keep_moment(f"a crash when {who} was told")

    def _keep_moment(self, name: str) -> None:
        known = frozenset(self.outcomes.acknowledged())
        self._moments.append(Moment(name, CrashPoint(self.machine), self.outcomes.submitted, known))

    def _check_time(self) -> None:
        """Raise HangError in a run that does not end."""
        if self.machine.uptime > UPTIME_MAX:
            raise HangError(f"{self.machine.uptime:.0f} s of simulated time passed")

    def _watch(self, kind: str, site: str, path: str) -> None:
        """Complain of what is removed after poison."""
        self._check_time()
        if kind == "unlink" and site not in NAMED_BY_NOBODY and self.is_poisoned:
            self.complaints.append(f"{path} was removed ({site}) after poison")

    def _run(self) -> None:
        work, history = self._work, self.outcomes
        database = open_database(
            FOLDER, create=True, settings=work.settings, env=self.env, key=encrypted.key()
        )
        self._database = database
        database.keyspace(OTHER)
        history.acknowledge_all(())
        for rule in (*self._rules, watching(self._watch)):
            self.env.add(rule)
        clients = [_FaultyClient(work, self.env, history, database, n) for n in range(work.clients)]
        for client in clients:
            client.trial = self
        tasks = [self.env.spawn(f"client-{n}", client.run) for n, client in enumerate(clients)]
        self._maintain(database)
        for task in tasks:
            task.join()
        self._judge_living(database)
        self._keep_moment("a crash when all have returned")
        lower = history.acknowledged()
        try:
            database.close()
        except (holdfast.Error, OSError) as error:
            self.note(error, "close")
        else:
            if self.is_poisoned:
                self.complaints.append("a poisoned database was closed and said nothing")
            lower = set(history.returned())
        self._database = None
        self._judge_faults()
        self.env.clear()
        for line in self.machine.unreturned():
            self.complaints.append(f"after the end {line}")
        last = Moment("", CrashPoint(self.machine), history.submitted, frozenset(lower))
        for moment in self._moments:
            self._judge_crash(moment)
        self._judge("an open without faults", self.machine, last)

    def _maintain(self, database: Database) -> None:
        """Flush and compact while clients commit."""
        for turn in range(3):
            self.env.sleep(200e-6)
            known = self.outcomes.returned()
            try:
                database.flush()
                self.outcomes.acknowledge_all(known)
                if turn:
                    database.compact()
            except (holdfast.Error, OSError) as error:
                self.note(error, "maintenance")

    # --- the judgement

    def _judge_living(self, database: Database) -> None:
        """Judge what is read when nobody commits any more, and what is refused."""
        shown = content(database)
        expected = Allowed(self.outcomes.in_order(), (), self.outcomes)
        if shown != expected.state:
            text = f"after all returned, reads show otherwise: {expected.difference(shown)}"
            self.complaints.append(text)
        self.poisoned = self.is_poisoned
        if self.poisoned:
            late: dict[str, Callable[[], object]] = {
                "a put": lambda: database.put(b"~late", b"", durability="none"),
                "a flush": database.flush,
                "a keyspace": lambda: database.keyspace("~late"),
            }
            for what, call in late.items():
                try:
                    call()
                except holdfast.DatabasePoisonedError:
                    continue
                self.complaints.append(f"a poisoned database acknowledged {what}")
        if len(self.outcomes.doubtful) > self._work.clients:
            self.complaints.append(f"{len(self.outcomes.doubtful)} commits are in doubt")
        if self.outcomes.doubtful and not self.poisoned:
            self.complaints.append("commits are in doubt and the database is not poisoned")

    def _judge_faults(self) -> None:
        """Judge who was told of what failed."""
        failed = [fault for fault in self.env.faults if fault.kind == "sync" and fault.error]
        if not self.poisoned and not self._errors:
            if not all(map(is_handled_inside, self.env.faults)):
                self.complaints.append(f"nobody was told of {self.env.faults}")
            if any(fault.error not in FULL + DESCRIPTORS for fault in failed):
                self.complaints.append(f"not poisoned by {failed}")

    def _judge_crash(self, moment: Moment) -> None:
        """Cut the power at a moment, in copies of the machine."""
        point = moment.point
        states = [point.state("none"), point.state("all")]
        states += [*point.states(("random",), self._rng.randrange(1 << 16))][:2]
        for state in {state.content_hash: state for state in states}.values():
            machine = state.build()
            self._judge(f"{moment.name}, {state.name}", machine, moment, brief=True)
            machine.cut_power()

    def _judge(self, when: str, machine: SimEnv, moment: Moment, *, brief: bool = False) -> None:
        outcomes = self.outcomes
        order = outcomes.in_order()
        doubtful = [commit for commit in sorted(outcomes.doubtful) if commit < moment.begun]
        # With more, which is a complaint, there would be too many orders.
        allowed = Allowed(order, doubtful[: self._work.clients], outcomes)
        places = {commit: place for place, commit in enumerate(order, 2)}
        lower = max((places[commit] for commit in moment.acknowledged), default=1)
        upper = allowed.submitted + 1
        late = [place for commit, place in places.items() if commit >= moment.begun]
        if late:
            upper = min(late) - 1
        finding = examine(machine, allowed, same_machine, brief=brief)
        self.complaints += [f"{when}: {line}" for line in finding.complaints]
        if finding.numbers and not any(lower <= number <= upper for number in finding.numbers):
            text = f"{when}: found state {finding.numbers}, allowed are {lower} to {upper}"
            self.complaints.append(text)
