"""Opening a database without keeping an event loop waiting."""

from __future__ import annotations

import os
from asyncio import Future, get_running_loop  # noqa: TID251  aio knows event loops
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from holdfast import engine
from holdfast.aio.bridge import work
from holdfast.aio.database import Database
from holdfast.base import DatabaseSettings, mark
from holdfast.crypto import Key
from holdfast.env import Env, PosixEnv
from holdfast.merge import MergeFunction
from holdfast.recovery import key_source


class _Opening:
    """A database on its way from the thread that opens it to the task that waits for it."""

    def __init__(self) -> None:
        # Whoever takes it out has it: the task, or what closes it when the task was cancelled.
        self.opened: list[engine.Database] = []
        self.is_unwanted = False

    def close_unwanted(self) -> None:
        """Close the database if nobody has it."""
        with suppress(IndexError):
            database = self.opened.pop()
            mark("aio.open_cancelled")
            database.close()


async def open_database(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    key: Key | None = None,
    root: bytes | None = None,
    settings: DatabaseSettings | None = None,
    merges: Mapping[str, MergeFunction | Callable[..., bytes]] | None = None,
    env: Env | None = None,
) -> Database:
    """Open the database in folder `path`; see `holdfast.open`, whose arguments and exceptions it
    has. When the task is cancelled meanwhile the database is closed again.
    """
    machine = PosixEnv() if env is None else env
    try:
        source = key_source(key)
    finally:
        # What a traceback shows of this frame must not be the key.
        del key
    opening = _Opening()

    def open_it() -> None:
        opening.opened.append(
            engine.open_database(
                path,
                create=create,
                read_only=read_only,
                key=source,
                root=root,
                settings=settings,
                merges=merges,
                env=machine,
            )
        )
        if opening.is_unwanted:
            opening.close_unwanted()

    loop = get_running_loop()
    future: Future[None] = loop.create_future()
    task = machine.spawn("holdfast-aio-open", partial(work, machine, loop, future, open_it))
    try:
        await future
        task.join()
    except BaseException:
        # Cancelled, or the loop was left: nobody will close it.
        opening.is_unwanted = True
        if opening.opened:
            machine.spawn("holdfast-aio-close", opening.close_unwanted)
        raise
    return Database(machine, opening.opened.pop())
