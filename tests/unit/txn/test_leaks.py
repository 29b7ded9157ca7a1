"""Goal: a handle that nobody ends (forgotten, of a thread that ended, of a forked child) gives back
what it holds, with a warning that says where it began; one that is used is left alone.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
import holdfast.aio
from holdfast.base import DatabaseClosedError, DatabaseSettings, marks_seen
from holdfast.engine import Database, open_database, snapshot
from holdfast.engine.snapshot import LEFT_SECONDS
from holdfast.env import ReentryError, SimEnv
from holdfast.txn import leak, warn_of_leak
from tests.process.scripts import run
from tests.unit.engine.test_interrupts import SETTINGS


@pytest.fixture
def env() -> SimEnv:
    return SimEnv()


@pytest.fixture
def db(env: SimEnv) -> Iterator[Database]:
    with open_database("/db", env=env, settings=SETTINGS) as database:
        database.put_many({b"a": b"1", b"b": b"2"})
        yield database


KINDS = ("transaction", "snapshot")


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Return what a thread returned that has ended since."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def in_a_task(env: SimEnv, function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    env.spawn("ends", lambda: found.append(function())).join()
    return found[0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_forgotten_is_named_and_lets_go(db: Database, kind: str) -> None:
    frozen = getattr(db, kind)()
    line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    with pytest.warns(ResourceWarning, match=f"a {kind} of {__file__}:{line} was never") as seen:
        del frozen
        gc.collect()
    assert 1 == len(seen)
    assert [] == db._engine.snapshots.live()
    assert [] == db.transactions()


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_was_ended_is_not_warned_of(db: Database, kind: str) -> None:
    with getattr(db, kind)() as frozen:
        frozen.get(b"a")
    del frozen
    gc.collect()


def test_one_of_tasks_that_is_forgotten_lets_go(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as database:
            txn = database.transaction()
            await txn.put(b"a", b"1")
            await txn.lock(b"a")
            with pytest.warns(ResourceWarning, match="never ended"):
                del txn
                # The thread that did the last call may hold it for a moment.
                while await database.transactions():
                    gc.collect()
            async with database.transaction() as other:
                await other.lock(b"a", timeout=5)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_a_thread_that_ended_is_ended_when_somebody_looks(
    env: SimEnv, db: Database, kind: str
) -> None:
    frozen = in_a_task(env, getattr(db, kind))
    assert 1 == len(db.transactions())
    env.sleep(LEFT_SECONDS + 0.1)
    with pytest.warns(ResourceWarning, match=f"a {kind} of .* was left by its thread") as seen:
        assert [] == db.transactions()
    assert 1 == len(seen)
    assert [] == db._engine.snapshots.live()
    assert "engine.snapshot_of_an_ended_thread" in marks_seen()
    with pytest.raises(DatabaseClosedError, match="the thread that began it has ended"):
        frozen.get(b"a")
    # Whoever has it may still end it, without a word.
    getattr(frozen, "rollback" if kind == "transaction" else "close")()
    del frozen
    gc.collect()


@pytest.mark.parametrize("kind", KINDS)
def test_a_compaction_drops_what_one_of_an_ended_thread_saw(
    env: SimEnv, db: Database, kind: str
) -> None:
    frozen = in_a_task(env, getattr(db, kind))
    db.transactions()
    env.sleep(LEFT_SECONDS + 0.1)
    db[b"a"] = b"new"
    with pytest.warns(ResourceWarning):
        db.compact()
    with pytest.raises(DatabaseClosedError):
        frozen.get(b"a")


QUICK_SECONDS = 0.2


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """One of the real machine, whose threads are not tasks, and that waits for less long."""
    monkeypatch.setattr(snapshot, "LEFT_SECONDS", QUICK_SECONDS)
    with holdfast.open(tmp_path / "db") as database:
        database.put_many({b"a": b"1", b"b": b"2"})
        yield database


class User:
    """A thread that has used a handle, and lives until it is ended."""

    def __init__(self, frozen: Any) -> None:
        self._goes_on = threading.Event()
        used = threading.Event()

        def use() -> None:
            frozen.get(b"a")
            used.set()
            self._goes_on.wait(60)

        self._thread = threading.Thread(target=use)
        self._thread.start()
        assert used.wait(60)

    def end(self) -> None:
        self._goes_on.set()
        self._thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_another_thread_took_over_is_left_alone(quick: Database, kind: str) -> None:
    """Numbers of threads are given again, so they are not what is compared."""
    frozen = in_a_thread(getattr(quick, kind))
    user = User(frozen)
    assert b"1" == in_a_thread(lambda: frozen.get(b"a"))
    for _ in range(2):
        time.sleep(QUICK_SECONDS + 0.1)
        assert 1 == len(quick.transactions())
    assert b"1" == frozen.get(b"a")
    user.end()
    # This thread has used it, too.
    for _ in range(2):
        time.sleep(QUICK_SECONDS + 0.1)
        assert 1 == len(quick.transactions())
    getattr(frozen, "rollback" if kind == "transaction" else "close")()


@pytest.mark.parametrize("kind", KINDS)
def test_one_whose_users_have_all_ended_is_ended(quick: Database, kind: str) -> None:
    frozen = in_a_thread(getattr(quick, kind))
    user = User(frozen)
    assert b"1" == in_a_thread(lambda: frozen.get(b"a"))
    for _ in range(2):
        assert 1 == len(quick.transactions()), "one of them may still use it"
        time.sleep(QUICK_SECONDS + 0.1)
    user.end()
    assert 1 == len(quick.transactions())
    time.sleep(QUICK_SECONDS + 0.1)
    with pytest.warns(ResourceWarning, match=f"a {kind} of .* was left by its thread"):
        assert [] == quick.transactions()
    with pytest.raises(DatabaseClosedError, match="so have all others that have used it"):
        frozen.get(b"a")


@pytest.mark.parametrize("kind", KINDS)
def test_who_took_one_over_may_hand_it_over_within_a_second_too(quick: Database, kind: str) -> None:
    """However long ago it was seen that the first thread had ended."""
    frozen = in_a_thread(getattr(quick, kind))
    assert 1 == len(quick.transactions())
    user = User(frozen)
    time.sleep(QUICK_SECONDS + 0.1)
    assert 1 == len(quick.transactions())
    user.end()
    assert 1 == len(quick.transactions())
    assert b"1" == frozen.get(b"a")
    getattr(frozen, "rollback" if kind == "transaction" else "close")()


def test_rows_that_a_user_who_ended_read_keep_no_transaction(quick: Database) -> None:
    """They are the doing of somebody who is known to be gone."""
    txn, rows = in_a_thread(lambda: (txn := quick.transaction(), txn.keys()))
    assert 1 == len(quick.transactions())
    user = User(txn)
    assert 1 == len(quick.transactions())
    assert b"a" == in_a_thread(lambda: next(rows))
    user.end()
    assert 1 == len(quick.transactions())
    time.sleep(QUICK_SECONDS + 0.1)
    with pytest.warns(ResourceWarning, match="was left by its thread"):
        assert [] == quick.transactions()
    assert txn is not None


@pytest.mark.parametrize("way", ["forgotten", "thread", "process"])
def test_an_iterator_that_nobody_ends_keeps_no_files(tmp_path: Path, way: str) -> None:
    """It has no entry in a list: it holds what it reads, and that goes with it."""
    with holdfast.open(tmp_path / "db") as database:
        database.put_many({b"%d" % number: b"v" * 100 for number in range(500)})
        database.flush()
        before = {path.name for path in (tmp_path / "db").glob("*.table")}
        kept: list[Any] = []

        def begin() -> None:
            rows = database.items()
            next(rows)
            kept.append(weakref.ref(rows))

        if way == "forgotten":
            begin()
        elif way == "thread":
            in_a_thread(begin)
        else:
            rows = database.items()
            next(rows)
            child = os.fork()
            if child == 0:
                # The copy of a child holds nothing in the parent.
                os._exit(0)
            os.waitpid(child, 0)
            del rows
        database.clear()
        database.compact()
        assert before.isdisjoint(path.name for path in (tmp_path / "db").glob("*.table"))


def test_a_transaction_whose_iterator_another_thread_took_over_is_left_alone(
    env: SimEnv, db: Database
) -> None:
    txn, rows = in_a_task(env, lambda: (txn := db.transaction(), txn.keys()))
    assert 1 == len(db.transactions())
    assert b"a" == next(rows)
    env.sleep(LEFT_SECONDS + 0.1)
    assert 1 == len(db.transactions())
    env.sleep(LEFT_SECONDS + 0.1)
    assert 1 == len(db.transactions())
    assert [b"b"] == list(rows)
    txn.rollback()


def test_an_iterator_that_nobody_reads_keeps_no_transaction(env: SimEnv, db: Database) -> None:
    def begin() -> object:
        txn = db.transaction()
        rows = txn.keys()
        next(rows)
        return txn, rows

    left = in_a_task(env, begin)
    db.transactions()
    env.sleep(LEFT_SECONDS + 0.1)
    with pytest.warns(ResourceWarning, match="was left by its thread"):
        assert [] == db.transactions()
    assert left is not None


def test_a_lock_of_a_thread_that_ended_is_given_on(tmp_path: Path) -> None:
    """Nothing but the wait itself looks."""
    with holdfast.open(tmp_path / "db") as database:

        def leave() -> object:
            txn = database.transaction()
            txn.lock(b"a")
            return txn

        left = in_a_thread(leave)
        with pytest.warns(ResourceWarning, match="was left by its thread"):
            with database.transaction() as txn:
                txn.lock(b"a", timeout=30)
                txn[b"a"] = b"mine"
            assert [] == database.transactions()
        assert b"mine" == database[b"a"]
        assert left is not None


def test_one_that_is_ended_while_it_waits_for_a_lock_says_so(env: SimEnv) -> None:
    limited = DatabaseSettings(max_transaction_age=10)
    with open_database("/db", env=env, settings=limited) as database:
        holder = database.transaction()
        holder.lock(b"a")
        waiter = database.transaction()
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                waiter.lock(b"a")
            except holdfast.Error as error:
                errors.append(error)

        task = env.spawn("waiter", wait)
        env.sleep(5)
        holder.get(b"a")
        env.sleep(6)
        task.join()
        assert [holdfast.TransactionTooOldError] == [type(error) for error in errors]
        # The lock of the one that is too old is free, too.
        with database.transaction() as third:
            third.lock(b"a", timeout=1)
        for txn in (holder, waiter):
            txn.rollback()


def test_a_warning_that_is_an_error_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_leak("something was left")
    assert ["something was left"] == [str(each.exc_value) for each in seen]


RAISED = [ZeroDivisionError, ReentryError, MemoryError, KeyboardInterrupt, SystemExit]


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[str], object]], None]]:
    """Return a function that has each warning given to another one."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")

        def hook(function: Callable[[str], object]) -> None:
            monkeypatch.setattr(warnings, "showwarning", lambda text, *_: function(str(text)))

        yield hook


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("last", [None, SystemExit])
def test_a_hook_of_warnings_that_raises_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
    hooked: Callable[[Callable[[str], object]], None],
    error: type[BaseException],
    last: type[BaseException] | None,
) -> None:
    """Whatever the hook of what cannot be raised makes of it."""
    seen: list[Any] = []

    def note(unraisable: Any) -> None:
        seen.append(unraisable.exc_type)
        if last is not None:
            raise last

    def fail(text: str) -> None:
        raise error(text)

    monkeypatch.setattr(sys, "unraisablehook", note)
    hooked(fail)
    warn_of_leak("something was left")
    assert [error] == seen


def test_without_any_hook_a_warning_that_is_an_error_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_leak("something was left")
    assert "ResourceWarning: something was left" in capsys.readouterr().err


def test_a_warning_for_which_there_is_no_memory_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
    hooked: Callable[[Callable[[str], object]], None],
) -> None:
    def fail(*given: object) -> None:
        raise MemoryError

    hooked(fail)
    monkeypatch.setattr(leak, "Untold", fail)
    warn_of_leak("something was left")
    assert "txn.leak_not_told" in marks_seen()


LOOKS: dict[str, Callable[[Database], object]] = {
    "transaction": lambda db: db.transaction().rollback(),
    "snapshot": lambda db: db.snapshot().close(),
    "transactions": lambda db: db.transactions(),
    "stats": lambda db: db.stats(),
    "compact": lambda db: db.compact(),
    "compact range": lambda db: db.compact(b""),
    "close": lambda db: db.close(),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_background_work_that_finds_a_leak_leaves_the_warning_to_a_call_of_a_user(
    env: SimEnv,
    db: Database,
    hooked: Callable[[Callable[[str], object]], None],
    kind: str,
    look: str,
) -> None:
    """A hook is code of a user, which may write here what it hears: in the background that would be
    refused, and stop all writing.
    """
    told: list[tuple[int, str]] = []

    def store(text: str) -> None:
        told.append((env.thread_id(), text))
        if look != "close":
            db[b"told"] = text.encode()

    frozen = in_a_task(env, getattr(db, kind))
    db.transactions()
    hooked(store)
    env.sleep(LEFT_SECONDS + 0.1)
    db[b"a"] = b"new"
    db.flush()
    db._engine.upkeep.wait_idle()
    assert [] == told, "the background told it"
    assert [] == db._engine.snapshots.live(), "what it held is not given back"
    assert db._engine.background_error is None
    LOOKS[look](db)
    assert [env.thread_id()] == [thread for thread, _ in told]
    assert f"a {kind} of" in told[0][1]
    if look != "close":
        assert told[0][1].encode() == db[b"told"]
        assert not db.stats().poisoned
    with pytest.raises(DatabaseClosedError):
        frozen.get(b"a")
    del frozen
    gc.collect()
    assert 1 == len(told)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_handles_in_a_forked_child_refuse_and_take_nothing_from_the_parent(tmp_path: Path) -> None:
    run(
        """
import threading
database = holdfast.open(path)
database[b"a"] = b"1"
txn, view = database.transaction(), database.snapshot()
txn[b"b"] = b"2"
txn.lock(b"a")
rows = txn.items()
next(rows)

def refused(call):
    try:
        call()
    except DatabaseClosedError as error:
        assert "fork" in str(error), error
        return
    raise AssertionError("it worked in the child")

def child():
    import gc, warnings
    global txn, view, rows
    for call in (
        lambda: txn.get(b"a"), lambda: txn.keyspace("other"), lambda: txn.lock(b"c"),
        lambda: view.get(b"a"), database.transaction, database.snapshot, database.transactions,
        lambda: database.run(lambda txn: None), txn.commit,
    ):
        refused(call)
    txn.rollback()
    txn = None
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        view = None
        gc.collect()
    assert ["a snapshot of"] == [str(each.message)[:13] for each in seen], seen

# Whoever holds these in the parent never gives them back in the child.
engine = database._engine
held = threading.Event(), threading.Event()
def hold():
    with engine.snapshots._mutex, engine.locks._mutex:
        held[0].set()
        held[1].wait()
thread = threading.Thread(target=hold)
thread.start()
held[0].wait()
import os
if os.fork() == 0:
    try:
        child()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(9)
    os._exit(0)
_, status = os.wait()
held[1].set()
thread.join()
assert status == 0, status
assert 2 == len(database.transactions())
other = database.transaction()
try:
    other.lock(b"a", timeout=0.1)
except holdfast.ConflictError:
    other.rollback()
assert view[b"a"] == b"1"
view.close()
txn.commit()
assert database[b"b"] == b"2"
database.close()
""",
        tmp_path / "db",
    )
