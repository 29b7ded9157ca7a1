"""Floor 0: errors, limits, settings, keys and sequence numbers, invariants and events.

Nothing here touches the machine and nothing here imports another room.
"""

from holdfast.base.errors import (
    ChangesGoneError,
    ConflictError,
    CorruptionError,
    DatabaseClosedError,
    DatabaseLockedError,
    DatabasePoisonedError,
    DeadlockError,
    DiskFullError,
    Error,
    FormatError,
    LimitError,
    MergeError,
    ReadOnlyError,
    TransactionTooOldError,
    WrongKeyError,
)
from holdfast.base.events import mark, marks_seen
from holdfast.base.invariants import check, require
from holdfast.base.kernel import KERNELS, PURE, check_interpreter
from holdfast.base.keys import (
    DELETE,
    MERGE,
    PUT,
    RANGE_DELETE,
    SEQ_MAX,
    check_key,
    check_value,
    pack_trailer,
    pairs_of,
    prefix_upper,
    successor,
    unpack_trailer,
)
from holdfast.base.limits import (
    BATCH_BYTES_MAX,
    KEY_BYTES_MAX,
    PAGE_BYTES_MAX,
    VALUE_BYTES_MAX,
)
from holdfast.base.settings import DatabaseSettings, KeyspaceSettings

__all__ = [
    "BATCH_BYTES_MAX",
    "DELETE",
    "KERNELS",
    "KEY_BYTES_MAX",
    "MERGE",
    "PAGE_BYTES_MAX",
    "PURE",
    "PUT",
    "RANGE_DELETE",
    "SEQ_MAX",
    "VALUE_BYTES_MAX",
    "ChangesGoneError",
    "ConflictError",
    "CorruptionError",
    "DatabaseClosedError",
    "DatabaseLockedError",
    "DatabasePoisonedError",
    "DatabaseSettings",
    "DeadlockError",
    "DiskFullError",
    "Error",
    "FormatError",
    "KeyspaceSettings",
    "LimitError",
    "MergeError",
    "ReadOnlyError",
    "TransactionTooOldError",
    "WrongKeyError",
    "check",
    "check_interpreter",
    "check_key",
    "check_value",
    "mark",
    "marks_seen",
    "pack_trailer",
    "pairs_of",
    "prefix_upper",
    "require",
    "successor",
    "unpack_trailer",
]
