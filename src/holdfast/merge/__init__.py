"""Floor 2: merge functions: what an operand of a key is, and how operands become a value.

`Merges` knows the built-in functions and those that a database was opened with, by name. It turns
what a user gives into the value of a MERGE entry, folds the entries of a key into a value, and
combines neighbours of them into fewer. It knows no files and no trees; docs/format/merge.md has the
bytes.
"""

from holdfast.merge.function import MergeFunction
from holdfast.merge.members import pack_set, unpack_set
from holdfast.merge.registry import ADD_HEAD, Merges, split

__all__ = ["ADD_HEAD", "MergeFunction", "Merges", "pack_set", "split", "unpack_set"]
