"""What was closed says so: databases, keyspaces, snapshots, iterators, and dropped keyspaces."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

import holdfast
from holdfast import DatabaseClosedError, DatabaseSettings, KeyspaceSettings

SETTINGS = DatabaseSettings(
    memory_bytes=64 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=64 << 10, page_bytes=512, table_bytes=16 << 10),
)
PAIRS = {b"key %04d" % number: b"value %d " % number * 10 for number in range(1000)}


def filled(path: Path) -> holdfast.Database:
    database = holdfast.open(str(path), settings=SETTINGS)
    database.put_many(PAIRS)
    database.keyspace("other").put_many(PAIRS)
    database.flush()
    database[b"zz in memory"] = b"value"
    return database


KEYSPACE_CALLS: dict[str, Callable[[holdfast.Keyspace], object]] = {
    "[]": lambda keyspace: keyspace[b"key 0001"],
    "get": lambda keyspace: keyspace.get(b"key 0001"),
    "in": lambda keyspace: b"key 0001" in keyspace,
    "get_many": lambda keyspace: keyspace.get_many([b"key 0001"]),
    "len": len,
    "bool": bool,
    "iter": list,
    "items": lambda keyspace: keyspace.items(),
    "keys": lambda keyspace: keyspace.keys(),
    "values": lambda keyspace: keyspace.values(),
    "[]=": lambda keyspace: keyspace.__setitem__(b"a", b"b"),
    "put": lambda keyspace: keyspace.put(b"a", b"b"),
    "put none": lambda keyspace: keyspace.put(b"a", b"b", durability="none"),
    "put interval": lambda keyspace: keyspace.put(b"a", b"b", durability="interval"),
    "put_many": lambda keyspace: keyspace.put_many({b"a": b"b"}),
    "put_many nothing": lambda keyspace: keyspace.put_many({}),
    "del": lambda keyspace: keyspace.__delitem__(b"key 0001"),
    "delete": lambda keyspace: keyspace.delete(b"key 0001"),
    "delete_range": lambda keyspace: keyspace.delete_range(b"a", b"z"),
    "clear": lambda keyspace: keyspace.clear(),
    "pop": lambda keyspace: keyspace.pop(b"key 0001"),
    "flush": lambda keyspace: keyspace.flush(),
    "compact": lambda keyspace: keyspace.compact(),
}
DATABASE_CALLS: dict[str, Callable[[holdfast.Database], object]] = {
    "keyspace": lambda database: database.keyspace("other"),
    "new keyspace": lambda database: database.keyspace("new"),
    "keyspaces": lambda database: database.keyspaces(),
    "drop_keyspace": lambda database: database.drop_keyspace("other"),
    "snapshot": lambda database: database.snapshot(),
    "sync": lambda database: database.sync(),
    "verify": lambda database: database.verify(),
    "stats": lambda database: database.stats(),
}


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = filled(tmp_path / "db")
    other, snapshot = database.keyspace("other"), database.snapshot()
    view = snapshot.keyspace("other")
    database.close()
    for name, call in [*KEYSPACE_CALLS.items(), *DATABASE_CALLS.items()]:
        with pytest.raises(DatabaseClosedError, match="closed"):
            raise AssertionError(f"{name} gave {call(database)!r}")
    for name, call in KEYSPACE_CALLS.items():
        with pytest.raises(DatabaseClosedError, match="closed"):
            raise AssertionError(f"{name} of a keyspace gave {call(other)!r}")
    for mapping in snapshot, view:
        for name in ("[]", "get", "in", "get_many", "len", "iter", "items", "keys", "values"):
            with pytest.raises(DatabaseClosedError, match="closed"):
                raise AssertionError(f"{name} of a snapshot gave {KEYSPACE_CALLS[name](mapping)!r}")
    snapshot.close()
    snapshot.close()
    database.close()
    assert "closed" in repr(database)
    with pytest.raises(DatabaseClosedError), database:
        database[b"a"] = b"b"


def test_a_closed_snapshot_says_so(tmp_path: Path) -> None:
    with filled(tmp_path / "db") as database:
        snapshot = database.snapshot()
        view = snapshot.keyspace("other")
        snapshot.close()
        for mapping in snapshot, view:
            for name in ("[]", "get", "in", "get_many", "len", "iter", "items", "keys", "values"):
                with pytest.raises(DatabaseClosedError, match="snapshot is closed"):
                    raise AssertionError(f"{name} gave {KEYSPACE_CALLS[name](mapping)!r}")
        with pytest.raises(DatabaseClosedError):
            snapshot.keyspace("other")


def test_a_dropped_keyspace_says_so(tmp_path: Path) -> None:
    with filled(tmp_path / "db") as database:
        other = database.keyspace("other")
        database.drop_keyspace("other")
        for name, call in KEYSPACE_CALLS.items():
            with pytest.raises(DatabaseClosedError, match="dropped"):
                raise AssertionError(f"{name} gave {call(other)!r}")
        again = database.keyspace("other")
        assert again is not other
        assert 0 == len(again)
        again[b"key"] = b"new"
        with pytest.raises(DatabaseClosedError, match="dropped"):
            other[b"key"] = b"old"
        assert dict(again.items()) == {b"key": b"new"}


ITERATORS: dict[str, Callable[[holdfast.Database], object]] = {
    "items": lambda database: database.items(),
    "keys in reverse": lambda database: database.keys(reverse=True),
    "values with a limit": lambda database: database.values(limit=900),
    "iter": iter,
    "of a keyspace": lambda database: database.keyspace("other").items(),
    "of a snapshot": lambda database: database.snapshot().items(),
    "of memory": lambda database: database.items(start=b"zz"),
}


@pytest.mark.filterwarnings("ignore:a snapshot of:ResourceWarning")
@pytest.mark.parametrize("started", [0, 1, 500])
@pytest.mark.parametrize("name", ITERATORS)
def test_an_iterator_over_a_closed_database_raises(tmp_path: Path, name: str, started: int) -> None:
    database = filled(tmp_path / "db")
    rows = ITERATORS[name](database)
    took = list(islice(rows, started))
    database.close()
    if len(took) < started:
        # It had ended before.
        assert list(rows) == []
        return
    for _ in range(2):
        with pytest.raises(DatabaseClosedError):
            raise AssertionError(f"it gave {len(list(rows))} rows more")


def test_an_iterator_that_was_closed_or_ended_has_no_more_rows(tmp_path: Path) -> None:
    with filled(tmp_path / "db") as database:
        rows = database.items()
        next(rows)
        rows.close()
        rows.close()
        assert list(rows) == []
        rows = database.items(limit=2)
        assert len(list(rows)) == 2
        assert list(rows) == []


def test_what_outlives_the_database_does_no_harm(tmp_path: Path) -> None:
    database = filled(tmp_path / "db")
    rows, snapshot = database.items(), database.snapshot()
    next(rows)
    database.close()
    del database
    gc.collect()
    with pytest.raises(DatabaseClosedError):
        list(rows)
    del rows, snapshot
    gc.collect()
    with holdfast.open(str(tmp_path / "db")) as database:
        assert len(database) == len(PAIRS) + 1


def test_an_iterator_survives_the_drop_of_its_keyspace(tmp_path: Path) -> None:
    """It saw the keyspace as it was; so it goes on, or says that the keyspace was dropped."""
    with filled(tmp_path / "db") as database:
        rows = database.keyspace("other").items()
        first = [next(rows) for _ in range(10)]
        database.drop_keyspace("other")
        database.compact()
        gc.collect()
        try:
            rest = list(rows)
        except DatabaseClosedError:
            return
        assert dict(first + rest) == PAIRS
