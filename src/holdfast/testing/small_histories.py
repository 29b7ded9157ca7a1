"""All histories of a few transactions, to compare the checkers with the oracle on.

A shape says what transactions do: read a key, write it, or scan; there are two keys, and one range
that holds both. Of each shape there is a history for each result that its reads may have: in an rmw
history any value that another transaction writes or none, in an append history any beginning of any
order of the elements, without those of the reader. Each transaction does a thing once, at most.

An append history ends with a transaction that reads everything, so that the checker knows the whole
order. All transactions are ok and at once; `with_times` makes another history of one.

Thread safety: the functions share nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, permutations, product
from random import Random

from holdfast.testing.history import Append, Kind, Operation, Put, Read, Scan, Transaction

KEYS = ("a", "b")
LOWER, UPPER = "a", "c"
VERBS = ("ra", "rb", "wa", "wb", "s")
"""Read and write of each key, and the scan."""

Shape = tuple[str, ...]
List = tuple[int, ...]


def small_histories(
    kind: Kind, transactions: int, operations: int, rng: Random, share: float = 1.0
) -> Iterator[list[Transaction]]:
    """Yield the histories of so many transactions of up to so many operations.

    `share` is the chance of each shape, and of each history of it, to be among them.
    """
    one = [
        shape
        for size in range(1, operations + 1)
        for shape in product(VERBS, repeat=size)
        if len(set(shape)) == size
    ]
    for shapes in combinations_with_replacement(one, transactions):
        if share < 1 and rng.random() >= share:
            continue
        for history in _rmw(shapes) if kind == "rmw" else _append(shapes):
            if share >= 1 or rng.random() < share:
                yield history


def with_times(history: Sequence[Transaction], rng: Random) -> list[Transaction]:
    """Return a history with random times, and now and then an unknown outcome."""
    found: list[Transaction] = []
    for transaction in history:
        began = rng.randrange(8)
        doubt = rng.random() < 0.1 and transaction is not history[-1]
        outcome = "unknown" if doubt else transaction.outcome
        ended = began + rng.randrange(1, 6)
        found.append(transaction._replace(outcome=outcome, began=began, ended=ended))
    return found


def _transaction(number: int, operations: Iterator[Operation]) -> Transaction:
    return Transaction(number, number, "ok", 0, 9, "serializable", tuple(operations))


def _keys_read(shape: Shape) -> list[str]:
    keys = [key for verb in shape for key in (KEYS if verb == "s" else verb[1])]
    return list(dict.fromkeys(keys))


def _rmw(shapes: Sequence[Shape]) -> Iterator[list[Transaction]]:
    written: dict[str, list[int]] = {key: [0] for key in KEYS}
    for at, shape in enumerate(shapes):
        for key in KEYS:
            if f"w{key}" in shape:
                written[key].append(at + 1)
    places = [(at, key) for at, shape in enumerate(shapes) for key in _keys_read(shape)]
    values = [[value for value in written[key] if value != at + 1] for at, key in places]
    for chosen in product(*values):
        reads = dict(zip(places, chosen, strict=True))
        yield [_transaction(at, _rmw_run(at, shape, reads)) for at, shape in enumerate(shapes)]


def _rmw_run(at: int, shape: Shape, reads: dict[tuple[int, str], int]) -> Iterator[Operation]:
    state = {key: reads.get((at, key), 0) for key in KEYS}
    for verb in shape:
        if verb == "s":
            yield Scan(LOWER, UPPER, tuple((key, state[key]) for key in KEYS if state[key]))
            continue
        yield Read(verb[1], state[verb[1]])
        if verb[0] == "w":
            state[verb[1]] = at + 1
            yield Put(verb[1], at + 1)


def _append(shapes: Sequence[Shape]) -> Iterator[list[Transaction]]:
    writers = [[at for at, shape in enumerate(shapes) if f"w{key}" in shape] for key in KEYS]
    places = [
        (at, key)
        for at, shape in enumerate(shapes)
        for key in _keys_read(tuple(verb for verb in shape if verb[0] != "w"))
    ]
    for orders in product(*map(permutations, writers)):
        lists = {
            key: tuple(at + 1 for at in order) for key, order in zip(KEYS, orders, strict=True)
        }
        final = _transaction(len(shapes), iter([Read(key, lists[key]) for key in KEYS]))
        values = [
            [
                lists[key][:size]
                for size in range(len(lists[key]) + 1)
                if at + 1 not in lists[key][:size]
            ]
            for at, key in places
        ]
        for chosen in product(*values):
            reads = dict(zip(places, chosen, strict=True))
            found = [
                _transaction(at, _append_run(at, shape, reads)) for at, shape in enumerate(shapes)
            ]
            yield [*found, final]


def _append_run(at: int, shape: Shape, reads: dict[tuple[int, str], List]) -> Iterator[Operation]:
    state = {key: reads.get((at, key), ()) for key in KEYS}
    for verb in shape:
        if verb == "s":
            yield Scan(LOWER, UPPER, tuple((key, state[key]) for key in KEYS if state[key]))
        elif verb[0] == "r":
            yield Read(verb[1], state[verb[1]])
        else:
            state[verb[1]] = (*state[verb[1]], at + 1)
            yield Append(verb[1], at + 1)
