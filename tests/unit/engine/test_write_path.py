"""Goal: a commit is logged, synced when asked, applied, visible and acknowledged, in that order,
and a group shares one record, one sync and one fate.

Method: tasks of a simulated machine commit at the same time under many schedules. What they did is
compared with the machine's own list of operations and with the log that is left.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from holdfast.base import (
    DatabaseClosedError,
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    KeyspaceSettings,
    LimitError,
    marks_seen,
)
from holdfast.engine import Database, open_database, write_path
from holdfast.engine._core import BUSY
from holdfast.env import CrashPoint, Env, FaultEnv, FaultRule, SimCrash, SimEnv
from holdfast.manifest import VersionSet
from holdfast.wal import decode_payload, read_log

ROOMY = DatabaseSettings(
    wal_segment_bytes=1 << 20, keyspace=KeyspaceSettings(memtable_bytes=1 << 20)
)
"""Nothing is flushed and no segment is left, so the whole history stays in one file."""
SEEDS = range(8)


def spawn_all(env: Env, *functions: Callable[[], None]) -> None:
    """Run functions as tasks and return when all have ended; raises what one raised."""
    tasks = [env.spawn(f"task {number}", run) for number, run in enumerate(functions)]
    for task in tasks:
        task.join()


@dataclass
class Commit:
    """A commit that was acknowledged."""

    key: bytes
    durability: str | None
    acknowledged: int
    """How many operations of the machine were done when it returned."""


def log_of(env: SimEnv) -> list[list[list[bytes]]]:
    """The keys in the log: of each record the batches."""
    manifest = VersionSet.recover(env, "/db")
    log = read_log(
        env,
        "/db",
        manifest.version.wal_first,
        database_id=manifest.database_id,
        alignment=8,
        first_lsn=manifest.version.wal_first_lsn,
        durable_lsn=manifest.version.durable_lsn,
        manifest_edit_seen=manifest.version.edit_seq,
        clean=manifest.version.clean,
    )
    return [
        [[key for _, _, key, _ in batch] for batch in decode_payload(data, 0, len(data))]
        for segment in log
        for data in (bytes(record.payload) for record in segment.records())
        if data
    ]


@dataclass
class History:
    """What happened on a machine: commits, and where each key was logged and synced."""

    env: SimEnv
    commits: list[Commit]

    def __post_init__(self) -> None:
        self.records = log_of(self.env)
        writes = [op for op in self.env.op_log if op.site == "wal.record.write"]
        assert len(writes) == len(self.records)
        self.written = {
            key: op.number
            for op, record in zip(writes, self.records, strict=True)
            for batch in record
            for key in batch
        }
        self.syncs = [op for op in self.env.op_log if op.site == "wal.record.sync"]

    def synced(self, key: bytes) -> int:
        """The number of the first sync that made a key durable."""
        return next(op.number for op in self.syncs if int(op.detail[0]) > self.written[key])

    def batches(self) -> Iterator[list[bytes]]:
        for record in self.records:
            yield from record


def commit_from_tasks(
    seed: int, tasks: int, commits: int, durability: Callable[[int], str | None]
) -> tuple[History, Database]:
    """Let tasks commit to keys of their own; the first key of a batch of two is `...a`."""
    env = SimEnv(seed)
    database = open_database("/db", env=env, settings=ROOMY)
    done: list[Commit] = []

    def client(task: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(commits):
                key = b"%02d-%02d" % (task, number)
                how = durability(task * commits + number)
                database.put_many([(key + b"a", b"1"), (key + b"b", b"1")], durability=how)
                assert b"1" == database.get(key + b"a")
                done.append(Commit(key + b"a", how, env.op_count))

        return run

    spawn_all(env, *[client(task) for task in range(tasks)])
    database.sync()
    return History(env, done), database


@pytest.mark.parametrize("seed", SEEDS)
def test_a_durable_commit_is_acknowledged_after_its_sync(seed: int) -> None:
    history, database = commit_from_tasks(seed, 6, 5, lambda _: None)
    assert 30 == len(history.commits)
    for commit in history.commits:
        assert history.written[commit.key] < history.synced(commit.key) < commit.acknowledged
    database.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_is_visible_after_its_sync(seed: int) -> None:
    env = SimEnv(seed)
    database = open_database("/db", env=env, settings=ROOMY)
    visible: list[tuple[int, int]] = []
    env.observer = lambda operation: visible.append((operation.number, database.state.visible_seq))
    assert [None] * 8 == outcomes_of(env, database, 8)
    env.observer = None
    history = History(env, [])
    for number, seq in visible:
        # The observer sees the moment of the sync's effect, before the leader learns of it.
        assert seq <= sum(history.synced(key) < number for key in history.written)
    database.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_shares_one_record_and_one_sync(seed: int) -> None:
    history, database = commit_from_tasks(seed, 8, 5, lambda _: "commit")
    assert any(len(record) > 1 for record in history.records)
    assert len(history.syncs) <= len(history.records) + 1
    assert len(history.records) < len(history.commits)
    for batch in history.batches():
        assert 2 == len(batch), "a batch is whole"
    database.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_commits_of_a_task_are_logged_in_its_order(seed: int) -> None:
    history, database = commit_from_tasks(
        seed, 5, 8, lambda number: ["commit", "none", "interval"][number % 3]
    )
    for task in range(5):
        mine = [batch[0] for batch in history.batches() if batch[0].startswith(b"%02d" % task)]
        assert sorted(mine) == mine
        assert 8 == len(mine)
    for commit in history.commits:
        if commit.durability == "commit":
            assert history.synced(commit.key) < commit.acknowledged
    database.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_reads_what_a_crash_could_take_while_its_writer_waits(seed: int) -> None:
    env = SimEnv(seed)
    database = open_database("/db", env=env, settings=ROOMY)
    seen: dict[bytes, int] = {}
    running = 3

    def write(task: int) -> Callable[[], None]:
        def run() -> None:
            nonlocal running
            for number in range(6):
                database[b"%d-%d" % (task, number)] = b"1"
            running -= 1

        return run

    def read() -> None:
        while running:
            for key in database.keys():
                seen.setdefault(key, env.op_count)
            env.sleep(0.00005)

    spawn_all(env, write(0), write(1), write(2), read)
    history = History(env, [])
    assert len(seen) > 10
    for key, number in seen.items():
        assert history.synced(key) < number
    database.close()


def test_one_commit_is_one_record_and_one_sync() -> None:
    env = SimEnv()
    with open_database("/db", env=env, settings=ROOMY) as database:
        for number in range(10):
            before = env.op_count
            database[b"%d" % number] = b"1"
            sites = [op.site for op in env.op_log[before:]]
            assert ["wal.record.write", "wal.record.sync"] == sites


def test_commits_without_a_sync_share_a_record_with_the_next_durable_one() -> None:
    env = SimEnv()
    with open_database("/db", env=env, settings=ROOMY) as database:
        before = env.op_count
        for number in range(10):
            database.put(b"%d" % number, b"1", durability="none")
            database.put_many([(b"many", b"%d" % number)], durability="none")
        assert before == env.op_count
        database[b"last"] = b"1"
        assert ["wal.record.write", "wal.record.sync"] == [op.site for op in env.op_log[before:]]
        assert 21 == sum(len(batch) for record in log_of(env) for batch in record)


def test_unsynced_commits_are_written_when_the_buffer_is_half_full() -> None:
    env = SimEnv()
    with open_database("/db", env=env, settings=ROOMY) as database:
        for number in range(300):
            database.put(b"%d" % number, b"x" * 1000, durability="none")
        sites = {op.site for op in env.op_log if op.site.startswith("wal.record")}
        assert {"wal.record.write"} == sites, "written and not synced"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_stops_at_its_limit_of_bytes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_path, "GROUP_BYTES_MAX", 120)
    history, database = commit_from_tasks(seed, 8, 3, lambda _: "commit")
    sizes = [len(record) for record in history.records]
    assert max(sizes) <= 5
    assert any(size > 1 for size in sizes)
    database.close()


def test_a_batch_beyond_the_limit_of_a_group_commits_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_path, "GROUP_BYTES_MAX", 10)
    history, database = commit_from_tasks(1, 4, 2, lambda _: "commit")
    assert all(1 == len(record) for record in history.records)
    database.close()


def test_a_batch_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_path, "BATCH_BYTES_MAX", 1000)
    env = SimEnv()
    with open_database("/db", env=env, settings=ROOMY) as database:
        before = env.op_count
        with pytest.raises(LimitError, match="1000"):
            database.put_many({b"%d" % number: b"x" * 100 for number in range(10)})
        assert before == env.op_count
        assert 0 == len(database)


@pytest.mark.parametrize("call", ["put", "delete", "put_many", "delete_range"])
def test_an_unknown_durability_is_refused(call: str) -> None:
    env = SimEnv()
    with open_database("/db", env=env) as database:
        arguments = {
            "put": (b"a", b"b"),
            "delete": (b"a",),
            "put_many": ([(b"a", b"b")],),
            "delete_range": (b"a", b"b"),
        }[call]
        with pytest.raises(ValueError, match="commit, interval, none"):
            getattr(database, call)(*arguments, durability="always")
        assert 0 == len(database)


# --- failures: all members of a group have one fate


def outcomes_of(
    env: Env, database: Database, tasks: int, durability: str | None = None
) -> list[BaseException | None]:
    """Let so many tasks commit once at the same time; return what each raised."""
    found: list[BaseException | None] = [None] * tasks

    def client(task: int) -> Callable[[], None]:
        def run() -> None:
            try:
                database.put_many([(b"key %d" % task, b"1")], durability=durability)
            except Exception as error:
                found[task] = error

        return run

    spawn_all(env, *[client(task) for task in range(tasks)])
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("partial", [None, 40])
def test_without_room_every_member_is_told_and_nothing_is_applied(
    seed: int, partial: int | None
) -> None:
    machine = SimEnv(seed)
    env = FaultEnv(machine)
    database = open_database("/db", env=env, settings=ROOMY)
    database[b"before"] = b"1"
    database.put(b"unsynced", b"1", durability="none")
    seq = database.stats().last_seq
    env.add(
        FaultRule(
            kind="write",
            site="wal.record.write",
            error=errno.ENOSPC,
            times=None,
            partial=partial,
        )
    )
    errors = outcomes_of(env, database, 6)
    assert all(isinstance(error, DiskFullError) for error in errors)
    assert 6 == len({id(error) for error in errors}), "no two threads raise one object"
    stats = database.stats()
    assert (seq, False) == (stats.last_seq, stats.poisoned)
    assert {b"before", b"unsynced"} == set(database)
    env.clear()
    assert [None] * 6 == outcomes_of(env, database, 6)
    durable = CrashPoint(machine).state("none").build()
    with open_database("/db", env=durable) as after:
        assert 8 == len(after)
    database.close()


@pytest.mark.parametrize("site", ["wal.segment.link", "wal.record.write", "wal.end.write"])
def test_a_full_disk_while_the_log_changes_its_segment_is_no_reason_to_poison(site: str) -> None:
    machine = SimEnv()
    env = FaultEnv(machine)
    small = DatabaseSettings(wal_segment_bytes=4 << 10)
    database = open_database("/db", env=env, settings=small)
    env.add(FaultRule(kind="write", site=site, error=errno.ENOSPC, times=2, nth=3))
    refused = 0
    expected = {}
    for number in range(40):
        key = b"%02d" % number
        try:
            database[key] = b"x" * 1000
        except DiskFullError:
            refused += 1
            assert key not in database
        else:
            expected[key] = b"x" * 1000
    assert 2 == refused
    assert expected == dict(database.items())
    durable = CrashPoint(machine).state("none").build()
    with open_database("/db", env=durable) as after:
        assert expected == dict(after.items())
    database.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("site", ["wal.record.sync", "wal.record.write"])
def test_after_a_failed_sync_nothing_is_acknowledged_any_more(seed: int, site: str) -> None:
    machine = SimEnv(seed)
    env = FaultEnv(machine)
    database = open_database("/db", env=env, settings=ROOMY)
    for number in range(5):
        database[b"before %d" % number] = b"1"
    env.add(FaultRule(kind=site.rpartition(".")[2], site=site))
    errors = outcomes_of(env, database, 6)
    assert all(isinstance(error, DatabasePoisonedError) for error in errors)
    assert 1 == env.injected, "nothing is tried again on that file"
    assert database.stats().poisoned
    for durability in ("commit", "interval", "none"):
        with pytest.raises(DatabasePoisonedError):
            database.put(b"later", b"1", durability=durability)
    for call in (database.sync, database.flush, lambda: database.keyspace("new")):
        with pytest.raises(DatabasePoisonedError):
            call()
    assert 5 == len(database), "reads go on"
    assert b"1" == database[b"before 0"]
    assert [b"before 4"] == list(database.keys(reverse=True, limit=1))
    with pytest.raises(DatabasePoisonedError):
        database.close()
    for state in ("none", "all"):
        after = CrashPoint(machine).state(state).build()
        with open_database("/db", env=after) as reopened:
            assert {b"before %d" % number for number in range(5)} <= set(reopened)
            reopened[b"again"] = b"1"


def test_an_operation_that_cannot_be_applied_poisons(monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_database("/db", env=SimEnv(), settings=ROOMY)
    database[b"a"] = b"1"

    def fail(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(write_path, "apply_buffer", fail)
    with pytest.raises(MemoryError):
        database.put_many([(b"b", b"2")])
    monkeypatch.undo()
    with pytest.raises(DatabasePoisonedError):
        database[b"c"] = b"3"
    assert [(b"a", b"1")] == list(database.items())
    with pytest.raises(DatabasePoisonedError):
        database.close()


# --- the leadership


def test_exclusive_work_keeps_commits_and_fast_writes_out() -> None:
    env = SimEnv(3)
    database = open_database("/db", env=env, settings=ROOMY)
    path = database._engine.write_path
    order: list[str] = []

    def work() -> str:
        assert database.state.flags & BUSY
        order.append("begin")
        for _ in range(20):
            env.sleep(0.001)
        order.append("end")
        return "result"

    def commit(durability: str) -> Callable[[], None]:
        def run() -> None:
            while not order:
                env.sleep(0.0001)
            database.put(durability.encode(), b"1", durability=durability)
            order.append(durability)

        return run

    def exclusive() -> None:
        assert "result" == path.exclusive(work)

    spawn_all(env, exclusive, commit("commit"), commit("none"))
    assert ["begin", "end"] == order[:2]
    assert {"commit", "none"} == set(order[2:])
    assert not database.state.flags & BUSY
    database.close()


def test_an_error_of_exclusive_work_is_its_own() -> None:
    env = SimEnv(5)
    database = open_database("/db", env=env, settings=ROOMY)

    def fail() -> None:
        env.sleep(0.01)
        raise ZeroDivisionError

    def exclusive() -> None:
        with pytest.raises(ZeroDivisionError):
            database._engine.write_path.exclusive(fail)

    def commit() -> None:
        database[b"a"] = b"1"

    spawn_all(env, exclusive, commit, commit)
    assert b"1" == database[b"a"]
    database.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_commits_to_a_dropped_keyspace_fail_and_the_rest_of_the_group_does_not(seed: int) -> None:
    env = SimEnv(seed)
    database = open_database("/db", env=env, settings=ROOMY)
    doomed = database.keyspace("doomed")
    refused = []

    def write_doomed() -> None:
        for number in range(20):
            try:
                doomed.put(b"%d" % number, b"1", durability=["none", "commit"][number % 2])
            except DatabaseClosedError as error:
                refused.append(error)

    def write() -> None:
        for number in range(20):
            database[b"%d" % number] = b"1"

    def drop() -> None:
        env.sleep(0.001)
        database.drop_keyspace("doomed")

    spawn_all(env, write_doomed, write_doomed, write, drop)
    assert refused
    assert 20 == len(database)
    assert ["default"] == database.keyspaces()
    database.close()
    with open_database("/db", env=env) as database:
        assert 20 == len(database)


def test_a_batch_over_two_keyspaces_is_whole_or_absent_after_every_crash() -> None:
    """The default keyspace is flushed while the other is not, so they come back on two ways."""
    env = SimEnv(2)
    database = open_database("/db", env=env, settings=ROOMY)
    other = database.keyspace("other")
    points: list[CrashPoint] = []
    env.observer = lambda _: points.append(CrashPoint(env))
    for number in range(6):
        batch = write_path.WriteBatch()
        batch.put(database.id, b"%d" % number, b"x")
        batch.put(other.id, b"%d" % number, b"x")
        how = "commit" if number % 2 else "none"
        database._engine.write_path.commit(batch, how, frozenset((database.id, other.id)))
        if number % 3 == 1:
            other.flush()
    env.observer = None
    database.close()
    assert len(points) > 10
    for point in points:
        for name in ("none", "all"):
            with open_database("/db", env=point.state(name).build()) as after:
                assert list(after.items()) == list(after.keyspace("other").items())


def test_the_log_holds_the_operations_of_a_batch_in_order() -> None:
    env = SimEnv()
    with open_database("/db", env=env, settings=ROOMY) as database:
        database.put_many([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
        assert [[[b"a", b"b", b"a"]]] == log_of(env)
        assert b"3" == database[b"a"]


@pytest.mark.parametrize(("failures", "when"), [(1, "before"), (1, "after"), (2, "before")])
def test_want_of_memory_behind_the_log_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failures: int, when: str
) -> None:
    """What was not applied in full before the failure is applied again, and counts once."""
    env = SimEnv()
    database = open_database("/db", env=env, settings=ROOMY)
    database.put_many({b"a": b"0", b"b": b"0", b"c": b"0"})
    apply, left = write_path.apply_buffer, failures

    def fail(*arguments: object) -> int:
        nonlocal left
        if when == "after":
            apply(*arguments)  # type: ignore[arg-type]  # what it is given
        if left > 0:
            left -= 1
            raise MemoryError
        return apply(*arguments)  # type: ignore[arg-type]  # what it is given

    batch = write_path.WriteBatch()
    batch.put(database.id, b"a", b"1")
    batch.delete_range(database.id, b"b", b"c")
    batch.delete(database.id, b"c")
    batch.put(database.id, b"d", b"1")
    monkeypatch.setattr(write_path, "apply_buffer", fail)
    wanted = {b"a": b"1", b"d": b"1"}
    if failures == 1:
        database._engine.write_path.commit(batch, None, (database.id,))
        assert ("engine.applied_again" in marks_seen()) == (when == "before")
        assert wanted == dict(database.items())
        database.flush()
        assert wanted == dict(database.items())
        assert database.verify().ok
        database.close()
    else:
        with pytest.raises(MemoryError):
            database._engine.write_path.commit(batch, None, (database.id,))
        assert database.stats().poisoned
        with pytest.raises(DatabasePoisonedError):
            database.close()
    monkeypatch.undo()
    with open_database("/db", env=env) as database:
        assert wanted == dict(database.items())


def test_a_commit_on_a_machine_without_power_ends() -> None:
    """Each step of its way out of the queue is cut off, too."""
    env = FaultEnv(SimEnv(1))
    database = open_database("/db", settings=ROOMY, env=env)

    def cut(call: Callable[[], object], file: object) -> None:
        env.inner.cut_power()
        call()

    env.add(FaultRule(kind="sync", site="wal.record.sync", error=None, effect=cut))
    with pytest.raises(SimCrash):
        database[b"key"] = b"value"
