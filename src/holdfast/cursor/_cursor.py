"""Chooses the twin of the cursor kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.cursor._cursor_py import Cursor, ListCursor, MergeCursor
else:
    from holdfast.cursor._cursor_c import Cursor, ListCursor, MergeCursor

__all__ = ["Cursor", "ListCursor", "MergeCursor"]
