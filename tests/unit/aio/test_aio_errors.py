"""Goal: whatever goes wrong reaches each task that waits as the error of the plain face, and
nothing is left behind: no task that waits for ever, no thread, no half of a commit.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import holdfast
import holdfast.aio
from holdfast.aio import bridge
from holdfast.base import (
    DatabaseClosedError,
    DatabaseLockedError,
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    LimitError,
    ReadOnlyError,
    marks_seen,
)
from holdfast.engine import Submission, committer, open_database
from holdfast.env import FaultEnv, FaultRule, PosixEnv, SimEnv
from holdfast.testing import sim_loop
from holdfast.wal import WriteBatch

DEFAULT_ID = 0
"""The id of the default keyspace."""


async def outcomes(*calls: Any) -> list[BaseException | None]:
    return await asyncio.gather(*calls, return_exceptions=True)


def puts(db: holdfast.aio.Database, count: int) -> list[Any]:
    return [db.put(b"%d" % number, b"1") for number in range(count)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (FaultRule(kind="sync", site="wal.record.sync"), DatabasePoisonedError),
        (FaultRule(kind="write", site="wal.record.write"), DatabasePoisonedError),
        (
            FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC, times=None),
            DiskFullError,
        ),
    ],
    ids=["sync", "write", "full"],
)
def test_a_failure_of_the_disk_reaches_every_task_of_the_group(
    seed: int, rule: FaultRule, kind: type[BaseException]
) -> None:
    machine = SimEnv(seed)
    env = FaultEnv(machine)

    async def main() -> None:
        db = await holdfast.aio.open("/db", env=env)
        await db.put(b"before", b"1")
        env.add(rule)
        errors = await outcomes(*puts(db, 10), db.sync())
        assert all(isinstance(error, kind) for error in errors[:10]), errors
        assert len({id(error) for error in errors[:10]}) == 10, "no two tasks raise one object"
        assert await db.get(b"before") == b"1"
        assert await db.count() == 1
        if kind is DiskFullError:
            env.clear()
            assert await outcomes(*puts(db, 10)) == [None] * 10
            await db.close()
        else:
            assert isinstance(errors[10], DatabasePoisonedError)
            with pytest.raises(DatabasePoisonedError):
                await db.put(b"later", b"1")
            with pytest.raises(DatabasePoisonedError):
                await db.flush()
            with pytest.raises(DatabasePoisonedError):
                await db.close()

    sim_loop.run(env, main())
    assert machine.unreturned() == []


def test_wrong_calls_are_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            with pytest.raises(TypeError):
                await db.put("text", b"1")
            with pytest.raises(LimitError):
                await db.put(b"k" * 70_000, b"1")
            with pytest.raises(LimitError):
                await db.get(b"k" * 70_000)
            with pytest.raises(ValueError, match="durability"):
                await db.put(b"k", b"1", durability="perhaps")
            with pytest.raises(ValueError, match="durability"):
                await db.put_many([(b"k", b"1")], durability="perhaps")
            with pytest.raises(LimitError):
                await db.drop_keyspace("default")
            assert await db.count() == 0

    asyncio.run(main())


def test_errors_of_opening(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await holdfast.aio.open(tmp_path / "db", create=False)
        async with await holdfast.aio.open(tmp_path / "db") as db:
            await db.put(b"k", b"v")
            with pytest.raises(DatabaseLockedError):
                await holdfast.aio.open(tmp_path / "db")
        async with await holdfast.aio.open(tmp_path / "db", read_only=True) as db:
            assert await db.get(b"k") == b"v"
            for call in (db.put(b"k", b"1"), db.put_many([]), db.sync(), db.flush()):
                with pytest.raises(ReadOnlyError):
                    await call

    asyncio.run(main())


def test_a_closed_database_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        db = await holdfast.aio.open(tmp_path / "db")
        other = await db.keyspace("other")
        await db.put_many([(b"%d" % number, b"1") for number in range(2000)])
        rows = db.items()
        await anext(rows)
        await db.close()
        calls = [
            db.get(b"k"), db.get_many([b"k"]), db.put(b"k", b"v"), db.put_many([]),
            db.delete(b"k"), db.delete_range(b"a", b"b"), db.delete_range(None, None), db.sync(),
            db.flush(), db.compact(), db.verify(), db.stats(), db.keyspace("other"),
            db.keyspaces(), db.count(), other.put(b"k", b"v"), other.get(b"k"),
        ]  # fmt: skip
        for error in await outcomes(*calls):
            assert isinstance(error, DatabaseClosedError)
        with pytest.raises(DatabaseClosedError):
            db.items()
        with pytest.raises(DatabaseClosedError):
            db.snapshot()
        with pytest.raises(DatabaseClosedError):
            for _ in range(2000):
                await anext(rows)

    asyncio.run(main())


def test_an_exception_in_the_block_hides_that_of_the_close() -> None:
    machine = SimEnv()
    env = FaultEnv(machine)

    async def main() -> None:
        async with await holdfast.aio.open("/db", env=env) as db:
            env.add(FaultRule(kind="sync", site="wal.record.sync"))
            (error,) = await outcomes(db.put(b"k", b"v"))
            assert isinstance(error, DatabasePoisonedError)
            raise LookupError

    with pytest.raises(LookupError):
        sim_loop.run(env, main())


@pytest.mark.parametrize("seed", range(24))
def test_closing_while_tasks_wait(seed: int) -> None:
    """Each is served or refused, what was acknowledged is there, and nothing waits for ever."""
    machine = SimEnv(seed)

    async def main() -> set[bytes]:
        db = await holdfast.aio.open("/db", env=machine)
        returned = set()

        async def client(number: int) -> None:
            for turn in range(1000):
                key = b"%d/%d" % (number, turn)
                await db.put(key, b"1", durability=("commit", "none")[turn % 2])
                returned.add(key)

        clients = [asyncio.ensure_future(client(number)) for number in range(5)]
        await asyncio.sleep(1e-3 + seed * 37e-6)
        await asyncio.gather(db.close(), db.close())
        for error in await outcomes(*clients):
            assert isinstance(error, DatabaseClosedError)
        return returned

    returned = sim_loop.run(machine, main())
    assert machine.unreturned() == []
    with open_database("/db", env=machine) as again:
        assert set(again) == returned


@pytest.mark.parametrize("seed", range(12))
def test_a_cancelled_commit_is_there_or_not_and_the_group_goes_on(seed: int) -> None:
    machine = SimEnv(seed)

    async def main() -> None:
        async with await holdfast.aio.open("/db", env=machine) as db:
            calls = [
                asyncio.ensure_future(db.put_many([(b"%d a" % n, b"1"), (b"%d b" % n, b"1")]))
                for n in range(20)
            ]
            await asyncio.sleep(seed * 5e-6)
            for call in calls[::2]:
                call.cancel()
            errors = await outcomes(*calls)
            assert errors[1::2] == [None] * 10
            await db.sync()
            found = [key async for key in db.keys()]
            for n in range(20):
                there = {b"%d a" % n, b"%d b" % n} & set(found)
                assert len(there) == 2 if n % 2 or errors[n] is None else len(there) in (0, 2)

    sim_loop.run(machine, main())
    assert machine.unreturned() == []


def test_cancelled_reads_and_scans(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db") as plain:
        plain.put_many([(b"%04d" % number, b"v" * 50) for number in range(3000)])

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            for number in range(0, 3000, 300):
                read = asyncio.ensure_future(db.get(b"%04d" % number))
                await asyncio.sleep(0)
                read.cancel()
                await outcomes(read)
            rows = db.keys()
            found = []
            while True:
                request = asyncio.ensure_future(anext(rows))
                await asyncio.sleep(0)
                request.cancel()
                try:
                    found.append(await request)
                except asyncio.CancelledError:
                    continue
                except StopAsyncIteration:
                    break
            assert found == [b"%04d" % number for number in range(3000)], "no row is lost"

    asyncio.run(main())


def test_a_scan_that_failed_fails_again(tmp_path: Path) -> None:
    machine = SimEnv()
    env = FaultEnv(machine)

    async def main() -> None:
        async with await holdfast.aio.open("/db", env=env) as db:
            await db.put_many([(b"%04d" % number, b"v" * 50) for number in range(1000)])
            await db.flush()
            env.add(FaultRule(kind="read", times=1, path="*.table"))
            rows = db.keys()
            for _ in range(2):
                with pytest.raises(OSError, match="Input/output"):
                    await anext(rows)
            cancelled = db.keys()
            env.add(FaultRule(kind="read", times=1, path="*.table"))
            request = asyncio.ensure_future(anext(cancelled))
            await asyncio.sleep(0)
            request.cancel()
            await outcomes(request)
            await asyncio.sleep(1)
            with pytest.raises(OSError, match="Input/output"):
                await anext(cancelled)

    sim_loop.run(env, main())


def test_a_loop_that_is_closed_while_a_commit_is_in_flight(tmp_path: Path) -> None:
    db = asyncio.run(holdfast.aio.open(tmp_path / "db"))
    path = db._database._engine.write_path

    loop = asyncio.new_event_loop()
    writing = loop.create_task(db.put(b"k", b"v"))
    began, go_on = threading.Event(), threading.Event()
    holder = threading.Thread(target=lambda: path.exclusive(lambda: (began.set(), go_on.wait(30))))
    holder.start()
    began.wait(30)
    loop.run_until_complete(asyncio.sleep(0))
    writing.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    go_on.set()
    holder.join()

    async def later() -> None:
        while await db.get(b"k") is None:  # noqa: ASYNC110  nobody tells it
            await asyncio.sleep(0.001)
        await db.put(b"later", b"1")
        await db.close()

    asyncio.run(later())
    assert "aio.loop_closed" in marks_seen()


def test_a_cancelled_open_leaves_the_folder_free(tmp_path: Path) -> None:
    async def cancelled(folder: Path, delay: float) -> None:
        opening = asyncio.ensure_future(holdfast.aio.open(folder))
        await asyncio.sleep(delay)
        opening.cancel()
        (outcome,) = await outcomes(opening)
        if isinstance(outcome, holdfast.aio.Database):
            await outcome.close()

    for number in range(20):
        folder = tmp_path / str(number)
        asyncio.run(cancelled(folder, number * 0.0005))
        for _ in range(1000):
            try:
                holdfast.open(folder).close()
            except DatabaseLockedError:
                time.sleep(0.01)
            else:
                break
        else:
            raise AssertionError("it stays locked")
    assert "aio.open_cancelled" in marks_seen()


def test_no_thread_is_left_after_a_close(tmp_path: Path) -> None:

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            await asyncio.gather(*puts(db, 50), db.flush(), db.stats())

    # Tests of databases that are forgotten leave theirs.
    before = set(threading.enumerate())
    asyncio.run(main())
    names = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [name for name in names if name.startswith("holdfast")]


def test_threads_exist_only_while_there_is_work() -> None:
    machine = SimEnv()

    async def main() -> None:
        async with await holdfast.aio.open("/db", env=machine) as db:
            await asyncio.gather(*puts(db, 50), db.stats())
            assert any("holdfast-commit" in line for line in machine.unreturned())
            await asyncio.sleep(10)
            assert not any("task" in line for line in machine.unreturned())
            await db.put(b"again", b"1")

    sim_loop.run(machine, main())


class NoThreads:
    """An env that starts no thread any more."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.refuses = False

    def spawn(self, name: str, function: Any) -> Any:
        if self.refuses:
            raise RuntimeError("can't start new thread")
        return self._env.spawn(name, function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


def test_without_threads_a_commit_is_refused_and_a_later_one_goes_on(tmp_path: Path) -> None:
    env = NoThreads(PosixEnv())

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db", env=env) as db:
            env.refuses = True
            for error in await outcomes(*puts(db, 3), db.stats()):
                assert isinstance(error, RuntimeError)
            env.refuses = False
            assert await db.count() == 0
            await asyncio.gather(*puts(db, 3))
            assert await db.count() == 3

    asyncio.run(main())


class Noting:
    """A receiver that notes what it is told, and has no memory the first time."""

    def __init__(self, failures: int = 0) -> None:
        self.calls: list[list[Submission]] = []
        self.failures = failures

    def receive(self, served: list[Submission]) -> None:
        if self.failures:
            self.failures -= 1
            raise MemoryError
        self.calls.append(served)


def submission(receiver: Noting, key: bytes, value: bytes = b"1") -> Submission:
    batch = WriteBatch()
    batch.put(DEFAULT_ID, key, value)
    return Submission(receiver, batch, None, (DEFAULT_ID,))


def wait_for(receiver: Noting, count: int, machine: SimEnv) -> None:
    while sum(map(len, receiver.calls)) < count:
        machine.sleep(1e-4)


def test_each_receiver_is_told_once_and_again_when_there_was_no_memory() -> None:
    machine = SimEnv(1)
    database = open_database("/db", env=machine)
    assert database.id == DEFAULT_ID
    first, second = Noting(), Noting(failures=2)
    for number in range(6):
        database.submit(submission((first, second)[number % 2], b"%d" % number))
    wait_for(first, 3, machine)
    wait_for(second, 3, machine)
    assert "engine.committer_without_memory" in marks_seen()
    assert {len(call) for call in first.calls + second.calls} <= {1, 2, 3}
    assert all(each.error is None for call in first.calls + second.calls for each in call)
    assert len(database) == 6
    database.close()
    assert machine.unreturned() == []


def test_submissions_are_divided_into_groups_of_a_bounded_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer, "GROUP_BYTES_MAX", 1000)
    machine = SimEnv(1)
    database = open_database("/db", env=machine)
    receiver = Noting()
    for number in range(9):
        database.submit(submission(receiver, b"%d" % number, b"x" * 400))
    database.submit(submission(receiver, b"large", b"x" * 5000))
    wait_for(receiver, 10, machine)
    assert "engine.submissions_divided" in marks_seen()
    assert len(receiver.calls) >= 6
    assert len(database) == 10
    database.close()


def test_a_part_of_a_dropped_keyspace_fails_alone() -> None:
    machine = SimEnv(1)
    database = open_database("/db", env=machine)
    receiver = Noting()
    good, bad = submission(receiver, b"good"), submission(receiver, b"bad")
    bad.keyspaces = (77,)
    engine = database._engine
    engine.committer.submit(bad)
    engine.committer.submit(good)
    wait_for(receiver, 2, machine)
    assert isinstance(bad.error, DatabaseClosedError)
    assert good.error is None
    assert list(database) == [b"good"]
    database.close()


def test_a_call_of_a_loop_that_had_no_memory_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [MemoryError(), MemoryError()]

    def failing(*given: Any, tell: Any = bridge.tell) -> None:
        if failures:
            raise failures.pop()
        tell(*given)

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            monkeypatch.setattr(bridge, "tell", failing)
            await db.stats()
            assert not failures

    asyncio.run(main())
    assert "aio.tell_again" in marks_seen()


def test_a_full_write_path_does_not_keep_the_loop_waiting(tmp_path: Path) -> None:
    """While the leadership is held the loop runs on, and a put waits."""

    async def main() -> None:
        async with await holdfast.aio.open(tmp_path / "db") as db:
            path = db._database._engine.write_path
            began, go_on = threading.Event(), threading.Event()
            holder = threading.Thread(
                target=lambda: path.exclusive(lambda: (began.set(), go_on.wait(30)))
            )
            holder.start()
            began.wait(30)
            writing = asyncio.ensure_future(db.put(b"k", b"v", durability="none"))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not writing.done()
            go_on.set()
            await writing
            holder.join()

    asyncio.run(main())


def test_a_handle_that_is_let_go_without_a_close_warns_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        db = await holdfast.aio.open(tmp_path / "db", settings=DatabaseSettings())
        await db.put(b"k", b"v")
        await db.close()
        del db
        gc.collect()

    asyncio.run(main())


def _first(operand: Any) -> bytes:
    found: bytes = next(iter(operand))
    return found


def _leaves() -> Any:
    yield b"a", b"1"
    raise SystemExit(3)


def test_what_a_thread_raises_that_is_no_exception_reaches_the_task(tmp_path: Path) -> None:
    """No future takes a StopIteration, and a thread that ends leaves its task waiting."""

    async def body() -> None:
        merges = {"first": holdfast.MergeFunction(lambda _, them: them[-1], encode=_first)}
        async with await holdfast.aio.open(str(tmp_path / "db"), merges=merges) as db:
            for _ in range(40):
                # More often than there may be threads.
                with pytest.raises(RuntimeError, match="raised StopIteration"):
                    await asyncio.wait_for(db.merge(b"k", "first", []), 10)
            left = db._bridge.start(lambda: list(_leaves()))
            await asyncio.wait([left], timeout=10)
            assert isinstance(left.exception(), SystemExit)
            assert 0 == await db.count()

    asyncio.run(body())
