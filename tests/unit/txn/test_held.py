"""Goal: under a reader that is held for long, space and memory stay bounded while everything is
overwritten again and again: one reader costs the data once more, and `max_held_bytes` bounds what
any number of them cost. `./dev bench held` gives the figures.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from holdfast.base import DatabaseSettings, TransactionTooOldError
from holdfast.engine import Database, Snapshot, open_database
from holdfast.env import SimEnv
from holdfast.txn import Transaction
from tests.model.strategies import tiny

KEYS = [b"%04d" % number for number in range(200)]
VALUE_BYTES = 100
DATA = len(KEYS) * (4 + VALUE_BYTES)
PASSES = 40


def overwrite(database: Database, rng: random.Random) -> None:
    for key in rng.sample(KEYS, len(KEYS)):
        database.put(key, rng.randbytes(VALUE_BYTES), durability="none")


def table_bytes(database: Database) -> int:
    return sum(level.bytes for space in database.stats().keyspaces for level in space.levels)


def passes(hold: Callable[[Database, ExitStack], None], settings: DatabaseSettings) -> list[int]:
    """Return the bytes of tables after each pass, without any compaction but the engine's own."""
    found, rng = [], random.Random(1)
    with open_database("/db", settings=settings, env=SimEnv(1)) as database, ExitStack() as stack:
        for _ in range(PASSES):
            overwrite(database, rng)
            hold(database, stack)
            database.flush()
            database._engine.upkeep.wait_idle()
            found.append(table_bytes(database))
            stats = database.stats()
            assert stats.memtable_bytes <= database.settings.memory_bytes
            assert stats.pool_bytes <= database.settings.memory_bytes
    return found


def once(kind: str) -> Callable[[Database, ExitStack], None]:
    held: list[Transaction | Snapshot] = []

    def hold(database: Database, stack: ExitStack) -> None:
        if not held:
            held.append(stack.enter_context(getattr(database, kind)()))
            before.update(dict(held[0].items()))
        assert before == dict(held[0].items())

    before: dict[bytes, bytes] = {}
    return hold


def is_bounded(found: list[int]) -> bool:
    """Whether the later passes cost no more than those before them."""
    return max(found[PASSES // 2 :]) <= 1.2 * max(found[: PASSES // 2])


def assert_bounded(found: list[int]) -> None:
    assert is_bounded(found), found


@pytest.mark.parametrize("kind", ["transaction", "snapshot"])
def test_one_reader_costs_the_data_once_more_however_long(kind: str) -> None:
    """It reads what it saw, and what it saw was read again in each pass."""
    nobody = passes(lambda *_: None, tiny())
    one = passes(once(kind), tiny())
    # What is not merged yet comes on top, of both versions.
    assert max(one) <= 2.5 * max(nobody)
    assert_bounded(one)


def test_a_limit_bounds_what_any_number_of_readers_cost() -> None:
    readers: list[Snapshot] = []

    def one_more(database: Database, stack: ExitStack) -> None:
        readers.append(stack.enter_context(database.snapshot()))

    free = passes(one_more, tiny())
    limited = passes(one_more, tiny(max_held_bytes=3 * DATA))
    assert free[-1] > 0.7 * PASSES * DATA
    assert max(limited) <= 4 * max(passes(lambda *_: None, tiny()))
    assert_bounded(limited)
    assert not is_bounded(free)
    with pytest.raises(TransactionTooOldError, match="max_held_bytes"):
        readers[PASSES].get(KEYS[0])
