"""Chooses the twin of the buffer pool kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.bufferpool._pool_py import PAGE_OVERHEAD_BYTES, BufferPool, Page
else:
    from holdfast.bufferpool._pool_c import PAGE_OVERHEAD_BYTES, BufferPool, Page

__all__ = ["PAGE_OVERHEAD_BYTES", "BufferPool", "Page"]
