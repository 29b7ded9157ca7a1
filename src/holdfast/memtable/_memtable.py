"""Chooses the twin of the memtable kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.memtable._memtable_py import Memtable, SpareChunks
else:
    from holdfast.memtable._memtable_c import Memtable, SpareChunks

__all__ = ["Memtable", "SpareChunks"]
