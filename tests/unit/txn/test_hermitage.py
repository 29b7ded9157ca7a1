"""Goal: each isolation level prevents what the table in docs/guide/transactions.md says.

Method: the schedules of Kleppmann's Hermitage and of the papers on snapshot isolation, step by step
in one thread. `x` and `y` are keys, T1 and T2 begin before the first step. A schedule tells whether
the anomaly happened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.base import ConflictError
from holdfast.engine import Database, open_database
from holdfast.env import SimEnv
from holdfast.txn import Transaction

Begin = Callable[[], Transaction]
X, Y = b"x", b"y"


def commits(*transactions: Transaction) -> list[bool]:
    """Commit in this order; return which of them did."""
    done = []
    for txn in transactions:
        try:
            txn.commit()
        except ConflictError:
            done.append(False)
        else:
            done.append(True)
    return done


def dirty_write(db: Database, begin: Begin) -> bool:
    """G0: writes of two transactions interleave, and both stay in part."""
    one, two = begin(), begin()
    one[X] = b"11"
    two[X] = b"12"
    one[Y] = b"21"
    two[Y] = b"22"
    commits(one, two)
    return (db[X], db[Y]) not in ((b"11", b"21"), (b"12", b"22"))


def aborted_read(db: Database, begin: Begin) -> bool:
    """G1a: what was rolled back was seen."""
    one, two = begin(), begin()
    one[X] = b"101"
    first = two[X]
    one.rollback()
    seen = {first, two[X]}
    commits(two)
    return b"101" in seen


def intermediate_read(db: Database, begin: Begin) -> bool:
    """G1b: a value that was written over before the commit was seen."""
    one, two = begin(), begin()
    one[X] = b"101"
    first = two[X]
    one[X] = b"11"
    commits(one)
    seen = {first, two[X]}
    commits(two)
    return b"101" in seen


def circular_information_flow(db: Database, begin: Begin) -> bool:
    """G1c: each of two transactions saw what the other one wrote."""
    one, two = begin(), begin()
    one[X] = b"11"
    two[Y] = b"22"
    seen = one[Y], two[X]
    return all(commits(one, two)) and seen == (b"22", b"11")


def observed_transaction_vanishes(db: Database, begin: Begin) -> bool:
    """OTV: a reader sees a transaction's first write and later not its second."""
    one, two, three = begin(), begin(), begin()
    one[X] = b"11"
    one[Y] = b"19"
    two[X] = b"12"
    commits(one)
    first = three[X]
    two[Y] = b"18"
    commits(two)
    seen = first, three[Y]
    commits(three)
    return seen not in ((b"10", b"20"), (b"11", b"19"), (b"12", b"18"))


def predicate_many_preceders(db: Database, begin: Begin) -> bool:
    """PMP: the same predicate gives other rows within one transaction."""
    one, two = begin(), begin()
    first = [key for key, value in one.items() if value == b"30"]
    two[b"z"] = b"30"
    commits(two)
    second = [key for key, value in one.items() if value == b"30"]
    commits(one)
    return first != second


def lost_update(db: Database, begin: Begin) -> bool:
    """P4: two transactions add to what they read, and one addition is gone."""
    one, two = begin(), begin()
    values = one[X], two[X]
    one[X] = values[0] + b"a"
    two[X] = values[1] + b"b"
    return all(commits(one, two))


def read_skew(db: Database, begin: Begin) -> bool:
    """G-single: a reader sees one key before and another one after a transaction."""
    one, two = begin(), begin()
    first = one[X]
    two[X] = b"12"
    two[Y] = b"18"
    commits(two)
    seen = first, one[Y]
    commits(one)
    return seen not in ((b"10", b"20"), (b"12", b"18"))


def read_skew_with_write(db: Database, begin: Begin) -> bool:
    """G-single, where the one that read the old value also deletes what the other one wrote."""
    one, two = begin(), begin()
    first = one[X]
    two[X] = b"12"
    two[Y] = b"18"
    commits(two)
    one.delete(Y)
    return all(commits(one)) and first == b"10"


def write_skew(db: Database, begin: Begin) -> bool:
    """G2-item: each reads both keys and writes another one of them."""
    one, two = begin(), begin()
    _ = one[X], one[Y], two[X], two[Y]
    one[X] = b"11"
    two[Y] = b"21"
    return all(commits(one, two))


def phantom(db: Database, begin: Begin) -> bool:
    """G2: each finds no row of a range, and adds one to it."""
    one, two = begin(), begin()
    assert [] == list(one.keys(prefix=b"row/")) == list(two.keys(prefix=b"row/"))
    one[b"row/1"] = b""
    two[b"row/2"] = b""
    return all(commits(one, two))


def phantom_by_count(db: Database, begin: Begin) -> bool:
    """G2: each counts all keys, and adds one."""
    one, two = begin(), begin()
    assert len(one) == len(two)
    one[b"a"] = b""
    two[b"b"] = b""
    return all(commits(one, two))


def read_only_anomaly(db: Database, begin: Begin) -> bool:
    """A reader sees a state that no order of the others has (Fekete et al., 2004)."""
    db[X], db[Y] = b"0", b"0"
    withdraw = begin()
    checked = withdraw[X], withdraw[Y]
    deposit = begin()
    deposit[Y] = b"%d" % (int(deposit[Y]) + 20)
    assert [True] == commits(deposit)
    reader = begin()
    seen = reader[X], reader[Y]
    # It saw no deposit, so it pays a fee.
    withdraw[X] = b"-11"
    return all(commits(reader, withdraw)) and (checked, seen) == ((b"0", b"0"), (b"0", b"20"))


def long_fork(db: Database, begin: Begin) -> bool:
    """Two readers see two writes in opposite orders."""
    one, two, before = begin(), begin(), begin()
    one[X] = b"11"
    two[Y] = b"21"
    commits(one)
    middle = begin()
    commits(two)
    views = [(txn[X], txn[Y]) for txn in (before, middle, begin())]
    return (b"11", b"20") in views and (b"10", b"21") in views


def three_way_cycle(db: Database, begin: Begin) -> bool:
    """G2 over three: each reads what the next one writes."""
    keys = [b"a", b"b", b"c"]
    live = [begin() for _ in keys]
    for at, txn in enumerate(live):
        assert keys[at] not in txn
        txn[keys[(at + 1) % 3]] = b""
    return all(commits(*live))


SCHEDULES = {
    "dirty write (G0)": (dirty_write, False, False),
    "aborted read (G1a)": (aborted_read, False, False),
    "intermediate read (G1b)": (intermediate_read, False, False),
    "circular information flow (G1c)": (circular_information_flow, False, False),
    "observed transaction vanishes": (observed_transaction_vanishes, False, False),
    "predicate with many preceders": (predicate_many_preceders, False, False),
    "lost update (P4)": (lost_update, False, False),
    "read skew (G-single)": (read_skew, False, False),
    "read skew, with a write": (read_skew_with_write, False, False),
    "long fork": (long_fork, False, False),
    "write skew (G2-item)": (write_skew, True, False),
    "phantom (G2)": (phantom, True, False),
    "phantom by a count": (phantom_by_count, True, False),
    "read-only anomaly": (read_only_anomaly, True, False),
    "cycle of three (G2)": (three_way_cycle, True, False),
}
"""By name: the schedule, and whether "snapshot" and "serializable" allow it."""


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("isolation", ["snapshot", "serializable"])
def test_what_a_level_allows_and_prevents(name: str, isolation: str, flushed: bool) -> None:
    """`flushed`: what the transactions write over lies in a table."""
    schedule, *allowed = SCHEDULES[name]
    db = open_database("/db", env=SimEnv())
    db.put_many({X: b"10", Y: b"20"})
    if flushed:
        db.flush()
    live: list[Transaction] = []

    def begin() -> Transaction:
        live.append(db.transaction(isolation=isolation, durability="none"))
        return live[-1]

    assert allowed[isolation == "serializable"] == schedule(db, begin)
    for txn in live:
        txn.rollback()
    db.close()


def test_the_guide_has_this_table(root: Path) -> None:
    text = (root / "docs/guide/transactions.md").read_text(encoding="ascii")
    rows = re.findall(r"^\| ([^|]+) \| (allowed|prevented) \| (allowed|prevented) \|$", text, re.M)
    words = {True: "allowed", False: "prevented"}
    assert [(name, words[one], words[two]) for name, (_, one, two) in SCHEDULES.items()] == rows
