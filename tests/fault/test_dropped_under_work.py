"""A keyspace is dropped while background work reads and writes its tables."""

from __future__ import annotations

import pytest

import holdfast
from tests.fault.client import FOLDER, TINY, BoundedEnv, machine_switched_off

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_keyspace_dropped_during_its_compaction_harms_nothing(seed: int) -> None:
    machine = BoundedEnv(seed)
    with machine_switched_off(machine):
        with holdfast.open(FOLDER, settings=TINY, env=machine) as database:
            for turn in range(4):
                for number in range(40):
                    key = b"key %02d" % (number % 13)
                    database.keyspace("victim").put(key, b"x" * 300, durability="none")
                    if number % 4 == 0:
                        database[b"%d %d" % (turn, number)] = b"kept"
                database.drop_keyspace("victim")
                # Recreated under the same name, it is another one and empty.
                assert len(database.keyspace("victim")) == 0
            assert not database.stats().poisoned
            assert database.verify().ok
            assert len(database) == 40
        assert not machine.unreturned()
        with holdfast.open(FOLDER, env=machine) as database:
            assert len(database) == 40
            assert len(database.keyspace("victim")) == 0
