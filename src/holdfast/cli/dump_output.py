"""What `dump` prints: one line a thing, for a person or, as JSON, for a program.

Guarantees: damage is printed where it is met and counted; things beyond the limit are counted and
not printed. Values are shortened for people and whole for programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from holdfast.cli.text import Form, shown

Field = int | str | bytes | None

_VALUE_BYTES = 64
_INDENT = "  "


class Output:
    """Prints what a file holds."""

    def __init__(self, *, as_json: bool, form: Form, keys_only: bool, limit: int | None) -> None:
        self._as_json = as_json
        self._form = form
        self._keys_only = keys_only
        self._limit = limit
        self._things = 0
        self.damaged_places = 0

    def line(self, what: str, depth: int = 0, **fields: Field) -> None:
        """Print one thing and its fields."""
        self._print(what, depth, fields)

    def thing(self, what: str, depth: int, **fields: Field) -> None:
        """Print a thing that counts for the limit: an operation, an entry or an edit's part."""
        self._things += 1
        if self._limit is None or self._things <= self._limit:
            if self._keys_only:
                fields.pop("value", None)
            self._print(what, depth, fields)

    def damage(self, offset: int, reason: str) -> None:
        """Print a damaged place."""
        self.damaged_places += 1
        self._print("damage", 0, {"offset": offset, "reason": reason})

    def end(self) -> None:
        """Say how many things were not printed."""
        if self._limit is not None and self._things > self._limit:
            self._print("more", 0, {"count": self._things - self._limit})

    def _print(self, what: str, depth: int, fields: Mapping[str, Field]) -> None:
        if self._as_json:
            plain = {
                name: shown(value, self._form) if isinstance(value, bytes) else value
                for name, value in fields.items()
            }
            print(json.dumps({"what": what, **plain}))
        else:
            words = [f"{name}={self._word(name, value)}" for name, value in fields.items()]
            print(_INDENT * depth + " ".join([f"{what:<10}", *words]).rstrip())

    def _word(self, name: str, value: Field) -> str:
        if not isinstance(value, bytes):
            return str(value)
        if name == "value" and len(value) > _VALUE_BYTES:
            return f"{shown(value[:_VALUE_BYTES], self._form)}... ({len(value):,} bytes)"
        return shown(value, self._form)
