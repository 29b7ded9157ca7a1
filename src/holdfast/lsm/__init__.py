"""Floor 6: one keyspace's tree, its read path and the lives of its table files.

`ReadView` is one immutable picture of a tree; `Tree` replaces it when a memtable is frozen or
flushed and when compaction installs tables; `TableStore` keeps tables open while a view holds them
and removes their files after. Trees know no log and no manifest writer.
"""

from holdfast.lsm._view import LevelCursor, ReadView
from holdfast.lsm.tables import Pages, Place, TableStore
from holdfast.lsm.tree import Tree

__all__ = ["LevelCursor", "Pages", "Place", "ReadView", "TableStore", "Tree"]
