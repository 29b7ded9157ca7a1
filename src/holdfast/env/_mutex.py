"""Chooses the twin of the mutex kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.env._mutex_py import OwnedMutex
else:
    from holdfast.env._mutex_c import OwnedMutex

__all__ = ["OwnedMutex"]
