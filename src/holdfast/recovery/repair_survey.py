"""What a repair can rely on: the manifest, when it can be read and the log does not contradict it.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from holdfast.base import CorruptionError, FormatError
from holdfast.crypto import plain_env
from holdfast.env import Env, ReadAroundEnv
from holdfast.manifest import (
    MANIFEST_MAGIC,
    Recovered,
    VersionSet,
    manifest_name,
    parse_marker,
    parse_numbered,
)
from holdfast.recovery.needed import needed_log
from holdfast.wal import SalvagedLog, parse_segment_name, salvage_log

NUMBER_LEAP_MAX = 2**32
"""See `manifest.log`: a file whose number is so far above the others is none of this database."""
MARKER_PREFIX = "CURRENT."


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to begin with."""

    manifest: Recovered | None
    """None when there is none that can be relied on."""
    log: SalvagedLog | None
    """What is left of the log; None when it is whole, and recovery can read it."""
    is_marked: bool
    """Whether the manifest is the one that the current marker names."""


def survey(env: Env, folder: str, names: list[str]) -> Survey:
    """Look at manifest and log. Raises: FormatError when they are of a newer version; OSError."""
    found = _survey(env, folder, names)
    disk = plain_env(env)
    if isinstance(disk, ReadAroundEnv):
        # The log is read again, and what fails then was counted as there.
        disk.settle(f"{folder}/{name}" for name in names if parse_segment_name(name) is not None)
    return found


def _survey(env: Env, folder: str, names: list[str]) -> Survey:

    def salvaged(first: int = 0, database_id: bytes = b"") -> SalvagedLog:
        return salvage_log(
            env,
            folder,
            first,
            database_id=database_id,
            is_unreadable=lambda path: _is_unreadable(env, path),
        )

    manifest, is_marked = _find_manifest(env, folder, names)
    if manifest is None:
        return Survey(None, salvaged(), is_marked=False)
    version, known = manifest.version, manifest.database_id
    if not version.wal_first:
        # A creation that was cut off, or a manifest that lost its later edits.
        log = salvaged(database_id=known)
        has_data = bool(log.runs) or any(name.endswith(".table") for name in names)
        return Survey(None if has_data else manifest, log, is_marked)
    try:
        for _ in needed_log(env, folder, manifest):
            pass
        segments = [
            name
            for name in names
            if (number := parse_segment_name(name)) is not None and number >= version.wal_first
        ]
        if not any(_is_unreadable(env, f"{folder}/{name}") for name in segments):
            return Survey(manifest, None, is_marked)
    except CorruptionError:
        pass
    except FormatError as error:
        if "another database" not in str(error):
            raise
        return Survey(manifest, salvaged(version.wal_first, known), is_marked)
    log = salvaged(version.wal_first, known)
    is_behind = log.manifest_edit > version.edit_seq or (
        version.clean and log.lsn_last > version.durable_lsn
    )
    if is_behind:
        return Survey(None, salvaged(database_id=known), is_marked)
    return Survey(manifest, log, is_marked)


def _is_unreadable(env: Env, path: str) -> bool:
    """Return whether the disk does not give something of a file, as far as it was read. What looks
    like the torn end of a log or manifest is no such end then.
    """
    disk = plain_env(env)
    return isinstance(disk, ReadAroundEnv) and disk.is_unreadable(path)


def _find_manifest(env: Env, folder: str, names: list[str]) -> tuple[Recovered | None, bool]:
    """Return the manifest in force, and whether a marker names it."""
    markers = sorted(parsed for name in names if (parsed := parse_marker(name)) is not None)
    if markers:
        iteration, number = markers[-1]
        is_doubled = len(markers) > 1 and markers[-2][0] == iteration
        found = None if is_doubled else _read(env, folder, iteration, number)
        return found, found is not None
    # Without a marker the newest one that is whole is as good: a manifest is made durable with all
    # that it names before its marker is made.
    is_newest = True
    for number in sorted(manifest_numbers(names), reverse=True):
        found = _read(env, folder, 0, number)
        if found is None:
            is_newest = False
            continue
        is_sound = _names_are_there(found, names) and (is_newest or not _has_later(found, names))
        return (found if is_sound else None), False
    return None, False


def _read(env: Env, folder: str, iteration: int, number: int) -> Recovered | None:
    try:
        found = VersionSet.recover_named(env, folder, iteration, number, has_foreign=True)
        return None if _is_unreadable(env, f"{folder}/{manifest_name(number)}") else found
    except CorruptionError:
        return None
    except FormatError:
        if _is_newer(env, folder, number):
            raise
        return None


def _is_newer(env: Env, folder: str, number: int) -> bool:
    """Return whether a manifest that cannot be read is one of a newer version, and not damaged.

    Raises: OSError. What the disk does not give now is not damaged, and an older manifest must not
    be taken in its place.
    """
    with closing(plain_env(env).open(f"{folder}/{manifest_name(number)}")) as file:
        stored = file.read_at(0, len(MANIFEST_MAGIC))
        return stored == MANIFEST_MAGIC or plain_env(env) is not env


def _names_are_there(manifest: Recovered, names: list[str]) -> bool:
    present = set(names)
    version = manifest.version
    return bool(version.wal_first) and all(
        f"{number:08d}.table" in present for number in version.table_numbers()
    )


def _has_later(manifest: Recovered, names: list[str]) -> bool:
    """Return whether there is a table that was made after the last edit of a manifest. When a newer
    manifest is damaged, that one may have been in force, and name it. So may it a segment of the
    log, which nobody replays who has it that the database was closed.
    """
    known = manifest.version.next_number
    kinds = ("table", "wal") if manifest.version.clean else ("table",)
    parsed = (parse_numbered(name) for name in names)
    return any(
        each is not None and each[1] in kinds and known <= each[0] <= known + NUMBER_LEAP_MAX
        for each in parsed
    )


def manifest_numbers(names: list[str]) -> list[int]:
    """Return the numbers of the manifests among names."""
    parsed = (parse_numbered(name) for name in names)
    return [found[0] for found in parsed if found is not None and found[1] == "manifest"]


def own_numbers(names: list[str], known: int = 0) -> list[int]:
    """Return the numbers of files that this database gave, ascending: without those that lie far
    above all others.
    """
    parsed = (parse_numbered(name) for name in names)
    found = []
    for number in sorted({number for number, _ in (each for each in parsed if each is not None)}):
        if number > known + NUMBER_LEAP_MAX:
            break
        found.append(number)
        known = max(known, number)
    return found


def next_number(names: list[str], manifest: Recovered | None) -> int:
    """Return a number above all that this database gave."""
    known = 0 if manifest is None else manifest.version.next_number
    return max([*own_numbers(names, known), known]) + 1


def last_iteration(names: list[str]) -> int:
    """Return the highest iteration of a marker among names, 0 when there is none."""
    markers = (parse_marker(name) for name in names)
    return max((found[0] for found in markers if found is not None), default=0)
