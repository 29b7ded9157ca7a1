"""Every interleaving of a few small transactions, run by the engine and judged by the definition.

A scope is an alphabet of operations on two keys and one range, and how many transactions of how
many operations there may be. Of each set of programs every interleaving is run on a database, with
keys of its own, and judged:

1. Some order of the transactions that committed explains all they read, and what is there at the
   end; and it keeps real time: who committed before another one began comes before it.
2. A transaction loses exactly if it writes, and a key or range that it read was written by one that
   committed between its begin and its commit. So nobody loses without need.
3. Each is run twice where commits are next to each other: one after the other, and as members of
   one commit group.

What is left out because it could not differ:

- Programs that are others with the two keys exchanged, or in another order.
- The order of operations of different transactions, unless one is a commit that writes: nothing
  else changes what others see. So it is enough to say for each begin and each read before which of
  the commits it is. A write goes where the operation before it is, for it looks at nothing that
  others change; and a transaction that writes nothing ends with its last operation.

Thread safety: none; one thread. The database is in a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations_with_replacement, permutations, product
from typing import NamedTuple

import holdfast
from holdfast.base import ConflictError, DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database
from holdfast.engine.write_path import Submission
from holdfast.testing import encrypted
from holdfast.txn import Prepared, Transaction

READS = {
    "x": "get x",
    "y": "get y",
    "s": "scan of the range",
    "r": "scan in reverse, up to its first row",
    "f": "scan, up to its first row",
}
WRITES = {"X": "put x", "Y": "put y", "D": "delete x", "E": "delete y", "R": "delete the range"}
"""The operations by their letters. The range has both keys."""

EXCHANGED = str.maketrans("xyXYDEfr", "yxYXEDrf")
"""What becomes of a program when the keys change places: the first row is the last one then."""

RUNS_MAX = 50_000
"""So many runs have one database."""

_SETTINGS = DatabaseSettings(
    memory_bytes=256 << 20,
    keyspace=KeyspaceSettings(memtable_bytes=64 << 20),
)


class Scope(NamedTuple):
    """What is tried."""

    alphabet: str
    operations: int
    """At most so many in a transaction."""
    transactions: int = 3
    """At most so many."""


SCOPES = {
    "whole": Scope("xyXYs", 3),
    "deletes": Scope("xyXYDEsfrR", 2),
    "small": Scope("xyXYs", 2),
}
"""By their names; `whole` is that of gets, puts and scans, and takes hours of a processor."""

Interleaving = tuple[tuple[int, int], ...]
"""Events in their order: a transaction, and -1 for its begin, the number of an operation, or the
count of them for its end.
"""


@cache
def writes(program: str) -> bool:
    """Return whether a program has a write."""
    return any(letter in WRITES for letter in program)


def programs(scope: Scope) -> list[str]:
    """Return every transaction of a scope, as the letters of its operations."""
    return [
        "".join(letters)
        for count in range(1, scope.operations + 1)
        for letters in product(scope.alphabet, repeat=count)
    ]


def sets_of_programs(scope: Scope) -> Iterator[tuple[str, ...]]:
    """Yield every set of programs of a scope, those that are alike once."""
    every = programs(scope)
    for count in range(2, scope.transactions + 1):
        for chosen in combinations_with_replacement(every, count):
            exchanged = sorted(program.translate(EXCHANGED) for program in chosen)
            if exchanged >= sorted(chosen):
                yield chosen


def interleavings(chosen: Sequence[str]) -> Iterator[Interleaving]:
    """Yield every interleaving of programs that may differ from others."""
    writers = [number for number, program in enumerate(chosen) if writes(program)]
    readers = [number for number in range(len(chosen)) if number not in writers]
    seen: set[tuple[str, ...]] = set()
    for order in permutations(writers):
        # Programs that are equal may change places.
        shape = tuple(chosen[number] for number in order)
        if shape in seen:
            continue
        seen.add(shape)
        choices = [list(_placed(chosen[number], place)) for place, number in enumerate(order)]
        choices += [list(_placed(chosen[number], len(order))) for number in readers]
        for placed in product(*choices):
            yield _events(chosen, (*order, *readers), len(order), placed)


def _placed(program: str, last: int) -> Iterator[tuple[int, ...]]:
    """Yield, for the begin and each operation, before which commit it may be: 0 to `last`."""
    moves = [True, *(letter in READS for letter in program)]

    def place(at: int, lowest: int) -> Iterator[tuple[int, ...]]:
        if at == len(moves):
            yield ()
            return
        for chosen in range(lowest, last + 1) if moves[at] else (lowest,):
            for rest in place(at + 1, chosen):
                yield (chosen, *rest)

    return place(0, 0)


def _events(
    chosen: Sequence[str], order: Sequence[int], writers: int, placed: Sequence[tuple[int, ...]]
) -> Interleaving:
    """Return the events in their order: those before the first commit, the commit, and so on."""
    slots: list[list[tuple[int, int]]] = [[] for _ in range(writers + 1)]
    for place, number in enumerate(order):
        for event, slot in enumerate(placed[place]):
            slots[slot].append((number, event - 1))
        count = len(chosen[number])
        if place >= writers:
            slots[placed[place][-1]].append((number, count))
    result: list[tuple[int, int]] = []
    for slot, events in enumerate(slots):
        result += events
        if slot < writers:
            result.append((order[slot], len(chosen[order[slot]])))
    return tuple(result)


class Seen(NamedTuple):
    """What came of a run."""

    committed: tuple[bool, ...]
    read: tuple[tuple[object, ...], ...]
    """By transaction and operation; None for a write."""
    final: tuple[bytes | None, bytes | None]


@dataclass(slots=True)
class Tally:
    """How many runs there were, and what was wrong."""

    sets: int = 0
    runs: int = 0
    grouped: int = 0
    """Of the runs: those with commits in one group."""
    lost: int = 0
    """Transactions that lost."""
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what another part came to."""
        self.sets += other.sets
        self.runs += other.runs
        self.grouped += other.grouped
        self.lost += other.lost
        self.faults += other.faults


class Arena:
    """A database on which interleavings are run, each with keys of its own."""

    def __init__(self) -> None:
        self._number = 0
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-interleavings-")
        self._database = self._opened()

    def _opened(self) -> Database:
        path = os.path.join(self._folder.name, str(self._number))
        return holdfast.open(path, settings=_SETTINGS, key=encrypted.key())

    def close(self) -> None:
        """Let go of it."""
        self._database.close()
        self._folder.cleanup()

    def run(self, chosen: Sequence[str], events: Interleaving, *, grouped: bool) -> Seen:
        """Run one interleaving; `grouped` puts commits that are next to each other into a group."""
        self._number += 1
        if self._number % RUNS_MAX == 0:
            self._database.close()
            shutil.rmtree(self._database.path)
            self._database = self._opened()
        return _Run(self._database, b"%08d" % self._number, chosen).run(events, grouped=grouped)

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Run:
    def __init__(self, database: Database, prefix: bytes, chosen: Sequence[str]) -> None:
        self._database = database
        self._x, self._y, self._stop = prefix + b"x", prefix + b"y", prefix + b"z"
        self._prefix = prefix
        self._chosen = chosen
        self._txns: dict[int, Transaction] = {}
        self._committed = [False] * len(chosen)
        self._read: list[list[object]] = [[] for _ in chosen]

    def run(self, events: Interleaving, *, grouped: bool) -> Seen:
        waiting: list[int] = []
        for number, event in events:
            is_end = event == len(self._chosen[number])
            if waiting and not is_end:
                self._commit_together(waiting)
                waiting = []
            if event < 0:
                self._txns[number] = self._database.transaction(durability="none")
            elif not is_end:
                txn, letter = self._txns[number], self._chosen[number][event]
                self._read[number].append(self._do(txn, letter, b"%d.%d" % (number, event)))
            elif grouped and writes(self._chosen[number]):
                waiting.append(number)
            else:
                self._commit(number)
        if waiting:
            self._commit_together(waiting)
        x, y = self._database.get_many([self._x, self._y])
        return Seen(tuple(self._committed), tuple(map(tuple, self._read)), (x, y))

    def _do(self, txn: Transaction, letter: str, value: bytes) -> object:
        if letter == "x":
            return txn.get(self._x)
        if letter == "y":
            return txn.get(self._y)
        if letter == "X":
            txn.put(self._x, value)
        elif letter == "Y":
            txn.put(self._y, value)
        elif letter == "D":
            txn.delete(self._x)
        elif letter == "E":
            txn.delete(self._y)
        elif letter == "R":
            txn.delete_range(self._prefix, self._stop)
        elif letter == "s":
            rows = txn.items(self._prefix, self._stop)
            return tuple((key[-1:], found) for key, found in rows)
        else:
            rows = txn.items(self._prefix, self._stop, reverse=letter == "r", limit=1)
            return tuple((key[-1:], found) for key, found in rows)
        return None

    def _commit(self, number: int) -> None:
        try:
            self._txns[number].commit()
        except ConflictError:
            return
        self._committed[number] = True

    def _commit_together(self, numbers: Sequence[int]) -> None:
        """Commit as members of one group, as the commits of tasks are."""
        prepared: list[tuple[int, Prepared]] = []
        for number in numbers:
            made = self._txns[number].prepare()
            if made is not None:
                prepared.append((number, made))
        parts = [
            Submission(_NOBODY, made.batch, "none", made.keyspaces, made.check)
            for _, made in prepared
        ]
        path = self._database._engine.write_path  # noqa: SLF001  as the committer does
        path.commit_for_others(parts, sum(made.batch.size for _, made in prepared))
        for (number, made), part in zip(prepared, parts, strict=True):
            self._txns[number].finish(part.error, made.check)
            if part.error is None:
                self._committed[number] = True
            elif not isinstance(part.error, ConflictError):
                raise part.error


class _Nobody:
    def receive(self, served: list[Submission]) -> None:
        """Nobody waits: the commit is over when it returns."""


_NOBODY = _Nobody()

State = dict[bytes, bytes]


def _replay(state: State, number: int, program: str) -> list[object]:
    """Run a program alone; return what it reads."""
    read: list[object] = []
    for event, letter in enumerate(program):
        found: object = None
        if letter in "xy":
            found = state.get(letter.encode())
        elif letter in "XY":
            state[letter.lower().encode()] = b"%d.%d" % (number, event)
        elif letter in "DE":
            state.pop(b"x" if letter == "D" else b"y", None)
        elif letter == "R":
            state.clear()
        else:
            rows = sorted(state.items(), reverse=letter == "r")
            found = tuple(rows if letter == "s" else rows[:1])
        read.append(found)
    return read


def is_serializable(chosen: Sequence[str], events: Interleaving, seen: Seen) -> bool:
    """Return whether some order that keeps real time explains what was seen."""
    place = {event: at for at, event in enumerate(events)}

    def moment(number: int) -> int:
        """Return when it took effect, in all likelihood: that order is tried first."""
        return place[number, len(chosen[number]) if writes(chosen[number]) else -1]

    done = [number for number in range(len(chosen)) if seen.committed[number]]
    done.sort(key=moment)
    for order in permutations(done):
        if any(
            place[later, len(chosen[later])] < place[earlier, -1]
            for at, earlier in enumerate(order)
            for later in order[at + 1 :]
        ):
            continue
        state: State = {}
        if (
            all(
                tuple(_replay(state, number, chosen[number])) == seen.read[number]
                for number in order
            )
            and (state.get(b"x"), state.get(b"y")) == seen.final
        ):
            return True
    return False


def who_may_lose(chosen: Sequence[str], events: Interleaving, seen: Seen) -> list[bool]:
    """Return which transactions lose, given who committed before them."""
    lose = [False] * len(chosen)
    begun: dict[int, int] = {}
    commits: list[tuple[int, frozenset[str]]] = []
    for at, (number, event) in enumerate(events):
        program = chosen[number]
        if event < 0:
            begun[number] = at
        elif event == len(program) and writes(program):
            depends = _depends(program, seen.read[number])
            lose[number] = any(
                when > begun[number] and written & depends for when, written in commits
            )
            if not lose[number]:
                commits.append((at, _written(program)))
    return lose


@cache
def _written(program: str) -> frozenset[str]:
    keys: set[str] = set()
    for letter in program:
        keys |= {"X": {"x"}, "D": {"x"}, "Y": {"y"}, "E": {"y"}, "R": {"x", "y"}}.get(letter, set())
    return frozenset(keys)


def _depends(program: str, read: Sequence[object]) -> set[str]:
    """Return the keys that a transaction read of others, in what it gave for them."""
    keys: set[str] = set()
    own: set[str] = set()
    for letter, found in zip(program, read, strict=True):
        if letter in "xy":
            keys |= {letter} - own
        elif letter in READS:
            reached = found[0][0].decode() if found and letter in "fr" else ""  # type: ignore[index]  # rows
            # Up to its first row: before it, or behind it, nothing was read.
            keys |= {"f": {"x"}, "r": {"y"}}.get(letter, set()) if reached else {"x", "y"}
            keys |= {reached} if reached else set()
        own |= _written(letter)
    return keys


def judge_set(arena: Arena, chosen: Sequence[str], tally: Tally) -> None:
    """Run and judge every interleaving of a set of programs."""
    tally.sets += 1
    known: set[tuple[Seen, Interleaving]] = set()
    for events in interleavings(chosen):
        for grouped in (False, True) if _has_neighbours(chosen, events) else (False,):
            seen = arena.run(chosen, events, grouped=grouped)
            tally.runs += 1
            tally.grouped += grouped
            if (seen, events) in known:
                continue
            known.add((seen, events))
            lost = who_may_lose(chosen, events, seen)
            tally.lost += sum(lost)
            what = f"{' | '.join(chosen)} as {events}{', in groups' * grouped}: {seen}"
            if not is_serializable(chosen, events, seen):
                tally.faults.append(f"no serial order: {what}")
            if lost != [not committed for committed in seen.committed]:
                tally.faults.append(f"expected to lose: {lost}: {what}")


def _has_neighbours(chosen: Sequence[str], events: Interleaving) -> bool:
    """Return whether two commits that write are next to each other."""
    last = False
    for number, event in events:
        is_commit = event == len(chosen[number]) and writes(chosen[number])
        if is_commit and last:
            return True
        last = is_commit
    return False
