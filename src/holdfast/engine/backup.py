"""Backup: a copy of an open database that opens as one, made while others write.

1. With the leadership the log is made durable, and under the version mutex the version, a hold on
   its tables and the needed segments are taken, each segment opened, with its length and its front:
   all else up to that length never changes again. Here commits wait.
2. Without any lock the segments are copied, then the tables: their files are immutable, and the
   hold keeps them. All is copied as it lies on the disk: names stay, so seals and checksums hold.
3. The manifest is written, a snapshot of the version, and of an encrypted database the key file
   that is in force by then: it has the data key of everything before it. With all of them, their
   names and that of the folder durable, the marker is made.

The file UNFINISHED is made durable before all else and goes when the marker is durable: a folder in
which a crash left anything has it and no marker, which every open refuses, or is whole. Removal
after a failure goes the other way round. By that file the next backup to the same folder knows that
what is there are copies which it may remove.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.base import DatabaseClosedError, DiskFullError, ReadOnlyError, mark
from holdfast.crypto import SealedEnv, plain_env
from holdfast.engine._core import FORKED
from holdfast.engine.compact import while_open
from holdfast.engine.snapshot import FORKED_TEXT
from holdfast.env import Env, File, is_shortage
from holdfast.lsm import ReadView
from holdfast.manifest import Version, VersionSet, manifest_name, marker_name, parse_marker
from holdfast.recovery import (
    UNFINISHED,
    check_free,
    claimed_folder,
    mark_finished,
    mark_unfinished,
)
from holdfast.sstable import table_name
from holdfast.wal import FRONT_BYTES_MAX, segment_name

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine

Progress = Callable[[int, int], None]

PIECE_BYTES: Final = 1 << 20
"""What is copied at once; between two pieces it is looked whether the database was closed."""

_ITERATION: Final = 1
"""That of the copy's marker, its first."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment as it was when the copy began."""

    name: str
    file: File
    front: bytes
    bytes_used: int


@dataclass(slots=True)
class _Held:
    """What a backup is a copy of, and what keeps its files."""

    version: Version = field(default_factory=Version)
    tables: ReadView | None = None
    """Keeps them; the memtables of that moment may go."""
    segments: list[_Segment] = field(default_factory=list)


def backup(engine: Engine, folder: str, progress: Progress | None) -> None:
    """Copy the database to `folder`; see `Database.backup`."""
    if not isinstance(folder, str):
        raise TypeError(f"a path is str, not {type(folder).__name__}")
    # The parent of "copy/" is not "copy".
    folder = folder.rstrip("/") or "/"
    if engine.log is None:
        raise ReadOnlyError(
            "a backup needs a handle that may write; nobody writes to a database that is open with "
            "read_only=True, so its folder can be copied as it is"
        )
    while_open(engine, partial(_backup, engine, folder, progress))


def _backup(engine: Engine, folder: str, progress: Progress | None) -> None:
    engine.write_path.check_writable()
    env = plain_env(engine.env)
    held = _Held()
    try:
        _prepare_folder(env, engine.folder, folder)
        with claimed_folder(env, folder, site="backup"):
            engine.write_path.exclusive(partial(_hold, engine, env, held))
            copy = _Copy(engine, env, folder, held, progress)
            try:
                copy.make()
            except BaseException:
                # In a child that `progress` forked, the files are those of the parent.
                if not engine.state.flags & FORKED:
                    copy.remove()
                raise
    except OSError as error:
        if is_shortage(error):
            raise DiskFullError(f"{folder}: no room for the backup: {error}") from error
        raise
    finally:
        for segment in held.segments:
            segment.file.close()
        held.tables = None
        if not engine.state.flags & FORKED:
            with contextlib.suppress(MemoryError):
                # The next flush or compaction does it, too.
                engine.collect()


def _prepare_folder(env: Env, origin: str, folder: str) -> None:
    """Make the folder, or see that it is empty, but for what a crash left of a backup."""
    outer, inner = os.path.realpath(origin), os.path.realpath(folder)
    if os.path.commonpath((outer, inner)) == outer:
        raise ValueError(f"{folder} lies in the folder of the database; give another one")
    check_free(env, folder)
    with contextlib.suppress(FileExistsError):
        env.make_dir(folder, site="backup.folder.create")


def _hold(engine: Engine, env: Env, held: _Held) -> None:
    """Take hold of the database as it is now. Requires: the leadership."""
    engine.write_path.settle_held()
    log = engine.log
    if log is None:  # unreachable: see `backup`
        raise AssertionError("a database without a log is only read")
    with engine.version_mutex:
        held.version = engine.version
        views = [tree.view for tree in engine.trees.values()]
        held.tables = engine.store.hold(
            reader for view in views for level in view.levels for reader in level
        )
        for info in log.segments():
            if info.number < held.version.wal_first:
                continue
            name, used = segment_name(info.number), info.bytes_used
            file = env.open(f"{engine.folder}/{name}")
            try:
                # Its link may be written when the first record is.
                front = file.read_at(0, min(FRONT_BYTES_MAX, used))
                held.segments.append(_Segment(name, file, front, used))
            except BaseException:
                file.close()
                raise


class _Copy:
    """The files of one backup."""

    def __init__(
        self, engine: Engine, env: Env, folder: str, held: _Held, progress: Progress | None
    ) -> None:
        self._engine = engine
        self._env = env
        self._folder = folder
        self._held = held
        self._progress = progress
        tables = (
            info for keyspace in held.version.keyspaces.values() for _, info in keyspace.tables()
        )
        self._total = sum(segment.bytes_used for segment in held.segments)
        self._total += sum(info.size_bytes for info in tables)
        # The names that this backup made, or began to make.
        self._made: list[str] = []

    def make(self) -> None:
        """Copy everything, durably. Raises: OSError; DatabaseClosedError."""
        engine, env, folder = self._engine, self._env, self._folder
        self._made.append(UNFINISHED)
        mark_unfinished(env, folder, site="backup")
        for segment in self._held.segments:
            self._copy(segment.name, segment.file, segment.bytes_used, segment.front)
        for number in sorted(self._held.version.table_numbers()):
            name = table_name(number)
            file = env.open(f"{engine.folder}/{name}")
            try:
                self._copy(name, file, file.size())
            finally:
                file.close()
        # It syncs the folder, and so the names of all copies.
        manifest = self._write_manifest()
        try:
            if isinstance(engine.env, SealedEnv):
                name, content = engine.env.ring.read_file()
                self._write(name, content)
                env.sync_dir(folder, site="backup.keys.folder_sync")
            env.sync_dir(os.path.dirname(folder) or ".", site="backup.parent.folder_sync")
            self._made.append(marker_name(_ITERATION, manifest.number))
            manifest.publish()
        finally:
            manifest.close()
        mark_finished(env, folder, site="backup")

    def _write_manifest(self) -> VersionSet:
        engine, version_set = self._engine, self._engine.version_set
        if version_set is None:  # unreachable: see `backup`
            raise AssertionError("a database without a manifest of its own is only read")
        number = engine.numbers.allocate()
        self._made.append(manifest_name(number))
        return VersionSet.prepare(
            engine.env,
            self._folder,
            number,
            version_set.database_id,
            self._held.version,
            iteration=_ITERATION,
            alignment=engine.settings.wal_alignment_bytes,
        )

    def _create(self, name: str) -> File:
        self._made.append(name)
        try:
            return self._env.create(f"{self._folder}/{name}", site="backup.create")
        except FileExistsError:
            # Somebody else's.
            self._made.remove(name)
            raise

    def _write(self, name: str, content: bytes) -> None:
        file = self._create(name)
        try:
            file.write_at(0, content, site="backup.write")
            file.sync(site="backup.keys.sync")
        finally:
            file.close()

    def _copy(self, name: str, source: File, used: int, front: bytes = b"") -> None:
        """Copy the first `used` bytes of a file, of which `front` was read before; the rest of it
        reads as zeros.
        """
        file = self._create(name)
        try:
            if source.size() > used:
                # No room is needed for it: nobody ever writes to a segment of before.
                file.truncate(source.size(), site="backup.resize")
            done, piece = 0, front
            while done < used:
                piece = piece or source.read_at(done, min(PIECE_BYTES, used - done))
                if not piece:
                    raise OSError(f"{source.name} ends at byte {done}, before its end")
                file.write_at(done, piece, site="backup.write")
                done += len(piece)
                self._copied(len(piece))
                piece = b""
            file.sync(site="backup.sync")
        finally:
            file.close()

    def _copied(self, size: int) -> None:
        if self._progress is not None:
            self._progress(size, self._total)
            if self._engine.state.flags & FORKED:
                raise DatabaseClosedError(FORKED_TEXT)
        if self._engine.upkeep.is_stopped:
            raise DatabaseClosedError("the database was closed during the backup")

    def remove(self) -> None:
        """Remove what was made, the marker first and UNFINISHED last; what cannot be removed is no
        database.
        """
        try:
            for name in reversed(self._made):
                if name == UNFINISHED:
                    # What would come back without it, nobody would know to be a copy.
                    self._env.sync_dir(self._folder, site="backup.attempt.folder_sync")
                with contextlib.suppress(FileNotFoundError):
                    self._env.unlink(f"{self._folder}/{name}", site="backup.attempt.unlink")
                if parse_marker(name) is not None:
                    # Were it back and anything gone, nobody would know that the rest are copies.
                    self._env.sync_dir(self._folder, site="backup.attempt.marker.folder_sync")
        except OSError:
            mark("backup.attempt_kept")
