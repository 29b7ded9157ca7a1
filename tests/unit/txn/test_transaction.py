"""Goal: a transaction begins, reads, writes and ends as its docstrings say, and lets go of all it
holds whatever ends it.
"""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.base import (
    ConflictError,
    DatabaseClosedError,
    DatabasePoisonedError,
    DiskFullError,
    LimitError,
    ReadOnlyError,
    marks_seen,
)
from holdfast.engine import Database, open_database
from holdfast.env import FaultEnv, FaultRule, SimEnv
from holdfast.txn import Transaction
from holdfast.txn import transaction as room
from tests.model.strategies import tiny

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def db() -> Iterator[Database]:
    with open_database("/db", env=SimEnv()) as database:
        yield database
        assert [] == database._engine.snapshots.live()


def refused(txn: Transaction, why: str) -> None:
    """Each use says why it is refused."""
    uses: list[Callable[[], object]] = [
        lambda: txn.get(b"a"),
        lambda: txn[b"a"],
        lambda: b"a" in txn,
        lambda: txn.put(b"a", b""),
        lambda: txn.delete(b"a"),
        lambda: txn.delete_range(b"a", b"b"),
        lambda: txn.items(),
        lambda: len(txn),
        lambda: txn.get_many([b"a"]),
        lambda: txn.put_many({b"a": b""}),
        txn.commit,
        txn.savepoint,
        txn.__enter__,
        lambda: txn.keyspace("default"),
    ]
    for use in uses:
        with pytest.raises(DatabaseClosedError, match=why):
            use()
    txn.rollback()
    assert not txn.is_open


def test_it_commits_at_the_end_of_its_block(db: Database) -> None:
    with db.transaction() as txn:
        txn[b"a"] = b"1"
        assert b"a" not in db
        assert txn.is_open
    assert b"1" == db[b"a"]
    refused(txn, "the transaction was committed")


def test_an_exception_rolls_back(db: Database) -> None:
    txn = db.transaction()
    with pytest.raises(ZeroDivisionError), txn:
        txn[b"a"] = b"%d" % (1 // 0)
    assert b"a" not in db
    refused(txn, "the transaction was rolled back")


def test_an_end_inside_the_block_is_the_end(db: Database) -> None:
    with db.transaction() as txn:
        txn[b"a"] = b"1"
        txn.commit()
    with db.transaction() as txn:
        txn[b"b"] = b"1"
        txn.rollback()
    assert {b"a": b"1"} == dict(db.items())


def test_it_is_a_mapping(db: Database) -> None:
    db.put_many({b"a": b"1", b"b": b"2"})
    with db.transaction() as txn:
        txn.update({b"c": b"3"})
        assert b"2" == txn.pop(b"b")
        assert b"4" == txn.setdefault(b"d", b"4")
        assert [b"a", b"c", b"d"] == list(txn)
        assert 3 == len(txn)
        assert [(b"d", b"4"), (b"c", b"3")] == list(txn.items(reverse=True, limit=2))
        assert [b"3", b"4"] == list(txn.values(b"b"))
        assert [b"c"] == list(txn.keys(prefix=b"c"))
        assert [b"1", None] == txn.get_many([b"a", b"b"])
        with pytest.raises(KeyError):
            del txn[b"b"]
        txn.clear()
        assert 0 == len(txn)
        txn[b"e"] = b"5"
    assert {b"e": b"5"} == dict(db.items())
    assert txn != db.transaction().rollback()


def test_an_iterator_sees_the_own_writes_that_were_made_before(db: Database) -> None:
    db.put_many({b"a": b"1", b"b": b"2", b"c": b"3"})
    with db.transaction() as txn:
        txn[b"aa"] = b""
        for key in txn.keys():
            del txn[key]
            txn[b"z" + key] = b""
        assert [b"za", b"zaa", b"zb", b"zc"] == list(txn)


def test_keyspaces_are_atomic_together(db: Database) -> None:
    db.keyspace("other")
    with pytest.raises(ZeroDivisionError), db.transaction() as txn:
        txn[b"a"] = b"1"
        txn.keyspace("other")[b"a"] = b"2"
        raise ZeroDivisionError
    with db.transaction() as txn:
        other = txn.keyspace("other")
        assert other is txn.keyspace("other")
        assert txn is txn.keyspace("default")
        assert "other" == other.name
        txn[b"a"] = b"1"
        other[b"a"] = b"2"
        assert [(b"a", b"2")] == list(other.items())
    assert (b"1", b"2") == (db[b"a"], db.keyspace("other")[b"a"])
    with pytest.raises(DatabaseClosedError, match="was committed"):
        other.get(b"a")
    one, two = db.transaction(), db.transaction()
    for txn in (one, two):
        txn.keyspace("other").get(b"n")
        txn[b"n%d" % txn.seq] = b""
        txn.keyspace("other")[b"n"] = b""
    one.commit()
    with pytest.raises(ConflictError, match="keyspace 'other'"):
        two.commit()


def test_a_keyspace_that_is_new_and_one_that_goes(db: Database) -> None:
    txn = db.transaction()
    with pytest.raises(KeyError):
        txn.keyspace("new", create=False)
    new = txn.keyspace("new")
    new[b"a"] = b"1"
    assert "new" in db.keyspaces()
    db.drop_keyspace("new")
    with pytest.raises(DatabaseClosedError, match="was dropped"):
        new.get(b"b")
    txn.rollback()
    txn = db.transaction()
    txn.keyspace("new")[b"a"] = b"1"
    db.drop_keyspace("new")
    txn[b"a"] = b"1"
    with pytest.raises(DatabaseClosedError, match="a keyspace of this commit was dropped"):
        txn.commit()
    assert b"a" not in db


def test_a_read_only_transaction_writes_nothing_and_always_commits(db: Database) -> None:
    db[b"a"] = b"1"
    with db.transaction(read_only=True) as txn:
        assert txn.read_only
        assert b"1" == txn[b"a"]
        db[b"a"] = b"2"
        assert [(b"a", b"1")] == list(txn.items())
        for write in (
            lambda: txn.put(b"a", b""),
            lambda: txn.delete(b"a"),
            lambda: txn.delete_range(None, None),
        ):
            with pytest.raises(ReadOnlyError, match="the transaction is read-only"):
                write()
        with pytest.raises(KeyError):
            txn.keyspace("absent")
    with db.transaction() as txn:
        txn.get(b"a")
        db[b"a"] = b"3"


def test_what_begin_refuses(db: Database) -> None:
    with pytest.raises(ValueError, match="isolation is 'dirty'; it must be one of"):
        db.transaction(isolation="dirty")
    with pytest.raises(ValueError, match="durability is 'some'"):
        db.transaction(durability="some")
    txn = db.transaction(isolation="snapshot", durability="interval")
    assert ("snapshot", "interval", False) == (txn.isolation, txn.durability, txn.read_only)
    txn[b"a"] = b""
    txn.commit()


def test_a_database_that_is_only_read(db: Database) -> None:
    env = SimEnv()
    open_database("/db", env=env).close()
    with open_database("/db", env=env, read_only=True) as reader:
        txn = reader.transaction()
        assert txn.read_only
        with pytest.raises(ReadOnlyError):
            txn[b"a"] = b""
        txn.rollback()


@pytest.mark.parametrize("stop", [b"k3", None])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_that_was_stopped_depends_on_what_it_gave(
    db: Database, stop: bytes | None, reverse: bool
) -> None:
    """Three of k0..k5: the range is to the last row that was given, in either direction."""
    db.put_many({b"k%d" % number: b"" for number in range(6)})
    for changed in (b"k0", b"k1x", b"k2", b"k2x", b"k3", b"k5", b"k5x"):
        txn = db.transaction(durability="none")
        rows = txn.keys(b"k0", stop, reverse=reverse, limit=2)
        given = list(rows)
        txn[b"mine"] = b""
        db.put(changed, b"new", durability="none")
        low, high = (given[-1], stop or b"\xff") if reverse else (b"k0", given[-1] + b"\0")
        if low <= changed < high:
            with pytest.raises(ConflictError) as caught:
                txn.commit()
            assert (changed, "default", None) == (
                caught.value.key,
                caught.value.keyspace,
                caught.value.stop,
            )
            assert caught.value.seq
            assert "txn.conflict_on_range" in marks_seen()
        else:
            txn.commit()
        if changed.endswith(b"x"):
            del db[changed]


def test_nothing_was_read_before_the_first_row(db: Database) -> None:
    db[b"a"] = b"1"
    with db.transaction() as txn:
        rows = txn.items()
        assert [] == list(txn.items(limit=0))
        txn[b"mine"] = b""
        db[b"a"] = b"2"
    assert rows is not None


def test_a_range_delete_is_seen_by_keys_and_ranges(db: Database) -> None:
    for isolation in ("serializable", "snapshot"):
        for depends in (
            lambda txn: (txn.get(b"m"), txn.put(b"m", b"")),
            lambda txn: (list(txn.items(b"l", b"n")), txn.delete_range(b"l", b"n")),
        ):
            txn = db.transaction(isolation=isolation)
            depends(txn)
            db.delete_range(b"a", b"m\0")
            with pytest.raises(ConflictError):
                txn.commit()


def test_a_blind_write_depends_on_nothing(db: Database) -> None:
    txn = db.transaction()
    txn[b"a"] = b"mine"
    assert b"mine" == txn[b"a"]
    db[b"a"] = b"theirs"
    txn.commit()
    assert b"mine" == db[b"a"]


def test_reads_beyond_the_limit_of_memory_are_widened(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It depends on more than it read then, never on less."""
    monkeypatch.setattr(room, "READS_BYTES_MAX", 4000)
    for changed, lost in ((b"k0500", True), (b"k0500x", True), (b"zz", False)):
        txn = db.transaction(durability="none")
        txn.state.reads_left = 4000
        for number in range(1000):
            txn.get(b"k%04d" % number)
            list(txn.keys(b"r%04d" % number, b"r%04dx" % number))
        held = sum(len(key) + 96 for key in txn.read_keys or ())
        assert held + 200 * len(txn.ranges_read()) < 20_000
        txn[b"mine"] = b""
        db.put(changed, b"", durability="none")
        if lost:
            with pytest.raises(ConflictError):
                txn.commit()
        else:
            txn.commit()
    assert "txn.reads_widened" in marks_seen()


def test_what_is_visible_is_checked_before_the_group(db: Database) -> None:
    """One that depends on much loses there, or has the leader look at what came since only."""
    txn, other = db.transaction(), db.transaction()
    for number in range(100):
        txn.get(b"%d" % number)
        other.get(b"%d" % number)
    txn[b"mine"] = other[b"others"] = b""
    db[b"x"] = b""
    txn.commit()
    assert "txn.looked_ahead" in marks_seen()
    db[b"55"] = b""
    with pytest.raises(ConflictError, match="key b'55'"):
        other.commit()
    assert "txn.conflict_on_key" in marks_seen()


def test_a_transaction_that_is_too_large_is_refused_before_anything_happens() -> None:
    with open_database("/db", env=SimEnv(), settings=tiny(memory_bytes=1 << 16)) as db:
        txn = db.transaction()
        with pytest.raises(LimitError, match="the batch would have"):
            for number in range(100):
                txn[b"%d" % number] = b"x" * 1000
        txn.rollback()
        assert 0 == len(db)


BAD: list[tuple[object, type[Exception]]] = [
    ([(b"a", b"2"), (b"b", b"2"), (b"c", None)], TypeError),
    ([(b"a", b"2"), ("b", b"2")], TypeError),
    ([(b"a", b"2"), (b"b" * 70_000, b"2")], LimitError),
    ([(b"a", b"2"), (b"b",)], ValueError),
    ([(b"%03d" % number, b"x" * 1000) for number in range(100)], LimitError),
    (None, TypeError),
]


@pytest.mark.parametrize("name", ["default", "other"])
@pytest.mark.parametrize("method", ["put_many", "update"])
@pytest.mark.parametrize(("pairs", "error"), BAD)
def test_of_many_that_are_refused_none_is_written(
    name: str, method: str, pairs: object, error: type[Exception]
) -> None:
    with open_database("/db", env=SimEnv(), settings=tiny(memory_bytes=1 << 16)) as db:
        with db.transaction() as txn:
            space = txn.keyspace(name)
            space[b"a"] = b"1"
            with pytest.raises(error):
                getattr(space, method)(pairs)
            assert {b"a": b"1"} == dict(space.items())
            # What fits goes on as before.
            getattr(space, method)({b"d": b"3", b"e": b"4"})
            assert {b"a": b"1", b"d": b"3", b"e": b"4"} == dict(space.items())
        assert {b"a": b"1", b"d": b"3", b"e": b"4"} == dict(db.keyspace(name).items())


def test_many_are_written_in_their_order_and_into_one_memtable(db: Database) -> None:
    """What they come from may use the transaction meanwhile."""
    with db.transaction() as txn:

        def pairs() -> Iterator[tuple[bytes, bytes]]:
            for number in range(3):
                txn[b"k"] = b"of the pairs"
                yield b"k", b"%d" % number

        for _ in range(3):
            txn.put_many(pairs())
        assert b"2" == txn[b"k"]
        assert 1 == len(txn.tables)
        with pytest.raises(ZeroDivisionError):
            txn.update((b"k", b"%d" % (1 // number)) for number in (1, 0))
        txn.update([(b"k", b"3")])
        with pytest.raises(TypeError, match="encode"):
            txn.update(k=b"4")
    assert b"3" == db[b"k"]


def test_none_of_many_are_refused_where_one_is(db: Database) -> None:
    txn = db.transaction(read_only=True)
    with pytest.raises(ReadOnlyError):
        txn.put_many([])
    txn.rollback()
    with pytest.raises(DatabaseClosedError):
        txn.put_many([])
    for call in (
        lambda: db.put_many([], durability="bogus"),
        lambda: db.delete_range(b"b", b"a", durability="bogus"),
    ):
        with pytest.raises(ValueError, match="durability is 'bogus'"):
            call()


def test_a_second_thread_is_refused(db: Database) -> None:
    db[b"a"] = b"1"
    txn = db.transaction()
    inside, done = threading.Event(), threading.Event()
    seen: list[BaseException] = []

    def read(key: bytes, seq: int) -> bytes | None:
        inside.set()
        done.wait(10)
        return None

    txn.read_at = read
    thread = threading.Thread(target=lambda: txn.get(b"a"))
    thread.start()
    inside.wait(10)
    for use in (
        lambda: txn.get(b"b"),
        lambda: txn.put(b"b", b""),
        txn.items,
        txn.commit,
        lambda: txn.savepoint().__enter__(),
    ):
        try:
            use()
        except RuntimeError as error:
            seen.append(error)
    done.set()
    thread.join()
    assert 5 == len(seen)
    assert all("the transaction is in use" in str(error) for error in seen)
    txn.rollback()


def test_one_that_is_forgotten_lets_go(db: Database) -> None:
    txn = db.transaction()
    txn[b"a"] = b"1"
    rows: Any = txn.keys()
    watched = weakref.ref(txn)
    with pytest.warns(
        ResourceWarning, match="a transaction of .*test_transaction.py:[0-9]+ was never ended"
    ):
        del txn
        gc.collect()
    assert watched() is None
    assert [] == db._engine.snapshots.live()
    assert [b"a"] == list(rows)
    assert b"a" not in db


def test_cursors_end_with_their_transaction(db: Database) -> None:
    db.put_many({b"a": b"", b"b": b""})
    txn = db.transaction()
    rows = txn.keys()
    next(rows)
    txn.rollback()
    with pytest.raises(DatabaseClosedError, match="rolled back"):
        next(rows)


def test_many_cursors_cost_no_more_than_their_ranges(db: Database) -> None:
    txn = db.transaction()
    kept = [txn.keys(b"%04d" % number) for number in range(50)]
    for number in range(500):
        list(txn.keys(b"%04d" % number, b"%04dx" % number))
    assert len(txn.scans) < 200
    assert 500 == len(txn.ranges_read())
    del kept
    txn.rollback()


def test_after_a_close_it_says_so() -> None:
    db = open_database("/db", env=SimEnv())
    txn, other = db.transaction(), db.transaction()
    txn[b"a"] = b"1"
    db.close()
    with pytest.raises(DatabaseClosedError, match="the database is closed"):
        txn.get(b"b")
    with pytest.raises(DatabaseClosedError, match="the database is closed"):
        txn.commit()
    refused(
        txn, "the commit of the transaction failed: DatabaseClosedError: the database is closed"
    )
    other.rollback()


def test_a_sync_that_fails_during_a_commit_poisons_and_ends_it() -> None:
    env = FaultEnv(SimEnv())
    db = open_database("/db", env=env)
    db[b"a"] = b"1"
    txn, late = db.transaction(), db.transaction()
    assert b"1" == txn[b"a"]
    txn[b"a"] = b"2"
    late[b"b"] = b"2"
    env.add(FaultRule(kind="sync", site="wal.record.sync", error=errno.EIO))
    with pytest.raises(DatabasePoisonedError):
        txn.commit()
    refused(txn, "the commit of the transaction failed")
    assert b"1" == db[b"a"]
    with pytest.raises(DatabasePoisonedError):
        late.commit()
    with db.transaction() as reader:
        assert b"1" == reader[b"a"]
    with pytest.raises(DatabasePoisonedError):
        db.close()


def test_a_full_disk_ends_it_with_nothing_written() -> None:
    env = FaultEnv(SimEnv())
    db = open_database("/db", env=env)
    db[b"a"] = b"1"
    txn = db.transaction()
    txn[b"a"] = b"2"
    env.add(FaultRule(kind="write", site="wal.record.write", error=errno.ENOSPC))
    with pytest.raises(DiskFullError):
        txn.commit()
    assert b"1" == db[b"a"]
    db.run(lambda again: again.put(b"a", b"2"))
    assert b"2" == db[b"a"]
    db.close()


def test_a_table_that_cannot_be_read_refuses_only_who_depends_on_it() -> None:
    """The member of the group gets the error, and nothing of it is written."""
    env = FaultEnv(SimEnv())
    db = open_database("/db", env=env, settings=tiny())
    db[b"a"] = b"1"
    txn = db.transaction()
    list(txn.items())
    txn[b"mine"] = b""
    db[b"b"] = b"2" * 5000
    db.flush()
    env.add(FaultRule(kind="read", path="*.table", error=errno.EIO, times=None))
    with pytest.raises(OSError, match="Input/output error"):
        txn.commit()
    env.clear()
    assert b"mine" not in db
    db[b"c"] = b"3"
    db.close()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("durability", [None, "none"])
def test_counters_of_tasks_that_share_groups(seed: int, durability: str | None) -> None:
    """Under any schedule every increment counts once, or its task hears of it."""
    machine = SimEnv(seed)
    db = open_database("/db", env=machine, settings=tiny())
    lost = []

    def work(number: int) -> None:
        for _ in range(6):

            def step(txn: Transaction) -> None:
                n = int(txn.get(b"n", b"0"))  # type: ignore[arg-type]
                machine.sleep(0)
                txn[b"n"] = b"%d" % (n + 1)
                txn.keyspace("default")[b"by %d" % number] = b"%d" % n

            try:
                db.run(step, attempts=3, durability=durability)
            except ConflictError as error:
                assert ["the transaction was run 3 times and lost each time"] == error.__notes__
                lost.append(number)

    tasks = [machine.spawn(f"task {number}", lambda number=number: work(number))  # type: ignore[misc]
             for number in range(4)]  # fmt: skip
    for task in tasks:
        task.join()
    assert 24 - len(lost) == int(db.get(b"n", b"0"))  # type: ignore[call-overload]
    assert [] == db._engine.snapshots.live()
    db.close()


def test_members_of_one_group_are_checked_against_each_other() -> None:
    """The second of two in one group that read and write the same loses, and says to whom."""
    machine = SimEnv(1)
    db = open_database("/db", env=machine)
    db[b"n"] = b"0"
    txns = [db.transaction() for _ in range(6)]
    for number, txn in enumerate(txns):
        if number % 2:
            list(txn.items(b"m", b"o"))
        else:
            txn.get(b"n")
        txn.put(b"n", b"%d" % number) if number < 4 else txn.delete_range(b"m", b"o")
    outcomes: dict[int, object] = {}
    leading = machine.mutex()
    leading.acquire()

    def hold() -> None:
        db._engine.write_path.exclusive(lambda: (leading.acquire(), leading.release()))

    def commit(number: int) -> None:
        try:
            txns[number].commit()
        except ConflictError as error:
            outcomes[number] = error.seq
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
    assert "committed" == outcomes[0]
    assert {2} == {outcomes[number] for number in range(1, 6)}
    assert b"0" == db[b"n"]
    db.close()
