"""Commits for those who wait without a thread: asyncio tasks of any number of event loops.

Whoever hands in a submission goes on at once. One thread takes all that were handed in meanwhile,
joins the queue of the write path with them like any thread that commits, and then tells each
receiver once which of its submissions were served. So tasks and threads share groups, and with them
syncs; and everything that holds for a thread's commit holds for a submission.

Invariants:
1. A submission that `submit` took is given to its receiver once, with or without an error, also
   when the database is closed meanwhile. (Not when the power goes, or the process ends.)
2. While something is pending, a job that takes it is in the crew, or a submitter is about to put
   one there.

Thread safety: safe. `submit` never waits for a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from holdfast.base import mark
from holdfast.engine._core import CommitState
from holdfast.engine.crew import Crew, rest
from holdfast.engine.write_path import (
    GROUP_BYTES_MAX,
    REFUSING,
    Submission,
    WritePath,
    copy_error,
)
from holdfast.env import Env


class _Round:
    """Submissions that are served together, and how far that is. Of one job."""

    __slots__ = ("bytes", "error", "served", "taken")

    def __init__(self) -> None:
        # Those of which it is not known yet what came of them, and the bytes of their batches.
        self.taken: Sequence[Submission] = ()
        self.bytes = 0
        # What they are told that have no error of their own, once somebody tried to commit them.
        self.error: Exception | None = None
        # Those whose receivers were not told yet.
        self.served: Sequence[Submission] = ()


class Committer:
    """Serves submissions, from a thread that exists only while there are some."""

    def __init__(self, env: Env, state: CommitState, write_path: WritePath) -> None:
        self._env = env
        self._state = state
        self._write_path = write_path
        self._crew = Crew(env, "holdfast-commit", 1)
        self._mutex = env.mutex()
        # One step adds to its end, by anybody. Taken from the front, with the mutex.
        self._pending: list[Submission] = []
        # Whether a job is on its way or at work. There may be one although it is False.
        self._working = False

    def submit(self, submission: Submission) -> None:
        """Have `submission` served.

        Raises: what says that nothing can be written; MemoryError or RuntimeError when no thread
        can be started. Then it is not served, and its receiver hears nothing.
        """
        if self._state.flags & REFUSING:
            self._write_path.check_writable()
        try:
            self._pending.append(submission)
            if not self._working:
                self._begin()
        except Exception as error:
            self._give_up(submission, error)
            raise
        except BaseException:
            # A signal handler. Others may count on this call, and a job too many is harmless.
            self._working = False
            self._begin()
            raise

    def _begin(self) -> None:
        """Make sure that somebody serves what is pending."""
        with self._mutex:
            if not self._working:
                self._working = True
                self._crew.submit(partial(self._work, _Round()))

    def _give_up(self, submission: Submission, error: Exception) -> None:
        """There is no thread: tell the others that counted on it."""
        others: _Round | None = None
        while True:
            try:
                if others is None:
                    others = self._put_back(submission, error)
                self._finish(others)
            except MemoryError:
                mark("engine.refusal_again")
                rest(self._env)
            else:
                return

    def _put_back(self, submission: Submission, error: Exception) -> _Round:
        """Let nothing be pending; return all but `submission`, which are to be told of `error`."""
        others = _Round()
        others.error = error
        with self._mutex:
            self._working = False
            left = self._pending.copy()
            others.taken = [other for other in left if other is not submission]
            del self._pending[: len(left)]
        return others

    def _work(self, work: _Round) -> None:
        """The job: serve until nothing is pending."""
        while True:
            try:
                self._finish(work)
                if self._take(work):
                    continue
                self._working = False
                # Whoever handed something in before that saw it still True.
                with self._mutex:
                    if self._working or not self._pending:
                        return
                    self._working = True
            except MemoryError:
                # Others wait for this thread, without any other way to hear of what they handed in:
                # it goes on with what it had not done.
                mark("engine.committer_without_memory")
                rest(self._env)

    def _take(self, work: _Round) -> bool:
        """Take what is served next: as much as a group may have. Return whether there is some."""
        with self._mutex:
            taken, total = self._pending.copy(), 0
            for index, submission in enumerate(taken):
                size = 0 if submission.batch is None else submission.batch.size
                if index and size > GROUP_BYTES_MAX - total:
                    mark("engine.submissions_divided")
                    del taken[index:]
                    break
                total += size
            # What came meanwhile stays. This is the last that can lack memory.
            del self._pending[: len(taken)]
            work.taken, work.bytes = taken, total
        return bool(work.taken)

    def _finish(self, work: _Round) -> None:
        """Commit what was taken, and tell each receiver what was served of its own.

        When this lacked memory it is called again, and goes on: nothing is committed twice, and
        nobody is told twice.
        """
        if work.taken:
            if work.error is None:
                work.error = MemoryError("no memory to hear what came of a commit")
                self._write_path.commit_for_others(work.taken, work.bytes)
            else:
                for submission in work.taken:
                    if submission.error is None:
                        submission.error = copy_error(work.error)
            work.served, work.taken, work.error = work.taken, (), None
        while work.served:
            receiver = work.served[0].receiver
            share: list[Submission] = []
            others: list[Submission] = []
            for submission in work.served:
                (share if submission.receiver is receiver else others).append(submission)
            receiver.receive(share)
            work.served = others

    def stop(self) -> None:
        """Serve what is pending, which is refused when the database is closed, and end the thread.

        Requires: nothing can be written any more. A second stop is harmless.
        """
        self._crew.stop()
