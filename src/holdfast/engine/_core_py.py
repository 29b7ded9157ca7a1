"""The reads and unsynced writes of a keyspace: what a user's call runs when nothing has to wait.

`KeyspaceCore` is the base of the public keyspace and database classes. A read goes through the
current `ReadView`. A write with durability "none" (or "interval", once its timer runs) is appended
to the log's record buffer, applied to the memtable and made visible in one step; anything else goes
to `_commit` of the subclass, which joins a commit group.

Thread safety: each call is one step under the global interpreter lock. `CommitState.flags` is
non-zero while a commit group is in flight, so the fast path never touches the buffer or the
memtables at the same time as a leader.

Invariants:
1. Every operation with a sequence number <= `visible_seq` is applied to a memtable or flushed.
2. The operations in `buffer` are the newest applied ones, in order: their sequence numbers end at
   `next_seq - 1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar, cast, overload

from holdfast.base import DELETE, MERGE, PUT, check_key, check_value, pairs_of
from holdfast.base.bounds import key_range
from holdfast.cursor import UserCursor
from holdfast.env import ReentryError, ThreadLife, this_thread
from holdfast.lsm import ReadView
from holdfast.wal import RecordBuffer, WriteBatch

Default = TypeVar("Default")

CLOSED = 1
FORKED = 2
POISONED = 4
BUSY = 8
READ_ONLY = 16
CLOSING = 32

NEVER = (1 << 64) - 1
"""No number of reads or bytes comes there."""

SCAN_SAMPLE = 61
"""The sampler is told of one scan in so many."""

AMOUNT_MIN, AMOUNT_MAX = -(1 << 63), (1 << 63) - 1
"""Amounts in between are encoded here; the merge function knows all others."""

OPERATION_OVERHEAD = 32
"""Upper bound of one operation's encoding beyond its key and value: count, kind, three varints."""

_MISSED = object()
"""Stands for an answer that takes a page from a file; no caller has it."""


class Sampler(Protocol):
    """Whoever measures one `get` in some: `begin` says when the next one is to be measured, by
    `CommitState.sample_at`, and `end` gets what `begin` returned.
    """

    def begin(self) -> object:
        """Called right before a get."""
        ...

    def end(self, began: object) -> None:
        """Called right behind it, unless it raised."""
        ...

    def scanned(self) -> None:
        """Called when one scan in `SCAN_SAMPLE` has begun."""
        ...


class CommitsAtOnce(Protocol):
    """Who commits batches that nobody has to wait for; see `_host_py.HostCore`."""

    def commit_at_once(
        self, batch: WriteBatch, durability: str | None, keyspaces: tuple[int, ...], since: int
    ) -> bool:
        """Write a batch if nobody has to wait for it, and nothing was committed behind `since`;
        return whether it was written.
        """
        ...


class CommitState:
    """What all keyspaces of a database share: sequence numbers, flags and the buffer of unwritten
    log.
    """

    def __init__(self, buffer: RecordBuffer, buffer_bytes_max: int, last_seq: int) -> None:
        self.buffer = buffer
        self.buffer_bytes_max = buffer_bytes_max
        self.next_seq = last_seq + 1
        self.visible_seq = last_seq
        self.user_bytes = 0
        self.write_count = 0
        self.read_count = 0
        # The `read_count` with which the next get is measured.
        self.sample_at = NEVER
        self.scan_count = 0
        self.sampler: Sampler | None = None
        self.flags = 0
        self.interval_armed = False
        # For the compiled twin, which commits what commits alone in one step and with the same
        # result: the write path, and how many bytes users may have written before room has to be
        # made again.
        self.path: object = None
        self.room_at = 0
        # The `user_bytes` from which on a write goes through a group, which may have to pause.
        self.pause_at = NEVER
        # Whoever writes without a group has a list with its thread here, under 0. Putting it there
        # is one step, unless another one is there; and it is known again by whoever was interrupted
        # right behind that.
        self._turn: dict[int, list[ThreadLife]] = {}

    def begin_group(self) -> None:
        """Keep writes without a group out until BUSY is cleared. Requires: the leadership."""
        self.flags |= BUSY
        me = this_thread()
        for thread in self._turn.get(0, ()):
            if thread is me:
                raise ReentryError("the fast way to write")
        while self._turn:
            # A thread is in the middle of such a write; it goes on as soon as this one pauses.
            pass

    def commit_at_once(
        self, batch: WriteBatch, since: int, keyspaces: tuple[int, ...], memtables: object
    ) -> bool:
        """Commit a batch without a sync as a group of one, if nobody else commits, nothing was
        committed behind `since`, and there is nothing to be done before. Return whether that was
        possible: never here, since a commit group comes to the same.
        """
        return False


class KeyspaceCore:
    """Reads and unsynced writes of one keyspace."""

    def __init__(
        self, state: CommitState, keyspace_id: int, view: ReadView, memtable_bytes: int
    ) -> None:
        self.state = state
        self.id = keyspace_id
        self.view = view
        self.dropped = False
        self.memtable_bytes = memtable_bytes
        # What stands before an amount in the value of a MERGE entry, once such entries may be
        # written; the subclass sets it.
        self.add_head: bytes | None = None
        # The subclass sets it.
        self._host: CommitsAtOnce

    def _refuse(self) -> None:
        """Raise the error that says why this keyspace cannot be read."""
        raise NotImplementedError  # unreachable: each keyspace has its own

    def _commit(self, batch: WriteBatch, durability: str | None) -> None:
        """Write `batch` through a commit group."""
        raise NotImplementedError  # unreachable: each keyspace has its own

    def _take(self, key: bytes) -> bytes | None:
        """Remove `key` and return the value it had, as one step; None when it is absent."""
        raise NotImplementedError  # unreachable: each keyspace has its own

    def _encode_amount(self, amount: object) -> bytes:
        """Return the value of a MERGE entry that adds `amount`, when such an entry may be
        written.
        """
        raise NotImplementedError  # unreachable: each keyspace has its own

    def read_point(self) -> tuple[ReadView, int]:
        """Return (view, newest visible sequence number), read in one step."""
        if self.state.flags & (CLOSED | FORKED) or self.dropped:
            self._refuse()
        while True:
            # Another thread may run between two lines of Python: a view that did not change around
            # the reading of the number is the view of that number.
            view = self.view
            seq = self.state.visible_seq
            if self.view is view:
                return view, seq

    def _get(self, key: object, snapshot: int | None) -> bytes | None:
        plain = check_key(key)
        view, now = self.read_point()
        self.state.read_count += 1
        sampler = self.state.sampler if self.state.read_count >= self.state.sample_at else None
        began = None if sampler is None else sampler.begin()
        value = view.get(plain, now if snapshot is None else snapshot)
        if sampler is not None:
            sampler.end(began)
        return value

    @overload
    def get(self, key: object) -> bytes | None: ...
    @overload
    def get(self, key: object, default: Default) -> bytes | Default: ...

    def get(self, key: object, default: object = None) -> object:
        """Return the value of `key`, or `default` when it is absent."""
        value = self._get(key, None)
        return default if value is None else value

    def get_at(self, key: object, snapshot: int) -> bytes | None:
        """Return the value of `key` as of `snapshot`, or None when it is absent."""
        return self._get(key, snapshot)

    def get_cached(
        self, key: object, otherwise: Default, snapshot: int | None = None
    ) -> bytes | Default | None:
        """Return the value of `key`, None when it is absent, or `otherwise` when that takes a page
        from a file. With `snapshot`, as of that.
        """
        plain = check_key(key)
        view, now = self.read_point()
        found = view.get_cached(plain, now if snapshot is None else snapshot, _MISSED)
        if found is _MISSED:
            return otherwise
        self.state.read_count += 1
        return cast("bytes | None", found)

    def __getitem__(self, key: object) -> bytes:
        value = self._get(key, None)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._get(key, None) is not None

    def get_many(self, keys: Iterable[object]) -> list[bytes | None]:
        """Return the values of `keys` in their order, None where absent."""
        plain = [check_key(key) for key in keys]
        view, now = self.read_point()
        self.state.read_count += len(plain)
        return view.get_many(plain, now)

    def _cursor(
        self,
        start: object,
        stop: object,
        prefix: object,
        reverse: bool,
        limit: int | None,
        what: int,
    ) -> UserCursor[Any]:
        """Iterate over what is visible now of the keys that the bounds take in."""
        lower, upper = key_range(start, stop, prefix)
        view, seq = self.read_point()
        self.state.scan_count += 1
        if self.state.scan_count % SCAN_SAMPLE == 0 and self.state.sampler is not None:
            self.state.sampler.scanned()
            # Whatever that did, a handle may have been closed meanwhile.
            view, seq = self.read_point()
        return view.cursor(seq, lower, upper, reverse, limit, what)

    def _write_fast(self, kind: int, key: bytes, value: bytes, durability: str | None) -> bool:
        """Log into the buffer and apply at once. Return whether that was possible."""
        if not self._may_skip_group(durability):
            return False
        turn, mine = self.state._turn, [this_thread()]
        try:
            if turn.setdefault(0, mine) is not mine:
                return False
            return self._write_alone(kind, key, value, durability)
        finally:
            # Nothing is called here, behind which a signal handler could raise.
            if 0 in turn and turn[0] is mine:
                del turn[0]

    def _write_alone(self, kind: int, key: bytes, value: bytes, durability: str | None) -> bool:
        state = self.state
        if state.flags or self.dropped or state.user_bytes >= state.pause_at:
            return False
        if not self._may_skip_group(durability):
            # The timer ended before this thread had its turn. From here on it cannot.
            return False
        if state.buffer.size + len(key) + len(value) + OPERATION_OVERHEAD > state.buffer_bytes_max:
            return False
        if self.view.active.bytes_used >= self.memtable_bytes:
            # The group that this goes through instead looks for it.
            state.room_at = 0
            return False
        mark = state.buffer.mark()
        try:
            state.buffer.append_op(kind, self.id, key, None if kind == DELETE else value)
            self.view.active.put(state.next_seq, kind, key, value)
        except BaseException:
            # The log must not hold an operation that was never applied.
            state.buffer.rollback(mark)
            raise
        state.visible_seq = state.next_seq
        state.next_seq += 1
        state.user_bytes += len(key) + len(value)
        state.write_count += 1
        return True

    def _may_skip_group(self, durability: str | None) -> bool:
        return durability == "none" or (durability == "interval" and self.state.interval_armed)

    def _batch(self, kind: int, key: bytes, value: bytes) -> WriteBatch:
        batch = WriteBatch()
        if kind == PUT:
            batch.put(self.id, key, value)
        elif kind == MERGE:
            batch.merge(self.id, key, value)
        else:
            batch.delete(self.id, key)
        return batch

    def _write_slow(self, kind: int, key: bytes, value: bytes, durability: str | None) -> None:
        """Write through a commit group."""
        self._commit(self._batch(kind, key, value), durability)

    def begin_put(self, key: object, value: object, durability: str | None) -> WriteBatch | None:
        """Set `key` to `value` and return None if nothing has to wait for that; otherwise do
        nothing, and return the batch that is to be committed.
        """
        plain_key, plain_value = check_key(key), check_value(value)
        if self._write_fast(PUT, plain_key, plain_value, durability):
            return None
        return self._batch(PUT, plain_key, plain_value)

    def begin_delete(self, key: object, durability: str | None) -> WriteBatch | None:
        """Remove `key` and return None, or return the batch to commit; see `begin_put`."""
        plain = check_key(key)
        if self._write_fast(DELETE, plain, b"", durability):
            return None
        return self._batch(DELETE, plain, b"")

    def begin_merge(self, key: object, value: object, durability: str | None) -> WriteBatch | None:
        """Write a MERGE entry and return None, or return the batch to commit; see `begin_put`."""
        plain_key, plain_value = check_key(key), check_value(value)
        if self._write_fast(MERGE, plain_key, plain_value, durability):
            return None
        return self._batch(MERGE, plain_key, plain_value)

    def write_merge(self, key: object, value: object, durability: str | None) -> None:
        """Write a MERGE entry with this value."""
        plain_key, plain_value = check_key(key), check_value(value)
        if self._write_fast(MERGE, plain_key, plain_value, durability):
            return
        self._write_slow(MERGE, plain_key, plain_value, durability)

    def add(self, key: object, amount: object = 1, *, durability: str | None = None) -> None:
        """Add `amount` to the number that `key` has, 0 when it is absent; see `merge`."""
        head = self.add_head
        if head is not None and type(amount) is int and AMOUNT_MIN <= amount <= AMOUNT_MAX:
            value = head + b"%d" % amount
        else:
            value = self._encode_amount(amount)
        self.write_merge(key, value, durability)

    def put(self, key: object, value: object, *, durability: str | None = None) -> None:
        """Set `key` to `value`."""
        plain_key, plain_value = check_key(key), check_value(value)
        if self._write_fast(PUT, plain_key, plain_value, durability):
            return
        self._write_slow(PUT, plain_key, plain_value, durability)

    def put_many(
        self,
        pairs: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]],
        *,
        durability: str | None = None,
    ) -> None:
        """Write all `pairs` as one atomic transaction; of equal keys the last wins."""
        batch = WriteBatch()
        batch.put_many(self.id, pairs_of(pairs))
        if (
            durability is None
            or not batch.op_count
            or not self._host.commit_at_once(batch, durability, (self.id,), self.state.visible_seq)
        ):
            self._commit(batch, durability)

    def __setitem__(self, key: object, value: object) -> None:
        self._write_slow(PUT, check_key(key), check_value(value), None)

    def delete(self, key: object, *, durability: str | None = None) -> None:
        """Remove `key`; nothing happens when it is absent."""
        plain = check_key(key)
        if self._write_fast(DELETE, plain, b"", durability):
            return
        self._write_slow(DELETE, plain, b"", durability)

    def __delitem__(self, key: object) -> None:
        if self._take(check_key(key)) is None:
            raise KeyError(key)
