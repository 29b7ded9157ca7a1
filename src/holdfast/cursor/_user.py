"""Chooses the twin of the user cursor kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.cursor._user_py import Overlay, Owner, ScanTally, UserCursor
else:
    from holdfast.cursor._user_c import Overlay, Owner, ScanTally, UserCursor

__all__ = ["Overlay", "Owner", "ScanTally", "UserCursor"]
