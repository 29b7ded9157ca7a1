"""What a database may hold after a crash: the states it went through, and the judgement of what was
found.

A workload tells the `History` of every state it commits. The states are numbered in commit order: 0
is the database that was just created, `ABSENT` is no database at all. At any moment two numbers
bound what a crash may leave: everything up to `durable` was acknowledged as durable, nothing beyond
`submitted` was asked for.

`examine` opens a folder after a crash, as a user would, and says which of the states it found. It
accepts the database when all of this holds:

1. It opens without help, and without help it is absent only before its creation was acknowledged.
2. A scan of all keyspaces equals one state of the history: nothing half applied, no hole, no ghost.
   That its number lies within the bounds is for the caller to check, since the same content may
   have been left at different moments.
3. Scans in reverse and point reads, also of keys that are absent, agree with the scan.
4. `verify` finds no damage.
5. A new commit works and survives a power cut that takes everything unsynced.
6. After a clean close nothing is open, locked or running, no file is there that the manifest does
   not name, and another open finds the same.

What an opened database does from point 3 on follows from what is on its disk. Many crashes lead
recovery to the same bytes, so `Recovered` keeps what came of them, and points 3 to 6 are tried once
for each.

Source: the prefix check is that of RocksDB's expected state; the model of each commit makes one
look-up of it.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import cast

from holdfast.engine import Database, open_database
from holdfast.engine._core import CLOSED
from holdfast.env import CrashPoint, Env, Operation, SimCrash, SimEnv
from holdfast.manifest import VersionSet, manifest_name
from holdfast.merge import Merges
from holdfast.recovery import needed_log, stored_settings
from holdfast.sstable import table_name
from holdfast.testing import encrypted

ABSENT = -1
FOLDER = "/db"
DEFAULT = "default"
_PROBE_KEY = b"~probe"
_DATA_SUFFIXES = (".table", ".wal", ".manifest")
_SHOWN = 6

State = dict[str, dict[bytes, bytes]]
"""The content of all keyspaces by name."""

Wrap = Callable[[SimEnv], Env]
"""Makes the env that the engine is given out of the simulated machine."""


class WorkloadError(AssertionError):
    """The database gave a wrong answer before any crash."""


def state_digest(state: Mapping[str, Mapping[bytes, bytes]]) -> bytes:
    """Return a hash that is equal for equal states."""
    digest = blake2b(digest_size=16)
    for name in sorted(state):
        pairs = state[name]
        digest.update(b"k%d:%s%d;" % (len(name), name.encode(), len(pairs)))
        for key in sorted(pairs):
            value = pairs[key]
            digest.update(b"%d,%d:" % (len(key), len(value)) + key + value)
    return digest.digest()


class History:
    """The states that a workload commits, in order, and what was acknowledged of them."""

    def __init__(self) -> None:
        self.state: State = {DEFAULT: {}}
        """The newest state."""
        self.submitted = 0
        self.durable = ABSENT
        self._states: list[State] = []
        self._numbers: dict[bytes, tuple[int, ...]] = {}
        self._keys: dict[str, dict[bytes, None]] = {}
        self._keep()

    def submit(self, change: Callable[[State], object]) -> int:
        """Add the state after `change`, whose commit begins now; return its number."""
        change(self.state)
        self.submitted += 1
        self._keep()
        return self.submitted

    def acknowledge(self, number: int) -> None:
        """Note that everything up to `number` was acknowledged as durable."""
        self.durable = max(self.durable, number)

    def settled(self) -> tuple[History, Callable[[int], int], Callable[[int], int]]:
        """Return, after a run, the history by which it is judged, and what turns `durable` and
        `submitted` of some moment into its bounds.
        """
        return self, int, int

    def numbers(self, state: Mapping[str, Mapping[bytes, bytes]]) -> tuple[int, ...]:
        """Return the numbers that have this state; more than one when a commit changed nothing."""
        return self.numbers_of(state_digest(state))

    def numbers_of(self, digest: bytes) -> tuple[int, ...]:
        """Return the numbers of the states that have this digest."""
        return self._numbers.get(digest, ())

    def at(self, number: int) -> State:
        """Return the state after commit `number`."""
        return self._states[number]

    def keys(self, keyspace: str) -> list[bytes]:
        """Return every key that was ever in a keyspace of this name."""
        return list(self._keys.get(keyspace, {}))

    def difference(self, found: Mapping[str, Mapping[bytes, bytes]]) -> str:
        """Say how `found` differs from the state that it differs least from."""
        nearest = min(
            range(len(self._states)), key=lambda n: len(_differences(self._states[n], found))
        )
        lines = _differences(self._states[nearest], found)
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        return f"nearest is state {nearest}: {'; '.join(lines[:_SHOWN])}{more}"

    def _keep(self) -> None:
        self._states.append(copy.deepcopy(self.state))
        for name, pairs in self.state.items():
            self._keys.setdefault(name, {}).update(dict.fromkeys(pairs))
        digest = state_digest(self.state)
        self._numbers[digest] = (*self._numbers.get(digest, ()), self.submitted)


def _differences(
    expected: Mapping[str, Mapping[bytes, bytes]], found: Mapping[str, Mapping[bytes, bytes]]
) -> list[str]:
    lines = [f"keyspace {name} is missing" for name in expected if name not in found]
    lines += [f"keyspace {name} is there" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        wanted, got = expected[name], found[name]
        for key in sorted(wanted.keys() | got.keys()):
            if wanted.get(key) != got.get(key):
                values = f"{_shown(wanted.get(key))}, not {_shown(got.get(key))}"
                lines.append(f"{name}[{key!r}] should be {values}")
    return lines


def _shown(value: bytes | None) -> str:
    return "absent" if value is None else repr(value[:24])


@dataclass(slots=True)
class Finding:
    """What was found in a folder after a crash."""

    numbers: tuple[int, ...] = ()
    """The numbers of the state that was found; empty when it is no state of the history."""
    digest: bytes = b""
    """Of the state that was found; empty when there was no database, or none that opened."""
    complaints: list[str] = field(default_factory=list)
    """What is wrong, whatever the bounds are."""
    points: list[tuple[CrashPoint, str]] = field(default_factory=list)
    """The moments of the first open, from before its first operation on, and the site of the
    operation that each comes after.
    """

    def complain_of_bounds(self, lower: int, upper: int) -> str:
        """Return what is wrong about the state that was found, or nothing."""
        if not self.numbers or any(lower <= number <= upper for number in self.numbers):
            return ""
        found = self.numbers[-1] if self.numbers[-1] < lower else self.numbers[0]
        if found < lower:
            return (
                f"state {_named(found)} was found, but {_named(lower)} was acknowledged as durable"
            )
        return f"state {_named(found)} was found, but only {_named(upper)} was submitted"


Recovered = dict[tuple[str, str, bytes, bool], tuple[str, ...]]
"""What was wrong from point 3 on, by the volatile and the durable content of the disk after a
recovery, what a scan found, and whether the judgement was brief.
"""

RECOVERED_MAX = 200_000
"""How many are kept; then they are forgotten."""


def _named(number: int) -> str:
    return "'no database'" if number == ABSENT else str(number)


@contextmanager
def opened(machine: SimEnv, env: Env, *, create: bool = False) -> Iterator[Database]:
    """Open the database of a simulated machine and close it.

    After an exception the machine is switched off instead, so that no thread is left.
    """
    database: Database | None = None
    try:
        database = open_database(FOLDER, create=create, env=env, key=encrypted.key())
        yield database
        database.close()
    except BaseException:
        abandon(machine, database)
        raise


def abandon(machine: SimEnv, database: Database | None) -> None:
    """Switch a machine off, so that no thread of it is left, and let go of its database."""
    machine.cut_power()
    if database is not None:
        with suppress(SimCrash):
            database.close()
        forget(database)


def forget(database: Database) -> None:
    """Let go of a database whose close failed, or whose process is gone: what it had open is not
    told of as a leak.
    """
    database._engine.state.flags |= CLOSED  # noqa: SLF001  its own close did not come so far


def rows(cursor: Iterable[object]) -> list[tuple[bytes, bytes]]:
    """Return what a scan of items yields."""
    return cast("list[tuple[bytes, bytes]]", list(cursor))


def content(database: Database) -> State:
    """Return what a scan of all keyspaces finds."""
    return {name: dict(rows(database.keyspace(name).items())) for name in database.keyspaces()}


def examine(
    machine: SimEnv,
    history: History,
    wrap: Wrap,
    *,
    keep: bool = False,
    brief: bool = False,
    recovered: Recovered | None = None,
) -> Finding:
    """Open the database of a machine that booted after a crash, and judge it.

    With `keep` the moments of the first open are kept in the finding. With `brief` the database is
    not opened again, so that points 5 and 6 are tried in part only. What `recovered` knows is not
    tried again; it holds for one `wrap`. The machine is used up.
    """
    finding = Finding()
    try:
        database, found = _open_crashed(machine, history, wrap, finding, keep=keep)
        known = None
        if recovered is not None:
            key = (*_hashes(machine), finding.digest, brief)
            known = recovered.get(key)
        if known is not None:
            finding.complaints += known
            abandon(machine, database)
            return finding
        before = len(finding.complaints)
        _use(machine, database, history, wrap, found, finding.complaints.append, brief=brief)
        if recovered is not None:
            if len(recovered) >= RECOVERED_MAX:
                recovered.clear()
            recovered[key] = tuple(finding.complaints[before:])
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  whatever an open raises is a finding
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rpartition('/holdfast/')[2]}:{place.lineno}"
        finding.complaints.append(f"{type(error).__name__} at {where}: {error}")
    return finding


def _open_crashed(
    machine: SimEnv, history: History, wrap: Wrap, finding: Finding, *, keep: bool
) -> tuple[Database, State]:
    """Judge what the first open finds; return the database and its content."""
    env = wrap(machine)
    complain = finding.complaints.append
    if keep:
        keep_points(machine, finding.points)
    is_absent = False
    try:
        database = open_database(FOLDER, create=False, env=env, key=encrypted.key())
    except FileNotFoundError:
        is_absent = True
        database = open_database(FOLDER, env=env, key=encrypted.key())
    machine.observer = None
    try:
        found = content(database)
        if is_absent:
            finding.numbers = (ABSENT,)
        else:
            finding.digest = state_digest(found)
            finding.numbers = history.numbers_of(finding.digest)
        if not finding.numbers:
            complain(f"what was found is no state of the history: {history.difference(found)}")
        if is_absent and found != {DEFAULT: {}}:
            complain("a database that is new is not empty")
    except BaseException:
        abandon(machine, database)
        raise
    return database, found


def _use(
    machine: SimEnv,
    database: Database,
    history: History,
    wrap: Wrap,
    found: State,
    complain: Callable[[str], None],
    *,
    brief: bool,
) -> None:
    """Read, commit, close and open again."""
    try:
        _check_reads(database, history, found, complain)
        _check_changes(database, found, complain)
        _check_report(database, complain)
        probe = b"%d" % machine.op_count
        found[DEFAULT][_PROBE_KEY] = probe
        database[_PROBE_KEY] = probe
        cut = CrashPoint(machine)
        database.close()
    except BaseException:
        abandon(machine, database)
        raise
    _check_closed(machine, wrap(machine), complain)
    if not brief:
        _check_same(machine, wrap(machine), found, "after a clean close", complain)
        machine = cut.state("none").build()
        _check_same(machine, wrap(machine), found, "after a commit and a power cut", complain)


def _hashes(machine: SimEnv) -> tuple[str, str]:
    """Return the hash of what is on the disk, and of what is durable of the files that have names.

    That the removal of a name is not durable yet matters to the next open only: that is tried where
    the power goes inside a recovery.
    """
    moment = CrashPoint(machine).moment
    names = sum(1 << position for position in moment.name_positions())
    return moment.tree(moment.full, {})[1], moment.tree(names, {})[1]


def keep_points(machine: SimEnv, points: list[tuple[CrashPoint, str]]) -> None:
    """Keep the moment that is now, and that after each operation from now on, in `points`."""
    points.append((CrashPoint(machine), "start"))

    def keep(operation: Operation) -> None:
        points.append((CrashPoint(machine), operation.site))

    machine.observer = keep


def _check_reads(
    database: Database, history: History, found: State, complain: Callable[[str], None]
) -> None:
    for name, pairs in found.items():
        keyspace = database.keyspace(name)
        forward = list(pairs.items())
        if forward != sorted(forward):
            complain(f"keyspace {name}: the scan is not in order")
        backward = rows(keyspace.items(reverse=True))
        if backward != forward[::-1]:
            complain(f"keyspace {name}: the scan in reverse gives other rows")
        keys = [*dict.fromkeys([*history.keys(name), *pairs])]
        for key, value in zip(keys, keyspace.get_many(keys), strict=True):
            if value != pairs.get(key):
                got = f"{_shown(value)}, the scan has {_shown(pairs.get(key))}"
                complain(f"keyspace {name}: a point read of {key!r} gives {got}")


def _check_changes(database: Database, found: State, complain: Callable[[str], None]) -> None:
    """Where the whole log is kept, its changes must make what was found."""
    if not database.settings.wal_keep_bytes:
        return
    made: State = {name: {} for name in found}
    for change in database.changes():
        for kind, keyspace, key, value, function in change.operations:
            if keyspace is None:
                continue
            if kind == "put":
                made[keyspace][key] = value or b""
            elif function is not None:
                before = made[keyspace].get(key)
                made[keyspace][key] = Merges().apply(key, before, function, [value or b""])
            elif kind == "delete":
                made[keyspace].pop(key, None)
            else:
                for other in [other for other in made[keyspace] if key <= other < (value or b"")]:
                    del made[keyspace][other]
    if made != found:
        complain("the changes that the log keeps do not make what was found")


def _check_report(database: Database, complain: Callable[[str], None]) -> None:
    for error in database.verify().errors:
        complain(f"verify: {error}")


def _check_same(
    machine: SimEnv, env: Env, expected: State, when: str, complain: Callable[[str], None]
) -> None:
    with opened(machine, env) as database:
        found = content(database)
        if found != expected:
            lines = _differences(expected, found)
            complain(f"{when}, another open finds something else: {'; '.join(lines[:_SHOWN])}")
    _check_unreturned(machine, complain)


def _check_closed(machine: SimEnv, env: Env, complain: Callable[[str], None]) -> None:
    """Check that a clean close gave everything back and that the folder holds nothing else."""
    _check_unreturned(machine, complain)
    env = encrypted.plain_face(env, FOLDER)
    manifest = VersionSet.recover(env, FOLDER)
    version = manifest.version
    expected = {manifest_name(manifest.manifest_number)}
    expected.update(table_name(number) for number in version.table_numbers())
    log = needed_log(env, FOLDER, manifest)
    expected.update(segment.path.rpartition("/")[2] for segment in log)
    present = {name for name in env.list_dir(FOLDER) if name.endswith(_DATA_SUFFIXES)}
    if stored_settings(manifest).wal_keep_bytes:
        expected.update(name for name in present if name.endswith(".wal"))
    for name in sorted(present - expected):
        complain(f"after a clean close {name} is there, which nothing names")
    for name in sorted(expected - present):
        complain(f"after a clean close {name} is missing")
    if not version.clean:
        complain("after a clean close the manifest does not say that it was clean")


def _check_unreturned(machine: SimEnv, complain: Callable[[str], None]) -> None:
    for line in machine.unreturned():
        complain(f"after a clean close {line}")
