"""The write path: commit groups, and everything that must happen between two of them.

A thread that commits joins the queue. The first one becomes the leader: it takes the queue as one
group, makes room, writes the group to the log as one record, syncs once when a member asked for it,
applies it to the memtables, makes it visible, and wakes the others. The next leader is the first of
those that came meanwhile. (Group commit as in DeWitt et al., 1984; leader and followers as in
LevelDB's writer queue.)

Order, always: logged, synced when asked, applied, visible, acknowledged. A group that is not
durable yet is never visible, so nobody reads what a crash could take back while its writer still
waits.

Whoever waits without a thread, an asyncio task say, hands in a `Submission`. The committer (see
`committer`) is a thread like others that commits what was handed in, as one member of a group.

`exclusive` runs a function with the leadership: no commit is in flight meanwhile and the fast path
is off. Freezing memtables, syncing for a flush, creating and dropping keyspaces, and closing use
it.

A signal handler may raise in the main thread at any line. So waiters stay in the queue until their
group is settled, every step of handing over may be done twice, and a thread that is interrupted
withdraws: what it had not begun is not done, and the others go on without it. Once the log has its
record a commit is finished before the interruption is passed on.

A finalizer or a signal handler runs in the middle of whatever its thread does. One that commits
while that thread leads, or waits in the queue, would wait for itself: it gets ReentryError.

Thread safety: safe. `CommitState.flags` has BUSY while there is a leader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol, TypeVar

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
from holdfast.engine.latency import Latencies
from holdfast.env import Env, Gate, ReentryError
from holdfast.memtable import Memtable
from holdfast.recovery import apply_buffer
from holdfast.txn import Changes, GroupWrites
from holdfast.wal import LogWriter, RecordBuffer, WriteBatch

GROUP_BYTES_MAX = 4 << 20
"""A leader stops taking waiters into its group when it has this many bytes, so that the first ones
need not wait long.
"""

WAKE_SECONDS_MAX = 0.002
"""After this time those who wait for the rest of a group are let through at once."""

WITHDRAW_TRIES = 1_000
"""So often in a row may a thread be interrupted that withdraws from a commit."""

HELD_FACTOR = 32
"""The buffer may grow to so many times its usual size while a full segment of the log is synced."""

DURABILITIES = ("commit", "interval", "none")

REFUSING = FORKED | CLOSED | CLOSING | READ_ONLY | POISONED
"""The flags with which nothing can be written."""

Result = TypeVar("Result")


class Condition(Protocol):
    """What a batch is committed under; see `txn.Check`, and `OpenRange`, which makes the batch."""

    def require_unchanged(self, changes: Callable[[int], Changes], group: GroupWrites, /) -> None:
        """Return if the batch may be written. Called by the leader, right before it takes the
        batch, and perhaps again. `group` has what comes before in the same commit group, and
        everything else is applied. Raises: ConflictError; MemoryError.
        """
        ...


class Submission:
    """A batch that is committed for somebody who waits without a thread; see `Committer`.

    When it was served, `error` says why it was not committed, or is None. With a `check` it is
    committed only if that holds.
    Raises: ValueError for an unknown durability.
    """

    __slots__ = ("batch", "check", "durable", "error", "keyspaces", "receiver")

    def __init__(
        self,
        receiver: Receiver,
        batch: WriteBatch | None,
        durability: str | None,
        keyspaces: Collection[int] = (),
        check: Condition | None = None,
    ) -> None:
        self.receiver = receiver
        self.batch = batch
        self.check = check
        self.durable = durability is None or durability == "commit"
        self.keyspaces = keyspaces
        self.error: BaseException | None = None
        if not self.durable:
            check_durability(durability)


class Receiver(Protocol):
    """Whoever is told that submissions were served."""

    def receive(self, served: list[Submission]) -> None:
        """Take what was served; called once for each commit group that has some of this receiver.

        May raise MemoryError: then it is called again.
        """
        ...


class _Waiter:
    """One thread's place in the queue."""

    # What most waiters never change is of the class: making one is a part of every commit.
    work: Callable[[], object] | None = None
    # What it commits for others, and the bytes of that.
    parts: Sequence[Submission] = ()
    parts_bytes = 0
    gate: Gate | None = None
    check: Condition | None = None
    finished = False
    # Its thread was interrupted while another one served it.
    abandoned = False
    error: BaseException | None = None
    thread = -1
    # The thread that does the work, if that is another one.
    helper = -1

    def __init__(
        self, batch: WriteBatch | None, durable: bool, keyspaces: Collection[int] = ()
    ) -> None:
        self.batch = batch
        self.durable = durable
        self.keyspaces = keyspaces


class WritePath:
    """Serialises commits and hands them to the log and the memtables."""

    def __init__(
        self,
        env: Env,
        state: CommitState,
        log: LogWriter | None,
        *,
        make_room: Callable[[], None],
        changes: Callable[[int], Changes],
        latencies: Latencies | None = None,
        on_commit: Callable[[float], None] = lambda _: None,
        on_full_segment: Callable[[], None],
    ) -> None:
        self._env = env
        self._state = state
        self._buffer_bytes_max = state.buffer_bytes_max
        self._log = log
        self._make_room = make_room
        # What is asked whether something changed, by keyspace.
        self._changes = changes
        self.clock = env.monotonic
        self.thread_id = env.thread_id
        self._latencies = Latencies() if latencies is None else latencies
        # Told the time when a commit has ended.
        self._on_commit = on_commit
        # Has `log_left` called by another thread.
        self._on_full_segment = on_full_segment
        self._mutex = env.mutex()
        # Guarded by the mutex: who waits, the leader first, and the part of it that is served.
        self._queue: list[_Waiter] = []
        self._leader: _Waiter | None = None
        self._group: list[_Waiter] = []
        # Guarded by the mutex: whose gates are to be opened, one after the other (see _pass_on).
        self._waking: deque[_Waiter] = deque()
        self._wake_all_at = 0.0
        # Guarded by the mutex: the threads that are not let through yet.
        self._waiting: set[int] = set()
        self.background: set[int] = set()
        """The threads whose work commits may have to wait for. A set that others change."""
        # Whether what happens to the group is decided. Of the leader.
        self._settled = False
        self._poison: BaseException | None = None
        self.memtables: dict[int, Memtable] = {}
        """The active memtable of each keyspace. Changed only with the leadership."""
        self.alone = _Waiter(None, True)
        """Stands in the queue for a thread that commits by `_core`, as long as it leads."""

    # -- entry points

    def commit(
        self,
        batch: WriteBatch,
        durability: str | None,
        keyspaces: Collection[int],
        check: Condition | None = None,
    ) -> None:
        """Commit `batch`, which touches `keyspaces`, and return when it is as durable as asked.
        With a `check`, only if that holds when its turn comes.

        Raises: ValueError for an unknown durability; ReadOnlyError, DatabaseClosedError,
        DatabasePoisonedError; DatabaseClosedError when a keyspace was dropped; DiskFullError with
        nothing written; LimitError for a batch that is too large; ConflictError of the check.
        """
        durable = durability is None or durability == "commit"
        if not durable:
            check_durability(durability)
        if batch.size > BATCH_BYTES_MAX:
            raise LimitError(f"the batch has {batch.size} bytes; the limit is {BATCH_BYTES_MAX}")
        began = self._env.monotonic()
        waiter = _Waiter(batch, durable, keyspaces)
        if check is not None:
            waiter.check = check
        self._run(waiter)
        self._note_commit(began, durable)

    def _note_commit(self, began: float, durable: bool) -> None:
        """Count a commit that has ended. Its caller must not hear of what goes wrong here."""
        try:
            now = self._env.monotonic()
            if durable:
                self._latencies.commit.record(now - began)
            self._on_commit(now)
        except MemoryError:
            mark("engine.commit_not_counted")

    def commit_for_others(self, parts: Sequence[Submission], size: int) -> None:
        """Commit batches of `size` bytes as one member of a group. Raises nothing that concerns
        them: each has its own `error` afterwards, or none. When it raises MemoryError, those that
        have none may have been committed or not.
        """
        began, durable = 0.0, False
        try:
            durable = any(part.durable for part in parts)
            waiter = _Waiter(None, False)
            waiter.parts, waiter.parts_bytes = parts, size
            began = self._env.monotonic()
            self._run(waiter)
        except Exception as error:  # noqa: BLE001  each part gets it
            for part in parts:
                if part.error is None:
                    part.error = copy_error(error)
        else:
            self._note_commit(began, durable)

    def sync(self) -> None:
        """Make everything that was written durable."""
        self._run(_Waiter(None, True))

    def sync_held(self) -> None:
        """Make everything that was written durable. Requires: the leadership."""
        self._write_held(durable=True)

    def log_held(self) -> None:
        """Give everything that was written to the log, where `LogWriter.sync_beside` can make it
        durable. Requires: the leadership.
        """
        if self._state.buffer.op_count:
            self._write_held(durable=False)

    def _is_left_beside(self, log: LogWriter) -> bool:
        """Return whether the log has come to the end of a segment, which another thread syncs now,
        so that operations had better stay in the buffer meanwhile. Requires: the leadership.
        """
        state = self._state
        if state.buffer_bytes_max > self._buffer_bytes_max or not log.leave_full(state.buffer.size):
            return False
        state.buffer_bytes_max = HELD_FACTOR * self._buffer_bytes_max
        try:
            self._on_full_segment()
        except (MemoryError, RuntimeError):
            # RuntimeError: no thread could be started.
            mark("engine.segment_left_in_a_commit")
            state.buffer_bytes_max = self._buffer_bytes_max
            return False
        except BaseException:
            # Of a signal handler, perhaps before that was asked for. It may be done all the same.
            state.buffer_bytes_max = self._buffer_bytes_max
            raise
        mark("engine.segment_left")
        return True

    def log_left(self) -> None:
        """Sync the segment that is full, and log what stayed in the buffer meanwhile. Of a thread
        that has no part in commits.

        Raises: DiskFullError with nothing lost; DatabasePoisonedError, DatabaseClosedError.
        """
        log, state = self._log, self._state
        if log is None:
            raise ReadOnlyError("the database was opened with read_only=True")
        try:
            log.sync_end_beside()
        finally:
            state.buffer_bytes_max = self._buffer_bytes_max
        if state.buffer.size > self._buffer_bytes_max // 2:
            self.exclusive(self.log_held)

    def _write_held(self, *, durable: bool) -> None:
        interruption = self._write([], durable=durable, settles=False, buffers=False)
        if interruption is not None:
            raise interruption

    def exclusive(self, work: Callable[[], Result]) -> Result:
        """Run `work` with the leadership, and so that nothing interrupts it; return its result."""
        results: list[Result] = []
        waiter = _Waiter(None, False)
        waiter.work = lambda: results.append(work())
        self._run(waiter)
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
        if not flags & REFUSING:
            return
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
            cause = str(self._poison) or repr(self._poison)
            raise DatabasePoisonedError(
                f"a sync or write failed earlier ({cause}); close and reopen the database"
            ) from self._poison

    # -- the queue

    def begin_segment(self) -> None:
        """Let the log go to a segment that is made now: what is committed from now on stands in no
        file of before.

        Raises: DiskFullError with nothing lost; DatabasePoisonedError, DatabaseClosedError.
        """
        self.exclusive(lambda: self._change_segment(LogWriter.begin_segment))

    def settle_held(self) -> None:
        """Make everything that was written durable, in segments that the log knows of. Requires:
        the leadership.
        """
        self.sync_held()
        self._change_segment(LogWriter.settle)

    def _change_segment(self, step: Callable[[LogWriter], None]) -> None:
        log = self._log
        if log is None:
            raise ReadOnlyError("the database was opened with read_only=True")
        try:
            step(log)
        except BaseException as error:
            if log.poisoned or log.in_doubt:
                self.poison(error)
            raise

    def _run(self, waiter: _Waiter) -> None:
        if self._state.flags & REFUSING:
            self.check_writable()
        thread = waiter.thread = self.thread_id()
        if self._leader is not None or self.background:
            self._refuse_reentry(thread)
        try:
            with self._mutex:
                if self._leader is None:
                    # Then nobody waits.
                    self._leader = waiter
                    self._queue = [waiter]
                    self._group, self._settled = [waiter], False
                    self._state.begin_group()
                else:
                    waiter.gate = self._env.gate()
                    self._waiting.add(thread)
                    self._queue.append(waiter)
            if waiter.gate is not None:
                # Until a leader has served it, or made it the leader.
                waiter.gate.acquire()
                with self._mutex:
                    self._pass_on(waiter)
                    self._waiting.discard(thread)
                    if not waiter.finished:
                        self._group, self._settled = self._next_group(), False
            if not waiter.finished:
                self._lead(waiter)
        except BaseException:
            self._withdraw(waiter)
            raise
        if waiter.error is not None:
            raise waiter.error

    def require_outside(self) -> None:
        """Raise ReentryError when this thread is in the middle of a commit, or of what commits wait
        for.
        """
        self._refuse_reentry(self.thread_id())

    def _refuse_reentry(self, thread: int) -> None:
        leader = self._leader
        if leader is not None and thread in (leader.thread, leader.helper):
            mark("engine.commit_in_a_commit")
            raise ReentryError("the way to the log")
        if thread in self._waiting:
            mark("engine.commit_in_a_wait")
            raise ReentryError("the way to the log")
        if thread in self.background:
            mark("engine.commit_in_the_background")
            raise ReentryError("the background work")

    def _withdraw(self, waiter: _Waiter) -> None:
        """Take a waiter whose thread was interrupted out of everything."""
        tries = WITHDRAW_TRIES
        while True:
            try:
                with self._mutex:
                    self._waiting.discard(waiter.thread)
                    if waiter in self._waking:
                        self._waking.remove(waiter)
                    else:
                        self._pass_on(waiter)
                    if self._leader is waiter:
                        self._hand_over(waiter)
                    elif waiter in self._group:
                        waiter.abandoned = True
                    elif waiter in self._queue:
                        self._queue.remove(waiter)
            except ReentryError:
                # It came in the middle of a change of the queue, and was never in it.
                raise
            except MemoryError:
                # A leader that left without handing over would keep everybody out for good.
                continue
            except BaseException:
                # Of a signal handler, while one is on its way already; whatever comes without end
                # says that there is nobody any more who could go on.
                tries -= 1
                if tries:
                    continue
                raise
            return

    def _lead(self, leader: _Waiter) -> None:
        """Serve the group that starts with `leader`, then hand the leadership on."""
        group = self._group
        try:
            self._serve(group)
        except Exception as error:  # noqa: BLE001  every member of the group gets it
            for waiter in group:
                if waiter.error is None:
                    waiter.error = error if waiter is leader else copy_error(error)
            self._settled = True
        with self._mutex:
            self._hand_over(leader)

    def _hand_over(self, leader: _Waiter) -> None:
        """End the group and make the head of the queue the leader.

        May be done again when it was interrupted. Requires: the mutex.
        """
        group = self._group
        served: list[_Waiter] = []
        if self._settled:
            for waiter in group:
                waiter.finished = True
                if waiter is not leader and not waiter.abandoned:
                    served.append(waiter)
            # A group is the front of the queue, and nobody leaves it from there.
            queue = self._queue[len(group) :]
        else:
            # Nothing of the group was written: the others commit without this thread.
            queue = [
                waiter
                for waiter in self._queue
                if waiter is not leader and not (waiter.abandoned and waiter in group)
            ]
        following = queue[0] if queue else None
        waking = self._waking
        if served or following is not None:
            waking = deque((*waking, *served, *queue[:1]))
            self._wake_all_at = self._env.monotonic() + WAKE_SECONDS_MAX
        # All of it or nothing: no call, behind which a signal handler could raise, is between.
        self._queue, self._group, self._settled = queue, [], False
        self._leader, self._waking = following, waking
        if following is None:
            self._state.flags &= ~BUSY
        if waking:
            self._pass_on(leader)

    def _pass_on(self, waiter: _Waiter) -> None:
        """Open the next gate, for a `waiter` that was let through its own or leads.

        If all gates were opened at once, each thread would wake only to sleep again before the
        interpreter lock. So whoever has that lock lets one other through, which waits a moment for
        it to be free (see `env._gate_py`). When this takes long, the lock is with threads that do
        not commit, and then all that are left are let through, to wait for it side by side.

        May be done again when it was interrupted. Requires: the mutex.
        """
        waking = self._waking
        while waking:
            following = waking[0]
            if following is not waiter and following.gate is not None:
                try:
                    following.gate.release()
                except RuntimeError:
                    # It is open already.
                    pass
                waking.popleft()
                if self._env.monotonic() < self._wake_all_at:
                    return
            else:
                waking.popleft()

    def _next_group(self) -> list[_Waiter]:
        """Return the waiters that are served next: one exclusive piece of work, or commits up to
        GROUP_BYTES_MAX. Requires: the mutex.
        """
        group: list[_Waiter] = []
        size = 0
        for waiter in self._queue:
            size += waiter.parts_bytes if waiter.batch is None else waiter.batch.size
            if group and (waiter.work is not None or size > GROUP_BYTES_MAX):
                break
            group.append(waiter)
            if waiter.work is not None:
                break
        return group

    # -- the leader's work

    def _serve(self, group: list[_Waiter]) -> None:
        state, first = self._state, group[0]
        if state.flags & REFUSING:
            self.check_writable()
        if first.work is not None:
            self._env.uninterrupted(partial(self._work, first, first.work))
            return
        if first.batch is not None or first.parts or len(group) > 1:
            self._make_room()
            if state.flags & REFUSING:
                self.check_writable()
        accepted, durable = self._accept(group)
        interruption = self._write(accepted, durable=durable, settles=True)
        if interruption is not None:
            raise interruption

    def _work(self, waiter: _Waiter, work: Callable[[], object]) -> None:
        waiter.helper = self.thread_id()
        try:
            work()
        finally:
            # Another thread may get its number.
            waiter.helper = -1

    def _accept(self, group: list[_Waiter]) -> tuple[list[WriteBatch], bool]:
        """Return the batches of a group that may be written, and whether one is to be durable.

        They are looked at in their order: each check sees all that is applied, and the batches
        accepted before it. The others have their error afterwards.
        """
        memtables, accepted, durable = self.memtables, [], False
        earlier = GroupWrites(self._state.next_seq)
        for waiter in group:
            for part in waiter.parts or (waiter,):
                # Of a group whose leader was interrupted: what it was refused for may not be true.
                part.error = None
                for keyspace in part.keyspaces:
                    if keyspace not in memtables:
                        part.error = DatabaseClosedError("a keyspace of this commit was dropped")
                        break
                else:
                    try:
                        if part.check is not None:
                            part.check.require_unchanged(self._changes, earlier)
                        if part.batch is not None:
                            earlier.add(part.batch)
                    except Exception as error:  # noqa: BLE001  it is this member's alone
                        # Its frames would hold the whole group.
                        part.error = error.with_traceback(None)
                        continue
                    durable = durable or part.durable
                    if part.batch is not None:
                        accepted.append(part.batch)
        return accepted, durable

    def _write(
        self, batches: list[WriteBatch], *, durable: bool, settles: bool, buffers: bool = True
    ) -> BaseException | None:
        """Log, sync, apply and publish one group. Return the exception of a signal handler that
        came when the log had the record already, for the caller to raise.

        Operations that nobody asked to be durable may stay in the buffer, if it `buffers`. Between
        the first byte for the log and the last operation applied nothing may be skipped, or the
        numbers given here would be given again: any surprise there poisons the database.
        """
        log = self._log
        if log is None:
            raise ReadOnlyError("the database was opened with read_only=True")
        state, buffer = self._state, self._state.buffer
        written = False
        applied_ops, applied_bytes, rollback = buffer.op_count, buffer.size, buffer.mark()
        seq_next = state.next_seq
        seq_first, seq_last = seq_next - applied_ops, seq_next - 1
        new_ops, user_bytes, seq_after, write_count, user_bytes_near = 0, 0, seq_next, 0, 0
        interruption: BaseException | None = None
        try:
            for batch in batches:
                buffer.append_batch(batch)
            # Sums ask for memory too: they are made while nothing is written.
            new_ops = buffer.op_count - applied_ops
            user_bytes = buffer.size - applied_bytes
            seq_last, seq_after = seq_last + new_ops, seq_next + new_ops
            write_count = state.write_count + new_ops
            user_bytes_near = state.user_bytes + user_bytes
            durable_before = log.durable_lsn
            began = self._env.monotonic() if durable else 0.0
            is_full = not buffers or buffer.size > state.buffer_bytes_max // 2
            if buffer.op_count and (durable or is_full):
                if durable or not buffers or not self._is_left_beside(log):
                    log.append(buffer, seq_first, durable=durable)
                    written = True
            elif durable:
                log.sync()
            if durable and log.durable_lsn > durable_before:
                self._note_sync(began)
        except BaseException as error:  # noqa: BLE001  it is raised there, or passed on
            interruption = self.after_failure(error, rollback, seq_first, durable)
            written = True
        try:
            if new_ops:
                try:
                    # Called from here: a handler may raise at the entry of a Python function.
                    user_bytes = apply_buffer(buffer, applied_bytes, seq_next, self.memtables)
                except BaseException as error:  # noqa: BLE001  it is passed on
                    if max(table.seq_max for table in self.memtables.values()) != seq_last:
                        # The log has it. What was applied may be applied again: an operation with
                        # the same key and number takes its place.
                        user_bytes = self.apply_again(buffer, applied_bytes, seq_next)
                    if not isinstance(error, MemoryError):
                        interruption = error
                state.next_seq = seq_after
                state.visible_seq = seq_last
                state.write_count = write_count
                try:
                    state.user_bytes += user_bytes
                except MemoryError:
                    state.user_bytes = user_bytes_near
        except BaseException as error:
            self.poison(error)
            raise
        self._settled = settles
        if written:
            try:
                buffer.clear()
            except BaseException as error:  # noqa: BLE001  it is passed on
                # Only a signal handler raises here, perhaps before anything was cleared.
                buffer.clear()
                interruption = error
        return interruption

    def after_failure(
        self, error: BaseException, rollback: tuple[int, int], seq_first: int, durable: bool
    ) -> BaseException:
        """Raise `error`, which came while the log took the buffer from `seq_first` on, with nothing
        done; or return it when the log has the record. Requires: the leadership.
        """
        log = self._log
        if log is None or log.poisoned or log.in_doubt:
            # The record may be on disk, so its numbers must not be given again.
            self.poison(error)
            raise error
        if log.written_seq < seq_first:
            # The log has none of it.
            self._take_back(rollback)
            raise error
        self._sync_after(log, error, durable)
        return error

    def apply_again(self, buffer: RecordBuffer, offset: int, seq_first: int) -> int:
        """Apply what the log has once more, since not all of it was applied; return its bytes.

        Raises with the database poisoned. Requires: the leadership.
        """
        mark("engine.applied_again")
        try:
            return apply_buffer(buffer, offset, seq_first, self.memtables)
        except BaseException as error:
            self.poison(error)
            raise

    def _note_sync(self, began: float) -> None:
        """Count the sync of a record that began then, with the write before it. The commit goes on
        whatever goes wrong here.
        """
        try:
            self._latencies.sync.record(self._env.monotonic() - began)
        except MemoryError:
            mark("engine.sync_not_counted")

    def note_alone(self, began: float, synced: float) -> None:
        """Count a durable commit that was done without this path, and its sync with the write
        before it.
        """
        try:
            now = self._env.monotonic()
            self._latencies.sync.record(synced - began)
            self._latencies.commit.record(now - began)
            self._on_commit(now)
        except MemoryError:
            mark("engine.commit_alone_not_counted")

    def _take_back(self, place: tuple[int, int]) -> None:
        """Remove from the buffer what was not logged, after an exception that its caller raises."""
        try:
            self._state.buffer.rollback(place)
        except BaseException as error:  # noqa: BLE001  the caller raises what came first
            self.poison(error)

    def _sync_after(self, log: LogWriter, interruption: BaseException, durable: bool) -> None:
        """Make a record durable whose sync was interrupted before it began or after it ended."""
        mark("engine.commit_interrupted")
        try:
            if durable:
                log.sync()
        except BaseException:
            self.poison(interruption)
            raise


def check_durability(durability: str | None) -> None:
    """Raise ValueError for an unknown durability."""
    if durability is not None and durability not in DURABILITIES:
        raise ValueError(
            f"durability is {durability!r}; it must be one of {', '.join(DURABILITIES)}"
        )


def copy_error(error: Exception) -> Exception:
    """Return an error like `error` for another thread: two threads must not raise one object. When
    there is no memory for a second one it is `error` itself: that one is told matters more.
    """
    try:
        try:
            copied = type(error)(*error.args)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  a constructor with other arguments
            copied = Error(str(error))
        copied.__cause__ = error
    except MemoryError:
        mark("engine.error_shared")
        return error
    return copied
