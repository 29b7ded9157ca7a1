"""The end of a repair: a new log and a new manifest, the originals put aside, and the marker.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass

from holdfast.base import DatabaseSettings, mark
from holdfast.compaction import run_flush
from holdfast.crypto import SealedEnv, parse_key_file_name, plain_env
from holdfast.env import Env, ReadAroundEnv
from holdfast.manifest import (
    KeyspaceVersion,
    Version,
    VersionEdit,
    VersionSet,
    parse_marker,
    parse_numbered,
)
from holdfast.memtable import Memtable
from holdfast.recovery.repair_survey import last_iteration
from holdfast.recovery.repair_tables import Piece, Workshop
from holdfast.recovery.set_aside import copy_aside, copy_file
from holdfast.recovery.unfinished import mark_finished
from holdfast.sstable import table_name
from holdfast.wal import LogWriter


@dataclass(slots=True, kw_only=True)
class Repaired:
    """A database that is ready but for its log, its manifest and its marker."""

    version: Version
    database_id: bytes
    settings: DatabaseSettings
    last_seq: int
    """No operation that was ever committed, lost ones included, has a greater number."""
    last_lsn: int
    """The same of records."""
    kept: frozenset[str]
    """The names of files that are used as they are."""
    originals: list[str]
    """The names of all other files of the damaged database."""


def flush_replayed(
    workshop: Workshop, keyspace: KeyspaceVersion, memtable: Memtable
) -> list[Piece]:
    """Write what was replayed of a keyspace to tables. Raises: OSError."""
    result = run_flush(
        workshop.env,
        workshop.target,
        memtable,
        allocate_number=workshop.numbers.allocate,
        snapshots=[],
        settings=keyspace.settings,
        merges=workshop.merges,
        origin=keyspace.origin,
    )
    return [Piece(info=info, folder=workshop.target, is_new=True) for info in result.tables]


def make_target(env: Env, target: str) -> None:
    """Make the folder of the repaired database if it is absent, and its name durable. Raises:
    OSError.
    """
    machine = plain_env(env)
    with suppress(FileExistsError):
        machine.make_dir(target, site="repair.target.folder")
    machine.sync_dir(os.path.dirname(target) or ".", site="repair.parent.folder_sync")


def install(workshop: Workshop, repaired: Repaired, names: list[str]) -> str | None:
    """Make what was repaired the database in the target; return where the originals of what it does
    not use are now, None when they are where they were.

    Durability: durable when it returns. Raises: OSError, and then the database is as it was, unless
    the marker may be there.
    """
    env, target = workshop.env, workshop.target
    is_in_place = target == workshop.folder
    if not is_in_place:
        for name in sorted(repaired.kept):
            copy_file(plain_env(env), f"{workshop.folder}/{name}", f"{target}/{name}")
            _require_readable(plain_env(env), f"{workshop.folder}/{name}")
    version_sets: list[VersionSet] = []
    log = LogWriter(
        env,
        target,
        settings=repaired.settings,
        database_id=repaired.database_id,
        allocate_number=workshop.numbers.allocate,
        lsn_first=repaired.last_lsn + 1,
        # Asked for when a record is sealed, and none is.
        manifest_edit=lambda: version_sets[0].durable_edit,
    )
    try:
        segment = log.segments()[0]
        number = workshop.numbers.allocate()
        version = repaired.version.apply(
            VersionEdit(
                next_number=workshop.numbers.next_number,
                last_seq=repaired.last_seq,
                wal_first=segment.number,
                wal_first_lsn=segment.lsn_first,
                wal_first_salt=segment.salt,
                durable_lsn=repaired.last_lsn,
                settings_text=repaired.settings.to_text(),
            )
        )
        if not is_in_place:
            _copy_keys(env, target)
        # It syncs the folder, and so the names of everything that is in it by now.
        version_set = VersionSet.prepare(
            env, target, number, repaired.database_id, version,
            iteration=last_iteration(names) + 1 if is_in_place else 1,
            alignment=repaired.settings.wal_alignment_bytes,
        )  # fmt: skip
        version_sets.append(version_set)
        into = _set_aside(workshop, repaired, names) if is_in_place else None
        version_set.publish()
    finally:
        for opened in version_sets:
            opened.close()
        log.close()
    if is_in_place:
        _remove_originals(plain_env(env), workshop, repaired)
    else:
        mark_finished(plain_env(env), target, site="repair.target")
    return into


def _set_aside(workshop: Workshop, repaired: Repaired, names: list[str]) -> str:
    keys = [name for name in names if parse_key_file_name(name) is not None]
    return copy_aside(plain_env(workshop.env), workshop.folder, [*repaired.originals, *keys])


def _copy_keys(env: Env, target: str) -> None:
    """Copy the key file in force to another folder, durably but for its name. The caller has the
    damaged database locked, so nobody changes its keys meanwhile.
    """
    if isinstance(env, SealedEnv):
        name, content = env.ring.read_file()
        file = env.plain.create(f"{target}/{name}", site="repair.keys.create")
        try:
            file.write_at(0, content, site="repair.keys.write")
            file.sync(site="repair.keys.sync")
        finally:
            file.close()


def _require_readable(disk: Env, path: str) -> None:
    """Raise OSError when a table that was whole a moment ago could not be copied in full."""
    if isinstance(disk, ReadAroundEnv) and disk.is_unreadable(path):
        raise OSError(errno.EIO, f"{path}: the disk fails further; begin the repair again", path)


def _remove_originals(env: Env, workshop: Workshop, repaired: Repaired) -> None:
    """Remove what was copied away, and what the repair wrote on its way. What cannot be removed, or
    comes back after a crash, is left to the next open: the manifest does not name it.
    """
    needed = {table_name(number) for number in repaired.version.table_numbers()}
    try:
        for name in env.list_dir(workshop.folder):
            parsed = parse_numbered(name)
            is_spent = parsed is not None and parsed[1] == "table" and name not in needed
            if name in repaired.originals or is_spent:
                env.unlink(f"{workshop.folder}/{name}", site="repair.original.unlink")
    except OSError:
        mark("recovery.orphan_kept")


def remove_attempt(workshop: Workshop, first: int, names: list[str]) -> None:
    """Remove what a repair wrote before it failed, from number `first` on, unless it may be in
    force. `names` are those that were in the damaged folder before.
    """
    env, target = plain_env(workshop.env), workshop.target
    before = set(names) if target == workshop.folder else set[str]()
    try:
        made = [name for name in env.list_dir(target) if name not in before]
        if any(parse_marker(name) is not None for name in made):
            return
        for name in made:
            parsed = parse_numbered(name)
            is_copy = target != workshop.folder and (
                parsed is not None or parse_key_file_name(name) is not None
            )
            if is_copy or (parsed is not None and parsed[0] >= first):
                env.unlink(f"{target}/{name}", site="repair.attempt.unlink")
    except OSError:
        mark("recovery.orphan_kept")
