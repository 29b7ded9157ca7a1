"""Scans within one prefix skip tables whose filters lack it."""

from __future__ import annotations

from pathlib import Path

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings

USERS = 40
SETTINGS = DatabaseSettings(keyspace=KeyspaceSettings(prefix_bytes=8, level0_tables=64))


def fill(database: holdfast.Database, users: range) -> None:
    for user in users:
        for item in range(20):
            database.put(b"user%04d/%02d" % (user, item), b"", durability="none")
    database.flush()


def test_scans_find_their_prefix_in_any_table(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db", settings=SETTINGS) as database:
        for first in range(4):
            fill(database, range(first, USERS * 4, 4))
    # The setting is kept with the keyspace.
    with holdfast.open(tmp_path / "db") as database:
        for user in (0, 1, 2, 3, 77):
            prefix = b"user%04d" % user
            expected = [prefix + b"/%02d" % item for item in range(20)]
            assert expected == list(database.keys(prefix=prefix))
            assert expected[::-1] == list(database.keys(prefix=prefix, reverse=True))
            assert expected[3:7] == list(database.keys(start=expected[3], stop=expected[7]))
        # 0, 1, 2, 3 and 3 tables have a range around the user and lack it, in each of three scans.
        assert 20 <= database.stats().tables_skipped <= 27
        assert database.verify().ok


def test_compactions_write_prefixes(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db", settings=SETTINGS) as database:
        fill(database, range(0, USERS * 2, 2))
        fill(database, range(0, USERS * 2, 2))
        database.compact()
        assert [] == list(database.keys(prefix=b"user0001"))
        assert 1 == database.stats().tables_skipped


def test_a_keyspace_without_the_setting_skips_nothing(tmp_path: Path) -> None:
    with holdfast.open(tmp_path / "db") as database:
        fill(database, range(0, USERS * 2, 2))
        assert [] == list(database.keys(prefix=b"user0001"))
        assert 0 == database.stats().tables_skipped
