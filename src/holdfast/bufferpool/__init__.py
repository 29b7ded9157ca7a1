"""The buffer pool: decoded pages of table files, within one budget that memtables share.

Invariants:

1. A page is immutable and lives as long as anybody holds it, in the pool or not.
2. Frames, held pages and reserved bytes stay within the capacity; only pinned and held pages and
   reservations exceed it.
3. A (file number, offset) names one page for ever: file numbers are never reused.
"""

from holdfast.bufferpool._pool import PAGE_OVERHEAD_BYTES, BufferPool, Page

__all__ = ["PAGE_OVERHEAD_BYTES", "BufferPool", "Page"]
