"""The way between event loops and the threads of an engine, there and back.

There, a commit that has to wait is handed to the engine's committer, and anything that may wait for
the disk or for a lock that is held during I/O goes to a crew. Back, one callback of a loop resolves
the futures of all commits of a group.

A task that is cancelled leaves its future behind: the work goes on, and what comes of it is
dropped. A loop that was closed is told nothing.

Thread safety: safe; each future belongs to the loop that made it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, get_running_loop  # noqa: TID251  aio knows event loops
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar

from holdfast.base import mark
from holdfast.engine import FORKED, CommitState, Condition, Crew, Submission
from holdfast.env import Env
from holdfast.wal import WriteBatch

Result = TypeVar("Result")

AT_ONCE_BYTES_MAX = 64 << 10
"""A longer batch would keep the event loop, so it is committed in a thread though nobody has to
wait for a disk.
"""

THREADS_MAX = 32
"""More calls that wait for the disk at the same time wait for each other."""

_RETRY_SECONDS = 0.001


class Unread(Enum):
    """Stands for an answer that takes a page from a file, which no key has."""

    TAKES_A_READ = 0


TAKES_A_READ: Final = Unread.TAKES_A_READ


class Commit(Submission):
    """A submission that a task waits for."""

    __slots__ = ("future",)

    def __init__(
        self,
        mailbox: Mailbox,
        batch: WriteBatch | None,
        durability: str | None,
        keyspaces: tuple[int, ...] = (),
        check: Condition | None = None,
    ) -> None:
        super().__init__(mailbox, batch, durability, keyspaces, check)
        self.future: Future[None] = mailbox.loop.create_future()


class Mailbox:
    """Where one event loop is told of commits. Implements `Receiver`."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop

    def receive(self, served: list[Submission]) -> None:
        tell(self.loop, _settle_commits, served)


class Bridge:
    """What the handles of one database share."""

    def __init__(self, env: Env, state: CommitState) -> None:
        self.env = env
        self.state = state
        self._crew = Crew(env, "holdfast-aio", THREADS_MAX)
        self._mailboxes: dict[AbstractEventLoop, Mailbox] = {}

    def mailbox(self) -> Mailbox:
        """Return the mailbox of the running loop."""
        loop = get_running_loop()
        return self._mailboxes.get(loop) or self._new_mailbox(loop)

    def _new_mailbox(self, loop: AbstractEventLoop) -> Mailbox:
        # A new dictionary each time: another thread may look into the old one.
        living = {other: box for other, box in self._mailboxes.items() if not other.is_closed()}
        made = living[loop] = Mailbox(loop)
        self._mailboxes = living
        return made

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run `function` in a thread, and return or raise what comes of it."""
        return await self.start(function)

    def start(self, function: Callable[[], Result]) -> Future[Result]:
        """Have `function` run in a thread; return the future of its result."""
        loop = get_running_loop()
        future: Future[Result] = loop.create_future()
        if self.state.flags & FORKED:
            # It refuses at once, and the threads are the parent's.
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  the task raises it
                future.set_exception(error)
            return future
        self._crew.submit(partial(work, self.env, loop, future, function))
        return future

    def stop(self) -> None:
        """Return when what runs in threads has ended; nothing can be started from then on."""
        self._crew.stop()


def work(
    env: Env, loop: AbstractEventLoop, future: Future[Any], function: Callable[[], object]
) -> None:
    """Run `function` in this thread and resolve `future` in its loop."""
    result: object = None
    error: BaseException | None = None
    try:
        result = function()
    except StopIteration as caught:
        # No future takes it, and a coroutine that raises it itself raises this.
        error = RuntimeError("coroutine raised StopIteration")
        error.__cause__ = caught
    except BaseException as caught:  # noqa: BLE001  the task raises it, SystemExit too
        error = caught
    while True:
        try:
            tell(loop, _settle, future, result, error)
        except MemoryError:
            # A task waits for it, without any other way to hear of it.
            mark("aio.tell_again")
            env.sleep(_RETRY_SECONDS)
        else:
            return


def tell(loop: AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Have a loop call `function`; nothing happens when the loop was closed."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
        # Its tasks are gone.
        mark("aio.loop_closed")


def _settle_commits(served: list[Commit]) -> None:
    for commit in served:
        future = commit.future
        if not future.done():
            if commit.error is None:
                future.set_result(None)
            else:
                future.set_exception(commit.error)


def _settle(future: Future[Any], result: object, error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
