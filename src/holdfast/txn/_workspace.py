"""Chooses the twin of the transaction's workspace."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.txn._workspace_py import (
        ENDED,
        OWN_FIRST,
        READ_BYTES,
        READ_ONLY,
        WorkspaceCore,
        WorkState,
    )
else:
    from holdfast.txn._workspace_c import (
        ENDED,
        OWN_FIRST,
        READ_BYTES,
        READ_ONLY,
        WorkspaceCore,
        WorkState,
    )

__all__ = ["ENDED", "OWN_FIRST", "READ_BYTES", "READ_ONLY", "WorkState", "WorkspaceCore"]
