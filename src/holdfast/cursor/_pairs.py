"""Chooses the twin of the kernel that reads pairs."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.cursor._pairs_py import PairCursor
else:
    from holdfast.cursor._pairs_c import PairCursor

__all__ = ["PairCursor"]
