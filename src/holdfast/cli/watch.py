"""`holdfast stats DB --watch`: the figures of a database, again and again.

While another process has the database open, they are what that process publishes when it is asked
to (docs/format/live.md). While nobody has it open they are those of the database at rest; it is
opened for reading once, and again only when its folder has other files: who watches must not stand
in the way of who wants to open it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from enum import Enum

import holdfast
from holdfast import DatabaseLockedError, Stats
from holdfast.cli.stats_table import live_lines, rest_lines, rest_object
from holdfast.crypto import KeySource
from holdfast.engine import LiveFigures, Watcher, read_live
from holdfast.env import Env, PosixEnv
from holdfast.recovery import unlock

CLEAR_SCREEN = "\x1b[H\x1b[2J"
HOLDER_CHARACTERS_MAX = 100
IDLE_SECONDS = 3.0
"""A process that has published nothing for so long has nothing to do, or is gone."""


class State(Enum):
    """How the database is."""

    OPEN = "open"
    """Another process has it open, and publishes."""
    IDLE = "idle"
    """Another process has it open, and published nothing lately."""
    SILENT = "silent"
    """Another process has it open, and has published nothing at all."""
    CLOSED = "closed"
    """Nobody has it open."""


class Watch:
    """Looks at one database from time to time. Close it when done."""

    def __init__(self, path: str, env: Env | None = None, key: KeySource | None = None) -> None:
        """With a `key` the figures of an encrypted database are shown. Raises: as `unlock`."""
        self._path = path
        self._key = key
        self._env = PosixEnv() if env is None else env
        if key is not None:
            self._env = unlock(self._env, path, key)
        self._watcher = Watcher(self._env, path)
        self._names: list[str] = []
        self._rest: Stats | None = None
        self.state = State.CLOSED
        self.holder = ""
        """What is known of the process that has the database open."""
        self.figures: LiveFigures | None = None
        self.before: LiveFigures | None = None
        """What was published before `figures`, when that was the same process."""

    @property
    def rest(self) -> Stats | None:
        """The figures of the database at rest, while the state is CLOSED."""
        return self._rest

    def look(self) -> State:
        """Find out how the database is now. Raises: what opening it raises."""
        found = read_live(self._env, self._path)
        if found is not None and self._age(found) < IDLE_SECONDS:
            self._take(found, State.OPEN)
        elif self._rest is None or self._env.list_dir(self._path) != self._names:
            try:
                with holdfast.open(self._path, read_only=True, key=self._key) as database:
                    self._rest = database.stats()
                self._names = self._env.list_dir(self._path)
                self.state, self.figures, self.before = State.CLOSED, None, None
            except DatabaseLockedError as error:
                holder = " ".join(str(error).partition(" is locked by ")[2].split())
                self.holder = holder[:HOLDER_CHARACTERS_MAX]
                if found is None:
                    self.state, self.figures, self.before = State.SILENT, None, None
                else:
                    self._take(found, State.IDLE)
        if self.state is not State.CLOSED:
            self._rest = None
            # A folder that takes no request may hold figures that are published always.
            with suppress(OSError):
                self._watcher.ask()
        return self.state

    def close(self) -> None:
        """Ask for no more figures."""
        self._watcher.close()

    def _take(self, found: LiveFigures, state: State) -> None:
        last = self.figures
        if last is not None and last.stats.seconds_open < found.stats.seconds_open:
            self.before = last
        elif last is None or last.sequence != found.sequence:
            self.before = None
        self.figures, self.state = found, state

    def _age(self, found: LiveFigures) -> float:
        return abs(self._env.wall_time() - found.published)


def watch(
    path: str, *, interval: float, count: int | None, as_json: bool, key: KeySource | None = None
) -> int:
    """Show a database every `interval` seconds, `count` times or until Ctrl-C; return 0."""
    env = PosixEnv()
    view = Watch(path, env, key)
    try:
        shown = 0
        while count is None or shown < count:
            if shown:
                env.sleep(interval)
            view.look()
            if as_json:
                print(json.dumps(_object(view, env.wall_time())), flush=True)
            else:
                print(_between(is_first=not shown) + "\n".join(_lines(view)), flush=True)
            shown += 1
    except KeyboardInterrupt:
        # The way to end it.
        return 0
    finally:
        view.close()
    return 0


def _object(view: Watch, now: float) -> dict[str, object]:
    found: dict[str, object] = {"time": now, "state": view.state.value}
    if view.figures is not None:
        stats = view.figures.stats
        found |= {
            "published": view.figures.published,
            "stats": asdict(stats) | amplifications(stats),
            "rates": rates(view),
        }
    elif view.rest is not None:
        found |= {"stats": rest_object(view.rest)}
    return found


def amplifications(stats: Stats) -> dict[str, float]:
    """Return the ratios of figures, which are no fields of theirs."""
    return {
        "write_amplification": stats.write_amplification,
        "disk_write_amplification": stats.disk_write_amplification,
        "read_amplification": stats.read_amplification,
        "read_bytes_amplification": stats.read_bytes_amplification,
        "space_amplification": stats.space_amplification,
        "pool_hit_ratio": stats.pool_hit_ratio,
    }


def rates(view: Watch) -> dict[str, float]:
    """Return what happened in each second between the last two looks; at the first look and of a
    process that publishes nothing new, in each second of the last minute that it published.
    """
    figures, before = view.figures, view.before
    if figures is None:
        return {}
    now = figures.stats
    if before is None:
        return {
            "writes": now.recent.writes,
            "reads": now.recent.reads,
            "rows": now.recent.rows,
            "user_bytes": now.recent.user_bytes,
            "pages_read": now.recent.pages_read,
        }
    then = before.stats
    if view.state is State.IDLE:
        return dict.fromkeys(("writes", "reads", "rows", "user_bytes", "pages_read"), 0.0)
    seconds = now.seconds_open - then.seconds_open
    return {
        "writes": (now.writes - then.writes) / seconds,
        "reads": (now.reads - then.reads) / seconds,
        "rows": (now.rows_scanned - then.rows_scanned) / seconds,
        "user_bytes": (now.user_bytes_written - then.user_bytes_written) / seconds,
        "pages_read": max(now.pages_read - then.pages_read, 0) / seconds,
    }


def _between(*, is_first: bool) -> str:
    """Return what stands before a table: on a terminal each takes the place of the one before."""
    if sys.stdout.isatty():
        return CLEAR_SCREEN
    return "" if is_first else "\n"


def _lines(view: Watch) -> Iterator[str]:
    if view.state is State.CLOSED:
        yield "nobody has the database open; at rest:"
        if view.rest is not None:
            yield from rest_lines(view.rest)
    elif view.figures is None:
        yield f"open in {view.holder}, which has published nothing yet"
        yield "it answers when it next reads or writes, unless its setting publish is 'never'"
    else:
        if view.state is State.IDLE:
            yield f"open in {view.holder}, which has published nothing lately; what it said last:"
        yield from live_lines(view.figures, rates(view))
