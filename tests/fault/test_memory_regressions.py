"""Want of memory at one place after another, each of which once did more harm than to raise."""

from __future__ import annotations

import _thread
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast
from holdfast.base import marks_seen
from holdfast.engine import Database, closing, compact, open_database, opening, write_path
from holdfast.engine.upkeep import Upkeep
from holdfast.env import PosixEnv, SimEnv
from holdfast.lsm import Tree
from holdfast.manifest import VersionSet
from holdfast.recovery import restart
from tests.fault.client import FOLDER, TINY


def once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, after: bool = False) -> list:
    """Let the next call of a method raise MemoryError, before or after it did its work."""
    real = getattr(owner, name)
    struck: list[str] = []

    def fail(*arguments, **named):
        if struck:
            return real(*arguments, **named)
        struck.append(name)
        if after:
            real(*arguments, **named)
        raise MemoryError

    monkeypatch.setattr(owner, name, fail)
    return struck


def opened(machine: SimEnv) -> Database:
    database = open_database(FOLDER, settings=TINY, env=machine)
    database.put_many({b"%d" % number: b"old" for number in range(20)})
    database.keyspace("other")[b"key"] = b"old"
    database.flush()
    database[b"0"] = b"new"
    return database


def check(database: Database, machine: SimEnv) -> None:
    """Nothing is poisoned, work goes on, and another open finds what there was."""
    assert not database.stats().poisoned
    expected = dict(database.items())
    assert expected[b"0"] == b"new"
    database.flush()
    database.compact()
    assert expected == dict(database.items())
    names = database.keyspaces()
    report = database.verify()
    assert report.ok, report.errors
    database.close()
    with open_database(FOLDER, env=machine) as again:
        assert expected == dict(again.items())
        assert names == again.keyspaces()
        assert again.verify().ok


# --- threads


def test_a_thread_that_has_no_memory_to_begin_is_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was waited for without end: in the start, in a join, and in an uninterrupted step."""
    monkeypatch.setattr(_thread, "start_new_thread", lambda function, arguments: 1)
    env = PosixEnv()
    with pytest.raises(MemoryError):
        env.spawn("never", lambda: None)
    assert threading.get_ident() == env.uninterrupted(threading.get_ident)


def test_a_thread_that_was_started_though_its_number_had_no_memory_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = _thread.start_new_thread

    def start(function: Callable[[], None], arguments: tuple[()]) -> int:
        real(function, arguments)
        raise MemoryError

    monkeypatch.setattr(_thread, "start_new_thread", start)
    ran: list[int] = []
    PosixEnv().spawn("one", lambda: ran.append(1)).join()
    assert [1] == ran


def test_a_file_that_nobody_came_to_own_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    file = PosixEnv().open(str(tmp_path / "file"))
    descriptor = file.fileno()
    del file
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(("name", "after"), [("_take", False), ("_end", False), ("_end", True)])
def test_a_background_thread_without_memory_goes_on(
    monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    """It ended and still counted as one: what waited for it waited for ever."""
    env = SimEnv(1)
    upkeep = Upkeep(env, lambda lane, error: None)
    struck = once(monkeypatch, Upkeep, name, after=after)
    done: list[int] = []
    upkeep.submit("flush", 1, lambda: done.append(1))
    upkeep.submit("flush", 2, lambda: done.append(2))
    upkeep.wait_idle()
    assert "engine.upkeep_without_memory" in marks_seen()
    upkeep.submit("flush", 3, lambda: done.append(3))
    upkeep.wait_idle()
    upkeep.stop()
    assert struck
    assert [1, 2, 3] == done


# --- a commit


class _Sum:
    """A number that nothing can be added to for want of memory."""

    def __radd__(self, other: int) -> int:
        raise MemoryError


def test_a_commit_that_cannot_be_counted_is_one_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It poisoned, though it was in the log and in the memtable."""
    machine = SimEnv(6)
    database = opened(machine)
    real = write_path.apply_buffer
    before = database._engine.state.user_bytes

    def apply(*arguments: object) -> _Sum:
        real(*arguments)  # type: ignore[arg-type]
        return _Sum()

    with monkeypatch.context() as patch:
        patch.setattr(write_path, "apply_buffer", apply)
        database[b"0"] = b"new"
    assert database._engine.state.user_bytes > before
    check(database, machine)


# --- behind an edit that is durable


def test_memory_that_lacks_behind_an_edit_costs_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables that the edit names were removed, and the database could not be opened again."""
    machine = SimEnv(1)
    database = opened(machine)
    real, struck = VersionSet.needs_rewrite, []

    def lacks(version_set: VersionSet) -> bool:
        struck.append(1)
        if len(struck) == 2:
            # The first one asks before the edit whether there is room for it.
            raise MemoryError
        return bool(real.__get__(version_set))

    monkeypatch.setattr(VersionSet, "needs_rewrite", property(lacks))
    database.flush()
    assert len(struck) >= 2
    check(database, machine)


WORK: dict[str, Callable[[Database], object]] = {
    "flush": lambda database: database.flush(),
    "compact": lambda database: database.compact(),
    "create": lambda database: database.keyspace("more"),
    "drop": lambda database: database.drop_keyspace("other"),
}
STEPS = [
    ("flush", Tree, "install"),
    ("compact", Tree, "install"),
    ("flush", "engine", "published"),
    ("compact", "engine", "progressed"),
    ("create", "engine", "add_tree"),
    ("drop", "store", "doom"),
    ("compact", "store", "purge"),
]


@pytest.mark.parametrize(("name", "owner", "method"), STEPS)
def test_what_follows_from_an_edit_is_done_again(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: object, method: str
) -> None:
    """It was left half done, or poisoned."""
    machine = SimEnv(2)
    database = opened(machine)
    engine = database._engine
    owner = {"engine": engine, "store": engine.store}.get(owner, owner)  # type: ignore[call-overload]
    struck = once(monkeypatch, owner, method)
    WORK[name](database)
    assert struck
    assert "engine.carried_out_again" in marks_seen()
    check(database, machine)


def test_tables_of_a_compaction_are_given_back_for_want_of_memory_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They stayed busy, and the next compaction waited for them."""
    machine = SimEnv(3)
    database = opened(machine)
    database.flush()
    database._engine.upkeep.wait_idle()
    held = once(monkeypatch, compact, "_let_go")
    left = once(monkeypatch, compact, "_leave")
    database.compact()
    assert held
    assert left
    assert "engine.given_back_again" in marks_seen()
    assert not database._engine.busy_tables
    assert not database._engine.compacting
    check(database, machine)


def test_a_close_without_memory_still_waits_for_background_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It gave the lock back while a compaction went on."""
    machine = SimEnv(4)
    database = opened(machine)
    struck = once(monkeypatch, database._engine.upkeep, "stop")
    database.close()
    assert struck
    assert "engine.closed_again" in marks_seen()
    assert not machine.unreturned()


def test_a_close_without_memory_still_gives_the_lock_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody could open the database again, not even the same process."""
    machine = SimEnv(4)
    database = opened(machine)
    struck = once(monkeypatch, database._engine, "release")
    database.close()
    assert struck
    assert not machine.unreturned()


def test_a_close_that_never_has_memory_to_wait_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    database = opened(SimEnv(5))

    def lack() -> None:
        raise MemoryError

    monkeypatch.setattr(closing, "SHORTAGE_TRIES", 2)
    monkeypatch.setattr(database._engine.upkeep, "stop", lack)
    with pytest.raises(MemoryError):
        database.close()
    with pytest.raises(holdfast.DatabaseClosedError):
        database[b"0"]


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("owner", "name"),
    [(restart, "_remove_orphans"), (restart, "Recovery"), (opening, "BufferPool")],
)
def test_an_open_without_memory_closes_what_recovery_opened(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, is_new: bool
) -> None:
    """Whoever holds the exception, with all frames behind it, must not hold the files and the
    lock.
    """
    machine = SimEnv()
    if not is_new:
        opened(machine).close()
    struck = once(monkeypatch, owner, name)
    with pytest.raises(MemoryError) as told:
        open_database(FOLDER, settings=TINY, env=machine)
    assert struck
    assert machine.unreturned() == []
    with open_database(FOLDER, settings=TINY, env=machine) as database:
        assert (b"0" in database) is not is_new
    assert told.value is not None
