"""A CSV file as a keyspace: what its keys and values are (docs/format/csv.md).

The key of a row is the tuple of its key columns' texts, the value the tuple of its other cells'
texts, in the order of the file. Every cell stays the text that it was. The names of the columns
stand under `COLUMNS_KEY`, which is below every tuple: a tuple begins with a tag of 0x10 or more.

Thread safety: pure functions and immutable values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.base import successor
from holdfast.codec import pack_tuple, unpack_tuple

# Part of the file format.
COLUMNS_KEY = b"\x00csv"
FORMAT_VERSION = 1

ROWS_START = successor(COLUMNS_KEY)
"""Every row's key is at or above this."""

_QUOTED = re.compile('[",\r\n\ufeff]')


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table: all their names in the order of the file, and those of the key.

    Raises: ValueError when a key column is not exactly one of the columns.
    """

    names: tuple[str, ...]
    key: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.key:
            raise ValueError("a key has at least one column")
        if len(set(self.key)) != len(self.key):
            raise ValueError("a key names each column once")
        for name in self.key:
            if name not in self.names:
                raise ValueError(f"there is no column {name!r} among {format_row(self.names)}")
            if self.names.count(name) > 1:
                raise ValueError(f"there are several columns {name!r}, so it cannot be of the key")

    @property
    def key_places(self) -> tuple[int, ...]:
        """Where the cells of the key stand in a row, in the order of the key."""
        return tuple(self.names.index(name) for name in self.key)

    @property
    def other_places(self) -> tuple[int, ...]:
        """Where all other cells stand."""
        return tuple(place for place in range(len(self.names)) if place not in self.key_places)

    def encode(self) -> bytes:
        """Return the value that stands under COLUMNS_KEY."""
        plain = {"format": FORMAT_VERSION, "columns": self.names, "key": self.key}
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Columns:
        """Return the columns that `encode` wrote. Raises: ValueError that says what is wrong."""
        try:
            plain = json.loads(data)
        except RecursionError:
            raise ValueError("the record of the columns is nested too deeply") from None
        if not isinstance(plain, dict) or plain.get("format") != FORMAT_VERSION:
            raise ValueError(f"the record of the columns is not of version {FORMAT_VERSION}")
        return cls(_texts(plain.get("columns")), _texts(plain.get("key")))


def _texts(found: object) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError("the record of the columns has no list of names")
    try:
        "".join(found).encode()
    except UnicodeEncodeError:
        # JSON can spell half a character, which no file can hold.
        raise ValueError("a name in the record of the columns is not Unicode text") from None
    return tuple(found)


class RowCoder:
    """Turns rows into keys and values and back."""

    def __init__(self, columns: Columns) -> None:
        self._count = len(columns.names)
        self._key_places = columns.key_places
        self._other_places = columns.other_places
        self._places = (*self._key_places, *self._other_places)

    def encode(self, row: Sequence[str]) -> tuple[bytes, bytes]:
        """Return the key and the value of a row, which has a cell for every column."""
        key = pack_tuple([row[place] for place in self._key_places])
        return key, pack_tuple([row[place] for place in self._other_places])

    def decode(self, key: bytes, value: bytes) -> list[str]:
        """Return the row. Raises: ValueError when it is not one that `encode` gave."""
        cells = (*unpack_tuple(key), *unpack_tuple(value))
        row = [""] * self._count
        if len(cells) != self._count:
            raise ValueError(f"the row has {len(cells)} cells, not {self._count}")
        for place, cell in zip(self._places, cells, strict=True):
            if not isinstance(cell, str):
                raise ValueError(f"a cell is {type(cell).__name__}, not text")  # noqa: TRY004  of bytes
            row[place] = cell
        return row


def format_row(cells: Iterable[str]) -> str:
    """Return a row as CSV without the newline; only cells that need quotes get them."""
    quoted = [
        '"' + cell.replace('"', '""') + '"' if _QUOTED.search(cell) else cell for cell in cells
    ]
    # Nothing at all would be a blank line, which readers skip.
    return '""' if quoted == [""] else ",".join(quoted)
