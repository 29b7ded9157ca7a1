"""Reading of records: chooses the compiled or the plain twin."""

from typing import TYPE_CHECKING

from holdfast.base.kernel import PURE

if TYPE_CHECKING or PURE:
    from holdfast.wal._scan_py import (
        ScanResult,
        check_payload,
        decode_payload,
        find_later_records,
        scan_records,
    )
else:
    from holdfast.wal._scan_c import (
        ScanResult,
        check_payload,
        decode_payload,
        find_later_records,
        scan_records,
    )

__all__ = ["ScanResult", "check_payload", "decode_payload", "find_later_records", "scan_records"]
