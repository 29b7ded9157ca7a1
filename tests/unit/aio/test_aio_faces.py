"""Goal: the face with await has what the plain one has; what it lacks is listed with a reason."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
import secrets
import struct
from pathlib import Path
from typing import Any

import pytest

import holdfast
import holdfast.aio
from holdfast import aio, engine
from holdfast.aio.cursor import FIRST_ROWS
from holdfast.base import PURE
from holdfast.cursor import UserCursor

OPERATORS = ("contains", "count")
"""Of a mapping these are operators, which nothing can await."""
MAPPING = ("pop", "popitem", "setdefault", "update")
"""Of a `MutableMapping`, which nothing with `await` is: `insert`, `put_many` and `run` do it."""
CORE = (
    "get_cached", "get_at", "has_merges", "id", "merge_value", "read_point", "state", "view",
    "write_merge",
)  # fmt: skip
"""How keyspaces are read and written from other rooms of the engine; in no guide."""
KEYSPACE = (
    *MAPPING, *CORE, "add_head", "arm_interval", "batch_of", "beat", "begin", "begin_delete",
    "begin_merge", "begin_put", "check_writable", "commit_at_once", "cursor_at", "dropped", "fold",
    "look_ahead", "memtable_bytes", "open_range", "range_batch", "sibling", "submit",
)  # fmt: skip
"""The same, of a keyspace."""
WORKSPACE = (
    *MAPPING, "delete_span", "end_scans", "forget", "forget_writes", "get_cached", "halve_reads",
    "has_asked", "has_merges", "has_read", "has_scans", "id", "merge_writes", "merged", "owner",
    "place", "ranges", "ranges_read", "read_at", "read_keys", "read_snapshot", "require_unchanged",
    "scans", "scans_reached", "source", "span", "state", "table_depth", "tables", "write_merge",
)  # fmt: skip
"""The same, of what a transaction has read and written in a keyspace."""
HOLDER = ("about", "let_go", "moved")
"""What the registry asks of those who hold versions back."""

FACES: dict[str, tuple[type, type, tuple[str, ...], tuple[str, ...]]] = {
    # The plain face, the one with await, what the latter lacks, and what it has besides.
    "Database": (engine.Database, aio.Database, (*KEYSPACE, "change_feed"), OPERATORS),
    "Keyspace": (engine.Keyspace, aio.Keyspace, KEYSPACE, OPERATORS),
    "Snapshot": (engine.Snapshot, aio.Snapshot, ("get_cached", *HOLDER), OPERATORS),
    "SnapshotKeyspace": (
        engine.SnapshotKeyspace, aio.SnapshotKeyspace, ("get_cached",), OPERATORS,
    ),
    "Transaction": (
        engine.Transaction,
        aio.Transaction,
        (
            *WORKSPACE, *HOLDER, "begin_savepoint", "commit_at_once", "end_savepoint", "finish",
            "has_savepoint", "lock_owner", "lock_table", "locked", "prepare", "refusal",
            "request_lock", "take_lock", "wants_end", "widen_reads",
        ),
        OPERATORS,
    ),
    "TransactionKeyspace": (
        engine.TransactionKeyspace, aio.TransactionKeyspace, WORKSPACE, OPERATORS,
    ),
    # `aclose` is the name that asynchronous iterators have; `entries_passed` is an account for
    # tests.
    "Cursor": (UserCursor, aio.Cursor, ("close", "entries_passed"), ("aclose",)),
}  # fmt: skip


def public(face: type) -> set[str]:
    return {name for name in dir(face) if not name.startswith("_")}


@pytest.mark.parametrize("name", FACES)
def test_both_faces_have_the_same_names(name: str) -> None:
    plain, awaited, lacks, besides = FACES[name]
    found = public(plain) - public(awaited)
    assert found <= set(lacks)
    # The fields of plain twins are no names of their classes.
    assert PURE or found == set(lacks)
    assert public(awaited) - public(plain) == set(besides)


@pytest.mark.parametrize("name", FACES)
def test_calls_of_the_same_name_take_the_same_arguments(name: str) -> None:
    plain, awaited, _, _ = FACES[name]
    for each in sorted(public(plain) & public(awaited)):
        one, other = getattr(plain, each), getattr(awaited, each)
        if callable(one):
            names = [list(inspect.signature(call).parameters) for call in (one, other)]
            assert names[0] == names[1], each


def test_no_guide_names_what_is_lacking(root: Path) -> None:
    lacking = {name for face, each in FACES.items() if face != "Cursor" for name in each[2]}
    lacking -= set(MAPPING)
    text = "".join(path.read_text() for path in sorted((root / "docs" / "guide").glob("*.md")))
    named = set(re.findall(r"\b(?:db|txn|view|metrics|events)\.([a-z_]+)", text + "db.begin"))
    assert named & lacking == {"begin"}


def test_what_a_database_tells_of_itself(tmp_path: Path) -> None:
    async def main() -> None:
        settings = holdfast.DatabaseSettings(sync_interval_ms=20)
        async with await aio.open(tmp_path / "db", settings=settings) as db:
            assert db.settings == settings
            await db.put(b"k", b"v")
            report = await db.why_slow()
            assert report.causes[0].name == "sync"
            async with db.transaction(isolation="snapshot", durability="none") as txn:
                assert (txn.isolation, txn.read_only, txn.durability) == ("snapshot", False, "none")
            async with db.transaction(read_only=True) as txn, db.snapshot() as view:
                assert (txn.isolation, txn.read_only) == ("serializable", True)
                assert txn.durability is None
                assert txn.seq == view.seq == 1
            with pytest.raises(holdfast.DatabaseClosedError):
                view.seq

    asyncio.run(main())


def test_a_feed_begins_with_what_a_snapshot_has(tmp_path: Path) -> None:
    async def main() -> None:
        async with await aio.open(tmp_path / "db") as db:
            await db.put(b"before", b"1")
            async with db.snapshot() as view:
                await db.put(b"behind", b"2")
                copy = {key: value async for key, value in view.items()}
                since = view.seq
            async for change in db.changes(since):
                copy.update({op.key: op.value for op in change.operations})
            assert copy == {b"before": b"1", b"behind": b"2"}

    asyncio.run(main())


def test_a_backup_tells_how_far_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        seen: list[tuple[int, int]] = []
        async with await aio.open(tmp_path / "db") as db:
            await db.put(b"k", bytes(1000))
            await db.flush()
            await db.backup(tmp_path / "copy", progress=lambda *each: seen.append(each))
        assert sum(size for size, _ in seen) == seen[-1][1] > 0

    asyncio.run(main())


def test_another_key_and_a_digest(tmp_path: Path) -> None:
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)

    async def main() -> None:
        seen: list[tuple[int, int]] = []
        async with await aio.open(tmp_path / "db", key=old) as db:
            await db.put(b"k", b"v")
            await db.flush()
            await db.rekey(new)
            await db.rekey(rewrite=True, progress=lambda *each: seen.append(each))
            with pytest.raises(TypeError, match="key"):
                await db.rekey(17)  # type: ignore[arg-type]
            root = await db.root_digest()
        assert seen
        with pytest.raises(holdfast.WrongKeyError):
            await aio.open(tmp_path / "db", key=old)
        async with await aio.open(tmp_path / "db", key=new, root=root) as db:
            assert await db.get(b"k") == b"v"
        async with await aio.open(tmp_path / "plain") as db:
            with pytest.raises(holdfast.WrongKeyError):
                await db.rekey(new)

    asyncio.run(main())


COUNT = FIRST_ROWS * 3 + 5
PAIRS = [(b"%04d" % number, b"v" * (number % 7)) for number in range(COUNT)]


def rows_of(columns: Any) -> list[Any]:
    """Return the rows of columns, as the plain guide reads them."""
    parts = []
    for data, offsets in (
        (columns.keys, columns.key_offsets),
        (columns.values, columns.value_offsets),
    ):
        if data is not None:
            places = struct.unpack(f"={len(columns) + 1}q", offsets)
            parts.append([bytes(data[a:b]) for a, b in itertools.pairwise(places)])
    return parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))


def scanned(path: Path, body: Any) -> None:
    async def main() -> None:
        async with await aio.open(path / "db") as db:
            await db.put_many(PAIRS)
            await body(db)

    asyncio.run(main())


@pytest.mark.parametrize("what", ["items", "keys", "values"])
def test_chunks_and_columns_and_rows_follow_each_other(tmp_path: Path, what: str) -> None:
    expected = {"items": PAIRS, "keys": [k for k, _ in PAIRS], "values": [v for _, v in PAIRS]}

    async def body(db: aio.Database) -> None:
        rows = getattr(db, what)()
        found = await rows.next_chunk(2)
        assert len(found) == 2
        columns = await rows.next_columns(3)
        assert len(columns) == 3
        assert (columns.keys is None, columns.values is None) == (what == "values", what == "keys")
        found += rows_of(columns)
        # That reads ahead, and what is there comes first.
        found.append(await anext(rows))
        assert len(rows._rows) == FIRST_ROWS - 1
        columns = await rows.next_columns(FIRST_ROWS + 1)
        assert len(columns) == FIRST_ROWS + 1
        found += rows_of(columns)
        found.append(await anext(rows))
        assert await rows.next_chunk(0) == []
        found += await rows.next_chunk(COUNT)
        assert found == expected[what]
        assert await rows.next_chunk(1) == []
        columns = await rows.next_columns(1)
        assert len(columns) == 0
        assert (columns.keys is None, columns.values is None) == (what == "values", what == "keys")
        with pytest.raises(StopAsyncIteration):
            await anext(rows)

    scanned(tmp_path, body)


def test_columns_to_the_end(tmp_path: Path) -> None:
    async def body(db: aio.Database) -> None:
        rows, found = db.items(), []
        while columns := await rows.next_columns(20):
            found += rows_of(columns)
        assert found == PAIRS

    scanned(tmp_path, body)


def test_counts_that_are_none(tmp_path: Path) -> None:
    async def body(db: aio.Database) -> None:
        rows = db.items()
        await anext(rows)
        for call in (rows.next_chunk, rows.next_columns):
            with pytest.raises(ValueError, match="must not be negative"):
                await call(-1)
            with pytest.raises(TypeError):
                await call("1")  # type: ignore[arg-type]
        assert await rows.next_chunk(COUNT) == PAIRS[1:]

    scanned(tmp_path, body)


@pytest.mark.parametrize("first", ["next_chunk", "next_columns"])
@pytest.mark.parametrize("then", ["next_chunk", "next_columns", "smaller", "anext"])
def test_a_request_that_is_cancelled_loses_no_row(tmp_path: Path, first: str, then: str) -> None:
    async def body(db: aio.Database) -> None:
        rows: aio.Cursor[Any] = db.items()
        request = asyncio.ensure_future(getattr(rows, first)(10))
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        if then == "next_chunk":
            found = await rows.next_chunk(10)
        elif then == "anext":
            found = [await anext(rows)]
        else:
            found = rows_of(await rows.next_columns(10 if then == "next_columns" else 3))
        assert len(found) == {"next_chunk": 10, "anext": 1, "next_columns": 10, "smaller": 3}[then]
        found += await rows.next_chunk(COUNT)
        assert found == PAIRS

    scanned(tmp_path, body)


@pytest.mark.parametrize("call", ["next_chunk", "next_columns"])
def test_a_scan_that_failed_gives_no_row_that_was_read_ahead(tmp_path: Path, call: str) -> None:
    async def body(db: aio.Database) -> None:
        txn = db.transaction()
        rows = txn.items()
        await anext(rows)
        await txn.rollback()
        for _ in range(2):
            with pytest.raises(holdfast.DatabaseClosedError):
                await getattr(rows, call)(COUNT)
        with pytest.raises(holdfast.DatabaseClosedError):
            await anext(rows)

    scanned(tmp_path, body)


def test_a_scan_that_was_closed_has_no_rows(tmp_path: Path) -> None:
    async def body(db: aio.Database) -> None:
        rows = db.keys()
        await anext(rows)
        await rows.aclose()
        assert await rows.next_chunk(5) == []
        assert len(await rows.next_columns(5)) == 0
        reading = db.items()
        request = asyncio.ensure_future(reading.next_chunk(5))
        await asyncio.sleep(0)
        await reading.aclose()
        assert await request == []

    scanned(tmp_path, body)
