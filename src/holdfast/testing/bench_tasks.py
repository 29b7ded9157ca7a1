"""Durable commits of asyncio tasks, beside those of threads and a bare write and sync."""

from __future__ import annotations

import asyncio
import contextlib

import holdfast.aio
from holdfast.env import PosixEnv
from holdfast.testing.bench_commit import (
    BARE_RATIO,
    CROWD_SLICES,
    THREADS_MULTIPLE,
    Committer,
    Crowd,
    opened,
)
from holdfast.testing.bench_measure import Figure, Options, Rounds, quotients, rounds_of

TASKS = 1_000
TASKS_MULTIPLE = 25.0


class TaskCrowd:
    """An event loop with so many tasks that commit at the same time, over a committer's engine."""

    def __init__(self, committer: Committer, count: int) -> None:
        self._committer = committer
        self._count = count
        self._database = holdfast.aio.Database(PosixEnv(), committer.database)
        self._loop = asyncio.new_event_loop()

    def commit(self, each: int) -> int:
        """Commit so many rows from each task; return their number. Making the tasks counts."""
        shares = [self._committer.rows(each) for _ in range(self._count)]
        self._loop.run_until_complete(self._commit_all(shares))
        return each * self._count

    async def _commit_all(self, shares: list[list[tuple[bytes, bytes]]]) -> None:
        await asyncio.gather(*[self._commit_share(share) for share in shares])

    async def _commit_share(self, share: list[tuple[bytes, bytes]]) -> None:
        put = self._database.put
        for key, value in share:
            await put(key, value)

    def close(self) -> None:
        """Close the loop."""
        self._loop.close()


def tasks(options: Options) -> list[Figure]:
    """`await db.put(key, value)` from 1,000 asyncio tasks and from one, `db[key] = value` from many
    threads and from one, and pwrite + fdatasync of what one commit logs, all in turns.

    The tasks of one round begin together; its time ends when the last one has committed its last
    row.
    """
    each = max(options.commits // 50, 1)
    each_thread = max(options.commits // 20, 1)
    with (
        opened(options) as (committer, bare, _),
        contextlib.closing(Crowd(committer, options.threads)) as threads,
        contextlib.closing(TaskCrowd(committer, TASKS)) as many_tasks,
        contextlib.closing(TaskCrowd(committer, 1)) as one_task,
    ):
        threads.commit(each_thread)
        many_tasks.commit(each)
        slice_commits = max(options.commits // CROWD_SLICES, 1)
        taken = rounds_of(
            options.rounds,
            lambda: bare.write(slice_commits),
            lambda: committer.commit(slice_commits),
            lambda: one_task.commit(slice_commits),
            lambda: threads.commit(each_thread),
            lambda: many_tasks.commit(each),
            slices=CROWD_SLICES,
        )
    return figures(options.threads, taken)


def figures(thread_count: int, taken: list[Rounds]) -> list[Figure]:
    """Return the rows of the report."""
    bare, thread, task, threads, many_tasks = taken

    def ratio(what: str, above: Rounds, below: Rounds) -> Figure:
        return Figure(
            what=what,
            unit="times",
            sync="commit",
            rounds=quotients(above.wall, below.wall),
            cpu=quotients(above.cpu, below.cpu),
            beside=quotients(above.beside, below.beside),
        )

    return [
        bare.figure("bare pwrite + fdatasync", "us", sync="commit"),
        thread.figure("durable commit, 1 thread", "us/commit", sync="commit"),
        task.figure("durable commit, 1 task", "us/commit", sync="commit"),
        threads.figure(f"durable commit, {thread_count} threads", "us/commit", sync="commit"),
        many_tasks.figure(f"durable commit, {TASKS:,} tasks", "us/commit", sync="commit"),
        ratio("1 thread / bare write and sync", thread, bare).with_budget(BARE_RATIO),
        ratio(f"rate of {thread_count} threads / rate of one", thread, threads).with_budget(
            THREADS_MULTIPLE, at_least=True
        ),
        ratio(f"rate of {TASKS:,} tasks / rate of one thread", thread, many_tasks).with_budget(
            TASKS_MULTIPLE, at_least=True
        ),
        ratio(f"bare write and sync / {TASKS:,} tasks", bare, many_tasks),
    ]
