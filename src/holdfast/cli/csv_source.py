"""Reads the rows of a CSV file, and says which line is wrong.

The form is that of RFC 4180 in UTF-8: commas, double quotes, and lines that end in CR LF, LF or CR,
also in one file. A byte order mark in front is left out, blank lines are skipped.

Guarantees: cells are the texts that stand in the file; a row that differs in length from the
header, bytes that are not UTF-8 and wrong quotes are a CommandError that names the line; memory
holds one row at a time.

Thread safety: a source belongs to one thread.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import BinaryIO

from holdfast.base import VALUE_BYTES_MAX
from holdfast.cli.failure import CommandError
from holdfast.env import open_stream, stream_size

STANDARD_INPUT = "-"
_BUFFER_BYTES = 1 << 20
_MARK = b"\xef\xbb\xbf"


class CsvSource:
    """An open CSV file, positioned behind its header. Use it as a context manager.

    Raises: OSError; CommandError when there is no header or it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == STANDARD_INPUT else path
        self.bytes_read = 0
        self._lines_read = 0
        self._file = None if path == STANDARD_INPUT else open_stream(path)
        stream = sys.stdin.buffer if self._file is None else self._file
        # Without this a cell may have 128 KiB at most.
        csv.field_size_limit(VALUE_BYTES_MAX)
        self._reader = csv.reader(self._lines(stream), strict=True)
        self._line = 1
        try:
            header = self._next()
            if header is None:
                raise CommandError(f"{self.name} is empty; its first line must name the columns")
        except BaseException:
            self.close()
            raise
        self.header = tuple(header)

    @property
    def size(self) -> int | None:
        """The bytes of the file, None when that is not known."""
        return None if self._file is None else stream_size(self._file)

    @property
    def line(self) -> int:
        """The line on which the row began that was given last."""
        return self._line

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows behind the header. Raises: CommandError; OSError."""
        width = len(self.header)
        while (row := self._next()) is not None:
            if len(row) != width:
                raise self.wrong(f"the row has {len(row)} cells; the header has {width}")
            yield row

    def wrong(self, reason: str) -> CommandError:
        """Return the error of the row that was given last."""
        return CommandError(f"{self.name}, line {self._line}: {reason}")

    def _next(self) -> list[str] | None:
        """Return the next row that is not a blank line, None at the end."""
        while True:
            self._line = self._lines_read + 1
            try:
                row = next(self._reader)
            except StopIteration:
                return None
            except csv.Error as error:
                raise self.wrong(f"the row is not CSV: {error}") from None
            if row:
                return row

    def _lines(self, stream: BinaryIO) -> Iterator[str]:
        for raw in _lines_of(stream):
            self._lines_read += 1
            self.bytes_read += len(raw)
            line = raw.removeprefix(_MARK) if self._lines_read == 1 else raw
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                at = len(raw) - len(line) + error.start + 1
                raise CommandError(
                    f"{self.name}, line {self._lines_read}: byte {at} of the line is not UTF-8"
                ) from None
            yield text

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> CsvSource:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream with their ends: CR LF, LF, or CR alone."""
    # Of a line that is not whole yet; its last piece may end in a CR whose LF is still to come.
    pieces: list[bytes] = []
    while data := stream.readline(_BUFFER_BYTES):
        if not pieces and data.endswith(b"\n") and data.find(b"\r", 0, -2) < 0:
            yield data
            continue
        if pieces and pieces[-1].endswith(b"\r") and not data.startswith(b"\n"):
            yield b"".join(pieces)
            pieces.clear()
        # Of bytes, it knows these three ends and no other.
        *whole, rest = data.splitlines(keepends=True)
        for line in whole:
            pieces.append(line)
            yield b"".join(pieces)
            pieces.clear()
        pieces.append(rest)
        if rest.endswith(b"\n"):
            yield b"".join(pieces)
            pieces.clear()
    if pieces:
        yield b"".join(pieces)
