"""Chooses the twin of the table reader kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.sstable._reader_py import TableReader
else:
    from holdfast.sstable._reader_c import TableReader

__all__ = ["TableReader"]
