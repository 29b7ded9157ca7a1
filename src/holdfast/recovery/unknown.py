"""Operations of keyspaces that, as the manifest says, never existed.

A manifest knows of every keyspace before the log does, so no writer makes such operations: an open
refuses them. A repair sets them aside. Whose they are nobody knows, the rest of the log is sound,
and what it leaves out is among the originals.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from holdfast.memtable import Memtable
from holdfast.recovery._apply import apply_records
from holdfast.recovery.repair_report import Loss, LossKind, RepairReport
from holdfast.wal import RECORD_HEADER_BYTES, ScanResult, decode_payload

_EVERY: Final = 1 << 32
"""Above every keyspace: with it operations of unknown ones are passed over like those of dropped
ones.
"""

_NAMED_MAX: Final = 5


@dataclass(slots=True)
class UnknownKeyspaces:
    """Applies records without the operations of keyspaces that never existed, and counts those."""

    _counts: dict[int, int] = field(default_factory=dict)
    _place: tuple[str, int] = ("", 0)

    def apply(
        self,
        path: str,
        scan: ScanResult,
        data: bytes,
        start: int,
        payload_bytes_max: int,
        memtables: Mapping[int, Memtable],
        flushed: Mapping[int, int],
        next_keyspace_id: int,
    ) -> tuple[int, int]:
        """Do what `apply_records` does with the records of segment `path`, and set aside what that
        refuses. Raises: ValueError for a payload that is malformed.
        """
        try:
            return apply_records(
                scan, data, start, payload_bytes_max, memtables, flushed, next_keyspace_id
            )
        except ValueError:
            # What was applied is applied again: an operation with the same key and number takes its
            # place.
            found = apply_records(scan, data, start, payload_bytes_max, memtables, flushed, _EVERY)
        for index in range(start, found[0]):
            record = scan.record(index)
            if record.op_count:
                self._count(path, data, record.payload_offset, record.payload_size, memtables,
                            next_keyspace_id)  # fmt: skip
        return found

    def _count(
        self,
        path: str,
        data: bytes,
        offset: int,
        size: int,
        memtables: Mapping[int, Memtable],
        next_keyspace_id: int,
    ) -> None:
        for batch in decode_payload(data, offset, size):
            for _, keyspace, _, _ in batch:
                if keyspace not in memtables and keyspace >= next_keyspace_id:
                    if not self._counts:
                        self._place = path, offset - RECORD_HEADER_BYTES
                    self._counts[keyspace] = self._counts.get(keyspace, 0) + 1

    def report(self, report: RepairReport) -> None:
        """Say what was set aside, if anything."""
        if not self._counts:
            return
        named = sorted(self._counts)[:_NAMED_MAX]
        told = ", ".join(str(keyspace) for keyspace in named)
        more = len(self._counts) - len(named)
        rest = f" and {more} others" if more else ""
        report.lose(
            Loss(
                kind=LossKind.OPERATIONS,
                file=self._place[0],
                offset=self._place[1],
                count=sum(self._counts.values()),
                reason=f"they name keyspaces that never existed, by number: {told}{rest}. Nobody "
                "knows whose they are, so they were left out",
            )
        )
