"""Chooses the twin of the page directory kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.sstable._directory_py import find_entry, find_separator
else:
    from holdfast.sstable._directory_c import find_entry, find_separator

__all__ = ["find_entry", "find_separator"]
