"""A step of a workload that is a transaction: several keyspaces, reads, nested savepoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.testing.oracle import DEFAULT, State
from holdfast.testing.session import Session, value_of

_VALUE_BYTES = 60


class _UndoneError(Exception):
    """Leaves a savepoint's block, so that it is rolled back."""


@dataclass(frozen=True, slots=True)
class Transact:
    """A transaction over the default keyspace and another one: `puts` go into both, those of
    `undone` into a savepoint that is rolled back, with one inside it that is not, and [`start`,
    `stop`) of the other keyspace is deleted. What it counts before goes into a marker.
    """

    puts: tuple[bytes, ...]
    other: str
    undone: tuple[bytes, ...] = ()
    start: bytes = b""
    stop: bytes = b""
    isolation: str = "serializable"
    durability: str | None = None
    size: int = _VALUE_BYTES

    def run(self, session: Session) -> None:
        """Do it, and tell the history."""

        def change(state: State, number: int) -> None:
            state[DEFAULT][b"count/%04d" % number] = b"%d" % len(state[self.other])
            for key in [key for key in state[self.other] if self.start <= key < self.stop]:
                del state[self.other][key]
            for name in (DEFAULT, self.other):
                for key in self.puts:
                    state[name][key] = value_of(number, key, self.size)

        session.commit(change, lambda number: self._call(session, number), self.durability,
                       DEFAULT, self.other)  # fmt: skip

    def _call(self, session: Session, number: int) -> None:
        database = session.database
        with database.transaction(isolation=self.isolation, durability=self.durability) as txn:
            other = txn.keyspace(self.other, create=False)
            txn[b"count/%04d" % number] = b"%d" % len(other)
            other.delete_range(self.start, self.stop)
            try:
                with txn.savepoint():
                    for key in self.undone:
                        txn[key] = b"never committed"
                        with txn.savepoint():
                            other.delete(key)
                            txn.clear()
                    raise _UndoneError
            except _UndoneError:
                pass
            with txn.savepoint():
                for name in (DEFAULT, self.other):
                    rows: Mapping[bytes, bytes] = {
                        key: value_of(number, key, self.size) for key in self.puts
                    }
                    txn.keyspace(name).put_many(rows)


def transacts(keys: Sequence[bytes], other: str) -> list[Transact]:
    """Return transactions of both levels, most of them durable, that write over each other."""
    return [
        Transact(
            puts=tuple(keys[index : index + 2]),
            other=other,
            undone=tuple(keys[2:4]),
            start=keys[0],
            stop=keys[index],
            isolation="snapshot" if index % 2 else "serializable",
            durability="none" if index % 3 == 1 else None,
        )
        for index in range(6)
    ]
