r"""Keys and values as people read and type them, and back.

Three forms:

- text (default): UTF-8, where everything that does not print, and the backslash, is escaped:
  `\\`, `\n`, `\r`, `\t`, and `\xNN` for any other byte. A leading `-` or `@` gets a backslash, so
  that what was printed can be typed as an argument.
- hex: two digits a byte.
- raw: the bytes as they are. Does not round-trip where they hold tabs or newlines.

Guarantees: `parse(show(data, form), form) == data` for any bytes in the text and hex form, and what
is shown in these forms holds no tab and no newline.
"""

from __future__ import annotations

import os
import re
from enum import Enum


class Form(Enum):
    """How bytes are shown and typed."""

    TEXT = "text"
    HEX = "hex"
    RAW = "raw"


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNESCAPES = {"\\": b"\\", "n": b"\n", "r": b"\r", "t": b"\t", "-": b"-", "@": b"@"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)


def show(data: bytes, form: Form) -> bytes:
    """Return `data` as it is printed."""
    if form is Form.RAW:
        return data
    return shown(data, form).encode()


def shown(data: bytes, form: Form = Form.TEXT) -> str:
    """Return `data` in the text or the hex form."""
    if form is Form.HEX:
        return data.hex()
    text = data.decode("utf-8", "surrogateescape")
    if not text.isprintable() or "\\" in text:
        text = "".join(map(_escaped, text))
    return f"\\{text}" if text.startswith(("-", "@")) else text


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def parse(argument: str, form: Form) -> bytes:
    """Return the bytes that an argument stands for. Raises: ValueError that says what is wrong."""
    if form is Form.RAW:
        return os.fsencode(argument)
    if form is Form.HEX:
        try:
            return bytes.fromhex(argument)
        except ValueError:
            raise ValueError(f"{argument!r} is not hexadecimal") from None
    parts = []
    end = 0
    for match in _ESCAPE.finditer(argument):
        parts.append(_encoded(argument[end : match.start()]))
        escape = match[1]
        if len(escape) == 3:
            parts.append(bytes.fromhex(escape[1:]))
        elif escape in _UNESCAPES:
            parts.append(_UNESCAPES[escape])
        else:
            raise ValueError(
                f"{match[0]!r} is no escape; write \\\\, \\n, \\r, \\t, \\-, \\@ or \\xNN"
            )
        end = match.end()
    parts.append(_encoded(argument[end:]))
    return b"".join(parts)


def _encoded(text: str) -> bytes:
    # Bytes of the command line that are not UTF-8 come as lone surrogates.
    return text.encode("utf-8", "surrogateescape")
