"""Every error that Holdfast raises on purpose.

    Error
    |-- CorruptionError          bytes on disk are damaged: file, offset, reason
    |-- FormatError              the file is not ours, or from a newer version
    |-- WrongKeyError            the key does not open this database
    |-- LimitError               a key, value, batch or setting is out of range
    |-- ReadOnlyError            a write through a handle that only reads
    |-- DiskFullError            no room; what was acknowledged stays, retry when there is room
    |-- DatabaseLockedError      another handle has the database open; only readers go together
    |-- DatabaseClosedError      the handle was closed, or belongs to the parent of this process
    |-- DatabasePoisonedError    a sync failed; reopen the database
    |-- ConflictError            a concurrent transaction won; run it again
    |   `-- DeadlockError        a cycle of lock waits; run it again
    |-- MergeError               a merge function is not registered, or failed; the operands stay
    |-- TransactionTooOldError   a snapshot or transaction outlived its limit
    `-- ChangesGoneError         the log no longer holds the changes that were asked for

Classes are few and say what the caller should do. Wrong types are `TypeError` and missing keys
`KeyError`, as everywhere in Python. A test compares this drawing with the classes.
"""

from __future__ import annotations


class Error(Exception):
    """The base of all errors that Holdfast raises on purpose."""


class CorruptionError(Error):
    """Bytes on disk are damaged.

    The operation gave no result; nothing was changed. `file` is the path as the database knows it,
    `offset` the byte where the damaged structure starts, `reason` one sentence.
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(file, offset, reason)
        self.file = file
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: damaged at byte {self.offset}: {self.reason}"


class FormatError(Error):
    """The file is not a Holdfast file, or was written by a newer version of Holdfast."""


class WrongKeyError(Error):
    """The key given does not open this database: it is another one, or the database is encrypted
    and there is no key, or it is not and there is one. Nothing is damaged and nothing was changed.
    """


class LimitError(Error, ValueError):
    """A key, value, batch or setting is out of range; nothing was written."""


class ReadOnlyError(Error):
    """A write was asked of a handle that only reads."""


class DiskFullError(Error):
    """There is no room on the disk, or no file descriptor left; the message says which.

    Nothing of the failed operation took effect and what was acknowledged stays.
    The same call may succeed once there is room again.
    """


class DatabaseLockedError(Error):
    """Another handle has this database open, and not both only read; the message names its process.

    One handle may have a database open for writing, or any number for reading.
    """


class DatabaseClosedError(Error):
    """The handle was closed, or was opened by the parent of a forked process."""


class DatabasePoisonedError(Error):
    """A sync failed, so nothing later can be acknowledged.

    Committed data can still be read. Close and reopen the database: recovery keeps every
    acknowledged commit and decides about the one whose sync failed.
    """


class ConflictError(Error):
    """A concurrent transaction changed what this one read or wrote; run it again.

    Nothing was written. `keyspace` names the keyspace, `key` the key that was changed, or the start
    of the range [`key`, `stop`) in which something was; None is unbounded. `seq` is the sequence
    number of the change, which the other transaction committed. Each is None where it is unknown.
    """

    def __init__(
        self,
        *args: object,
        keyspace: str | None = None,
        key: bytes | None = None,
        stop: bytes | None = None,
        seq: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.keyspace = keyspace
        self.key = key
        self.stop = stop
        self.seq = seq


class DeadlockError(ConflictError):
    """The transaction was chosen to break a cycle of lock waits; run it again."""


class MergeError(Error):
    """A merge function is not registered, or failed on a key; the message says which and why.

    The operands of the key stay as they are. Open the database with the function, or write another
    value over the key. `unregistered` is the name of a function that is not registered, else None.
    """

    def __init__(self, *args: object, unregistered: str | None = None) -> None:
        super().__init__(*args)
        self.unregistered = unregistered


class TransactionTooOldError(Error):
    """A snapshot or transaction outlived its limit and no longer holds its data."""


class ChangesGoneError(Error):
    """The log no longer holds the changes that were asked for; start again from a snapshot."""
