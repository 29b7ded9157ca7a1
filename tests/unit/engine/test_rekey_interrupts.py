"""Goal: an interrupted change of the key harms nothing.

Method: as in test_interrupts_elsewhere, at every point of a call in turn. Afterwards the database
works on, what was acknowledged is there, and one of the two keys opens it.
"""

import pytest

from holdfast.base import PURE, WrongKeyError
from holdfast.engine import open_database
from holdfast.env import CrashPoint
from tests.unit.engine.test_interrupts_elsewhere import (
    ROOMS,
    SETTINGS,
    InterruptibleEnv,
    check,
    fill,
    use,
)
from tests.unit.txn.test_interrupts import OutsideOfFinalizers

OLD, NEW = bytes(32), bytes(range(32))
STRIDE = 7
"""How many points lie between two that are tried, but for the deep run."""

pytestmark = pytest.mark.skipif(PURE, reason="a kernel's step is one step only when it is compiled")


def reopened(machine):
    try:
        return open_database("/db", env=machine, key=NEW)
    except WrongKeyError:
        return open_database("/db", env=machine, key=OLD)


def interrupted(at):
    """Interrupt a change of the key at a point; return whether there was one."""
    env = InterruptibleEnv(1)
    database = open_database("/db", env=env, key=OLD, settings=SETTINGS)
    model = fill(database)
    env.interruptor = interruptor = OutsideOfFinalizers(at, (*ROOMS, "crypto"))
    interruptor.run(lambda: database.rekey(NEW, rewrite=True))
    assert not database.stats().poisoned, f"at point {at}"
    check(database, model)
    durable = CrashPoint(env).state("none").build()
    with reopened(durable) as again:
        check(again, model)
    use(database, model)
    database.close()
    with reopened(env) as database:
        check(database, model)
        assert database.verify().ok
    return interruptor.struck


def every_point(stride):
    at = 0
    while interrupted(at):
        at += stride
    return at


def test_an_interrupted_change_of_the_key_harms_nothing():
    assert every_point(STRIDE) > 100


@pytest.mark.deep
def test_an_interrupted_change_of_the_key_harms_nothing_at_any_point():
    assert every_point(1) > 100
