"""Goal: a transaction whose thread is interrupted anywhere is decided, holds nothing afterwards,
and harms nobody else.

Method: as in tests/unit/engine/test_interrupts.py, an exception is raised at each entry of a Python
function and behind each call of the transaction's life in turn, while other tasks of a simulated
machine add to the same counter.
"""

from __future__ import annotations

import gc
from types import FrameType

import pytest

from holdfast.base import PURE, ConflictError
from holdfast.engine import open_database
from holdfast.env import SimEnv
from holdfast.txn import Transaction
from tests.unit.engine.test_interrupts import SETTINGS, Interruptor

pytestmark = [
    pytest.mark.skipif(PURE, reason="a kernel's step is one step only when it is compiled"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ROOMS = ("txn", "engine")
TASKS, TURNS = 2, 3


class OutsideOfFinalizers(Interruptor):
    """Spares what a finalizer calls: there an exception goes nowhere."""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        above: FrameType | None = frame
        for _ in range(4):
            if above is None:
                break
            if above.f_code.co_name in {"__del__", "_forgotten"}:
                return
            above = above.f_back
        super().__call__(frame, event, argument)


def interrupted(seed: int, at: int, lock: bool, durability: str | None) -> bool:
    """Interrupt the main task at a point; return whether there was one."""
    env = SimEnv(seed)
    db = open_database("/db", env=env, settings=SETTINGS)
    other = db.keyspace("other")
    acknowledged = []

    def add(txn: Transaction) -> None:
        if lock:
            txn.lock(b"n")
        txn[b"n"] = b"%d" % (int(txn.get(b"n", b"0")) + 1)  # type: ignore[arg-type]

    def work() -> None:
        for _ in range(TURNS):
            db.run(add, attempts=100, durability=durability)
            acknowledged.append(1)

    def main() -> None:
        with db.transaction(durability=durability) as txn:
            add(txn)
            with txn.savepoint():
                txn.keyspace("other")[b"main"] = txn[b"n"]
                list(txn.items())

    tasks = [env.spawn(f"task {number}", work) for number in range(TASKS)]
    interruptor = OutsideOfFinalizers(at, ROOMS)
    try:
        interruptor.run(main)
    except ConflictError:
        pass
    for task in tasks:
        task.join()
    # One that was never begun, or not ended because the interruption came first, ends here.
    gc.collect()
    if not db.stats().poisoned:
        committed = b"main" in other
        assert TASKS * TURNS == len(acknowledged)
        assert len(acknowledged) + committed == int(db[b"n"])
        assert [] == db._engine.snapshots.live()
        assert [] == db.transactions()
        db.run(add)
        assert {} == db._engine.locks._keys
        db.close()
    return interruptor.struck


@pytest.mark.parametrize(("lock", "durability"), [(False, None), (True, None), (False, "none")])
def test_an_interrupted_transaction_is_decided_and_holds_nothing(
    lock: bool, durability: str | None
) -> None:
    """Without a sync it may commit at once, without the queue."""
    at = 0
    while interrupted(at % 3, at, lock, durability):
        at += 5 if lock else 3
    assert at > 50
