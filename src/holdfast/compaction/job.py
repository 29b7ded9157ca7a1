"""The work of a flush and of a compaction: sorted sources in, synced tables out.

Both run the kernel `merge_into` in steps and cut its output into tables. A table ends between two
user keys, so that all versions of a key are in one table; the range tombstones of the inputs are
cut at the same keys, so that outputs cover disjoint ranges [previous cut, next cut) and nothing
between two tables is lost.

Durability: when a job returns, its tables and their names are durable. It installs nothing: that is
the manifest edit of the caller.

Errors: on any exception all tables of the job are removed, as far as the machine allows, and the
exception goes on upward.

Thread safety: a job belongs to one thread. Tables and frozen memtables may be read by others at the
same time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from holdfast.base import KeyspaceSettings
from holdfast.codec import Compression
from holdfast.compaction._merge import Retention, merge_into
from holdfast.compaction.plan import Plan
from holdfast.compaction.retain import MergeStop, retained_tombstones
from holdfast.cursor import Cursor, MergeCursor, RangeTombstones
from holdfast.env import Env
from holdfast.memtable import Memtable
from holdfast.sstable import TableInfo, TableReader, TableWriter, table_name

DRAIN_BYTES = 1024 * 1024
STEP_ENTRIES = 4096
"""Entries between two looks at `should_stop`; well under 10 ms."""
FILE_ID_BYTES = 16

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
) -> JobResult:
    """Write a frozen memtable as tables of level 0.

    Normally it is one table: the size to cut at is that of a full memtable, if this is more than
    `table_bytes`, because every table of level 0 counts towards the next compaction. `snapshots`
    are the live ones, ascending.

    Raises: OSError; JobStoppedError.
    """
    return _run(
        _Outputs(
            env, folder, allocate_number, settings, Compression.from_name(settings.compression)
        ),
        memtable.cursor(),
        memtable.range_tombstones,
        snapshots,
        is_bottom=False,
        target_bytes=max(settings.table_bytes, settings.memtable_bytes),
        bytes_read=0,
        should_stop=should_stop,
    )


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
) -> JobResult:
    """Merge the inputs of a plan that is not a move into tables for its output level.

    The bottom of the tree is written with `compression_last`. Pages that the pool has are used, and
    none are put into it. `snapshots` are the live ones, ascending, read so that one taken later
    sees every operation of the inputs.

    Raises: CorruptionError from an input; UnreadableInputError; OSError; JobStoppedError.
    """
    readers = [open_table(table) for table in plan.tables]
    name = (
        settings.compression_last
        if plan.is_bottom and plan.output_level > 0
        else settings.compression
    )
    return _run(
        _Outputs(env, folder, allocate_number, settings, Compression.from_name(name)),
        MergeCursor([reader.cursor(fill_cache=False) for reader in readers]),
        RangeTombstones().merged([reader.range_tombstones for reader in readers]),
        snapshots,
        is_bottom=plan.is_bottom,
        target_bytes=settings.table_bytes,
        bytes_read=plan.input_bytes,
        should_stop=should_stop,
    )


class _Outputs:
    """The tables that a job writes, one after the other."""

    def __init__(
        self,
        env: Env,
        folder: str,
        allocate_number: Callable[[], int],
        settings: KeyspaceSettings,
        compression: Compression,
    ) -> None:
        self._env = env
        self._folder = folder
        self._allocate_number = allocate_number
        self._settings = settings
        self._compression = compression
        self._writers: list[TableWriter] = []
        self.tables: list[TableInfo] = []

    def begin(self) -> TableWriter:
        """Return the writer of a new table."""
        number = self._allocate_number()
        writer = TableWriter(
            self._env,
            f"{self._folder}/{table_name(number)}",
            number,
            self._env.random_bytes(FILE_ID_BYTES),
            settings=self._settings,
            compression=self._compression,
        )
        self._writers.append(writer)
        return writer

    def end(self, tombstones: RangeTombstones) -> None:
        """Finish the last table with its range tombstones; drop it when it would hold nothing."""
        writer = self._writers[-1]
        for start, stop, seq in tombstones.tombstones():
            writer.add_range_tombstone(start, stop, seq)
        if writer.builder.entry_count or len(tombstones):
            self.tables.append(writer.finish())
        else:
            writer.abandon()

    def sync_folder(self) -> None:
        """Make the names durable."""
        if self.tables:
            self._env.sync_dir(self._folder, site="table.folder_sync")

    def abandon(self) -> None:
        """Remove every table of the job, finished or not."""
        for writer in self._writers:
            writer.abandon()


def _run(
    outputs: _Outputs,
    cursor: Cursor,
    tombstones: RangeTombstones,
    snapshots: Sequence[int],
    *,
    is_bottom: bool,
    target_bytes: int,
    bytes_read: int,
    should_stop: Callable[[], bool] | None,
) -> JobResult:
    retention = Retention(snapshots, tombstones, bottom=is_bottom)
    kept = RangeTombstones(retained_tombstones(tombstones.tombstones(), snapshots, is_bottom))
    try:
        _read(cursor.seek_first)
        _write_tables(outputs, cursor, retention, kept, target_bytes, should_stop)
        outputs.sync_folder()
    except BaseException:
        outputs.abandon()
        raise
    return JobResult(
        tables=outputs.tables,
        bytes_read=bytes_read,
        bytes_written=sum(table.size_bytes for table in outputs.tables),
        entries_read=retention.entries_in,
        entries_written=retention.entries_out,
    )


def _read(call: Callable[[], Result]) -> Result:
    """Do a call that reads the inputs and writes nothing."""
    try:
        return call()
    except OSError as error:
        raise UnreadableInputError(error.errno, error.strerror, error.filename) from error


def _write_tables(
    outputs: _Outputs,
    cursor: Cursor,
    retention: Retention,
    tombstones: RangeTombstones,
    target_bytes: int,
    should_stop: Callable[[], bool] | None,
) -> None:
    writer = outputs.begin()
    lower: bytes | None = None

    def merge() -> MergeStop:
        return merge_into(
            cursor,
            writer.builder,
            retention,
            target_bytes=target_bytes,
            drain_bytes=DRAIN_BYTES,
            step_entries=STEP_ENTRIES,
        )

    while True:
        reason = _read(merge)
        if reason == MergeStop.DONE:
            outputs.end(tombstones.clipped(lower, None))
            return
        if should_stop is not None and should_stop():
            raise JobStoppedError("the job was asked to stop")
        if reason == MergeStop.CUT:
            outputs.end(tombstones.clipped(lower, cursor.key))
            lower = cursor.key
            writer = outputs.begin()
        elif reason == MergeStop.DRAIN:
            writer.drain()
