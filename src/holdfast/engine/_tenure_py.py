"""Who holds which snapshot: the plain Python twin and specification of `_tenure_c`.

A snapshot is held as long as its number stands in the list that its holder has. Whoever takes the
number out of the list has given the snapshot back, and taking it out is one step: of two who try it
at the same time, one did it.

A signal handler may raise in the main thread behind every call. So what is registered changes by
assignments without a call between them: no number is held that nobody can give back.

Thread safety: safe. `drop` takes no mutex, so a finalizer may call it at any line.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Protocol

from holdfast.base import Error, mark
from holdfast.engine._core import CommitState
from holdfast.env import Env, OwnedMutex, ReentryError, ThreadLife
from holdfast.txn import CallSite

if TYPE_CHECKING:
    from holdfast.engine.stats import Counters


class Holder(Protocol):
    """Who holds a snapshot: a transaction, or a `Snapshot` that a user has."""

    @property
    def moved(self) -> bool:
        """Whether another thread than the one that began it has used it, and may go on."""
        ...

    def let_go(self, why: Error) -> bool:
        """End, unless it has ended or must not be ended now; return whether it did.

        From then on nothing can be read, and uses raise `why`. Called with the registry's mutex.
        """
        ...

    def about(self) -> tuple[str, bool]:
        """Return what it is (an isolation level, or "view") and whether it only reads."""
        ...


class Tenure:
    """How long somebody has held a snapshot, and what that costs."""

    def __init__(self, holder: Holder, held: list[int]) -> None:
        self.holder = weakref.ref(holder)
        self.held = held
        self.site = CallSite()
        self.number = 0
        """Which it is of all since the database was opened."""
        self.seq = 0
        """The sequence number it reads at."""
        self.began = 0.0
        self.bytes_before = 0
        self.thread = 0
        self.life: ThreadLife | None = None
        self.left_at: float | None = None
        """When somebody saw that its thread had ended."""


class RegistryCore:
    """The live snapshots of a database."""

    def __init__(self, env: Env, state: CommitState, counters: Counters) -> None:
        self._env = env
        self._state = state
        self._counters = counters
        # Not one of the env: the compiled twin needs none, and simulated machines whose clocks tick
        # at each of theirs must go alike with both.
        self._step = OwnedMutex()
        # By the identity of the list that has the number, which the tenure keeps alive.
        self._tenures: dict[int, Tenure] = {}
        self._count = 0
        self.is_dropping = False
        """Whether rows are on their way out that only a live snapshot would keep."""
        self.leaks: deque[str] = deque()
        """What is to be warned of when nobody holds a mutex."""

    def warn(self) -> None:
        """Warn of `leaks`."""
        raise NotImplementedError  # unreachable: each registry has its own

    def _await_drop(self) -> None:
        """Return when `is_dropping` is no longer what it was."""
        raise NotImplementedError  # unreachable: each registry has its own

    def written_bytes(self) -> int:
        """Return the bytes of keys and values that were written since the database was opened."""
        return self._state.user_bytes + self._counters.ingested_user_bytes

    def acquire(self, held: list[int], holder: Holder) -> Tenure:
        """Register the newest visible sequence number and put it into `held`, which is empty. Know
        that `holder` has it until it is given back.
        """
        tenure = Tenure(holder, held)
        tenure.began, tenure.bytes_before = self._env.monotonic(), self.written_bytes()
        tenure.thread, tenure.life = self._env.thread_id(), self._env.thread_life()
        if self.leaks:
            self.warn()
        where = id(held)
        # Reading and registering are one step, so that a compaction which lists the snapshots
        # either sees this one or works on nothing newer than it.
        while True:
            with self._step:
                self._count += 1
                tenure.number, tenure.seq = self._count, self._state.visible_seq
                taken = [tenure.seq]
                held[:] = taken
                self._tenures[where] = tenure
            # Asked behind the step: whoever drops says so first, and then looks who holds one.
            if not self.is_dropping:
                return tenure
            self.release(held)
            self._await_drop()

    def release(self, held: list[int]) -> None:
        """Give back the snapshot in `held` and take it out; does nothing when that is done.

        Raises: ValueError for a number that was never registered.
        """
        where = id(held)
        try:
            with self._step:
                if held and where not in self._tenures:
                    raise ValueError("this snapshot is not held")
                held[:] = ()
                self._tenures.pop(where, None)
        except ReentryError:
            # Somebody's finalizer ends it, in the middle of another call here.
            mark("engine.snapshot_ended_in_a_call")
            self.drop(held)

    def drop(self, held: list[int]) -> bool:
        """Give back the snapshot in `held`, and return whether it was there: of two who do it at
        the same time, one did it. For finalizers and others that must not wait.
        """
        try:
            held.pop()
        except IndexError:
            return False
        self._tenures.pop(id(held), None)
        return True

    def tenure_of(self, held: list[int]) -> Tenure | None:
        """Return what is known of the snapshot in `held`. Takes no mutex."""
        return self._tenures.get(id(held))

    def tenures(self) -> list[Tenure]:
        """Return those that are held, the oldest first."""
        with self._step:
            return [tenure for tenure in list(self._tenures.values()) if tenure.held]
