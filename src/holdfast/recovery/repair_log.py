"""The log of a repair: its records put back into tables, as far as their order permits.

The order of the log is the order of commits. What was committed behind a damaged place may rest on
what is missing there: so a replay stops where something is missing that no table holds, and goes on
only when it is told to. Its caller says what was behind.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from holdfast.base import DELETE, RANGE_DELETE, CorruptionError
from holdfast.env import Env
from holdfast.manifest import Version
from holdfast.memtable import Memtable
from holdfast.recovery.repair_report import Loss, LossKind, RepairReport
from holdfast.recovery.replay import STEP_BYTES
from holdfast.recovery.unknown import UnknownKeyspaces
from holdfast.wal import LogRun, RunReader, SalvagedLog, ScanResult, decode_payload

Take = Callable[[int, Memtable], None]
"""Given a keyspace and its memtable, which is full or the last."""


@dataclass(slots=True, kw_only=True)
class RunReplay:
    """The replay of the runs of a damaged log."""

    env: Env
    log: SalvagedLog
    report: RepairReport
    keep_behind: bool
    version: Version
    """Which keyspaces there are, and what of the log is in tables."""
    is_trusted: bool
    """Whether `version` is what the manifest says. Else it was found out from the tables."""
    take: Take
    newest: Callable[[int, bytes], int]
    """The number of the newest version of a key that tables have, 0 for none."""
    memtables: dict[int, Memtable] = field(default_factory=dict)
    _unknown: UnknownKeyspaces = field(default_factory=UnknownKeyspaces)
    _reader: RunReader = field(init=False)
    _behind: list[int] = field(init=False)
    """The operations of each run and those behind it. There may be thousands of runs and gaps."""
    _damage: dict[int, CorruptionError] = field(init=False)
    """The first damage of each segment that has some, by ascending number."""

    def __post_init__(self) -> None:
        self._reader = RunReader(self.env)
        counts = [run.operations for run in reversed(self.log.runs)]
        self._behind = list(accumulate(counts))[::-1]
        first: dict[int, CorruptionError] = {}
        for error in self.log.damage:
            name = error.file.rpartition("/")[2].partition(".")[0]
            first.setdefault(int(name) if name.isdigit() else 0, error)
        self._damage = dict(sorted(first.items()))

    def run(self) -> None:
        """Replay. Raises: OSError; CorruptionError when a file changes meanwhile."""
        if self.is_trusted and self.version.clean:
            # Everything is in tables, whatever became of the log since.
            return None
        self.memtables.update((keyspace, Memtable()) for keyspace in self.version.keyspaces)
        expected, seq_next = self.version.wal_first_lsn, 0
        runs = self.log.runs
        for index, run in enumerate(runs):
            if run.lsn_last < expected:
                continue
            if expected and run.lsn_first > expected and not self._is_harmless(run, seq_next):
                self._report_gap(runs, index, expected, seq_next)
                if not self.keep_behind:
                    return self._finish()
            # A life that begins with an END record does not know the numbers of earlier ones.
            expected, seq_next = run.lsn_last + 1, max(seq_next, self._apply(run))
        self._report_end(expected)
        return self._finish()

    def _is_harmless(self, run: LogRun, seq_next: int) -> bool:
        """Return whether what is missing before a run held no operation that tables do not have."""
        if seq_next and run.seq_first == seq_next:
            return True
        flushed = [keyspace.flushed_seq for keyspace in self.version.keyspaces.values()]
        return self.is_trusted and bool(flushed) and run.seq_first - 1 <= min(flushed)

    def _report_gap(self, runs: list[LogRun], index: int, expected: int, seq_next: int) -> None:
        run = runs[index]
        first, last = runs[index - 1].segment if index else 0, run.segment
        place = self._place(first, last) or CorruptionError(run.path, run.offset, "")
        operations = self._behind[index]
        known = f", operations {seq_next} to {run.seq_first - 1}" if seq_next else ""
        reason = f"records {expected} to {run.lsn_first - 1} are missing{known}. "
        if self.keep_behind:
            reason += (
                f"The {operations} operations behind them were kept, as was asked: a transaction "
                "there may rest on one that is missing"
            )
            count = run.seq_first - seq_next if seq_next else None
        else:
            reason += (
                f"What was committed behind them was left out, {operations} operations in records "
                f"{run.lsn_first} to {runs[-1].lsn_last}; keeping it is an option of the repair"
            )
            is_all_known = bool(seq_next) and self.log.unread is None
            count = runs[-1].seq_next - seq_next if is_all_known else None
        self._lose(place, count, reason)

    def _report_end(self, expected: int) -> None:
        """Report records that were durable and are missing at the end, and the end of a log of
        which it is only known that it went on.
        """
        durable, unread = max(self.log.durable_lsn, self.version.durable_lsn), self.log.unread
        if durable < max(expected, 1):
            if unread is not None:
                self._lose(unread, None, unread.reason)
            return
        place = self._place(0, None) or CorruptionError(self.report.folder, 0, "")
        reason = f"records {max(expected, 1)} to {durable}, the last of the log, are missing"
        self._lose(place, None, reason)

    def _place(self, first: int, last: int | None) -> CorruptionError | None:
        """Return the first damage in the segments from `first` to `last`."""
        for number, error in self._damage.items():
            if first <= number and (last is None or number <= last):
                return error
        return None

    def _lose(self, place: CorruptionError, count: int | None, reason: str) -> None:
        self.report.lose(
            Loss(
                kind=LossKind.OPERATIONS,
                file=place.file,
                offset=place.offset,
                count=count,
                reason=reason,
            )
        )

    def _apply(self, run: LogRun) -> int:
        """Apply what a run has; return the sequence number behind it."""
        data, scan = self._reader.read(run)
        self.report.records += scan.record_count
        # A run that was cut short says how many it had before.
        self.report.operations += sum(record.op_count for record in scan.records)
        if self.is_trusted:
            self._apply_unflushed(run, data, scan)
        else:
            self._apply_missing(run, data, scan)
        return scan.seq_next

    def _apply_unflushed(self, run: LogRun, data: bytes, scan: ScanResult) -> None:
        """Apply the operations that the manifest says are in no table."""
        flushed = {
            keyspace.id: keyspace.flushed_seq for keyspace in self.version.keyspaces.values()
        }
        index = 0
        while index < scan.record_count:
            try:
                index, _ = self._unknown.apply(
                    run.path, scan, data, index, STEP_BYTES, self.memtables, flushed,
                    self.version.next_keyspace_id,
                )  # fmt: skip
            except ValueError as error:
                raise CorruptionError(run.path, run.offset, str(error)) from error
            self._hand_over()

    def _apply_missing(self, run: LogRun, data: bytes, scan: ScanResult) -> None:
        """Apply the operations that no table has.

        A flush takes all operations of a memtable that are not newer than its last one, key by key.
        So when tables have a version of a key, they have all that is older of it, in whatever form:
        as it is, folded, or dropped for it.
        """
        for index in range(scan.record_count):
            record = scan.record(index)
            if not record.op_count:
                continue
            seq = record.seq_first
            for batch in decode_payload(data, record.payload_offset, record.payload_size):
                for kind, keyspace, key, value in batch:
                    self._apply_one(seq, kind, keyspace, key, value or b"")
                    seq += 1
            self._hand_over()

    def _apply_one(self, seq: int, kind: int, keyspace: int, key: bytes, value: bytes) -> None:
        memtable = self.memtables.get(keyspace)
        if memtable is None:
            # Its keyspace was dropped.
            return
        if kind == RANGE_DELETE:
            memtable.delete_range(seq, key, value)
        elif self.newest(keyspace, key) < seq:
            memtable.put(seq, kind, key, b"" if kind == DELETE else value)

    def _hand_over(self) -> None:
        for keyspace, memtable in self.memtables.items():
            limit = self.version.keyspaces[keyspace].settings.memtable_bytes
            if memtable.bytes_used >= limit:
                memtable.freeze()
                self.take(keyspace, memtable)
                self.memtables[keyspace] = Memtable()

    def _finish(self) -> None:
        self._unknown.report(self.report)
        for keyspace, memtable in self.memtables.items():
            if memtable.seq_min:
                memtable.freeze()
                self.take(keyspace, memtable)


def keyspaces_in(env: Env, log: SalvagedLog, known: Mapping[int, object]) -> set[int]:
    """Return the ids of keyspaces that a log has operations of and that are not known."""
    found: set[int] = set()
    reader = RunReader(env)
    for run in log.runs:
        data, scan = reader.read(run)
        for index in range(scan.record_count):
            record = scan.record(index)
            if not record.op_count:
                continue
            for batch in decode_payload(data, record.payload_offset, record.payload_size):
                found.update(keyspace for _, keyspace, _, _ in batch)
    return found - known.keys()
