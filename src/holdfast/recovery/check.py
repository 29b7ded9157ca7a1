"""Checking a database: every byte of every file that the manifest names is read and verified.

Damage is collected, not raised, and the check goes on behind it: the report says how much of the
database is whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.base import CorruptionError, FormatError
from holdfast.env import Env
from holdfast.manifest import Recovered, Version, VersionSet
from holdfast.recovery.restart import stored_settings
from holdfast.sstable import TableReader
from holdfast.wal import read_log


@dataclass(slots=True)
class Report:
    """What a check found."""

    tables: int = 0
    table_bytes: int = 0
    entries: int = 0
    segments: int = 0
    records: int = 0
    edits: int = 0
    errors: list[CorruptionError] = field(default_factory=list)
    """Every damaged place, in the order it was found."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.errors

    def __str__(self) -> str:
        verdict = "no damage found" if self.ok else f"{len(self.errors)} damaged places"
        return (
            f"{verdict}: {self.tables} tables with {self.entries} entries in {self.table_bytes} bytes, "
            f"{self.records} log records in {self.segments} segments, {self.edits} manifest edits"
        )


def check_tables(readers: Iterable[TableReader], report: Report) -> None:
    """Verify every page of every table."""
    for reader in readers:
        report.tables += 1
        report.table_bytes += reader.info.size_bytes
        report.entries += reader.info.entry_count
        report.errors.extend(reader.verify())


def check_manifest(
    env: Env, folder: str, expected: Version | None, report: Report
) -> Recovered | None:
    """Read the manifest as an open would; it must say what `expected`, the version in memory, says."""
    try:
        manifest = VersionSet.recover(env, folder)
    except (CorruptionError, FormatError) as error:
        report.errors.append(_as_corruption(error, folder))
        return None
    report.edits += manifest.version.edit_seq
    if expected is not None and manifest.version != expected:
        report.errors.append(
            CorruptionError(
                folder, 0, "the manifest on disk does not say what the open database holds"
            )
        )
    return manifest


def check_log(env: Env, folder: str, manifest: Recovered, report: Report) -> None:
    """Read the log as an open would."""
    version = manifest.version
    if not version.wal_first:
        return
    try:
        for segment in read_log(
            env,
            folder,
            version.wal_first,
            database_id=manifest.database_id,
            alignment=stored_settings(manifest).wal_alignment_bytes,
            durable_lsn=version.durable_lsn,
            manifest_edit_seen=version.edit_seq,
            clean=version.clean,
        ):
            report.segments += 1
            report.records += sum(1 for _ in segment.records())
    except (CorruptionError, FormatError) as error:
        report.errors.append(_as_corruption(error, folder))


def _as_corruption(error: Exception, folder: str) -> CorruptionError:
    return error if isinstance(error, CorruptionError) else CorruptionError(folder, 0, str(error))
