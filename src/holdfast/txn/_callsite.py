"""Chooses the twin of the call site."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.txn._callsite_py import CallSite
else:
    from holdfast.txn._callsite_c import CallSite

__all__ = ["CallSite"]
