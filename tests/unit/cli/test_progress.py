"""The progress bar is for terminals only."""

import io
import sys

from holdfast.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_the_bar_and_then_an_empty_line(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("holdfast.cli.progress._INTERVAL_SECONDS", 0.0)
    with Progress("working", 2_000_000) as progress:
        progress.add(1_000_000, 500)
    written = terminal.getvalue()
    assert "\rworking [############............]  50% 500 rows, " in written
    assert "1.0 MB" in written
    last = written.split("\r")
    assert "" == last[-1]
    assert "" == last[-2].strip()


def test_a_pipe_sees_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    monkeypatch.setattr("holdfast.cli.progress._INTERVAL_SECONDS", 0.0)
    with Progress("working", None) as progress:
        progress.add(1, 1)
    assert "" == pipe.getvalue()
    assert "MB/s" in progress.line()
    assert "[" not in progress.line()
