"""A progress bar on standard error, for people only: nothing is printed where it is no terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from holdfast.env import PosixEnv

_INTERVAL_SECONDS = 0.1
_BAR_CHARACTERS = 24


class Progress:
    """The state of one long piece of work, drawn at most ten times a second.

    `total` is the number of bytes to come, None when it is not known. Use it as a context manager:
    the line is wiped at the end, so that what is printed next stands alone.
    """

    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self.total = total
        self._env = PosixEnv()
        self._began = self._env.monotonic()
        self._next = self._began + _INTERVAL_SECONDS
        self._bytes = 0
        self.rows = 0
        self._width = 0
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """The time since the work began."""
        return self._env.monotonic() - self._began

    def add(self, count: int, rows: int = 0) -> None:
        """Tell that `count` more bytes and `rows` more rows are done."""
        self._bytes += count
        self.rows += rows
        if self._shown and self._env.monotonic() >= self._next:
            self._next = self._env.monotonic() + _INTERVAL_SECONDS
            self._draw(self.line())

    def line(self) -> str:
        """Return what the bar says now."""
        seconds = max(self.seconds, 1e-9)
        parts = [self._label]
        if self.total:
            share = min(1.0, self._bytes / self.total)
            done = "#" * round(share * _BAR_CHARACTERS)
            parts.append(f"[{done:.<{_BAR_CHARACTERS}}] {share:4.0%}")
        if self.rows:
            parts.append(f"{self.rows:,} rows, {self.rows / seconds:,.0f} rows/s,")
        parts.append(f"{self._bytes / 1e6:,.1f} MB, {self._bytes / seconds / 1e6:,.1f} MB/s")
        return " ".join(parts)

    def _draw(self, line: str) -> None:
        sys.stderr.write(f"\r{line:<{self._width}}")
        sys.stderr.flush()
        self._width = len(line)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._width:
            self._draw("")
            sys.stderr.write("\r")
            sys.stderr.flush()
