"""A gate whose waiters do not queue for the interpreter lock: the plain twin, which is the
specification.

Whoever opens a gate holds the interpreter lock, and goes on for some microseconds. The thread that
was let through would wake meanwhile only to sleep again before that lock: two switches of threads
where one would do. So in the compiled twin it first waits, for PATIENCE_NANOSECONDS at most and
giving the processor away, until a thread goes to sleep at any gate, which has the lock no more. In
a chain of threads that let each other through, as followers of a commit group are, that is the one
that opened it. (Adaptive mutexes, of Solaris for one, spin like this while the owner runs.)

Nobody can tell that from the outside but by the time it takes, so the plain twin is a lock of
Python.

Thread safety: safe.
"""

from __future__ import annotations

import threading


class PatientGate:
    """Where a thread waits until another one opens it, of the real machine. Implements `Gate`."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        try:
            self._lock = threading.Lock()
        except RuntimeError as exc:
            raise MemoryError("no memory for a gate") from exc
        self._lock.acquire()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Go through; return whether it opened in time. A negative timeout waits without limit.

        Raises: what a signal handler raises, with the gate as it was.
        """
        return self._lock.acquire(blocking, timeout if blocking else -1)

    def release(self) -> None:
        """Open the gate; any thread may. Raises: RuntimeError when it is open."""
        self._lock.release()
