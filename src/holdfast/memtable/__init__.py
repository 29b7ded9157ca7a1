"""Floor 3: the ordered table in memory that takes the writes until a flush turns it into a table
file.
"""

from holdfast.memtable._memtable import Memtable, SpareChunks

__all__ = ["Memtable", "SpareChunks"]
