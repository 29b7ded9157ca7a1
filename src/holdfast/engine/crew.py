"""A crew: threads that run jobs, and exist only while there are some.

A thread that has nothing to do waits a while for the next job, because a thread that is started
costs as much as a durable commit. Then it ends.

Thread safety: safe. A job is begun in the order of submission. It handles its own errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from holdfast.base import DatabaseClosedError
from holdfast.env import Env, Task

LINGER_SECONDS = 0.25
"""How long a thread waits for the next job."""


class Crew:
    """Runs jobs in at most `size_max` threads."""

    def __init__(self, env: Env, name: str, size_max: int) -> None:
        self._env = env
        self._name = name
        self._size_max = size_max
        self._mutex = env.mutex()
        self._wanted = env.condition(self._mutex)
        # Guarded by the mutex. An idle thread waits, or was woken and did not take its job yet.
        self._jobs: deque[Callable[[], None]] = deque()
        self._tasks: dict[int, Task] = {}
        self._ended: list[int] = []
        self._started = 0
        self._idle = 0
        self._stopped = False

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job` run.

        Raises: DatabaseClosedError after `stop`, MemoryError or RuntimeError when there is no
        thread for it; then it will not run.
        """
        with self._mutex:
            if self._stopped:
                raise DatabaseClosedError("the database is closed")
            size = len(self._tasks) - len(self._ended)
            if self._idle <= len(self._jobs) and size < self._size_max:
                # First: a job for which no thread could be started must not wait.
                self._start()
            self._jobs.append(job)
            if self._idle:
                self._wanted.notify()

    def _start(self) -> None:
        while self._ended:
            self._tasks.pop(self._ended.pop(), None)
        self._started += 1
        number = self._started
        self._tasks[number] = self._env.spawn(self._name, partial(self._work, number))

    def _work(self, number: int) -> None:
        while True:
            with self._mutex:
                while not self._jobs:
                    if self._stopped or not self._wait():
                        self._ended.append(number)
                        return
                job = self._jobs.popleft()
            job()
            # What the job holds must not live until the next one.
            del job

    def _wait(self) -> bool:
        """Wait for a job; return whether there is one. Requires: the mutex."""
        self._idle += 1
        try:
            self._wanted.wait(LINGER_SECONDS)
        finally:
            self._idle -= 1
        return bool(self._jobs)

    def stop(self) -> None:
        """Take no more jobs, and return when those that were submitted have ended. A second stop
        is harmless.
        """
        with self._mutex:
            self._stopped = True
            self._wanted.notify_all()
            # They stay listed: a stop after one that was interrupted waits for them again.
            tasks = list(self._tasks.values())
        for task in tasks:
            task.join()
