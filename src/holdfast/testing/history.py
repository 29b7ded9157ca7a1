"""What clients of a store saw: transactions with their outcome, their time and what they read and
wrote, and the file that keeps such a history.

A history is of one of two kinds. In an `append` history each value is a list, and a write appends
an element that no other write appends to the same key. In an `rmw` history each value is a number;
a transaction reads each key before it writes it, and no two writes of a key write the same number.
What is absent reads as the empty list or as 0, which nobody writes.

Time is any clock that all clients share and that never goes back; ticks of one counter are enough.
`began` is taken before the client asks for a transaction, `ended` after it knows the outcome, so
one transaction came before another in real time if it ended before the other began.

An outcome is `ok` (acknowledged), `fail` (certainly without effect) or `unknown`: a crash or an
error came between. What is unknown may have happened, and may yet happen after `ended`.

The file has one JSON value a line: first the kind, then a transaction each. `read_history` takes
nothing that `write_history` could not have written.

Thread safety: all values are immutable; the functions share nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import IO, Literal, NamedTuple, cast, get_args

Outcome = Literal["ok", "fail", "unknown"]
Kind = Literal["append", "rmw"]
Isolation = Literal["serializable", "snapshot"]
Value = int | tuple[int, ...]

FILE_VERSION = 1


class HistoryError(ValueError):
    """What was given is no history of its kind, so no checker can judge it."""


class Read(NamedTuple):
    """A key was read and had this value."""

    key: str
    value: Value


class Scan(NamedTuple):
    """The keys from `lower` up to `upper` were read; those that were there, in order."""

    lower: str
    upper: str
    rows: tuple[tuple[str, Value], ...]


class Append(NamedTuple):
    """An element was appended to the list of a key."""

    key: str
    element: int


class Put(NamedTuple):
    """A key was given this value."""

    key: str
    value: int


Operation = Read | Scan | Append | Put


class Transaction(NamedTuple):
    """One transaction, as its client saw it."""

    number: int
    """Names it in reports; unique in a history."""
    process: int
    """The client; it has one transaction at a time."""
    outcome: Outcome
    began: int
    ended: int
    isolation: Isolation
    """What the client asked for."""
    operations: tuple[Operation, ...]
    """In the order in which the client called them."""


class History(NamedTuple):
    """Transactions, and of what kind they are."""

    kind: Kind
    transactions: Sequence[Transaction]


def absent_value(kind: Kind) -> Value:
    """Return what a key reads as that was never written."""
    return () if kind == "append" else 0


def show_operation(operation: Operation) -> str:
    """Return an operation as reports show it.

    >>> show_operation(Scan("a", "c", (("b", (1, 2)),)))
    'scan [a, c) = {b: [1, 2]}'
    """
    if isinstance(operation, Read):
        return f"read {operation.key} = {show_value(operation.value)}"
    if isinstance(operation, Append):
        return f"append {operation.element} to {operation.key}"
    if isinstance(operation, Put):
        return f"put {operation.key} = {operation.value}"
    rows = ", ".join(f"{key}: {show_value(value)}" for key, value in operation.rows)
    return f"scan [{operation.lower}, {operation.upper}) = {{{rows}}}"


def show_value(value: Value) -> str:
    """Return a value as reports show it: long lists by their end."""
    if isinstance(value, int):
        return str(value)
    if len(value) > 8:
        return f"[{len(value) - 8} more, {', '.join(map(str, value[-8:]))}]"
    return f"[{', '.join(map(str, value))}]"


def show_transaction(transaction: Transaction) -> str:
    """Return a transaction as reports show it, on one line."""
    operations = "; ".join(map(show_operation, transaction.operations))
    return (
        f"T{transaction.number} (process {transaction.process}, {transaction.outcome}, "
        f"{transaction.began} to {transaction.ended}): {operations}"
    )


def write_history(file: IO[str], history: History) -> None:
    """Write a history, a line a transaction."""
    file.write(json.dumps({"history": history.kind, "version": FILE_VERSION}) + "\n")
    for transaction in history.transactions:
        file.write(_line(transaction) + "\n")


def read_history(file: Iterable[str]) -> History:
    """Read what `write_history` wrote.

    Raises: HistoryError if a line is not of this format.
    """
    lines = enumerate(file, 1)
    kind: Kind | None = None
    transactions: list[Transaction] = []
    for number, line in lines:
        try:
            entry = json.loads(line)
            if kind is None:
                kind = _kind(entry)
            else:
                transactions.append(_transaction(entry, kind))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise HistoryError(f"line {number} is not one of a history: {error}") from error
    if kind is None:
        raise HistoryError("a history has a first line that says its kind")
    return History(kind, transactions)


def _line(transaction: Transaction) -> str:
    operations: list[list[object]] = []
    for operation in transaction.operations:
        if isinstance(operation, Read):
            operations.append(["read", operation.key, operation.value])
        elif isinstance(operation, Append):
            operations.append(["append", operation.key, operation.element])
        elif isinstance(operation, Put):
            operations.append(["put", operation.key, operation.value])
        else:
            operations.append(["scan", operation.lower, operation.upper, operation.rows])
    entry = transaction._asdict() | {"operations": operations}
    return json.dumps(entry, separators=(",", ":"))


def _kind(entry: dict[str, object]) -> Kind:
    if entry["version"] != FILE_VERSION:
        raise HistoryError(f"version {entry['version']} is not known")
    if entry["history"] not in get_args(Kind):
        raise HistoryError(f"kind {entry['history']!r} is not known")
    return cast("Kind", entry["history"])


def _transaction(entry: dict[str, object], kind: Kind) -> Transaction:
    outcome, isolation = entry["outcome"], entry["isolation"]
    if outcome not in get_args(Outcome) or isolation not in get_args(Isolation):
        raise HistoryError(f"outcome {outcome!r} or isolation {isolation!r} is not known")
    operations = tuple(
        _operation(fields, kind) for fields in cast("list[list[object]]", entry["operations"])
    )
    return Transaction(
        _number(entry["number"]),
        _number(entry["process"]),
        cast("Outcome", outcome),
        _number(entry["began"]),
        _number(entry["ended"]),
        cast("Isolation", isolation),
        operations,
    )


def _operation(fields: list[object], kind: Kind) -> Operation:
    what = fields[0]
    if what == "scan":
        _, lower, upper, rows = fields
        pairs = cast("list[list[object]]", rows)
        read = tuple((_text(key), _value(value, kind)) for key, value in pairs)
        return Scan(_text(lower), _text(upper), read)
    _, key, value = fields
    if what == "read":
        return Read(_text(key), _value(value, kind))
    if what == "append" and kind == "append":
        return Append(_text(key), _number(value))
    if what == "put" and kind == "rmw":
        return Put(_text(key), _number(value))
    raise HistoryError(f"operation {what!r} is none of the kind {kind}")


def _text(entry: object) -> str:
    if not isinstance(entry, str):
        raise HistoryError(f"{entry!r} is not a key")
    return entry


def _number(entry: object) -> int:
    if not isinstance(entry, int) or isinstance(entry, bool):
        raise HistoryError(f"{entry!r} is not a number")
    return entry


def _value(entry: object, kind: Kind) -> Value:
    if kind == "rmw":
        return _number(entry)
    if not isinstance(entry, list):
        raise HistoryError(f"{entry!r} is not a list")
    return tuple(map(_number, entry))
