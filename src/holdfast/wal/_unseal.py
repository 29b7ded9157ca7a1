"""Opening of sealed records: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.wal._unseal_py import open_records
else:
    from holdfast.wal._unseal_c import open_records

__all__ = ["open_records"]
