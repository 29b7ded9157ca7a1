"""Goal: a transaction loses to whatever way another one's write came, and its own commit is one
change, whatever its filters let it leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest

from holdfast.base import ConflictError, DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database, open_database
from holdfast.env import SimEnv
from holdfast.txn import Transaction

KEY = b"k5"
ROWS = {b"k%d" % number: b"old" for number in range(10)}


@pytest.fixture
def db() -> Iterator[Database]:
    keyspace = KeyspaceSettings(prefix_bytes=2, filter_bits_per_key=20)
    settings = DatabaseSettings(keyspace=keyspace)
    with open_database("/db", settings=settings, env=SimEnv()) as database:
        database.put_many(ROWS)
        yield database
        assert [] == database._engine.snapshots.live()


def put_alone(db: Database) -> None:
    """Durable, and nobody is beside it: the queue is passed by."""
    db.put(KEY, b"new")


def assign_alone(db: Database) -> None:
    db[KEY] = b"new"


def delete_alone(db: Database) -> None:
    db.delete(KEY)


def put_unsynced(db: Database) -> None:
    db.put(KEY, b"new", durability="none")


def put_in_intervals(db: Database) -> None:
    for _ in range(2):
        db.put(KEY, b"new", durability="interval")


def ingest(db: Database) -> None:
    db.ingest([(KEY, b"new")])


def ingest_deep(db: Database) -> None:
    """The table lies on no other one, so that it may go deeper than level 0."""
    db.compact()
    db.ingest([(KEY, b"new")])


def ingest_then_flush(db: Database) -> None:
    db.ingest([(KEY, b"new")])
    db.put(b"z", b"", durability="none")
    db.flush()


WRITERS = [
    put_alone, assign_alone, delete_alone, put_unsynced, put_in_intervals, ingest, ingest_deep,
    ingest_then_flush,
]  # fmt: skip


def get(txn: Transaction) -> None:
    txn.get(KEY)


def scan(txn: Transaction) -> None:
    list(txn.items(b"k4", b"k6"))


def scan_prefix(txn: Transaction) -> None:
    list(txn.items(prefix=b"k5"))


def scan_much(txn: Transaction) -> None:
    """More than is left to the leader alone."""
    for number in range(20):
        txn.get(b"%02d" % number)
    list(txn.keys())


@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize(
    ("write", "read"), list(product(WRITERS, [get, scan, scan_prefix, scan_much]))
)
def test_what_was_read_was_written_since(
    db: Database,
    write: Callable[[Database], None],
    read: Callable[[Transaction], None],
    is_flushed: bool,
) -> None:
    if is_flushed:
        db.flush()
    txn = db.transaction()
    read(txn)
    txn[b"other"] = b""
    write(db)
    assert ROWS[KEY] == txn[KEY]
    assert list(ROWS) == list(txn.keys(b"k", b"l"))
    with pytest.raises(ConflictError):
        txn.commit()
    assert b"other" not in db


@pytest.mark.parametrize("write", WRITERS)
def test_the_first_of_two_that_write_the_same_wins(
    db: Database, write: Callable[[Database], None]
) -> None:
    txn = db.transaction(isolation="snapshot")
    txn[KEY] = b"mine"
    write(db)
    with pytest.raises(ConflictError, match="key b'k5'"):
        txn.commit()
    assert db.get(KEY) != b"mine"


@pytest.mark.parametrize("write", WRITERS)
def test_what_was_not_read_may_be_written(db: Database, write: Callable[[Database], None]) -> None:
    with db.transaction() as txn:
        assert b"old" == txn[b"k4"]
        assert 4 == len(list(txn.keys(b"k6", b"l")))
        txn[b"other"] = b"mine"
        write(db)
    assert b"mine" == db[b"other"]


def test_bytes_that_were_ingested_since_are_held_back_like_others(db: Database) -> None:
    with db.transaction(read_only=True):
        db.ingest([(key, b"x" * 100) for key in ROWS])
        assert 1000 <= db.transactions()[0].held_bytes


def test_the_feed_shows_a_transaction_as_one_change(db: Database) -> None:
    other = db.keyspace("other")
    with db.snapshot() as snapshot:
        before = snapshot.seq
    with db.transaction() as txn:
        txn[b"a"] = b"1"
        with txn.savepoint() as point:
            txn[b"undone"] = b""
            point.rollback()
        txn.keyspace("other")[b"b"] = b"2"
        txn.delete(KEY)
    db[b"after"] = b""
    changes = list(db.changes(before))
    assert 2 == len(changes)
    assert [(db.name, b"a"), (other.name, b"b"), (db.name, KEY)] == [
        (each.keyspace, each.key) for each in changes[0].operations
    ]


def test_scans_within_a_prefix_skip_tables(db: Database) -> None:
    db.delete(KEY)
    db.compact()
    pool = db._engine.pool
    with db.transaction() as txn:
        txn[b"k55"] = b"own"
        skipped = pool.tables_skipped
        assert [b"k55"] == list(txn.keys(prefix=KEY))
        assert skipped + 1 == pool.tables_skipped
        assert [b"k4"] == list(txn.keys(prefix=b"k4"))
        assert skipped + 1 == pool.tables_skipped
