"""Holdfast: an embedded, transactional storage engine for data that arrives in time order.

    import holdfast

    with holdfast.open("sensors.hf") as db:
        db[b"boot"] = b"2026-11-22"
        for key, value in db.items(prefix=b"b"):
            print(key, value)

Everything public is here; the rooms below are the implementation.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.base import (
        ChangesGoneError,
        ConflictError,
        CorruptionError,
        DatabaseClosedError,
        DatabaseLockedError,
        DatabasePoisonedError,
        DatabaseSettings,
        DeadlockError,
        DiskFullError,
        Error,
        FormatError,
        KeyspaceSettings,
        LimitError,
        MergeError,
        ReadOnlyError,
        TransactionTooOldError,
        WrongKeyError,
    )
    from holdfast.engine import (
        Change,
        Database,
        Keyspace,
        KeyspaceStats,
        LatencyStats,
        LevelStats,
        Operation,
        Rates,
        Report,
        SlowCause,
        SlowReport,
        Snapshot,
        Stats,
        Transaction,
        TransactionInfo,
        TransactionKeyspace,
        WaitStats,
    )
    from holdfast.engine import open_database as open  # noqa: A004  the contract's name
    from holdfast.merge import MergeFunction, pack_set, unpack_set
    from holdfast.recovery import Loss, LossKind, Outcome, RepairReport
    from holdfast.recovery import repair_database as repair

__version__ = "0.1.0"

_ENGINE = {
    "Change": "Change",
    "Database": "Database",
    "Keyspace": "Keyspace",
    "KeyspaceStats": "KeyspaceStats",
    "LatencyStats": "LatencyStats",
    "LevelStats": "LevelStats",
    "Operation": "Operation",
    "Rates": "Rates",
    "Report": "Report",
    "SlowCause": "SlowCause",
    "SlowReport": "SlowReport",
    "Snapshot": "Snapshot",
    "Stats": "Stats",
    "Transaction": "Transaction",
    "TransactionInfo": "TransactionInfo",
    "TransactionKeyspace": "TransactionKeyspace",
    "WaitStats": "WaitStats",
    "open": "open_database",
}
"""Public names that live in the engine, and what they are called there."""
_MERGE = ("MergeFunction", "pack_set", "unpack_set")
"""Public names that live in `merge`."""
_RECOVERY = {
    "Loss": "Loss",
    "LossKind": "LossKind",
    "Outcome": "Outcome",
    "RepairReport": "RepairReport",
    "repair": "repair_database",
}
"""Public names that live in `recovery`, and what they are called there. The rest are in `base`."""

__all__ = [
    "Change",
    "ChangesGoneError",
    "ConflictError",
    "CorruptionError",
    "Database",
    "DatabaseClosedError",
    "DatabaseLockedError",
    "DatabasePoisonedError",
    "DatabaseSettings",
    "DeadlockError",
    "DiskFullError",
    "Error",
    "FormatError",
    "Keyspace",
    "KeyspaceSettings",
    "KeyspaceStats",
    "LatencyStats",
    "LevelStats",
    "LimitError",
    "Loss",
    "LossKind",
    "MergeError",
    "MergeFunction",
    "Operation",
    "Outcome",
    "Rates",
    "ReadOnlyError",
    "RepairReport",
    "Report",
    "SlowCause",
    "SlowReport",
    "Snapshot",
    "Stats",
    "Transaction",
    "TransactionInfo",
    "TransactionKeyspace",
    "TransactionTooOldError",
    "WaitStats",
    "WrongKeyError",
    "open",
    "pack_set",
    "repair",
    "unpack_set",
]


def __getattr__(name: str) -> object:
    # A room imports its package first: loading the engine there would make every room import
    # all others.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _ENGINE:
        value = getattr(import_module("holdfast.engine"), _ENGINE[name])
    elif name in _MERGE:
        value = getattr(import_module("holdfast.merge"), name)
    elif name in _RECOVERY:
        value = getattr(import_module("holdfast.recovery"), _RECOVERY[name])
    else:
        value = getattr(import_module("holdfast.base"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
