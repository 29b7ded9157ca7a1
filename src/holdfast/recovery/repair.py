"""Repair: out of a database that does not open, or not all of which can be read, one that does.

1. Everything is checked. Where nothing is damaged, nothing is changed.
2. What is damaged is read as far as it can be (`sstable/salvage`, `wal/salvage`,
   `manifest/salvage`); what is whole is used as it is.
3. Tables of what was salvaged are written beside everything else and read back, a new log and a
   new manifest are written, and all is made durable. Nothing names them yet.
4. In place, the originals of all that the repaired database does not use are copied to a folder
   `damaged-<n>`, durably. Into another folder, tables that are whole are copied there.
5. The marker makes the new manifest the current one. That is the moment of the repair.
6. In place, the originals are removed from where they were.

A crash before 5 leaves the database as it was, and files that the next repair or open removes;
after 5 it leaves the repaired one. A repair may be run again at any time.

Guarantees: nothing that is damaged is believed; nothing that is lost goes unsaid; no original is
destroyed. The newest version of a key that can be read wins, as before. What is not known is said:
see `LossKind`.

Ideas: LevelDB's RepairDB (tables out of the log, a manifest out of the tables), RocksDB's Repairer
(the table says whose it is), SQLite's `.recover` (into another file, the damaged one untouched).

Thread safety: one thread repairs; the folder is locked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress

from holdfast.base import CorruptionError, DiskFullError
from holdfast.crypto import Key, KeySource, plain_env
from holdfast.env import Env, PosixEnv, ReadAroundEnv, is_shortage
from holdfast.manifest import parse_numbered
from holdfast.merge import MergeFunction, Merges
from holdfast.recovery.check import Report, check_locked
from holdfast.recovery.locking import lock_for_reading, lock_for_writing
from holdfast.recovery.numbers import FileNumbers
from holdfast.recovery.repair_build import install, make_target, remove_attempt
from holdfast.recovery.repair_report import Outcome, RepairReport
from holdfast.recovery.repair_survey import Survey, next_number, survey
from holdfast.recovery.repair_tables import Workshop
from holdfast.recovery.repair_trusted import repair_trusted
from holdfast.recovery.repair_untrusted import repair_untrusted
from holdfast.recovery.restart import has_database_files
from holdfast.recovery.sealing import key_source, unlock
from holdfast.recovery.set_aside import PIECE_BYTES
from holdfast.recovery.unfinished import check_free, claimed_folder, mark_unfinished

Progress = Callable[[int, int], None]


def repair_database(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    key: Key | KeySource | None = None,
    keep_behind: bool = False,
    merges: Mapping[str, MergeFunction | Callable[..., bytes]] | None = None,
    progress: Progress | None = None,
    env: Env | None = None,
) -> RepairReport:
    """Repair the database in folder `path`, and say what was kept and lost. Nobody has it open, or
    with a `target` only readers have.

    Without `target` it is repaired in place, and the originals of what is damaged are kept in a
    folder `damaged-<n>` within it. With `target`, a new or an empty folder, the repaired database
    is written there, and `path` stays as it is. Where nothing is damaged nothing is changed, and
    nothing is written. Of files that a failing disk does not give in full the rest is read, and a
    `target` must be given: on such a disk nothing is written but a lock file, and nothing is
    removed.

    What was committed behind a damaged place of the log is left out, because it may rest on what is
    missing there; `keep_behind` keeps it. `key` and `merges` are as for `holdfast.open`.
    `progress` is called with the bytes of tables that were checked since its last call, and those
    of all of them.

    Durability: when it returns, the repaired database is durable; after a crash or an exception
    there is the old one or the repaired one. Thread safety: safe.

    Raises: FileNotFoundError when there is no database; DatabaseLockedError while somebody has it
    open; WrongKeyError; CorruptionError when nothing can be repaired, as where the key file of an
    encrypted database is damaged; FormatError when it is of a newer version; FileExistsError when
    `target` is not empty; ValueError when it lies within `path`; TypeError; DiskFullError; OSError.
    """
    try:
        source = key_source(key)
    finally:
        # What a traceback shows of this frame must not be the key.
        del key
    functions = Merges(merges)
    machine = ReadAroundEnv(PosixEnv() if env is None else env)
    folder = _folder(path)
    into = folder if target is None else _folder(target)
    _check_folders(machine, folder, None if target is None else into)
    lock = (lock_for_writing if target is None else lock_for_reading)(machine, folder)
    try:
        return _repair(
            unlock(machine, folder, source),
            machine,
            folder,
            into,
            keep_behind=keep_behind,
            merges=functions,
            progress=progress,
        )
    except OSError as error:
        if is_shortage(error):
            raise DiskFullError(f"{into}: no room for the repair: {error}") from error
        raise
    finally:
        if lock is not None:
            lock.release()


def _folder(path: str | os.PathLike[str]) -> str:
    folder = os.fspath(path)
    if not isinstance(folder, str):
        raise TypeError(f"a path is str, not {type(folder).__name__}")
    # The parent of "db/" is not "db".
    return folder.rstrip("/") or "/"


def _check_folders(env: Env, folder: str, target: str | None) -> None:
    """Check that there may be a database, and that there is room for another one."""
    try:
        names = env.list_dir(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"there is no database at {folder}") from None
    if not has_database_files(names):
        raise FileNotFoundError(f"there is no database at {folder}")
    if target is None:
        return
    outer, inner = os.path.realpath(folder), os.path.realpath(target)
    if os.path.commonpath((outer, inner)) == outer:
        raise ValueError(f"{target} lies in the folder of the database; give another one")
    check_free(env, target)


def _repair(
    env: Env,
    disk: ReadAroundEnv,
    folder: str,
    target: str,
    *,
    keep_behind: bool,
    merges: Merges,
    progress: Progress | None,
) -> RepairReport:
    checked = Report()
    manifest = check_locked(env, folder, checked, progress)
    if target == folder and manifest is None:
        # Nothing else was looked at, and nothing may be written if it cannot be read.
        _read_all(disk, folder)
    unreadable = list(disk.damage())
    checked.errors.extend(unreadable)
    if target == folder:
        if unreadable:
            raise _refusal(unreadable[0])
        # Nor may what fails from now on be read around: its original is removed.
        disk.settle_all()
    report = RepairReport(folder, target, damage=list(checked.errors))
    if checked.ok:
        return report
    names = env.list_dir(folder)
    found = survey(env, folder, names)
    first = next_number(names, found.manifest)
    workshop = Workshop(
        env=env,
        folder=folder,
        target=target,
        numbers=FileNumbers(env, first),
        merges=merges,
        report=report,
    )
    with ExitStack() as stack:
        if target != folder:
            make_target(env, target)
            stack.enter_context(claimed_folder(plain_env(env), target, site="repair.target"))
        _write(workshop, found, names, first, keep_behind=keep_behind)
    report.outcome = Outcome.REPAIRED_WITH_LOSS if report.losses else Outcome.REPAIRED
    return report


def _read_all(disk: ReadAroundEnv, folder: str) -> None:
    """Read all files of a database, for what its disk does not give of them."""
    for name in disk.list_dir(folder):
        if parse_numbered(name) is not None:
            with suppress(CorruptionError), closing(disk.open(f"{folder}/{name}")) as file:
                for at in range(0, file.size(), PIECE_BYTES):
                    file.read_at(at, PIECE_BYTES)


def _refusal(error: CorruptionError) -> OSError:
    """Return the error for a disk that should not be written to, and of which nothing should be
    removed: what it does not give now may be had from it yet.
    """
    return OSError(
        errno.EIO,
        f"{error}. The disk fails, so nothing is repaired in place: "
        "give another folder, on another disk, for the repaired database",
    )


def _write(
    workshop: Workshop, found: Survey, names: list[str], first: int, *, keep_behind: bool
) -> None:
    """Write the repaired database, or leave things as they were. `first` is the number from which
    on its files are numbered.
    """
    try:
        if workshop.target != workshop.folder:
            mark_unfinished(plain_env(workshop.env), workshop.target, site="repair.target")
        if found.manifest is not None:
            repaired = repair_trusted(
                workshop, found.manifest, found, names, keep_behind=keep_behind
            )
        else:
            repaired = repair_untrusted(workshop, found, names, keep_behind=keep_behind)
        workshop.report.set_aside = install(workshop, repaired, names)
    except BaseException:
        remove_attempt(workshop, first, names)
        raise
