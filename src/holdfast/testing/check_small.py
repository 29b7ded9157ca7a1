"""The oracle of the checkers: which levels a history of few transactions keeps, by definition.

Every order is tried: of the transactions for the serializable levels, of their starts and commits
for the snapshot levels, with each choice of which unknown outcomes happened. The operations are run
in that order on a map, and must give what the history says. It takes append and rmw histories, and
shares nothing with the checkers but the form of a history.

Thread safety: none; one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations, product

from holdfast.testing.anomaly import SERIALIZABLE, SNAPSHOT, STRICT, STRONG_SNAPSHOT
from holdfast.testing.history import Append, Put, Read, Transaction, Value

State = dict[str, Value]


def levels_kept(transactions: Sequence[Transaction]) -> frozenset[str]:
    """Return which of the levels from `snapshot` on have an order that explains the history."""
    found: set[str] = set()
    for chosen in _choices(transactions):
        for order in permutations(chosen):
            if _runs_alone(order):
                found.add(SERIALIZABLE)
                if _keeps_time(order):
                    found.add(STRICT)
        for level, keeps_time in ((SNAPSHOT, False), (STRONG_SNAPSHOT, True)):
            if _has_snapshot_order(chosen, {}, {}, keeps_time=keeps_time):
                found.add(level)
    return frozenset(found)


def _choices(transactions: Sequence[Transaction]) -> Iterator[list[Transaction]]:
    doubtful = [one for one in transactions if one.outcome == "unknown"]
    for happened in product((False, True), repeat=len(doubtful)):
        chosen = [one for one, is_chosen in zip(doubtful, happened, strict=True) if is_chosen]
        yield [one for one in transactions if one.outcome == "ok"] + chosen


def _is_before(first: Transaction, then: Transaction) -> bool:
    return first.outcome == "ok" and first.ended < then.began


def run(transaction: Transaction, state: Mapping[str, Value]) -> State | None:
    """Return what a transaction writes to `state`, or None if it read something else there."""
    own: State = {}
    for operation in transaction.operations:
        if isinstance(operation, Put):
            own[operation.key] = operation.value
        elif isinstance(operation, Append):
            before = own.get(operation.key, state.get(operation.key, ()))
            own[operation.key] = (*_list(before), operation.element)
        elif isinstance(operation, Read):
            if operation.value != own.get(
                operation.key, state.get(operation.key, _absent(operation.value))
            ):
                return None
        else:
            now = {**state, **own}
            inside = sorted(key for key in now if operation.lower <= key < operation.upper)
            if operation.rows != tuple((key, now[key]) for key in inside):
                return None
    return own


def _absent(like: Value) -> Value:
    return 0 if isinstance(like, int) else ()


def _list(value: Value) -> tuple[int, ...]:
    return () if isinstance(value, int) else value


def _runs_alone(order: Sequence[Transaction]) -> bool:
    state: State = {}
    for transaction in order:
        own = run(transaction, state)
        if own is None:
            return False
        state.update(own)
    return True


def _keeps_time(order: Sequence[Transaction]) -> bool:
    return not any(
        _is_before(then, first) for at, first in enumerate(order) for then in order[at + 1 :]
    )


def _has_snapshot_order(
    left: Sequence[Transaction],
    running: dict[Transaction, tuple[State, frozenset[str]]],
    state: State,
    *,
    keeps_time: bool,
) -> bool:
    """Return whether the starts of `left` and the commits of it and of `running` have an order.

    Of each running transaction there is what it writes, and the keys that others have committed
    since its start.
    """
    if not left and not running:
        return True
    for at, transaction in enumerate(left):
        rest = [*left[:at], *left[at + 1 :]]
        if keeps_time and any(_is_before(other, transaction) for other in (*rest, *running)):
            continue
        own = run(transaction, state)
        if own is not None:
            more = {**running, transaction: (own, frozenset[str]())}
            if _has_snapshot_order(rest, more, state, keeps_time=keeps_time):
                return True
    for transaction, (own, rivals) in running.items():
        if not rivals.isdisjoint(own):
            continue
        others = {
            other: (writes, keys | own.keys())
            for other, (writes, keys) in running.items()
            if other != transaction
        }
        if _has_snapshot_order(left, others, {**state, **own}, keeps_time=keeps_time):
            return True
    return False
