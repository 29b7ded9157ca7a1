"""Memory for the bodies of decoded pages: the plain twin, whose bodies are objects.

Pages that leave the buffer pool lie among those that stay. A general allocator keeps the holes for
later, and when the pool shrinks because memtables grow they are resident beside both: 40 MiB of
them beside a budget of 256 (docs/adr/0054-bodies-of-pages-lie-in-slots.md). The compiled twin has
memory of its own for bodies, of whole pages of the system, and gives back any that is not used.

Thread safety: safe.
"""

from __future__ import annotations

from typing import Final

_UNIT_BYTES: Final = 4096
_SLOT_MIN: Final = 8192
_SLOT_MAX: Final = 32 * _UNIT_BYTES
_WASTE_PARTS: Final = 8


def body_room(size: int) -> int:
    """Return how many bytes a body of `size` bytes takes: a whole slot, if it has one."""
    slot = -(-size // _UNIT_BYTES) * _UNIT_BYTES
    fits = _SLOT_MIN <= size <= _SLOT_MAX and slot - size <= slot // _WASTE_PARTS
    return slot if fits else size


def release_bodies() -> int:
    """Give the memory of bodies that were freed back to the system; return how many bytes.

    Little is kept at any time: 512 KiB of each size. The interpreter lock is given away meanwhile.
    """
    return 0
