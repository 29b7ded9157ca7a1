"""Floor 6: transactions: what they read and wrote, whether they may commit, savepoints and retries.

A `Transaction` reads at a snapshot and collects its writes in a batch. When it commits, its `Check`
says whether what it read (or, at the level "snapshot", wrote) is still as it was; the engine asks
right before the batch is logged, and then writes it like any other. The room knows no trees and no
log: a `Host` gives snapshots and keyspaces and takes the batch.
"""

from holdfast.txn._callsite import CallSite
from holdfast.txn._check import Check, GroupWrites
from holdfast.txn._transaction import ISOLATIONS
from holdfast.txn.conflict import Changes
from holdfast.txn.keyspace import Source, TransactionKeyspace
from holdfast.txn.leak import warn_of_leak
from holdfast.txn.locks import LOOK_SECONDS, LockTable, Owner, Span, deadline
from holdfast.txn.retry import Retry, run
from holdfast.txn.transaction import Host, Prepared, Savepoint, Transaction

__all__ = [
    "ISOLATIONS",
    "LOOK_SECONDS",
    "CallSite",
    "Changes",
    "Check",
    "GroupWrites",
    "Host",
    "LockTable",
    "Owner",
    "Prepared",
    "Retry",
    "Savepoint",
    "Source",
    "Span",
    "Transaction",
    "TransactionKeyspace",
    "deadline",
    "run",
    "warn_of_leak",
]
