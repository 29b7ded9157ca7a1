"""Tables: immutable sorted files of versioned entries (docs/format/table.md).

`format` holds the fixed parts, `TableBuilder` and `TableWriter` write, `TableReader` reads. A table
never changes once its footer is written; whatever is damaged in it is a CorruptionError, never a
wrong answer.
"""

from holdfast.sstable._builder import TableBuilder
from holdfast.sstable._filter import FilterBuilder, filter_check, filter_may_contain
from holdfast.sstable._page import PageCursor, decode_entries, stamp_entries
from holdfast.sstable._reader import TableReader
from holdfast.sstable.format import (
    FOOTER_BYTES,
    FORMAT_VERSION,
    Footer,
    Handle,
    PageType,
    TableInfo,
    decode_index_value,
    decode_root_value,
    table_name,
)
from holdfast.sstable.format import MAGIC as TABLE_MAGIC
from holdfast.sstable.origin import TableOrigin
from holdfast.sstable.salvage import Gap, TableSalvage
from holdfast.sstable.sealed import TAIL_BYTES as TABLE_TAIL_BYTES
from holdfast.sstable.sealed import SealedTable, TableSealing, opened_for_salvage, page_cipher
from holdfast.sstable.writer import TableWriter

__all__ = [
    "FOOTER_BYTES",
    "FORMAT_VERSION",
    "TABLE_MAGIC",
    "TABLE_TAIL_BYTES",
    "FilterBuilder",
    "Footer",
    "Gap",
    "Handle",
    "PageCursor",
    "PageType",
    "SealedTable",
    "TableBuilder",
    "TableInfo",
    "TableOrigin",
    "TableReader",
    "TableSalvage",
    "TableSealing",
    "TableWriter",
    "decode_entries",
    "decode_index_value",
    "decode_root_value",
    "filter_check",
    "filter_may_contain",
    "opened_for_salvage",
    "page_cipher",
    "stamp_entries",
    "table_name",
]
