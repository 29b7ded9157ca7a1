"""The public faces as a type checker sees them. `./dev check` checks this file; nothing runs it.

`assert_type` fails the check where an expression has another type than a caller needs.
"""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import holdfast
import holdfast.aio


def a_mapping(
    space: holdfast.Keyspace | holdfast.Database | holdfast.Transaction,
) -> None:
    n = int(space.get(b"n", b"0"))
    space[b"n"] = b"%d" % (n + 1)
    assert_type(space.get(b"k"), bytes | None)
    assert_type(space.get(b"k", None), bytes | None)
    assert_type(space.get(b"k", default=b""), bytes)
    assert_type(space.get(bytearray(b"k"), 0), bytes | int)
    assert_type(space[b"k"], bytes)
    assert_type(space.get_many([b"k", bytearray(b"l")]), list[bytes | None])
    assert_type(space.pop(b"k"), bytes)
    assert_type(space.pop(b"k", None), bytes | None)
    assert_type(space.pop(b"k", b""), bytes)
    assert_type(space.setdefault(b"k", b"v"), bytes)
    assert_type(space.popitem(), tuple[bytes, bytes])
    space.update({b"k": b"v"})
    space.put_many({b"k": b"v"})
    space.put_many((b"%d" % number, b"") for number in range(3))


def scans(
    space: holdfast.Keyspace | holdfast.Transaction | holdfast.Snapshot,
) -> tuple[Iterator[tuple[bytes, bytes]], Iterator[bytes]]:
    for key, value in space.items(start=b"a", stop=b"b", reverse=True, limit=100):
        assert_type(key, bytes)
        assert_type(value, bytes)
    for key in space:
        assert_type(key, bytes)
    assert_type(list(space.values()), list[bytes])
    assert_type(dict(space.items()), dict[bytes, bytes])
    assert_type(space.items().next_chunk(2), list[tuple[bytes, bytes]])
    assert_type(space.keys().next_chunk(2), list[bytes])
    assert_type(space.keys().next_columns(2).keys, memoryview | None)
    return space.items(), space.keys(prefix=b"k")


def a_snapshot(db: holdfast.Database) -> int:
    with db.snapshot() as view:
        assert_type(view.get(b"k"), bytes | None)
        assert_type(view.get(b"k", b""), bytes)
        assert_type(view.get_many([b"k", bytearray(b"l")]), list[bytes | None])
        assert_type(view.keyspace("metrics").get(b"k", 0), bytes | int)
        return view.seq


def transactions(db: holdfast.Database) -> int:
    def count(txn: holdfast.Transaction) -> int:
        n = int(txn.get(b"n", b"0")) + 1
        txn[b"n"] = b"%d" % n
        metrics = txn.keyspace("metrics")
        assert_type(metrics.get(b"m"), bytes | None)
        return n

    with db.transaction() as txn, txn.savepoint():
        count(txn)
    assert_type(db.run(lambda txn: txn.get(b"n")), bytes | None)
    return db.run(count, attempts=10)


async def with_await(db: holdfast.aio.Database) -> AsyncIterator[bytes]:
    assert_type(int(await db.get(b"n", b"0")), int)
    assert_type(await db.get(b"k"), bytes | None)
    assert_type(await db.get(b"k", default=0), bytes | int)
    assert_type(await db.get_many([b"k"]), list[bytes | None])
    async for key, value in db.items(prefix=b"k"):
        assert_type(key, bytes)
        assert_type(value, bytes)
    assert_type(await db.items().next_chunk(2), list[tuple[bytes, bytes]])
    assert_type(await db.keys().next_chunk(2), list[bytes])
    async with db.transaction() as txn:
        await txn.put(b"n", b"%d" % (int(await txn.get(b"n", b"0")) + 1))
        assert_type(await txn.get(b"k"), bytes | None)
    async with db.snapshot() as view:
        assert_type(await view.get(b"k"), bytes | None)
        assert_type(await view.get(b"k", b""), bytes)
    metrics = await db.keyspace("metrics")
    assert_type(await metrics.get(b"m", b""), bytes)
    return metrics.keys()
