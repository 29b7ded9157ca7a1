"""The files that a manifest says are needed: the one way recovery, checks and repair come to them.

Thread safety: pure functions, but for reading files.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.base import DatabaseSettings, FormatError
from holdfast.env import Env
from holdfast.manifest import KeyspaceVersion, Recovered, Version
from holdfast.sstable import TableInfo
from holdfast.wal import LogContents, read_log


def stored_settings(manifest: Recovered) -> DatabaseSettings:
    """Return the settings that the manifest holds.

    Raises: FormatError for those of a newer version.
    """
    try:
        return DatabaseSettings.from_text(manifest.version.settings_text)
    except (ValueError, TypeError) as error:
        raise FormatError(f"the stored settings cannot be used: {error}") from error


def needed_log(env: Env, folder: str, manifest: Recovered) -> LogContents:
    """Return the log that the manifest says is needed, to be read by iterating over it. Requires:
    it names one.

    Raises: FormatError for settings of a newer version; while iterating as `LogContents`.
    """
    version = manifest.version
    return read_log(
        env,
        folder,
        version.wal_first,
        database_id=manifest.database_id,
        alignment=stored_settings(manifest).wal_alignment_bytes,
        first_lsn=version.wal_first_lsn,
        first_salt=version.wal_first_salt,
        durable_lsn=version.durable_lsn,
        manifest_edit_seen=version.edit_seq,
        clean=version.clean,
    )


def needed_tables(version: Version) -> Iterator[tuple[KeyspaceVersion, int, TableInfo]]:
    """Yield (keyspace, level, table) of every table of a version."""
    for keyspace in version.keyspaces.values():
        for level, info in keyspace.tables():
            yield keyspace, level, info
