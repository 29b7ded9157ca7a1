"""A crew: threads that run jobs, and exist only while there are some.

A thread that has nothing to do waits a while for the next job, because a thread that is started
costs as much as a durable commit. Then it ends.

Thread safety: safe. A job is begun in the order of submission. It handles its own errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from holdfast.base import DatabaseClosedError, mark
from holdfast.env import Env, Task

LINGER_SECONDS = 0.25
"""How long a thread waits for the next job."""

REST_SECONDS = 0.001
"""After this time a thread that had no memory tries again."""


def rest(env: Env) -> None:
    """Wait a moment for memory, in a thread that others count on."""
    try:
        env.sleep(REST_SECONDS)
    except MemoryError:
        mark("engine.no_memory_to_rest")


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
        self._tasks: dict[int, Task | None] = {}
        # The threads that take jobs, by the key of their task.
        self._living: set[int] = set()
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
            if self._idle <= len(self._jobs) and len(self._living) < self._size_max:
                # First: a job for which no thread could be started must not wait.
                self._start()
            self._jobs.append(job)
            if self._idle:
                self._wanted.notify()

    def _start(self) -> None:
        for number in self._tasks.keys() - self._living:
            del self._tasks[number]
        self._started += 1
        number = self._started
        try:
            # A thread that has begun must not lack its place in the list.
            self._tasks[number] = None
            self._living.add(number)
            self._tasks[number] = self._env.spawn(self._name, partial(self._work, number))
        except BaseException:
            self._living.discard(number)
            self._tasks.pop(number, None)
            raise

    def _work(self, number: int) -> None:
        try:
            while (job := self._next(number)) is not None:
                job()
                # What the job holds must not live until the next one.
                del job
        finally:
            # Whatever ended it, nobody must count on it.
            self._living.discard(number)

    def _next(self, number: int) -> Callable[[], None] | None:
        """Return the next job, or None when there is none and the thread is to end."""
        while True:
            try:
                with self._mutex:
                    while not self._jobs:
                        if self._stopped or not self._wait():
                            self._living.discard(number)
                            return None
                    return self._jobs.popleft()
            except MemoryError:
                # Whoever submits a job may count on this thread.
                mark("engine.crew_without_memory")
                rest(self._env)

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
            if task is not None:
                task.join()
