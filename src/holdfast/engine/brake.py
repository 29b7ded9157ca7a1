"""The brake: how writers are slowed while flushes or compactions are behind.

Each MiB that is written costs a time that `write_pace` says. It is waited for in many short pauses:
less than one is saved up, and what is more than one is left to the groups that follow. In between
writes need no group: `CommitState.pause_at` says from how many bytes on the next one comes here.

Thread safety: `slow_down` with the leadership, `adopt` with the version mutex; the two may run at
the same time.
"""

from __future__ import annotations

from math import ceil

from holdfast.compaction import Pace
from holdfast.engine._core import NEVER, CommitState
from holdfast.engine.latency import Latencies
from holdfast.engine.stats import Counters
from holdfast.env import Env

STALL_SECONDS_MIN = 0.001
STALL_SECONDS_MAX = 0.05
"""The shortest and the longest pause of one commit group that is slowed."""
OWED_SECONDS_MAX = 1.0
"""The most that is left to the groups that follow."""


class Brake:
    """Slows the writers of one engine."""

    def __init__(
        self, env: Env, state: CommitState, counters: Counters, latencies: Latencies
    ) -> None:
        self._env = env
        self._state = state
        self._counters = counters
        self._latencies = latencies
        self.pace = Pace(stop=False, seconds_per_mib=0.0)
        self._paced_bytes = 0
        self._owed_seconds = 0.0

    def adopt(self, pace: Pace) -> None:
        """Slow writers by `pace` from now on. Requires: the version mutex."""
        was_slowed = _slows(self.pace)
        self.pace = pace
        if _slows(pace):
            if not was_slowed:
                # Nobody waits for what was written while nobody had to.
                self._paced_bytes, self._owed_seconds = self._state.user_bytes, 0.0
            # The next write finds out when its pause is due, in a group.
            self._state.pause_at = 0
        else:
            self._state.pause_at = NEVER

    def slow_down(self, pace: Pace) -> None:
        """Wait for what was written since the last call. Requires: the leadership; `pace` is that
        of now, and does not stop.
        """
        state = self._state
        written = state.user_bytes - self._paced_bytes
        self._paced_bytes = state.user_bytes
        if pace.seconds_per_mib <= 0.0:
            self._owed_seconds = 0.0
            pause_at = NEVER
        else:
            owed = self._owed_seconds + pace.seconds_per_mib * written / (1 << 20)
            if owed >= STALL_SECONDS_MIN:
                began = self._env.monotonic()
                self._env.sleep(min(owed, STALL_SECONDS_MAX))
                waited = self._env.monotonic() - began
                self._counters.note_stall(pace.cause, waited)
                self._latencies.stall.record(waited)
                owed -= waited
            self._owed_seconds = owed = min(max(owed, 0.0), OWED_SECONDS_MAX)
            missing = max(STALL_SECONDS_MIN - owed, 0.0)
            pause_at = state.user_bytes + ceil(missing / pace.seconds_per_mib * (1 << 20))
        state.pause_at = min(pause_at, NEVER)
        if self.pace is not pace:
            # It changed meanwhile, and what that said of the next pause is overwritten now.
            state.pause_at = 0


def _slows(pace: Pace) -> bool:
    return pace.stop or pace.seconds_per_mib > 0.0
