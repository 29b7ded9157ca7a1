"""Chooses the twin of the page source kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.sstable._source_py import PageSource
else:
    from holdfast.sstable._source_c import PageSource

__all__ = ["PageSource"]
