"""Tables: immutable sorted files of versioned entries (docs/format/table.md).

`format` holds the fixed parts, `TableBuilder` and `TableWriter` write, `TableReader` reads. A table
never changes once its footer is written; whatever is damaged in it is a CorruptionError, never a
wrong answer.
"""

from holdfast.sstable._builder import TableBuilder
from holdfast.sstable._filter import FilterBuilder, filter_check, filter_may_contain
from holdfast.sstable.format import (
    FOOTER_BYTES,
    FORMAT_VERSION,
    Footer,
    Handle,
    PageType,
    TableInfo,
)

__all__ = [
    "FOOTER_BYTES",
    "FORMAT_VERSION",
    "FilterBuilder",
    "Footer",
    "Handle",
    "PageType",
    "TableBuilder",
    "TableInfo",
    "filter_check",
    "filter_may_contain",
]
