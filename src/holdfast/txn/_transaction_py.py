"""What each transaction does: it begins, commits at once where that is possible, and ends. This is
the plain Python twin and specification of `_transaction_c`.

Everything else that a transaction can do is in `transaction`, whose class is a subclass.

Thread safety: one thread at a time; `let_go` of the subclass may come from others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from holdfast.base import Error
from holdfast.txn._workspace import ENDED, READ_ONLY, WorkspaceCore, WorkState
from holdfast.wal import WriteBatch

if TYPE_CHECKING:
    from holdfast.txn._check_py import Check
    from holdfast.txn.keyspace import Source, TransactionKeyspace
    from holdfast.txn.locks import Owner
    from holdfast.txn.transaction import Host, Savepoint, Transaction

ISOLATIONS = ("serializable", "snapshot")

READS_BYTES_MAX = 16 << 20
"""The most memory of one transaction for what it read. Beyond it neighbouring keys and ranges are
remembered as one, so that it may lose to a transaction that did it no harm.
"""

_NOTHING = WriteBatch()
"""The batch of transactions that have ended, to which nobody adds."""

_HELD_BY_NOBODY: list[int] = []
"""That of a transaction which did not even begin, to which nobody adds."""

_NO_OTHERS: Mapping[int, Any] = MappingProxyType({})


class TransactionCore(WorkspaceCore):
    """The beginning and the end of a transaction."""

    # What most transactions never change is of the class: making one is a part of each.
    _others: Mapping[int, TransactionKeyspace] = _NO_OTHERS
    _lock_owner: Owner | None = None
    _savepoints: Sequence[Savepoint] = ()
    _committing = False
    """From when a commit begins until the end, or until it is refused."""
    _let_go_of = False
    _refusal: Error | None = None
    """Why uses are refused, where `_why` does not say it."""
    _why = "the transaction has not begun"
    _held: list[int] = _HELD_BY_NOBODY
    """The number of the snapshot stands in it until it is given back, as in a Snapshot."""
    _spare: list[int] | None = None
    """As `_held`, for a moment in which it changes to a newer snapshot."""

    def __init__(
        self,
        host: Host,
        default: Source,
        *,
        isolation: str = "serializable",
        read_only: bool = False,
        durability: str | None = None,
    ) -> None:
        if isolation not in ISOLATIONS:
            raise ValueError(
                f"isolation is {isolation!r}; it must be one of {', '.join(ISOLATIONS)}"
            )
        self._host = host
        self._isolation = isolation
        self._durability = durability
        self._tracks = isolation == "serializable" and not read_only
        held: list[int] = []
        self._held = held
        state = WorkState(0, WriteBatch(host.batch_bytes_max), READS_BYTES_MAX)
        WorkspaceCore.__init__(self, state, default.id, default.get_at, self._tracks)
        self.source = default
        if read_only or host.is_read_only:
            state.flags |= READ_ONLY
        try:
            # From here on others may ask about it, and end it.
            state.guard = host.acquire(held, self.owner())
            self._read_at(held)
        except BaseException:
            # Whoever was interrupted here has nothing to end.
            host.drop(held)
            raise

    def _read_at(self, held: list[int]) -> None:
        """Read at the snapshot in `held` from now on; when it was ended, nothing is read."""
        for seq in held:
            self.state.snapshot = seq

    if TYPE_CHECKING:
        # Of the subclass.

        def owner(self) -> Transaction:
            """Return the transaction, which this is."""
            ...

        def refusal(self) -> Error:
            """Return the error that says why a use is refused."""
            ...

        def finish(self, error: BaseException | None, check: Check | None = None) -> None:
            """End after a commit."""
            ...

        def rollback(self) -> None:
            """End without one."""
            ...

        def _spaces(self) -> Iterator[TransactionKeyspace]: ...
        def _check(self) -> Check | None: ...
        def _forgotten(self) -> None: ...

    # -- the end

    def commit(self) -> None:
        """Make all writes durable and visible, all or none, and end the transaction.

        Raises: ConflictError when a concurrent transaction won; what a commit raises; RuntimeError
        while a savepoint is open. After anything but that RuntimeError the transaction has ended.
        """
        if not self.commit_at_once():
            self._commit_by_group()

    def _commit_by_group(self) -> None:
        """Commit as a member of a commit group; see `commit`."""
        state, check = self.state, None
        try:
            check = self._prepare()
            if state.flags & ENDED:
                return
            self._host.commit(state.batch, self._durability, self._written_ids(), check)
        except BaseException as error:
            if self._committing:
                self.finish(error, check)
            raise
        self.finish(None)

    def _prepare(self) -> Check | None:
        """Begin to commit. Return under which condition; the caller has the turn, and ends. When
        there is nothing to write the transaction has ended.
        """
        state = self.state
        if state.flags & ENDED:
            self._refuse()
        state.enter()
        try:
            if self._savepoints:
                raise RuntimeError("a savepoint of the transaction is still open")
            self._committing = True
            if state.flags & ENDED:
                # For its age, just now.
                self._refuse()
            if not state.batch.op_count:
                self.finish(None)
                return None
            return self._check()
        except BaseException:
            self._committing = False
            state.leave()
            raise

    def commit_at_once(self) -> bool:
        """Commit if nobody has to wait for it and nothing was committed since the snapshot, so that
        there is nothing to check. Return whether that was possible; if not, nothing was done.
        """
        state = self.state
        if self._durability is None or state.flags & ENDED:
            return False
        if self._savepoints or not state.batch.op_count:
            return False
        state.enter()
        try:
            self._committing = True
            # It may have been ended for its age just now.
            if not state.flags & ENDED and self._host.commit_at_once(
                state.batch, self._durability, self._written_ids(), state.snapshot
            ):
                self._why = "the transaction was committed"
                self._end(None)
                return True
        except BaseException as error:
            self.finish(error)
            raise
        self._committing = False
        state.leave()
        return False

    def _written_ids(self) -> tuple[int, ...]:
        """Return the keyspaces that must be there when it commits."""
        if not self._others:
            return (self.id,) if self.tables else ()
        return tuple(
            space.id for space in self._spaces() if space is not self.owner() or space.tables
        )

    def _end(self, refusal: Error | None) -> None:
        """Let go of everything. Uses raise `refusal` from now on, or an error that says `_why`."""
        state = self.state
        self._let_go_of = False
        self._refusal = refusal
        state.flags |= ENDED
        try:
            for space in self._spaces() if self._others else (self.owner(),):
                if space.scans:
                    space.end_scans(self.refusal())
                space.forget()
            state.batch = _NOTHING
            self._savepoints = ()
        finally:
            # Also when a signal handler came in between.
            self._others = _NO_OTHERS
            try:
                self._host.release(self._held)
                if self._spare is not None:
                    self._host.release(self._spare)
            finally:
                if self._lock_owner is not None:
                    self._host.release_locks(self._lock_owner, 0)
                state.leave()

    def __enter__(self) -> Self:
        if self.state.flags & ENDED:
            self._refuse()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.rollback()
        elif not self.state.flags & ENDED or self._let_go_of:
            self.commit()

    def __del__(self) -> None:
        if self._held or self._spare or self._lock_owner is not None:
            self._forgotten()
