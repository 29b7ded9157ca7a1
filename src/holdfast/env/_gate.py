"""Chooses the twin of the gate kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.env._gate_py import PatientGate
else:
    from holdfast.env._gate_c import PatientGate

__all__ = ["PatientGate"]
