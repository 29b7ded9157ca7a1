"""The call that makes the data of a file durable, which differs between systems.

Thread safety: the call may block, and runs without the interpreter lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from functools import partial

FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: the only call there that empties the cache of the drive."""


def choose_data_sync() -> Callable[[int], object]:
    """Return the call that makes the data of a file durable on this system."""
    if FULL_SYNC is not None:
        return partial(_sync_fully, FULL_SYNC)
    # Not every system has fdatasync.
    return getattr(os, "fdatasync", os.fsync)


def _sync_fully(command: int, descriptor: int) -> None:
    fcntl.fcntl(descriptor, command)
