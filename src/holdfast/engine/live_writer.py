"""Publishes the figures of an open database in a small file of its folder, for other processes.

The file LIVE is written anew in place, about once a second, as long as somebody asks for it by the
file WATCH (or always, as the setting `publish` says). It is never synced, and its reader finds by a
checksum whether it caught it half written. When nobody asks any more it is removed. A database that
nobody watches pays one look at a name for each second of work.

Guarantees: whatever goes wrong here concerns nobody: no exception leaves a job, and a file that
could not be made, written or removed is left to the next try, or to the next open. With `publish`
"never" nothing is looked at and nothing is written.

Thread safety: `look` may be called from any thread; one job runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from holdfast.base import mark
from holdfast.engine.live_format import (
    WATCH_BYTES,
    LiveFigures,
    decode_watch,
    encode_live,
)
from holdfast.engine.stats import Stats
from holdfast.env import Env, File
from holdfast.recovery import LIVE_NAME, WATCH_NAME

PUBLISH_SECONDS = 1.0
ASKED_SECONDS = 10.0
"""A request that was not renewed for so long is over."""


class Publisher:
    """Publishes what `collect` returns. `submit` runs a job in the background, `pause` waits in it
    and returns whether it should go on. While `keeps_files` nothing is removed.
    """

    def __init__(
        self,
        env: Env,
        folder: str,
        mode: str,
        *,
        collect: Callable[[], Stats],
        submit: Callable[[Callable[[], None]], None],
        pause: Callable[[float], bool],
        keeps_files: Callable[[], bool],
    ) -> None:
        self._env = env
        self._folder = folder
        self._mode = mode
        self._collect = collect
        self._submit = submit
        self._pause = pause
        self._keeps_files = keeps_files
        self._sequence = 0

    def start(self) -> None:
        """Begin, if figures are always published."""
        if self._mode == "always":
            self._submit(self._run)

    def look(self) -> None:
        """Begin, if somebody asks. Raises: OSError, MemoryError, RuntimeError."""
        if self._mode != "never" and self._is_asked():
            self._submit(self._run)

    def _is_asked(self) -> bool:
        if self._mode == "always":
            return True
        try:
            file = self._env.open(f"{self._folder}/{WATCH_NAME}")
        except FileNotFoundError:
            return False
        try:
            asked = decode_watch(file.read_at(0, WATCH_BYTES + 1)) / 1_000_000
        except ValueError:
            return False
        finally:
            file.close()
        return abs(self._env.wall_time() - asked) <= ASKED_SECONDS

    def _run(self) -> None:
        """Publish until nobody asks any more or the database is closed."""
        file: File | None = None
        try:
            file = self._create()
            while True:
                self._publish(file)
                if not self._pause(PUBLISH_SECONDS) or not self._is_asked():
                    break
        except Exception:  # noqa: BLE001  it concerns nobody, and a job that raises would poison
            mark("engine.publish_failed")
        finally:
            if file is not None:
                self._remove(file)

    def _publish(self, file: File) -> None:
        self._sequence += 1
        figures = LiveFigures(
            sequence=self._sequence,
            published=self._env.wall_time(),
            keyspaces_left_out=0,
            stats=self._collect(),
        )
        file.write_at(0, encode_live(figures), site="live.write")

    def _create(self) -> File:
        """Return a new file, never one that another process life wrote to."""
        path = f"{self._folder}/{LIVE_NAME}"
        try:
            return self._env.create(path, site="live.create")
        except FileExistsError:
            self._env.unlink(path, site="live.unlink")
            return self._env.create(path, site="live.create")

    def _remove(self, file: File) -> None:
        with suppress(OSError, MemoryError):
            file.close()
            if not self._keeps_files():
                self._env.unlink(file.name, site="live.unlink")
