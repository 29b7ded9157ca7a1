"""`db.changes`: what was committed, in order, across restarts, as long as the log is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

import holdfast
from holdfast import ChangesGoneError, DatabaseSettings, KeyspaceSettings, Operation
from holdfast.engine import open_database
from holdfast.env import CrashPoint, SimEnv

SETTINGS = DatabaseSettings(
    wal_keep_bytes=1 << 20,
    wal_segment_bytes=4096,
    wal_bytes_max=16 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=8192),
)


def opened(machine, settings=None, **named):
    return open_database("/db", env=machine, settings=settings, **named)


def put(key, value, keyspace="default"):
    return Operation("put", keyspace, key, value)


def fill(db, first, count):
    """Write so much that memtables are flushed and segments change."""
    for number in range(first, first + count):
        db[b"%04d" % number] = b"x" * 100


def test_each_batch_comes_once_and_whole():
    with opened(SimEnv(1), SETTINGS) as db:
        assert list(db.changes()) == []
        db[b"a"] = b"1"
        db.put_many([(b"b", b"2"), (b"c", b"3")])
        other = db.keyspace("other")
        other[b"a"] = b"4"
        del db[b"a"]
        other.delete_range(b"a", b"z")
        found = list(db.changes())
        assert [change.seq for change in found] == [1, 3, 4, 5, 6]
        assert [change.operations for change in found] == [
            (put(b"a", b"1"),),
            (put(b"b", b"2"), put(b"c", b"3")),
            (put(b"a", b"4", "other"),),
            (Operation("delete", "default", b"a", None),),
            (Operation("delete_range", "other", b"a", b"z"),),
        ]
        for place, change in enumerate(found):
            assert list(db.changes(change.seq)) == found[place + 1 :]
        # In the middle of a batch: it comes whole.
        assert list(db.changes(2)) == found[1:]
        db.drop_keyspace("other")
        assert [op.keyspace for change in db.changes(3) for op in change.operations] == [
            None, "default", None,
        ]  # fmt: skip


def test_changes_outlive_flushes_segments_and_restarts():
    machine = SimEnv(2)
    expected = []
    for life in range(4):
        with opened(machine, SETTINGS) as db:
            fill(db, life * 100, 100)
            expected += [
                (put(b"%04d" % n, b"x" * 100),) for n in range(life * 100, life * 100 + 100)
            ]
            found = list(db.changes())
            assert [change.operations for change in found] == expected
            assert db.verify().ok
            assert len([name for name in machine.list_dir("/db") if name.endswith(".wal")]) > 4
    with opened(machine, read_only=True) as db:
        assert list(db.changes()) == found
        assert list(db.changes(found[-3].seq)) == found[-2:]


def test_a_life_that_begins_with_an_end_record_hides_no_earlier_one():
    """A first record that is longer than a new life's first segment: that one holds its END only,
    which counts operations from 1 again.
    """
    machine = SimEnv()
    settings = DatabaseSettings(wal_keep_bytes=1 << 20, wal_segment_bytes=64 << 10)
    for life in range(3):
        with opened(machine, settings) as db:
            db[b"%d" % life] = bytes(100 << 10)
            found = [change.seq for change in db.changes(0)]
            assert found == list(range(1, life + 2))


def test_an_iterator_that_follows_gets_what_comes():
    machine = SimEnv(3)
    db = opened(machine, SETTINGS)
    feed = db.changes(follow=True)
    for number in range(300):
        db[b"%04d" % number] = b"x" * 100
        assert next(feed).operations == (put(b"%04d" % number, b"x" * 100),)
    db.close()
    with pytest.raises(holdfast.DatabaseClosedError):
        next(feed)


def test_one_that_waits_gets_what_another_thread_writes():
    machine = SimEnv(4)
    with opened(machine, SETTINGS) as db:
        feed = db.changes(follow=True)

        def write():
            machine.sleep(0.2)
            db[b"late"] = b"1"

        task = machine.spawn("writer", write)
        assert next(feed).operations == (put(b"late", b"1"),)
        task.join()


def test_only_what_is_durable_is_shown():
    machine = SimEnv(5)
    with opened(machine, SETTINGS) as db:
        db[b"a"] = b"1"
        db.put(b"b", b"2", durability="none")
        assert [change.seq for change in db.changes()] == [1]
        db.sync()
        assert [change.seq for change in db.changes()] == [1, 2]


def test_what_a_crash_took_is_not_shown_and_what_follows_is():
    """The next life gives the same numbers again; the feed shows those that are there."""
    machine = SimEnv(6)
    db = opened(machine, SETTINGS)
    fill(db, 0, 50)
    db.put(b"lost", b"1", durability="none")
    point = CrashPoint(machine)
    machine.cut_power()
    machine = point.state("none").build()
    with opened(machine) as db:
        assert b"lost" not in db
        before = list(db.changes())
        assert len(before) == 50
        db[b"new"] = b"2"
        assert [change.operations for change in db.changes(before[-1].seq)] == [
            (put(b"new", b"2"),)
        ]
        assert list(db.changes())[:50] == before


def test_without_a_kept_log_old_changes_are_gone():
    machine = SimEnv(7)
    with opened(machine, replace(SETTINGS, wal_keep_bytes=0)) as db:
        fill(db, 0, 300)
        db.flush()
        newest = db.stats().last_seq
        assert list(db.changes(newest)) == []
        with pytest.raises(ChangesGoneError, match="the log does not hold"):
            list(db.changes())
        snapshot = db.snapshot()
        db[b"more"] = b"1"
        assert [change.operations for change in db.changes(snapshot.seq)] == [(put(b"more", b"1"),)]
        snapshot.close()


def test_the_kept_log_stays_within_its_bytes():
    machine = SimEnv(8)
    kept = replace(SETTINGS, wal_keep_bytes=5 * 4096)
    for life in range(3):
        with opened(machine, kept) as db:
            fill(db, life * 300, 300)
            db.flush()
            # Those that are kept, the one in use and the next one, which is prepared.
            names = [name for name in machine.list_dir("/db") if name.endswith(".wal")]
            assert len(names) <= 5 + 2 + 4
            newest = db.stats().last_seq
            assert len(list(db.changes(newest - 20))) == 20
            with pytest.raises(ChangesGoneError):
                list(db.changes(newest - 290))


def test_damage_of_a_kept_segment_is_an_error_of_the_feed_and_of_verify():
    machine = SimEnv(9)
    with opened(machine, SETTINGS) as db:
        fill(db, 0, 200)
        db.flush()
        names = sorted(name for name in machine.list_dir("/db") if name.endswith(".wal"))
        path = f"/db/{names[2]}"
        file = machine.open(path)
        data = bytearray(file.read_at(0, file.size()))
        file.close()
        data[-1200] ^= 4
        machine.unlink(path, site="test")
        file = machine.create(path, site="test")
        file.write_at(0, data, site="test")
        file.close()
    with opened(machine) as db:
        with pytest.raises(holdfast.CorruptionError) as caught:
            list(db.changes())
        assert caught.value.file == f"/db/{names[2]}"
        assert [error.file for error in db.verify().errors] == [f"/db/{names[2]}"]
        assert db[b"0199"] == b"x" * 100


def test_arguments_are_checked():
    with opened(SimEnv(10), SETTINGS) as db:
        db[b"a"] = b"1"
        with pytest.raises(TypeError, match="a sequence number is an int"):
            db.changes("1")
        with pytest.raises(ValueError, match="since is 2; the sequence numbers are 0 to 1"):
            db.changes(2)
        with pytest.raises(ValueError, match="since is -1"):
            db.changes(-1)
    with pytest.raises(holdfast.DatabaseClosedError):
        db.changes()
