"""Locks that transactions ask for: on keys and ranges, shared or exclusive, granted in order.

A request is granted when no lock of another owner and no earlier request of another owner is in its
way: two are in each other's way when their spans overlap and not both are shared. So a stream of
shared requests does not starve an exclusive one. An owner that holds a lock on a part of the span
already goes to the front, since those behind wait for it anyway.

Whoever must wait looks for a cycle first: the owners it would wait for, those that they wait for,
and so on. A new cycle can only go through the newest waiter, so nobody else has to look; it gets
DeadlockError, which names the cycle, and waits for nothing.

Locks exclude those who lock; they do not hold up transactions and writes that do not.

Thread safety: safe. An owner is used by one thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isnan

from holdfast.base import ConflictError, DeadlockError, mark, successor
from holdfast.env import Env, ReentryError
from holdfast.txn.conflict import shown

LOOK_SECONDS = 0.5
"""Who waits looks this often whether an owner was forgotten: a finalizer cannot wake anybody."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is locked: the keys in [start, stop) of a keyspace; None is unbounded."""

    keyspace: int
    start: bytes
    stop: bytes | None

    def overlaps(self, other: Span) -> bool:
        """Whether both have a key."""
        return (
            self.keyspace == other.keyspace
            and (other.stop is None or self.start < other.stop)
            and (self.stop is None or other.start < self.stop)
        )

    def holds(self, other: Span) -> bool:
        """Whether all keys of the other are in this one."""
        return (
            self.keyspace == other.keyspace
            and self.start <= other.start
            and (self.stop is None or (other.stop is not None and other.stop <= self.stop))
        )

    def __str__(self) -> str:
        if self.stop == successor(self.start):
            return f"key {shown(self.start)}"
        return f"the range from {shown(self.start)} to {shown(self.stop)}"


@dataclass(eq=False, slots=True)
class Owner:
    """Somebody who holds locks, and waits for at most one."""

    name: str
    grants: list[Request] = field(default_factory=list)
    """What it holds, in the order it was granted."""
    waiting: Request | None = None


@dataclass(eq=False, slots=True)
class Request:
    """A lock that was asked for."""

    owner: Owner
    span: Span
    shared: bool
    wake: Callable[[], None]
    """Called with the mutex of the table when it is granted."""
    granted: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether it is neither granted nor, because the owner was ended, given up."""
        return not self.granted and self.owner.waiting is self

    def blocks(self, other: Request) -> bool:
        """Whether both cannot be granted."""
        return (
            self.owner is not other.owner
            and not (self.shared and other.shared)
            and self.span.overlaps(other.span)
        )


def deadline(now: float, timeout: float | None) -> float | None:
    """Return the time at which a wait of `timeout` seconds ends that begins now. Raises: TypeError,
    ValueError for what is no number: such a wait would not end.
    """
    until = None if timeout is None else now + timeout
    if until is not None and isnan(until):
        raise ValueError(f"a timeout is a number of seconds, not {timeout}")
    return until


class LockTable:
    """The locks of one database."""

    def __init__(self, env: Env, look: Callable[[], None] = lambda: None) -> None:
        self._env = env
        # Ends owners whom nobody else will end; called now and then while somebody waits.
        self._look = look
        self._mutex = env.mutex()
        # Granted locks of one key by (keyspace, key), and those of more.
        self._keys: dict[tuple[int, bytes], list[Request]] = {}
        self._ranges: list[Request] = []
        self._queue: list[Request] = []
        self._dropped: deque[Owner] = deque()

    # -- asking

    def acquire(
        self, owner: Owner, span: Span, *, shared: bool, timeout: float | None = None
    ) -> None:
        """Take a lock, and wait for it at most `timeout` seconds (None: as long as it takes).
        Return without it when the owner was ended meanwhile.

        Raises: DeadlockError when it would wait for itself; ConflictError when time is up.
        """
        condition = self._env.condition(self._mutex)
        # Before it is asked for: a timeout that is no number must not leave a request behind.
        until = deadline(self._env.monotonic(), timeout)
        with self._mutex:
            request = self._begin(Request(owner, span, shared, condition.notify_all))
            if request.granted:
                return
            try:
                while request.is_waiting:
                    left = LOOK_SECONDS
                    if until is not None:
                        left = min(left, until - self._env.monotonic())
                        if left <= 0:
                            raise self._timed_out(request, timeout)
                    condition.wait(left)
                    self._look()
                    self._forget_dropped()
            except BaseException:
                self._withdraw(request)
                raise

    def request(
        self, owner: Owner, span: Span, *, shared: bool, wake: Callable[[], None]
    ) -> Request:
        """Ask for a lock without waiting. `wake` is called when a request that was not granted at
        once is. Raises: DeadlockError.
        """
        with self._mutex:
            return self._begin(Request(owner, span, shared, wake))

    def withdraw(self, request: Request) -> None:
        """Give up a request, granted or not."""
        with self._mutex:
            self._withdraw(request)

    def look(self) -> None:
        """Take the locks of owners that were forgotten away."""
        self._look()
        with self._mutex:
            self._forget_dropped()

    def timed_out(self, request: Request, timeout: float | None) -> ConflictError:
        """Return the error of a request whose time is up."""
        with self._mutex:
            return self._timed_out(request, timeout)

    # -- giving back

    def release(self, owner: Owner, kept: int = 0) -> None:
        """Give back all locks of `owner` but the first `kept`."""
        if len(owner.grants) > kept or owner.waiting is not None:
            try:
                with self._mutex:
                    self._release(owner, kept)
            except ReentryError:
                if kept:
                    raise
                # Somebody's finalizer ends it, in the middle of another call here.
                mark("txn.locks_released_in_a_call")
                self.drop(owner)

    def drop(self, owner: Owner) -> None:
        """Like `release`, from a finalizer: it may run while this thread holds the mutex, so it
        only queues.
        """
        if owner.grants or owner.waiting is not None:
            self._dropped.append(owner)

    # -- with the mutex

    def _begin(self, request: Request) -> Request:
        owner = request.owner
        self._forget_dropped()
        for held in owner.grants:
            if held.span.holds(request.span) and (request.shared or not held.shared):
                request.granted = True
                return request
        # Whoever waits behind a part of the span waits for this owner already.
        ahead = any(held.span.overlaps(request.span) for held in owner.grants)
        at = 0 if ahead else len(self._queue)
        if next(self._blockers(request, at), None) is None:
            self._grant(request)
            return request
        # First who waits: its end takes it out of the queue, wherever a signal handler came.
        owner.waiting = request
        self._queue.insert(at, request)
        cycle = self._cycle(owner)
        if cycle is not None:
            self._withdraw(request)
            mark("txn.deadlock")
            raise DeadlockError(
                "waiting would never end: " + "; ".join(
                    f"{each.owner.name} waits for {each.span}, which {behind.owner.name} "
                    f"{'holds' if behind.granted else 'waits for'}"
                    for each, behind in cycle
                ) + "; run it again",
                key=request.span.start,
                stop=request.span.stop,
            )  # fmt: skip
        return request

    def _blockers(self, request: Request, queued: int) -> Iterator[Request]:
        """Yield what is in the way: granted locks, and the first `queued` of the queue."""
        span = request.span
        held = self._keys.get((span.keyspace, span.start), ())
        if span.stop != successor(span.start):
            held = [each for grants in self._keys.values() for each in grants]
        for others in (held, self._ranges, self._queue[:queued]):
            for other in others:
                if other is not request and other.blocks(request):
                    yield other

    def _cycle(self, owner: Owner) -> list[tuple[Request, Request]] | None:
        """Return the waits that lead from `owner` back to it, or None."""
        # Each with the way to it; depth first, each owner once.
        start = owner.waiting
        if start is None:
            return None
        stack: list[tuple[Request, tuple[tuple[Request, Request], ...]]] = [(start, ())]
        seen = {id(owner)}
        while stack:
            request, way = stack.pop()
            for other in self._blockers(request, self._queue.index(request)):
                longer = (*way, (request, other))
                if other.owner is owner:
                    return list(longer)
                waiting = other.owner.waiting
                if waiting is not None and id(other.owner) not in seen:
                    seen.add(id(other.owner))
                    stack.append((waiting, longer))
        return None

    def _grant(self, request: Request) -> None:
        # May be done again when a signal handler interrupted whoever served the queue.
        span, grants = request.span, request.owner.grants
        held = self._ranges
        if span.stop == successor(span.start):
            held = self._keys.setdefault((span.keyspace, span.start), [])
        for each in (grants, held):
            if request not in each:
                each.append(request)
        request.owner.waiting = None
        request.granted = True

    def _release(self, owner: Owner, kept: int) -> None:
        waiting = owner.waiting
        if waiting is not None:
            self._queue = [each for each in self._queue if each is not waiting]
            owner.waiting = None
        for request in owner.grants[kept:]:
            span = request.span
            if request in self._ranges:
                self._ranges.remove(request)
                continue
            grants = self._keys.get((span.keyspace, span.start), [])
            if request in grants:
                grants.remove(request)
                if not grants:
                    del self._keys[span.keyspace, span.start]
        del owner.grants[kept:]
        self._serve()

    def _serve(self) -> None:
        """Grant what nothing is in the way of any more, in the order of the queue."""
        at = 0
        while at < len(self._queue):
            request = self._queue[at]
            if next(self._blockers(request, at), None) is None:
                self._grant(request)
                del self._queue[at]
                request.wake()
            else:
                at += 1

    def _withdraw(self, request: Request) -> None:
        if request in self._queue:
            self._queue.remove(request)
            request.owner.waiting = None
            self._serve()

    def _forget_dropped(self) -> None:
        while self._dropped:
            self._release(self._dropped[0], 0)
            del self._dropped[0]
        # Whoever should have done it may have been interrupted.
        self._serve()

    def _timed_out(self, request: Request, timeout: float | None) -> ConflictError:
        mark("txn.lock_timed_out")
        at = self._queue.index(request) if request in self._queue else 0
        names = sorted({other.owner.name for other in self._blockers(request, at)})
        return ConflictError(
            f"{request.span} was not free within {timeout} seconds: {', '.join(names)} "
            "had it, or came first",
            key=request.span.start,
            stop=request.span.stop,
        )
