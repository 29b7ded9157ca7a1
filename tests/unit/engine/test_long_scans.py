"""Goal: scans that are long enough to read ahead find what is there, in every form, and leave the
pool to those who ask for single keys.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

import holdfast
from holdfast.base import PURE, DatabaseSettings, KeyspaceSettings
from holdfast.engine import Database
from holdfast.sstable.scanning import long_scan_bytes

SETTINGS = DatabaseSettings(
    memory_bytes=16 << 20,
    keyspace=KeyspaceSettings(
        memtable_bytes=512 << 10, page_bytes=1024, table_bytes=256 << 10, level0_tables=3
    ),
)
# The plain twins take their time.
ROWS = 4_000 if PURE else 12_000


def key_of(number: int) -> bytes:
    return b"key/%06d" % number


@pytest.fixture(params=[None, bytes(range(32))], ids=["plain", "encrypted"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Database, dict[bytes, bytes]]]:
    """Some levels of tables with versions that replace others, deletes, ranges and merges."""
    choose = random.Random(5)
    rows: dict[bytes, bytes] = {}
    with holdfast.open(tmp_path / "db", settings=SETTINGS, key=request.param) as opened:
        for turn in range(6):
            numbers = choose.sample(range(ROWS), ROWS // 2)
            new = {key_of(number): choose.randbytes(120) for number in numbers}
            opened.put_many(new)
            rows |= new
            start = choose.randrange(ROWS - 300)
            opened.delete_range(key_of(start), key_of(start + 200))
            for number in range(start, start + 200):
                rows.pop(key_of(number), None)
            for number in choose.sample(range(ROWS), 40):
                opened.merge(key_of(number), "append", b"/%d" % turn)
                rows[key_of(number)] = rows.get(key_of(number), b"") + b"/%d" % turn
            opened.flush()
        opened._engine.upkeep.wait_idle()
        yield opened, dict(sorted(rows.items()))


def test_every_form_of_a_long_scan_gives_the_rows(
    database: tuple[Database, dict[bytes, bytes]],
) -> None:
    db, rows = database
    expected = list(rows.items())
    for _ in range(2):
        assert list(db.items()) == expected
        assert list(db.keys()) == list(rows)
        assert list(db.values()) == list(rows.values())
        scan = db.items()
        chunks = list(iter(lambda: scan.next_chunk(777), []))
        assert [row for chunk in chunks for row in chunk] == expected
        assert list(db.items(reverse=True)) == expected[::-1]
    start = expected[500][0]
    assert list(db.items(start, limit=ROWS // 2)) == expected[500 : 500 + ROWS // 2]
    with db.snapshot() as snapshot:
        scan = iter(snapshot.items())
        found = list(islice(scan, ROWS // 2))
        # The tables that it reads are replaced in its middle.
        db.put_many((key, b"new") for key in list(rows)[::3])
        db.compact()
        assert found + list(scan) == expected
    assert db.verify().ok


def test_a_transaction_that_scans_far_sees_its_own_writes(
    database: tuple[Database, dict[bytes, bytes]],
) -> None:
    db, rows = database
    with db.transaction() as txn:
        for key in list(rows)[::50]:
            txn[key] = b"mine"
            rows[key] = b"mine"
        del txn[list(rows)[77]]
        del rows[list(rows)[77]]
        assert list(txn.items()) == list(rows.items())


def test_a_long_scan_leaves_hot_pages_where_they_are(tmp_path: Path) -> None:
    choose = random.Random(9)
    with holdfast.open(tmp_path / "db", settings=SETTINGS) as db:
        for start in range(0, 10 * ROWS, ROWS):
            db.put_many((key_of(start + n), choose.randbytes(120)) for n in range(ROWS))
        db.compact()
        for _ in range(3):
            for number in range(2000):
                assert db[key_of(number)]
        before = db.stats()
        scanned_rows = 10 * ROWS - 2000
        assert sum(1 for _ in db.items(key_of(2000))) == scanned_rows
        scanned = db.stats()
        # The pages it began with, and the index pages of all tables.
        grown = scanned.pool_bytes - before.pool_bytes
        assert grown < long_scan_bytes(SETTINGS.memory_bytes) + scanned_rows * 120 // 8
        assert scanned.pool_misses - before.pool_misses > scanned_rows // 12
        for number in range(2000):
            assert db[key_of(number)]
        assert db.stats().pool_misses == scanned.pool_misses
