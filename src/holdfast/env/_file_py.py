"""A write and the sync of it as one step: the plain twin, which is the specification.

The compiled twin gives the interpreter lock away once for both. A thread that computes meanwhile
would otherwise take the lock between them, and the record that was written would wait for it.

Thread safety: safe, as the calls of the system are.
"""

from __future__ import annotations

import errno
import os

from holdfast.env.data_sync import choose_data_sync
from holdfast.env.protocol import Buffer, sync_error

_sync_data = choose_data_sync()


def write_and_sync(descriptor: int, name: str, offset: int, data: Buffer) -> None:
    """Write all of `data` at `offset`, then make the data of the file durable.

    `name` is the file's, for messages. Raises: SyncError when all was written and the sync failed;
    another OSError when the write failed, and then nothing was synced; what a signal handler
    raises, and then neither is known.
    """
    with memoryview(data) as given:
        if not given.c_contiguous:
            raise BufferError("memoryview: underlying buffer is not C-contiguous")
        _write_all(descriptor, name, offset, given)
    try:
        _sync_data(descriptor)
    except OSError as exc:
        raise sync_error(exc) from exc


def _write_all(descriptor: int, name: str, offset: int, data: memoryview) -> None:
    with data.cast("B") as view:
        done = 0
        while done < len(view):
            with view[done:] as rest:
                written = os.pwrite(descriptor, rest, offset + done)
            if written == 0:
                raise OSError(errno.EIO, "a write made no progress", name)
            done += written
