"""Goal: both twins of a transaction's beginning and end hold a snapshot from one to the other,
commit at once only where the host can, and let go of everything whatever fails.
"""

from __future__ import annotations

import gc
from types import ModuleType
from typing import Any

import pytest

from holdfast.base import PURE, DatabaseClosedError
from holdfast.txn import _transaction_c, _transaction_py
from holdfast.txn._workspace import ENDED, READ_ONLY

# The compiled twin takes compiled collaborators only, so in plain mode the plain twin is alone.
MODULES = (_transaction_py,) if PURE else (_transaction_c, _transaction_py)
TWINS = [pytest.param(module, id=module.__name__.rpartition("_")[2]) for module in MODULES]
twins = pytest.mark.parametrize("twin", TWINS)

SEQ = 40


class Source:
    id = 7
    name = "default"

    def get_at(self, key: bytes, snapshot: int) -> bytes:
        assert SEQ == snapshot
        return b"of " + key


class Host:
    """Notes what it is asked in `calls`; `at_once` is what a commit at once comes to."""

    batch_bytes_max = 1000
    is_read_only = False

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.at_once: bool | BaseException = True
        self.refuses: BaseException | None = None
        self.guard: object = None
        self.fails: BaseException | None = None
        self.committed: Any = None

    def acquire(self, held: list[int], holder: Any) -> object:
        assert not holder.state.flags & ENDED
        assert holder.source.id == holder.id
        held.append(SEQ)
        if self.refuses is not None:
            raise self.refuses
        return self.guard

    def release(self, held: list[int]) -> None:
        self.calls.append(("release", held.copy()))
        held.clear()

    def drop(self, held: list[int]) -> bool:
        self.calls.append(("drop", held.copy()))
        held.clear()
        return True

    def release_locks(self, owner: object, kept: int) -> None:
        self.calls.append(("release_locks", owner, kept))

    def commit_at_once(self, batch: Any, durability: str, keyspaces: Any, since: int) -> bool:
        operations = list(batch.operations())
        self.calls.append(("commit_at_once", len(operations), durability, keyspaces, since))
        if isinstance(self.at_once, BaseException):
            raise self.at_once
        return self.at_once

    def commit(self, batch: Any, durability: str, keyspaces: Any, check: Any) -> None:
        self.calls.append("group")
        self.committed = len(list(batch.operations())), durability, keyspaces, check
        if self.fails is not None:
            raise self.fails


def transaction(twin: ModuleType, host: Host, **settings: Any) -> Any:
    class Transaction(twin.TransactionCore):  # type: ignore[name-defined,misc]
        def owner(self) -> Any:
            return self

        def _spaces(self) -> Any:
            yield self
            yield from self._others.values()

        def _refuse(self) -> None:
            raise self.refusal()

        def refusal(self) -> Exception:
            return self._refusal or DatabaseClosedError(self._why)

        def _check(self) -> str:
            return "any check"

        def finish(self, error: BaseException | None, check: object = None) -> None:
            host.calls.append(("finish", error))
            self._why = "the transaction was finished"
            self._end(None)

        def rollback(self) -> None:
            host.calls.append("rollback")
            self._end(None)

        def _forgotten(self) -> None:
            host.calls.append("forgotten")
            host.drop(self._held)

        def end_scans(self, refusal: Exception) -> None:
            host.calls.append(("end_scans", str(refusal)))
            self.scans = []

    return Transaction(host, Source(), **settings)


@twins
def test_it_reads_at_its_snapshot(twin: ModuleType) -> None:
    host = Host()
    txn = transaction(twin, host)
    assert (SEQ, 0) == (txn.state.snapshot, txn.state.flags)
    assert [SEQ] == txn._held
    assert b"of k" == txn.get(b"k")
    assert {b"k"} == txn.read_keys
    assert ("serializable", None, True) == (txn._isolation, txn._durability, txn._tracks)
    txn.rollback()


@twins
@pytest.mark.parametrize(
    ("settings", "tracks", "flags"),
    [
        ({"isolation": "snapshot"}, False, 0),
        ({"read_only": True}, False, READ_ONLY),
        ({"isolation": "snapshot", "read_only": True, "durability": "none"}, False, READ_ONLY),
        ({"durability": "none"}, True, 0),
    ],
)
def test_its_settings(twin: ModuleType, settings: dict[str, Any], tracks: bool, flags: int) -> None:
    txn = transaction(twin, Host(), **settings)
    assert (tracks, flags) == (txn._tracks, txn.state.flags)
    assert tracks == (txn.read_keys is not None)
    txn.rollback()


@twins
def test_an_unknown_level_is_refused_before_anything_is_held(twin: ModuleType) -> None:
    host = Host()
    with pytest.raises(ValueError, match="isolation is 'none'; it must be one of serializable"):
        transaction(twin, host, isolation="none")
    gc.collect()
    assert [] == host.calls


@twins
def test_a_database_that_is_read_only_makes_it_so(twin: ModuleType) -> None:
    host = Host()
    host.is_read_only = True
    txn = transaction(twin, host)
    assert READ_ONLY == txn.state.flags
    txn.rollback()


@twins
def test_one_whose_begin_fails_gives_back_what_it_had(twin: ModuleType) -> None:
    host = Host()
    host.refuses = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        transaction(twin, host)
    gc.collect()
    assert [("drop", [SEQ])] == host.calls


@twins
def test_the_guard_is_called_before_reads(twin: ModuleType) -> None:
    host, asked = Host(), []
    host.guard = lambda: asked.append(1)
    txn = transaction(twin, host)
    txn.get(b"a")
    assert [1] == asked
    txn.rollback()


@twins
def test_a_commit_at_once_ends_it(twin: ModuleType) -> None:
    host = Host()
    with transaction(twin, host, durability="none") as txn:
        txn[b"a"] = b"1"
        del txn[b"a"]
    assert [("commit_at_once", 2, "none", (7,), SEQ), ("release", [SEQ])] == host.calls
    assert txn.state.flags & ENDED
    assert ([], set(), []) == (txn.tables, txn.read_keys, txn._held)
    assert 0 == txn.state.batch.op_count
    with pytest.raises(DatabaseClosedError, match="was committed"):
        txn.get(b"a")
    with pytest.raises(DatabaseClosedError, match="was committed"):
        txn.__enter__()
    # Nobody has the turn.
    txn.state.enter()
    txn.state.leave()


@twins
@pytest.mark.parametrize("durability", [None, "none"])
def test_what_cannot_be_at_once_is_by_a_group(twin: ModuleType, durability: str | None) -> None:
    host = Host()
    host.at_once = False
    txn = transaction(twin, host, durability=durability)
    txn[b"a"] = b"1"
    txn.commit()
    calls = [call for call in host.calls if call[0] not in {"commit_at_once", "finish"}]
    assert ["group", ("release", [SEQ])] == calls
    assert (durability == "none") == (host.calls[0][0] == "commit_at_once")
    assert (1, durability, (7,)) == host.committed[:3]
    assert txn.state.flags & ENDED


@twins
def test_one_that_wrote_nothing_ends_without_a_commit(twin: ModuleType) -> None:
    host = Host()
    txn = transaction(twin, host, durability="none")
    txn.get(b"a")
    txn.commit()
    assert [("finish", None), ("release", [SEQ])] == host.calls


@twins
def test_one_with_an_open_savepoint_is_not_committed_and_goes_on(twin: ModuleType) -> None:
    host = Host()
    txn = transaction(twin, host, durability="none")
    txn[b"a"] = b"1"
    txn._savepoints = [object()]
    with pytest.raises(RuntimeError, match="a savepoint of the transaction is still open"):
        txn.commit()
    assert [] == host.calls
    assert not txn._committing
    txn._savepoints = ()
    txn.commit()
    assert "commit_at_once" == host.calls[0][0]


@twins
def test_one_that_has_ended_is_refused(twin: ModuleType) -> None:
    host = Host()
    txn = transaction(twin, host)
    txn.rollback()
    with pytest.raises(DatabaseClosedError):
        txn.commit()


@twins
def test_one_that_ends_while_its_commit_begins_is_refused(twin: ModuleType) -> None:
    """For its age: whoever ended it came between the two looks."""
    host = Host()
    txn = transaction(twin, host)
    txn[b"a"] = b"1"

    class Ending:
        def __bool__(self) -> bool:
            assert not txn._committing
            txn._why = "the transaction was ended for its age"
            txn.state.flags |= ENDED
            return False

    txn._savepoints = Ending()
    with pytest.raises(DatabaseClosedError, match="ended for its age"):
        txn.commit()
    assert [] == host.calls
    assert not txn._committing
    # Nobody has the turn.
    txn.state.enter()
    txn.state.leave()
    txn.rollback()


@twins
def test_what_it_depends_on(twin: ModuleType) -> None:
    """The keys that it read, of one keyspace; where there is more, the subclass says so."""
    host = Host()
    txn, other = transaction(twin, host), transaction(twin, host)
    txn.get(b"a")
    txn[b"a"] = b"1"
    check = txn._prepare()
    if check != "any check":
        ((source, keys, ranges),) = [(d.source, d.keys, d.ranges) for d in check.dependences]
        assert (SEQ, txn.source, [b"a"], []) == (check.since, source, keys, ranges)
    with pytest.raises(RuntimeError, match="in use"):
        txn.get(b"a")
    txn.state.leave()
    for change in ("ranges", "scans", "others"):
        if change == "others":
            txn._others = {8: other}
        else:
            getattr(txn, change).append(None)
        assert "any check" == txn._prepare()
        txn.state.leave()
        txn.scans.clear()
        txn.ranges.clear()
    for each in (txn, other):
        each.rollback()
    weaker = transaction(twin, host, isolation="snapshot")
    weaker[b"a"] = b"1"
    assert "any check" == weaker._prepare()
    weaker.state.leave()
    weaker.rollback()


@twins
def test_a_commit_that_fails_is_finished_with_its_error(twin: ModuleType) -> None:
    host = Host()
    host.fails = KeyboardInterrupt()
    txn = transaction(twin, host)
    txn[b"a"] = b"1"
    with pytest.raises(KeyboardInterrupt):
        txn.commit()
    assert ["group", ("finish", host.fails), ("release", [SEQ])] == host.calls


@twins
def test_a_commit_at_once_that_fails_is_finished_with_its_error(twin: ModuleType) -> None:
    host = Host()
    host.at_once = MemoryError()
    with pytest.raises(MemoryError), transaction(twin, host, durability="none") as txn:
        txn[b"a"] = b"1"
    assert [("finish", host.at_once), ("release", [SEQ])] == host.calls[1:]
    assert txn._committing


@twins
def test_a_commit_beside_another_use_is_refused(twin: ModuleType) -> None:
    host = Host()
    txn = transaction(twin, host, durability="none")
    txn[b"a"] = b"1"
    txn.state.enter()
    with pytest.raises(RuntimeError, match="in use"):
        txn.commit()
    assert [] == host.calls
    assert not txn._committing
    txn.state.leave()
    txn.commit()


@twins
def test_an_exception_rolls_back(twin: ModuleType) -> None:
    host = Host()
    with pytest.raises(KeyError), transaction(twin, host) as txn:
        txn[b"a"] = b"1"
        raise KeyError
    assert ["rollback", ("release", [SEQ])] == host.calls


@twins
def test_a_block_whose_transaction_has_ended_does_nothing_more(twin: ModuleType) -> None:
    host = Host()
    with transaction(twin, host) as txn:
        txn.rollback()
    assert ["rollback", ("release", [SEQ])] == host.calls


@twins
def test_a_block_whose_transaction_was_let_go_of_commits_to_hear_why(twin: ModuleType) -> None:
    host = Host()
    with (
        pytest.raises(DatabaseClosedError) as seen,
        transaction(twin, host) as txn,
    ):
        txn._why = "the transaction was finished for its age"
        txn.state.flags |= ENDED
        txn._let_go_of = True
    assert "was finished" in str(seen.value)


@twins
def test_its_end_lets_go_of_other_keyspaces_cursors_and_locks(twin: ModuleType) -> None:
    host = Host()
    txn, other = transaction(twin, host), transaction(twin, host)
    owner = object()
    txn._others = {other.id: other}
    txn._lock_owner, txn._spare = owner, [SEQ + 1]
    txn[b"a"] = other[b"b"] = b"1"
    txn.ranges.append((None, None))
    txn.merged = {}
    txn.scans.append(None)
    other.scans.append(None)
    txn._why = "so"
    txn._end(None)
    assert [("end_scans", "so")] * 2 == host.calls[:2]
    assert [("release", [SEQ]), ("release", [SEQ + 1])] == host.calls[2:4]
    assert [("release_locks", owner, 0)] == host.calls[4:]
    assert [] == txn.tables == other.tables == txn.ranges
    assert txn.merged is None
    assert not txn._others
    txn._lock_owner = None
    other.rollback()


@twins
def test_the_keyspaces_it_needs_are_those_it_wrote_and_those_it_named(twin: ModuleType) -> None:
    host = Host()
    txn, other = transaction(twin, host), transaction(twin, host)
    assert () == txn._written_ids()
    other.id = 8
    txn._others = {8: other}
    assert (8,) == txn._written_ids()
    txn[b"a"] = b"1"
    assert (7, 8) == txn._written_ids()
    for each in (txn, other):
        each.rollback()


@twins
def test_an_end_that_is_interrupted_gives_the_snapshot_back(twin: ModuleType) -> None:
    host = Host()
    txn = transaction(twin, host)
    txn.scans.append(None)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    txn.end_scans = interrupted
    with pytest.raises(KeyboardInterrupt):
        txn._end(None)
    assert [("release", [SEQ])] == host.calls
    txn.state.enter()


@twins
def test_one_that_is_forgotten_says_so_once(twin: ModuleType) -> None:
    host = Host()
    txn = transaction(twin, host)
    del txn
    gc.collect()
    assert ["forgotten", ("drop", [SEQ])] == host.calls
    host.calls.clear()
    txn = transaction(twin, host)
    txn.rollback()
    del txn
    gc.collect()
    assert ["rollback", ("release", [SEQ])] == host.calls
