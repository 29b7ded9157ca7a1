"""Goal: a long `put_many` of a transaction lets signals in, and what they do to the transaction
ends the call: it never returns as if it had written.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.base import PURE, DatabaseClosedError
from holdfast.engine import Database, open_database

pytestmark = pytest.mark.skipif(PURE, reason="the plain twin is interrupted at any line")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path / "db") as database:
        yield database


@contextmanager
def alarm(seconds: float, handler: Callable[[], None]) -> Iterator[None]:
    """Call `handler` as a signal handler after so many seconds, if the block takes that long."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class StopError(Exception):
    pass


@pytest.mark.parametrize("delay", [0.002, 0.01, 0.03, 0.06, 0.1])
def test_one_whose_transaction_ends_in_its_middle_raises(db: Database, delay: float) -> None:
    pairs = [(b"%06d" % number, b"v") for number in range(100_000)]
    txn = db.transaction(durability="none")
    try:
        with alarm(delay, txn.rollback):
            txn.put_many(pairs)
    except DatabaseClosedError:
        assert not txn.is_open
    else:
        # It was done before.
        assert txn.is_open
    txn.rollback()
    assert not db


@pytest.mark.parametrize("delay", [0.002, 0.01, 0.02, 0.04])
def test_one_of_few_large_values_is_interrupted_in_its_middle(db: Database, delay: float) -> None:
    def stop() -> None:
        raise StopError

    value = b"v" * (128 << 10)
    pairs = [(b"%03d" % number, value) for number in range(400)]
    with db.transaction(durability="none") as txn:
        txn[b"a"] = b"1"
        returned = False
        try:
            with alarm(delay, stop):
                txn.put_many(pairs)
                returned = True
        except StopError:
            pass
        assert (400 if returned else 0) == txn.state.batch.op_count - 1
        assert [b"a"] if not returned else [*dict(pairs), b"a"] == list(txn)
    assert (401 if returned else 1) == len(db)
