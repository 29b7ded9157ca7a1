"""Chooses the twin of what each transaction asks of its database."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.engine._host_py import HostCore
else:
    from holdfast.engine._host_c import HostCore

__all__ = ["HostCore"]
