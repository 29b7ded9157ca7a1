"""Reads the rows of a CSV file, and says which line is wrong.

The form is that of RFC 4180 in UTF-8: commas, double quotes, any of the usual line ends. A byte
order mark in front is left out, blank lines are skipped.

Guarantees: cells are the texts that stand in the file; a row that differs in length from the
header, bytes that are not UTF-8 and wrong quotes are a CommandError that names the line; memory
holds one row at a time.

Thread safety: a source belongs to one thread.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator

from holdfast.base import VALUE_BYTES_MAX
from holdfast.cli.failure import CommandError
from holdfast.cli.opening import open_file
from holdfast.env import File

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
        self._file: File | None = None
        stream: Iterable[bytes]
        if path == STANDARD_INPUT:
            stream = sys.stdin.buffer
        else:
            self._file = open_file(path)
            stream = io.BufferedReader(_FileStream(self._file), _BUFFER_BYTES)
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
        return None if self._file is None else self._file.size()

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

    def _lines(self, stream: Iterable[bytes]) -> Iterator[str]:
        for raw in stream:
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


class _FileStream(io.RawIOBase):
    """A file of an env as a stream."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # a Buffer
        data = self._file.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
