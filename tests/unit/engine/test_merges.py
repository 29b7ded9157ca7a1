"""Goal: merges through the whole engine: what others write is no conflict, what reads is one; a
function that is missing or raises loses nothing; a key with very many operands is read in short
time; older versions refuse a database that has merges.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast.aio
from holdfast.base import (
    PURE,
    ConflictError,
    DatabaseClosedError,
    FormatError,
    LimitError,
    MergeError,
    ReadOnlyError,
    marks_seen,
)
from holdfast.engine import Database, Operation, open_database
from holdfast.env import CrashPoint, SimEnv
from holdfast.lsm import merged
from holdfast.manifest import edit as edits
from holdfast.merge import MergeFunction, Merges, unpack_set
from holdfast.testing.workload import TINY
from holdfast.wal import LogWriter

KEPT = replace(TINY, wal_keep_bytes=1 << 20)
DURABILITIES = [None, "commit", "interval", "none"]


@pytest.fixture
def db() -> Iterator[Database]:
    with open_database("/db", settings=KEPT, env=SimEnv()) as database:
        yield database
        assert [] == database._engine.snapshots.live()


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("name", ["default", "other"])
def test_each_built_in_function(db: Database, name: str, durability: str | None) -> None:
    space = db.keyspace(name)
    for _ in range(3):
        space.add(b"n", durability=durability)
    space.add(b"n", -10, durability=durability)
    space.merge(b"high", "max", 3, durability=durability)
    space.merge(b"high", "max", -3, durability=durability)
    space.merge(b"low", "min", 3, durability=durability)
    space.merge(b"low", "min", -3, durability=durability)
    space.merge(bytearray(b"log"), "append", memoryview(b"one "), durability=durability)
    space.merge(b"log", "append", b"two", durability=durability)
    space.merge(b"tags", "union", [b"red", b"blue"], durability=durability)
    space.merge(b"tags", "union", {b"red"}, durability=durability)
    for _ in range(2):
        assert [b"-7", b"3", b"-3", b"one two"] == space.get_many([b"n", b"high", b"low", b"log"])
        assert {b"red", b"blue"} == unpack_set(space[b"tags"])
        assert b"n" in space
        assert 5 == len(space)
        db.flush()
        db.compact()


def test_what_cannot_be_merged_is_refused_at_once(db: Database) -> None:
    for key, function, operand, error in (
        ("k", "add", 1, TypeError), (b"k", "add", b"1", TypeError), (b"k", "append", 1, TypeError),
        (b"k" * 70_000, "add", 1, LimitError), (b"k", "add", 10**1000, LimitError),
        (b"k", "no such", b"", MergeError),
    ):  # fmt: skip
        with pytest.raises(error):
            db.merge(key, function, operand)
        with db.transaction() as txn, pytest.raises(error):
            txn.merge(key, function, operand)
    assert [] == list(db.keys())
    with pytest.raises(ValueError, match="durability"):
        db.add(b"k", durability="often")
    other = db.keyspace("other")
    db.drop_keyspace("other")
    with pytest.raises(DatabaseClosedError):
        other.add(b"k")


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_add_behind_the_first_one_is_refused_alike(durability: str | None) -> None:
    """The first one marks the manifest; later ones do not ask for that."""
    db = open_database("/db", settings=KEPT, env=SimEnv())
    other = db.keyspace("other")
    for space in (db, other):
        space.add(b"n", 1 << 62, durability=durability)
        space.add(b"n", -(1 << 63), durability=durability)
        for amount, error in ((1.5, TypeError), (True, TypeError), (10**1000, LimitError)):
            with pytest.raises(error):
                space.add(b"n", amount, durability=durability)  # type: ignore[arg-type]
        space.add(b"n", 10**999, durability=durability)
        assert b"%d" % (10**999 - (1 << 62)) == space[b"n"]
    db.drop_keyspace("other")
    with pytest.raises(DatabaseClosedError):
        other.add(b"n", durability=durability)
    db.close()
    with pytest.raises(DatabaseClosedError):
        db.add(b"n", durability=durability)


def test_whoever_only_reads_merges_nothing() -> None:
    machine = SimEnv()
    with open_database("/db", env=machine) as db:
        db.add(b"n", 4)
    with open_database("/db", env=machine, read_only=True) as db:
        assert b"4" == db[b"n"]
        with pytest.raises(ReadOnlyError):
            db.add(b"n")
        with db.transaction() as txn, pytest.raises(ReadOnlyError):
            txn.add(b"n")


# -- transactions


@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
def test_transactions_that_only_add_do_not_conflict(db: Database, isolation: str) -> None:
    db[b"n"] = b"1"
    transactions = [db.transaction(isolation=isolation) for _ in range(4)]
    for number, txn in enumerate(transactions):
        txn.add(b"n", 10**number)
    for txn in reversed(transactions):
        txn.commit()
    assert b"1112" == db[b"n"]


def test_who_read_the_number_conflicts_with_an_add(db: Database) -> None:
    for read in (
        lambda txn: txn.get(b"n"),
        lambda txn: list(txn.items()),
        lambda txn: (txn.add(b"n"), txn.get(b"n")),
        lambda txn: txn.insert(b"n", b""),
    ):
        txn = db.transaction()
        read(txn)
        txn[b"other"] = b""
        db.add(b"n")
        with pytest.raises(ConflictError) as caught:
            txn.commit()
        assert b"n" == caught.value.key
    # And members of one group with each other.
    one, two = db.transaction(), db.transaction()
    two.get(b"n")
    two[b"other"] = b""
    one.add(b"n")
    one.commit()
    with pytest.raises(ConflictError):
        two.commit()


def test_adds_of_one_group_do_not_conflict_and_who_read_loses_to_them() -> None:
    machine = SimEnv(1)
    db = open_database("/db", env=machine)
    db[b"n"] = b"0"
    txns = [db.transaction() for _ in range(6)]
    for number, txn in enumerate(txns):
        if number == 3:
            txn[b"seen"] = txn[b"n"]
        elif number == 4:
            txn[b"seen"] = b"".join(txn.values())
        else:
            txn.add(b"n", 10**number)
    outcomes: dict[int, object] = {}
    leading = machine.mutex()
    leading.acquire()

    def hold() -> None:
        db._engine.write_path.exclusive(lambda: (leading.acquire(), leading.release()))

    def commit(number: int) -> None:
        try:
            txns[number].commit()
        except ConflictError as error:
            outcomes[number] = error.key
        else:
            outcomes[number] = "committed"

    tasks = [machine.spawn("holder", hold)]
    machine.sleep(0.01)
    for number in range(6):
        tasks.append(machine.spawn(f"{number}", lambda number=number: commit(number)))  # type: ignore[misc]
        machine.sleep(0.01)
    leading.release()
    for task in tasks:
        task.join()
    expected = {number: b"n" if number in (3, 4) else "committed" for number in range(6)}
    assert expected == outcomes
    assert b"100111" == db[b"n"]
    assert b"seen" not in db
    db.close()


def test_who_writes_the_key_at_the_level_snapshot_conflicts_with_an_add(db: Database) -> None:
    txn = db.transaction(isolation="snapshot")
    txn[b"n"] = b"%d" % (int(txn.get(b"n", b"0")) + 1)  # type: ignore[call-overload]
    db.add(b"n", 5)
    with pytest.raises(ConflictError):
        txn.commit()
    assert b"5" == db[b"n"]


def test_own_operands_are_seen_over_the_snapshot(db: Database) -> None:
    db[b"n"] = b"5"
    with db.transaction() as txn:
        txn.add(b"n", 2)
        db.add(b"n", 100)
        assert b"7" == txn[b"n"]
        assert [(b"n", b"7")] == list(txn.items()) == list(txn.items(reverse=True))
        with txn.savepoint() as point:
            txn.add(b"n", 1)
            assert b"8" == txn[b"n"]
            txn.delete(b"n")
            txn.add(b"n", 1)
            assert b"1" == txn[b"n"]
            txn.delete_range(b"a", b"z")
            txn.add(b"n", 2)
            assert [b"2"] == list(txn.values())
            assert b"2" == txn[b"n"]
            point.rollback()
        assert b"7" == txn[b"n"]
        txn.rollback()
    assert b"105" == db[b"n"]


def test_many_own_operands_are_folded_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    folded: list[int] = []
    fold = Merges.fold

    def counting(self: Merges, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        folded.append(len(entries))
        return fold(self, key, base, entries)

    monkeypatch.setattr(Merges, "fold", counting)
    with db.transaction() as txn:
        for number in range(200):
            txn.add(b"n")
            assert b"%d" % (number + 1) == txn[b"n"]
        with txn.savepoint() as point:
            for _ in range(40):
                txn.add(b"n")
            assert b"240" == txn[b"n"]
            point.rollback()
        assert b"200" == txn[b"n"]
        txn.add(b"n")
        assert b"201" == txn[b"n"]
    assert sum(folded) < 3000
    assert b"201" == db[b"n"]


# -- functions of the user


def test_a_function_that_is_not_registered_is_missed_when_it_is_needed() -> None:
    machine = SimEnv()
    functions = {"last": MergeFunction(lambda _, operands: operands[-1])}
    with open_database("/db", settings=TINY, env=machine, merges=functions) as db:
        db.merge(b"k", "last", b"1")
        db[b"plain"] = b"x"
        # A close would fold the operand.
        machine = CrashPoint(machine).state("none").build()
    for read_only in (True, False):
        with open_database("/db", env=machine, read_only=read_only) as db:
            assert b"x" == db[b"plain"]
            assert [b"k", b"plain"] == list(db.keys())
            for call in (lambda: db[b"k"], lambda: list(db.items()), lambda: db.get_many([b"k"])):
                with pytest.raises(MergeError, match=r"'last' is not registered.*merges="):
                    call()
            if not read_only:
                with pytest.raises(MergeError):
                    db.merge(b"k", "last", b"2")
                # Nothing is lost, whatever is done with it.
                db.flush()
                db.compact()
                assert not db.verify().errors
    with open_database("/db", env=machine, merges=functions) as db:
        assert b"1" == db[b"k"]
        db.merge(b"k", "last", b"2")
        assert [b"2", b"x"] == list(db.values())


def test_a_function_that_raises_wedges_nothing_and_loses_nothing() -> None:
    machine = SimEnv()
    good = False

    def moody(value: bytes | None, operands: Sequence[bytes]) -> bytes:
        if not good:
            raise ZeroDivisionError("not today")
        return b",".join([value or b"", *operands])

    with open_database("/db", settings=TINY, env=machine, merges={"moody": moody}) as db:
        for number in range(40):
            db.merge(b"k", "moody", b"%d" % number, durability="none")
            db.put(b"x%02d" % number, b"y" * 300, durability="none")
            if number % 8 == 0:
                db.flush()
        db.compact()
        with pytest.raises(MergeError, match="'moody' failed on key b'k': ZeroDivisionError: not"):
            db.get(b"k")
        assert 40 == len(list(db.items(prefix=b"x")))
        good = True
        expected = b",".join([b"", *(b"%d" % number for number in range(40))])
        assert expected == db[b"k"]
        db.compact()
        good = False
        # By now it is a value like any other.
        assert expected == db[b"k"]


def test_a_value_that_is_no_number_may_be_written_over(db: Database) -> None:
    db[b"n"] = b"many"
    db.add(b"n", 1)
    for _ in range(2):
        with pytest.raises(MergeError, match="b'many' is not a decimal integer"):
            db.get(b"n")
        db.flush()
        db.compact()
    db[b"n"] = b"2"
    db.add(b"n", 1)
    assert b"3" == db[b"n"]
    db.delete(b"n")
    db.add(b"n", 1)
    assert b"1" == db[b"n"]


# -- many operands


def test_a_key_with_very_many_operands_is_read_in_short_time(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operand is folded once, for readers of now and of a snapshot; so n adds and n reads take
    time in proportion to n.
    """
    folded: list[int] = []
    fold = Merges.fold

    def counting(self: Merges, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        folded.append(len(entries))
        return fold(self, key, base, entries)

    monkeypatch.setattr(Merges, "fold", counting)
    count, view = 3000, None
    engine = db._engine
    for number in range(1, count + 1):
        db.add(b"n", durability="none")
        if number == 1000:
            view = db.snapshot()
        if number % 5 == 0:
            assert b"%d" % number == db[b"n"]
            # The plain twin of cursors walks through all versions.
            if number % 50 == 0 and not PURE:
                assert [b"%d" % number] == list(db.values()) == list(db.values(reverse=True))
            if view is not None:
                assert b"1000" == view[b"n"]
    assert view is not None
    view.close()
    # Folds of reads, and those of flushes and compactions.
    # After each of the 44 flushes, which end with the memtable full, they are worked through anew.
    assert sum(folded) < 12 * count
    assert "lsm.merge_remembered" in marks_seen()
    assert engine.counters.flushes > 3


def test_operands_that_cannot_be_combined_do_not_pile_up_above_snapshots() -> None:
    """Each reader keeps its own value, and few operands."""

    def last(value: bytes | None, operands: Sequence[bytes]) -> bytes:
        return b",".join([*(value or b"").split(b","), *operands][-3:])

    def stored(database: Database) -> int:
        levels = database._engine.trees[database.id].version.levels
        return sum(info.entry_count for level in levels for info in level)

    count, views = 600, {}
    with open_database("/db", env=SimEnv(7), settings=TINY, merges={"last": last}) as database:
        database[b"k"] = b"a,b,c"
        for number in range(count):
            if number % 200 == 100:
                views[number] = database.snapshot()
            database.merge(b"k", "last", b"%d" % number, durability="none")
        database.compact()
        assert b"597,598,599" == database[b"k"]
        for number, view in views.items():
            assert b"%d,%d,%d" % (number - 3, number - 2, number - 1) == view[b"k"]
        assert stored(database) == 1 + len(views)
        assert "compaction.merged_over_a_snapshot" in marks_seen()
        for view in views.values():
            view.close()
        database.compact()
        assert stored(database) == 1


def test_reads_that_work_through_many_operands_are_told_of() -> None:
    """Once: what came of them is known then, and a compaction makes values of them."""

    def last(value: bytes | None, operands: Sequence[bytes]) -> bytes:
        return operands[-1]

    def causes(database: Database) -> dict[str, str]:
        return {cause.name: cause.figure for cause in database.why_slow().causes}

    def read(database: Database) -> None:
        for key in range(120):
            assert b"79" == database[b"k%d" % key]

    with open_database("/db", env=SimEnv(7), merges={"last": last}) as database:
        for number in range(80):
            for key in range(120):
                database.merge(b"k%d" % key, "last", b"%d" % number, durability="none")
        assert "operands" not in causes(database)
        read(database)
        assert "80.0 operands for each key or row; since open 80.0" == causes(database)["operands"]
        # They are known now.
        for _ in range(5):
            read(database)
        assert "operands" not in causes(database)
        database.compact()
        before = database._engine.store.merge_tally.operands
        read(database)
        assert before == database._engine.store.merge_tally.operands


def test_what_is_known_takes_bounded_memory(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged, "KNOWN_BYTES_MAX", 2000)
    for key in range(30):
        for _ in range(20):
            db.add(b"%d" % key, durability="none")
        assert b"20" == db[b"%d" % key]
        reads = db.view.merges
        held = sum(
            len(name) + len(value) for name, found in reads._known.items() for _, value in found
        )
        assert held < 2000
        assert len(reads._known) <= 9
    assert "lsm.merges_forgotten" in marks_seen()
    for _ in range(20):
        db.merge(b"large", "append", b"x" * 200, durability="none")
    assert b"x" * 4000 == db[b"large"]
    assert b"large" not in db.view.merges._known


def test_a_merged_value_is_read_from_memory_where_it_is() -> None:
    """So that tasks need no thread for it."""
    machine, missed = SimEnv(), object()
    settings = replace(TINY, memory_bytes=4 << 20)
    with open_database("/db", settings=settings, env=machine) as db:
        db[b"n"] = b"1"
        db.flush()
        # A read brings the page into memory.
        assert b"1" == db[b"n"]
        db.add(b"n")
        assert b"2" == db.get_cached(b"n", missed)
        with db.transaction() as txn:
            txn.add(b"n")
            assert b"3" == txn.get_cached(b"n", missed)
            txn.rollback()
    with open_database("/db", env=machine) as db:
        db.add(b"n")
        # The page below it has to be read.
        assert missed is db.get_cached(b"n", missed)
        with db.transaction() as txn:
            assert missed is txn.get_cached(b"n", missed)
        assert b"3" == db[b"n"] == db.get_cached(b"n", missed)


# -- on disk


def test_an_older_version_refuses_a_database_with_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is durable before the first operand, and there is none before."""
    machine = SimEnv()
    db = open_database("/db", env=machine)
    db[b"k"] = b""
    assert not db.has_merges
    older = {tag: read for tag, read in edits._DECODERS.items() if tag != edits.Tag.HAS_MERGES}

    def open_older(found: SimEnv) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(edits, "_DECODERS", older)
            open_database("/db", env=found, create=False).close()

    open_older(CrashPoint(machine).state("none").build())
    db.add(b"n", durability="none")
    assert db.has_merges
    assert "engine.merges_marked" in marks_seen()
    crashed = CrashPoint(machine).state("none").build()
    with pytest.raises(FormatError, match="edit field 28 is of a newer version"):
        open_older(crashed)
    with open_database("/db", env=crashed) as again:
        # The operand was not synced, and the mark was.
        assert (None, True) == (again.get(b"n"), again.has_merges)
    db.close()
    with pytest.raises(FormatError):
        open_older(machine)
    with open_database("/db", env=machine) as again:
        assert b"1" == again[b"n"]


@pytest.mark.parametrize("write", ["add", "transaction"])
def test_the_mark_is_durable_before_an_operand_is_logged(
    monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    machine = SimEnv()
    append, marked = LogWriter.append, []

    def looked_at(self: LogWriter, *arguments: Any, **named: Any) -> Any:
        crashed = CrashPoint(machine).state("none").build()
        with monkeypatch.context() as patch:
            patch.setattr(LogWriter, "append", append)
            with open_database("/db", env=crashed, read_only=True) as found:
                marked.append(found.has_merges)
        return append(self, *arguments, **named)

    with open_database("/db", env=machine) as db:
        monkeypatch.setattr(LogWriter, "append", looked_at)
        db[b"k"] = b""
        if write == "add":
            db.add(b"n")
        else:
            with db.transaction() as txn:
                txn.add(b"n")
        assert [False, True] == marked
        monkeypatch.undo()


def test_the_feed_of_changes_tells_function_and_operand(db: Database) -> None:
    db.add(b"n", -2)
    with db.transaction() as txn:
        txn.merge(b"log", "append", b"x")
        txn.merge(b"tags", "union", [b"b", b"a"])
        txn[b"p"] = b"v"
    first, second = db.changes()
    assert (Operation("merge", "default", b"n", b"-2", "add"),) == first.operations
    assert (
        Operation("merge", "default", b"log", b"x", "append"),
        Operation("merge", "default", b"tags", b"\x01a\x01b", "union"),
        Operation("put", "default", b"p", b"v", None),
    ) == second.operations


# -- threads, schedules and tasks


@pytest.mark.parametrize("durability", [None, "none"])
def test_threads_lose_no_add(tmp_path: Path, durability: str | None) -> None:
    each, threads = 300, 4
    with open_database(str(tmp_path / "db"), settings=TINY) as db:

        def work(number: int) -> None:
            for turn in range(each):
                db.add(b"n", durability=durability)
                with db.transaction(durability=durability) as txn:
                    txn.add(b"t", 2)
                if turn % 50 == number:
                    db.flush()
                    int(db[b"n"])

        run_all([lambda number=number: work(number) for number in range(threads)])
        assert [b"%d" % (each * threads), b"%d" % (2 * each * threads)] == list(db.values())
        db.compact()
    with open_database(str(tmp_path / "db")) as db:
        assert b"%d" % (each * threads) == db[b"n"]


def run_all(works: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    tasks = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("seed", range(8))
def test_schedules_lose_no_add_and_a_crash_no_acknowledged_one(seed: int) -> None:
    machine = SimEnv(seed)
    db = open_database("/db", settings=TINY, env=machine)

    def work(number: int) -> None:
        for turn in range(8):
            db.add(b"n")
            db.merge(b"all", "union", [b"%d/%d" % (number, turn)])
            db.put(b"plain %d" % number, b"x" * 300, durability="none")

    tasks = [machine.spawn(f"worker-{n}", lambda n=n: work(n)) for n in range(3)]
    for task in tasks:
        task.join()
    for env in (machine, CrashPoint(machine).state("none").build()):
        again = db if env is machine else open_database("/db", env=env)
        assert b"24" == again[b"n"]
        assert {b"%d/%d" % (n, turn) for n in range(3) for turn in range(8)} == unpack_set(
            again[b"all"]
        )
        again.close()
    assert machine.unreturned() == []


def test_tasks_lose_no_add(tmp_path: Path) -> None:
    async def work(db: holdfast.aio.Database, other: Any) -> None:
        for _ in range(10):
            await db.add(b"n")
            await other.merge(b"log", "append", b"x", durability="none")
            async with db.transaction() as txn:
                await txn.add(b"n", 10)
                await txn.merge(b"high", "max", 5)

    async def main() -> None:
        functions = {"first": lambda value, operands: value or operands[0]}
        async with await holdfast.aio.open(str(tmp_path / "db"), merges=functions) as db:
            other = await db.keyspace("other")
            await asyncio.gather(*(work(db, other) for _ in range(8)))
            assert [b"880", b"5"] == await db.get_many([b"n", b"high"])
            assert b"x" * 80 == await other.get(b"log")
            await db.merge(b"f", "first", b"1", durability="interval")
            await db.merge(b"f", "first", b"2")
            async with db.transaction() as txn:
                await txn.merge(b"f", "first", b"3")
                assert b"1" == await txn.get(b"f")
                assert b"880" == await txn.get(b"n")
            assert [(b"f", b"1"), (b"high", b"5"), (b"n", b"880")] == [
                row async for row in db.items()
            ]

    asyncio.run(main())


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
def test_a_function_that_raises_no_exception_ends_no_thread(error: BaseException) -> None:
    """A flush calls it in a thread of the database, for which others wait."""
    good = True

    def leaves(value: bytes | None, operands: Sequence[bytes]) -> bytes:
        if not good:
            raise error
        return b",".join([value or b"", *operands])

    def combine(operands: Sequence[bytes]) -> bytes:
        return leaves(operands[0], operands[1:])

    merges = {"leaves": MergeFunction(leaves, combine)}
    with open_database("/db", settings=TINY, env=SimEnv(), merges=merges) as db:
        db.put(b"k", b"0")
        db.flush()
        good = False
        for number in (b"1", b"2"):
            db.merge(b"k", "leaves", number)
            db.merge(b"k", "leaves", number)
            db.flush()
        with pytest.raises(MergeError, match=type(error).__name__):
            db.get(b"k")
        db.compact()
        good = True
        assert b"0,1,1,2,2" == db[b"k"]
        db.compact()
        assert b"0,1,1,2,2" == db[b"k"]


def test_an_interrupt_that_a_function_raises_itself_ends_no_thread() -> None:
    """One of the user reaches the main thread only; elsewhere it is an error as any other."""
    good = True

    def interrupted(value: bytes | None, operands: Sequence[bytes]) -> bytes:
        if not good:
            raise KeyboardInterrupt
        return b",".join([value or b"", *operands])

    merges = {
        "interrupted": MergeFunction(interrupted, lambda operands: interrupted(None, operands))
    }
    with open_database("/db", settings=TINY, env=SimEnv(), merges=merges) as db:
        db.put(b"k", b"0")
        db.flush()
        good = False
        for _ in range(2):
            db.merge(b"k", "interrupted", b"1")
        db.flush()
        with pytest.raises(KeyboardInterrupt):
            db.get(b"k")
        good = True
        assert db[b"k"].startswith(b"0,")
