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

from holdfast.base import mark
from holdfast.engine._core import CommitState
from holdfast.engine.crew import Crew
from holdfast.engine.write_path import (
    GROUP_BYTES_MAX,
    REFUSING,
    Receiver,
    Submission,
    WritePath,
    copy_error,
)
from holdfast.env import Env

_RETRY_SECONDS = 0.001


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
                self._crew.submit(self._work)

    def _give_up(self, submission: Submission, error: Exception) -> None:
        """There is no thread: tell the others that counted on it."""
        with self._mutex:
            self._working = False
            left = self._pending.copy()
            del self._pending[: len(left)]
        others = [other for other in left if other is not submission]
        for other in others:
            other.error = copy_error(error)
        self._deliver(others)

    def _work(self) -> None:
        """The job: serve until nothing is pending."""
        while True:
            taken, size = self._take()
            if taken:
                self._write_path.commit_for_others(taken, size)
                self._deliver(taken)
                continue
            self._working = False
            # Whoever handed something in before that saw it still True.
            with self._mutex:
                if self._working or not self._pending:
                    return
                self._working = True

    def _take(self) -> tuple[list[Submission], int]:
        """Take what is served next: as much as a group may have. Return it, and its bytes."""
        with self._mutex:
            taken, total = self._pending.copy(), 0
            for index, submission in enumerate(taken):
                size = 0 if submission.batch is None else submission.batch.size
                if index and size > GROUP_BYTES_MAX - total:
                    mark("engine.submissions_divided")
                    del taken[index:]
                    break
                total += size
            # What came meanwhile stays.
            del self._pending[: len(taken)]
        return taken, total

    def _deliver(self, served: list[Submission]) -> None:
        """Tell each receiver what was served of its own."""
        shares: dict[Receiver, list[Submission]] = {}
        for submission in served:
            share = shares.get(submission.receiver)
            if share is None:
                shares[submission.receiver] = [submission]
            else:
                share.append(submission)
        for receiver, share in shares.items():
            while True:
                try:
                    receiver.receive(share)
                except MemoryError:
                    # Others wait for it, without any other way to hear of it.
                    mark("engine.delivery_again")
                    self._env.sleep(_RETRY_SECONDS)
                else:
                    break

    def stop(self) -> None:
        """Serve what is pending, which is refused when the database is closed, and end the thread.

        Requires: nothing can be written any more. A second stop is harmless.
        """
        self._crew.stop()
