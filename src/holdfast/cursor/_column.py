"""Chooses the twin of the kernel of columns."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.cursor._column_py import ColumnBuilder
else:
    from holdfast.cursor._column_c import ColumnBuilder

__all__ = ["ColumnBuilder"]
