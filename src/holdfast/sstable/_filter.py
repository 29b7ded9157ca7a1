"""Chooses between the twins of the filter kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.sstable._filter_py import FilterBuilder, filter_check, filter_may_contain
else:
    from holdfast.sstable._filter_c import FilterBuilder, filter_check, filter_may_contain

__all__ = ["FilterBuilder", "filter_check", "filter_may_contain"]
