"""Compiled registration of snapshots; `_tenure_py` is the specification.

Each step runs under the global interpreter lock from its first change to its last: nothing between
runs Python code, waits, or makes an object that the garbage collector knows, which could have
finalizers run. So no mutex is needed.
"""
cimport cython
from cpython.long cimport PyLong_FromVoidPtr
from cpython.object cimport PyObject
from cpython.weakref cimport PyWeakref_NewRef
from libc.stdint cimport uint64_t

from holdfast.engine._core_c cimport CommitState
from holdfast.txn._callsite_c cimport CallSite

from collections import deque


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Tenure:
    """See `_tenure_py.Tenure`."""
    cdef readonly object holder
    cdef readonly list held
    cdef readonly CallSite site
    cdef readonly uint64_t number
    cdef readonly uint64_t seq
    cdef readonly double began
    cdef readonly uint64_t bytes_before
    cdef readonly object thread
    cdef readonly object life
    cdef public object left_at

    def __init__(self, holder, list held not None):
        self.holder = PyWeakref_NewRef(holder, None)
        self.held = held
        self.site = CallSite.__new__(CallSite)
        self.site.find()


cdef class RegistryCore:
    """See `_tenure_py.RegistryCore`."""
    cdef object _counters
    cdef object _clock
    cdef object _thread_id
    cdef object _thread_life
    cdef CommitState _state
    cdef dict _tenures
    cdef uint64_t _count
    cdef public bint is_dropping
    cdef public object leaks

    def __init__(self, env, CommitState state not None, counters):
        self._clock = env.monotonic
        self._thread_id = env.thread_id
        self._thread_life = env.thread_life
        self._state = state
        self._counters = counters
        self._tenures = {}
        self.is_dropping = False
        self.leaks = deque()

    def warn(self):
        """Warn of `leaks`."""
        raise NotImplementedError  # unreachable: each registry has its own

    def written_bytes(self):
        """Return the bytes of keys and values that were written since the database was opened."""
        return self.c_written_bytes()

    cdef uint64_t c_written_bytes(self) except? 0:
        return self._state.user_bytes + <uint64_t>self._counters.ingested_user_bytes

    def acquire(self, list held not None, holder):
        """Register the newest visible sequence number and put it into `held`, which is empty. Know
        that `holder` has it until it is given back.
        """
        cdef Tenure tenure = Tenure(holder, held)
        tenure.began = self._clock()
        tenure.bytes_before = self.c_written_bytes()
        tenure.thread = self._thread_id()
        tenure.life = self._thread_life()
        if self.leaks:
            self.warn()
        where = PyLong_FromVoidPtr(<PyObject*>held)
        # Reading and registering are one step, so that a compaction which lists the snapshots
        # either sees this one or works on nothing newer than it.
        while True:
            tenure.seq = self._state.visible_seq
            held.append(tenure.seq)
            try:
                self._tenures[where] = tenure
            except MemoryError:
                held.clear()
                raise
            self._count += 1
            tenure.number = self._count
            # Asked behind the step: whoever drops says so first, and then looks who holds one.
            if not self.is_dropping:
                return tenure
            self.release(held)
            self._await_drop()

    def release(self, list held not None):
        """Give back the snapshot in `held` and take it out; does nothing when that is done.

        Raises: ValueError for a number that was never registered.
        """
        where = PyLong_FromVoidPtr(<PyObject*>held)
        if held and where not in self._tenures:
            raise ValueError("this snapshot is not held")
        held.clear()
        self._tenures.pop(where, None)

    def drop(self, list held not None):
        """Give back the snapshot in `held`, and return whether it was there: of two who do it at
        the same time, one did it. For finalizers and others that must not wait.
        """
        if not held:
            return False
        held.clear()
        self._tenures.pop(PyLong_FromVoidPtr(<PyObject*>held), None)
        return True

    def tenure_of(self, list held not None):
        """Return what is known of the snapshot in `held`. Takes no mutex."""
        return self._tenures.get(PyLong_FromVoidPtr(<PyObject*>held))

    def tenures(self):
        """Return those that are held, the oldest first."""
        cdef list found = []
        cdef Tenure tenure
        for tenure in self._tenures.values():
            if tenure.held:
                found.append(tenure)
        return found
