"""Chooses the twin of the memory kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.env._memory_py import release_memory
else:
    from holdfast.env._memory_c import release_memory

__all__ = ["release_memory"]
