"""Folders that a copy is written to: a mark says that it is not whole yet.

The file UNFINISHED comes before everything else and goes when all else is durable. A folder that a
crash left with it holds copies only, of files that are all still where they came from; so the next
copy to that folder may remove them and begin anew.

Whoever copies to a folder holds its lock, so that nobody takes what is under way for what was left.

A folder that has a CURRENT marker is a database, whatever else is in it, and is never cleared: its
owner may have opened it since. The mark is still there when a crash came right behind the marker;
the next open for writing removes it. Nor is one that has a name which no copy makes.

Thread safety: safe; the lock lets one copy at a time into a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holdfast.base import mark
from holdfast.crypto import parse_key_file_name
from holdfast.env import Env
from holdfast.manifest import parse_numbered
from holdfast.recovery.locking import LOCK_NAME, lock_for_writing
from holdfast.recovery.restart import UNFINISHED


@contextmanager
def claimed_folder(env: Env, folder: str, *, site: str) -> Iterator[None]:
    """Hold the lock of a folder that is copied to. It is empty within, or becomes so but for the
    mark: what a copy that was cut off left is removed, and `mark_unfinished` makes that durable.

    Raises: DatabaseLockedError while another copy to it is under way; FileExistsError when it is
    not empty; OSError.
    """
    check_free(env, folder)
    lock = lock_for_writing(env, folder)
    try:
        # Another copy may have come to its end since.
        check_free(env, folder)
        names = env.list_dir(folder)
        if UNFINISHED in names:
            mark("recovery.unfinished_cleared")
            clear_unfinished(env, folder, names, site=site)
        yield
    finally:
        # A forked child on its way out has no lock: its parent works on.
        if lock.is_held:
            with suppress(OSError):
                env.unlink(f"{folder}/{LOCK_NAME}", site=f"{site}.unlock")
        lock.release()


def check_free(env: Env, folder: str) -> None:
    """Check that a folder is empty, but for what a copy that was cut off left, or absent. Raises:
    FileExistsError; OSError.
    """
    try:
        names = env.list_dir(folder)
    except FileNotFoundError:
        return
    others = [name for name in names if name != LOCK_NAME]
    if others and not is_unfinished(names):
        raise FileExistsError(
            f"{folder} is not empty: it holds {others[0]!r}; give a new or an empty folder"
        )


def mark_unfinished(env: Env, folder: str, *, site: str) -> None:
    """Mark a folder as unfinished, durably, that is empty or was cleared. Raises: OSError."""
    with suppress(FileExistsError):
        env.create(f"{folder}/{UNFINISHED}", site=f"{site}.begin").close()
    # Also where it is there already: whoever made it may have been killed before this.
    env.sync_dir(folder, site=f"{site}.begin_sync")


def mark_finished(env: Env, folder: str, *, site: str) -> None:
    """Take the mark away, durably: were it back after a crash, the next copy could take what is
    there for copies of what is elsewhere. Requires: all else is durable. Raises: OSError.
    """
    env.unlink(f"{folder}/{UNFINISHED}", site=f"{site}.end")
    env.sync_dir(folder, site=f"{site}.end_sync")


def is_unfinished(names: list[str]) -> bool:
    """Return whether a folder with these names is one that a copy which was cut off left."""
    return UNFINISHED in names and all(_is_copied(name) for name in names)


def clear_unfinished(env: Env, folder: str, names: list[str], *, site: str) -> None:
    """Remove what a copy that was cut off left, but for the mark: as long as any of it may come
    back, it is known to be copies. Requires: the mark is there. Raises: OSError.
    """
    for name in names:
        if name not in (UNFINISHED, LOCK_NAME):
            env.unlink(f"{folder}/{name}", site=f"{site}.clear")


def _is_copied(name: str) -> bool:
    return (
        name in (UNFINISHED, LOCK_NAME)
        or parse_numbered(name) is not None
        or parse_key_file_name(name) is not None
    )
