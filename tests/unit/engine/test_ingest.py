"""Goal: an ingest is one durable commit, whole or absent, newer than everything before it.

Method: small settings, so that an ingest makes several tables; every failure that a caller can
bring about; and threads that read, write and compact beside it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.base import (
    ChangesGoneError,
    DatabaseClosedError,
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    KeyspaceSettings,
    LimitError,
    ReadOnlyError,
)
from holdfast.engine import Database, open_database
from holdfast.env import CrashPoint, FaultEnv, FaultRule, SimEnv

TINY = DatabaseSettings(
    memory_bytes=1 << 20,
    keyspace=KeyspaceSettings(
        memtable_bytes=64 << 10, page_bytes=256, table_bytes=4 << 10, level1_bytes=64 << 10
    ),
)


def rows(first: int, last: int, word: bytes = b"new") -> list[tuple[bytes, bytes]]:
    return [(b"key/%05d" % number, word + b" %d" % number * 9) for number in range(first, last)]


def table_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".table"}


def named_tables(database: Database) -> set[str]:
    version = database._engine.version
    return {f"{number:08d}.table" for number in version.table_numbers()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def db(folder: Path) -> Iterator[Database]:
    with holdfast.open(folder, settings=TINY) as database:
        yield database


def test_rows_are_there_at_once_and_after_reopening(db: Database, folder: Path) -> None:
    assert db.ingest(rows(0, 900)) == 900
    assert list(db.items()) == rows(0, 900)
    assert len(named_tables(db)) > 3
    assert db.verify().ok
    db.close()
    with holdfast.open(folder) as again:
        assert list(again.items(reverse=True)) == rows(0, 900)[::-1]
        assert [again[key] for key, _ in rows(0, 900)] == [value for _, value in rows(0, 900)]
        again.compact()
        assert list(again.items()) == rows(0, 900)
        assert again.verify().ok


def test_the_pairs_may_be_a_mapping_or_bytes_like(db: Database) -> None:
    assert db.ingest({b"a": b"1", b"b": b"2"}) == 2
    assert db.keyspace("other").ingest([(bytearray(b"c"), memoryview(b"3"))]) == 1  # type: ignore[list-item]
    assert dict(db.items()) == {b"a": b"1", b"b": b"2"}
    assert dict(db.keyspace("other").items()) == {b"c": b"3"}


def test_it_is_newer_than_what_was_written_and_older_than_what_follows(db: Database) -> None:
    db.put_many(rows(0, 50, b"old"))
    db.flush()
    db.put_many(rows(20, 60, b"mid"))
    db.delete_range(b"key/00040", b"key/00070")
    db.ingest(rows(10, 45))
    db[rows(12, 13)[0][0]] = b"last"
    db.delete_range(b"key/00030", b"key/00033")
    expected = dict([*rows(0, 10, b"old"), *rows(10, 45)])
    expected |= {b"key/00012": b"last"}
    for number in range(30, 33):
        del expected[b"key/%05d" % number]
    assert dict(db.items()) == expected
    for step in (db.flush, db.compact):
        step()
        assert dict(db.items()) == expected


def test_a_snapshot_before_it_sees_nothing_of_it(db: Database) -> None:
    db.put_many(rows(0, 30, b"old"))
    cursor = db.items()
    with db.snapshot() as before:
        db.ingest(rows(10, 600))
        with db.snapshot() as after:
            db.put_many(rows(0, 20, b"later"))
            for _ in range(2):
                assert list(before.items()) == rows(0, 30, b"old")
                assert before.get(b"key/00599") is None
                assert list(after.items()) == [*rows(0, 10, b"old"), *rows(10, 600)]
                db.compact()
        assert list(cursor) == rows(0, 30, b"old")
    assert db[b"key/00019"] == rows(19, 20, b"later")[0][1]


def test_rows_are_seen_where_scans_noted_that_nothing_is(db: Database) -> None:
    db.put_many(rows(0, 300, b"old"))
    for key, _ in rows(10, 290):
        db.delete(key, durability="none")
    with db.snapshot() as before:
        for _ in range(2):
            assert len(list(db.items())) == len(list(db.items(reverse=True))) == 20
        assert len(db._engine.trees[0].active.gaps) > 0
        db.ingest(rows(100, 102))
        for _ in range(2):
            # Its scan must not note what only it does not see.
            assert len(list(before.items())) == len(list(before.items(reverse=True))) == 20
            expected = [*rows(0, 10, b"old"), *rows(100, 102), *rows(290, 300, b"old")]
            assert list(db.items()) == expected
            assert list(db.items(reverse=True)) == expected[::-1]


def test_the_feed_of_changes_says_that_it_lacks_them(folder: Path) -> None:
    with holdfast.open(folder, settings=replace(TINY, wal_keep_bytes=1 << 20)) as database:
        database[b"a"] = b"1"
        since = database.stats().last_seq
        database.ingest(rows(0, 9))
        with pytest.raises(ChangesGoneError):
            list(database.changes(since=since))
        start = database.stats().last_seq
        assert not list(database.changes(since=start))
        database[b"b"] = b"2"
        with pytest.raises(ChangesGoneError):
            list(database.changes(since=since))
        (change,) = database.changes(since=start)
        assert [operation.key for operation in change.operations] == [b"b"]


def test_what_a_crash_finds_is_durable() -> None:
    """Also what was written without durability before it."""
    env = SimEnv()
    database = open_database("/db", env=env, settings=TINY)
    database.put(b"before", b"1", durability="none")
    database.keyspace("other").put(b"before", b"2", durability="none")
    database.ingest(rows(0, 300))
    machine = CrashPoint(env).state("none").build()
    with open_database("/db", env=machine) as found:
        assert list(found.items()) == [(b"before", b"1"), *rows(0, 300)]
        assert found.keyspace("other")[b"before"] == b"2"
        assert found.verify().ok
    database.close()


def nothing(database: Database, folder: Path) -> None:
    """Nothing of an ingest is there."""
    assert list(database.items()) == rows(0, 9, b"old")
    assert table_files(folder) == named_tables(database)
    assert database.verify().ok
    database[b"usable"] = b""
    del database[b"usable"]


class OwnError(OSError):
    """An error that only the iterable knows."""


ENDINGS: list[tuple[BaseException | tuple[Any, Any], type[BaseException], str]] = [
    ((b"key/00005", b""), ValueError, "b'key/00005' stands behind b'key/00799'"),
    ((b"key/00799", b""), ValueError, "b'key/00799' stands behind b'key/00799'"),
    ((b"z" * 65_537, b""), LimitError, "the key has 65537 bytes"),
    (("z", b""), TypeError, "encode it first"),
    ((b"z", 5), TypeError, "a value is bytes-like"),
    (OwnError(28, "no space, says the iterable"), OwnError, "no space, says the iterable"),
    (KeyError("x"), KeyError, "x"),
    (MemoryError("of the iterable"), MemoryError, "of the iterable"),
    (KeyboardInterrupt("x"), KeyboardInterrupt, "x"),
    (DiskFullError("of another database"), DiskFullError, "of another database"),
]


@pytest.mark.parametrize(("ending", "kind", "text"), ENDINGS)
def test_a_failure_of_the_pairs_changes_nothing(
    db: Database, folder: Path, ending: Any, kind: type[BaseException], text: str
) -> None:
    def pairs() -> Iterator[tuple[bytes, bytes]]:
        yield from rows(0, 800)
        if isinstance(ending, BaseException):
            try:
                raise RuntimeError("the cause")
            except RuntimeError as cause:
                raise ending from cause
        yield ending

    db.put_many(rows(0, 9, b"old"))
    with pytest.raises(kind, match=text) as caught:
        db.ingest(pairs())
    if isinstance(ending, BaseException):
        assert caught.value is ending
        assert str(caught.value.__cause__) == "the cause"
    nothing(db, folder)
    assert not db.stats().poisoned


class Unready:
    """An iterable that fails before its first pair, as one whose file is not there."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        raise self.error


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "no such file"), OwnError(28, "no space"), KeyError("x")]
)
def test_pairs_that_cannot_begin_change_nothing(
    db: Database, folder: Path, error: Exception
) -> None:
    db.put_many(rows(0, 9, b"old"))
    with pytest.raises(type(error)) as caught:
        db.ingest(Unready(error))
    assert caught.value is error
    assert not db.stats().poisoned
    nothing(db, folder)


def test_nothing_is_nothing(db: Database, folder: Path) -> None:
    before = db.stats().last_seq
    assert db.ingest(iter(())) == 0
    assert (db.stats().last_seq, db.stats().ingests, table_files(folder)) == (before, 0, set())
    with pytest.raises(TypeError, match="not iterable"):
        db.ingest(5)  # type: ignore[arg-type]


def test_who_cannot_write_cannot_ingest(db: Database, folder: Path) -> None:
    asked = []

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        asked.append(1)
        yield b"a", b""

    db.close()
    with pytest.raises(DatabaseClosedError):
        db.ingest(pairs())
    with holdfast.open(folder, read_only=True) as reader, pytest.raises(ReadOnlyError):
        reader.ingest(pairs())
    assert not asked


def test_the_pairs_may_come_from_the_database_and_use_it(db: Database) -> None:
    db.put_many(rows(0, 400, b"old"))
    other = db.keyspace("other")

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        for key, value in db.items():
            if key.endswith(b"00"):
                # Newer than the iterator, older than the ingest.
                db[key] = b"between"
                db[b"a" + key] = b"between"
                db.flush()
                assert other.ingest([(key, b"inner")]) == 1
            yield key, value.upper()

    assert db.ingest(pairs()) == 400
    assert not db._engine.compacting
    hundreds = [b"key/%05d" % number for number in range(0, 400, 100)]
    upper = {key: value.upper() for key, value in rows(0, 400, b"old")}
    assert dict(db.items()) == upper | {b"a" + key: b"between" for key in hundreds}
    assert dict(other.items()) == dict.fromkeys(hundreds, b"inner")


def test_a_keyspace_that_is_dropped_meanwhile_takes_nothing(db: Database, folder: Path) -> None:
    db.put_many(rows(0, 9, b"old"))
    other = db.keyspace("other")

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        yield from rows(0, 300)
        db.drop_keyspace("other")

    with pytest.raises(DatabaseClosedError):
        other.ingest(pairs())
    db.flush()
    nothing(db, folder)


@pytest.mark.parametrize("by_itself", [False, True])
def test_a_close_ends_it(folder: Path, by_itself: bool) -> None:
    database = holdfast.open(folder, settings=TINY)
    database[b"a"] = b"1"
    begun, failures = threading.Event(), []

    def pairs() -> Iterator[tuple[bytes, bytes]]:
        number = 0
        while True:
            yield b"key/%09d" % number, b""
            number += 1
            if number == 500:
                begun.set()
                if by_itself:
                    database.close()

    def run() -> None:
        try:
            database.ingest(pairs())
        except DatabaseClosedError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    database.close()
    thread.join()
    assert len(failures) == 1
    with holdfast.open(folder) as again:
        assert dict(again.items()) == {b"a": b"1"}
        assert table_files(folder) == named_tables(again)


def test_it_is_counted(db: Database) -> None:
    pairs = rows(0, 700)
    db.put_many(rows(0, 10, b"old"))
    before = db.stats()
    db.ingest(pairs)
    stats = db.stats()
    user = sum(len(key) + len(value) for key, value in pairs)
    assert stats.user_bytes_written - before.user_bytes_written == user
    assert (stats.ingests, stats.writes - before.writes) == (1, 700)
    tables = [info for _, info in db._engine.trees[0].version.tables()]
    ingested = [info.size_bytes for info in tables if info.seq_min == stats.last_seq]
    assert sum(ingested) == stats.ingested_bytes > 0
    written = stats.wal_bytes_written + stats.flushed_bytes + stats.compacted_bytes_written
    assert stats.write_amplification == pytest.approx(
        (written + stats.ingested_bytes) / stats.user_bytes_written
    )


def test_all_rows_have_the_next_number(db: Database) -> None:
    db.put_many(rows(0, 5))
    before = db.stats().last_seq
    db.ingest(rows(0, 900))
    assert db.stats().last_seq == before + 1
    db[b"x"] = b""
    assert db.stats().last_seq == before + 2


SHORT = [("create", "ingest.write.create"), ("write", "ingest.write.append"),
         ("sync_dir", "ingest.folder_sync"), ("write", "manifest.edit.write")]  # fmt: skip


@pytest.mark.parametrize(("kind", "site"), SHORT)
def test_no_room_leaves_nothing(kind: str, site: str) -> None:
    machine = SimEnv()
    fault = FaultRule(kind=kind, site=site, error=errno.ENOSPC)
    env = FaultEnv(machine, [])
    database = open_database("/db", env=env, settings=TINY)
    database.put_many(rows(0, 9, b"old"))
    database.flush()
    env.add(fault)
    if kind == "sync_dir":
        # A sync that fails is in doubt, whatever it says.
        with pytest.raises((DatabasePoisonedError, DiskFullError)):
            database.ingest(rows(0, 300))
    else:
        with pytest.raises(DiskFullError):
            database.ingest(rows(0, 300))
    assert list(database.items()) == rows(0, 9, b"old")
    tables = {name for name in machine.list_dir("/db") if name.endswith(".table")}
    assert tables == named_tables(database)
    if not database.stats().poisoned:
        assert database.ingest(rows(0, 300)) == 300
        assert list(database.items()) == rows(0, 300)
        database.close()


@pytest.mark.parametrize("site", ["ingest.write.sync", "ingest.folder_sync", "manifest.edit.sync"])
def test_a_failed_sync_poisons(site: str) -> None:
    machine = SimEnv()
    env = FaultEnv(machine, [])
    database = open_database("/db", env=env, settings=TINY)
    database.put_many(rows(0, 9, b"old"))
    database.flush()
    env.add(FaultRule(site=site))
    with pytest.raises(DatabasePoisonedError):
        database.ingest(rows(0, 300))
    assert list(database.items()) == rows(0, 9, b"old")
    with pytest.raises(DatabasePoisonedError):
        database[b"a"] = b""
    with pytest.raises(DatabasePoisonedError):
        database.ingest([])
    with pytest.raises(DatabasePoisonedError):
        database.close()
    with open_database("/db", env=machine) as again:
        found = list(again.items())
        assert found in (rows(0, 9, b"old"), rows(0, 300))
        assert site == "manifest.edit.sync" or found == rows(0, 9, b"old")


def test_readers_writers_and_compactions_beside_it(db: Database) -> None:
    """Every ingest gives all keys of its range one word; whoever looks sees one word in all."""
    count, turns = 120, 12
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Any) -> Any:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                failures.append(error)
                stop.set()

        return run

    def look() -> None:
        with db.snapshot() as view:
            words = {value.split()[0] for _, value in view.items(b"key/", b"key0")}
            again = {value.split()[0] for _, value in view.items(b"key/", b"key0", reverse=True)}
        assert len(words) == 1, words
        assert words == again

    numbers = iter(range(1_000_000))

    def write() -> None:
        number = next(numbers)
        db.put(b"other/%d" % (number % 50), b"%d" % number * 20, durability="none")
        assert db[b"other/%d" % (number % 50)] == b"%d" % number * 20

    db.ingest(rows(0, count, b"0"))
    threads = [threading.Thread(target=guarded(work)) for work in (look, write, db.compact)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, turns):
            db.ingest(rows(0, count, b"%d" % turn))
            assert db[b"key/00007"] == rows(7, 8, b"%d" % turn)[0][1]
            if stop.is_set():
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]
    assert db.verify().ok
    assert list(db.items(b"key/", b"key0")) == rows(0, count, b"%d" % (turns - 1))


@pytest.mark.parametrize("compaction", ["leveled", "size-tiered", "time-window", "fifo"])
def test_every_strategy_takes_them(folder: Path, compaction: str) -> None:
    settings = DatabaseSettings(
        memory_bytes=1 << 20,
        keyspace=KeyspaceSettings(
            memtable_bytes=64 << 10, page_bytes=256, table_bytes=4 << 10, level0_tables=2,
            level1_bytes=16 << 10, compaction=compaction, window_seconds=100, key_time_unit="s",
        ),
    )  # fmt: skip

    def pairs(first: int, last: int, word: bytes) -> list[tuple[bytes, bytes]]:
        return [(time.to_bytes(8, "big"), word * 40) for time in range(first, last)]

    expected: dict[bytes, bytes] = {}
    with holdfast.open(folder, settings=settings) as database:
        for turn, (first, last) in enumerate(
            [(1000, 1500), (1600, 1700), (1450, 1650), (0, 900), (1000, 1001), (2000, 2400)]
        ):
            new = pairs(first, last, b"%d" % turn)
            assert database.ingest(new) == len(new)
            database.put_many(put := pairs(first, last, b"p")[::7])
            expected.update(new)
            expected.update(put)
            assert dict(database.items()) == expected
            database.flush()
            assert database.verify().ok
        database._engine.upkeep.wait_idle()
        assert dict(database.items()) == expected
        assert database.stats().background_error is None
    with holdfast.open(folder) as database:
        assert dict(database.items()) == expected
        database.compact()
        assert dict(database.items()) == expected
