"""Compiled mutex that knows who holds it; `_mutex_py` is the specification."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK, PY_LOCK_ACQUIRED, PY_LOCK_INTR, PyLockStatus, PyThread_acquire_lock,
    PyThread_allocate_lock, PyThread_free_lock, PyThread_get_thread_ident, PyThread_release_lock,
    PyThread_type_lock,
)

from time import monotonic

from holdfast.env.protocol import ReentryError

cdef extern from "pythread.h":
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock lock, long long microseconds, int intr_flag) nogil

cdef enum:
    # A wait is in pieces of at most so long, which no system finds too long.
    PIECE_SECONDS = 1000


@cython.final
cdef class OwnedMutex:
    """See `_mutex_py.OwnedMutex`."""
    cdef PyThread_type_lock _lock
    cdef bint _held
    # The thread that holds it, or 0. Like all of this, changed with the interpreter lock.
    cdef unsigned long _owner

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError("no memory for a lock")

    def __dealloc__(self):
        if self._lock is not NULL:
            if self._held:
                # The system may mind one that is freed while it is taken.
                PyThread_release_lock(self._lock)
            PyThread_free_lock(self._lock)

    cdef bint _take(self, bint blocking, double timeout) except -1:
        cdef unsigned long thread = <unsigned long>PyThread_get_thread_ident()
        if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
            if not blocking:
                return False
            if self._owner == thread and timeout < 0:
                raise ReentryError("a mutex")
            if not self._wait(timeout):
                return False
        self._held = True
        self._owner = thread
        return True

    cdef bint _wait(self, double timeout) except -1:
        cdef PyLockStatus status
        cdef double left = PIECE_SECONDS
        cdef double deadline = monotonic() + timeout if timeout >= 0 else 0
        cdef long long microseconds
        while True:
            if timeout >= 0:
                left = min(deadline - <double>monotonic(), <double>PIECE_SECONDS)
                if left < 0:
                    left = 0
            microseconds = <long long>(left * 1e6)
            with nogil:
                status = PyThread_acquire_lock_timed(self._lock, microseconds, 1)
            if status == PY_LOCK_ACQUIRED:
                return True
            if status == PY_LOCK_INTR:
                # Raises what a handler raises.
                PyErr_CheckSignals()
            elif timeout >= 0 and left < PIECE_SECONDS:
                return False

    def acquire(self, bint blocking=True, timeout=-1):
        """Take the mutex; return whether it was taken. A negative timeout waits without limit.

        Raises: ReentryError when it would wait for its own thread without limit; what a signal
        handler raises, with the mutex not taken.
        """
        return self._take(blocking, timeout)

    def release(self):
        """Give the mutex back; any thread may. Raises: RuntimeError when nobody holds it."""
        if not self._held:
            raise RuntimeError("release of a mutex that nobody holds")
        self._owner = 0
        self._held = False
        PyThread_release_lock(self._lock)

    def hand_to(self, unsigned long thread):
        """Say that another thread holds it from now on. Requires: it is held."""
        self._owner = thread

    def __enter__(self):
        return self._take(True, -1)

    def __exit__(self, kind, value, traceback):
        self.release()
