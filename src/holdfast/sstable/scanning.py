"""When a scan counts as long: it reads ahead then, and its data pages do not enter the pool.

Until then it may be one of many short ones over the same keys, whose pages are worth keeping. A
long one would fill the pool with pages that it comes to once, each in memory that the kernel clears
first; reading ahead into the same few kilobytes again and again costs less than keeping them. The
idea of a small ring of buffers for large scans is PostgreSQL's (since 8.3).
"""

from __future__ import annotations

from typing import Final

LONG_SCAN_POOL_PARTS: Final = 64
"""A scan that has walked over this part of the pool's capacity in one direction, in stored bytes of
a level's tables since its last seek, is long;"""
LONG_SCAN_BYTES_MIN: Final = 256 * 1024
"""but not before it has walked over so many."""
LONG_SCAN_AHEAD_BYTES: Final = 32 * 1024
"""So many stored bytes are read ahead at once. Each source of a scan holds them, beside the pool's
budget."""


def long_scan_bytes(capacity_bytes: int) -> int:
    """Return how many bytes a scan may walk over before it is a long one, with such a pool."""
    return max(capacity_bytes // LONG_SCAN_POOL_PARTS, LONG_SCAN_BYTES_MIN)
