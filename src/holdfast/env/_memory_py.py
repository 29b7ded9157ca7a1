"""Memory that was freed, given back to the system: the plain twin, which is the specification.

An allocator keeps what is freed for the next allocation. After a compaction, whose buffers and
pages lay between those of others, that can be more than the whole budget of a database.

Thread safety: safe.
"""

from __future__ import annotations


def release_memory() -> bool:
    """Give freed memory back to the system, where the allocator can be asked to.

    Returns whether it was asked. Takes milliseconds; the compiled twin gives the interpreter lock
    away meanwhile.
    """
    return False
