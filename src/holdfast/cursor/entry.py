"""What a cursor stands at, and batches of rows as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Entry = tuple[bytes, int, int, bytes]
"""(key, sequence number, kind, value)."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows as columns, in the layout of Arrow's large binary arrays: no object for each row.

    The key of row `i` is `keys[key_offsets[i]:key_offsets[i + 1]]`, and so for values. Offsets are
    int64 in the machine's byte order, one more than there are rows. What was not asked for is None:
    the values of `keys()`, the keys of `values()`. The length is the number of rows.
    """

    count: int
    keys: memoryview | None
    key_offsets: memoryview | None
    values: memoryview | None
    value_offsets: memoryview | None

    def __len__(self) -> int:
        return self.count


class MergeSource(Protocol):
    """What gives user cursors the values of keys with MERGE entries: `lsm.ReadView` does."""

    def merged(self, key: bytes, snapshot: int) -> bytes | None:
        """Return the value of `key` as of `snapshot`."""
        ...

    def fold(self, key: bytes, base: bytes | None, entries: Sequence[bytes]) -> bytes:
        """Return the value of `key` after MERGE entries, newest first, over the value `base`."""
        ...


SHOWN_BYTES = 64
"""Of a key in the text of an error."""


def out_of_order(before: bytes, key: bytes) -> ValueError:
    """Return the error for a `key` that is handed in behind `before` and does not ascend."""
    return ValueError(
        f"the keys must ascend, each once: {_shown(key)} stands behind {_shown(before)}"
    )


def _shown(key: bytes) -> str:
    if len(key) <= SHOWN_BYTES:
        return repr(key)
    return f"{key[:SHOWN_BYTES]!r}... of {len(key)} bytes"
