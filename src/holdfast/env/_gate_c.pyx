"""Compiled gate that waits for its opener to leave; `_gate_py` is the specification."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK, PY_LOCK_ACQUIRED, PY_LOCK_INTR, PyLockStatus, PyThread_acquire_lock,
    PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock,
)
from libc.stdint cimport int64_t, uint64_t

from time import monotonic

cdef extern from "pythread.h":
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock lock, long long microseconds, int intr_flag) nogil

cdef extern from "sched.h":
    int sched_yield() nogil

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>
    /* How often a thread has left the interpreter lock to sleep at a gate. */
    static uint64_t holdfast_departures;
    static inline void holdfast_depart(void) {
        __atomic_fetch_add(&holdfast_departures, 1, __ATOMIC_RELEASE);
    }
    static inline uint64_t holdfast_departed(void) {
        return __atomic_load_n(&holdfast_departures, __ATOMIC_ACQUIRE);
    }
    static inline int64_t holdfast_nanoseconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    void holdfast_depart() nogil
    uint64_t holdfast_departed() nogil
    int64_t holdfast_nanoseconds() nogil

cdef enum:
    # A wait is in pieces of at most so long, which no system finds too long.
    PIECE_SECONDS = 1000
    # So long, at most, does a thread that was let through wait for the interpreter lock to be free.
    PATIENCE_NANOSECONDS = 30_000


@cython.final
cdef class PatientGate:
    """See `_gate_py.PatientGate`."""
    cdef PyThread_type_lock _lock
    cdef bint _is_open
    # The departures when it was opened. The lock orders this with what its waiter reads.
    cdef uint64_t _departed

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError("no memory for a gate")
        PyThread_acquire_lock(self._lock, NOWAIT_LOCK)

    def __dealloc__(self):
        if self._lock is not NULL:
            if not self._is_open:
                # The system may mind one that is freed while it is taken.
                PyThread_release_lock(self._lock)
            PyThread_free_lock(self._lock)

    def acquire(self, bint blocking=True, timeout=-1):
        """Go through; return whether it opened in time. A negative timeout waits without limit.

        Raises: what a signal handler raises, with the gate as it was.
        """
        if PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
            self._is_open = False
            return True
        return blocking and self._wait(timeout)

    cdef bint _wait(self, double timeout) except -1:
        cdef PyLockStatus status
        cdef double left = PIECE_SECONDS
        cdef double deadline = <double>monotonic() + timeout if timeout >= 0 else 0
        cdef long long microseconds
        cdef int64_t until
        while True:
            if timeout >= 0:
                left = min(deadline - <double>monotonic(), <double>PIECE_SECONDS)
                if left < 0:
                    left = 0
            microseconds = <long long>(left * 1e6)
            with nogil:
                holdfast_depart()
                # Behind it, whoever was let through by this thread may take the interpreter lock.
                status = PyThread_acquire_lock_timed(self._lock, microseconds, 1)
                if status == PY_LOCK_ACQUIRED:
                    self._is_open = False
                if status == PY_LOCK_ACQUIRED and holdfast_departed() == self._departed:
                    until = holdfast_nanoseconds() + PATIENCE_NANOSECONDS
                    while holdfast_departed() == self._departed and holdfast_nanoseconds() < until:
                        # As a rule both are on one processor, which the opener needs to go on.
                        sched_yield()
            if status == PY_LOCK_ACQUIRED:
                return True
            if status == PY_LOCK_INTR:
                # Raises what a handler raises.
                PyErr_CheckSignals()
            elif timeout >= 0 and left < PIECE_SECONDS:
                return False

    def release(self):
        """Open the gate; any thread may. Raises: RuntimeError when it is open."""
        if self._is_open:
            raise RuntimeError("the gate is open")
        self._is_open = True
        self._departed = holdfast_departed()
        PyThread_release_lock(self._lock)
