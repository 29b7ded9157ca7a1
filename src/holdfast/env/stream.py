"""Files that a user names, and no database keeps: read from front to end, whatever kind they are.

A database is of regular files, and an `Env` opens no other. A key, a value or rows may as well come
from a pipe, a terminal or a device.

Thread safety: a stream belongs to one thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

_BUFFER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20


def open_stream(path: str) -> BinaryIO:
    """Open a file of any kind for reading; symbolic links are followed. Waits for the writer of a
    pipe. Raises: OSError, IsADirectoryError too.
    """
    return open(path, "rb", buffering=_BUFFER_BYTES)


def read_stream(stream: BinaryIO, limit: int) -> bytes:
    """Return what is left in a stream, at most `limit` bytes of it; it takes no memory for more
    than there is. Raises: OSError.
    """
    return b"".join(_pieces(stream, limit))


def _pieces(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    while limit and (piece := stream.read(min(limit, _PIECE_BYTES))):
        limit -= len(piece)
        yield piece


def stream_size(stream: BinaryIO) -> int | None:
    """Return the bytes of a regular file, None of what has no size. Raises: OSError."""
    found = os.fstat(stream.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None
