"""Background work: named jobs on a few threads that exist only while there is something to do.

A job is submitted under a key. A key that is already waiting is not queued twice; one that is
running is run once more afterwards. Keys of one *lane* never run at the same time, and no lane
waits for another: a long compaction does not hold up a flush.

Thread safety: safe. A job that raises reports to `on_error`, with its lane, and is forgotten; it is
never retried by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from functools import partial

from holdfast.base import require
from holdfast.env import Env, Task

LANES = ("flush", "compact", "log", "interval")
"""Every lane there is. One thread each at most: a lane never waits for another one."""


class Upkeep:
    """Runs jobs in the background."""

    def __init__(self, env: Env, on_error: Callable[[str, BaseException], None]) -> None:
        self._env = env
        self._on_error = on_error
        self._mutex = env.mutex()
        self._idle = env.condition(self._mutex)
        self._stopping = env.condition(self._mutex)
        self._waiting: deque[tuple[str, Hashable, Callable[[], None]]] = deque()
        self._running: dict[tuple[str, Hashable], bool] = {}
        self._tasks: dict[int, Task] = {}
        self._ended: list[int] = []
        self._spawned = 0
        self._threads = 0
        self._stopped = False

    def submit(self, lane: str, key: Hashable, job: Callable[[], None]) -> None:
        """Queue `job` under (lane, key); nothing happens after `stop`."""
        require(lane in LANES, "a job has one of the known lanes")
        self._env.uninterrupted(partial(self._submit, lane, key, job))

    def _submit(self, lane: str, key: Hashable, job: Callable[[], None]) -> None:
        with self._mutex:
            if self._stopped:
                return
            name = (lane, key)
            if name in self._running:
                self._running[name] = True
                return
            if any(name == (other_lane, other_key) for other_lane, other_key, _ in self._waiting):
                return
            if self._threads < len(LANES):
                # First: a job for which no thread could be started must not count as waiting.
                self._spawn()
                self._threads += 1
            self._waiting.append((lane, key, job))

    def _spawn(self) -> None:
        while self._ended:
            self._tasks.pop(self._ended.pop(), None)
        self._spawned += 1
        number = self._spawned
        self._tasks[number] = self._env.spawn("holdfast-upkeep", lambda: self._work(number))

    def _take(self) -> tuple[str, Hashable, Callable[[], None]] | None:
        busy = {lane for lane, _ in self._running}
        for index, (lane, key, job) in enumerate(self._waiting):
            if lane not in busy:
                del self._waiting[index]
                self._running[lane, key] = False
                return lane, key, job
        return None

    def _work(self, number: int) -> None:
        while True:
            with self._mutex:
                taken = None if self._stopped else self._take()
                if taken is None:
                    self._threads -= 1
                    self._ended.append(number)
                    self._idle.notify_all()
                    return
            lane, key, job = taken
            try:
                job()
            except Exception as error:  # noqa: BLE001  whatever it is, the engine must hear of it
                self._on_error(lane, error)
            with self._mutex:
                if self._running.pop((lane, key)):
                    self._waiting.append((lane, key, job))
                self._idle.notify_all()

    def pause(self, seconds: float) -> bool:
        """Wait inside a job, or less when `stop` is called. Return whether the job should go on."""
        deadline = self._env.monotonic() + seconds
        with self._mutex:
            while not self._stopped:
                left = deadline - self._env.monotonic()
                if left <= 0:
                    return True
                self._stopping.wait(left)
        return False

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called: long jobs poll it."""
        return self._stopped

    def wait_idle(self) -> None:
        """Return when nothing runs and nothing waits."""
        with self._mutex:
            while self._threads:
                self._idle.wait()

    def stop(self) -> None:
        """Start no more jobs and return when the running ones ended. A second stop is harmless."""
        with self._mutex:
            self._stopped = True
            self._stopping.notify_all()
            self._waiting.clear()
            # They stay listed: a stop after one that was interrupted waits for them again.
            tasks = list(self._tasks.values())
        for task in tasks:
            task.join()
