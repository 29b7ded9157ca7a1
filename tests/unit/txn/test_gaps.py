"""Goal: gaps that scans noted and own writes of a transaction never mislead each other.

A gap is a word about what everybody sees. Own deletes are no reason for one, and own rows may lie
in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from holdfast.cursor import Gaps
from holdfast.engine import Database, open_database
from holdfast.env import SimEnv
from holdfast.txn import Transaction

KEYS = [b"k%03d" % number for number in range(100)]
"""A stretch of so many dead keys is noted; far fewer would be."""


@pytest.fixture
def db() -> Iterator[Database]:
    with open_database("/db", env=SimEnv()) as database:
        yield database


def gaps(db: Database) -> Gaps:
    """Return the gaps of the default keyspace."""
    return db._engine.trees[db.id].active.gaps


def delete_each(txn: Transaction) -> None:
    for key in KEYS:
        txn.delete(key)


def delete_all(txn: Transaction) -> None:
    txn.clear()


@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("remove", [delete_each, delete_all])
def test_a_private_delete_hides_nothing_from_others(
    db: Database, remove: Callable[[Transaction], None], reverse: bool, is_flushed: bool
) -> None:
    db.put_many(dict.fromkeys(KEYS, b"x"))
    if is_flushed:
        db.flush()
    txn = db.transaction()
    remove(txn)
    assert [] == list(txn.keys(reverse=reverse))
    assert [] == list(txn.keys(KEYS[10], KEYS[90], reverse=reverse))
    assert 0 == len(gaps(db))
    assert KEYS == list(db.keys())
    txn.rollback()
    assert KEYS == list(db.keys())
    assert KEYS[::-1] == list(db.keys(reverse=True))
    assert KEYS[10:90] == list(db.keys(KEYS[10], KEYS[90]))
    with db.transaction() as later:
        assert KEYS == list(later.keys())


@pytest.mark.parametrize("reverse", [False, True])
def test_a_put_into_a_gap_of_the_tree_is_seen_inside_and_after_the_commit(
    db: Database, reverse: bool
) -> None:
    db.put_many(dict.fromkeys(KEYS, b"x"))
    db.delete_range(KEYS[0], KEYS[-1])
    assert [KEYS[-1]] == list(db.keys(reverse=reverse))
    assert 1 == len(gaps(db))
    with db.transaction() as txn:
        txn[KEYS[50]] = b"own"
        both = [KEYS[50], KEYS[-1]]
        assert (both[::-1] if reverse else both) == list(txn.keys(reverse=reverse))
        assert [KEYS[50]] == list(txn.keys(KEYS[40], KEYS[60], reverse=reverse))
        assert [KEYS[50]] == list(txn.keys(prefix=b"k05", reverse=reverse))
        assert [KEYS[-1]] == list(db.keys(reverse=reverse))
    assert both == sorted(db.keys(reverse=reverse))
    assert [KEYS[50]] == list(db.keys(KEYS[40], KEYS[60], reverse=reverse))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_put_among_keys_that_the_transaction_deleted_and_scanned_is_seen_inside(
    db: Database, reverse: bool
) -> None:
    db.put_many(dict.fromkeys(KEYS, b"x"))
    with db.transaction() as txn:
        delete_each(txn)
        assert [] == list(txn.keys(reverse=reverse))
        txn[KEYS[50]] = b"own"
        assert [(KEYS[50], b"own")] == list(txn.items(reverse=reverse))
        assert [(KEYS[50], b"own")] == list(txn.items(KEYS[40], KEYS[60], reverse=reverse))
        with txn.savepoint() as point:
            txn[KEYS[60]] = b"undone"
            assert 2 == len(txn)
            point.rollback()
        assert [KEYS[50]] == list(txn.keys(reverse=reverse))
    assert [KEYS[50]] == list(db.keys(reverse=reverse))
    assert [KEYS[50]] == list(db.keys())
