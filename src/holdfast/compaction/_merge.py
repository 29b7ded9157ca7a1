"""Chooses between the twins of the merge kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.compaction._merge_py import Retention, merge_into
else:
    from holdfast.compaction._merge_c import Retention, merge_into

__all__ = ["Retention", "merge_into"]
