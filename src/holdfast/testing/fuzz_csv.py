"""The fuzz target of CSV import: the reader of rows, rows as keys and values, the record of the
columns.

Thread safety: replaces `sys.stdin` while it runs, so one thread.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from random import Random
from typing import ClassVar

from holdfast.cli.csv_source import STANDARD_INPUT, CsvSource
from holdfast.cli.csv_table import Columns, RowCoder, format_row
from holdfast.cli.failure import CommandError
from holdfast.testing.fuzz_mutate import mutate_list, mutate_often
from holdfast.testing.fuzz_oracle import Target, attempt, require

_MEBIBYTE = 1 << 20


class CsvTarget:
    """Input: a CSV file; also taken as the record of the columns."""

    name: ClassVar[str] = "csv"
    traced: ClassVar[tuple[str, ...]] = ("cli.csv_source", "cli.csv_table")

    _PIECES: ClassVar[tuple[bytes, ...]] = (
        b'"', b'""', b",", b"\r", b"\n", b"\r\n", b"\x00", b"\xef\xbb\xbf", b"\xff",
        b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x80\xa8", b'"a\nb"', b'"a""b"', b",,,,", b'"x"y',
        b" \t", b"[" * 3000, b'{"format":1,"columns":["a"],"key":["a"]}', b'"format":',
        b"\\ud800", b"1e999", b"null",
    )  # fmt: skip

    def seeds(self) -> Iterable[bytes]:
        yield b"timestamp,value\n2014-02-14 14:30:00,0.132\n2014-02-14 14:35:00,0.134\n"
        yield b'\xef\xbb\xbfa,b,c\r\n1,"x, ""y""\r\nz",\r\n\r\n,,\r\n'
        yield "a,\u20ac\n\u00e4,\U0001f600\n".encode()
        yield Columns(("a", "b", "b"), ("a",)).encode()
        yield b'a\n""\n'

    def mutate(self, rng: Random, data: bytes, other: bytes) -> bytes:
        choice = rng.random()
        if choice < 0.4:
            at = rng.randrange(len(data) + 1)
            return (data[:at] + rng.choice(self._PIECES) + data[at:])[:8192]
        if choice < 0.6:
            lines: list[bytes] = data.split(b"\n")
            return b"\n".join(mutate_list(rng, lines))[:8192]
        return mutate_often(rng, data, other)[:8192]

    def run(self, data: bytes) -> Iterable[object]:
        columns = attempt(ValueError, Columns.decode, data)
        if not columns.is_error:
            again = Columns.decode(columns.value.encode())
            require(again == columns.value, "columns that were written again are others")
        rows = attempt(CommandError, _rows, data)
        if rows.is_error:
            return [columns.feature[:50], rows.feature]
        header, cells = rows.value
        _check_rows(header, cells)
        return [columns.feature[:50], len(header), len(cells).bit_length()]

    def memory_max(self, data: bytes) -> int:
        return 600 * len(data) + 8 * _MEBIBYTE


def _rows(data: bytes) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the header and the rows of a file."""
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    try:
        with CsvSource(STANDARD_INPUT) as source:
            return source.header, list(source.rows())
    finally:
        sys.stdin = before


def _check_rows(header: tuple[str, ...], rows: list[list[str]]) -> None:
    """Check that rows come back from keys and values, and from the text of an export."""
    for key in dict.fromkeys((header[:1], header[-1:])):
        columns = attempt(ValueError, Columns, header, key)
        if columns.is_error:
            continue
        coder = RowCoder(columns.value)
        for row in rows:
            require(coder.decode(*coder.encode(row)) == row, "a row comes back as another")
    text = "".join(format_row(row) + "\n" for row in (header, *rows))
    again = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    require(again == [list(header), *rows], "an exported row is another")


TARGETS: tuple[Target, ...] = (CsvTarget(),)
