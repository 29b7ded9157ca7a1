"""Chooses the twin of the read view."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.lsm._view_py import LevelCursor, ReadView
else:
    from holdfast.lsm._view_c import LevelCursor, ReadView

__all__ = ["LevelCursor", "ReadView"]
