"""Chooses the twin of what each transaction does."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.txn._transaction_py import ISOLATIONS, READS_BYTES_MAX, TransactionCore
else:
    from holdfast.txn._transaction_c import ISOLATIONS, READS_BYTES_MAX, TransactionCore

__all__ = ["ISOLATIONS", "READS_BYTES_MAX", "TransactionCore"]
