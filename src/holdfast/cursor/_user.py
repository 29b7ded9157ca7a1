"""Chooses the twin of the user cursor kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.cursor._user_py import Owner, ScanTally, UserCursor
else:
    from holdfast.cursor._user_c import Owner, ScanTally, UserCursor

__all__ = ["Owner", "ScanTally", "UserCursor"]
