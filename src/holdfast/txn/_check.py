"""Chooses the twin of the check of a commit."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.txn._check_py import Check, Dependence, GroupWrites
else:
    from holdfast.txn._check_c import Check, Dependence, GroupWrites

__all__ = ["Check", "Dependence", "GroupWrites"]
