"""What two threads, or one that was interrupted, must not spoil for each other; each race is forced
at the one moment where it did.
"""

import errno
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import holdfast
from holdfast.base import marks_seen
from holdfast.engine.engine import Engine
from holdfast.engine.upkeep import LANES, Upkeep
from holdfast.engine.write_path import WritePath
from holdfast.env import FaultEnv, FaultRule, PosixEnv, SimEnv
from holdfast.wal import WriteBatch
from tests.fault.test_memory_regressions import once


def test_a_snapshot_closed_by_two_threads_leaves_an_equal_one_alone() -> None:
    with holdfast.open("/db", env=SimEnv()) as database:
        database[b"key"] = b"old"
        first, second = database.snapshot(), database.snapshot()
        registry = database._engine.snapshots
        release = registry.release

        def release_while_another_closes(held: list[int]) -> None:
            registry.release = release  # type: ignore[method-assign]  # once only
            first.close()
            release(held)

        registry.release = release_while_another_closes  # type: ignore[method-assign]  # the race
        first.close()
        assert [second.seq] == registry.live()
        database[b"key"] = b"new"
        database.compact()
        assert b"old" == second[b"key"]


def test_a_snapshot_whose_close_was_interrupted_is_given_back_at_most_once() -> None:
    with holdfast.open("/db", env=SimEnv()) as database:
        first, second = database.snapshot(), database.snapshot()
        registry = database._engine.snapshots
        release = registry.release

        def interrupted(held: list[int]) -> None:
            release(held)
            raise KeyboardInterrupt

        registry.release = interrupted  # type: ignore[method-assign]  # the interrupt
        with pytest.raises(KeyboardInterrupt):
            first.close()
        registry.release = release  # type: ignore[method-assign]  # as it was
        del first
        assert [second.seq] == registry.live()
        second.close()


def test_memtables_are_charged_once_whoever_counts_them(tmp_path: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with holdfast.open(tmp_path / "db") as database:
            engine = database._engine
            ended = threading.Event()

            def count() -> None:
                while not ended.is_set():
                    engine.memory.charge()

            threads = [threading.Thread(target=count) for _ in range(2)]
            for thread in threads:
                thread.start()
            for index in range(4_000):
                database.put(b"%d" % index, bytes(1000), durability="none")
            ended.set()
            for thread in threads:
                thread.join()
            database.flush()
            engine.memory.charge()
            held = sum(tree.memtable_bytes for tree in engine.trees.values())
            assert engine.pool.reserved_bytes == held + engine.memory.spare.bytes_held
    finally:
        sys.setswitchinterval(interval)


def test_an_interval_timer_that_ends_just_before_a_commit_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = SimEnv()
    with holdfast.open("/db", env=env) as database:
        path = database._engine.write_path
        commit = path.commit

        def late(batch: WriteBatch, durability: str | None, keyspaces: frozenset[int]) -> None:
            env.sleep(1.0)
            commit(batch, durability, keyspaces)

        monkeypatch.setattr(path, "commit", late)
        database.put(b"key", b"value", durability="interval")
        env.sleep(1.0)
        assert database._engine.log is not None
        assert 1 == database._engine.log.durable_seq


def test_an_interval_timer_outlives_a_full_disk() -> None:
    machine = SimEnv()
    env = FaultEnv(machine)
    with holdfast.open("/db", env=env) as database:
        env.add(FaultRule(site="wal.record.write", error=errno.ENOSPC))
        database.put(b"key", b"value", durability="interval")
        machine.sleep(1.0)
        assert 1 == env.injected
        database.put(b"other", b"value", durability="interval")
        machine.sleep(1.0)
        assert database._engine.log is not None
        assert 2 == database._engine.log.durable_seq


INTERVAL_STEPS: list[tuple[object, str]] = [
    (Upkeep, "pause"),
    (WritePath, "sync"),
    (WritePath, "exclusive"),
    (Engine, "_disarm"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), INTERVAL_STEPS, ids=[n for _, n in INTERVAL_STEPS])
@pytest.mark.parametrize("other", [None, "_upkeep_failed"], ids=["told", "untold"])
def test_an_interval_timer_outlives_a_want_of_memory(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: bool, other: str | None
) -> None:
    """It ended, and counted as running: nothing was synced any more."""
    machine = SimEnv()
    with holdfast.open("/db", env=machine) as database:
        engine = database._engine
        assert engine.log is not None
        struck = once(monkeypatch, owner, name, after=after)
        if other is not None:
            once(monkeypatch, Engine, other)
        for number in range(1, 4):
            database.put(b"key", b"value", durability="interval")
            machine.sleep(1.0)
            assert number == engine.log.durable_seq
        assert struck
        assert other is None or "engine.interval_not_told" in marks_seen()
        assert engine.background_error is None
        assert not engine.is_poisoned


def test_an_interval_timer_that_something_else_ended_does_not_count_as_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = SimEnv()
    database = holdfast.open("/db", env=machine)
    engine = database._engine

    def fail(path: WritePath) -> None:
        raise LookupError

    monkeypatch.setattr(WritePath, "sync", fail)
    database.put(b"key", b"value", durability="interval")
    machine.sleep(1.0)
    assert not engine.state.interval_armed
    assert engine.is_poisoned
    with pytest.raises(holdfast.DatabasePoisonedError):
        database.close()


@pytest.mark.parametrize("seed", range(145, 150))
def test_of_several_flushes_without_room_all_are_told(seed: int) -> None:
    machine = SimEnv(seed)
    env = FaultEnv(machine)
    with holdfast.open("/db", env=env) as database:
        database[b"key"] = b"value"
        env.add(FaultRule(site="table.write.append", error=errno.ENOSPC, times=None))
        told = []

        def flush() -> None:
            with suppress(holdfast.DiskFullError):
                database.flush()
            told.append(True)

        tasks = [machine.spawn("flush", flush) for _ in range(3)]
        machine.sleep(20)
        ended = len(told)
        env.clear()
        # Those that still wait need somebody who flushes for them.
        database._engine.schedule_flush(database.id)
        for task in tasks:
            task.join()
        assert 3 == ended


def test_a_job_without_a_thread_is_not_taken_for_one_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = SimEnv()
    upkeep = Upkeep(env, lambda lane, error: None)
    ran = []
    spawn = env.spawn

    def refuse(name: str, function: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(env, "spawn", refuse)
    for _ in range(len(LANES) + 1):
        with pytest.raises(RuntimeError):
            upkeep.submit("flush", 0, lambda: ran.append(True))
    monkeypatch.setattr(env, "spawn", spawn)
    upkeep.submit("flush", 0, lambda: ran.append(True))
    upkeep.wait_idle()
    assert [True] == ran
    upkeep.stop()


def test_a_stop_after_one_that_was_interrupted_waits_for_the_jobs() -> None:
    env = PosixEnv()
    upkeep = Upkeep(env, lambda lane, error: None)
    begun, may_end = threading.Event(), threading.Event()
    ended = []

    def job() -> None:
        begun.set()
        may_end.wait()
        ended.append(True)

    upkeep.submit("flush", 0, job)
    begun.wait()
    (task,) = upkeep._tasks.values()

    class Interrupted:
        name = "interrupted"

        def __init__(self) -> None:
            self.joins = 0

        def join(self) -> None:
            self.joins += 1
            if self.joins == 1:
                raise KeyboardInterrupt
            task.join()

    upkeep._tasks = {1: Interrupted()}
    with pytest.raises(KeyboardInterrupt):
        upkeep.stop()
    threading.Timer(0.05, may_end.set).start()
    upkeep.stop()
    assert [True] == ended


def test_a_close_waits_for_a_compaction_in_another_thread(tmp_path: Path) -> None:
    class SlowEnv(PosixEnv):
        __slots__ = ("begun", "calls", "closed")

        def __init__(self) -> None:
            self.begun, self.closed = threading.Event(), threading.Event()
            self.calls: list[bool] = []

        def random_bytes(self, count: int) -> bytes:
            if threading.current_thread().name == "compacts":
                self.begun.set()
                self.closed.wait(0.3)
                self.calls.append(self.closed.is_set())
            return super().random_bytes(count)

    env = SlowEnv()
    database = holdfast.open(tmp_path / "db", env=env)
    for _ in range(2):
        database[b"key"] = b"value"
        database.flush()
    failures: list[BaseException] = []

    def compact() -> None:
        try:
            database.compact()
        except holdfast.DatabaseClosedError as error:
            failures.append(error)

    thread = threading.Thread(target=compact, name="compacts")
    thread.start()
    assert env.begun.wait(10)
    database.close()
    env.closed.set()
    thread.join()
    assert [False] == env.calls
    with holdfast.open(tmp_path / "db") as database:
        assert b"value" == database[b"key"]
        assert database.verify().ok


FORGETS = """
import gc, sys, holdfast
database = holdfast.open(sys.argv[1])
database._engine.upkeep.wait_idle()
database.put(b"key", b"value", durability="none")
del database
gc.collect()
"""


def test_a_forgotten_handle_is_closed_when_the_interpreter_ends(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORGETS, tmp_path / "db"], check=True)
    with holdfast.open(tmp_path / "db") as database:
        assert b"value" == database.get(b"key")


def test_a_closed_handle_is_let_go(tmp_path: Path) -> None:
    database = holdfast.open(tmp_path / "db")
    seen = weakref.ref(database)
    database.close()
    del database
    gc.collect()
    assert None is seen()


def test_a_handle_of_a_dropped_keyspace_does_not_hold_its_files() -> None:
    env = SimEnv()
    with holdfast.open("/db", env=env) as database:
        dropped = database.keyspace("dropped")
        dropped[b"key"] = b"value"
        dropped.flush()
        database._engine.upkeep.wait_idle()
        rows = dropped.items()
        database.drop_keyspace("dropped")
        with pytest.raises(holdfast.DatabaseClosedError):
            dropped.get(b"key")
        assert [(b"key", b"value")] == list(rows)
        database._engine.collect()
        assert [] == [name for name in env.list_dir("/db") if name.endswith(".table")]
