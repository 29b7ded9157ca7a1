"""The first checker: append histories, by the graph of what had to come before what.

The lists say in which order each key got its elements: every committed read must be a beginning of
the longest one. From that order follow the edges that `check_cycles` looks for cycles in. What
needs no graph is looked for directly: elements of aborted transactions and of unfinished ones, own
writes that were not seen, lists that contradict each other, lost updates, reads of half a
transaction.

1. Whatever is reported is forbidden from the level of its kind on: there are no false alarms.
2. If the history ends with a read of every key that saw what was appended, then what is not
   reported did not happen: a level with no anomaly against it has an order that explains
   everything. Otherwise elements that nobody read have no place between each other, and of those
   of a key UNREAD_MOST are looked at.
3. A transaction of unknown outcome is committed if a committed one saw what it wrote; else nothing
   depends on it. It never ended in real time.
4. A scan reads every key of its range that the history names: those it did not return were read as
   absent.
5. The time is near-linear in the history, with its lists. Histories of which each has keys of its
   own and begins after the other has ended may be judged one by one: no cycle leaves one of them.

Source: Kingsbury and Alvaro, Elle: Inferring Isolation Anomalies from Experimental Observations
(2020).

Thread safety: none; one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from holdfast.testing.anomaly import Report
from holdfast.testing.check_cycles import (
    KIND_NAMES,
    PROCESS,
    REALTIME,
    RW,
    WR,
    WW,
    Cycle,
    Edge,
    Graph,
    classify,
    find_cycles,
)
from holdfast.testing.history import (
    Append,
    HistoryError,
    Put,
    Read,
    Scan,
    Transaction,
    show_transaction,
    show_value,
)

UNREAD_MOST = 16

List = tuple[int, ...]


class _Seen(NamedTuple):
    """A transaction read a list that others had written."""

    reader: int
    elements: List
    by_absence: bool
    """A scan did not return the key."""


class _KeyEdge(NamedTuple):
    source: int
    kind: int
    target: int
    at: int
    """In the order of the key: where the elements that were read, or those of `source`, end."""
    by_absence: bool


def check_append(transactions: Sequence[Transaction], *, most: int = 8) -> Report:
    """Judge an append history; `most` anomalies of each kind are kept.

    Raises: HistoryError if the history is not of this kind.
    """
    judge = _Judge(transactions, most)
    judge.settle()
    for index in range(len(transactions)):
        if judge.is_committed[index]:
            judge.read(index)
    for key in judge.reads:
        judge.order_key(key)
    judge.find_lost_updates()
    judge.find_fractured_reads()
    judge.find_cycles()
    return judge.report


class _Judge:
    def __init__(self, transactions: Sequence[Transaction], most: int) -> None:
        self.transactions = transactions
        self.report = Report(most)
        self.is_committed = bytearray(len(transactions))
        self.writers: dict[str, dict[int, int]] = {}
        self.appended: list[dict[str, list[int]]] = []
        self.first_reads: list[dict[str, List]] = [{} for _ in transactions]
        """Of each transaction what it first read of each key, less its own elements."""
        self.reads: dict[str, list[_Seen]] = {}
        self.order: dict[str, List] = {}
        self.places: dict[str, dict[int, int]] = {}
        names: set[str] = set()
        for index, transaction in enumerate(transactions):
            self.appended.append(self._appended(index, transaction, names))
        self.keys = sorted(names)

    def _appended(
        self, index: int, transaction: Transaction, names: set[str]
    ) -> dict[str, list[int]]:
        own: dict[str, list[int]] = {}
        for operation in transaction.operations:
            if isinstance(operation, Scan):
                names.update(key for key, _ in operation.rows)
                continue
            if isinstance(operation, Put):
                raise HistoryError(f"T{transaction.number} puts; an append history only appends")
            names.add(operation.key)
            if isinstance(operation, Append):
                key, element = operation
                if self.writers.setdefault(key, {}).setdefault(element, index) != index or (
                    element in own.get(key, ())
                ):
                    raise HistoryError(f"{element} is appended to {key} twice")
                own.setdefault(key, []).append(element)
        return own

    # What each transaction says alone.

    def settle(self) -> None:
        """Find out which transactions are committed."""
        unsure: dict[str, set[int]] = {}
        for index, transaction in enumerate(self.transactions):
            if transaction.outcome == "ok":
                self.is_committed[index] = 1
            elif transaction.outcome == "unknown":
                for key, elements in self.appended[index].items():
                    unsure.setdefault(key, set()).update(elements)
        if not unsure:
            return
        todo = [index for index, is_ok in enumerate(self.is_committed) if is_ok]
        for index in todo:
            for key, value in _values(self.transactions[index]):
                for element in unsure.get(key, set()).intersection(value):
                    writer = self.writers[key][element]
                    if not self.is_committed[writer]:
                        self.is_committed[writer] = 1
                        todo.append(writer)

    def read(self, index: int) -> None:
        """Note what a transaction read of others, and whether it saw its own writes."""
        transaction = self.transactions[index]
        own: dict[str, List] = {}
        for operation in transaction.operations:
            if isinstance(operation, Append):
                key = operation.key
                own[key] = (*own.get(key, ()), operation.element)
            elif isinstance(operation, Read):
                self._read_key(index, operation.key, _as_list(operation.value), own)
            elif isinstance(operation, Scan):
                lower, upper, rows = operation
                found = {key: _as_list(value) for key, value in rows}
                names = [key for key, _ in rows]
                if names != sorted(found) or any(not lower <= key < upper for key in names):
                    self._alone("wrong scan", index, "rows out of order or out of range")
                first, last = bisect_left(self.keys, lower), bisect_left(self.keys, upper)
                for key in self.keys[first:last]:
                    self._read_key(index, key, found.get(key, ()), own, key not in found)

    def _read_key(
        self, index: int, key: str, value: List, own: dict[str, List], by_absence: bool = False
    ) -> None:
        tail = own.get(key)
        if tail:
            if value[-len(tail) :] != tail:
                text = f"read {key} = {show_value(value)} after it appended {show_value(tail)}"
                self._alone("own write not seen", index, text)
                return
            value = value[: -len(tail)]
        if key in self.appended[index] and not set(value).isdisjoint(self.appended[index][key]):
            text = f"read {key} = {show_value(value)} before it appended all of that"
            self._alone("unwritten value", index, text)
            return
        before = self.first_reads[index].get(key)
        if before is None:
            self.first_reads[index][key] = value
            self.reads.setdefault(key, []).append(_Seen(index, value, by_absence))
        elif before != value:
            text = f"first read {key} = {show_value(before)}, then {show_value(value)}"
            self._alone("non-repeatable read", index, text)

    def _alone(self, kind: str, index: int, text: str, *others: int) -> None:
        shown = [index, *others]
        lines = [f"  T{self.transactions[index].number} {text}"]
        lines += [f"    {show_transaction(self.transactions[at])}" for at in shown]
        self.report.add(kind, tuple(self.transactions[at].number for at in shown), "\n".join(lines))

    # What the reads of one key say together.

    def order_key(self, key: str) -> None:
        """Find the order of a key's elements; drop the reads that contradict it."""
        reads = self.reads[key]
        longest = max(reads, key=lambda seen: len(seen.elements))
        order = longest.elements
        self._check_elements(key, longest)
        kept: list[_Seen] = []
        for seen in reads:
            if seen.elements == order[: len(seen.elements)]:
                kept.append(seen)
            else:
                text = (
                    f"read {key} = {show_value(seen.elements)}, "
                    f"T{self.transactions[longest.reader].number} {show_value(order)}"
                )
                self._alone("incompatible order", seen.reader, text, longest.reader)
                self._check_elements(key, seen)
            if seen.elements:
                self._check_last(key, seen)
        self.reads[key] = kept
        self.order[key] = order
        places: dict[int, int] = {}
        for at, element in enumerate(order):
            places.setdefault(element, at)
        self.places[key] = places

    def _check_elements(self, key: str, seen: _Seen) -> None:
        writers = self.writers.get(key, {})
        if len(set(seen.elements)) != len(seen.elements):
            text = f"read {key} = {show_value(seen.elements)}, with an element twice"
            self._alone("duplicated element", seen.reader, text)
        for element in seen.elements:
            writer = writers.get(element)
            if writer is None:
                text = f"read {element} in {key}, which nobody appended"
                self._alone("unwritten value", seen.reader, text)
            elif self.transactions[writer].outcome == "fail":
                text = (
                    f"read {element} in {key}, of T{self.transactions[writer].number}, which failed"
                )
                self._alone("G1a", seen.reader, text, writer)

    def _check_last(self, key: str, seen: _Seen) -> None:
        last = seen.elements[-1]
        writer = self.writers.get(key, {}).get(last)
        if writer is None or writer == seen.reader or self.appended[writer][key][-1] == last:
            return
        text = (
            f"read {key} up to {last}, but T{self.transactions[writer].number} "
            f"appended {show_value(tuple(self.appended[writer][key]))}"
        )
        self._alone("G1b", seen.reader, text, writer)

    # What needs two or more transactions.

    def find_lost_updates(self) -> None:
        """Find transactions that read the same version of a key and both wrote the next."""
        for key, reads in self.reads.items():
            first: dict[int, int] = {}
            for reader, elements, _ in reads:
                if key not in self.appended[reader]:
                    continue
                other = first.setdefault(len(elements), reader)
                if other != reader:
                    text = (
                        f"and T{self.transactions[other].number} both read {key} = "
                        f"{show_value(elements)} and appended to it"
                    )
                    self._alone("lost update", reader, text, other)

    def find_fractured_reads(self) -> None:
        """Find transactions that saw one write of another transaction and missed another."""
        for key, reads in self.reads.items():
            writers = self.writers.get(key, {})
            for reader, elements, _ in reads:
                mine = self.first_reads[reader]
                writer = writers.get(elements[-1], reader) if elements else reader
                if len(mine) < 2 or writer == reader or not self.is_committed[writer]:
                    continue
                for other, written in self.appended[writer].items():
                    if other == key or other not in mine:
                        continue
                    seen, places = mine[other], self.places[other]
                    is_known = seen == self.order[other][: len(seen)]
                    if is_known and places.get(written[-1], len(seen)) >= len(seen):
                        text = (
                            f"saw {elements[-1]} in {key}, of T{self.transactions[writer].number}, "
                            f"but not its {written[-1]} in {other} = {show_value(seen)}"
                        )
                        self._alone("fractured read", reader, text, writer)

    def find_cycles(self) -> None:
        """Build the graph and report its cycles."""
        graph = Graph(len(self.transactions))
        for key in self.reads.keys() | self.writers.keys():
            for source, kind, target, _, _ in self._edges_of_key(key):
                graph.add(source, kind, target)
        ends: list[tuple[int, int]] = []
        begins: list[tuple[int, int]] = []
        for index, transaction in enumerate(self.transactions):
            if self.is_committed[index]:
                begins.append((transaction.began, index))
                if transaction.outcome == "ok":
                    ends.append((transaction.ended, index))
        graph.add_order(ends, begins)
        self._add_processes(graph)
        for cycle in find_cycles(graph):
            self._report_cycle(cycle)

    def _add_processes(self, graph: Graph) -> None:
        newest: dict[int, int] = {}
        in_order = sorted(
            (transaction.began, index)
            for index, transaction in enumerate(self.transactions)
            if self.is_committed[index]
        )
        for _, index in in_order:
            process = self.transactions[index].process
            before = newest.get(process)
            if before is not None and self.transactions[before].outcome == "ok":
                graph.add(before, PROCESS, index)
            newest[process] = index

    def _edges_of_key(self, key: str) -> Iterator[_KeyEdge]:
        order = self.order.get(key, ())
        places = self.places.get(key, {})
        writers = self.writers.get(key, {})
        count = len(order)
        # Of each place in the order the committed writer before it, and that from it on.
        before = [-1] * (count + 1)
        after = [-1] * (count + 1)
        newest = -1
        for at, element in enumerate(order):
            writer = writers.get(element, -1)
            if writer >= 0 and self.is_committed[writer] and places[element] == at:
                if newest >= 0 and writer != newest:
                    yield _KeyEdge(newest, WW, writer, at, by_absence=False)
                newest = after[at] = writer
            before[at + 1] = newest
        for at in range(count - 1, -1, -1):
            if after[at] < 0:
                after[at] = after[at + 1]
        unread = list(islice(self._unread(key), UNREAD_MOST))
        for writer in unread:
            if newest not in {-1, writer}:
                yield _KeyEdge(newest, WW, writer, count, by_absence=False)
        for reader, elements, by_absence in self.reads.get(key, ()):
            at = len(elements)
            if before[at] not in {-1, reader}:
                yield _KeyEdge(before[at], WR, reader, at, by_absence)
            if after[at] >= 0:
                if after[at] != reader:
                    yield _KeyEdge(reader, RW, after[at], at, by_absence)
                continue
            for writer in unread:
                if writer != reader:
                    yield _KeyEdge(reader, RW, writer, at, by_absence)

    def _unread(self, key: str) -> Iterator[int]:
        writers = self.writers.get(key, {})
        places = self.places.get(key, {})
        if len(writers) == len(places):
            return
        for element, writer in writers.items():
            if (
                element not in places
                and self.is_committed[writer]
                and self.appended[writer][key][-1] == element
            ):
                yield writer

    # Reports.

    def _report_cycle(self, cycle: Cycle) -> None:
        reasons: list[str] = []
        is_phantom = False
        for edge in cycle:
            reason, by_absence = self._reason(edge)
            reasons.append(f"  {reason}")
            is_phantom = is_phantom or by_absence
        numbers = tuple(self.transactions[edge.source].number for edge in cycle)
        way = " -> ".join(
            f"T{self.transactions[edge.source].number} {KIND_NAMES[edge.kind]}" for edge in cycle
        )
        lines = [f"  {way} -> T{numbers[0]}", *reasons]
        lines += [f"    {show_transaction(self.transactions[edge.source])}" for edge in cycle]
        self.report.add(_name(cycle, is_phantom=is_phantom), numbers, "\n".join(lines))

    def _reason(self, edge: Edge) -> tuple[str, bool]:
        """Return why an edge is there, and whether a scan did not return what it is about."""
        source, target = self.transactions[edge.source], self.transactions[edge.target]
        if edge.kind == REALTIME:
            when = f"at {source.ended} before T{target.number} began at {target.began}"
            return f"T{source.number} ended {when}", False
        if edge.kind == PROCESS:
            return f"process {source.process} did T{source.number} before T{target.number}", False
        keys = self.first_reads[edge.source].keys() | self.appended[edge.source].keys()
        found = min(
            (
                (one.by_absence, key, one.at)
                for key in keys
                for one in self._edges_of_key(key)
                if one[:3] == edge
            ),
        )
        by_absence, key, at = found
        if edge.kind == WW:
            text = f"T{target.number} appended to {key} behind T{source.number}"
        elif edge.kind == WR:
            read = show_value(self.order[key][:at])
            text = f"T{target.number} read {key} = {read}, the last of it by T{source.number}"
        else:
            read = "that it was absent" if by_absence else show_value(self.order[key][:at])
            text = f"T{source.number} read {key} = {read}, behind which T{target.number} appended"
        return text, by_absence and edge.kind == RW


def _name(cycle: Cycle, *, is_phantom: bool) -> str:
    kind = classify(cycle)
    kinds = [edge.kind for edge in cycle]
    if kind == "G2":
        if is_phantom:
            return "phantom"
        return "write skew" if len(cycle) == 2 else kind
    if kind == "G-nonadjacent" and sorted(kinds) == [WR, WR, RW, RW]:
        return "long fork"
    return kind


def _values(transaction: Transaction) -> Iterator[tuple[str, List]]:
    for operation in transaction.operations:
        if isinstance(operation, Read):
            yield operation.key, _as_list(operation.value)
        elif isinstance(operation, Scan):
            for key, value in operation.rows:
                yield key, _as_list(value)


def _as_list(value: object) -> List:
    if not isinstance(value, tuple):
        raise HistoryError(f"{value!r} is not a list")
    return value
