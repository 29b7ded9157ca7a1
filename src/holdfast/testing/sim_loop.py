"""An asyncio event loop on a simulated machine: its tasks run under the seeded scheduler.

The loop waits for nothing but timers and calls from other threads, which is all that `holdfast.aio`
needs. Where a loop of the standard library sleeps in the system, this one waits at a mutex of the
machine. So the seed decides how the loop and the threads of the engine take turns, and a power cut
reaches the loop when it waits.

Thread safety: as with any event loop, `call_soon_threadsafe` alone may be called from other tasks
of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from holdfast.env import Env

Result = TypeVar("Result")


class SimLoop(asyncio.BaseEventLoop):
    """An event loop of one task of a simulated machine."""

    def __init__(self, env: Env) -> None:
        super().__init__()
        self._env = env
        self._gate = env.gate()
        # What the loop of the standard library asks for files that are ready.
        self._selector = self

    def time(self) -> float:
        return self._env.monotonic()

    def select(self, timeout: float | None) -> list[object]:
        """Wait until somebody calls, or for `timeout` seconds. No file is ever ready."""
        self._gate.acquire(timeout=-1 if timeout is None else timeout)
        return []

    def _process_events(self, events: list[object]) -> None:
        """Nothing to do: see `select`."""

    def _write_to_self(self) -> None:
        with contextlib.suppress(RuntimeError):
            # Open already: the loop is about to look.
            self._gate.release()


def run(env: Env, main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` in a loop of its own, in this task of the machine."""
    loop = SimLoop(env)
    try:
        return loop.run_until_complete(main)
    finally:
        with contextlib.suppress(BaseException):
            for task in asyncio.all_tasks(loop):
                task.cancel()
            passing = asyncio.sleep(0)
            try:
                loop.run_until_complete(passing)
            finally:
                # Without power it never began.
                passing.close()
        main.close()
        loop.close()
