"""Folders that a copy is written to: a mark says that it is not whole yet.

The file UNFINISHED comes before everything else and goes when all else is durable. A folder that a
crash left with it holds copies only, of files that are all still where they came from; so the next
copy to that folder may remove them and begin anew.

A folder that has a CURRENT marker is a database, whatever else is in it, and is never cleared: its
owner may have opened it since. Nor is one that has a name which no copy makes.

Thread safety: none; one thread copies to a folder.
"""

from __future__ import annotations

from typing import Final

from holdfast.crypto import parse_key_file_name
from holdfast.env import Env
from holdfast.manifest import parse_numbered

UNFINISHED: Final = "UNFINISHED"
"""Part of the file format."""


def mark_unfinished(env: Env, folder: str, *, site: str) -> None:
    """Mark an empty folder as unfinished, durably. Raises: OSError."""
    env.create(f"{folder}/{UNFINISHED}", site=f"{site}.begin").close()
    env.sync_dir(folder, site=f"{site}.folder_sync")


def mark_finished(env: Env, folder: str, *, site: str) -> None:
    """Take the mark away, durably. Requires: all else is durable. Raises: OSError."""
    env.unlink(f"{folder}/{UNFINISHED}", site=f"{site}.end")
    env.sync_dir(folder, site=f"{site}.folder_sync")


def is_unfinished(names: list[str]) -> bool:
    """Return whether a folder with these names is one that a copy which was cut off left."""
    return UNFINISHED in names and all(_is_copied(name) for name in names)


def clear_unfinished(env: Env, folder: str, names: list[str], *, site: str) -> None:
    """Remove what a copy that was cut off left. Requires: `is_unfinished`. Raises: OSError."""
    for name in names:
        if name != UNFINISHED:
            env.unlink(f"{folder}/{name}", site=f"{site}.clear")
    # Last: until then, what is there is known to be copies.
    env.sync_dir(folder, site=f"{site}.folder_sync")
    mark_finished(env, folder, site=site)


def _is_copied(name: str) -> bool:
    return (
        name == UNFINISHED
        or parse_numbered(name) is not None
        or parse_key_file_name(name) is not None
    )
