"""Floor 2: ordered cursors over internal entries, their merge, range tombstones, and what a user
sees of them.

Every source of the read path (memtable, table, merge) is a `Cursor`. A cursor and its sources are
used by one thread at a time. The semantics are in the plain twins: `_cursor_py`, `_gaps_py`,
`_pairs_py`, `_tombstones_py`, `_user_py`.
"""

from holdfast.cursor._column import ColumnBuilder
from holdfast.cursor._cursor import Cursor, ListCursor, MergeCursor
from holdfast.cursor._gaps import Gaps
from holdfast.cursor._pairs import PairCursor
from holdfast.cursor._tombstones import RangeTombstones
from holdfast.cursor._user import Overlay, Owner, ScanTally, UserCursor
from holdfast.cursor.entry import Columns, Entry, MergeSource

__all__ = [
    "ColumnBuilder",
    "Columns",
    "Cursor",
    "Entry",
    "Gaps",
    "ListCursor",
    "MergeCursor",
    "MergeSource",
    "Overlay",
    "Owner",
    "PairCursor",
    "RangeTombstones",
    "ScanTally",
    "UserCursor",
]
