"""One run of a workload under rules by which calls fail, and its judgement.

When the first error reaches the client, reads must go on; a crash at that moment, a close, and
another open without faults must each leave a state that is allowed: nothing that was acknowledged
as durable is lost, and what was refused for want of room does not come back. Every error must be
told, or be one that the database handles itself. After a failed sync the database is poisoned: it
acknowledges nothing and removes nothing that it may need.

A sync that fails and says that it worked (`lying`) takes what was acknowledged with it on any
engine that has one copy. There a weaker rule holds: what is found is a state that the database
went through, not older than what had been acknowledged before that sync, or an error that names
the file.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random

import holdfast
from holdfast.base import DatabaseSettings
from holdfast.engine import Database
from holdfast.env import CrashPoint, CrashState, Env, Fault, FaultEnv, FaultRule, SimEnv
from holdfast.env.protocol import File
from holdfast.testing.crash import same_machine
from holdfast.testing.oracle import (
    ABSENT,
    Finding,
    History,
    WorkloadError,
    Wrap,
    abandon,
    content,
    examine,
    forget,
)
from holdfast.testing.session import Session, Step
from holdfast.testing.workload import Wait, Workload

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
CHANGES = frozenset(
    ("create", "rename", "unlink", "make_dir", "sync_dir", "write", "allocate", "truncate", "sync")
)
READS = frozenset(("open", "read", "size", "file_size", "list_dir"))
KINDS = {"changes": CHANGES, "reads": READS, "syncs": frozenset(("sync", "sync_dir"))}

NAMED_BY_NOBODY = (
    "ingest.write.abandon",
    "table.write.abandon",
    "table.discard.unlink",
    "wal.segment.unlink",
    "manifest.marker.unlink",
)
"""What may be removed although the database is poisoned: files that were never part of it, and
markers that a durable one replaced.
"""

_OLD_KEYS_REMOVED = "keys.obsolete.folder_sync"


class KindsRule(FaultRule):
    """A rule about several kinds of calls: `kind` is a name of them in KINDS."""

    __slots__ = ()

    def matches(self, kind: str, site: str, path: str) -> bool:
        """Return whether the rule is about this call."""
        return kind in KINDS[self.kind]


class _Watcher(FaultRule):
    """A rule that strikes nothing and tells of each call as it begins."""

    __slots__ = ("tell",)

    tell: Callable[[str, str, str], None]

    def matches(self, kind: str, site: str, path: str) -> bool:
        self.tell(kind, site, path)
        return False


def watching(tell: Callable[[str, str, str], None]) -> FaultRule:
    """Return a rule that calls `tell(kind, site, path)` as each call begins."""
    rule = _Watcher()
    object.__setattr__(rule, "tell", tell)
    return rule


def is_handled_inside(fault: Fault) -> bool:
    """Return whether no call need report this failure, because the database handles it itself."""
    if fault.kind in READS or fault.kind == "unlink" or fault.site == _OLD_KEYS_REMOVED:
        # Answers are compared; a file that is not removed, or that a crash brings back, is removed
        # by the next open.
        return True
    if fault.error in FULL + DESCRIPTORS:
        return fault.site.startswith(("table.", "wal.segment.", "manifest."))
    return False


@dataclass(frozen=True, slots=True)
class Start:
    """A disk on which a workload begins, and what is known of it."""

    state: CrashState
    history: History


class FaultySession(Session):
    """A client whose calls may fail."""

    def __init__(self, env: Env, history: History, settings: DatabaseSettings) -> None:
        super().__init__(env, history, settings)
        self.background_errors = 0
        self.given_up: list[Fault] = []
        """What befell tables while the database was being closed. A compaction that is under way
        then is given up, and nobody is told what it met; a flush that a close needs tells.
        """

    def close(self) -> None:
        """Close; the handle is of no use afterwards, whatever comes of it."""
        faults = self.env.faults if isinstance(self.env, FaultEnv) else []
        before = len(faults)
        try:
            super().close()
        except BaseException:
            with suppress(holdfast.Error, OSError):
                self.database.close()
            forget(self.database)
            raise
        finally:
            self._database = None
            self.given_up += [
                fault for fault in faults[before:] if fault.site.startswith("table.write")
            ]

    @property
    def handle(self) -> Database | None:
        """The database, if it is open."""
        return self._database

    def run(self, step: Step) -> None:
        """Run a step. What only time makes durable is durable when the background did its work."""
        durable = self.history.durable
        step.run(self)
        stats = self.database.stats()
        if stats.background_error is not None:
            self.background_errors += 1
        if isinstance(step, Wait) and (stats.poisoned or stats.background_error is not None):
            self.history.durable = durable


class Trial:
    """One run of a workload under rules.

    With `lasting` they go on until the database is closed, and not only until the first error that
    is told. With `lying` the first of them makes a sync claim success.
    """

    def __init__(
        self,
        work: Workload,
        rules: Sequence[FaultRule],
        rng: Random,
        wrap: Wrap,
        *,
        start: Start | None = None,
        lasting: bool = False,
        lying: bool = False,
    ) -> None:
        self.complaints: list[str] = []
        self.losses: list[str] = []
        """What was lost by a sync that lied."""
        self.poisoned = False
        """Whether the database refused to write after the first error."""
        self.machine = SimEnv(work.seed) if start is None else start.state.build()
        self.history = History() if start is None else copy.deepcopy(start.history)
        self._floor: int | None = None
        if lying:
            rules = [self._noted(rules[0]), *rules[1:]]
        self.env = FaultEnv(wrap(self.machine), [*rules, watching(self._watch)])
        self._work = work
        self._rng = rng
        self._session = FaultySession(self.env, self.history, work.settings)
        self._upper = 0
        self._told = False
        self._lasting = lasting
        self._lying = lying

    def _noted(self, rule: FaultRule) -> FaultRule:
        """Return the rule; when it strikes, what had been acknowledged before is noted."""
        effect = rule.effect

        def note(call: Callable[[], object], file: File | None) -> None:
            if self._floor is None:
                self._floor = self.history.durable
            if effect is not None:
                effect(call, file)

        return replace(rule, effect=note)

    def _watch(self, kind: str, site: str, path: str) -> None:
        """Complain of what is removed when nobody knows any more what is durable."""
        handle = self._session.handle
        if kind != "unlink" or site in NAMED_BY_NOBODY or handle is None:
            return
        if handle._engine.is_poisoned:  # noqa: SLF001  figures would take locks
            self.complaints.append(f"{path} was removed ({site}) after poison")

    def _end_faults(self) -> None:
        self.env.clear()
        self.env.add(watching(self._watch))

    def run(self) -> None:
        """Run it, and judge it into `complaints`."""
        try:
            self._run()
        except WorkloadError as error:
            self.complaints.append(str(error))
        finally:
            abandon(self.machine, self._session.handle)

    def _run(self) -> None:
        try:
            self._session.open()
            for step in self._work.steps:
                self._session.run(step)
            self._session.check()
            self._session.close()
        except (holdfast.Error, OSError) as error:
            self._told = True
            if not self._lasting:
                self._end_faults()
            self._upper = self._bound(error)
        else:
            self._upper = self.history.submitted
        if not self._lasting:
            self._end_faults()
        database = self._session.handle
        lower = self.history.durable
        if database is not None:
            lower = self._go_on(database, lower)
        else:
            self._crash(lower)
        self.env.clear()
        if self.machine.unreturned():
            self.complaints.append(f"after the end {self.machine.unreturned()}")
        is_told = self._told or self._session.background_errors > 0 or self._lying
        untold = [fault for fault in self.env.faults if not is_handled_inside(fault)]
        if not is_told and any(fault not in self._session.given_up for fault in untold):
            self.complaints.append(f"nobody was told of {self.env.faults}")
        finding = examine(self.machine, self.history, same_machine)
        self._judge("an open without faults", finding, lower)

    def _bound(self, error: Exception) -> int:
        """Return the last commit that may be found: one that was refused for want of room not."""
        submitted = self.history.submitted
        database = self._session.handle
        is_refused = isinstance(error, holdfast.DiskFullError)
        if not is_refused or database is None or database.stats().poisoned:
            return submitted
        # A commit that changed nothing looks refused even when it was acknowledged.
        is_gone = self._is_commit_refused(database)
        return max(submitted - 1, self.history.durable) if is_gone else submitted

    def _is_commit_refused(self, database: Database) -> bool:
        """Return whether the error came of a commit, not of a flush behind it."""
        return content(database) == self.history.at(max(0, self.history.submitted - 1))

    def _go_on(self, database: Database, lower: int) -> int:
        """Read from a database that met an error, crash it in a copy, and close it.

        Returns the first commit that may be found after the close.
        """
        shown = self.history.numbers(content(database))
        if not any(self.history.submitted - 1 <= number for number in shown):
            self.complaints.append(f"after the error, reads show state {shown}")
        self._check_poison(database)
        self._crash(lower)
        for name in list(self._session.snapshots):
            self._session.close_snapshot(name)
        try:
            database.close()
        except (holdfast.Error, OSError):
            self._told = True
            return lower
        return max(lower, min(shown, default=lower))

    def _check_poison(self, database: Database) -> None:
        """Check that a failed sync poisoned the database, and that it acknowledges nothing."""
        self.poisoned = database.stats().poisoned
        failed = [fault for fault in self.env.faults if fault.kind == "sync" and fault.error]
        if not self.poisoned:
            if any(fault.error not in FULL + DESCRIPTORS for fault in failed):
                self.complaints.append(f"not poisoned by {failed}")
            return
        try:
            database.put(b"~late", b"")
        except holdfast.DatabasePoisonedError:
            return
        self.complaints.append("a poisoned database acknowledged a commit")

    def _crash(self, lower: int) -> None:
        """Cut the power, in copies of the machine."""
        point = CrashPoint(self.machine)
        states = [point.state("none"), point.state("all")]
        states += [*point.states(("random",), self._rng.randrange(1 << 16))][:2]
        for state in {state.content_hash: state for state in states}.values():
            machine = state.build()
            finding = examine(machine, self.history, same_machine, brief=True)
            machine.cut_power()
            self._judge(f"a crash after the error, {state.name}", finding, lower)

    def _judge(self, when: str, finding: Finding, lower: int) -> None:
        complaints = [f"{when}: {line}" for line in finding.complaints]
        numbers = finding.numbers
        if self._lying and self._floor is not None:
            if complaints and all(map(_is_refusal, finding.complaints)):
                self.losses += complaints
                return
            if not complaints and not _is_within(numbers, lower, self._upper):
                self.losses.append(f"{when}: state {numbers}, {lower} was acknowledged")
                lower = self._floor
        self.complaints += complaints
        if numbers and not _is_within(numbers, lower, self._upper):
            bounds = f"{'no database' if lower == ABSENT else lower} to {self._upper}"
            self.complaints.append(f"{when}: found state {numbers}, allowed are {bounds}")


def _is_within(numbers: Iterable[int], lower: int, upper: int) -> bool:
    return any(lower <= number <= upper for number in numbers)


def _is_refusal(complaint: str) -> bool:
    """Return whether a complaint of `examine` is that the database says that it is damaged, or that
    it has not all changes.
    """
    return complaint.startswith(("ChangesGoneError", "CorruptionError", "FormatError", "verify: "))
