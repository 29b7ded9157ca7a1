"""A mutex that knows who holds it: the plain twin, which is the specification.

Python runs finalizers and signal handlers in the middle of whatever a thread does, also while it
holds a mutex. One of them that calls the same database again would wait for its own thread, for
ever. So whoever takes a mutex twice gets an error instead. (An error-checking mutex, as POSIX has
it.)

Guarantees: with the compiled twin a signal handler cannot come between the taking and the note of
it; with this one it can, and then nobody gives the mutex back.

Thread safety: safe.
"""

from __future__ import annotations

import _thread
import threading
from types import TracebackType

from holdfast.env.protocol import ReentryError


class OwnedMutex:
    """A lock that is not re-entrant, of the real machine. Implements `Mutex`."""

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        try:
            self._lock = threading.Lock()
        except RuntimeError as exc:
            raise MemoryError("no memory for a lock") from exc
        # The thread that holds it, or 0.
        self._owner = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the mutex; return whether it was taken. A negative timeout waits without limit.

        Raises: ReentryError when it would wait for its own thread without limit; what a signal
        handler raises, with the mutex not taken.
        """
        thread = _thread.get_ident()
        if self._owner == thread and blocking and timeout < 0:
            raise ReentryError("a mutex")
        if not self._lock.acquire(blocking, timeout if blocking else -1):
            return False
        self._owner = thread
        return True

    def release(self) -> None:
        """Give the mutex back; any thread may. Raises: RuntimeError when nobody holds it."""
        self._owner = 0
        self._lock.release()

    def hand_to(self, thread: int) -> None:
        """Say that another thread holds it from now on. Requires: it is held."""
        self._owner = thread

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
