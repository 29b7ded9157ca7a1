"""A transaction: a snapshot to read at, a batch to write, savepoints, and one end.

The snapshot is a registered sequence number, so that what it sees is kept. The end is a commit or a
rollback, and lets go of it. A commit that raises wrote nothing, unless the error says that nobody
knows (DatabasePoisonedError) or a signal handler came in between, which then is decided too, but
unknown to the caller.

Isolation. "serializable": what was read must not have changed when it commits, so transactions that
commit behave as if each ran alone at the moment of its commit. "snapshot": what it writes must not
have changed (the first committer wins). One that wrote nothing always commits: it behaves as if it
ran alone at the moment of its snapshot.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol

from holdfast.base import (
    MERGE,
    RANGE_DELETE,
    ConflictError,
    DatabaseClosedError,
    Error,
    ReadOnlyError,
    mark,
)
from holdfast.txn._callsite import CallSite
from holdfast.txn._check import Check, Dependence
from holdfast.txn._transaction import READS_BYTES_MAX, TransactionCore
from holdfast.txn._workspace import ENDED, READ_ONLY
from holdfast.txn.keyspace import Source, TransactionKeyspace
from holdfast.txn.leak import warn_of_leak
from holdfast.txn.locks import LockTable, Owner, Request, Span
from holdfast.txn.reads import Range
from holdfast.wal import WriteBatch


class Host(Protocol):
    """The database a transaction belongs to."""

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written."""
        ...

    batch_bytes_max: int
    """The most bytes that one transaction may write, unless it is a single operation."""

    def acquire(self, held: list[int], holder: Transaction) -> Callable[[], None] | None:
        """Register a snapshot and put its sequence number into `held`. Return what is to be called
        before a read, or None.
        """
        ...

    def release(self, held: list[int]) -> None:
        """Unregister the snapshot in `held` and take it out; does nothing when that is done."""
        ...

    def drop(self, held: list[int]) -> bool:
        """Like `release`, from a finalizer; return whether it was there."""
        ...

    def origin_of(self, held: list[int]) -> str:
        """Return where in the user's code the snapshot in `held` was taken."""
        ...

    def source(self, name: str, *, create: bool) -> Source:
        """Return a keyspace. Raises: KeyError when it is absent and not to be created."""
        ...

    @property
    def locks(self) -> LockTable:
        """The locks that transactions ask for."""
        ...

    def release_locks(self, owner: Owner, kept: int) -> None:
        """Give back all locks of `owner` but the first `kept`."""
        ...

    def commit_at_once(
        self,
        batch: WriteBatch,
        durability: str | None,
        keyspaces: tuple[int, ...],
        since: int,
    ) -> bool:
        """Write a batch if nobody has to wait for it, and nothing was committed behind `since`;
        return whether it was written.
        """
        ...

    def commit(
        self,
        batch: WriteBatch,
        durability: str | None,
        keyspaces: tuple[int, ...],
        check: Check | None,
    ) -> None:
        """Write a batch if `check` holds right before. Raises: ConflictError, and what a commit
        raises.
        """
        ...


class Prepared:
    """What a commit of a transaction writes, and under which condition."""

    __slots__ = ("batch", "check", "durability", "keyspaces")

    def __init__(
        self,
        batch: WriteBatch,
        durability: str | None,
        keyspaces: tuple[int, ...],
        check: Check | None,
    ) -> None:
        self.batch = batch
        self.durability = durability
        self.keyspaces = keyspaces
        self.check = check


class _OtherKeyspace(TransactionKeyspace):
    """A keyspace of a transaction that is not the default one."""

    def __init__(self, txn: Transaction, source: Source, tracks: bool) -> None:
        super().__init__(txn.state, source, tracks)
        # Without a cycle one that is forgotten lets go at once.
        self._txn = weakref.ref(txn)

    def owner(self) -> Transaction:
        txn = self._txn()
        if txn is None:
            raise DatabaseClosedError("the transaction was let go without an end")
        return txn


class Transaction(TransactionCore, TransactionKeyspace):
    """A transaction; the mapping itself is the default keyspace.

    As a context manager it commits at the end, and rolls back when an exception leaves the block.
    After its end each use raises DatabaseClosedError. Thread safety: one thread at a time; a second
    one gets RuntimeError.
    """

    _others: Mapping[int, TransactionKeyspace]
    _reached: list[bytes | None] | None = None
    """How far cursors had come when somebody asked whether it `moved`."""
    _is_read_elsewhere = False
    """Whether somebody read on in a cursor when all its known users had ended."""

    # -- what it is

    @property
    def isolation(self) -> str:
        """Its level: "serializable" or "snapshot"."""
        return self._isolation

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return bool(self.state.flags & READ_ONLY)

    @property
    def durability(self) -> str | None:
        """How durable its commit will be; None is "commit"."""
        return self._durability

    @property
    def seq(self) -> int:
        """The sequence number it reads at."""
        return self.state.snapshot

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return not self.state.flags & ENDED

    @property
    def wants_end(self) -> bool:
        """Whether nobody has committed it or rolled it back, also when it was ended for its age."""
        return self._let_go_of or self.is_open

    def keyspace(self, name: str, *, create: bool = True) -> TransactionKeyspace:
        """Return keyspace `name` within this transaction.

        One that does not exist is created at once and durably, and stays when the transaction is
        rolled back, unless `create` is False or the transaction is read-only (then KeyError).
        """
        if self.state.flags & ENDED:
            self._refuse()
        source = self._host.source(name, create=create and not self.read_only)
        if source.id == self.id:
            return self
        found = self._others.get(source.id)
        if found is None:
            found = _OtherKeyspace(self, source, self._tracks)
            self._others = {**self._others, source.id: found}
        return found

    def owner(self) -> Transaction:
        return self

    def _spaces(self) -> Iterator[TransactionKeyspace]:
        yield self
        yield from self._others.values()

    def refusal(self) -> Error:
        """Return the error that says why this use is refused."""
        if self.state.flags & ENDED:
            return self._refusal or DatabaseClosedError(self._why)
        return ReadOnlyError("the transaction is read-only")

    def widen_reads(self) -> None:
        """Remember at most half of what may be remembered of reads."""
        mark("txn.reads_widened")
        while True:
            left = sum(space.halve_reads() for space in self._spaces())
            if left <= READS_BYTES_MAX // 2:
                break
        self.state.reads_left = READS_BYTES_MAX - left

    # -- locks

    @property
    def lock_owner(self) -> Owner:
        """Who holds the locks of this transaction."""
        owner = self._lock_owner
        if owner is None:
            owner = self._lock_owner = Owner(f"the transaction of {CallSite()}")
        return owner

    def take_lock(self, span: Span, *, shared: bool, timeout: float | None) -> None:
        """Take a lock, and wait for it."""
        owner = self.lock_owner
        state = self.state
        if state.flags & ENDED:
            self._refuse()
        self._refuse_in_a_child()
        state.enter()
        try:
            self._refuse_what_ended()
            self._host.locks.acquire(owner, span, shared=shared, timeout=timeout)
            self.locked(span)
        finally:
            state.leave()

    def _refuse_what_ended(self) -> None:
        """Raise when another thread ended it before the turn was taken. Requires: the turn."""
        if self.state.flags & ENDED:
            self._refuse()

    def _refuse_in_a_child(self) -> None:
        """Raise in a forked child, where a thread of the parent may hold the mutex for ever."""
        self.source.read_point()

    def request_lock(self, span: Span, *, shared: bool, wake: Callable[[], None]) -> Request:
        """Ask for a lock without waiting; see `LockTable.request`. Requires: the turn."""
        self._refuse_what_ended()
        self._refuse_in_a_child()
        return self._host.locks.request(self.lock_owner, span, shared=shared, wake=wake)

    @property
    def lock_table(self) -> LockTable:
        """The locks of the database."""
        return self._host.locks

    def locked(self, span: Span) -> None:
        """See to it that what is locked now is read as it is now. Raises: ConflictError when it
        changed since the snapshot, and something was read already; or what ended it meanwhile.
        """
        if self.state.flags & ENDED:
            self._refuse()
        spaces = list(self._spaces())
        if any(space.has_read for space in spaces):
            space = next(space for space in spaces if space.id == span.keyspace)
            space.require_unchanged(span)
        else:
            # Nobody can tell that the transaction began earlier.
            self._renew()

    def _renew(self) -> None:
        """Read at the newest state from now on."""
        # Wherever a signal handler comes in between, the end gives back both.
        held: list[int] = []
        self._spare = held
        guard = self._host.acquire(held, self)
        self._spare, self._held = self._held, held
        self.state.guard = guard
        self._read_at(held)
        self._host.release(self._spare)

    # -- savepoints

    def savepoint(self) -> Savepoint:
        """Return a context manager: an exception that leaves its block rolls the transaction back
        to where the block began, and goes on upward.
        """
        if self.state.flags & ENDED:
            self._refuse()
        return Savepoint(self)

    def begin_savepoint(self, savepoint: Savepoint) -> None:
        """Remember where the transaction stands."""
        state = self.state
        if state.flags & ENDED:
            self._refuse()
        state.enter()
        try:
            self._refuse_what_ended()
            if savepoint in self._savepoints:
                raise RuntimeError("the savepoint was begun already")
            savepoint.places = {space.id: space.place() for space in self._spaces()}
            savepoint.batch_mark = state.batch.mark()
            savepoint.own_from = state.next_own
            savepoint.lock_count = 0 if self._lock_owner is None else len(self._lock_owner.grants)
            self._savepoints = [*self._savepoints, savepoint]
            state.depth += 1
        finally:
            state.leave()

    def has_savepoint(self, savepoint: Savepoint) -> bool:
        """Whether a savepoint is open."""
        return savepoint in self._savepoints

    def end_savepoint(self, savepoint: Savepoint, *, undo: bool, close: bool) -> None:
        """End a savepoint and those inside it: `undo` what was written since. Without `close` the
        outermost stays open.
        """
        state = self.state
        if state.flags & ENDED:
            self._refuse()
        state.enter()
        try:
            self._refuse_what_ended()
            if savepoint not in self._savepoints:
                raise RuntimeError("the savepoint has ended")
            at = self._savepoints.index(savepoint)
            if not undo and at != len(self._savepoints) - 1:
                raise RuntimeError("a savepoint inside this one is still open")
            if undo:
                state.batch.rollback(savepoint.batch_mark)
                if self._lock_owner is not None:
                    self._host.release_locks(self._lock_owner, savepoint.lock_count)
            for space in self._spaces():
                place = savepoint.places.get(space.id, (0, -1))
                if undo:
                    space.forget_writes(place, savepoint.own_from)
                else:
                    space.merge_writes(place, at)
            self._savepoints = self._savepoints[: at if close else at + 1]
            state.depth = len(self._savepoints)
        finally:
            state.leave()

    # -- the end

    def prepare(self) -> Prepared | None:
        """Begin to commit. Return what is to be written, for the caller to call `finish`; or None
        when there was nothing to write and the transaction has ended.
        """
        check = self._prepare()
        if self.state.flags & ENDED:
            return None
        return Prepared(self.state.batch, self._durability, self._written_ids(), check)

    def _check(self) -> Check | None:
        """Return the condition of a commit, whatever was read or written."""
        state = self.state
        spaces = list(self._spaces())
        if self._isolation == "snapshot":
            sources = [space.source for space in spaces if space.tables]
            batch = state.batch
            return Check(state.snapshot, lambda: written_by(batch, sources))
        depends = [
            Dependence(space.source, list(space.read_keys or ()), ranges)
            for space in spaces
            if (ranges := space.ranges_read()) or space.read_keys
        ]
        return Check(state.snapshot, depends) if depends else None

    def finish(self, error: BaseException | None, check: Check | None = None) -> None:
        """End the transaction after a commit: `error` says why nothing, or who knows what, was
        written.

        When the caller was interrupted, others may still be at work on the commit. Then `check`,
        which they hold, keeps the snapshot: the question what changed since can be answered only
        while it is registered.
        """
        if check is not None and not isinstance(error, Exception):
            check.hold = _Hold(self._host, self._held)
            self._held = []
        if error is None:
            self._why = "the transaction was committed"
        elif isinstance(error, ConflictError):
            self._why = "the transaction lost to another one; run it again"
        else:
            self._why = f"the commit of the transaction failed: {type(error).__name__}: {error}"
        self._end(None)

    def rollback(self) -> None:
        """Forget all writes and end the transaction; does nothing when it has ended."""
        if self.state.flags & ENDED and not self._let_go_of:
            return
        if self._committing:
            raise RuntimeError("the transaction is being committed by another thread")
        # Whoever is in the middle of a use, perhaps because a signal handler ended it, finds the
        # end behind it.
        self._why = "the transaction was rolled back"
        self._end(None)

    @property
    def moved(self) -> bool:
        """Whether another thread than the one that began it has used it, and lives. Asked again
        when all of them have ended, it knows by how far cursors came, too: reading rows is no use
        of the transaction, and who reads is not known.
        """
        if self._is_read_elsewhere:
            return True
        movers = self.state.movers or set()
        for life in movers.copy():
            if life.has_ended:
                movers.discard(life)
        if movers:
            # How far cursors come from here on is their doing.
            self._reached = None
            return True
        reached = [place for space in list(self._spaces()) for place in space.scans_reached()]
        self._is_read_elsewhere = self._reached is not None and reached != self._reached
        self._reached = reached
        return self._is_read_elsewhere

    def let_go(self, why: Error) -> bool:
        """End, so that uses raise `why`, unless it has ended or a commit is on its way. Return
        whether it ended.
        """
        if self.state.flags & ENDED:
            # It is letting go already, perhaps of a commit that was done.
            return False
        refusal = self._refusal
        self._refusal = why
        # First the flag: a commit that begins now sees it, or is seen.
        self.state.flags |= ENDED
        if self._committing:
            self.state.flags &= ~ENDED
            self._refusal = refusal
            return False
        self._let_go_of = True
        for space in list(self._spaces()):
            space.end_scans(why)
        if self._lock_owner is not None:
            self._host.locks.drop(self._lock_owner)
        return True

    def about(self) -> tuple[str, bool]:
        """Return what it is, for those who list transactions."""
        return self._isolation, self.read_only

    def _forgotten(self) -> None:
        """Give back what it holds, for a finalizer."""
        if self._lock_owner is not None:
            # Also when its end was interrupted behind the snapshot.
            self._host.locks.drop(self._lock_owner)
        if self._spare:
            self._host.drop(self._spare)
        if not self._held:
            # It ended as it should, or never began.
            return
        self.state.flags |= ENDED
        where = self._host.origin_of(self._held)
        # Unless the registry ended it at the same time.
        if self._host.drop(self._held):
            warn_of_leak(f"a transaction of {where} was never ended")

    def __repr__(self) -> str:
        state = "open" if self.is_open else "ended"
        return f"<holdfast.Transaction {self._isolation} at {self.seq} {state}>"


def written_by(batch: WriteBatch, sources: Sequence[Source]) -> list[Dependence]:
    """Return the keys and ranges that a batch writes, but for keys that are only merged: operands
    are applied to whatever is there.
    """
    keys: dict[int, dict[bytes, None]] = {}
    ranges: dict[int, list[Range]] = {}
    for kind, keyspace, key, value in batch.operations():
        if kind == RANGE_DELETE:
            ranges.setdefault(keyspace, []).append((key, value))
        elif kind != MERGE:
            keys.setdefault(keyspace, {})[key] = None
    return [
        Dependence(each, list(keys.get(each.id, ())), ranges.get(each.id, [])) for each in sources
    ]


class _Hold:
    """Keeps a snapshot as long as it lives."""

    def __init__(self, host: Host, held: list[int]) -> None:
        self._host = host
        self._held = held

    def __del__(self) -> None:
        self._host.drop(self._held)


class Savepoint:
    """A place in a transaction to which it can be rolled back. Begins with its block."""

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn
        self.places: dict[int, tuple[int, int]] = {}
        self.batch_mark = (0, 0)
        self.own_from = 0
        self.lock_count = 0

    def rollback(self) -> None:
        """Undo what was written since the block began; the block goes on."""
        self._txn.end_savepoint(self, undo=True, close=False)

    def __enter__(self) -> Savepoint:
        self._txn.begin_savepoint(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A block that ends after its transaction has nothing to do.
        if self._txn.has_savepoint(self):
            self._txn.end_savepoint(self, undo=kind is not None, close=True)
