"""The work of a flush, of a compaction and of an ingest: sorted sources in, synced tables out.

All run the kernel `merge_into` in steps and cut its output into tables. A table ends between two
user keys, so that all versions of a key are in one table; the range tombstones of the inputs are
cut at the same keys, so that outputs cover disjoint ranges [previous cut, next cut) and nothing
between two tables is lost. In a keyspace with time windows a table also ends where a window begins.

Durability: when a job returns, its tables and their names are durable. It installs nothing: that is
the manifest edit of the caller.

Errors: on any exception all tables of the job are removed, as far as the machine allows, and the
exception goes on upward.

Thread safety: a job belongs to the thread that called it, and its parts to threads that end before
it does; entries move and are sealed into pages without the GIL (docs/adr/0041). Tables and frozen
memtables may be read by others at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TypeVar

from holdfast.base import KeyspaceSettings
from holdfast.codec import Compression
from holdfast.compaction._merge import Retention, merge_into
from holdfast.compaction.plan import Plan
from holdfast.compaction.retain import MergeStop, retained_tombstones, united
from holdfast.compaction.window import next_window_start
from holdfast.cursor import Cursor, MergeCursor, PairCursor, RangeTombstones
from holdfast.env import Env
from holdfast.memtable import Memtable
from holdfast.merge import Merges
from holdfast.sstable import TableInfo, TableOrigin, TableReader, TableWriter, table_name

DRAIN_BYTES = 1024 * 1024
STEP_ENTRIES = 16384
"""Entries between two looks at `should_stop`; under 10 ms. Each look takes the GIL, which can take
as long beside a busy thread.
"""
INGEST_STEP_ENTRIES = 256
FILE_ID_BYTES = 16
FILTER_BITS_MAX = 64
UNCUT_BYTES = 1 << 62
AHEAD_BYTES = 512 * 1024
"""What is read at once of each input of a compaction, if these and its parts are few."""
AHEAD_BYTES_MIN = 64 * 1024
AHEAD_BYTES_TOTAL = 8 * 1024 * 1024
PART_TABLES = 2
"""A part of a compaction has at least as many full tables of inputs."""
OVERLAP_BITS = 5
"""Filters of tables over older ones have so many bits a key more: there are few such keys, and each
of these tables is asked for every key that lies further down.
"""
WINDOW_CUTS_MAX = 64
"""A job that has made more tables no longer begins one for each window: keys that are no time, or
data of a thousand windows at once, must not become a file each.
"""

Result = TypeVar("Result")


class JobStoppedError(Exception):
    """`should_stop` said so, and nothing is left of the job. Its caller catches this."""


class UnreadableInputError(OSError):
    """An input could not be read. Nothing that was written is in doubt, unlike after other errors
    of the disk.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What a job made and how much it moved."""

    tables: list[TableInfo]
    """In key order, their ranges disjoint. Empty when nothing was worth keeping."""
    bytes_read: int
    """Bytes of the input files; of a flush 0."""
    bytes_written: int
    """Bytes of the output files."""
    entries_read: int
    entries_written: int

    @property
    def entries_dropped(self) -> int:
        """Entries that no reader can see any more."""
        return self.entries_read - self.entries_written


def run_flush(
    env: Env,
    folder: str,
    memtable: Memtable,
    *,
    allocate_number: Callable[[], int],
    snapshots: Sequence[int],
    settings: KeyspaceSettings,
    should_stop: Callable[[], bool] | None = None,
    older: Iterable[TableInfo] | None = None,
    spend: Callable[[int], None] | None = None,
    merges: Merges | None = None,
    origin: TableOrigin | None = None,
) -> JobResult:
    """Write a frozen memtable as tables of level 0.

    Normally it is one table: the size to cut at is that of a full memtable, if this is more than
    `table_bytes`, because every table of level 0 counts towards the next compaction. `snapshots`
    are the live ones, ascending. `older` are all tables of the keyspace that are older than the
    memtable, if these are known: a delete of a key that lies in none of them is not written, so
    what was put and deleted within one memtable leaves nothing.
    `spend` is told of bytes that were written, and may wait. `merges` fold operands. `origin` says
    whose tables they are.

    Raises: OSError; JobStoppedError.
    """
    ranges = united((table.lower, table.upper) for table in older or ())
    cursor = memtable.cursor()
    # Data in time order comes behind all tables and is moved down as it is: no bits more for that.
    is_over = bool(ranges) and cursor.seek(ranges[0][0]) and cursor.key < ranges[-1][1]
    outputs = _Outputs(
        env,
        folder,
        allocate_number,
        with_filters_over(settings) if is_over else settings,
        Compression.from_name(settings.compression),
        spend,
        origin,
    )
    part = _Part(
        outputs,
        cursor,
        memtable.range_tombstones,
        snapshots,
        is_bottom=older is not None,
        older=ranges,
        target_bytes=max(settings.table_bytes, settings.memtable_bytes),
        merges=merges,
    )
    return run_parts([part], env, bytes_read=0, should_stop=should_stop)


def run_compaction(
    plan: Plan,
    env: Env,
    folder: str,
    *,
    open_table: Callable[[TableInfo], TableReader],
    allocate_number: Callable[[], int],
    snapshots: Sequence[int],
    settings: KeyspaceSettings,
    should_stop: Callable[[], bool] | None = None,
    parts_max: int = 1,
    spend: Callable[[int], None] | None = None,
    merges: Merges | None = None,
    origin: TableOrigin | None = None,
) -> JobResult:
    """Merge the inputs of a plan that neither moves nor drops into tables for its output level.

    A large one is cut by key into at most `parts_max` parts, which run beside each other; their
    tables together hold what those of one part would hold. The bottom of the tree is written with
    `compression_last`. Pages that the pool has are used, and none are put into it. `snapshots` are
    the live ones, ascending, read so that one taken later sees every operation of the inputs.
    `spend` is told of bytes that were written, in any thread of the job, and may wait. `merges`
    fold operands, in any thread of the job. `origin` says whose tables they are.

    Raises: CorruptionError from an input; UnreadableInputError; OSError; JobStoppedError.
    """
    readers = [open_table(table) for table in plan.tables]
    name = (
        settings.compression_last
        if plan.is_bottom and plan.output_level > 0
        else settings.compression
    )
    compression = Compression.from_name(name)
    written = with_filters_over(settings) if plan.older else settings
    tombstones = RangeTombstones().merged([reader.range_tombstones for reader in readers])
    cuts = split_keys(plan, settings, parts_max)
    ahead_bytes = AHEAD_BYTES_TOTAL // ((len(cuts) + 1) * max(1, len(readers)))
    ahead_bytes = max(AHEAD_BYTES_MIN, min(ahead_bytes, AHEAD_BYTES))
    if origin is not None:
        origin = origin.replacing(plan.input_numbers)
    return run_parts(
        [
            _Part(
                _Outputs(env, folder, allocate_number, written, compression, spend, origin),
                MergeCursor(
                    [reader.cursor(fill_cache=False, ahead_bytes=ahead_bytes) for reader in readers]
                ),
                tombstones,
                snapshots,
                is_bottom=plan.is_bottom or bool(plan.older),
                older=plan.older,
                target_bytes=settings.table_bytes if plan.output_level else UNCUT_BYTES,
                merges=merges,
                lower=lower,
                upper=upper,
            )
            for lower, upper in pairwise([None, *cuts, None])
        ],
        env,
        bytes_read=plan.input_bytes,
        should_stop=should_stop,
    )


def with_filters_over(settings: KeyspaceSettings) -> KeyspaceSettings:
    """Return the settings for tables that lie over older ones."""
    bits = settings.filter_bits_per_key
    if not bits:
        return settings
    return replace(settings, filter_bits_per_key=min(bits + OVERLAP_BITS, FILTER_BITS_MAX))


def run_ingest(
    env: Env,
    folder: str,
    pairs: Iterable[tuple[object, object]],
    *,
    allocate_number: Callable[[], int],
    compression_at: Callable[[bytes], str],
    settings: KeyspaceSettings,
    should_stop: Callable[[], bool],
    is_forked: Callable[[], bool] = lambda: False,
    origin: TableOrigin | None = None,
) -> JobResult:
    """Write pairs of ascending keys as ingested tables. `compression_at` names the compression of a
    table that begins with a key, `origin` says whose tables they are.

    Where the iterable forks, `is_forked` is true in the child, which stops and touches no file.

    `should_stop` is asked after a few pairs, so that a slow iterable ends soon.
    Raises: UnreadableInputError from an OSError of the iterable, and whatever else that raises;
    TypeError, ValueError and LimitError for what is no pair or does not ascend; OSError;
    JobStoppedError.
    """
    part = _Part(
        _IngestOutputs(env, folder, allocate_number, settings, compression_at, is_forked, origin),
        # What an iterable does to begin, such as to open a file, may fail as its reading may.
        _read(lambda: PairCursor(pairs)),
        RangeTombstones(),
        [],
        is_bottom=False,
        older=(),
        target_bytes=settings.table_bytes,
        step_entries=INGEST_STEP_ENTRIES,
    )
    return run_parts([part], env, bytes_read=0, should_stop=should_stop)


def split_keys(plan: Plan, settings: KeyspaceSettings, parts_max: int) -> list[bytes]:
    """Return the keys at which a compaction is cut into parts of about the same size, at most
    `parts_max` and none of them small.

    The cuts are where inputs begin, because a table's inside is not known. What goes to level 0 is
    one table, and is not cut.
    """
    count = min(parts_max, plan.input_bytes // (PART_TABLES * settings.table_bytes))
    if count < 2 or not plan.output_level:
        return []
    found: list[bytes] = []
    size = 0
    for table in sorted(plan.tables, key=lambda table: table.lower):
        is_due = size * count >= (len(found) + 1) * plan.input_bytes
        if is_due and len(found) + 1 < count and table.lower > (found or [plan.lower])[-1]:
            found.append(table.lower)
        size += table.size_bytes
    return found


class _Outputs:
    """The tables that a job writes, one after the other."""

    def __init__(
        self,
        env: Env,
        folder: str,
        allocate_number: Callable[[], int],
        settings: KeyspaceSettings,
        compression: Compression,
        spend: Callable[[int], None] | None,
        origin: TableOrigin | None,
    ) -> None:
        self._env = env
        self._folder = folder
        self._allocate_number = allocate_number
        self.settings = settings
        self._compression = compression
        self._spend = spend
        self._origin = b"" if origin is None else origin.encode()
        self._writers: list[TableWriter] = []
        self.tables: list[TableInfo] = []

    def begin(self, first: bytes | None) -> TableWriter:
        """Return the writer of a new table, whose first key may be `first`."""
        number = self._allocate_number()
        path = f"{self._folder}/{table_name(number)}"
        writer = self._writer(path, number, self._env.random_bytes(FILE_ID_BYTES), first)
        self._writers.append(writer)
        return writer

    def _writer(self, path: str, number: int, file_id: bytes, first: bytes | None) -> TableWriter:
        _ = first
        return TableWriter(
            self._env,
            path,
            number,
            file_id,
            settings=self.settings,
            compression=self._compression,
            origin=self._origin,
        )

    def drain(self) -> None:
        """Write what the last table has to its file."""
        writer = self._writers[-1]
        before = writer.bytes_written
        writer.drain()
        if self._spend is not None:
            self._spend(writer.bytes_written - before)

    def end(self, tombstones: RangeTombstones) -> None:
        """Finish the last table with its range tombstones; drop it when it would hold nothing."""
        writer = self._writers[-1]
        for start, stop, seq in tombstones.tombstones():
            writer.add_range_tombstone(start, stop, seq)
        if writer.builder.entry_count or len(tombstones):
            before = writer.bytes_written
            self.tables.append(writer.finish())
            if self._spend is not None:
                self._spend(writer.bytes_written - before)
        else:
            writer.abandon()

    @property
    def is_windowed(self) -> bool:
        """Whether the next table must end where a window begins."""
        return self.settings.compaction == "time-window" and len(self._writers) <= WINDOW_CUTS_MAX

    def sync_folder(self) -> None:
        """Make the names durable."""
        self._env.sync_dir(self._folder, site="table.folder_sync")

    def abandon(self) -> None:
        """Remove every table of the job, finished or not."""
        for writer in self._writers:
            writer.abandon()


class _IngestOutputs(_Outputs):
    """The tables of an ingest: their entries have no number yet."""

    def __init__(
        self,
        env: Env,
        folder: str,
        allocate_number: Callable[[], int],
        settings: KeyspaceSettings,
        compression_at: Callable[[bytes], str],
        is_forked: Callable[[], bool],
        origin: TableOrigin | None,
    ) -> None:
        # Somebody waits for an ingest: the rate of the background is not for it.
        super().__init__(env, folder, allocate_number, settings, Compression.NONE, None, origin)
        self._compression_at = compression_at
        self._is_forked = is_forked

    def begin(self, first: bytes | None) -> TableWriter:
        self._check_process()
        return super().begin(first)

    def drain(self) -> None:
        self._check_process()
        super().drain()

    def end(self, tombstones: RangeTombstones) -> None:
        self._check_process()
        super().end(tombstones)

    def abandon(self) -> None:
        # In a child the files are those of the parent, which may have committed them by now.
        if not self._is_forked():
            super().abandon()

    def _check_process(self) -> None:
        if self._is_forked():
            raise JobStoppedError("the iterable forked, and this is the child")

    def _writer(self, path: str, number: int, file_id: bytes, first: bytes | None) -> TableWriter:
        return TableWriter(
            self._env,
            path,
            number,
            file_id,
            settings=self.settings,
            compression=Compression.from_name(self._compression_at(first or b"")),
            is_ingested=True,
            origin=self._origin,
            site="ingest.write",
        )

    def sync_folder(self) -> None:
        self._env.sync_dir(self._folder, site="ingest.folder_sync")


class _Part:
    """A job, or the part of one whose keys lie in [lower, upper): a source and its tables."""

    def __init__(
        self,
        outputs: _Outputs,
        cursor: Cursor,
        tombstones: RangeTombstones,
        snapshots: Sequence[int],
        *,
        is_bottom: bool,
        older: Sequence[tuple[bytes, bytes]],
        target_bytes: int,
        step_entries: int = STEP_ENTRIES,
        lower: bytes | None = None,
        upper: bytes | None = None,
        merges: Merges | None = None,
    ) -> None:
        self.outputs = outputs
        self.retention = Retention(
            snapshots, tombstones, bottom=is_bottom, older=older, merges=merges
        )
        self._cursor = cursor
        self._kept = RangeTombstones(
            retained_tombstones(tombstones.tombstones(), snapshots, is_bottom, older)
        )
        self._target_bytes = target_bytes
        self._step_entries = step_entries
        self._lower = lower
        self._upper = upper

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Write the tables. Raises: as the job."""
        lower = self._lower
        if lower is None:
            _read(self._cursor.seek_first)
        else:
            start = lower
            _read(lambda: self._cursor.seek(start))
        while True:
            upper = self._write_table(lower, should_stop)
            self.outputs.end(self._kept.clipped(lower, upper))
            if upper == self._upper:
                return
            lower = upper

    def _write_table(self, lower: bytes | None, should_stop: Callable[[], bool]) -> bytes | None:
        """Write the entries of one table that begins at `lower`; return where it ends."""
        writer = self.outputs.begin(self._cursor.key if self._cursor.valid else None)
        stop = self._stop()

        def merge() -> MergeStop:
            return merge_into(
                self._cursor,
                writer.builder,
                self.retention,
                target_bytes=self._target_bytes,
                drain_bytes=DRAIN_BYTES,
                step_entries=self._step_entries,
                stop=stop,
            )

        while True:
            reason = _read(merge)
            if reason == MergeStop.DONE:
                return self._upper
            if should_stop():
                raise JobStoppedError("the job was asked to stop")
            if reason == MergeStop.CUT:
                key = self._cursor.key
                # Where a window begins, so that no range tombstone reaches out of it.
                return key if stop is None or key < stop else stop
            if reason == MergeStop.DRAIN:
                self.outputs.drain()

    def _stop(self) -> bytes | None:
        """Return the key at which the next table must end whatever its size."""
        if self.outputs.is_windowed and self._cursor.valid:
            start = next_window_start(self.outputs.settings, self._cursor.key)
            if start is not None and (self._upper is None or start < self._upper):
                return start
        return self._upper


def run_parts(
    parts: Sequence[_Part],
    env: Env,
    *,
    bytes_read: int,
    should_stop: Callable[[], bool] | None,
) -> JobResult:
    """Run the parts of one job, each in a thread of its own but for the first.

    Raises: what the first part that failed raised, when all have ended and their tables are gone.
    """
    failures: list[BaseException] = []

    def is_over() -> bool:
        return bool(failures) or (should_stop is not None and should_stop())

    def run(part: _Part) -> None:
        try:
            part.run(is_over)
        except BaseException as error:  # noqa: BLE001  it is raised by the thread that waits
            failures.append(error)

    tasks = []
    try:
        for part in parts[1:]:
            # One by one: those that were started are waited for if the next cannot be.
            tasks.append(env.spawn("holdfast-part", partial(run, part)))  # noqa: PERF401  see above
        run(parts[0])
    except BaseException as error:  # noqa: BLE001  as above; a thread could not be started
        failures.append(error)
    for task in tasks:
        task.join()
    try:
        if failures:
            raise failures[0]
        if any(part.outputs.tables for part in parts):
            parts[0].outputs.sync_folder()
    except BaseException:
        for part in parts:
            part.outputs.abandon()
        raise
    tables = [table for part in parts for table in part.outputs.tables]
    return JobResult(
        tables=tables,
        bytes_read=bytes_read,
        bytes_written=sum(table.size_bytes for table in tables),
        entries_read=sum(part.retention.entries_in for part in parts),
        entries_written=sum(part.retention.entries_out for part in parts),
    )


def _read(call: Callable[[], Result]) -> Result:
    """Do a call that reads the inputs and writes nothing."""
    try:
        return call()
    except OSError as error:
        raise UnreadableInputError(error.errno, error.strerror, error.filename) from error
