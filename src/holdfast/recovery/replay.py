"""Replay: what the manifest and the log say, put back into memory. Writes nothing.

Every committed operation that no table holds is applied to a memtable of its keyspace, in order.
When a memtable gets full, `on_full` takes it away; without `on_full` it grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.base import SEQ_MAX, CorruptionError, DatabaseSettings
from holdfast.env import Env
from holdfast.manifest import Recovered, Version, manifest_name, parse_numbered
from holdfast.memtable import Memtable
from holdfast.recovery._apply import apply_records
from holdfast.recovery.needed import needed_log
from holdfast.recovery.unknown import UnknownKeyspaces
from holdfast.wal import read_log

STEP_BYTES = 64 * 1024
"""Memtables are compared with their limit after this many bytes of log, not after every record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a folder held."""

    manifest: Recovered
    memtables: dict[int, Memtable]
    """By keyspace: what only the log holds, or its part that `on_full` did not take."""
    last_seq: int
    last_lsn: int
    records: int
    payload_bytes: int
    is_tail_cut: bool
    """The log ended in a record that was never whole; it was left out."""


def replay(
    env: Env,
    folder: str,
    manifest: Recovered,
    settings: DatabaseSettings,
    *,
    on_full: Callable[[int, Memtable], None] | None = None,
    unknown: UnknownKeyspaces | None = None,
) -> Replayed:
    """Replay the log behind `manifest`, which was read from the same folder. With `unknown` what is
    of a keyspace that never existed is set aside there; without, it is damage.

    Raises: CorruptionError for damage that is not a torn tail; FormatError for newer or foreign
    files; OSError.
    """
    version = manifest.version
    memtables = {keyspace: Memtable() for keyspace in version.keyspaces}
    flushed = {keyspace.id: keyspace.flushed_seq for keyspace in version.keyspaces.values()}
    last_seq, last_lsn = version.last_seq, version.durable_lsn
    records = payload_bytes = 0
    is_tail_cut = False
    if version.wal_first:
        contents = needed_log(env, folder, manifest)
        for segment in contents:
            index = 0
            while index < segment.scan.record_count:
                given = (
                    segment.scan, segment.data, index, STEP_BYTES, memtables, flushed,
                    version.next_keyspace_id,
                )  # fmt: skip
                try:
                    if unknown is None:
                        index, applied = apply_records(*given)
                    else:
                        index, applied = unknown.apply(segment.path, *given)
                except ValueError as error:
                    raise CorruptionError(segment.path, 0, str(error)) from error
                payload_bytes += applied
                if on_full is not None:
                    _hand_over(version, memtables, on_full)
            records += segment.scan.record_count
        last_seq = max(last_seq, contents.last_seq)
        last_lsn = max(last_lsn, contents.last_lsn)
        is_tail_cut = contents.tail_cut
    else:
        _check_nothing_written(env, folder, manifest, settings)
    return Replayed(
        manifest=manifest,
        memtables=memtables,
        last_seq=last_seq,
        last_lsn=last_lsn,
        records=records,
        payload_bytes=payload_bytes,
        is_tail_cut=is_tail_cut,
    )


def _check_nothing_written(
    env: Env, folder: str, manifest: Recovered, settings: DatabaseSettings
) -> None:
    """Check that the database was never written to, which a manifest that names no log says.

    Only a creation that was cut off leaves such a manifest, with at most an empty segment. One that
    lost its later edits must not pass for it. Raises: CorruptionError.
    """
    for name in env.list_dir(folder):
        number, kind = parse_numbered(name) or (0, "")
        if kind == "table" or (
            kind == "wal" and _has_records(env, folder, number, manifest, settings)
        ):
            path = f"{folder}/{manifest_name(manifest.manifest_number)}"
            raise CorruptionError(path, 0, f"the manifest names no log, but {name} holds data")


def _has_records(
    env: Env, folder: str, number: int, manifest: Recovered, settings: DatabaseSettings
) -> bool:
    contents = read_log(
        env,
        folder,
        number,
        database_id=manifest.database_id,
        alignment=settings.wal_alignment_bytes,
        first_lsn=0,
        durable_lsn=0,
        manifest_edit_seen=SEQ_MAX,
        clean=False,
    )
    try:
        return any(segment.scan.record_count for segment in contents)
    except CorruptionError:
        # A segment that was half prepared when the power went.
        return False


def _hand_over(
    version: Version, memtables: dict[int, Memtable], on_full: Callable[[int, Memtable], None]
) -> None:
    """Give away the memtables that are full."""
    for keyspace, memtable in memtables.items():
        if memtable.bytes_used >= version.keyspaces[keyspace].settings.memtable_bytes:
            memtable.freeze()
            on_full(keyspace, memtable)
            memtables[keyspace] = Memtable()
