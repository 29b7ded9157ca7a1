"""File numbers: one sequence for tables, segments and manifests, never reused."""

from __future__ import annotations

from holdfast.env import Env


class FileNumbers:
    """Gives out file numbers. Thread safety: safe."""

    def __init__(self, env: Env, next_number: int) -> None:
        self._mutex = env.mutex()
        self._next_number = next_number

    def allocate(self) -> int:
        """Return a number that was never returned before."""
        with self._mutex:
            number = self._next_number
            self._next_number += 1
            return number

    @property
    def next_number(self) -> int:
        """The least number that was not given out yet."""
        return self._next_number
