"""Chooses the twin of the entry page kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.sstable._page_py import PageCursor, decode_entries, stamp_entries
else:
    from holdfast.sstable._page_c import PageCursor, decode_entries, stamp_entries

__all__ = ["PageCursor", "decode_entries", "stamp_entries"]
