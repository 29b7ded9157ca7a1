"""Which env a database is opened with: the machine as it is, or one that seals.

A database is encrypted whole or not at all, and what it is was decided when it was created: it has
a key file then, or none. A key for a plain database is refused as no key for an encrypted one is:
whoever gives a key relies on what is written being sealed, and whoever planted plain files instead
must not get it written in clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Final, cast

from holdfast.base import CorruptionError, FormatError, LimitError, WrongKeyError, mark
from holdfast.crypto import (
    PREAMBLE_BYTES,
    SEAL_MAGIC,
    FileKind,
    Key,
    KeyRing,
    KeySource,
    Preamble,
    SealedEnv,
    WholeFileSealing,
    key_files,
)
from holdfast.env import Env
from holdfast.manifest import (
    MANIFEST_MAGIC,
    ManifestSealing,
    manifest_name,
    parse_marker,
    parse_numbered,
)
from holdfast.recovery.restart import LIVE_NAME, UNFINISHED
from holdfast.sstable import TABLE_TAIL_BYTES as TAIL_BYTES
from holdfast.sstable import TableSealing
from holdfast.wal import LogSealing

_KINDS: Final = {"table": FileKind.TABLE, "wal": FileKind.LOG, "manifest": FileKind.MANIFEST}


def key_source(key: object) -> KeySource | None:
    """Return the caller's key in a form that shows itself to nobody.

    Raises: TypeError, ValueError for what is no key.
    """
    if key is None or isinstance(key, KeySource):
        return key
    try:
        # It refuses what is none.
        return KeySource(cast("Key", key))
    finally:
        # What a traceback shows of this frame must not be the key.
        del key


def sealed_env(env: Env, folder: str, ring: KeyRing) -> SealedEnv:
    """Return the env in which the files of a database are sealed with the keys of `ring`."""
    return SealedEnv(
        env,
        ring,
        {
            ".table": TableSealing(),
            ".wal": LogSealing(),
            ".manifest": ManifestSealing(),
            LIVE_NAME: WholeFileSealing(),
        },
    )


def unlock(
    env: Env,
    folder: str,
    source: KeySource | None,
    *,
    create: bool = False,
    for_writing: bool = False,
) -> Env:
    """Return the env through which the database in `folder` is read, or with `for_writing` written,
    too: `env` itself when it is not encrypted. With `create` a database that is not there yet gets
    a key file.

    Raises: WrongKeyError when the database is encrypted and `source` does not open it, or it is not
    and there is a `source`; CorruptionError when its key file is damaged or missing; FormatError;
    OSError; what a key callable raises.
    """
    names = env.list_dir(folder)
    has_files = any(parse_marker(name) or parse_numbered(name) for name in names)
    has_keys = bool(key_files(env, folder))
    if has_keys and not has_files and not create:
        # A creation was cut off: there is no database, whatever became of its key file.
        return env
    if has_keys and not has_files and source is not None:
        return sealed_env(env, folder, _of_new(env, folder, source))
    if has_keys:
        if source is None:
            raise WrongKeyError(f"{folder}: the database is encrypted; open it with its key")
        if not for_writing:
            return sealed_env(env, folder, KeyRing.load(env, folder, source))
        needed = partial(_readable_epochs, env, folder)
        return sealed_env(env, folder, KeyRing.load_for_writing(env, folder, source, needed))
    if has_files and _is_sealed(env, folder, names):
        raise CorruptionError(folder, 0, "the database is encrypted, and its key file is missing")
    if source is None:
        return env
    if has_files and _lacks_marker(names):
        # Of a backup that a crash cut off, for one: nobody can tell whether it was to be sealed.
        raise CorruptionError(folder, 0, "the folder has database files but no CURRENT marker")
    if has_files:
        raise WrongKeyError(f"{folder}: the database is not encrypted; open it without a key")
    if not create:
        return env
    return sealed_env(env, folder, KeyRing.create(env, folder, source))


def drop_old_keys(env: Env, folder: str) -> None:
    """Forget the data keys that no file of a database needs any more. Requires: the caller has it
    open for writing, and nothing is under way yet.

    What fails is left to the next open: a key too many is no harm to the data.
    """
    if not isinstance(env, SealedEnv):
        return
    ring = env.ring
    try:
        if len(ring.epochs) > 1:
            least = min(_epochs(env.plain, folder), default=ring.epoch)
            if least > ring.epochs[0]:
                ring.forget_below(least)
    except (CorruptionError, FormatError, LimitError, OSError):
        mark("keys.old_kept")
    finally:
        ring.release()


def _epochs(env: Env, folder: str) -> Iterator[int]:
    """Yield the epochs of the files in a folder. Raises: CorruptionError, FormatError; OSError."""
    for name in env.list_dir(folder):
        numbered = parse_numbered(name)
        if numbered is not None:
            yield _epoch(env, f"{folder}/{name}", _KINDS[numbered[1]])


def _readable_epochs(env: Env, folder: str) -> set[int]:
    """Return the epochs of the files in a folder, but for those that a crash tore."""
    found = set()
    for name in env.list_dir(folder):
        numbered = parse_numbered(name)
        if numbered is not None:
            with suppress(CorruptionError, FormatError):
                found.add(_epoch(env, f"{folder}/{name}", _KINDS[numbered[1]]))
    return found


def _epoch(env: Env, path: str, kind: FileKind) -> int:
    file = env.open(path)
    try:
        at = file.size() - TAIL_BYTES if kind is FileKind.TABLE else 0
        stored = file.read_at(max(at, 0), PREAMBLE_BYTES)
        return Preamble.decode(stored, kind, file.name, at).epoch
    finally:
        file.close()


def _of_new(env: Env, folder: str, source: KeySource) -> KeyRing:
    """Return the keys that a creation made which was cut off; new ones if they never were whole."""
    try:
        return KeyRing.load_for_writing(env, folder, source, tuple)
    except CorruptionError:
        return KeyRing.create(env, folder, source)


def _lacks_marker(names: list[str]) -> bool:
    """Return whether there is a log or a table, which a database has only behind a marker, or half
    of a copy.
    """
    if any(parse_marker(name) for name in names):
        return False
    return UNFINISHED in names or any(
        parsed[1] != "manifest" for name in names if (parsed := parse_numbered(name)) is not None
    )


def _is_sealed(env: Env, folder: str, names: list[str]) -> bool:
    """Return whether the current manifest is sealed; where it does not say so, whether any file
    is.
    """
    markers = sorted(parsed for name in names if (parsed := parse_marker(name)) is not None)
    if markers:
        # Damage is of a disk that is read around.
        with suppress(FileNotFoundError, CorruptionError):
            file = env.open(f"{folder}/{manifest_name(markers[-1][1])}")
            try:
                stored = file.read_at(0, PREAMBLE_BYTES)
                if stored.startswith((SEAL_MAGIC, MANIFEST_MAGIC)):
                    return stored.startswith(SEAL_MAGIC)
            finally:
                file.close()
    return bool(_readable_epochs(env, folder))
