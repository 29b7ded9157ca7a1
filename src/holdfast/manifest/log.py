"""`VersionSet`: the current version and the manifest file that makes it durable.

A manifest is written anew, from a snapshot of the version, at every open, and never appended to by
a second process life. Which one is current is said by an empty marker file
`CURRENT.<iteration>.<number>`: the highest iteration wins. A marker is created, its folder synced,
and only then are older markers unlinked; nothing is renamed, so nothing depends on a rename being
atomic. The idea of the marker is Pebble's.

What each step relies on, in order:
1. The new manifest is written and synced, and its name is made durable, before its marker exists.
2. The marker's name is durable before an older marker is unlinked, and before the old manifest
   counts as obsolete.
3. An edit is published only after its sync. A failed write or sync poisons the set: the record may
   or may not be there, so nothing may be written after it, acted upon, or deleted because of it.
   Only a write for which there is no room is taken back, durably, and may be tried again.

Thread safety: none. The caller holds one mutex around `log`, `rewrite` and `close`; the attribute
`version` may be read at any time, because versions are immutable.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from dataclasses import dataclass, replace

from holdfast.base import (
    CorruptionError,
    DatabaseClosedError,
    DatabasePoisonedError,
    DiskFullError,
    mark,
    require,
)
from holdfast.env import Env, File, is_disk_full, is_shortage
from holdfast.manifest.edit import VersionEdit, encode_edit
from holdfast.manifest.format import (
    ALIGNMENT_MIN,
    DATABASE_ID_BYTES,
    HEADER_BYTES,
    MARKER_PREFIX,
    Header,
    encode_record,
    is_alignment,
    manifest_name,
    marker_name,
    parse_marker,
    parse_numbered,
)
from holdfast.manifest.reader import decode_manifest
from holdfast.manifest.version import Version

NUMBER_LEAP_MAX = 2**32
"""No process life gives so many file numbers without recording one of them: a file whose number is
further above the recorded ones would use up the numbers of all later files.
"""

FILE_BYTES_MAX = 1 << 30
"""A longer manifest is refused before it is read, and never written: a damaged size must not take
all memory. A manifest is rewritten when its edits outgrow its snapshot, so this is room for
millions of tables. Part of the file format.
"""

FULL_BYTES = FILE_BYTES_MAX // 2
"""A manifest beyond this that is worth rewriting takes no further edit before that was done."""

_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST}
"""What a folder says that takes no new file; the disk is well then."""

REWRITE_BYTES = 256 * 1024
"""A manifest is worth rewriting when its edits take this and more than its snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a database folder says about itself. Nothing was changed to find out."""

    is_new: bool
    """There is no marker and no table or log file: no database was ever finished here."""
    version: Version
    database_id: bytes
    """Empty when `is_new`."""
    manifest_number: int
    iteration: int
    """0 when `is_new`; the next manifest is created with the next iteration."""
    next_number: int
    """Above every number that the manifest or a file name in the folder takes."""
    is_tail_cut: bool
    """The last edit was incomplete and left out."""
    unrelated: tuple[str, ...]
    """Names in the folder that belong to no database file."""


class VersionSet:
    """The current version of an open database and the manifest that it is logged to."""

    def __init__(
        self,
        env: Env,
        folder: str,
        database_id: bytes,
        iteration: int,
        version: Version,
        alignment: int,
    ) -> None:
        """For `create` and its kin only."""
        self._env = env
        self._folder = folder
        self._database_id = database_id
        self._iteration = iteration
        self._version = version
        self._alignment = alignment
        self._failure: BaseException | None = None
        # Whether the marker of a successor was not made, for sure.
        self._lacks_marker = False
        self._has_file = False
        self._was_refused = False
        self._is_closed = False
        self._file: File
        self._header: Header
        self._chain: int
        self._end: int
        self._snapshot_bytes: int
        self._replaced_bytes = 0
        self._obsolete: tuple[str, ...] = ()

    @classmethod
    def create(
        cls,
        env: Env,
        folder: str,
        number: int,
        database_id: bytes,
        version: Version,
        *,
        iteration: int = 1,
        alignment: int = ALIGNMENT_MIN,
    ) -> VersionSet:
        """Write manifest `number`, holding `version`, make it the current one and return the set
        that logs to it. Each of its records ends at a multiple of `alignment`.

        The first manifest of a database must be created before its first log segment or table: a
        folder with those and without a marker is damaged. Later ones are created with
        `Recovered.iteration + 1` and a number that was never given.

        Guarantees: when it returns, the manifest is durable and current, and `obsolete` names the
        older ones, which the caller may unlink. When it raises, the manifest that was current
        before is, or the new one with the same version; nothing is lost and nothing may be
        unlinked. Raises: OSError.
        """
        made = cls.prepare(
            env, folder, number, database_id, version, iteration=iteration, alignment=alignment
        )
        made.publish()
        return made

    @classmethod
    def prepare(
        cls,
        env: Env,
        folder: str,
        number: int,
        database_id: bytes,
        version: Version,
        *,
        iteration: int = 1,
        alignment: int = ALIGNMENT_MIN,
    ) -> VersionSet:
        """Do all of `create` but its last step, the marker: the manifest is durable when it
        returns, and nothing names it until `publish`. Raises: OSError, DiskFullError.
        """
        require(len(database_id) == DATABASE_ID_BYTES, "a database id has 16 bytes")
        require(
            alignment == ALIGNMENT_MIN or is_alignment(alignment),
            "the alignment is a power of two from 8 to 4096",
        )
        made = cls(env, folder, database_id, iteration, version, alignment)
        made._write_manifest(number)
        return made

    def publish(self) -> None:
        """Make what `prepare` wrote the current manifest, durably; see `create`. Raises: OSError,
        with the file closed.
        """
        try:
            self._publish_marker()
        except BaseException:
            self._file.close()
            raise

    @staticmethod
    def recover(env: Env, folder: str) -> Recovered:
        """Read what the folder says; the highest marker decides, and what it names must be intact.

        Raises: CorruptionError when the manifest is damaged or missing, or database files stand
        without a marker; FormatError for a newer or foreign file; OSError, FileNotFoundError when
        there is no such folder.
        """
        names = env.list_dir(folder)
        numbered = {name: parsed for name in names if (parsed := parse_numbered(name)) is not None}
        markers = _markers(folder, names)
        unrelated = tuple(
            name for name in names if name not in numbered and not name.startswith(MARKER_PREFIX)
        )
        number_next = max((number for number, _ in numbered.values()), default=0) + 1
        if not markers:
            data_files = [name for name, (_, kind) in numbered.items() if kind != "manifest"]
            if data_files:
                raise CorruptionError(
                    f"{folder}/{data_files[0]}",
                    0,
                    "the folder has database files but no CURRENT marker",
                )
            return Recovered(
                is_new=True,
                version=Version(),
                database_id=b"",
                manifest_number=0,
                iteration=0,
                next_number=number_next,
                is_tail_cut=False,
                unrelated=unrelated,
            )
        return VersionSet.recover_named(env, folder, *markers[-1])

    @staticmethod
    def recover_named(
        env: Env, folder: str, iteration: int, number: int, *, has_foreign: bool = False
    ) -> Recovered:
        """Read what manifest `number` says, as if the current marker named it.

        With `has_foreign` files with numbers that no database gives are overlooked. Raises: as
        `recover`.
        """
        names = env.list_dir(folder)
        numbered = {name: parsed for name in names if (parsed := parse_numbered(name)) is not None}
        unrelated = tuple(
            name for name in names if name not in numbered and not name.startswith(MARKER_PREFIX)
        )
        path = f"{folder}/{manifest_name(number)}"
        manifest = decode_manifest(_read_whole(env, path), path)
        if manifest.header.number != number:
            raise CorruptionError(
                path, 0, f"the header says that this is manifest {manifest.header.number}"
            )
        version = manifest.version(path)
        limit = version.next_number + NUMBER_LEAP_MAX
        number_next = max((n for n, _ in numbered.values() if n <= limit), default=0) + 1
        for name, (found, _) in numbered.items():
            if found > limit and not has_foreign:
                reason = "no database gives this number; the file is not one of this database"
                raise CorruptionError(f"{folder}/{name}", 0, reason)
        return Recovered(
            is_new=False,
            version=version,
            database_id=manifest.header.database_id,
            manifest_number=number,
            iteration=iteration,
            next_number=max(number_next, number + 1, version.next_number),
            is_tail_cut=manifest.is_tail_cut,
            unrelated=unrelated,
        )

    @property
    def version(self) -> Version:
        """The newest durable version."""
        return self._version

    @property
    def durable_edit(self) -> int:
        """The highest edit known to be synced."""
        return self._version.edit_seq

    @property
    def database_id(self) -> bytes:
        """The random identity of the database. Constant after construction."""
        return self._database_id

    @property
    def number(self) -> int:
        """The number of the current manifest."""
        return self._header.number

    @property
    def iteration(self) -> int:
        """The iteration of the current marker."""
        return self._iteration

    @property
    def obsolete(self) -> tuple[str, ...]:
        """Names of manifests in the folder that the current one replaced. Unlinking them is the
        caller's.
        """
        return self._obsolete

    @property
    def is_poisoned(self) -> bool:
        """Whether a write or sync failed, so that nothing more can be logged."""
        return self._failure is not None

    @property
    def bytes_written(self) -> int:
        """The size of the current manifest."""
        return self._end

    @property
    def bytes_written_ever(self) -> int:
        """The sizes of all manifests that this set wrote, the current one among them."""
        return self._replaced_bytes + self._end

    @property
    def has_edits(self) -> bool:
        """Whether edits follow the snapshot of the current manifest."""
        return self._end > self._snapshot_bytes

    @property
    def was_refused(self) -> bool:
        """Whether the folder took no new file in the last rewrite, though the disk is well: it is
        gone, say, or must not be written to.
        """
        return self._was_refused

    @property
    def needs_rewrite(self) -> bool:
        """Whether the edits have outgrown the snapshot so far that the next open would read mostly
        history.
        """
        edits = self._end - self._snapshot_bytes
        return edits > max(REWRITE_BYTES, self._snapshot_bytes)

    @property
    def is_full(self) -> bool:
        """Whether a rewrite cannot be put off any longer."""
        return self.needs_rewrite and self._end > FULL_BYTES

    def log(self, edit: VersionEdit) -> Version:
        """Append `edit`, sync, then publish and return the version after it.

        Durability: when it returns, the edit survives power loss. Raises: ValueError when the edit
        breaks an invariant, with nothing written; DiskFullError when there is no room on the
        disk or in the manifest, with nothing changed; OSError when the write or sync fails
        otherwise, after which the set is poisoned; DatabasePoisonedError ever after.
        """
        self._check_usable()
        version = self._version.apply(edit)
        record, chain = encode_record(
            encode_edit(edit), version.edit_seq, self._chain, self._header.salt,
            offset=self._end, alignment=self._alignment,
        )  # fmt: skip
        # Nothing that needs memory may come behind the sync.
        end = self._end + len(record)
        _check_size(end)
        is_undone = False
        try:
            try:
                self._file.write_at(self._end, record, site="manifest.edit.write")
            except OSError as exc:
                if not is_disk_full(exc):
                    raise
                self._undo()
                raise DiskFullError(f"no room for the manifest: {exc}") from exc
            except MemoryError:
                # A sealed file needs some before it writes. Whether it came to that is not known.
                self._undo()
                is_undone = True
                raise
            self._file.sync(site="manifest.edit.sync")
        except DiskFullError:
            raise
        except BaseException as exc:
            if not is_undone:
                self._failure = exc
            raise
        self._chain = chain
        self._end = end
        self._version = version
        return version

    def _undo(self) -> None:
        """Take back a record that did not fit, durably: a crash must not bring back an edit that
        was refused.

        The file is cut where the record before ends, which shares no sector of at most the
        alignment with what goes.
        """
        mark("manifest.edit_undone")
        self._file.truncate(self._end, site="manifest.edit.undo")
        self._file.sync(site="manifest.edit.undo_sync")

    def rewrite(self, number: int, edit: VersionEdit | None = None) -> tuple[str, ...]:
        """Go over to a new manifest `number` that starts with the current version, or with what
        `edit` makes of it; return the names in `obsolete`.

        The rewrite is an edit of its own. Raises: ValueError when the edit breaks an invariant,
        with nothing written; OSError, and DiskFullError with nothing changed when the version does
        not fit any manifest. The set is poisoned when the new marker may or may not be there; a
        failure before that changes nothing.
        """
        self._check_usable()
        replaced_bytes = self._replaced_bytes + self._end
        version = self._version
        if edit is not None:
            version = replace(version.apply(edit), edit_seq=version.edit_seq)
        successor = VersionSet(
            self._env, self._folder, self._database_id, self._iteration + 1, version,
            self._alignment,
        )  # fmt: skip
        self._was_refused = False
        try:
            successor._write_manifest(number)
        except OSError as exc:
            self._was_refused = exc.errno in _REFUSALS and not successor._has_file
            raise
        try:
            successor._publish_marker()
        except BaseException as exc:
            if not successor._lacks_marker:
                self._failure = exc
            successor._file.close()
            raise
        self._file.close()
        self._replaced_bytes = replaced_bytes
        self._file, self._header = successor._file, successor._header
        self._chain, self._end, self._snapshot_bytes = (
            successor._chain,
            successor._end,
            successor._snapshot_bytes,
        )
        self._iteration, self._version, self._obsolete = (
            successor._iteration,
            successor._version,
            successor._obsolete,
        )
        return self._obsolete

    def close(self) -> None:
        """Close the manifest file; a second close does nothing. Writes nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._file.close()

    def _check_usable(self) -> None:
        if self._is_closed:
            raise DatabaseClosedError("the version set is closed")
        if self._failure is not None:
            raise DatabasePoisonedError(
                "a write to the manifest failed; reopen the database"
            ) from self._failure

    def _write_manifest(self, number: int) -> None:
        """Write a manifest with one snapshot edit and make it and its name durable."""
        version = replace(
            self._version,
            edit_seq=self._version.edit_seq + 1,
            next_number=max(self._version.next_number, number + 1),
        )
        (salt,) = struct.unpack("<Q", self._env.random_bytes(8))
        header = Header(number, self._database_id, salt, self._alignment)
        edit = version.snapshot_edit()
        self._version = Version(edit_seq=version.edit_seq - 1).apply(edit)
        record, chain = encode_record(
            encode_edit(edit), version.edit_seq, header.chain, salt,
            offset=HEADER_BYTES, alignment=self._alignment,
        )  # fmt: skip
        _check_size(HEADER_BYTES + len(record))
        file = self._env.create(
            f"{self._folder}/{manifest_name(number)}", site="manifest.create.write"
        )
        self._has_file = True
        try:
            file.write_at(0, header.encode() + record, site="manifest.create.write")
            file.sync(site="manifest.create.sync")
            self._env.sync_dir(self._folder, site="manifest.create.folder_sync")
        except BaseException:
            file.close()
            raise
        self._file, self._header, self._chain = file, header, chain
        self._end = self._snapshot_bytes = HEADER_BYTES + len(record)

    def _publish_marker(self) -> None:
        """Make the manifest the current one, and collect what it makes obsolete."""
        number = self._header.number
        marker = marker_name(self._iteration, number)
        try:
            self._env.create(f"{self._folder}/{marker}", site="manifest.marker.create").close()
        except OSError as exc:
            self._lacks_marker = is_shortage(exc)
            raise
        self._env.sync_dir(self._folder, site="manifest.marker.folder_sync")
        names = self._env.list_dir(self._folder)
        for name in names:
            if name != marker and parse_marker(name) is not None:
                # An older marker is harmless: the highest iteration wins. The next manifest tries
                # again.
                try:
                    self._env.unlink(f"{self._folder}/{name}", site="manifest.marker.unlink")
                except OSError:
                    mark("manifest.marker_left")
        self._obsolete = tuple(
            name
            for name in names
            if (parsed := parse_numbered(name)) is not None
            and parsed[1] == "manifest"
            and parsed[0] != number
        )


def _check_size(size: int) -> None:
    if size > FILE_BYTES_MAX:
        raise DiskFullError(f"no room in the manifest: it would have {size} bytes")


def _markers(folder: str, names: list[str]) -> list[tuple[int, int]]:
    """Return (iteration, number) of all markers, lowest iteration first."""
    markers = []
    for name in names:
        if name.startswith(MARKER_PREFIX):
            parsed = parse_marker(name)
            if parsed is None:
                raise CorruptionError(
                    f"{folder}/{name}", 0, "the name is not that of a CURRENT marker"
                )
            markers.append(parsed)
    markers.sort()
    if len(markers) > 1 and markers[-1][0] == markers[-2][0]:
        raise CorruptionError(
            f"{folder}/{marker_name(*markers[-1])}",
            0,
            "two CURRENT markers have the same iteration",
        )
    return markers


def _read_whole(env: Env, path: str) -> bytes:
    try:
        file = env.open(path)
    except FileNotFoundError:
        raise CorruptionError(
            path, 0, "the CURRENT marker names this manifest, but it does not exist"
        ) from None
    with contextlib.closing(file):
        size = file.size()
        if size > FILE_BYTES_MAX:
            raise CorruptionError(
                path, FILE_BYTES_MAX, f"a manifest of {size} bytes is longer than any can be"
            )
        return file.read_at(0, size)
