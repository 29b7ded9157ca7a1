"""Holdfast: an embedded, transactional storage engine for data that arrives in time order.

    import holdfast

    with holdfast.open("sensors.hf") as db:
        db[b"boot"] = b"2026-11-22"
        for key, value in db.items(prefix=b"b"):
            print(key, value)

Everything public is here; the rooms below are the implementation.
"""

from holdfast.base import (
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
    ReadOnlyError,
    TransactionTooOldError,
    WrongKeyError,
)
from holdfast.engine import Database, Keyspace, KeyspaceStats, LevelStats, Report, Snapshot, Stats
from holdfast.engine import open_database as open

__version__ = "0.1.0"

__all__ = [
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
    "LevelStats",
    "LimitError",
    "ReadOnlyError",
    "Report",
    "Snapshot",
    "Stats",
    "TransactionTooOldError",
    "WrongKeyError",
    "open",
]
