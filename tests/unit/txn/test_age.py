"""Goal: a forgotten reader is named, holds back a bounded amount, and is ended past its limits with
an error that says so, never with a wrong answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from holdfast.base import DatabaseClosedError, DatabaseSettings, TransactionTooOldError, marks_seen
from holdfast.engine import Database, Snapshot, open_database
from holdfast.env import SimEnv
from holdfast.txn import Transaction
from tests.model.strategies import tiny


def opened(env: SimEnv, **limits: int) -> Database:
    return open_database("/db", env=env, settings=tiny(**limits))


@pytest.fixture
def env() -> SimEnv:
    return SimEnv()


@pytest.fixture
def db(env: SimEnv) -> Iterator[Database]:
    with opened(env, max_transaction_age=10) as database:
        database.put_many({b"a": b"1", b"b": b"2"})
        yield database


def test_live_ones_are_listed_with_the_line_where_they_began(env: SimEnv, db: Database) -> None:
    first = db.transaction(isolation="snapshot")
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    env.sleep(2)
    db.put(b"c", b"x" * 99, durability="none")
    view = db.snapshot()
    one, two = db.transactions()
    assert ("snapshot", False, first.seq) == (one.isolation, one.read_only, one.seq)
    assert (__file__, line, env.thread_id()) == (one.file, one.line, one.thread)
    assert 2 <= one.age_seconds < 3
    assert 100 == one.held_bytes
    assert ("view", True, view.seq, 0) == (two.isolation, two.read_only, two.seq, two.held_bytes)
    assert one.id < two.id
    first.rollback()
    view.close()
    assert [] == db.transactions()


@pytest.mark.parametrize("seconds", [0, 11])
def test_one_that_is_just_beginning_can_be_listed_and_ended(
    env: SimEnv, db: Database, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """Others know it as soon as it has its snapshot, when its constructor has not returned yet."""
    registry = db._engine.snapshots
    acquire, listed = registry.acquire, []

    def acquire_and_look(held: list[int], holder: Any) -> object:
        tenure = acquire(held, holder)
        env.sleep(seconds)
        listed.extend(db.transactions())
        return tenure

    monkeypatch.setattr(registry, "acquire", acquire_and_look)
    with pytest.raises(TransactionTooOldError) if seconds else nullcontext():
        with db.transaction(read_only=True) as txn:
            assert txn[b"a"] == b"1"
    assert [True] * (seconds == 0) == [info.read_only for info in listed]
    assert [] == registry.live()


def test_one_whose_begin_was_interrupted_holds_nothing(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has it, so nobody is warned that it was not ended."""
    registry = db._engine.snapshots
    acquire = registry.acquire

    def acquire_and_stop(held: list[int], holder: Any) -> object:
        acquire(held, holder)
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "acquire", acquire_and_stop)
    with pytest.raises(KeyboardInterrupt):
        db.transaction()
    assert [] == registry.live()
    assert [] == db.transactions()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_one_that_is_letting_go_already_is_not_ended_again(
    db: Database, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Whoever looks meanwhile would open a committed one again."""
    registry = db._engine.snapshots
    release, ended = registry.release, []

    def look_and_release(held: list[int]) -> None:
        ended.append(txn.let_go(TransactionTooOldError("it was too old")))
        release(held)

    txn = db.transaction()
    txn[b"a"] = b"2"
    monkeypatch.setattr(registry, "release", look_and_release)
    getattr(txn, end)()
    assert [False] == ended
    assert not txn.is_open
    with pytest.raises(DatabaseClosedError, match=r"the transaction was (committed|rolled back)"):
        txn.get(b"a")
    txn.rollback()
    assert [] == registry.live()


READS: list[Callable[[Any], object]] = [
    lambda frozen: frozen.get(b"a"),
    lambda frozen: frozen[b"a"],
    lambda frozen: b"a" in frozen,
    lambda frozen: frozen.get_many([b"a"]),
    lambda frozen: frozen.items(),
    lambda frozen: len(frozen),
]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", ["transaction", "snapshot"])
def test_a_read_past_the_age_raises(
    env: SimEnv, db: Database, read: Callable[[Any], object], kind: str
) -> None:
    frozen: Transaction | Snapshot = getattr(db, kind)()
    read(frozen)
    env.sleep(9.5)
    read(frozen)
    env.sleep(1)
    with pytest.raises(TransactionTooOldError, match="max_transaction_age is 10"):
        read(frozen)
    assert [] == db._engine.snapshots.live()
    assert [] == db.transactions()
    if isinstance(frozen, Transaction):
        frozen.rollback()
    else:
        frozen.close()


def test_one_that_is_too_old_does_not_commit_in_silence(env: SimEnv, db: Database) -> None:
    with pytest.raises(TransactionTooOldError), db.transaction() as txn:
        txn[b"a"] = b"mine"
        env.sleep(11)
        db.flush()
        db[b"a"] = b"theirs"
        db.compact()
    assert b"theirs" == db[b"a"]
    txn.rollback()
    for use in (txn.commit, lambda: txn.get(b"a")):
        with pytest.raises(Exception, match="rolled back"):
            use()


def test_a_compaction_ends_who_is_too_old_and_drops_what_it_saw(env: SimEnv, db: Database) -> None:
    """The cursor that a forgotten reader still has says so too."""
    txn = db.transaction(read_only=True)
    rows = txn.items()
    next(rows)
    young = None
    for number in range(20):
        db.put(b"a", b"%d" % number * 300, durability="none")
        if number == 10:
            env.sleep(11)
            young = db.transaction(read_only=True)
            kept = young[b"a"]
    db.compact()
    assert young is not None
    assert [young.seq] == db._engine.snapshots.live()
    with pytest.raises(TransactionTooOldError, match="the transaction was ended: it is 11 seconds"):
        next(rows)
    with pytest.raises(TransactionTooOldError):
        txn.get(b"a")
    assert kept == young[b"a"]
    assert "engine.snapshot_too_old" in marks_seen()
    txn.rollback()
    young.rollback()


def test_bytes_that_are_held_back_are_limited() -> None:
    """Under a reader that is held for ever, and constant overwrites, space stays bounded."""
    env = SimEnv()
    db = opened(env, max_held_bytes=20_000)
    view, txn = db.snapshot(), db.transaction()
    assert txn.get(b"a") is None
    for number in range(300):
        db.put(b"%d" % (number % 5), b"x" * 500, durability="none")
    db.compact()
    assert sum(space.entries_estimate for space in db.stats().keyspaces) < 60
    for read in (lambda: view.get(b"a"), lambda: txn.get(b"a"), txn.commit):
        with pytest.raises(TransactionTooOldError, match="max_held_bytes is 20000"):
            read()
    view.close()
    txn.rollback()
    db.close()


def test_a_commit_on_its_way_is_not_ended(env: SimEnv, db: Database) -> None:
    txn = db.transaction()
    txn[b"a"] = txn[b"b"]
    prepared = txn.prepare()
    assert prepared is not None
    env.sleep(20)
    assert [txn.seq] == db._engine.snapshots.live()
    db._host.commit(prepared.batch, None, prepared.keyspaces, prepared.check)
    txn.finish(None)
    assert b"2" == db[b"a"]


def test_limits_are_stored_only_when_they_are_set() -> None:
    """A database that does not use them is read by older versions."""
    assert "max_" not in DatabaseSettings().to_text()
    text = DatabaseSettings(max_transaction_age=5).to_text()
    assert "max_transaction_age = 5" in text
    assert 5 == DatabaseSettings.from_text(text).max_transaction_age
