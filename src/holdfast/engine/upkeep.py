"""Background work: named jobs on a few threads that end when there is nothing to do.

A job is submitted under a key. A key that is already waiting is not queued twice; one that is
running is run once more afterwards. Keys of one *lane* never run at the same time, and no lane
waits for another: a long compaction does not hold up a flush.

Thread safety: safe. A job that raises reports to `on_error`, with its lane, and is forgotten; it is
never retried by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial

from holdfast.base import mark, require
from holdfast.env import Env, Task

LANES = ("flush", "compact", "log", "memory", "interval", "live")
"""Every lane there is. One thread each at most: a lane never waits for another one."""

REST_SECONDS = 0.1
"""So long a thread that finds nothing to do waits for more: whoever starts one has to wait for it,
which takes a while beside threads that compute.
"""

SHORTAGE_SECONDS = 0.01
"""After this time a thread that had no memory for its own affairs tries again."""


class _Job:
    """A job that runs, and whether it was asked for meanwhile."""

    __slots__ = ("again", "function", "name")

    def __init__(self, name: tuple[str, Hashable], function: Callable[[], None]) -> None:
        self.name = name
        self.function = function
        self.again = False


class Upkeep:
    """Runs jobs in the background."""

    def __init__(self, env: Env, on_error: Callable[[str, BaseException], None]) -> None:
        self._env = env
        self._on_error = on_error
        self._mutex = env.mutex()
        self._idle = env.condition(self._mutex)
        self._stopping = env.condition(self._mutex)
        self._wake = env.condition(self._mutex)
        self._resting = 0
        """How many threads wait for `_wake`, and then look for jobs again."""
        self._waiting: dict[tuple[str, Hashable], Callable[[], None]] = {}
        self._running: dict[tuple[str, Hashable], _Job] = {}
        self._tasks: dict[int, Task | None] = {}
        self._spawned = 0
        self._working: set[int] = set()
        """The threads that look for jobs, by the key of their task."""
        self._stopped = False
        self.background: set[int] = set()
        """The threads that flush or compact now: what waits for that must not run in them."""

    def submit(self, lane: str, key: Hashable, job: Callable[[], None]) -> None:
        """Queue `job` under (lane, key); nothing happens after `stop`.

        A signal handler that raises here may keep the job from being queued, never from being run
        once it is.
        """
        require(lane in LANES, "a job has one of the known lanes")
        name = (lane, key)
        with self._mutex:
            if self._settles_for_less(name):
                return
            if self._resting > self._runnable():
                self._waiting[name] = job
                # If an interruption comes before this, the thread looks again by itself.
                self._wake.notify()
                return
        self._env.uninterrupted(partial(self._submit, name, job))

    def _settles_for_less(self, name: tuple[str, Hashable]) -> bool:
        """Return whether a job need not be queued: at the end, or because it is there already. One
        that runs is done again. Requires: the mutex.
        """
        running = self._running.get(name)
        if running is not None:
            running.again = True
        return self._stopped or running is not None or name in self._waiting

    def _runnable(self) -> int:
        """Return how many jobs a thread that looks for one could take. Requires: the mutex."""
        if not self._waiting:
            return 0
        busy = {lane for lane, _ in self._running}
        return len({lane for lane, _ in self._waiting} - busy)

    def _submit(self, name: tuple[str, Hashable], job: Callable[[], None]) -> None:
        with self._mutex:
            if self._settles_for_less(name):
                return
            # Before the thread, which may look for it at once, and not left for want of a thread.
            self._waiting[name] = job
            if self._resting >= self._runnable():
                self._wake.notify()
            elif len(self._working) < len(LANES):
                try:
                    self._spawn()
                except BaseException:
                    self._waiting.pop(name)
                    raise

    def _spawn(self) -> None:
        for number in self._tasks.keys() - self._working:
            del self._tasks[number]
        self._spawned += 1
        number = self._spawned
        self._working.add(number)
        try:
            # A thread that has begun must not lack its place in the list.
            self._tasks[number] = None
            self._tasks[number] = self._env.spawn("holdfast-upkeep", partial(self._work, number))
        except BaseException:
            self._working.discard(number)
            self._tasks.pop(number, None)
            raise

    def _take(self, number: int) -> _Job | None:
        """Return the next job, or None when this thread may end."""
        with self._mutex:
            job = self._next(number)
            if job is None and not self._stopped and number in self._working:
                self._idle.notify_all()
                self._resting += 1
                try:
                    self._wake.wait(REST_SECONDS)
                finally:
                    self._resting -= 1
                job = self._next(number)
            if job is None:
                self._idle.notify_all()
                self._working.discard(number)
            return job

    def _next(self, number: int) -> _Job | None:
        """Begin the first job of a lane that is free, if there is one. Requires: the mutex."""
        if self._stopped:
            return None
        busy = {lane for lane, _ in self._running}
        for name, function in self._waiting.items():
            if name[0] not in busy:
                job = _Job(name, function)
                self._working.add(number)
                self._running[name] = job
                self._waiting.pop(name)
                return job
        return None

    def _end(self, job: _Job) -> None:
        """Let jobs of the same lane run. May be done again."""
        with self._mutex:
            if self._running.get(job.name) is job:
                if job.again:
                    self._waiting[job.name] = job.function
                self._running.pop(job.name)
            self._idle.notify_all()

    def _work(self, number: int) -> None:
        job: _Job | None = None
        while True:
            try:
                if job is not None:
                    self._end(job)
                    job = None
                job = self._take(number)
                if job is None:
                    return
                self._run(job)
            except MemoryError:
                # Others wait for this thread: it goes on with what it had not done.
                mark("engine.upkeep_without_memory")
                self._env.sleep(SHORTAGE_SECONDS)

    def _run(self, job: _Job) -> None:
        thread = self._env.thread_id()
        try:
            if job.name[0] in ("flush", "compact"):
                self.background.add(thread)
            job.function()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the engine must hear of it
            # A signal is raised in the main thread; here it is a user's function that raised it.
            self._on_error(job.name[0], error)
        finally:
            self.background.discard(thread)

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
        """Return when nothing runs and nothing waits. Publishing figures goes on for as long as
        somebody watches, and is not waited for.
        """
        with self._mutex:
            while any(lane != "live" for lane, _ in (*self._running, *self._waiting)):
                self._idle.wait()

    def stop(self) -> None:
        """Start no more jobs and return when the running ones ended. A second stop is harmless."""
        with self._mutex:
            self._stopped = True
            self._stopping.notify_all()
            self._wake.notify_all()
            self._waiting.clear()
            # They stay listed: a stop after one that was interrupted waits for them again.
            tasks = list(self._tasks.values())
        for task in tasks:
            if task is not None:
                task.join()
