"""The compaction job: plans come from the immutable version, results enter by one manifest edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from holdfast.base import CorruptionError, DatabaseClosedError, DiskFullError, mark
from holdfast.compaction import (
    JobResult,
    JobStoppedError,
    Plan,
    RangeCompaction,
    UnreadableInputError,
    pick_covered,
    run_compaction,
    strategy_of,
)
from holdfast.cursor import RangeTombstones
from holdfast.engine._core import FORKED
from holdfast.engine.memory import give_back_freed
from holdfast.env import is_shortage
from holdfast.manifest import KeyspaceVersion

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine
    from holdfast.lsm import Tree


Result = TypeVar("Result")


class Plans(Protocol):
    """A compaction by hand, as a sequence of plans."""

    is_done: bool
    """Whether there are no more plans."""

    def next_plan(self, version: KeyspaceVersion, busy: frozenset[int]) -> Plan | None:
        """Return the next plan, or None when there is none, now or ever."""
        ...


RELEASE_BYTES = 16 << 20
"""A compaction that reads so much leaves holes among what others have allocated; the allocator
would keep them.
"""


PARTS_MAX = 2
"""Threads of one background compaction. By hand there is one, which a signal may interrupt."""


def compact_once(engine: Engine) -> None:
    """Run the most urgent compaction of any keyspace, and queue the next."""
    held: list[Plan] = []
    try:
        _pick(engine, held)
        found = [_run_plan(engine, plan, parts_max=PARTS_MAX) for plan in held]
    finally:
        while held:
            try:
                _let_go(engine, held)
            except MemoryError:
                # Tables that stay busy would never be compacted again.
                mark("engine.given_back_again")
    if any(found):
        engine.schedule_compaction()


def _pick(engine: Engine, held: list[Plan]) -> None:
    """Hold the plan with the highest score over all keyspaces."""
    best: Plan | None = None
    with engine.version_mutex:
        busy = frozenset(engine.busy_tables)
        snapshots_exist = bool(engine.snapshots.live())
        now_us = int(engine.env.wall_time() * 1_000_000)
        for tree in engine.trees.values():
            plan = None if snapshots_exist else _pick_covered(engine, tree, busy)
            plan = plan or strategy_of(tree.version.settings).pick(
                tree.version, busy, now_us=now_us, snapshots_exist=snapshots_exist
            )
            if plan is not None and (best is None or plan.score > best.score):
                best = plan
        if best is not None:
            _hold(engine, best, held)


def _pick_covered(engine: Engine, tree: Tree, busy: frozenset[int]) -> Plan | None:
    """Return the plan that drops what range tombstones of tables cover. Those of memtables do not
    count: a crash may take them.
    """
    holders = [info for _, info in tree.version.tables() if info.range_tombstone_count]
    if not holders:
        return None
    readers = [engine.store.reader(info) for info in holders]
    tombstones = RangeTombstones().merged([reader.range_tombstones for reader in readers])
    return pick_covered(tree.version, busy, tombstones.tombstones())


def _hold(engine: Engine, plan: Plan, held: list[Plan]) -> None:
    """Mark a plan's tables busy and note it for `_let_go`. Requires: the version mutex; that
    nothing interrupts.
    """
    busy = engine.busy_tables | plan.input_numbers
    held.append(plan)
    engine.busy_tables = busy


def _let_go(engine: Engine, held: list[Plan]) -> None:
    """Let others have the tables of what is held. Requires: that nothing interrupts."""
    with engine.version_mutex:
        for plan in held:
            engine.busy_tables.difference_update(plan.input_numbers)
        held.clear()
        engine.room.notify_all()
    engine.memory.charge()


class InputError(Exception):
    """A table that a compaction reads is damaged or cannot be read; `cause` says how.

    Nothing else is in doubt: the tables stay as they are.
    """

    def __init__(self, cause: CorruptionError | OSError) -> None:
        super().__init__(cause)
        self.cause = cause


def _run_plan(engine: Engine, plan: Plan, parts_max: int = 1) -> bool:
    """Carry out a plan that is held, and install its result.

    Return whether it was carried out.
    """
    if plan.is_move:
        return engine.env.uninterrupted(partial(_install_move, engine, plan))
    if plan.is_drop:
        return engine.env.uninterrupted(partial(_install_drop, engine, plan))
    return _rewrite(engine, plan, parts_max)


def _install_move(engine: Engine, plan: Plan) -> bool:
    with engine.version_mutex:
        tree = engine.trees.get(plan.keyspace)
        if tree is None:
            return False

        def count() -> None:
            engine.counters.moves += 1

        steps = iter((*_showing(engine, tree), count))
        engine.log_edit(plan.edit())
        engine.carry_out(steps)
    return True


def _install_drop(engine: Engine, plan: Plan) -> bool:
    # Whoever took a snapshot since the plan was made must keep seeing what it saw.
    with engine.version_mutex, engine.snapshots.kept_out() as is_seen_by_nobody:
        tree = engine.trees.get(plan.keyspace)
        if tree is None or not is_seen_by_nobody:
            return False

        def count() -> None:
            engine.counters.drops += 1
            engine.counters.dropped_bytes += plan.input_bytes

        steps: Iterator[Callable[[], object]] = iter(
            (
                *_showing(engine, tree),
                lambda: engine.store.doom(plan.input_numbers),
                engine.store.purge,
                count,
            )
        )
        engine.log_edit(plan.edit())
        engine.carry_out(steps)
    return True


def _rewrite(engine: Engine, plan: Plan, parts_max: int) -> bool:
    tree = engine.trees.get(plan.keyspace)
    if tree is None:
        return False
    with engine.version_mutex:
        readers = {info.number: engine.store.reader(info) for info in plan.tables}
        # They stay open if the keyspace is dropped meanwhile.
        held = [engine.store.hold(readers.values())]
    engine.memory.charge()
    if engine.memory.has_holes:
        engine.memory.give_back()
    began = engine.env.monotonic()
    try:
        result = run_compaction(
            plan,
            engine.env,
            engine.folder,
            open_table=lambda info: readers[info.number],
            allocate_number=engine.numbers.allocate,
            snapshots=engine.snapshots.live(),
            settings=tree.version.settings,
            should_stop=lambda: engine.upkeep.is_stopped,
            parts_max=parts_max,
            spend=engine.throttle.spend,
            merges=engine.merges,
            origin=tree.version.origin,
        )
    except (CorruptionError, UnreadableInputError) as error:
        raise InputError(error) from error

    def install() -> bool:
        with engine.version_mutex:
            # The job's own references would keep the files.
            held.clear()
            readers.clear()
            return _install(engine, plan, tree, result)

    installed = engine.env.uninterrupted(install)
    engine.latencies.compaction.record(engine.env.monotonic() - began)
    if result.bytes_read >= RELEASE_BYTES:
        give_back_freed()
    return installed


def _install(engine: Engine, plan: Plan, tree: Tree, result: JobResult) -> bool:
    """Let the new tables take the place of the old ones. Requires: the version mutex."""
    if plan.keyspace not in engine.trees:
        engine.discard(result.tables)
        engine.store.purge()
        return False
    try:
        # Once an edit names them it is too late to find that they cannot be read.
        for info in result.tables:
            engine.store.reader(info)
    except (CorruptionError, OSError, MemoryError) as error:
        engine.discard(result.tables)
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and is_shortage(error)):
            raise
        raise InputError(error) from error

    def count() -> None:
        counters = engine.counters
        counters.note_written(plan.keyspace, plan.output_level, result.bytes_written)
        counters.compactions += 1
        counters.compacted_bytes_read += result.bytes_read
        counters.compacted_bytes_written += result.bytes_written
        counters.entries_dropped += result.entries_dropped

    try:
        steps: Iterator[Callable[[], object]] = iter(
            (
                *_showing(engine, tree),
                lambda: engine.store.doom(plan.input_numbers),
                engine.store.purge,
                count,
            )
        )
        engine.log_edit(plan.edit(result.tables))
    except (DiskFullError, MemoryError):
        if not engine.is_poisoned:
            engine.discard(result.tables)
        raise
    engine.carry_out(steps)
    return True


def _showing(engine: Engine, tree: Tree) -> tuple[Callable[[], object], ...]:
    """Return what lets readers see the tables of an edit that will be durable then."""
    return (
        lambda: tree.install(engine.version.keyspaces[tree.version.id]),
        lambda: engine.published(tree),
        lambda: engine.progressed("compact"),
    )


def compact_range(
    engine: Engine,
    keyspaces: Sequence[int],
    lower: bytes | None,
    upper: bytes | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Bring everything in [lower, upper) of each keyspace to the last level, dropping what no
    reader can see. `progress` is called with the bytes that each step rewrote, and about how many
    all of them rewrite.

    Raises: DiskFullError, DatabasePoisonedError, DatabaseClosedError; CorruptionError or OSError of
    an input, with nothing changed; what `progress` raises.
    """
    total = 0
    if progress is not None:
        with engine.version_mutex:
            trees = [engine.trees[number] for number in keyspaces if number in engine.trees]
            works = [_work_of(tree, lower, upper) for tree in trees]
        total = sum(work.bytes_ahead for work in works)

    def done(size: int) -> None:
        if progress is not None:
            progress(size, total)

    for keyspace in keyspaces:
        while_open(engine, partial(_compact_range, engine, keyspace, lower, upper, done))


def while_open(engine: Engine, work: Callable[[], Result]) -> Result:
    """Do work of a user that writes tables: closing waits for it. `work` asks first whether the
    database is still open.
    """
    thread = engine.env.thread_id()
    if thread in engine.compacting:
        # What is handed to an ingest may do something of the kind itself.
        return work()
    interruption: BaseException | None = None
    try:
        engine.compacting.add(thread)
        result = work()
    finally:
        # A signal handler may raise where something begins: then it is begun once more.
        while thread in engine.compacting:
            try:
                engine.env.uninterrupted(partial(_leave, engine, thread))
            except KeyboardInterrupt as error:
                interruption = error
            except MemoryError:
                # Whoever closes waits for this.
                mark("engine.given_back_again")
    if interruption is not None:
        raise interruption
    return result


def _leave(engine: Engine, thread: int) -> None:
    if engine.state.flags & FORKED:
        # A thread of the parent may hold the mutex for ever, and nobody waits.
        engine.compacting.discard(thread)
        return
    with engine.version_mutex:
        engine.compacting.discard(thread)
        engine.room.notify_all()


def _work_of(tree: Tree, lower: bytes | None, upper: bytes | None) -> RangeCompaction:
    return RangeCompaction(tree.version, lower, upper, rewrite_last=True)


def _compact_range(
    engine: Engine,
    keyspace: int,
    lower: bytes | None,
    upper: bytes | None,
    done: Callable[[int], None],
) -> None:
    with engine.version_mutex:
        tree = engine.trees.get(keyspace)
        if tree is None:
            return
        work = _work_of(tree, lower, upper)
    # What retention lets go is dropped in the background.
    engine.schedule_compaction()
    carry_out_plans(engine, tree, work, done=done)


def carry_out_plans(
    engine: Engine,
    tree: Tree,
    work: Plans,
    *,
    done: Callable[[int], None],
) -> None:
    """Carry out the plans of a work by hand, one after the other; `done` hears of the bytes of the
    tables that each rewrote.

    Raises: as `compact_range`.
    """
    interruption: BaseException | None = None
    while interruption is None:
        held: list[Plan] = []
        size = 0
        try:
            _hold_next(engine, tree, work, held)
            if not held:
                return
            _run_plan(engine, held[0])
            size = 0 if held[0].is_move else held[0].input_bytes
        except InputError as error:
            raise error.cause from None
        except OSError as error:
            raise engine.failure(error) from error
        except JobStoppedError:
            raise DatabaseClosedError("the database was closed during the compaction") from None
        finally:
            while held:
                try:
                    engine.env.uninterrupted(partial(_let_go, engine, held))
                except KeyboardInterrupt as error:
                    interruption = error
                except MemoryError:
                    mark("engine.given_back_again")
        if size and interruption is None:
            # Behind all of that: what it raises is no failure of the disk.
            done(size)
    raise interruption


def _hold_next(engine: Engine, tree: Tree, work: Plans, held: list[Plan]) -> None:
    """Hold the next plan of a compaction by hand, if there is one; wait for its tables."""

    def hold() -> None:
        plan = work.next_plan(tree.version, frozenset(engine.busy_tables))
        if plan is not None:
            _hold(engine, plan, held)

    with engine.version_mutex:
        while True:
            engine.write_path.check_writable()
            if tree.version.id not in engine.trees:
                return
            engine.env.uninterrupted(hold)
            if held or work.is_done:
                return
            # A background compaction holds tables that the next step needs.
            engine.room.wait(1.0)
