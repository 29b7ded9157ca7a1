"""Which lines of chosen modules an execution reaches.

From Python 3.12 on by `sys.monitoring`, which reports each line once and costs nothing afterwards;
before that by a trace function, which is slow, so `fuzz_run` traces a sample of its executions.

Thread safety: one `Reach` of a process traces at a time, the thread that uses it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

Line = tuple[CodeType, int]


class Reach:
    """Collects lines of modules while `watched`. `count` only grows."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._files = frozenset(
            str(module.__file__)
            for name in modules
            if (module := sys.modules.get(f"holdfast.{name}")) is not None
        )
        self._lines: set[Line] = set()

    @property
    def count(self) -> int:
        """How many lines were reached so far."""
        return len(self._lines)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Collect the lines that the block reaches in this thread."""
        if sys.version_info >= (3, 12):
            with self._monitored():
                yield
            return
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self._lines.add((frame.f_code, frame.f_lineno))
        return self._line

    if sys.version_info >= (3, 12):

        @contextmanager
        def _monitored(self) -> Iterator[None]:
            monitoring = sys.monitoring
            tool = monitoring.PROFILER_ID
            monitoring.use_tool_id(tool, "holdfast fuzz")
            monitoring.register_callback(tool, monitoring.events.LINE, self._seen)
            monitoring.set_events(tool, monitoring.events.LINE)
            try:
                yield
            finally:
                monitoring.set_events(tool, monitoring.events.NO_EVENTS)
                monitoring.free_tool_id(tool)

        def _seen(self, code: CodeType, line: int) -> Any:
            if code.co_filename in self._files:
                self._lines.add((code, line))
            return sys.monitoring.DISABLE
