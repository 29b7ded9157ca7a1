"""Chooses the twin of the file kernel."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.env._file_py import write_and_sync, write_zeros
else:
    from holdfast.env._file_c import write_and_sync, write_zeros

__all__ = ["write_and_sync", "write_zeros"]
