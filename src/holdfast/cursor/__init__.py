"""Floor 2: ordered cursors over internal entries, their merge, and range tombstones.

Every source of the read path (memtable, table, merge) is a `Cursor`. Sources are moved and read by one thread at a
time. The semantics are in the plain twins: `_cursor_py`, `_tombstones_py`, `_user_py`.
"""

from holdfast.cursor._cursor import Cursor, Entry, ListCursor, MergeCursor
from holdfast.cursor._tombstones import RangeTombstones

__all__ = ["Cursor", "Entry", "ListCursor", "MergeCursor", "RangeTombstones"]
