"""The engine behind a database handle: it introduces the rooms to each other and owns their lives.

One `Engine` is one open folder: the log, the manifest, the trees of all keyspaces, the pool, and
the background work.
`Database` and `Keyspace` are its faces. Opening is in `opening`, background jobs are in `flush` and
`compact`.

Locks, in the order they may be taken: the leadership of the write path, then the version mutex,
then the mutexes inside rooms. A job that needs both takes the leadership first.

Invariants:
1. A manifest edit that adds tables is logged after the tables and their folder are synced.
2. A table or segment file is removed after the edit that no longer needs it was synced.
3. A table enters the manifest after the log is durable up to its last operation: otherwise a crash
   could keep half of a batch over two keyspaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from holdfast.base import (
    DatabaseClosedError,
    DatabasePoisonedError,
    DatabaseSettings,
    DiskFullError,
    KeyspaceSettings,
    LimitError,
    ReadOnlyError,
    mark,
)
from holdfast.base.limits import KEYSPACE_NAME_BYTES_MAX
from holdfast.bufferpool import BufferPool
from holdfast.compaction import JobStoppedError, Pace, strategy_of, write_pace
from holdfast.engine._core import CLOSED, FORKED, POISONED, READ_ONLY, CommitState
from holdfast.engine.brake import Brake
from holdfast.engine.closing import close_engine
from holdfast.engine.committer import Committer
from holdfast.engine.compact import InputError, compact_once
from holdfast.engine.crew import rest
from holdfast.engine.flush import flush_frozen
from holdfast.engine.history import History, Totals
from holdfast.engine.latency import Latencies
from holdfast.engine.memory import EngineMemory
from holdfast.engine.pulse import Pulse
from holdfast.engine.snapshot import registry_of
from holdfast.engine.stats import Counters
from holdfast.engine.upkeep import Upkeep
from holdfast.engine.urgency import throttle_of
from holdfast.engine.write_path import WritePath
from holdfast.env import Env, FileLock, is_shortage
from holdfast.lsm import TableStore, Tree
from holdfast.manifest import Version, VersionEdit, VersionSet, manifest_name
from holdfast.memtable import Memtable
from holdfast.recovery import FileNumbers, Report, check_log, check_manifest, check_tables
from holdfast.sstable import TableInfo, table_name
from holdfast.txn import LockTable
from holdfast.wal import LogWriter, RecordBuffer, segment_name, segments_beyond

BUFFER_BYTES_MAX = 256 * 1024
"""Unsynced operations are written to the log when there are this many bytes of them."""

ROOM_CHECK_BYTES = 64 * 1024
"""Memtable sizes are looked at after this many bytes of user data at most, not at every commit."""


class Engine:
    """One open database folder."""

    def __init__(
        self,
        env: Env,
        folder: str,
        settings: DatabaseSettings,
        *,
        pool: BufferPool,
        store: TableStore,
        version: Version,
        version_set: VersionSet | None,
        log: LogWriter | None,
        lock: FileLock | None,
        numbers: FileNumbers,
        last_seq: int,
    ) -> None:
        self.env = env
        self.folder = folder
        self.settings = settings
        self.pool = pool
        self.store = store
        self.merges = store.merges
        self.log = log
        self.version_set = version_set
        self.numbers = numbers
        self.counters = Counters()
        self.latencies = Latencies()
        self.history = History(Totals(at=env.monotonic()))
        # Whatever the disk did, what a failed sync was about must not be the only copy.
        store.keeps_files = lambda: self.is_poisoned
        self.version_mutex = env.mutex()
        self.closing_mutex = env.mutex()
        self.trees: dict[int, Tree] = {}
        self.busy_tables: set[int] = set()
        self.memory = EngineMemory(env, pool, self.trees, settings.memory_bytes, self.is_compacting)
        self.compacting: set[int] = set()
        """The threads of users that are inside `compact` or `ingest`: closing waits for them."""
        self._version = version
        self._lock = lock
        self.room = env.condition(self.version_mutex)
        self._checked_bytes = 0
        self._check_every = ROOM_CHECK_BYTES
        self._failures: dict[str, BaseException] = {}
        """The last failure of each lane of background work that was not followed by a success."""
        self._untold: BaseException | None = None
        """A failure that nobody who waits for background work was told of yet."""
        self.state = CommitState(RecordBuffer(), BUFFER_BYTES_MAX, last_seq)
        if log is None:
            self.state.flags |= READ_ONLY
        self.state.room_at = self._check_every
        self.brake = Brake(env, self.state, self.counters, self.latencies)
        self.upkeep = Upkeep(env, self._upkeep_failed)
        self.awaited = 0
        """How many callers wait for a flush. Guarded by the version mutex."""
        self.throttle = throttle_of(self)
        self.pulse = Pulse(self)
        self.write_path = self._make_write_path(log)
        self.write_path.background = self.upkeep.background
        if log is not None:
            self.state.path = self.write_path
        self.committer = Committer(env, self.state, self.write_path)
        self.snapshots = registry_of(env, self.state, self.counters, settings)
        self.locks = LockTable(env, self.snapshots.look)
        self.on_view: dict[int, Callable[[Tree], None]] = {}
        """What to call, by keyspace, when its tree published a new view."""
        self._fork_hook = self._forked
        env.on_fork(self._fork_hook)
        for keyspace in version.keyspaces.values():
            self.check_often_enough(keyspace.settings)
            self.add_tree(Tree(store, keyspace, self.memory.spare))

    def _make_write_path(self, log: LogWriter | None) -> WritePath:
        return WritePath(
            self.env,
            self.state,
            log,
            make_room=self.make_room,
            changes=lambda keyspace: self.trees[keyspace].view,
            latencies=self.latencies,
            on_commit=self.pulse.beat,
            on_full_segment=lambda: self.upkeep.submit("log", "leave", self._leave_segment),
        )

    def is_compacting(self) -> bool:
        """Return whether a compaction is under way."""
        return bool(self.busy_tables)

    # -- trees and versions

    @property
    def version(self) -> Version:
        """The current version."""
        return self._version

    def add_tree(self, tree: Tree) -> None:
        """Take in the tree of a keyspace."""
        self.trees[tree.version.id] = tree
        self.write_path.memtables[tree.version.id] = tree.active

    def check_often_enough(self, settings: KeyspaceSettings) -> None:
        """Look at the sizes of memtables often enough for one of a keyspace with `settings`."""
        self._check_every = min(self._check_every, settings.memtable_bytes // 8)
        self.state.room_at = self._checked_bytes + self._check_every

    def adopt_memtable(self, keyspace: int, memtable: Memtable) -> None:
        """Show a replayed memtable; of a database that is only read."""
        self.trees[keyspace].adopt(memtable)

    def published(self, tree: Tree) -> None:
        """Tell the keyspace's handle that its tree has a new view."""
        hook = self.on_view.get(tree.version.id)
        if hook is not None:
            hook(tree)

    def log_edit(self, edit: VersionEdit) -> Version:
        """Log a manifest edit, filling in what every edit carries. Requires: the version mutex.

        Raises: DiskFullError with nothing changed, MemoryError with nothing changed unless the
        database is poisoned; DatabasePoisonedError when the disk fails in another way, because
        nobody knows then whether the edit is there.
        """
        version_set, log = self.version_set, self.log
        if version_set is None or log is None:
            raise ReadOnlyError("the database was opened with read_only=True")
        self._check_manifest_held()
        if version_set.is_full:
            # There was no room for one behind earlier edits, and a manifest has a greatest size.
            mark("engine.manifest_full")
            self.rewrite_manifest()
        try:
            self._version = version_set.log(self._completed(edit, log))
        except DiskFullError:
            raise
        except BaseException as error:
            if isinstance(error, MemoryError) and not version_set.is_poisoned:
                # The write had not begun.
                raise
            self.poison(error)
            if isinstance(error, OSError):
                raise self.failure(error) from error
            raise
        try:
            # Even to ask needs memory.
            if version_set.needs_rewrite:
                self.rewrite_manifest()
        except (DiskFullError, MemoryError):
            if self.is_poisoned:
                raise
            # The edit is durable in the old manifest, which goes on; the next edit tries again.
            mark("engine.manifest_rewrite_full")
        return self._version

    def _completed(self, edit: VersionEdit, log: LogWriter) -> VersionEdit:
        """Return `edit` with what every edit carries."""
        return replace(
            edit,
            next_number=self.numbers.next_number,
            # A writer that has written nothing knows no sequence number yet.
            last_seq=max(self._version.last_seq, log.durable_seq),
            durable_lsn=log.durable_lsn,
        )

    def carry_out(self, steps: Iterator[Callable[[], object]]) -> None:
        """Do what follows from an edit that is durable. Each of `steps` may be done again, and they
        were made before the edit, with their iterator: here even a loop might lack the memory.
        Requires: the version mutex.

        One failed allocation does no harm. When there is no memory for a second try either, what
        is durable and what is shown are not the same, and the database is poisoned.
        """
        try:
            for step in steps:
                try:
                    step()
                except MemoryError:
                    mark("engine.carried_out_again")
                    step()
        except BaseException as error:
            self.poison(error)
            raise

    def rewrite_manifest(self, edit: VersionEdit | None = None) -> None:
        """Go over to a new manifest that starts with the current version, or with what `edit` makes
        of it. Requires: the version mutex.

        Raises: DiskFullError with nothing changed, MemoryError with nothing changed unless the
        database is poisoned; DatabasePoisonedError when the disk fails in another way.
        """
        version_set, log = self.version_set, self.log
        if version_set is None or log is None:
            raise ReadOnlyError("the database was opened with read_only=True")
        self._check_manifest_held()
        number = self.numbers.allocate()
        try:
            obsolete = version_set.rewrite(number, edit and self._completed(edit, log))
        except OSError as error:
            if version_set.is_poisoned or not (version_set.was_refused or is_shortage(error)):
                self.poison(error)
                raise self.failure(error) from error
            if not version_set.was_refused:
                # Else nothing is there, or it is not ours.
                self._unlink_manifests([manifest_name(number)])
            what = "no room for" if is_shortage(error) else "nobody can make"
            raise DiskFullError(f"{what} a new manifest: {error}") from error
        except DiskFullError:
            raise
        except BaseException as error:
            if isinstance(error, MemoryError) and not version_set.is_poisoned:
                # Its marker was not begun. What there is of it is an orphan for the next open.
                raise
            self.poison(error)
            raise
        self._version = version_set.version
        self._unlink_manifests(obsolete)

    def _check_manifest_held(self) -> None:
        """Raise if the manifest must not be touched. Requires: the version mutex."""
        if self.state.flags & CLOSED:
            # The folder may be somebody else's by now.
            self.write_path.check_writable()
        # What an edit gives up is removed after it, and a poisoned database removes nothing.
        self.write_path.check_poison()

    def _unlink_manifests(self, names: Iterable[str]) -> None:
        for name in names:
            if self.is_poisoned:
                return
            try:
                self.env.unlink(f"{self.folder}/{name}", site="manifest.obsolete.unlink")
            except OSError:
                mark("manifest.unlink_failed")

    def unflushed_seq(self, without: Memtable | None = None) -> int:
        """Return the least sequence number that only memtables other than `without` hold."""
        least = self.state.next_seq
        for tree in list(self.trees.values()):
            for table in (tree.active, *tree.frozen):
                if table is not without and table.seq_min:
                    least = min(least, table.seq_min)
        return least

    @property
    def log_bytes(self) -> int:
        """Bytes of log that recovery would replay."""
        return (
            sum(segment.bytes_used for segment in self.log.segments())
            if self.log is not None
            else 0
        )

    def unlink_segments(self, numbers: list[int]) -> None:
        """Remove segments that no longer matter, but for those that the settings keep for feeds; a
        failure leaves orphans for the next open.
        """
        kept_bytes = self.settings.wal_keep_bytes
        if numbers and kept_bytes:
            try:
                numbers = segments_beyond(self.env, self.folder, numbers[-1] + 1, kept_bytes)
            except OSError:
                mark("wal.unlink_failed")
                return
        for number in numbers:
            if self.is_poisoned:
                return
            try:
                self.env.unlink(f"{self.folder}/{segment_name(number)}", site="wal.segment.unlink")
            except OSError:
                mark("wal.unlink_failed")

    # -- room for writes

    def make_room(self) -> None:
        """Called by the leader before a group: freeze what is full, slow down or wait when upkeep
        is behind.
        """
        pace = self.brake.pace
        if pace.stop:
            self._wait_for_room()
        else:
            self.brake.slow_down(pace)
        if (
            self.state.user_bytes >= self.state.room_at
            or pace.stop
            or self.state.buffer.size * 2 > BUFFER_BYTES_MAX
        ):
            self._checked_bytes = self.state.user_bytes
            self._freeze_full()
            log = self.log
            if log is not None and log.needs_next:
                self.upkeep.submit("log", "prepare", self._prepare_segment)
        self.state.room_at = self._checked_bytes + self._check_every

    def _freeze_full(self) -> None:
        """Freeze memtables that are full, hold the oldest log, or are most of the budget."""
        for tree in self.trees.values():
            if tree.active.bytes_used >= tree.version.settings.memtable_bytes:
                self.freeze(tree)
        log = self.log
        if log is not None and self.log_bytes > self.settings.wal_bytes_max:
            oldest = self.unflushed_seq()
            for tree in self.trees.values():
                if tree.active.seq_min and tree.active.seq_min == oldest:
                    mark("engine.wal_cap_freeze")
                    self.freeze(tree)
        active = sum(tree.active.bytes_used for tree in self.trees.values())
        if active > self.settings.memory_bytes // 4:
            largest = max(self.trees.values(), key=lambda tree: tree.active.bytes_used)
            self.freeze(largest)
        self.memory.charge()
        if self.memory.is_short:
            self.upkeep.submit("memory", 0, self.memory.prepare)
        if self.memory.has_holes:
            self.upkeep.submit("memory", 1, self.memory.give_back)

    def freeze(self, tree: Tree) -> None:
        """Freeze a keyspace's memtable and have it flushed. Requires: the leadership."""
        if not tree.active.seq_min:
            return
        # The flush makes the log durable up to its last operation, beside those who write.
        self.write_path.log_held()

        def adopt() -> None:
            self.write_path.memtables[tree.version.id] = tree.active

        def switch() -> None:
            with self.version_mutex:
                # A handle must not go on writing to the memtable that is frozen now.
                steps = iter((adopt, lambda: self.published(tree)))
                tree.freeze()
                self.carry_out(steps)
                self.update_pace()
            self.schedule_flush(tree.version.id)

        self.env.uninterrupted(switch)

    def schedule_flush(self, keyspace: int) -> None:
        """Have the frozen memtables of a keyspace flushed in the background."""
        self.upkeep.submit("flush", keyspace, lambda: flush_frozen(self, keyspace))

    def schedule_compaction(self) -> None:
        """Have the next compaction found and run in the background."""
        self.upkeep.submit("compact", 0, lambda: compact_once(self))

    def update_pace(self) -> None:
        """Recompute how much writers are slowed. Requires: the version mutex."""
        stop, seconds, cause = False, 0.0, ""
        for tree in self.trees.values():
            strategy = strategy_of(tree.version.settings)
            pace = write_pace(
                level0_count=strategy.run_count(tree.version),
                frozen_count=len(tree.frozen),
                settings=tree.version.settings,
                debt_bytes=strategy.debt_bytes(tree.version),
            )
            if pace.seconds_per_mib > seconds:
                cause = pace.cause
            stop, seconds = stop or pace.stop, max(seconds, pace.seconds_per_mib)
        held = sum(tree.memtable_bytes for tree in self.trees.values())
        is_log_long = self.log_bytes > 2 * self.settings.wal_bytes_max
        if (
            not stop
            and (is_log_long or held > self.settings.memory_bytes // 4 * 3)
            and any(tree.frozen for tree in self.trees.values())
        ):
            # Flushes must catch up, if there are any: an active memtable is frozen by the leader,
            # not by waiting.
            stop, cause = True, "log" if is_log_long else "memory"
        self.brake.adopt(Pace(stop=stop, seconds_per_mib=seconds, cause=cause))
        self.room.notify_all()

    def progressed(self, lane: str) -> None:
        """Called after a flush or compaction was installed. Requires: the version mutex."""
        self._failures.pop(lane, None)
        self._untold = None
        self.update_pace()

    def _wait_for_room(self) -> None:
        """Wait until upkeep has caught up.

        Raises: DiskFullError when it cannot for want of room; DatabasePoisonedError when it cannot
        because tables cannot be read.
        """
        began = since = self.env.monotonic()
        mark("engine.write_stopped")
        with self.version_mutex:
            while self.brake.pace.stop:
                self.write_path.check_writable()
                self._raise_if_stuck()
                for tree in self.trees.values():
                    if tree.frozen:
                        self.schedule_flush(tree.version.id)
                self.schedule_compaction()
                cause = self.brake.pace.cause
                self.room.wait(1.0)
                self.update_pace()
                now = self.env.monotonic()
                self.counters.note_stall(cause, now - since)
                since = now
        self.latencies.stall.record(since - began)

    def _raise_if_stuck(self) -> None:
        """Raise the background failure that keeps everybody waiting, if there is one."""
        error, self._untold = self._untold, None
        if isinstance(error, InputError):
            if not any(tree.frozen for tree in self.trees.values()):
                # Only the compaction could make room, and it cannot read its tables.
                self.poison(error.cause)
                self.write_path.check_poison()
        elif isinstance(error, MemoryError):
            text = "writes must wait for a flush or compaction that has no memory"
            raise MemoryError(text)  # noqa: TRY004  nothing is of a wrong type
        elif error is not None:
            raise DiskFullError(f"writes must wait for room: {error}") from error

    # -- failures

    def poison(self, cause: BaseException) -> None:
        """Refuse writes for good; see `WritePath.poison`."""
        self.write_path.poison(cause)

    def failure(self, error: OSError) -> DiskFullError | DatabasePoisonedError:
        """Return what the user is told of a failure of the disk. All but want of room poisons."""
        if is_shortage(error) and not self.is_poisoned:
            return DiskFullError(f"there is no room: {error}")
        self.poison(error)
        return DatabasePoisonedError(f"the disk failed: {error}; close and reopen the database")

    def _upkeep_failed(self, lane: str, error: BaseException) -> None:
        """A background job raised. Want of room or memory may pass, and tables that cannot be
        compacted are left as they are; anything else stops writing.
        """
        # Whoever runs out of memory where that does harm has poisoned the database.
        full = isinstance(error, DiskFullError | MemoryError) or (
            isinstance(error, OSError) and is_shortage(error)
        )
        if self.state.flags & (CLOSED | FORKED) or isinstance(
            error, DatabaseClosedError | JobStoppedError
        ):
            return
        if full:
            mark("engine.upkeep_disk_full")
        elif isinstance(error, InputError):
            mark("engine.compaction_input_unreadable")
        else:
            self.poison(error)
        with self.version_mutex:
            # Last, so that the newest failure is the one that is shown.
            self._failures.pop(lane, None)
            self._failures[lane] = self._untold = error
            self.room.notify_all()

    @property
    def background_error(self) -> BaseException | None:
        """The last failure of background work that has not been followed by a success of the same
        kind of work.
        """
        failures = list(self._failures.values())
        return failures[-1] if failures else None

    def _forked(self) -> None:
        self.state.flags |= FORKED
        self.store.end_views(
            "this iterator belongs to the parent process; open the database again after fork"
        )

    def _prepare_segment(self) -> None:
        if self.log is not None:
            self.log.prepare_next()
            self._failures.pop("log", None)

    def _leave_segment(self) -> None:
        self.write_path.log_left()
        self._failures.pop("log", None)

    # -- durability "interval"

    def arm_interval(self) -> None:
        """Start the thread that syncs every `sync_interval_ms` while there is something to sync."""
        if not self.state.interval_armed:
            self.state.interval_armed = True
            try:
                self.upkeep.submit("interval", 0, self._interval_syncs)
            except BaseException:
                self.state.interval_armed = False
                raise

    def _interval_syncs(self) -> None:
        while True:
            try:
                if not self.upkeep.pause(self.settings.sync_interval_ms / 1000):
                    return
                self.write_path.sync()
                self._failures.pop("interval", None)
                if self.write_path.exclusive(self._disarm):
                    return
            except (DatabaseClosedError, DatabasePoisonedError):
                return
            except (DiskFullError, MemoryError) as error:
                # Writers count on this thread: it tries again.
                self._interval_failed(error)
            except BaseException:
                self.state.interval_armed = False
                raise

    def _interval_failed(self, error: Exception) -> None:
        try:
            self._upkeep_failed("interval", error)
        except MemoryError:
            mark("engine.interval_not_told")
        # A pause that has no memory is none.
        rest(self.env)

    def _disarm(self) -> bool:
        """Stop the interval thread when nothing waits to be synced. Runs with the leadership."""
        log = self.log
        idle = (
            self.state.buffer.op_count == 0
            and log is not None
            and log.durable_seq == log.written_seq
        )
        if idle:
            self.state.interval_armed = False
        return idle

    # -- keyspaces

    def create_keyspace(self, name: str, settings: KeyspaceSettings) -> int:
        """Create a keyspace and return its id. Durable when it returns."""
        size = len(name.encode("utf-8"))
        if not 1 <= size <= KEYSPACE_NAME_BYTES_MAX:
            raise LimitError(
                f"a keyspace name has 1 to {KEYSPACE_NAME_BYTES_MAX} bytes of UTF-8, not {size}"
            )

        def create() -> int:
            # The log first: the edit must not survive a crash that takes an earlier commit.
            self.write_path.sync_held()
            with self.version_mutex:
                for keyspace in self._version.keyspaces.values():
                    if keyspace.name == name:
                        return keyspace.id
                number = self._version.next_keyspace_id
                edit = VersionEdit(keyspaces_created=((number, name, settings),))
                # First, for want of memory does no harm here.
                self.check_often_enough(settings)
                applied = self._version.apply(edit).keyspaces[number]
                tree = Tree(self.store, applied, self.memory.spare)

                def take_in() -> None:
                    tree.version = self._version.keyspaces[number]
                    self.add_tree(tree)

                steps = iter((take_in,))
                self.log_edit(edit)
                self.carry_out(steps)
                return number

        return self.write_path.exclusive(create)

    def find_keyspace(self, name: str) -> int | None:
        """Return the id of keyspace `name`, or None."""
        keyspace = self._version.keyspace_named(name)
        # A poisoned database may have logged one that it could not take in.
        return keyspace.id if keyspace is not None and keyspace.id in self.trees else None

    def merge_value(self, function: str, operand: object) -> bytes:
        """Return the value of a MERGE entry. Before the first one the manifest is marked, durably:
        versions of Holdfast that know no merges refuse the database from then on.

        Raises: as `Merges.value_of`; what an edit raises.
        """
        value = self.merges.value_of(function, operand)
        if not self._version.has_merges:
            self.write_path.check_writable()
            self.env.uninterrupted(self._mark_merges)
        return value

    def _mark_merges(self) -> None:
        with self.version_mutex:
            if not self._version.has_merges:
                mark("engine.merges_marked")
                self.log_edit(VersionEdit(has_merges=True))

    def drop_keyspace(self, keyspace: int, forget: Callable[[], None]) -> bool:
        """Drop a keyspace with everything in it; return False when another call did that already.
        Durable when it returns.

        `forget` ends the handle, and is called when the keyspace is gone, uninterrupted; perhaps
        twice.
        """

        def drop() -> bool:
            self.write_path.sync_held()
            with self.version_mutex:
                tree = self.trees.get(keyspace)
                if tree is None:
                    return False
                levels = tree.version.levels
                numbers = [info.number for level in levels for info in level]
                steps: Iterator[Callable[[], object]] = iter(
                    (
                        lambda: self.trees.pop(keyspace, None),
                        lambda: self.write_path.memtables.pop(keyspace, None),
                        lambda: self.on_view.pop(keyspace, None),
                        lambda: self.store.doom(numbers),
                        forget,
                        self.store.purge,
                    )
                )
                self.log_edit(VersionEdit(keyspaces_dropped=(keyspace,)))
                self.carry_out(steps)
                return True

        return self.write_path.exclusive(drop)

    def collect(self) -> None:
        """Remove the files of tables that nothing needs any more."""
        with self.version_mutex:
            self.store.purge()

    def discard(self, tables: Iterable[TableInfo]) -> None:
        """Unlink tables that never entered the manifest; a failure leaves orphans for the next
        open. Requires: the version mutex.
        """
        for info in tables:
            self.store.forget(info)
            try:
                self.env.unlink(
                    f"{self.folder}/{table_name(info.number)}", site="table.discard.unlink"
                )
            except OSError:
                mark("table.unlink_failed")

    # -- what users ask for

    def flush(self, keyspaces: Iterable[int]) -> None:
        """Freeze and flush memtables of `keyspaces`; returns when their tables are installed."""
        wanted = list(keyspaces)
        frozen: dict[int, Memtable] = {}

        def freeze_all() -> None:
            for keyspace in wanted:
                tree = self.trees.get(keyspace)
                if tree is not None:
                    self.freeze(tree)
                    if tree.frozen:
                        frozen[keyspace] = tree.frozen[0]

        self.write_path.exclusive(freeze_all)
        with self.version_mutex:
            self.wait_flushed(frozen)

    def wait_flushed(self, memtables: Mapping[int, Memtable]) -> None:
        """Return when frozen memtables, each of a keyspace, and all older ones are in tables. Those
        that are frozen meanwhile are not waited for. Requires: the version mutex.

        Raises: DiskFullError, MemoryError, DatabasePoisonedError, DatabaseClosedError.
        """
        # What failed before may succeed now.
        self._untold = None
        self.awaited += 1
        try:
            self._await_flush(memtables)
        finally:
            self.awaited -= 1

    def _await_flush(self, memtables: Mapping[int, Memtable]) -> None:
        while waiting := [
            keyspace
            for keyspace, memtable in memtables.items()
            if keyspace in self.trees and any(t is memtable for t in self.trees[keyspace].frozen)
        ]:
            self.write_path.check_writable()
            self._raise_if_stuck()
            # Each time: another thread that waits may have taken the failure of the last try.
            for keyspace in waiting:
                self.schedule_flush(keyspace)
            self.room.wait(1.0)

    def verify(self) -> Report:
        """Check every byte of the database; commits wait while the log is read."""
        report = Report()
        with self.version_mutex:
            levels = [level for tree in self.trees.values() for level in tree.view.levels]
            held = self.store.hold(reader for level in levels for reader in level)
            manifest = check_manifest(self.env, self.folder, self._version, report)
        if manifest is not None:
            if self.log is None:
                check_log(self.env, self.folder, manifest, report)
            else:
                self.write_path.exclusive(lambda: self._check_log(report))
        check_tables(held.levels[0], report)
        return report

    def _check_log(self, report: Report) -> None:
        with self.version_mutex:
            manifest = check_manifest(self.env, self.folder, self._version, Report())
            if manifest is not None:
                check_log(self.env, self.folder, manifest, report)

    # -- the end

    def close(self) -> None:
        """Flush, say in the manifest that the end was clean, and let go of everything.

        A second close is harmless.
        """
        close_engine(self)

    def release(self) -> None:
        """Close all files and give the lock back."""
        with self.version_mutex:
            # Whoever is about to log an edit has done so, or finds the database closed.
            self.state.flags |= CLOSED
            if self.version_set is not None:
                self.version_set.close()
        self.memory.spare.keep(0)
        if self.log is not None:
            self.log.close()
        self.store.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def is_poisoned(self) -> bool:
        """Whether a failed sync or write stopped all writing."""
        return bool(self.state.flags & POISONED)
