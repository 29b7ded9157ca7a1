"""Columns of a batch while they grow: the plain Python twin and specification of `_column_c`.

Thread safety: one thread at a time.
"""

from __future__ import annotations

from array import array


class ColumnBuilder:
    """One column of `Columns`: values, one behind the other."""

    def __init__(self) -> None:
        self._values: list[bytes] = []
        self._finished = False

    def add(self, value: bytes) -> None:
        """Append a value. Raises: ValueError when the column is finished."""
        if type(value) is not bytes:
            raise TypeError(f"a value is bytes, not {type(value).__name__}")
        if self._finished:
            raise ValueError("the column is finished")
        self._values.append(value)

    def finish(self) -> tuple[memoryview, memoryview]:
        """Return the values one behind the other, and where each begins and the last one ends, both
        read-only. Nothing can be added afterwards.
        """
        self._finished = True
        offsets = array("q", [0])
        for value in self._values:
            offsets.append(offsets[-1] + len(value))
        return memoryview(b"".join(self._values)), memoryview(offsets).toreadonly()
