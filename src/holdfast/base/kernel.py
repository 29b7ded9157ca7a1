"""Which twin of each kernel this process uses.

`HOLDFAST_PURE=1` in the environment, read once at import, selects the plain Python twins of all
kernels. Otherwise the compiled ones are used and a missing one is an ImportError: there is no
silent fallback.
"""

from __future__ import annotations

import os

PURE = os.environ.get("HOLDFAST_PURE", "") == "1"
"""Whether the plain Python twins are used. Constant after import."""

KERNELS = (
    "holdfast.codec._checksum",
    "holdfast.codec._lz4",
    "holdfast.codec._envelope",
    "holdfast.codec._varint",
    "holdfast.cursor._cursor",
    "holdfast.cursor._tombstones",
    "holdfast.cursor._user",
    "holdfast.bufferpool._pool",
    "holdfast.memtable._memtable",
    "holdfast.wal._buffer",
    "holdfast.wal._scan",
    "holdfast.sstable._page",
    "holdfast.sstable._filter",
    "holdfast.sstable._builder",
    "holdfast.sstable._reader",
    "holdfast.compaction._merge",
)
"""Every kernel triple, named by its chooser. A test compares this list with the files."""
