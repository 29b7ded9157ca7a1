"""Where a table comes from: whose it is, and which tables it took the place of.

The manifest is what says which tables a database has. This says, in each table, as much as it takes
to find that out again when the manifest is lost: the keyspace, its name and settings, and of a
compaction the tables that went in. Nobody but a repair reads it. The idea is that of the column
family in RocksDB's table properties.

    origin := keyspace:varint name settings-count:varint (name value)* replaced-count:varint number*

Names and values are UTF-8 behind their size; settings are those that differ from the defaults, by
ascending name; numbers are varints, ascending. Part of the file format (docs/format/table.md).

Thread safety: pure functions and immutable values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from holdfast.base import KeyspaceSettings, LimitError
from holdfast.base.limits import KEYSPACE_NAME_BYTES_MAX
from holdfast.codec import decode_varint, encode_varint


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOrigin:
    """Whose table it is, and what it took the place of."""

    keyspace: int
    """The id of the keyspace."""
    name: str
    settings: KeyspaceSettings
    """As they were when the table was written."""
    replaces: tuple[int, ...] = ()
    """The numbers of the tables that hold, together, what this one and the other tables of the same
    job hold; ascending. Empty for a flush or an ingest.
    """

    def replacing(self, numbers: frozenset[int]) -> TableOrigin:
        """Return the origin of the outputs of a job with these inputs."""
        return replace(self, replaces=tuple(sorted(numbers)))

    def encode(self) -> bytes:
        """Return the property."""
        plain = {
            entry.name: str(getattr(self.settings, entry.name))
            for entry in fields(KeyspaceSettings)
            if getattr(self.settings, entry.name) != entry.default
        }
        parts = [encode_varint(self.keyspace), _text(self.name), encode_varint(len(plain))]
        parts += [_text(name) + _text(plain[name]) for name in sorted(plain)]
        parts.append(encode_varint(len(self.replaces)))
        parts += [encode_varint(number) for number in self.replaces]
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> TableOrigin:
        """Return the origin in a property. Settings that are not known are left out: they are of a
        newer version. Raises: ValueError for what no version writes.
        """
        keyspace, at = decode_varint(data, 0)
        name, at = _take_text(data, at)
        if not 0 < len(name.encode()) <= KEYSPACE_NAME_BYTES_MAX or keyspace >= 1 << 32:
            raise ValueError("the origin names no keyspace")
        count, at = decode_varint(data, at)
        known = {entry.name: entry.type for entry in fields(KeyspaceSettings)}
        plain: dict[str, Any] = {}  # as the fields of KeyspaceSettings, which validates them
        while count:
            key, at = _take_text(data, at)
            value, at = _take_text(data, at)
            if key in known:
                plain[key] = int(value) if known[key] == "int" else value
            count -= 1
        count, at = decode_varint(data, at)
        numbers: list[int] = []
        while count:
            number, at = decode_varint(data, at)
            numbers.append(number)
            count -= 1
        if at != len(data) or any(a >= b for a, b in pairwise(numbers)):
            raise ValueError("the origin has bytes too many, or numbers out of order")
        try:
            settings = KeyspaceSettings(**plain)
        except (LimitError, TypeError) as error:
            raise ValueError(f"the origin has a setting out of range: {error}") from None
        return cls(keyspace=keyspace, name=name, settings=settings, replaces=tuple(numbers))


def _text(text: str) -> bytes:
    data = text.encode()
    return encode_varint(len(data)) + data


def _take_text(data: bytes, at: int) -> tuple[str, int]:
    size, at = decode_varint(data, at)
    if size > len(data) - at:
        raise ValueError("the origin is cut short")
    return data[at : at + size].decode(), at + size
