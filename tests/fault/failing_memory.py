"""The child process of test_memory: one allocation fails, in each call of the database in turn.

Arguments: a folder, the name of a call, whether only kernels are counted (1) or every allocation of
the process (0), and how many allocations lie between two that fail. Prints how many failed and how
many of the databases were poisoned by it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace

import holdfast
from holdfast.base import DatabasePoisonedError
from tests.fault.client import TINY

# The library of Zstandard does not survive a failed allocation in its constructors.
SETTINGS = replace(TINY, keyspace=replace(TINY.keyspace, compression_last="lz4"))
PAIRS = {b"key %03d" % number: b"value %d " % number * 8 for number in range(60)}
OLD, NEW = b"0", b"1"
TOLD = (MemoryError, DatabasePoisonedError)

Call = Callable[[holdfast.Database], object]

CALLS: dict[str, Call] = {
    "put": lambda database: database.put(b"a", NEW),
    "put none": lambda database: database.put(b"a", NEW, durability="none"),
    "put large": lambda database: database.put(b"a", NEW + b"x" * 9000),
    "batch": lambda database: database.put_many({b"a": NEW, b"b": NEW}),
    "delete range": lambda database: database.delete_range(b"a", b"b"),
    "get": lambda database: database[b"key 030"],
    "scan": lambda database: list(database.items()),
    "reverse": lambda database: list(database.items(reverse=True)),
    "view": lambda database: [
        (tree.view.tombstone_sets(), tree.view.internal_cursor())
        for tree in database._engine.trees.values()
    ],
    "flush": lambda database: database.flush(),
    "compact": lambda database: database.compact(),
    "create": lambda database: database.keyspace("more"),
    "close": lambda database: database.close(),
}
OPEN = "open"


class Allocations:
    """The allocations of this process, of which one fails."""

    def __init__(self, *, kernels: bool) -> None:
        library = ctypes.CDLL(None)
        self._arm, self._disarm = library.fail_allocation, library.count_allocations
        self._arm.argtypes = [ctypes.c_long, ctypes.c_int]
        self._disarm.restype = ctypes.c_long
        self._kernels = int(kernels)

    def fail(self, nth: int, call: Callable[[], object]) -> tuple[bool, BaseException | None]:
        """Let allocation `nth` of a call fail; return whether there was one, and what it raised."""
        error: BaseException | None = None
        self._arm(nth, self._kernels)
        try:
            call()
        except BaseException as raised:
            error = raised
        return self._disarm() >= nth, error


def check(database: holdfast.Database) -> None:
    rows = dict(database.items())
    assert PAIRS == {key: value for key, value in rows.items() if key in PAIRS}
    assert rows.get(b"a", OLD)[:1] in (OLD, NEW)
    assert rows.get(b"b", OLD)[:1] in (OLD, NEW)
    assert PAIRS[b"key 010"] == database[b"key 010"]


def prepare(folder: str) -> tuple[str, str]:
    """Make a database that was closed and one that was not; return their folders."""
    closed, killed = f"{folder}/closed", f"{folder}/killed"
    with holdfast.open(closed, settings=SETTINGS) as database:
        database.put_many(PAIRS)
        database.flush()
        database.put_many({b"a": OLD, b"b": OLD})
        database.flush()
        database.put_many(PAIRS)
        shutil.copytree(closed, killed)
    return closed, killed


def one(base: str, path: str, name: str, nth: int, allocations: Allocations) -> tuple[bool, bool]:
    """Let one allocation fail; return whether there was one, and whether it poisoned."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(base, path)
    opened: list[holdfast.Database] = []
    if name == OPEN:
        struck, error = allocations.fail(nth, lambda: opened.append(holdfast.open(path)))
    else:
        opened.append(holdfast.open(path))
        opened[0].put(b"c", OLD)
        opened[0]._engine.upkeep.wait_idle()
        struck, error = allocations.fail(nth, lambda: CALLS[name](opened[0]))
    assert error is None or isinstance(error, TOLD), repr(error)
    poisoned = False
    for database in opened:
        if name != "close":
            check(database)
            poisoned = database.stats().poisoned
        if not poisoned and name != "close":
            database[b"probe"] = b"1"
            database.flush()
            database.compact()
            report = database.verify()
            assert report.ok, report.errors
            check(database)
        try:
            database.close()
        except DatabasePoisonedError:
            assert poisoned
    with holdfast.open(path) as database:
        check(database)
        assert database.verify().ok
        database[b"again"] = b"1"
    return struck, poisoned


def main(folder: str, name: str, kernels: str, stride: str) -> None:
    allocations = Allocations(kernels=kernels == "1")
    closed, killed = prepare(folder)
    base = killed if name == OPEN else closed
    nth, count, poisonings, misses = 1, 0, 0, 0
    while misses < 2:
        struck, poisoned = one(base, os.path.join(folder, "db"), name, nth, allocations)
        count += struck
        poisonings += poisoned
        misses = 0 if struck else misses + 1
        nth += int(stride)
    print(count, poisonings)


if __name__ == "__main__":
    main(*sys.argv[1:])
