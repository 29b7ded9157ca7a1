"""Which twin of each kernel this process uses.

`HOLDFAST_PURE=1` in the environment, read once at import, selects the plain Python twins of all
kernels. Otherwise the compiled ones are used and a missing one is an ImportError: there is no
silent fallback.
"""

from __future__ import annotations

import os
import sys

PURE = os.environ.get("HOLDFAST_PURE", "") == "1"
"""Whether the plain Python twins are used. Constant after import."""

KERNELS = (
    "holdfast.bufferpool._pool",
    "holdfast.codec._body",
    "holdfast.codec._checksum",
    "holdfast.codec._envelope",
    "holdfast.codec._lz4",
    "holdfast.codec._varint",
    "holdfast.compaction._merge",
    "holdfast.crypto._cipher",
    "holdfast.cursor._column",
    "holdfast.cursor._cursor",
    "holdfast.cursor._gaps",
    "holdfast.cursor._pairs",
    "holdfast.cursor._tombstones",
    "holdfast.cursor._user",
    "holdfast.engine._core",
    "holdfast.engine._host",
    "holdfast.engine._histogram",
    "holdfast.engine._tenure",
    "holdfast.env._file",
    "holdfast.env._gate",
    "holdfast.env._memory",
    "holdfast.env._mutex",
    "holdfast.lsm._view",
    "holdfast.memtable._memtable",
    "holdfast.recovery._apply",
    "holdfast.sstable._builder",
    "holdfast.sstable._directory",
    "holdfast.sstable._filter",
    "holdfast.sstable._page",
    "holdfast.sstable._reader",
    "holdfast.sstable._source",
    "holdfast.txn._callsite",
    "holdfast.txn._check",
    "holdfast.txn._transaction",
    "holdfast.txn._workspace",
    "holdfast.wal._buffer",
    "holdfast.wal._scan",
    "holdfast.wal._unseal",
)
"""Every kernel triple, named by its chooser. A test compares this list with the files."""


def check_interpreter() -> None:
    """Refuse an interpreter that runs without its global lock: what the engine does in one step is
    one step only under it (ADR 0014).

    A free-threaded build takes the lock again when a compiled kernel is loaded, unless it is told
    not to. Raises: RuntimeError.
    """
    is_locked = getattr(sys, "_is_gil_enabled", None)
    if is_locked is not None and not is_locked():
        raise RuntimeError(
            "Holdfast needs the interpreter's global lock, and this interpreter runs without it: "
            "start it with PYTHON_GIL=1, or take a build that is not free-threaded"
        )
