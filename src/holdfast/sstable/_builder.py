"""Chooses between the twins of the builder kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.sstable._builder_py import SEAL_BATCH_BYTES, TableBuilder
else:
    from holdfast.sstable._builder_c import SEAL_BATCH_BYTES, TableBuilder

__all__ = ["SEAL_BATCH_BYTES", "TableBuilder"]
