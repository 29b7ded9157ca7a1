"""A finalizer or a signal handler that calls the database in whose middle it runs: it gets an
error, or is served, and never waits for its own thread.

Method: a hook in the middle of a call does what a finalizer would, in a thread that the test waits
for only so long.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.base import PURE, marks_seen
from holdfast.engine import Database, _core, open_database
from holdfast.env import ReentryError

SECONDS = 30
"""So long nothing here takes, unless it hangs."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(str(tmp_path / "db")) as opened:
        opened[b"first"] = b"0"
        yield opened


def within(call: Callable[[], object]) -> None:
    """Run `call` in a thread, and fail when that takes long."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "it waits for itself"
    for error in raised:
        raise error


NESTED: dict[str, Callable[[Database], object]] = {
    "durable put": lambda db: db.put(b"n", b"1"),
    "fast put": lambda db: db.put(b"n", b"1", durability="none"),
    "batch": lambda db: db.put_many([(b"n", b"1"), (b"m", b"1")]),
    "sync": lambda db: db.sync(),
    "flush": lambda db: db.flush(),
    "create": lambda db: db.keyspace("new"),
    "ingest": lambda db: db.ingest([(b"n", b"1")]),
    "transaction": lambda db: db.run(lambda txn: txn.put(b"n", b"1")),
    "transaction, fast": lambda db: db.run(lambda txn: txn.put(b"n", b"1"), durability="none"),
    "close": lambda db: db.close(),
}
OUTER: dict[str, Callable[[Database], object]] = {
    "alone": lambda db: db.put(b"o", b"2"),
    "group": lambda db: db.put_many([(b"o", b"2"), (b"p", b"2")]),
    "exclusive": lambda db: db.flush(),
}


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("nested", NESTED)
def test_what_writes_in_the_middle_of_a_commit_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch, outer: str, nested: str
) -> None:
    log: Any = database._engine.log
    refused: list[ReentryError] = []
    append = log.append

    def interrupted(*args: Any, **options: Any) -> None:
        if not refused:
            with pytest.raises(ReentryError, match="way to the log") as caught:
                NESTED[nested](database)
            refused.append(caught.value)
        append(*args, **options)

    database.put(b"unsynced", b"", durability="none")
    monkeypatch.setattr(log, "append", interrupted, raising=False)
    within(lambda: OUTER[outer](database))
    assert 1 == len(refused)
    assert marks_seen()["engine.commit_in_a_commit"]
    if outer != "exclusive":
        assert b"2" == database[b"o"]
    assert b"n" not in database
    # Nothing of it is left behind.
    within(lambda: NESTED[nested](database))


@pytest.mark.skipif(PURE, reason="the plain twin commits by a group each time")
def test_what_writes_in_the_middle_of_a_commit_at_once_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    core: Any = sys.modules[_core.KeyspaceCore.__module__]
    apply_buffer, refused = core.apply_buffer, []

    def interrupted(*args: Any) -> Any:
        with pytest.raises(ReentryError) as caught:
            database[b"n"] = b"1"
        refused.append(caught.value)
        return apply_buffer(*args)

    def commit() -> None:
        with database.transaction(durability="none") as txn:
            # Few puts are a step in which nothing else runs.
            txn[b"o"] = b"2"
            txn.delete_range(b"p", b"q")
            monkeypatch.setattr(core, "apply_buffer", interrupted)

    within(commit)
    assert 1 == len(refused)
    assert b"2" == database[b"o"]


def test_a_finalizer_of_garbage_is_told_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            database[b"n"] = b"1"

    log: Any = database._engine.log
    append, told = log.append, list[Any]()

    def interrupted(*args: Any, **options: Any) -> None:
        Recorder()
        gc.collect()
        append(*args, **options)

    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(log, "append", interrupted, raising=False)
    within(lambda: database.put(b"o", b"2"))
    assert [ReentryError] == [report.exc_type for report in told]
    text = str(told[0].exc_value)
    assert "__del__" in text
    assert "queue.SimpleQueue" in text
    told.clear()


HANDLER = """
import signal, sys, threading, time
import holdfast
from holdfast.base import marks_seen
from holdfast.env import ReentryError

database = holdfast.open(sys.argv[1])
database[b"first"] = b"0"
log = database._engine.log
append = log.append
leads, goes_on = threading.Event(), threading.Event()

def slow(*args, **options):
    leads.set()
    assert goes_on.wait(60)
    append(*args, **options)

def write(number, frame):
    try:
        database[b"n"] = b"1"
    except ReentryError as error:
        print(error.what)
    goes_on.set()

log.append = slow
leader = threading.Thread(target=lambda: database.put_many([(b"l", b"1"), (b"m", b"1")]))
leader.start()
assert leads.wait(60)
log.append = append
signal.signal(signal.SIGALRM, write)
signal.setitimer(signal.ITIMER_REAL, 0.2)
database.put_many([(b"o", b"2"), (b"p", b"2")])
leader.join()
print(marks_seen()["engine.commit_in_a_wait"], database[b"o"], database.get(b"n"))
database[b"n"] = b"2"
database.close()
"""


def test_a_handler_that_writes_while_its_thread_waits_for_the_leader_is_refused(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANDLER, str(tmp_path / "db")],
        check=True,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
    )
    assert "the way to the log\n1 b'2' None\n" == done.stdout


def test_readers_that_end_in_the_middle_of_a_look_at_them_are_served(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry: Any = database._engine.snapshots
    view, reader, writer = database.snapshot(), database.transaction(), database.transaction()
    writer.lock(b"k")
    tenures = registry.tenures
    refused: list[ReentryError] = []
    lookers: list[int] = []

    def look() -> None:
        lookers.append(threading.get_ident())
        database.transactions()

    def interrupted() -> object:
        if lookers != [threading.get_ident()]:
            # The background looks, too.
            return tenures()
        monkeypatch.undo()
        view.close()
        reader.rollback()
        writer.rollback()
        database.snapshot().close()
        database.transaction().rollback()
        with pytest.raises(ReentryError) as caught:
            database.transactions()
        refused.append(caught.value)
        return tenures()

    monkeypatch.setattr(registry, "tenures", interrupted)
    within(look)
    assert 1 == len(refused)
    assert [] == database.transactions()
    assert [] == registry.live()
    with database.transaction() as txn:
        within(lambda: txn.lock(b"k", timeout=0))


def test_locks_that_are_given_back_in_the_middle_of_a_lock_are_free(database: Database) -> None:
    locks: Any = database._engine.locks
    holder, other = database.transaction(), database.transaction()
    holder.lock(b"k")
    look = locks._look

    def interrupted() -> None:
        locks._look = look
        holder.rollback()

    # Called with the mutex of the table, by whoever waits.
    locks._look = interrupted
    within(lambda: other.lock(b"k", timeout=SECONDS))
    assert marks_seen()["txn.locks_released_in_a_call"]
    other.rollback()


@pytest.mark.parametrize("nested", [n for n in NESTED if n not in ("fast put", "durable put")])
def test_what_waits_for_the_background_is_refused_in_it(database: Database, nested: str) -> None:
    ended, refused = threading.Event(), []

    def job() -> None:
        try:
            with pytest.raises(ReentryError, match="background work") as caught:
                NESTED[nested](database)
            refused.append(caught.value)
        finally:
            ended.set()

    if nested == "transaction, fast":
        # Else it has nobody to wait for.
        database._engine.state.path = None
    database._engine.upkeep.submit("flush", 99, job)
    assert ended.wait(SECONDS)
    assert 1 == len(refused)
    assert marks_seen()["engine.commit_in_the_background"]
    within(lambda: NESTED[nested](database))


@pytest.mark.skipif(not PURE, reason="the compiled twin writes in one step")
def test_a_commit_in_the_middle_of_an_unsynced_put_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_alone: Any = type(database)._write_alone
    refused = []

    def interrupted(*args: Any) -> Any:
        monkeypatch.undo()
        with pytest.raises(ReentryError) as caught:
            database[b"n"] = b"1"
        refused.append(caught.value)
        return write_alone(*args)

    monkeypatch.setattr(type(database), "_write_alone", interrupted)
    within(lambda: database.put(b"o", b"2", durability="none"))
    assert 1 == len(refused)
    assert b"2" == database[b"o"]
    database[b"n"] = b"2"


def test_a_thread_that_waits_for_its_own_end_is_refused(database: Database) -> None:
    env, refused = database._engine.env, []

    def wait() -> None:
        with pytest.raises(ReentryError) as caught:
            task.join()
        refused.append(caught.value)

    begin = env.gate()

    def body() -> None:
        begin.acquire()
        wait()

    task = env.spawn("own", body)
    begin.release()
    within(task.join)
    assert 1 == len(refused)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("outer", OUTER)
def test_a_leader_hands_over_however_often_that_is_cut_off(
    database: Database, outer: str, error: type[BaseException]
) -> None:
    """Memory may be wanting for longer than one try, and a handler may raise what it likes."""
    path: Any = database._engine.write_path
    hand_over, left = path._hand_over, [3]

    def cut_off(leader: object) -> None:
        if left[0]:
            left[0] -= 1
            raise error
        hand_over(leader)

    path._hand_over = cut_off
    # The one that commits alone calls it only if somebody waits.
    path._waking.append(path.alone)

    def lead() -> None:
        with pytest.raises(error):
            OUTER[outer](database)

    within(lead)
    assert left == [0]
    path._hand_over = hand_over
    for nested in ("durable put", "batch", "flush"):
        within(lambda nested=nested: NESTED[nested](database))  # type: ignore[misc]
    assert database[b"n"] == b"1"
