"""Deterministic threads: real threads of which only the holder of the baton runs.

Every call that may block or change something is a point where a seeded generator may hand the baton
to another task. What a run does is therefore a function of the seed. The clock is simulated: each
call takes a microsecond, and when every task waits, time jumps to the first deadline. When nobody
can run and nobody has a deadline, that is a deadlock.

When the power is cut, every task gets `SimCrash` at its next call, or where it waits. The main task
(the thread that made the scheduler) gets the baton, unwinds the others one by one, joins their
threads and raises last, so no thread is left.

1. Exactly one task runs; all others wait at their gates. State is therefore read and written
   without locks.
2. A task is running, in `_ready`, blocked, or done; a blocked task with a deadline has a live entry
   in `_timed`.
3. With one task alive, a point where tasks could switch costs a few comparisons.

Thread safety: calls from a thread that is not the running task raise RuntimeError.
"""

from __future__ import annotations

import heapq
import random
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from holdfast.env.protocol import ReentryError, ThreadLife

_NANOSECONDS = 1_000_000_000
_STEP = 1_000
"""How much simulated time one call takes, in nanoseconds."""

_SWITCH_CHANCE = 0.25
"""How often a point where tasks could switch is one where they do."""

_CHANGE_CHANCE = 1 / 32
"""How often the running task gets another priority, where there are priorities."""

Policy = Literal["chance", "always", "priorities"]
"""Who runs behind a point where tasks could switch: now and then another one, always another one,
or the one of the highest priority. Priorities are random and change at random points, so that one
task may stand still while others do much. (Burckhardt and others, "A Randomized Scheduler with
Probabilistic Guarantees of Finding Bugs", 2010.)
"""


class SimCrash(BaseException):
    """The simulated power is off.

    Not an Exception, so that no handler in the engine survives it.
    """


class SimDeadlock(AssertionError):  # noqa: N818  a twin of SimCrash
    """Every task waits and none has a deadline; the message lists who waits for what, and where."""


class SimTask:
    """A thread under the scheduler. Implements `Task`."""

    __slots__ = (
        "_function", "_name", "_scheduler", "blocked", "done", "error", "gate", "ident", "joiners",
        "life", "number", "priority", "thread", "turn", "waits_for", "woken",
    )  # fmt: skip

    def __init__(
        self, scheduler: Scheduler, number: int, name: str, function: Callable[[], None] | None
    ) -> None:
        self._scheduler = scheduler
        self._name = name
        self._function = function
        self.number = number
        self.priority = 0.0
        self.gate = threading.Lock()
        self.gate.acquire()
        self.ident = threading.get_ident()
        self.blocked = False
        self.woken = False
        self.done = False
        self.turn = 0
        self.waits_for = ""
        self.error: BaseException | None = None
        self.joiners: list[SimTask] = []
        self.life = ThreadLife()
        self.thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self._name

    def join(self) -> None:
        scheduler = self._scheduler
        scheduler.pause()
        if scheduler.running is self:
            raise ReentryError(f"the thread {self._name}")
        while not self.done:
            self.joiners.append(scheduler.running)
            scheduler.block(None, f"the end of {self._name}")
        if self.error is not None:
            raise self.error

    def go_on(self) -> None:
        """Let the task run, now that it has the baton. A task that never does needs no thread."""
        if self.thread is None and self.number:
            self.thread = threading.Thread(target=self.run, name=self._name, daemon=True)
            self.thread.start()
        self.gate.release()

    def end(self) -> None:
        """Let the task run to its end, which is near, since the power is off."""
        if self.thread is None:
            self._function = None
            self.done = True
        else:
            self.gate.release()

    def run(self) -> None:
        """The body of the thread."""
        self.gate.acquire()
        self.ident = threading.get_ident()
        try:
            if not self._scheduler.off and self._function is not None:
                self._function()
        except BaseException as exc:  # noqa: BLE001  join raises it
            self.error = exc
        finally:
            # A finished task must not keep its owner alive through the function it ran.
            self._function = None
            self._scheduler.finish(self)


class Scheduler:
    """Who runs when, and what time it is."""

    def __init__(self, seed: int) -> None:
        self.now = 0
        self.off = False
        self.policy: Policy = "chance"
        self._random = random.Random(f"{seed}/schedule")
        self._main = SimTask(self, 0, "main", None)
        self.nobody = SimTask(self, -1, "nobody", None)
        """Holds what is shut."""
        self.running = self._main
        self._tasks: list[SimTask] = []
        self._ready: list[SimTask] = []
        self._timed: list[tuple[int, int, int, SimTask]] = []
        self._serial = 0
        self._unwinding = False
        self._deadlock = ""

    # --- called by the running task ---

    def tick(self) -> None:
        """Pass a call that neither blocks nor changes anything."""
        if self.off or self.running.ident != threading.get_ident():
            self._refuse()
        self.now += _STEP

    def pause(self) -> None:
        """Pass a point where another task may run."""
        if self.off or self.running.ident != threading.get_ident():
            self._refuse()
        self.now += _STEP
        if self._timed:
            self._wake_due()
        if self._ready and self._switches():
            task = self.running
            successor = self._draw()
            self._ready.append(task)
            self._hand_to(successor)

    def _switches(self) -> bool:
        """Return whether another task runs now. Requires: one is ready."""
        if self.policy == "chance":
            return self._random.random() < _SWITCH_CHANCE
        if self.policy == "always":
            return True
        task = self.running
        if self._random.random() < _CHANGE_CHANCE:
            task.priority = self._random.random()
        return any(other.priority > task.priority for other in self._ready)

    def jump(self, seconds: float) -> None:
        """Let the clock go forward at once, without anybody running meanwhile."""
        self.now += round(seconds * _NANOSECONDS)

    def block(self, seconds: float | None, waits_for: str) -> bool:
        """Wait until `wake`, or until `seconds` passed; return whether it was `wake`."""
        task = self.running
        task.blocked = True
        task.woken = False
        task.turn += 1
        task.waits_for = waits_for
        if seconds is not None:
            self._serial += 1
            deadline = self.now + max(0, round(seconds * _NANOSECONDS))
            heapq.heappush(self._timed, (deadline, self._serial, task.turn, task))
        self._hand_to(self._next())
        return task.woken

    def wake(self, task: SimTask) -> None:
        """Let a blocked task run again."""
        task.woken = True
        if task.blocked:
            task.blocked = False
            self._ready.append(task)

    def pass_time(self, seconds: float, waits_for: str) -> None:
        """Let time pass, and others run meanwhile."""
        if self._ready or self._timed:
            self.block(seconds, waits_for)
        else:
            self.now += max(0, round(seconds * _NANOSECONDS))

    def choose(self, count: int) -> int:
        """Return a seeded number below `count`."""
        return self._random.randrange(count)

    def spawn(self, name: str, function: Callable[[], None]) -> SimTask:
        """Make a task; its thread starts when it gets the baton for the first time."""
        task = SimTask(self, len(self._tasks) + 1, name, function)
        if self.policy == "priorities":
            task.priority = self._random.random()
        self._tasks.append(task)
        self._ready.append(task)
        return task

    def cut_power(self) -> None:
        """Turn the power off; the main task also unwinds and joins all others first."""
        self.off = True
        if self.running is self._main:
            self._unwind()

    def unfinished(self) -> list[str]:
        """Return the names of the tasks that were spawned and have not ended."""
        return [task.name for task in self._tasks if not task.done]

    # --- the baton ---

    def finish(self, task: SimTask) -> None:
        """Give the baton away for good, at the end of a task's thread."""
        task.done = True
        task.life.has_ended = True
        for joiner in task.joiners:
            self.wake(joiner)
        if self._unwinding:
            return
        successor = self._main if self.off else self._next()
        self.running = successor
        successor.go_on()

    def _refuse(self) -> None:
        if self.running.ident != threading.get_ident():
            raise RuntimeError("a SimEnv is used by its own tasks only, one at a time")
        raise SimCrash("the power is off")

    def _hand_to(self, successor: SimTask) -> None:
        """Give the baton to `successor` and wait to get it back."""
        task = self.running
        if successor is not task:
            self.running = successor
            successor.go_on()
            task.gate.acquire()
        if self.off:
            if task is self._main:
                self._unwind()
                if self._deadlock:
                    raise SimDeadlock(self._deadlock)
            raise SimCrash("the power is off")

    def _next(self) -> SimTask:
        """Take the task that runs next, passing time when all of them wait."""
        self._wake_due()
        while not self._ready and self._timed:
            self.now = max(self.now, self._timed[0][0])
            self._wake_due()
        if self._ready:
            return self._draw()
        self._deadlock = self._describe_deadlock()
        self.off = True
        return self._main

    def _draw(self) -> SimTask:
        ready = self._ready
        if len(ready) == 1:
            return ready.pop()
        if self.policy == "priorities":
            first = max(ready, key=lambda task: task.priority)
            ready.remove(first)
            return first
        return ready.pop(self._random.randrange(len(ready)))

    def _wake_due(self) -> None:
        """Make every blocked task ready whose deadline has come."""
        timed = self._timed
        while timed:
            deadline, _, turn, task = timed[0]
            stale = not task.blocked or task.turn != turn
            if not stale and deadline > self.now:
                break
            heapq.heappop(timed)
            if not stale:
                task.blocked = False
                self._ready.append(task)

    def _unwind(self) -> None:
        """Run every other task to its end, which is near, and join its thread."""
        self._unwinding = True
        for task in self._tasks:
            if not task.done:
                self.running = task
                task.end()
            if task.thread is not None:
                task.thread.join()
                task.thread = None
        self.running = self._main

    def _describe_deadlock(self) -> str:
        frames = sys._current_frames()
        lines = ["every task waits and none has a deadline:"]
        for task in [self._main, *self._tasks]:
            if task.blocked:
                where = _where(traceback.extract_stack(frames.get(task.ident)))
                lines.append(f"  {task.name} waits for {task.waits_for}{where}")
        return "\n".join(lines)


def _where(stack: traceback.StackSummary) -> str:
    """Return the innermost line outside this room."""
    for frame in reversed(stack):
        if "/holdfast/env/" not in frame.filename and not frame.filename.endswith("threading.py"):
            return f", at {frame.filename}:{frame.lineno} in {frame.name}"
    return ""


class SimMutex:
    """A mutex of the scheduler. Implements `Mutex`."""

    __slots__ = ("_holder", "_scheduler", "_waiters")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._holder: SimTask | None = None
        self._waiters: list[SimTask] = []

    @property
    def held(self) -> bool:
        """Whether some task holds the mutex."""
        return self._holder is not None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._scheduler
        scheduler.pause()
        if self._holder is not None:
            if not blocking:
                return False
            if not self._wait(None if timeout < 0 else timeout):
                return False
        self._take()
        return True

    def _take(self) -> None:
        self._holder = self._scheduler.running

    def release(self) -> None:
        scheduler = self._scheduler
        if scheduler.off:
            # A task that is being unwound gives back what it holds; nobody will take it.
            return
        self.give_back()
        scheduler.pause()

    def give_back(self) -> None:
        """Release the mutex without letting another task run yet."""
        if self._holder is None:
            raise RuntimeError("release of a mutex that nobody holds")
        self._holder = None
        if self._waiters:
            # The task that is woken competes with those that run before it, as with a real mutex.
            self._scheduler.wake(self._waiters.pop(self._scheduler.choose(len(self._waiters))))

    def _wait(self, seconds: float | None) -> bool:
        scheduler = self._scheduler
        task = scheduler.running
        if seconds is None and self._holder is task:
            raise ReentryError("a mutex")
        deadline = None if seconds is None else scheduler.now + round(seconds * _NANOSECONDS)
        while self._holder is not None:
            left = None if deadline is None else (deadline - scheduler.now) / _NANOSECONDS
            self._waiters.append(task)
            woken = scheduler.block(left, f"a mutex held by {self._holder.name}")
            if task in self._waiters:
                self._waiters.remove(task)
            if not woken and self._holder is not None:
                return False
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class SimGate(SimMutex):
    """A gate of the scheduler: a mutex that is held, by nobody in particular, while it is shut.
    Implements `Gate`.
    """

    __slots__ = ()

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler)
        self._holder = scheduler.nobody

    def _take(self) -> None:
        self._holder = self._scheduler.nobody


class SimCondition:
    """A condition variable of the scheduler. Implements `Condition`."""

    __slots__ = ("_mutex", "_scheduler", "_waiters")

    def __init__(self, scheduler: Scheduler, mutex: SimMutex) -> None:
        self._scheduler = scheduler
        self._mutex = mutex
        self._waiters: list[SimTask] = []

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = self._scheduler
        scheduler.tick()
        task = scheduler.running
        self._require_held()
        self._waiters.append(task)
        self._mutex.give_back()
        notified = scheduler.block(timeout, "a condition")
        if task in self._waiters:
            self._waiters.remove(task)
        self._mutex.acquire()
        return notified

    def notify(self, n: int = 1) -> None:
        scheduler = self._scheduler
        if scheduler.off:
            return
        self._require_held()
        for _ in range(min(n, len(self._waiters))):
            scheduler.wake(self._waiters.pop(scheduler.choose(len(self._waiters))))
        scheduler.pause()

    def notify_all(self) -> None:
        self.notify(len(self._waiters))

    def _require_held(self) -> None:
        if not self._mutex.held:
            raise RuntimeError("a condition is used with its mutex held")
