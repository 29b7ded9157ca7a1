"""Chooses the twin of the range tombstone kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.cursor._tombstones_py import RangeTombstones
else:
    from holdfast.cursor._tombstones_c import RangeTombstones

__all__ = ["RangeTombstones"]
