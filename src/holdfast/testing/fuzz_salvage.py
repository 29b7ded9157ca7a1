"""Fuzz targets of the salvage readers: what a repair believes of a log, a manifest, a table.

The inputs are those of the targets that read the same files with trust. Salvage may never fail for
bytes, finds at least what a reader with trust finds, and gives the same when it is asked again.

Thread safety: targets keep no state between executions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

from holdfast.base import CorruptionError, FormatError, pack_trailer
from holdfast.bufferpool import BufferPool
from holdfast.env import SimEnv
from holdfast.manifest import decode_manifest
from holdfast.manifest.format import manifest_name
from holdfast.manifest.salvage import salvage_edits
from holdfast.sstable import TableReader
from holdfast.sstable.format import FOOTER_BYTES
from holdfast.sstable.salvage import TableSalvage
from holdfast.testing import fuzz_log, fuzz_manifest, fuzz_table
from holdfast.testing.fuzz_oracle import DAMAGE, Target, attempt, described, require
from holdfast.testing.fuzz_table_model import FOOTER
from holdfast.wal.format import segment_name
from holdfast.wal.reader import read_log
from holdfast.wal.salvage import RunReader, SalvagedLog, salvage_log

_MEBIBYTE = 1 << 20
_SEGMENT = fuzz_log.SEGMENT


def _folder(files: dict[str, bytes]) -> SimEnv:
    """Return a disk that has these files."""
    env = SimEnv()
    for path, data in files.items():
        file = env.create(path, site="fuzz")
        file.write_at(0, data, site="fuzz")
        file.close()
    return env


def _damaged(rng: Random, data: bytes) -> bytes:
    """Return a file in which single bytes, or a stretch of it, are others: what no checksum that
    was mended hides, and salvage must step over.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        end = at + rng.choice((1, 1, 1, 8, 64, 512))
        filling = rng.choice((b"\x00", b"\xff", rng.randbytes(1), b"H"))
        changed[at:end] = filling * len(changed[at:end])
    return bytes(changed)


class SalvagedLogTarget(fuzz_log.SegmentTarget):
    """Input: a log segment; it is read alone, and behind one that has a lower number and the same
    records.
    """

    name: ClassVar[str] = "salvaged-log"
    traced: ClassVar[tuple[str, ...]] = ("wal.salvage", "wal._scan_py", "wal.format")

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        return _damaged(rng, data) if rng.random() < 0.5 else super().mutate(rng, data, other)

    def run(self, data: bytes) -> Iterable[object]:
        number = int.from_bytes(data[16:24], "little") if len(data) >= 24 else _SEGMENT
        if not 0 < number < 1 << 63:
            number = _SEGMENT
        path = segment_name(number)
        env = _folder({path: data})
        salvaged = attempt(FormatError, salvage_log, env, "/")
        if salvaged.is_error:
            return [salvaged.feature]
        found = salvaged.value
        _check_runs(env, found)
        again = salvage_log(env, "/")
        require(_told(again) == _told(found), "a log is salvaged otherwise a second time")
        features: list[object] = [len(found.runs), len(found.damage)]
        features.append(_check_log_against_trust(env, number, data, found))
        earlier = _renumbered(data, number - 1)
        if earlier is None:
            return features
        both = _folder({segment_name(number - 1): earlier, path: data})
        pair = attempt(FormatError, salvage_log, both, "/")
        if not pair.is_error:
            _check_runs(both, pair.value)
            if found.runs and pair.value.database_id == found.database_id:
                last = (found.lsn_last, pair.value.lsn_last)
                require(last[0] == last[1], "an earlier segment hides the end of a later one")
            features.append(len(pair.value.runs))
        return features

    def memory_max(self, data: bytes) -> int:
        return 1200 * len(data) + 32 * _MEBIBYTE


def _told(found: SalvagedLog) -> tuple[object, ...]:
    """Return all that a salvaged log says, comparable."""
    return found.runs, found.durable_lsn, found.manifest_edit, [*map(described, found.damage)]


def _renumbered(data: bytes, number: int) -> bytes | None:
    """Return the same records as a segment with another number, None when it cannot be taken
    apart.
    """
    try:
        segment = fuzz_log.Segment.parse(data)
    except (struct.error, ValueError):
        return None
    segment.header[3] = number
    for record in segment.records:
        record.segment = number
    return segment.encode()


def _check_runs(env: SimEnv, found: SalvagedLog) -> None:
    """Check that runs follow each other and are read again as they were found."""
    for run, following in pairwise(found.runs):
        require(run.lsn_last < following.lsn_first, "runs of a log overlap")
    reader = RunReader(env)
    for run in found.runs:
        require(run.lsn_first <= run.lsn_last, "a run without a record")
        _, scan = reader.read(run)
        require(scan.record(0).lsn == run.lsn_first, "a run begins with another record")
        last = scan.record(scan.record_count - 1)
        require(last.lsn == run.lsn_last, "a run ends with another record")
        require(scan.record_count == run.lsn_last - run.lsn_first + 1, "a run has a hole")


def _check_log_against_trust(env: SimEnv, number: int, data: bytes, found: SalvagedLog) -> object:
    """Check that what recovery would replay of a segment is salvaged; return a feature."""
    alignment = int.from_bytes(data[12:16], "little")
    trusted = attempt(
        DAMAGE,
        lambda: list(
            read_log(
                env, "/", number, database_id=data[32:48],
                alignment=alignment if alignment in (8, 16, 512, 4096) else 8,
                first_lsn=0, durable_lsn=0, manifest_edit_seen=1 << 63, clean=False,
            ).records()
        ),
    )  # fmt: skip
    if trusted.is_error:
        return trusted.feature
    known = {lsn for run in found.runs for lsn in range(run.lsn_first, run.lsn_last + 1)}
    for record in trusted.value:
        require(record.lsn in known, "recovery replays a record that is not salvaged")
    return len(trusted.value)


class SalvagedManifestTarget(fuzz_manifest.ManifestTarget):
    """Input: a manifest file."""

    name: ClassVar[str] = "salvaged-manifest"
    traced: ClassVar[tuple[str, ...]] = ("manifest.salvage", "manifest.format", "manifest.edit")

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        return _damaged(rng, data) if rng.random() < 0.5 else super().mutate(rng, data, other)

    def run(self, data: bytes) -> Iterable[object]:
        number = fuzz_manifest.NUMBER
        env = _folder({manifest_name(number): data})
        found = salvage_edits(env, "/", [number])
        numbers = [edit_number for edit_number, _ in found.edits]
        require(numbers == sorted(set(numbers)), "edits are not in order")
        tables, removed = found.tables(), found.removed()
        for table_number, (_, _, table) in tables.items():
            require(table.number == table_number, "a table under another number")
        features: list[object] = [
            min(len(numbers), 8), bool(tables), bool(removed), len(found.keyspaces()),
            bool(found.dropped()), found.settings_text() is None, found.highest("last_seq") > 0,
        ]  # fmt: skip
        manifest = attempt(DAMAGE, decode_manifest, data, "f")
        if not manifest.is_error:
            edits = dict(found.edits)
            for record in manifest.value.records:
                require(record.edit_seq in edits, "an edit that is trusted is not salvaged")
            require(
                not edits or found.database_id == manifest.value.header.database_id,
                "the edits are of another database",
            )
        return [manifest.feature, *features]

    def memory_max(self, data: bytes) -> int:
        return 1200 * len(data) + 16 * _MEBIBYTE


class SalvagedTableTarget(fuzz_table.TableTarget):
    """Input: a table file; it is salvaged with what the table says of itself alone, and with what
    the manifest says.
    """

    name: ClassVar[str] = "salvaged-table"
    traced: ClassVar[tuple[str, ...]] = ("sstable.salvage", "sstable._page_py", "sstable.format")

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        return _damaged(rng, data) if rng.random() < 0.5 else super().mutate(rng, data, other)

    def run(self, data: bytes) -> Iterable[object]:
        number, file_id = fuzz_table.NUMBER, fuzz_table.FILE_ID
        if len(data) >= FOOTER_BYTES:
            fields = FOOTER.unpack(data[-FOOTER_BYTES:])
            file_id, number = fields[3], fields[4]
        file: Any = fuzz_table.MemoryFile(data)
        features: list[object] = []
        sound = attempt(DAMAGE, _sound_entries, data, number, file_id)
        found = attempt(CorruptionError, TableSalvage, file, number)
        features += [sound.feature, found.feature]
        if found.is_error:
            require(sound.is_error, "a table that is sound cannot be salvaged")
            return features
        features += _check_table(found.value, len(data))
        if not sound.is_error and not found.value.is_ingested:
            require(
                list(found.value.entries()) == sound.value, "a sound table is salvaged otherwise"
            )
        info = found.value.info
        if info is not None:
            again = TableSalvage(file, number, info)
            features += _check_table(again, len(data))
        return features

    def memory_max(self, data: bytes) -> int:
        return 4000 * len(data) + 32 * _MEBIBYTE


def _sound_entries(data: bytes, number: int, file_id: bytes) -> list[Any]:
    """Return the entries of a table that a verification finds sound. Raises: CorruptionError,
    FormatError.
    """
    file: Any = fuzz_table.MemoryFile(data)
    reader = TableReader(file, number, file_id, BufferPool(_MEBIBYTE))
    damage = list(reader.verify())
    if damage:
        raise damage[0]
    cursor = reader.cursor()
    entries = []
    is_there = cursor.seek_first()
    while is_there:
        entries.append((cursor.key, pack_trailer(cursor.seq, cursor.kind), cursor.value))
        is_there = cursor.next()
    return entries


def _check_table(found: TableSalvage, size: int) -> list[object]:
    """Check what a salvaged table says of itself; return features."""
    entries = list(found.entries())
    require(len(entries) == found.entry_count, "a table gives another number of entries")
    for (key, trailer, _), (next_key, next_trailer, _) in pairwise(entries):
        require((key, -trailer) < (next_key, -next_trailer), "salvaged entries are out of order")
    at = 0
    for gap in found.gaps:
        require(at <= gap.offset and gap.size > 0, "gaps overlap")
        at = gap.offset + gap.size
        require(at <= size, "a gap leaves the file")
    lost = found.lost_entries
    return [
        min(len(entries), 4), min(len(found.gaps), 4), lost is None or bool(lost),
        found.is_empty, found.lost_tombstones is None, len(found.tombstones) > 0,
        found.origin is not None, found.is_ingested,
    ]  # fmt: skip


TARGETS: tuple[Target, ...] = (
    SalvagedLogTarget(), SalvagedManifestTarget(), SalvagedTableTarget()
)  # fmt: skip
