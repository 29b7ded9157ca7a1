"""Fills a real file system, given as the only argument, and goes on when there is room again.

A program of its own, because it runs in a mount namespace that ends with it.
"""

import errno
import os
import sys

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings

SETTINGS = DatabaseSettings(
    wal_segment_bytes=64 << 10,
    wal_bytes_max=256 << 10,
    keyspace=KeyspaceSettings(memtable_bytes=64 << 10, table_bytes=64 << 10),
)


def fill(path: str) -> None:
    with open(path, "wb", buffering=0) as file:
        while True:
            try:
                if not file.write(b"\x01" * 4096):
                    return
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return


def check(database: holdfast.Database, acknowledged: dict[bytes, bytes]) -> None:
    assert dict(database.items()) == acknowledged, (len(database), len(acknowledged))


def write_until_full(
    database: holdfast.Database, acknowledged: dict[bytes, bytes], start: int
) -> int:
    for number in range(start, start + 10_000):
        key, value = b"%08d" % number, os.urandom(2_000)
        try:
            database[key] = value
        except holdfast.DiskFullError:
            return number
        acknowledged[key] = value
    raise AssertionError("the disk never got full")


def main(folder: str) -> None:
    path, ballast, reserve = f"{folder}/db", f"{folder}/ballast", f"{folder}/reserve"
    acknowledged: dict[bytes, bytes] = {}
    database = holdfast.open(path, settings=SETTINGS)
    for name in ballast, reserve:
        with open(name, "wb") as file:
            file.write(b"\x01" * (1 << 20))
    number = write_until_full(database, acknowledged, 0)
    check(database, acknowledged)
    assert number > 100
    os.unlink(ballast)
    for extra in range(number, number + 20):
        database[b"%08d" % extra] = acknowledged[b"%08d" % extra] = os.urandom(2_000)
    number = write_until_full(database, acknowledged, number + 20)
    check(database, acknowledged)
    assert not database.stats().poisoned
    fill(ballast)
    database.close()
    try:
        holdfast.open(path).close()
    except holdfast.DiskFullError:
        print("an open found no room")
    os.unlink(reserve)
    with holdfast.open(path) as database:
        check(database, acknowledged)
        assert database.verify().ok
        database.delete_range(None, None)
        database.compact()
        database[b"after"] = b"all"
    print("done", number)


if __name__ == "__main__":
    main(sys.argv[1])
