"""The originals of a repair in place: copied away, durably, before anything takes their place.

They are copied and not renamed. A database that a crash left half moved would be neither the old
one nor the repaired one; and between the moment when the repaired one is in force and the last
rename, a plain open would remove what is left as orphans.

Guarantees: when `copy_aside` returns, every file is in the new folder, byte for byte, and durable.
Of a folder that a crash left unfinished the next repair removes the copies; see `unfinished`.

Thread safety: none; one thread repairs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from holdfast.env import Env, File
from holdfast.recovery.restart import UNFINISHED
from holdfast.recovery.unfinished import clear_unfinished, mark_finished, mark_unfinished

PREFIX: Final = "damaged-"
PIECE_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"damaged-([1-9][0-9]{0,8})", re.ASCII)


def copy_aside(env: Env, folder: str, names: Sequence[str]) -> str:
    """Copy files of a folder to a new folder within it; return its path. `env` shows files as they
    lie on the disk.

    Raises: OSError, with the originals untouched.
    """
    into = _empty_folder(env, folder)
    mark_unfinished(env, into, site="repair.aside")
    for name in names:
        copy_file(env, f"{folder}/{name}", f"{into}/{name}")
    # A folder without the mark has all of them, and none that is there has to be doubted.
    env.sync_dir(into, site="repair.aside.folder_sync")
    mark_finished(env, into, site="repair.aside")
    return into


def copy_file(env: Env, source: str, target: str) -> None:
    """Copy a file, durably but for its name. Raises: OSError."""
    origin = env.open(source)
    try:
        copy = env.create(target, site="repair.copy.create")
        try:
            _copy(origin, copy)
            copy.sync(site="repair.copy.sync")
        finally:
            copy.close()
    finally:
        origin.close()


def _copy(origin: File, copy: File) -> None:
    size, done = origin.size(), 0
    if size:
        # What is zero, as most of a log segment is, takes no room.
        copy.truncate(size, site="repair.copy.resize")
    while done < size:
        piece = origin.read_at(done, min(PIECE_BYTES, size - done))
        if not piece:
            raise OSError(f"{origin.name} ends at byte {done}, before its end")
        if piece.count(0) != len(piece):
            copy.write_at(done, piece, site="repair.copy.write")
        done += len(piece)


def _empty_folder(env: Env, folder: str) -> str:
    """Return the path of a folder for originals, which has a durable name and nothing in it but
    perhaps the mark: a new one, or one that a repair began.
    """
    into = _begun_folder(env, folder)
    # Also of one that was there: whoever made it may have been killed before this. Without its name
    # a marker that a crash keeps would let the next open remove the only originals.
    env.sync_dir(folder, site="repair.aside.parent.folder_sync")
    return into


def _begun_folder(env: Env, folder: str) -> str:
    taken = [int(match[1]) for name in env.list_dir(folder) if (match := _NAME.fullmatch(name))]
    for number in sorted(taken):
        into = f"{folder}/{PREFIX}{number}"
        names = env.list_dir(into)
        if not names:
            return into
        if UNFINISHED in names:
            # Whatever their names are: copies of files that are still there.
            clear_unfinished(env, into, names, site="repair.aside")
            return into
    into = f"{folder}/{PREFIX}{max(taken, default=0) + 1}"
    env.make_dir(into, site="repair.aside.folder")
    return into
