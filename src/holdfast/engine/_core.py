"""Chooses the twin of the keyspace core."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.engine._core_py import (
        BUSY,
        CLOSED,
        CLOSING,
        FORKED,
        NEVER,
        POISONED,
        READ_ONLY,
        CommitState,
        KeyspaceCore,
    )
else:
    from holdfast.engine._core_c import (
        BUSY,
        CLOSED,
        CLOSING,
        FORKED,
        NEVER,
        POISONED,
        READ_ONLY,
        CommitState,
        KeyspaceCore,
    )

__all__ = [
    "BUSY",
    "CLOSED",
    "CLOSING",
    "FORKED",
    "NEVER",
    "POISONED",
    "READ_ONLY",
    "CommitState",
    "KeyspaceCore",
]
