"""Reads the figures that another process publishes, and asks it for them.

Thread safety: a `Watcher` belongs to one thread.
"""

from __future__ import annotations

from contextlib import suppress

from holdfast.engine.live_format import (
    LIVE_HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    WATCH_BYTES,
    LiveFigures,
    decode_live,
    decode_watch,
    encode_watch,
)
from holdfast.engine.live_writer import ASKED_SECONDS
from holdfast.env import Env, File
from holdfast.recovery import LIVE_NAME, WATCH_NAME

READ_TRIES = 5
TRY_SECONDS = 0.01
"""After this time a file that was caught half written is read again."""


def read_live(env: Env, folder: str) -> LiveFigures | None:
    """Return the figures that a process published last; None where there are none that are whole.

    They may be those of a process that is gone. Raises: OSError when the file cannot be read.
    """
    for attempt in range(READ_TRIES):
        if attempt:
            env.sleep(TRY_SECONDS)
        try:
            file = env.open(f"{folder}/{LIVE_NAME}")
        except FileNotFoundError:
            return None
        try:
            return decode_live(file.read_at(0, LIVE_HEADER_BYTES + PAYLOAD_BYTES_MAX))
        except ValueError:
            continue
        finally:
            file.close()
    return None


class Watcher:
    """Asks the process that has a database open to publish its figures, as long as `ask` is called
    from time to time. Several may ask at once: one of them renews the request for all.
    """

    def __init__(self, env: Env, folder: str) -> None:
        self._env = env
        self._path = f"{folder}/{WATCH_NAME}"
        self._file: File | None = None

    def ask(self) -> None:
        """Ask, or ask again. Raises: OSError when the folder takes no request."""
        request = encode_watch(int(self._env.wall_time() * 1_000_000))
        if self._file is not None and not self._is_there():
            self._let_go()
        if self._file is None:
            try:
                self._file = self._env.create(self._path, site="watch.create")
            except FileExistsError:
                if self._is_fresh():
                    return
                # Of somebody who did not end by himself.
                with suppress(FileNotFoundError):
                    self._env.unlink(self._path, site="watch.unlink")
                self._file = self._env.create(self._path, site="watch.create")
        self._file.write_at(0, request, site="watch.write")

    def close(self) -> None:
        """Ask no more. Harmless the second time."""
        if self._file is not None:
            self._let_go()
            with suppress(OSError):
                self._env.unlink(self._path, site="watch.unlink")

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _is_there(self) -> bool:
        try:
            self._env.file_size(self._path)
        except FileNotFoundError:
            return False
        return True

    def _is_fresh(self) -> bool:
        """Return whether the request of somebody else is not over."""
        try:
            file = self._env.open(self._path)
        except FileNotFoundError:
            return False
        try:
            asked = decode_watch(file.read_at(0, WATCH_BYTES + 1)) / 1_000_000
        except ValueError:
            return False
        finally:
            file.close()
        return abs(self._env.wall_time() - asked) <= ASKED_SECONDS / 2
