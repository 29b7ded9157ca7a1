"""The lock on a database: one handle that writes, or any number that read.

A reader needs it because a writer removes files, and because what a reader replays is read once.
It neither makes nor changes the lock file where there is one, so a disk that cannot be written to
can be read. A folder without one, a backup say, gets it from its first reader, lest a writer comes
along. Where that cannot be, the reader goes on without a lock: should somebody come who may write
there, the reader may miss files that were removed, which looks like damage.

Thread safety: safe.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from holdfast.base import mark
from holdfast.env import Env, FileLock, is_disk_full

LOCK_NAME = "LOCK"

_ATTEMPTS = 16
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def lock_for_writing(env: Env, folder: str) -> FileLock:
    """Return the lock of a database, or of a folder that becomes one, which nobody else has.

    Raises: DatabaseLockedError; OSError.
    """
    return env.lock_file(_path(folder))


def lock_for_reading(env: Env, folder: str) -> FileLock | None:
    """Return the lock of a database of which nothing is written, beside others who read. None where
    there is no lock file and none can be made.

    Raises: DatabaseLockedError while somebody writes; OSError.
    """
    path = _path(folder)
    for _ in range(_ATTEMPTS):
        # A refused open, or a backup that ends, may take away what it, or this, has made.
        with suppress(FileNotFoundError):
            return env.lock_file(path, shared=True)
        try:
            with suppress(FileExistsError):
                env.create(path, site="database.lock.create").close()
        except OSError as error:
            if error.errno not in _NOT_WRITABLE and not is_disk_full(error):
                raise
            mark("recovery.read_without_lock")
            return None
    raise OSError(errno.EAGAIN, "the lock file keeps being removed", path)


def _path(folder: str) -> str:
    return f"{folder}/{LOCK_NAME}"
