"""Chooses the twin of the kernel of gaps."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.cursor._gaps_py import Gaps
else:
    from holdfast.cursor._gaps_c import Gaps

__all__ = ["Gaps"]
