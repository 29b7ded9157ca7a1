"""Chooses the twin of the apply kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.recovery._apply_py import apply_buffer, apply_payload, apply_records
else:
    from holdfast.recovery._apply_c import apply_buffer, apply_payload, apply_records

__all__ = ["apply_buffer", "apply_payload", "apply_records"]
