"""Steps of a workload that merge: counters, logs and sets, alone and in transactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.merge import Merges
from holdfast.testing.oracle import DEFAULT, State
from holdfast.testing.session import Session

_MERGES = Merges()

Operand = int | bytes | tuple[bytes, ...]


def merged(state: State, keyspace: str, key: bytes, function: str, operand: Operand) -> None:
    """Do to a state what a merge does to a database."""
    pairs = state[keyspace]
    entry = _MERGES.value_of(function, operand)
    pairs[key] = _MERGES.fold(key, pairs.get(key), [entry])


@dataclass(frozen=True, slots=True)
class Merge:
    """One operand of one key. It begins with the number of the commit where it is appended."""

    key: bytes
    function: str
    operand: Operand
    keyspace: str = DEFAULT
    durability: str | None = None

    def run(self, session: Session) -> None:
        """Do it, and tell the history."""

        def change(state: State, number: int) -> None:
            merged(state, self.keyspace, self.key, self.function, self._operand(number))

        def call(number: int) -> None:
            session.keyspace(self.keyspace).merge(
                self.key, self.function, self._operand(number), durability=self.durability
            )

        session.commit(change, call, self.durability, self.keyspace)

    def _operand(self, number: int) -> Operand:
        return b"%d" % number + self.operand if isinstance(self.operand, bytes) else self.operand


@dataclass(frozen=True, slots=True)
class MergeMany:
    """A transaction that merges the same into keys of two keyspaces, and in a savepoint that is
    rolled back more of it; with `reads` it looks at what it made.
    """

    keys: tuple[bytes, ...]
    other: str
    function: str
    operand: Operand
    reads: bool = False
    durability: str | None = None

    def run(self, session: Session) -> None:
        """Do it, and tell the history."""

        def change(state: State, _: int) -> None:
            for name in (DEFAULT, self.other):
                for key in self.keys:
                    merged(state, name, key, self.function, self.operand)

        session.commit(change, lambda _: self._call(session), self.durability, DEFAULT, self.other)

    def _call(self, session: Session) -> None:
        with session.database.transaction(durability=self.durability) as txn:
            for name in (DEFAULT, self.other):
                space = txn.keyspace(name)
                for key in self.keys:
                    space.merge(key, self.function, self.operand)
                    with txn.savepoint() as point:
                        space.merge(key, self.function, self.operand)
                        point.rollback()
                    if self.reads:
                        space.get(key)


def merges(keys: Sequence[bytes], other: str) -> list[Merge | MergeMany]:
    """Return merges of every function, durable or not. The operands of a log are large, so that
    memtables fill.
    """
    made: list[Merge | MergeMany] = []
    for index in range(6):
        durability = "none" if index % 3 == 1 else None
        made += [
            Merge(keys[0], "add", index - 2, durability=durability),
            Merge(keys[1], "append", b"/" + b"x" * 150 * index, other, durability="none"),
            MergeMany(
                (keys[0], keys[2]), other, "add", 10**index, reads=index % 2 == 0,
                durability=durability,
            ),
            Merge(keys[3], "union", (b"%d" % index, b"%d" % (index // 2)), durability=durability),
            Merge(keys[4], "max" if index % 2 else "min", 7 * index % 5),
        ]  # fmt: skip
    return made
