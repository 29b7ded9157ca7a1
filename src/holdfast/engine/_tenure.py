"""Chooses the twin of the registry of tenures."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.engine._tenure_py import RegistryCore, Tenure
else:
    from holdfast.engine._tenure_c import RegistryCore, Tenure

__all__ = ["RegistryCore", "Tenure"]
