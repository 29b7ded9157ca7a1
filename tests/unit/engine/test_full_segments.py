"""Goal: unsynced writes do not wait for the sync of a full segment of the log, and lose nothing
that they did not risk before.

Method: a simulated machine whose sync of a full segment lets the test write in its middle; faults
and a power cut there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import count

import pytest

import holdfast
from holdfast.base import (
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    KeyspaceSettings,
    marks_seen,
)
from holdfast.engine import Database, open_database
from holdfast.engine.engine import BUFFER_BYTES_MAX
from holdfast.engine.write_path import HELD_FACTOR
from holdfast.env import FaultEnv, FaultRule, SimEnv, crash_states

SETTINGS = DatabaseSettings(
    memory_bytes=64 << 20,
    wal_segment_bytes=1 << 20,
    wal_bytes_max=64 << 20,
    keyspace=KeyspaceSettings(memtable_bytes=16 << 20),
)
VALUE = bytes(30_000)


class Rows:
    """A database, and what was put into it."""

    def __init__(self, env: FaultEnv) -> None:
        self.env = env
        self.database: Database = open_database("/db", settings=SETTINGS, env=env)
        self.log = self.database._engine.write_path._log
        self.keys: list[bytes] = []
        self._numbers = count()

    def put(self, durability: str | None = "none") -> None:
        key = b"%06d" % next(self._numbers)
        self.database.put(key, VALUE, durability=durability)
        self.keys.append(key)

    def at_end_sync(self, work: Callable[[], object]) -> None:
        """Do `work` at the next sync of a full segment, behind it and before it returns."""

        def effect(call: Callable[[], object], file: object) -> None:
            call()
            work()

        self.env.add(FaultRule(kind="sync", site="wal.end.sync", error=None, effect=effect))

    def fill(self) -> None:
        """Put rows until a segment is full, and what waits for its sync is in the log."""
        before = len(self.log.segments())
        while len(self.log.segments()) == before:
            self.put()
            self.database._engine.upkeep.wait_idle()

    def check(self) -> None:
        assert [key for key, _ in self.database.items()] == sorted(self.keys)
        self.database.put(b"last", b"1")
        self.keys.append(b"last")
        assert self.database.verify().ok
        self.database.close()
        assert not self.env.inner.unreturned()
        with open_database("/db", env=self.env.inner) as again:
            assert [key for key, _ in again.items()] == sorted(self.keys)


@pytest.fixture
def rows() -> Rows:
    return Rows(FaultEnv(SimEnv(1)))


def test_writes_stay_in_the_buffer_while_a_full_segment_is_synced(rows: Rows) -> None:
    seen: list[tuple[int, int]] = []

    def write() -> None:
        before = rows.log.written_lsn
        for _ in range(3 * BUFFER_BYTES_MAX // len(VALUE)):
            rows.put()
        state = rows.database._engine.state
        seen.append((rows.log.written_lsn - before, state.buffer.size))
        assert rows.database[rows.keys[-1]] == VALUE

    rows.at_end_sync(write)
    rows.fill()
    [(appended, buffered)] = seen
    assert appended == 0
    assert buffered > 3 * BUFFER_BYTES_MAX - len(VALUE)
    # The thread that synced logs what is more than usual; nobody has to write for that.
    assert rows.database._engine.state.buffer.size <= BUFFER_BYTES_MAX
    assert marks_seen()["engine.segment_left"]
    rows.check()


def test_a_buffer_that_is_too_large_waits_for_the_disk(rows: Rows) -> None:
    sizes: list[int] = []

    def write() -> None:
        before = rows.log.written_lsn
        while rows.log.written_lsn == before:
            sizes.append(rows.database._engine.state.buffer.size)
            rows.put()

    rows.at_end_sync(write)
    rows.fill()
    assert HELD_FACTOR * BUFFER_BYTES_MAX // 2 < max(sizes) <= HELD_FACTOR * BUFFER_BYTES_MAX
    rows.check()


def test_a_durable_write_in_the_middle_is_durable(rows: Rows) -> None:
    found: list[list[bytes]] = []

    def write() -> None:
        rows.put()
        rows.put(durability=None)
        for state in crash_states(rows.env.inner, ["none"]):
            with open_database("/db", env=state.build()) as after:
                found.append([key for key, _ in after.items()])
        assert found == [rows.keys]

    rows.at_end_sync(write)
    rows.fill()
    assert found
    rows.check()


def test_a_crash_in_the_middle_leaves_a_beginning(rows: Rows) -> None:
    found: list[list[bytes]] = []

    def write() -> None:
        synced = len(rows.keys)
        for _ in range(20):
            rows.put()
        for state in crash_states(rows.env.inner, ["none"]):
            with open_database("/db", env=state.build()) as after:
                found.append([key for key, _ in after.items()])
        assert all(rows.keys[: len(keys)] == keys for keys in found)
        assert all(0 < len(keys) < synced for keys in found)

    rows.at_end_sync(write)
    rows.fill()
    assert found
    rows.check()


def test_a_failed_sync_of_a_full_segment_stops_writing(rows: Rows) -> None:
    rows.env.add(FaultRule(kind="sync", site="wal.end.sync", error=errno.EIO))
    with pytest.raises(DatabasePoisonedError):
        while True:
            rows.put()
            rows.database._engine.upkeep.wait_idle()
    rows.env.clear()
    assert rows.database.stats().poisoned
    with pytest.raises(DatabasePoisonedError):
        rows.database.close()
    with open_database("/db", env=rows.env.inner) as again:
        found = [key for key, _ in again.items()]
    assert found == rows.keys[: len(found)]


@pytest.mark.parametrize("site", ["wal.end.write", "wal.segment.allocate"])
def test_a_full_disk_loses_nothing(rows: Rows, site: str) -> None:
    rows.env.add(FaultRule(site=site, error=errno.ENOSPC, times=None))
    with pytest.raises(DiskFullError):
        while True:
            rows.put()
            rows.database._engine.upkeep.wait_idle()
    rows.env.clear()
    rows.fill()
    rows.check()


@pytest.mark.parametrize("error", [MemoryError, RuntimeError("can't start new thread")])
def test_without_another_thread_the_writer_syncs_itself(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    upkeep = rows.database._engine.upkeep
    submit = upkeep.submit

    def refuse(lane: str, key: object, job: Callable[[], None]) -> None:
        if key == "leave":
            raise error
        submit(lane, key, job)

    monkeypatch.setattr(upkeep, "submit", refuse)
    rows.fill()
    assert marks_seen()["engine.segment_left_in_a_commit"]
    assert rows.database._engine.state.buffer_bytes_max == BUFFER_BYTES_MAX
    rows.check()


def test_an_interruption_while_another_thread_is_asked_takes_nothing(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = rows.database._engine.upkeep
    submit = upkeep.submit

    def interrupt(lane: str, key: object, job: Callable[[], None]) -> None:
        if key == "leave":
            raise KeyboardInterrupt
        submit(lane, key, job)

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "submit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rows.fill()
    assert rows.database._engine.state.buffer_bytes_max == BUFFER_BYTES_MAX
    rows.fill()
    rows.check()


def test_a_close_in_the_middle_logs_everything(rows: Rows) -> None:
    begun: list[bool] = []

    def write() -> None:
        begun.append(True)
        rows.put()

    rows.at_end_sync(write)
    while not begun:
        rows.put()
        # Others run: it is not left to the thread that puts.
        rows.env.sleep(0.001)
    assert marks_seen()["engine.segment_left"]
    rows.check()


def test_an_encrypted_log_is_left_alike() -> None:
    machine = SimEnv(2)
    key = bytes(range(32))
    with open_database("/db", settings=SETTINGS, env=machine, key=key) as database:
        for number in range(200):
            database.put(b"%06d" % number, VALUE, durability="none")
    assert marks_seen()["engine.segment_left"]
    with holdfast.open("/db", env=machine, key=key) as database:
        assert len(database) == 200
        assert database.verify().ok
