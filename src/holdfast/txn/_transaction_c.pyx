"""Compiled beginning and end of transactions; `_transaction_py` is the specification."""
from holdfast.txn._check_c cimport Check, Dependence
from holdfast.txn._workspace_c cimport WorkspaceCore, WorkState
from holdfast.wal._buffer_c cimport WriteBatch

from types import MappingProxyType

cdef enum:
    C_ENDED = 1
    C_READ_ONLY = 2
    C_READS_BYTES_MAX = 16 << 20

ISOLATIONS = ("serializable", "snapshot")
READS_BYTES_MAX = C_READS_BYTES_MAX

# The batch of transactions that have ended, to which nobody adds.
cdef WriteBatch NOTHING = WriteBatch()
cdef object NO_OTHERS = MappingProxyType({})
cdef str NOT_BEGUN = "the transaction has not begun"
cdef str COMMITTED = "the transaction was committed"


cdef class TransactionCore(WorkspaceCore):
    """See `_transaction_py.TransactionCore`."""
    cdef public object _host
    cdef public object _isolation
    cdef public object _durability
    cdef public bint _tracks
    cdef public object _others
    cdef public object _lock_owner
    cdef public object _savepoints
    cdef public bint _committing
    cdef public bint _let_go_of
    cdef public object _refusal
    cdef public object _why
    cdef public list _held
    cdef public list _spare

    def __cinit__(self, *_, **__):
        self._others = NO_OTHERS
        self._savepoints = ()
        self._why = NOT_BEGUN
        self._held = []

    def __init__(self, host, default, *, isolation="serializable", read_only=False,
                 durability=None):
        cdef WorkState state
        cdef bint reads_only = read_only
        if isolation not in ISOLATIONS:
            raise ValueError(
                f"isolation is {isolation!r}; it must be one of {', '.join(ISOLATIONS)}"
            )
        self._host = host
        self._isolation = isolation
        self._durability = durability
        self._tracks = not reads_only and isolation == "serializable"
        state = WorkState.__new__(WorkState)
        state.begin(0, WriteBatch(host.batch_bytes_max), C_READS_BYTES_MAX)
        self.begin(state, default.id, default.get_at, self._tracks)
        self.source = default
        if reads_only or host.is_read_only:
            state.flags |= C_READ_ONLY
        try:
            # From here on others may ask about it, and end it.
            state.guard = host.acquire(self._held, self)
            self.c_read_at(self._held)
        except BaseException:
            # Whoever was interrupted here has nothing to end.
            host.drop(self._held)
            raise

    cdef int c_read_at(self, list held) except -1:
        for seq in held:
            self.state.snapshot = seq
        return 0

    def _read_at(self, list held not None):
        """Read at the snapshot in `held` from now on; when it was ended, nothing is read."""
        self.c_read_at(held)

    def commit(self):
        """Make all writes durable and visible, all or none, and end the transaction.

        Raises: ConflictError when a concurrent transaction won; what a commit raises; RuntimeError
        while a savepoint is open. After anything but that RuntimeError the transaction has ended.
        """
        if not self.c_commit_at_once():
            self.c_commit_by_group()

    cdef int c_commit_by_group(self) except -1:
        """Commit as a member of a commit group; see `commit`."""
        cdef WorkState state = self.state
        check = self._prepare()
        if state.flags & C_ENDED:
            return 0
        try:
            self._host.commit(state.batch, self._durability, self._written_ids(), check)
        except BaseException as error:
            self.finish(error, check)
            raise
        self._why = COMMITTED
        self.c_end(None)
        return 0

    cpdef _prepare(self):
        """Begin to commit. Return under which condition; the caller has the turn, and ends. When
        there is nothing to write the transaction has ended.
        """
        cdef WorkState state = self.state
        if state.flags & C_ENDED:
            self._refuse()
        state.c_enter()
        try:
            if self._savepoints:
                raise RuntimeError("a savepoint of the transaction is still open")
            self._committing = True
            if state.flags & C_ENDED:
                # For its age, just now.
                self._refuse()
            if not state.batch.op_count:
                self.finish(None)
                return None
            if not self._tracks or self._others is not NO_OTHERS or self.scans or self.ranges:
                return self._check()
            # What most depend on: keys of one keyspace.
            if not self.read_keys:
                return None
            return Check(state.snapshot, [Dependence(self.source, list(self.read_keys), [])])
        except BaseException:
            self._committing = False
            state.busy = False
            raise

    def commit_at_once(self):
        """Commit if nobody has to wait for it and nothing was committed since the snapshot, so that
        there is nothing to check. Return whether that was possible; if not, nothing was done.
        """
        return self.c_commit_at_once()

    cdef bint c_commit_at_once(self) except -1:
        cdef WorkState state = self.state
        if self._durability is None or state.flags & C_ENDED:
            return False
        if self._savepoints or not state.batch.op_count:
            return False
        state.c_enter()
        try:
            self._committing = True
            # It may have been ended for its age just now.
            if not state.flags & C_ENDED and self._host.commit_at_once(
                state.batch, self._durability, self._written_ids(), state.snapshot
            ):
                self._why = COMMITTED
                self.c_end(None)
                return True
        except BaseException as error:
            self.finish(error)
            raise
        self._committing = False
        state.busy = False
        return False

    cpdef _written_ids(self):
        """Return the keyspaces that must be there when it commits."""
        cdef list found = []
        if self._others is NO_OTHERS:
            return (self.id,) if self.tables else ()
        for space in self._spaces():
            if space is not self or space.tables:
                found.append(space.id)
        return tuple(found)

    cdef int c_end(self, refusal) except -1:
        cdef WorkState state = self.state
        self._let_go_of = False
        self._refusal = refusal
        state.flags |= C_ENDED
        try:
            if self._others is not NO_OTHERS:
                for space in self._spaces():
                    if space is not self:
                        if space.scans:
                            space.end_scans(self.refusal())
                        space.forget()
            if self.scans:
                self.end_scans(self.refusal())
            self.c_forget()
            state.batch = NOTHING
            self._savepoints = ()
        finally:
            # Also when a signal handler came in between.
            self._others = NO_OTHERS
            try:
                self._host.release(self._held)
                if self._spare is not None:
                    self._host.release(self._spare)
            finally:
                if self._lock_owner is not None:
                    self._host.release_locks(self._lock_owner, 0)
                state.busy = False
        return 0

    def _end(self, refusal):
        """Let go of everything. Uses raise `refusal` from now on, or an error that says `_why`."""
        self.c_end(refusal)

    def __enter__(self):
        if self.state.flags & C_ENDED:
            self._refuse()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.rollback()
        elif not self.state.flags & C_ENDED or self._let_go_of:
            self.commit()

    def __del__(self):
        if self._held or self._spare or self._lock_owner is not None:
            self._forgotten()
