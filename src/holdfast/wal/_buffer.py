"""Encoding of batches and records: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.wal._buffer_py import RecordBuffer, WriteBatch
else:
    from holdfast.wal._buffer_c import RecordBuffer, WriteBatch

__all__ = ["RecordBuffer", "WriteBatch"]
