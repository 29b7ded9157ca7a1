"""Floor 5: merging tables so that reads stay quick and space comes back.

`retain` says which versions may go; the kernel `_merge` moves entries from a cursor into a table by
that rule.
"""

from holdfast.compaction._merge import Retention, merge_into
from holdfast.compaction.retain import MergeStop, retained, retained_tombstones, stripe_of

__all__ = [
    "MergeStop",
    "Retention",
    "merge_into",
    "retained",
    "retained_tombstones",
    "stripe_of",
]
