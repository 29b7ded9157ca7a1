"""The second checker: read-modify-write histories, by putting the transactions in an order.

Each transaction reads a key before it writes it, and no two write the same value. So the reads say
which version each write replaced, and what had to happen before what is known completely. The
checker then does what the definition of a level asks for: it makes an order, and runs it.

1. `serializable`: an order of the transactions in which each, run alone, reads what it read.
   `strict serializable`: such an order that keeps real time.
2. `snapshot`: an order of the starts and the commits in which each transaction reads what was
   committed before its start, and nobody committed a key it writes between its start and its
   commit. `strong snapshot`: such an order in which whatever was acknowledged before a transaction
   began was committed before its start.
3. `read committed`: an order of the transactions in which each comes after those whose writes it
   read.
4. A level is kept exactly if there is such an order. If there is one it is run, operation by
   operation, and must give what the history says: this proves it. If there is none, the
   transactions that could not be placed and what they wait for are shown.
5. A transaction of unknown outcome is committed if a committed one saw what it wrote. Else it is
   left out: an order with it is one without it as well.
6. Scans read every key of their range that the history names; absence is the value 0.
7. The time is near-linear in the history.

It shares the form of histories and of reports with `check_append`, and no step.

Sources: the complete check of mini-transactions is that of Huang and others, MTC (2023), and of
Biswas and Enea, On the Complexity of Checking Transactional Consistency (2019). They look for
cycles; orders that are run are this checker's own way.

Thread safety: none; one thread.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

from holdfast.testing.anomaly import (
    READ_COMMITTED,
    SNAPSHOT,
    Report,
)
from holdfast.testing.history import (
    Append,
    HistoryError,
    Put,
    Read,
    Scan,
    Transaction,
    show_transaction,
)

ABSENT = 0
NEVER = 1 << 62
WALKS_MOST = 32
"""From so many transactions without a place the shortest circle of waiting is looked for."""


class CheckerError(AssertionError):
    """The checker contradicts itself: an order that it made does not give the history."""


class _Facts(NamedTuple):
    """A committed transaction."""

    transaction: Transaction
    reads: dict[str, int]
    """What it first read of each key."""
    writes: dict[str, int]
    """What it last wrote to each key."""


class _Demand(NamedTuple):
    """`first` has to come before `then`, because of what was read of `key`."""

    first: int
    then: int
    key: str


def check_rmw(transactions: Sequence[Transaction], *, most: int = 8) -> Report:
    """Judge a read-modify-write history; `most` anomalies of each kind are kept.

    Raises: HistoryError if the history is not of this kind.
    """
    report = Report(most)
    book = _Book(transactions, report)
    if READ_COMMITTED in report.violated():
        return report
    _Levels(book, report).judge()
    return report


class _Book:
    """Who read and wrote what; tells what is wrong without any order."""

    def __init__(self, transactions: Sequence[Transaction], report: Report) -> None:
        self.report = report
        self.writer: dict[tuple[str, int], Transaction] = {}
        names: set[str] = set()
        for transaction in transactions:
            self._enter(transaction, names)
        self.keys = sorted(names)
        self.facts: list[_Facts] = [
            self._facts(transaction) for transaction in self._committed(transactions)
        ]
        self.place = {facts.transaction.number: at for at, facts in enumerate(self.facts)}
        self.next: dict[tuple[str, int], int] = {}
        """The transaction that replaced a version of a key."""
        for at, facts in enumerate(self.facts):
            self._check_reads(facts)
            self._check_updates(at, facts)

    def _enter(self, transaction: Transaction, names: set[str]) -> None:
        known: set[str] = set()
        for operation in transaction.operations:
            if isinstance(operation, Append):
                raise HistoryError(f"T{transaction.number} appends; a rmw history only puts")
            if isinstance(operation, Scan):
                names.update(key for key, _ in operation.rows)
                known.update(key for key, _ in operation.rows)
                continue
            names.add(operation.key)
            if isinstance(operation, Read):
                known.add(operation.key)
                continue
            if operation.key not in known:
                raise HistoryError(f"T{transaction.number} puts {operation.key} without a read")
            version = (operation.key, operation.value)
            if operation.value == ABSENT or version in self.writer:
                raise HistoryError(f"{operation.key} = {operation.value} is put twice, or is 0")
            self.writer[version] = transaction

    def _committed(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        found = {one.number: one for one in transactions if one.outcome == "ok"}
        if len({one.number for one in transactions}) != len(transactions):
            raise HistoryError("two transactions have the same number")
        if len(found) + sum(one.outcome == "fail" for one in transactions) == len(transactions):
            return list(found.values())
        queue = list(found.values())
        while queue:
            for version in _versions_read(queue.pop()):
                writer = self.writer.get(version)
                if writer and writer.outcome == "unknown" and writer.number not in found:
                    found[writer.number] = writer
                    queue.append(writer)
        return list(found.values())

    def _facts(self, transaction: Transaction) -> _Facts:
        facts = _Facts(transaction, {}, {})
        for operation in transaction.operations:
            if isinstance(operation, Put):
                facts.writes[operation.key] = operation.value
                continue
            for key, value in self.rows(operation):
                if key in facts.writes:
                    if value != facts.writes[key]:
                        text = f"read {key} = {value} after it put {facts.writes[key]}"
                        self._tell("own write not seen", text, transaction)
                elif facts.reads.setdefault(key, value) != value:
                    text = f"first read {key} = {facts.reads[key]}, then {value}"
                    self._tell("non-repeatable read", text, transaction)
            if isinstance(operation, Scan):
                names = [key for key, _ in operation.rows]
                inside = all(operation.lower <= key < operation.upper for key in names)
                if not inside or any(a >= b for a, b in pairwise(names)):
                    self._tell("wrong scan", "got rows out of order or out of range", transaction)
        return facts

    def rows(self, operation: Read | Scan | Append) -> Iterator[tuple[str, int]]:
        """Yield what an operation read, absent keys of a range included."""
        if isinstance(operation, Read):
            yield operation.key, _as_number(operation.value)
        elif isinstance(operation, Scan):
            there = dict(operation.rows)
            lower = bisect_left(self.keys, operation.lower)
            for key in self.keys[lower : bisect_left(self.keys, operation.upper)]:
                yield key, _as_number(there.get(key, ABSENT))

    def _check_reads(self, facts: _Facts) -> None:
        reader = facts.transaction
        for key, value in facts.reads.items():
            if value == ABSENT:
                continue
            writer = self.writer.get((key, value))
            if writer is None:
                self._tell("unwritten value", f"read {key} = {value}, which nobody put", reader)
            elif writer.outcome == "fail":
                text = f"read {key} = {value}, of T{writer.number}, which failed"
                self._tell("G1a", text, reader, writer)
            elif writer is reader:
                self._tell("unwritten value", f"read {key} = {value} before it put that", reader)
            elif self.facts[self.place[writer.number]].writes[key] != value:
                text = f"read {key} = {value}, which T{writer.number} replaced itself"
                self._tell("G1b", text, reader, writer)

    def _check_updates(self, at: int, facts: _Facts) -> None:
        for key in facts.writes:
            version = (key, facts.reads[key])
            other = self.next.setdefault(version, at)
            if other != at:
                rival = self.facts[other].transaction
                text = f"and T{rival.number} both read {key} = {version[1]} and put the next value"
                self._tell("lost update", text, facts.transaction, rival)

    def _tell(self, kind: str, text: str, *shown: Transaction) -> None:
        lines = [f"  T{shown[0].number} {text}", *(f"    {show_transaction(one)}" for one in shown)]
        self.report.add(kind, tuple(one.number for one in shown), "\n".join(lines))


class _Levels:
    """Makes the orders of each level, and runs them."""

    def __init__(self, book: _Book, report: Report) -> None:
        self.book = book
        self.facts = book.facts
        self.report = report
        self.began = [facts.transaction.began for facts in self.facts]
        self.ended = [
            facts.transaction.ended if facts.transaction.outcome == "ok" else NEVER
            for facts in self.facts
        ]

    def judge(self) -> None:
        count = len(self.facts)
        self._arranged("no read committed order", count, list(self._after_writers()))
        if SNAPSHOT in self.report.violated():
            # An update was lost: a version has two next ones, and no order can be asked for.
            return
        serial = [*self._after_writers(), *self._before_overwriters()]
        strict = self._arranged(
            "no strict serial order", count, serial, (self.began, self.ended), quiet=True
        )
        if strict is not None:
            # It is an order of every other level as well; that it is one of snapshot is definition.
            self._run_serial(strict)
            return
        order = self._arranged("no serial order", count, serial)
        if order is not None:
            self._run_serial(order)
            self._arranged("no strict serial order", count, serial, (self.began, self.ended))
        # A start has the number of its transaction, a commit comes `count` behind it.
        split = list(self._snapshot_demands(count))
        starts = [*self.began, *([0] * count)]
        commits = [*([NEVER] * count), *self.ended]
        events = self._arranged(
            "no strong snapshot order", 2 * count, split, (starts, commits), quiet=True
        )
        if events is None:
            events = self._arranged("no snapshot order", 2 * count, split)
            if events is not None:
                self._arranged("no strong snapshot order", 2 * count, split, (starts, commits))
        if events is not None:
            self._run_snapshot(events)

    # What has to come before what.

    def _after_writers(self) -> Iterator[_Demand]:
        for at, facts in enumerate(self.facts):
            for key, value in facts.reads.items():
                if value != ABSENT:
                    writer = self.book.place[self.book.writer[key, value].number]
                    yield _Demand(writer, at, key)

    def _before_overwriters(self) -> Iterator[_Demand]:
        for at, facts in enumerate(self.facts):
            for key, value in facts.reads.items():
                writer = self.book.next.get((key, value), at)
                if writer != at:
                    yield _Demand(at, writer, key)

    def _snapshot_demands(self, count: int) -> Iterator[_Demand]:
        for at in range(count):
            yield _Demand(at, count + at, "")
        for demand in self._after_writers():
            yield _Demand(count + demand.first, demand.then, demand.key)
        # A reader starts before the next version is committed. The writer of the next version has
        # read the one before, so it starts after that was committed: nobody writes in between.
        for demand in self._before_overwriters():
            yield _Demand(demand.first, count + demand.then, demand.key)

    def _reason(self, demand: _Demand) -> str:
        first, then = demand.first % len(self.facts), demand.then % len(self.facts)
        key = demand.key
        if first == then:
            return f"T{self._number(first)} starts before it commits"
        names = f"T{self._number(first)}", f"T{self._number(then)}"
        if not key:
            return f"{names[0]} ended before {names[1]} began"
        before, after = self.facts[first], self.facts[then]
        read = after.reads.get(key, ABSENT)
        if read != ABSENT and read == before.writes.get(key):
            return f"{names[1]} read {key} = {read} of {names[0]}"
        return (
            f"{names[0]} read {key} = {before.reads[key]}, "
            f"not yet {after.writes[key]} of {names[1]}"
        )

    def _number(self, at: int) -> int:
        return self.facts[at % len(self.facts)].transaction.number

    # Orders.

    def _arranged(
        self,
        kind: str,
        count: int,
        demands: Sequence[_Demand],
        times: tuple[list[int], list[int]] | None = None,
        *,
        quiet: bool = False,
    ) -> list[int] | None:
        """Return an order, or tell that there is none."""
        order = arrange(count, demands, times)
        if len(order) == count:
            return order
        if not quiet:
            self._tell_waiting(kind, set(range(count)).difference(order), demands, times)
        return None

    def _tell_waiting(
        self,
        kind: str,
        stuck: set[int],
        demands: Sequence[_Demand],
        times: tuple[list[int], list[int]] | None,
    ) -> None:
        waits: dict[int, list[_Demand]] = defaultdict(list)
        for demand in demands:
            if demand.first in stuck and demand.then in stuck:
                waits[demand.then].append(demand)
        if times is not None:
            self._add_times(waits, stuck, times)
        circle = min(
            (_circle(waits, node) for node in sorted(stuck)[:WALKS_MOST]),
            key=lambda one: len({self._number(demand.first) for demand in one}),
        )
        numbers = tuple(dict.fromkeys(self._number(demand.first) for demand in circle))
        lines = [f"  {self._reason(demand)}" for demand in circle]
        shown = [self.facts[self.book.place[number]].transaction for number in numbers]
        lines += [f"    {show_transaction(one)}" for one in shown]
        lines.append(f"  {len({self._number(node) for node in stuck})} transactions have no place")
        self.report.add(kind, numbers, "\n".join(lines))

    def _add_times(
        self, waits: dict[int, list[_Demand]], stuck: set[int], times: tuple[list[int], list[int]]
    ) -> None:
        gates, releases = times
        first = min(stuck, key=releases.__getitem__)
        for node in stuck:
            if releases[first] < gates[node]:
                waits[node].append(_Demand(first, node, ""))

    # Proofs.

    def _run_serial(self, order: list[int]) -> None:
        state: dict[str, int] = {}
        for at in order:
            facts = self.facts[at]
            self._run(facts, state)
            state.update(facts.writes)

    def _run_snapshot(self, events: list[int]) -> None:
        commits: dict[str, list[int]] = defaultdict(list)
        values: dict[str, list[int]] = defaultdict(list)
        started: dict[int, int] = {}
        for time, event in enumerate(events):
            at = event % len(self.facts)
            facts = self.facts[at]
            if event == at:
                started[at] = time
                snapshot = {
                    key: values[key][bisect_right(commits[key], time) - 1]
                    for key in facts.reads
                    if commits[key]
                }
                self._run(facts, snapshot)
                continue
            for key, value in facts.writes.items():
                if commits[key] and commits[key][-1] > started[at]:
                    raise CheckerError(f"{key} is written by two at once")
                commits[key].append(time)
                values[key].append(value)

    def _run(self, facts: _Facts, state: dict[str, int]) -> None:
        own: dict[str, int] = {}
        for operation in facts.transaction.operations:
            if isinstance(operation, Put):
                own[operation.key] = operation.value
                continue
            for key, value in self.book.rows(operation):
                if own.get(key, state.get(key, ABSENT)) != value:
                    raise CheckerError(
                        f"T{facts.transaction.number} reads another {key} in the order made for it"
                    )


def arrange(
    count: int,
    demands: Sequence[_Demand],
    times: tuple[list[int], list[int]] | None = None,
) -> list[int]:
    """Return the numbers below `count` in an order that meets the demands, as far as there is one.

    `times` are gates and releases: a number comes after all whose release lies before its gate.
    """
    followers: list[list[int]] = [[] for _ in range(count)]
    missing = [0] * count
    for first, then, _ in demands:
        followers[first].append(then)
        missing[then] += 1
    gates, releases = times or ([0] * count, [NEVER] * count)
    by_release = sorted(range(count), key=releases.__getitem__)
    oldest = 0
    is_placed = bytearray(count)
    ready: list[tuple[int, int]] = []
    for node in range(count):
        if not missing[node]:
            heappush(ready, (gates[node], node))
    order: list[int] = []
    while ready:
        while oldest < count and is_placed[by_release[oldest]]:
            oldest += 1
        gate, node = ready[0]
        if releases[by_release[oldest]] < gate:
            break
        heappop(ready)
        is_placed[node] = 1
        order.append(node)
        for then in followers[node]:
            missing[then] -= 1
            if not missing[then]:
                heappush(ready, (gates[then], then))
    return order


def _circle(waits: dict[int, list[_Demand]], node: int) -> list[_Demand]:
    """Return a circle of demands that is met when going back from `node`."""
    went: dict[int, int] = {}
    way: list[_Demand] = []
    while node not in went:
        went[node] = len(way)
        demand = min(waits[node], key=lambda one: -went.get(one.first, -1))
        way.append(demand)
        node = demand.first
    return way[went[node] :][::-1]


def _versions_read(transaction: Transaction) -> Iterator[tuple[str, int]]:
    for operation in transaction.operations:
        if isinstance(operation, Read):
            yield operation.key, _as_number(operation.value)
        elif isinstance(operation, Scan):
            for key, value in operation.rows:
                yield key, _as_number(value)


def _as_number(value: object) -> int:
    if not isinstance(value, int):
        raise HistoryError(f"{value!r} is not a number")
    return value
