"""Checking a database: every byte of every file that the manifest names is read and verified.

Damage is collected, not raised, and the check goes on behind it: the report says how much of the
database is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from holdfast.base import ChangesGoneError, CorruptionError, FormatError
from holdfast.bufferpool import BufferPool
from holdfast.crypto import KeySource
from holdfast.env import Env, ReadAroundEnv
from holdfast.manifest import Recovered, Version, VersionSet
from holdfast.recovery.locking import lock_for_reading
from holdfast.recovery.needed import needed_log, needed_tables, stored_settings
from holdfast.recovery.replay import replay
from holdfast.recovery.restart import has_database_files
from holdfast.recovery.sealing import unlock
from holdfast.sstable import TableInfo, TableReader, table_name
from holdfast.wal import LogEnd, LogFeed

_POOL_BYTES = 1 << 20
"""Verification reads pages from the file and keeps none; only open tables pin their roots."""


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
            f"{verdict}: {self.tables} tables with {self.entries} entries in "
            f"{self.table_bytes} bytes, "
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
    """Read the manifest as an open would; it must say what the version in memory says."""
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
        for segment in needed_log(env, folder, manifest):
            report.segments += 1
            report.records += sum(1 for _ in segment.records())
    except (CorruptionError, FormatError) as error:
        report.errors.append(_as_corruption(error, folder))
    _check_kept(env, folder, manifest, report)


def _check_kept(env: Env, folder: str, manifest: Recovered, report: Report) -> None:
    """Read the segments that are kept for feeds."""
    feed = LogFeed(env, folder, database_id=manifest.database_id, after=None)
    try:
        with suppress(ChangesGoneError):
            # An open database may remove one meanwhile, and a power cut take the end of one that a
            # killed process left.
            for _ in feed.read(LogEnd(below=manifest.version.wal_first)):
                pass
    except (CorruptionError, FormatError) as error:
        report.errors.append(_as_corruption(error, folder))


def check_folder(
    env: Env,
    folder: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    source: KeySource | None = None,
) -> Report:
    """Check the database in `folder`, to which nobody writes, also where it is too damaged to open.
    One that is encrypted is opened with `source`.

    What a failing disk does not give is damage, and is read around. `progress` is called with the
    bytes of tables done since its last call and the bytes of all of them. Raises: FileNotFoundError
    when there is no database; DatabaseLockedError; WrongKeyError; FormatError when its key file is
    of a newer version; OSError.
    """
    if not has_database_files(env.list_dir(folder)):
        raise FileNotFoundError(f"there is no database at {folder}")
    report = Report()
    lock = lock_for_reading(env, folder)
    disk = ReadAroundEnv(env)
    try:
        try:
            env = unlock(disk, folder, source)
        except CorruptionError as error:
            # Of the key file: without it nothing else can be read.
            report.errors.append(error)
            return report
        check_locked(env, folder, report, progress)
    finally:
        if lock is not None:
            lock.release()
        report.errors.extend(disk.damage())
    return report


def check_locked(
    env: Env,
    folder: str,
    report: Report,
    progress: Callable[[int, int], None] | None = None,
) -> Recovered | None:
    """Check a database that the caller has locked and unlocked; return its manifest, or None when
    that is damaged and nothing else was looked at. Raises: as `check_folder`.
    """
    manifest = check_manifest(env, folder, None, report)
    if manifest is not None and manifest.is_new:
        raise FileNotFoundError(f"there is no database at {folder}")
    if manifest is not None:
        _check_replay(env, folder, manifest, report)
        tables = [info for _, _, info in needed_tables(manifest.version)]
        _check_closed_tables(env, folder, tables, report, progress)
    return manifest


def _check_replay(env: Env, folder: str, manifest: Recovered, report: Report) -> None:
    """Read the log, and apply it to memory as an open would."""
    check_log(env, folder, manifest, report)
    if report.ok:
        try:
            replay(env, folder, manifest, stored_settings(manifest))
        except (CorruptionError, FormatError) as error:
            report.errors.append(_as_corruption(error, folder))


def _check_closed_tables(
    env: Env,
    folder: str,
    tables: list[TableInfo],
    report: Report,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Open and verify each table; one that cannot be opened does not keep the others from it."""
    total = sum(info.size_bytes for info in tables)

    def count(size: int) -> None:
        if progress is not None:
            progress(size, total)

    pool = BufferPool(_POOL_BYTES)
    for info in tables:
        path = f"{folder}/{table_name(info.number)}"
        report.tables += 1
        report.table_bytes += info.size_bytes
        report.entries += info.entry_count
        try:
            file = env.open(path)
            try:
                reader = TableReader(file, info.number, info.file_id, pool, info)
                report.errors.extend(reader.verify(count))
                pool.drop_file(info.number)
            finally:
                file.close()
        except FileNotFoundError:
            report.errors.append(CorruptionError(path, 0, "the table is missing"))
        except (CorruptionError, FormatError) as error:
            report.errors.append(_as_corruption(error, path))
        except OSError as error:
            report.errors.append(CorruptionError(path, 0, f"it cannot be read: {error}"))


def _as_corruption(error: Exception, folder: str) -> CorruptionError:
    return error if isinstance(error, CorruptionError) else CorruptionError(folder, 0, str(error))
