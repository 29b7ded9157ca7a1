"""The write path: commit groups, and everything that must happen between two of them.

A thread that commits joins the queue. The first one becomes the leader: it takes the queue as one
group, makes room, writes the group to the log as one record, syncs once when a member asked for it,
applies it to the memtables, makes it visible, and wakes the others. The next leader is the first of
those that came meanwhile. (Group commit as in DeWitt et al., 1984; leader and followers as in
LevelDB's writer queue.)

Order, always: logged, synced when asked, applied, visible, acknowledged. A group that is not
durable yet is never visible, so nobody reads what a crash could take back while its writer still
waits.

`exclusive` runs a function with the leadership: no commit is in flight meanwhile and the fast path
is off. Freezing memtables, syncing for a flush, creating and dropping keyspaces, and closing use
it.

Thread safety: safe. `CommitState.flags` has BUSY while there is a leader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from holdfast.base import (
    BATCH_BYTES_MAX,
    DatabaseClosedError,
    DatabasePoisonedError,
    Error,
    LimitError,
    ReadOnlyError,
    mark,
)
from holdfast.engine._core import BUSY, CLOSED, CLOSING, FORKED, POISONED, READ_ONLY, CommitState
from holdfast.env import Env, Mutex
from holdfast.memtable import Memtable
from holdfast.recovery import apply_buffer
from holdfast.wal import LogWriter, WriteBatch

GROUP_BYTES_MAX = 4 << 20
"""A leader stops taking waiters into its group when it has this many bytes, so that the first ones
need not wait long.
"""

DURABILITIES = ("commit", "interval", "none")

Result = TypeVar("Result")


class _Waiter:
    """One thread's place in the queue."""

    __slots__ = ("batch", "durable", "error", "finished", "gate", "keyspaces", "leads", "work")

    def __init__(
        self,
        batch: WriteBatch | None,
        durable: bool,
        keyspaces: frozenset[int] = frozenset(),
        work: Callable[[], object] | None = None,
    ) -> None:
        self.batch = batch
        self.durable = durable
        self.keyspaces = keyspaces
        self.work = work
        self.gate: Mutex | None = None
        self.leads = False
        self.finished = False
        self.error: BaseException | None = None


class WritePath:
    """Serialises commits and hands them to the log and the memtables."""

    def __init__(
        self,
        env: Env,
        state: CommitState,
        log: LogWriter | None,
        *,
        make_room: Callable[[], None],
    ) -> None:
        self._env = env
        self._state = state
        self._log = log
        self._make_room = make_room
        self._mutex = env.mutex()
        self._queue: deque[_Waiter] = deque()
        self._led = False
        self._writing = False
        self._poison: BaseException | None = None
        self.memtables: dict[int, Memtable] = {}
        """The active memtable of each keyspace. Changed only with the leadership."""

    # -- entry points

    def commit(self, batch: WriteBatch, durability: str | None, keyspaces: frozenset[int]) -> None:
        """Commit `batch`, which touches `keyspaces`, and return when it is as durable as asked.

        Raises: ValueError for an unknown durability; ReadOnlyError, DatabaseClosedError,
        DatabasePoisonedError; DatabaseClosedError when a keyspace was dropped; DiskFullError with
        nothing written; LimitError for a batch that is too large.
        """
        if durability is not None and durability not in DURABILITIES:
            raise ValueError(
                f"durability is {durability!r}; it must be one of {', '.join(DURABILITIES)}"
            )
        if batch.size > BATCH_BYTES_MAX:
            raise LimitError(f"the batch has {batch.size} bytes; the limit is {BATCH_BYTES_MAX}")
        self._run(_Waiter(batch, durability is None or durability == "commit", keyspaces))

    def sync(self) -> None:
        """Make everything that was written durable."""
        self._run(_Waiter(None, True))

    def sync_held(self) -> None:
        """Make everything that was written durable. Requires: the leadership."""
        self._write([_Waiter(None, True)])
        self._writing = False

    def exclusive(self, work: Callable[[], Result]) -> Result:
        """Run `work` with the leadership and return what it returned."""
        results: list[Result] = []
        self._run(_Waiter(None, False, work=lambda: results.append(work())))
        return results[0]

    def poison(self, cause: BaseException) -> None:
        """Refuse all writes from now on: what is on disk is no longer known for sure."""
        if self._poison is None:
            mark("engine.poisoned")
            self._poison = cause
        self._state.flags |= POISONED

    def check_writable(self) -> None:
        """Raise the error that says why nothing can be written, if so."""
        flags = self._state.flags
        if flags & FORKED:
            raise DatabaseClosedError(
                "this handle belongs to the parent process; open the database again after fork"
            )
        if flags & (CLOSED | CLOSING):
            raise DatabaseClosedError("the database is closed")
        if flags & READ_ONLY:
            raise ReadOnlyError("the database was opened with read_only=True")
        self.check_poison()

    def check_poison(self) -> None:
        """Raise DatabasePoisonedError when a sync or write failed earlier."""
        if self._state.flags & POISONED:
            raise DatabasePoisonedError(
                f"a sync or write failed earlier ({self._poison}); close and reopen the database"
            ) from self._poison

    # -- the queue

    def _run(self, waiter: _Waiter) -> None:
        self.check_writable()
        with self._mutex:
            self._queue.append(waiter)
            if self._led:
                waiter.gate = self._env.mutex()
                waiter.gate.acquire()
            else:
                self._led = True
                self._state.begin_group()
        if waiter.gate is not None:
            self._wait(waiter, waiter.gate)
        if not waiter.finished:
            self._lead(waiter)
        if waiter.error is not None:
            raise waiter.error

    def _wait(self, waiter: _Waiter, gate: Mutex) -> None:
        """Wait until a leader served `waiter` or made it the leader."""
        try:
            gate.acquire()
        except BaseException:
            # An interrupted follower leaves the queue, unless its commit is already under way.
            with self._mutex:
                queued = waiter in self._queue
                if queued:
                    self._queue.remove(waiter)
                    if waiter.leads:
                        self._pass_on()
            if not queued:
                gate.acquire()
            raise

    def _pass_on(self) -> None:
        """Make the head of the queue the leader, or give the leadership up. Requires: the mutex."""
        if not self._queue:
            self._led = False
            self._state.flags &= ~BUSY
            return
        successor = self._queue[0]
        successor.leads = True
        if successor.gate is not None:
            successor.gate.release()

    def _lead(self, leader: _Waiter) -> None:
        """Serve the group that starts with `leader`, then hand the leadership on."""
        with self._mutex:
            group = self._take_group()
        self._writing = False
        try:
            self._serve(group)
        except Exception as error:  # noqa: BLE001  every member of the group gets it
            for waiter in group:
                if waiter.error is None:
                    waiter.error = error if waiter is leader else _copy_error(error)
        except BaseException as error:
            followers = group[1:]
            if self._writing:
                for waiter in followers:
                    waiter.error = DatabasePoisonedError(
                        f"the thread that wrote this commit was stopped: {error!r}"
                    )
            else:
                # Nothing of the group was written yet: the others commit without this thread.
                with self._mutex:
                    self._queue.extendleft(reversed(followers))
                group = group[:1]
            raise
        finally:
            with self._mutex:
                for waiter in group:
                    waiter.finished = True
                    if waiter.gate is not None and waiter is not leader:
                        waiter.gate.release()
                self._pass_on()

    def _take_group(self) -> list[_Waiter]:
        """Take waiters from the queue: one exclusive piece of work, or commits up to
        GROUP_BYTES_MAX.
        """
        group = [self._queue.popleft()]
        if group[0].work is not None:
            return group
        size = group[0].batch.size if group[0].batch is not None else 0
        while self._queue and self._queue[0].work is None:
            batch = self._queue[0].batch
            size += batch.size if batch is not None else 0
            if size > GROUP_BYTES_MAX:
                break
            group.append(self._queue.popleft())
        return group

    # -- the leader's work

    def _serve(self, group: list[_Waiter]) -> None:
        self.check_writable()
        if group[0].work is not None:
            group[0].work()
            return
        if any(waiter.batch is not None for waiter in group):
            self._make_room()
            self.check_writable()
        for waiter in group:
            if not waiter.keyspaces <= self.memtables.keys():
                waiter.error = DatabaseClosedError("a keyspace of this commit was dropped")
        self._write([waiter for waiter in group if waiter.error is None])

    def _write(self, group: list[_Waiter]) -> None:
        """Log, sync, apply and publish one group.

        Between the first byte for the log and the last operation applied nothing may be skipped, or
        the numbers given here would be given again: any surprise there poisons the database.
        """
        log = self._log
        if log is None:
            raise ReadOnlyError("the database was opened with read_only=True")
        self._writing = True
        state, buffer = self._state, self._state.buffer
        durable = any(waiter.durable for waiter in group)
        applied_ops, applied_bytes, rollback = buffer.op_count, buffer.size, buffer.mark()
        written_lsn = log.written_lsn
        try:
            for waiter in group:
                if waiter.batch is not None and waiter.batch.op_count:
                    buffer.append_batch(waiter.batch)
            written = self._log_group(log, durable, applied_ops)
        except BaseException as error:
            if log.poisoned or log.written_lsn != written_lsn:
                # The record may be on disk, so its numbers must not be given again.
                self.poison(error)
            else:
                buffer.rollback(rollback)
            raise
        try:
            new_ops = buffer.op_count - applied_ops
            if new_ops:
                user_bytes = apply_buffer(buffer, applied_bytes, state.next_seq, self.memtables)
                state.next_seq += new_ops
                state.visible_seq = state.next_seq - 1
                state.write_count += new_ops
                state.user_bytes += user_bytes
            if written:
                buffer.clear()
        except BaseException as error:
            self.poison(error)
            raise

    def _log_group(self, log: LogWriter, durable: bool, applied_ops: int) -> bool:
        """Write the buffer to the log when it must be, and sync when asked. Return whether it was
        written.

        Operations that nobody asked to be durable may stay in the buffer; its first `applied_ops`
        are applied.
        """
        state, buffer = self._state, self._state.buffer
        written = False
        if buffer.op_count and (durable or buffer.size > state.buffer_bytes_max // 2):
            log.append(buffer, state.next_seq - applied_ops)
            written = True
        if durable:
            log.sync()
        return written


def _copy_error(error: Exception) -> Exception:
    """Return an error like `error` for another thread: two threads must not raise one object."""
    try:
        copied = type(error)(*error.args)
    except Exception:  # noqa: BLE001  a constructor with other arguments
        copied = Error(str(error))
    copied.__cause__ = error
    return copied
