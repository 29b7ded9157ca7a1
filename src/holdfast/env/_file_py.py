"""Steps of several calls of the system: the plain twin, which is the specification.

The compiled twin gives the interpreter lock away once for all calls of a step. A thread that
computes meanwhile would otherwise take the lock between them, and whoever waits for the step, a
record that was written and is to be synced, say, would wait for that thread too.

Thread safety: safe, as the calls of the system are.
"""

from __future__ import annotations

import errno
import os

from holdfast.env.data_sync import choose_data_sync
from holdfast.env.protocol import Buffer, sync_error

_sync_data = choose_data_sync()
_ZEROS = bytes(1 << 16)


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


def write_zeros(descriptor: int, name: str, start: int, end: int) -> None:
    """Write zeros from `start` to `end`, in pieces that end at multiples of 64 KiB.

    The page cache keeps what one call wrote as one piece if it can, and a sync looks at all of each
    piece that has a change. So the pieces are small (docs/adr/0042).

    `name` is the file's, for messages. Raises: OSError when a write failed, and what a signal
    handler raises; then a part may have been written.
    """
    while start < end:
        count = min(len(_ZEROS) - start % len(_ZEROS), end - start)
        with memoryview(_ZEROS)[:count] as zeros:
            _write_all(descriptor, name, start, zeros)
        start += count


def _write_all(descriptor: int, name: str, offset: int, data: memoryview) -> None:
    with data.cast("B") as view:
        done = 0
        while done < len(view):
            with view[done:] as rest:
                written = os.pwrite(descriptor, rest, offset + done)
            if written == 0:
                raise OSError(errno.EIO, "a write made no progress", name)
            done += written
