"""Restart: from a folder in whatever state a crash left it to one that new commits may build on.

What survives in the log is copied into new tables before anything is acknowledged, a new segment
and a new manifest are written, and only then are the old files removed. So no file of an earlier
process life is ever appended to, and what was read back after a failed sync, which a cache may show
without the disk having it, is on disk again in new synced files before it is trusted. (Rebello et
al., Can Applications Recover from fsync Failures?, ATC 2020.)

The order, each step synced before the next:
1. tables made of the replayed log;
2. the first segment of the new log;
3. a new manifest with both, found through a new marker;
4. removal of everything the new manifest does not name.
A crash between any two leaves the old manifest and log in force, and orphans that the next restart
removes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from holdfast.base import (
    DatabaseSettings,
    DiskFullError,
    FormatError,
    KeyspaceSettings,
    LimitError,
    mark,
)
from holdfast.compaction import run_flush
from holdfast.crypto import parse_key_file_name
from holdfast.env import Env, is_shortage
from holdfast.manifest import (
    MARKER_PREFIX,
    Recovered,
    Version,
    VersionEdit,
    VersionSet,
    manifest_name,
    parse_marker,
    parse_numbered,
)
from holdfast.memtable import Memtable
from holdfast.merge import Merges
from holdfast.recovery.locking import LOCK_NAME
from holdfast.recovery.needed import stored_settings
from holdfast.recovery.numbers import FileNumbers
from holdfast.recovery.replay import Replayed, replay
from holdfast.sstable import TableInfo, table_name
from holdfast.wal import LogWriter, parse_segment_name, segment_name, segments_beyond

DEFAULT_KEYSPACE = "default"
LIVE_NAME = "LIVE"
"""Figures that the process which has the database open publishes. Part of the file format."""
WATCH_NAME = "WATCH"
"""A request for them. Part of the file format."""
UNFINISHED = "UNFINISHED"
"""The mark of a copy that is not whole yet; see `unfinished`. Part of the file format."""


@dataclass(slots=True, kw_only=True)
class Recovery:
    """What an engine starts from."""

    settings: DatabaseSettings
    version: Version
    memtables: dict[int, Memtable]
    """Replayed and not flushed; only when reading."""
    last_seq: int
    numbers: FileNumbers
    version_set: VersionSet | None = None
    log: LogWriter | None = None

    def close(self) -> None:
        """Close the files of a recovery that no engine took."""
        if self.log is not None:
            self.log.close()
        if self.version_set is not None:
            self.version_set.close()


def recover_for_reading(env: Env, folder: str, settings: DatabaseSettings | None) -> Recovery:
    """Replay a database in memory; nothing is written.

    Raises: FileNotFoundError when there is none; CorruptionError, FormatError, OSError.
    """
    manifest = VersionSet.recover(env, folder)
    if manifest.is_new:
        raise FileNotFoundError(f"there is no database at {folder}")
    replayed = replay(env, folder, manifest, stored_settings(manifest))
    return Recovery(
        settings=_settings(manifest, settings),
        version=manifest.version,
        memtables=replayed.memtables,
        last_seq=replayed.last_seq,
        numbers=FileNumbers(env, manifest.next_number),
    )


def recover_for_writing(
    env: Env,
    folder: str,
    settings: DatabaseSettings | None,
    *,
    create: bool,
    merges: Merges | None = None,
) -> Recovery:
    """Bring a folder into a state that new commits may build on, creating the database when it is
    absent. `merges` fold operands that the log holds.

    Raises: FileNotFoundError; CorruptionError, FormatError; LimitError for settings that cannot be
    changed; OSError, DiskFullError. After an exception the folder holds what it held, and perhaps
    orphans, but none that fill a full disk.
    """
    manifest = VersionSet.recover(env, folder)
    if manifest.is_new and not create:
        raise FileNotFoundError(f"there is no database at {folder}")
    try:
        if manifest.is_new:
            return _create(env, folder, manifest, settings or DatabaseSettings())
        tuned = _tuned(manifest, settings)
        return _recover(env, folder, manifest, _settings(manifest, settings), tuned, merges)
    except (OSError, DiskFullError) as error:
        if isinstance(error, DiskFullError) or is_shortage(error):
            _remove_attempt(env, folder, manifest)
        raise


def _recover(
    env: Env,
    folder: str,
    manifest: Recovered,
    settings: DatabaseSettings,
    tuned: Mapping[int, KeyspaceSettings],
    merges: Merges | None,
) -> Recovery:
    """Flush what the log holds and start a new log and a new manifest, with keyspaces that are
    `tuned`.
    """
    numbers = FileNumbers(env, manifest.next_number)
    tables: list[tuple[int, TableInfo]] = []

    def flush(keyspace: int, memtable: Memtable) -> None:
        version = manifest.version.keyspaces[keyspace]
        result = run_flush(
            env,
            folder,
            memtable,
            allocate_number=numbers.allocate,
            snapshots=[],
            settings=version.settings,
            older=[
                *(table for _, table in version.tables()),
                *(info for owner, info in tables if owner == keyspace),
            ],
            merges=merges,
            origin=version.origin,
        )
        tables.extend((keyspace, info) for info in result.tables)

    replayed = replay(env, folder, manifest, stored_settings(manifest), on_full=flush)
    for keyspace, memtable in replayed.memtables.items():
        if memtable.seq_min:
            memtable.freeze()
            flush(keyspace, memtable)
    return _restart(env, folder, replayed, numbers, tables, settings, tuned)


def _remove_attempt(env: Env, folder: str, manifest: Recovered) -> None:
    """Unlink what an open made before it ran out of room, unless its manifest became current.

    Attempts to open a database on a full disk must not fill it further.
    """
    mark("recovery.attempt_removed")
    names = env.list_dir(folder)
    markers = [parsed for name in names if (parsed := parse_marker(name)) is not None]
    if any(iteration > manifest.iteration for iteration, _ in markers):
        return
    for name in names:
        numbered = parse_numbered(name)
        if numbered is not None and numbered[0] >= manifest.next_number:
            try:
                env.unlink(f"{folder}/{name}", site="recovery.attempt.unlink")
            except OSError:
                mark("recovery.orphan_kept")


def _settings(manifest: Recovered, given: DatabaseSettings | None) -> DatabaseSettings:
    """Return the settings in force: the given ones, checked against the stored ones, or the stored
    ones.
    """
    stored = stored_settings(manifest)
    if given is None:
        return stored
    if given.wal_alignment_bytes != stored.wal_alignment_bytes:
        raise LimitError(
            "wal_alignment_bytes is fixed when a database is created: it is "
            f"{stored.wal_alignment_bytes}, not {given.wal_alignment_bytes}"
        )
    default = manifest.version.keyspace_named(DEFAULT_KEYSPACE)
    if default is not None:
        default.settings.check_kept(given.keyspace)
    return given


def _tuned(manifest: Recovered, given: DatabaseSettings | None) -> Mapping[int, KeyspaceSettings]:
    """Return the settings of keyspaces that the given ones change: of the default one."""
    default = manifest.version.keyspace_named(DEFAULT_KEYSPACE)
    return {} if given is None or default is None else {default.id: given.keyspace}


def has_database_files(names: Iterable[str]) -> bool:
    """Return whether any of these names in a folder is one that only a database gives."""
    return any(name.startswith(MARKER_PREFIX) or parse_numbered(name) for name in names)


def check_free_for_new(folder: str, names: Iterable[str]) -> None:
    """Check that a folder with these names has a database, or nothing that keeps one from being
    made there. Raises: FormatError.
    """
    if not has_database_files(names):
        _check_unrelated(folder, names)


def _check_unrelated(folder: str, names: Iterable[str]) -> None:
    """Raises: FormatError when any of these names in a folder without a database is no database's
    own.
    """
    for name in names:
        if name not in (LOCK_NAME, LIVE_NAME, WATCH_NAME) and parse_key_file_name(name) is None:
            raise FormatError(
                f"{folder} holds {name!r} and no database; give an empty or a new folder"
            )


def _create(env: Env, folder: str, manifest: Recovered, settings: DatabaseSettings) -> Recovery:
    _check_unrelated(folder, manifest.unrelated)
    numbers = FileNumbers(env, manifest.next_number)
    database_id = env.random_bytes(16)
    version = Version().apply(
        VersionEdit(
            keyspaces_created=((0, DEFAULT_KEYSPACE, settings.keyspace),),
            settings_text=settings.to_text(),
        )
    )
    # The first manifest precedes the first segment: a segment without a manifest would be damage.
    number = numbers.allocate()
    version = replace(version, next_number=numbers.next_number)
    version_set = VersionSet.create(
        env, folder, number, database_id, version, alignment=settings.wal_alignment_bytes
    )
    log = None
    try:
        log = LogWriter(
            env,
            folder,
            settings=settings,
            database_id=database_id,
            allocate_number=numbers.allocate,
            lsn_first=1,
            manifest_edit=lambda: version_set.durable_edit,
        )
        version = version_set.log(
            VersionEdit(
                wal_first=log.segments()[0].number,
                wal_first_lsn=log.segments()[0].lsn_first,
                wal_first_salt=log.segments()[0].salt,
                next_number=numbers.next_number,
            )
        )
        # A creation that a crash cut off may have left a manifest.
        _remove_orphans(env, folder, version, log, version_set)
        return Recovery(
            settings=settings,
            version=version,
            memtables={},
            last_seq=0,
            numbers=numbers,
            version_set=version_set,
            log=log,
        )
    except BaseException:
        version_set.close()
        if log is not None:
            log.close()
        raise


def _restart(
    env: Env,
    folder: str,
    replayed: Replayed,
    numbers: FileNumbers,
    tables: list[tuple[int, TableInfo]],
    settings: DatabaseSettings,
    tuned: Mapping[int, KeyspaceSettings],
) -> Recovery:
    manifest = replayed.manifest
    version_sets: list[VersionSet] = []
    log = LogWriter(
        env,
        folder,
        settings=settings,
        database_id=manifest.database_id,
        allocate_number=numbers.allocate,
        lsn_first=replayed.last_lsn + 1,
        # Asked for when a record is sealed, which is after the manifest is there.
        manifest_edit=lambda: version_sets[0].durable_edit,
    )
    try:
        flushed = {
            keyspace: max(info.seq_max for owner, info in tables if owner == keyspace)
            for keyspace in {keyspace for keyspace, _ in tables}
        }
        number = numbers.allocate()
        version = manifest.version.apply(
            VersionEdit(
                tables_added=tuple((keyspace, 0, info) for keyspace, info in tables),
                flushed_seq=flushed,
                next_number=numbers.next_number,
                last_seq=replayed.last_seq,
                wal_first=log.segments()[0].number,
                wal_first_lsn=log.segments()[0].lsn_first,
                wal_first_salt=log.segments()[0].salt,
                durable_lsn=replayed.last_lsn,
                settings_text=settings.to_text(),
                keyspaces_changed=tuned,
            )
        )
        version_set = VersionSet.create(
            env, folder, number, manifest.database_id, version,
            iteration=manifest.iteration + 1, alignment=settings.wal_alignment_bytes,
        )  # fmt: skip
        version_sets.append(version_set)
        _remove_orphans(
            env, folder, version_set.version, log, version_set, kept_bytes=settings.wal_keep_bytes
        )
        return Recovery(
            settings=settings,
            version=version_set.version,
            memtables={},
            last_seq=replayed.last_seq,
            numbers=numbers,
            version_set=version_set,
            log=log,
        )
    except BaseException:
        log.close()
        for version_set in version_sets:
            version_set.close()
        raise


def _remove_orphans(
    env: Env,
    folder: str,
    version: Version,
    log: LogWriter,
    version_set: VersionSet,
    *,
    kept_bytes: int = 0,
) -> None:
    """Unlink every database file that the new manifest does not name, but for so many bytes of
    earlier log segments, the figures of an earlier life, and the mark of a copy that is whole; a
    failure leaves it for the next restart.
    """
    keep = {table_name(number) for number in version.table_numbers()}
    keep.update(segment_name(segment.number) for segment in log.segments())
    keep.add(manifest_name(version_set.number))
    try:
        names = env.list_dir(folder)
        if kept_bytes:
            first = log.segments()[0].number
            beyond = segments_beyond(env, folder, first, kept_bytes)
            numbers = (parse_segment_name(name) for name in names)
            keep.update(
                segment_name(n) for n in numbers if n is not None and n < first and n not in beyond
            )
    except OSError:
        mark("recovery.orphan_kept")
        return
    for name in names:
        # A marker is durable, and the folder locked: a copy that it is of has come to its end.
        is_past = name in (LIVE_NAME, UNFINISHED)
        if is_past or (parse_numbered(name) is not None and name not in keep):
            try:
                env.unlink(f"{folder}/{name}", site="recovery.orphan.unlink")
            except OSError:
                mark("recovery.orphan_kept")
