"""Goal: a snapshot shows one moment of the whole database, however often it is flushed, compacted
and written over, and holds back no more than it must.
"""

from __future__ import annotations

import gc

import pytest

from holdfast.base import DatabaseClosedError
from holdfast.engine import Database, open_database
from holdfast.env import SimEnv
from tests.model.strategies import tiny


def opened() -> Database:
    return open_database("/db", env=SimEnv(), settings=tiny())


def churn(database: Database, round_: int) -> None:
    """Write over everything, often enough that it goes through several levels."""
    for number in range(30):
        database.put(b"k%02d" % number, b"%d" % round_ + b"x" * 400, durability="none")
    database.compact()


def test_a_snapshot_stays_while_everything_is_rewritten() -> None:
    with opened() as database:
        snapshots = []
        for round_ in range(4):
            churn(database, round_)
            snapshots.append(database.snapshot())
        database.clear()
        database.compact()
        assert 0 == len(database)
        for round_, snapshot in enumerate(snapshots):
            assert 30 == len(snapshot)
            assert {b"%d" % round_} == {value[:1] for value in snapshot.values()}
            assert b"%d" % round_ == snapshot[b"k00"][:1]
            assert [b"k29", b"k28"] == list(snapshot.keys(reverse=True, limit=2))
            snapshot.close()
        database.compact()
        assert 0 == database.stats().table_bytes


def test_what_only_a_closed_snapshot_saw_is_dropped() -> None:
    with opened() as database:
        churn(database, 0)
        snapshot = database.snapshot()
        churn(database, 1)
        held = database.stats().table_bytes
        snapshot.close()
        churn(database, 2)
        assert database.stats().table_bytes < held * 2 // 3
        assert 0 == database.stats().snapshots


def test_a_snapshot_without_an_owner_holds_nothing_back() -> None:
    with opened() as database:
        churn(database, 0)
        snapshot = database.snapshot()
        assert 1 == database.stats().snapshots
        with pytest.warns(ResourceWarning, match="a snapshot of .* was never closed"):
            del snapshot
            gc.collect()
        assert 0 == database.stats().snapshots


def test_a_snapshot_covers_all_keyspaces_at_one_moment() -> None:
    with opened() as database:
        other = database.keyspace("other")
        other[b"a"] = b"old"
        database[b"a"] = b"old"
        with database.snapshot() as snapshot:
            other[b"a"] = b"new"
            del database[b"a"]
            assert b"old" == snapshot[b"a"]
            assert b"old" == snapshot.keyspace("other")[b"a"]
            with pytest.raises(KeyError):
                snapshot.keyspace("absent")
            database.drop_keyspace("other")
            with pytest.raises(KeyError):
                snapshot.keyspace("other")


def test_a_snapshot_is_a_read_only_mapping() -> None:
    with opened() as database, database.snapshot() as empty:
        database.put_many({b"a": b"1", b"ab": b"2", b"b": b""})
        with database.snapshot() as snapshot:
            assert [b"a", b"ab", b"b"] == list(snapshot)
            assert [(b"a", b"1"), (b"ab", b"2")] == list(snapshot.items(prefix=b"a"))
            assert [b"2", b""] == list(snapshot.values(b"ab"))
            assert [b"1", None] == snapshot.get_many([b"a", b"x"])
            assert b"" == snapshot.get(b"b", b"default")
            assert b"default" == snapshot.get(b"x", b"default")
            assert b"a" in snapshot
            assert b"x" not in snapshot
            with pytest.raises(KeyError):
                snapshot[b"x"]
            with pytest.raises(TypeError):
                snapshot["a"]
            assert not hasattr(snapshot, "put")
            with pytest.raises(TypeError):
                snapshot[b"a"] = b"1"  # type: ignore[index]
        assert 0 == len(empty)


def test_a_closed_snapshot_says_so() -> None:
    with opened() as database:
        snapshot = database.snapshot()
        part = snapshot.keyspace("default")
        snapshot.close()
        snapshot.close()
        for call in (
            lambda: snapshot[b"a"],
            lambda: snapshot.get(b"a"),
            lambda: b"a" in snapshot,
            lambda: list(snapshot),
            lambda: snapshot.get_many([b"a"]),
            lambda: snapshot.seq,
            lambda: part.get(b"a"),
            lambda: part.items(),
        ):
            with pytest.raises(DatabaseClosedError, match="snapshot"):
                call()


def test_a_snapshot_of_a_closed_database_says_so() -> None:
    database = opened()
    database[b"a"] = b"1"
    snapshot = database.snapshot()
    database.close()
    with pytest.raises(DatabaseClosedError, match="database"):
        snapshot[b"a"]
    snapshot.close()
    with pytest.raises(DatabaseClosedError, match="database"):
        database.snapshot()


def test_an_iterator_of_a_snapshot_outlives_its_close() -> None:
    with opened() as database:
        churn(database, 0)
        with database.snapshot() as snapshot:
            rows = snapshot.items()
            next(rows)
        churn(database, 1)
        assert {b"0"} == {value[:1] for _, value in rows}
