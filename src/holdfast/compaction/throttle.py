"""A byte rate for background writes: a token bucket that jobs pay into after each piece they wrote.

A job that has written more than the rate allows waits until that is made up for. The urgency of the
work divides the wait: the rate in force is `rate / (1 - urgency)`, and at urgency 1 there is none.
So a limit spreads flushes and compactions over the time that there is, and never is what writers
wait for. (The bucket is that of every traffic shaper; RocksDB's rate limiter is the model, which
cannot be raised by debt unless it is told to tune itself.)

Invariants:
1. Over any stretch with urgency 0, jobs write at most `rate` times its seconds, plus BURST_SECONDS
   of the rate, plus the piece that each of them writes at a time.
2. A wait looks at urgency and at `pause` every SLICE_SECONDS, so that neither a writer nor a close
   waits longer for it than that.

Thread safety: safe. Jobs in several threads share one bucket.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.env import Env

BURST_SECONDS = 0.1
"""What is saved up while nothing is written, in seconds of the rate."""
SLICE_SECONDS = 0.05


class Throttle:
    """Spreads the writes of background jobs. `bytes_per_second` 0 is no limit.

    `urgency` returns a number from 0 to 1. `pause` waits so many seconds, and returns whether the
    job should go on waiting.
    """

    def __init__(
        self,
        env: Env,
        bytes_per_second: int,
        *,
        urgency: Callable[[], float],
        pause: Callable[[float], bool],
    ) -> None:
        self._env = env
        self._rate = bytes_per_second
        self._urgency = urgency
        self._pause = pause
        self._mutex = env.mutex()
        # Guarded by the mutex. Below 0 there is more written than the rate allows.
        self._tokens = 0.0
        self._filled_at = env.monotonic() if bytes_per_second else 0.0
        self.waited_seconds = 0.0

    def spend(self, count: int) -> None:
        """Say that `count` bytes were written; wait as long as the rate asks for."""
        if not self._rate:
            return
        with self._mutex:
            self._fill()
            self._tokens -= count
        while True:
            with self._mutex:
                rate = self._fill()
                left = 0.0 if rate is None else -self._tokens / rate
            if left <= 0.0:
                return
            began = self._env.monotonic()
            goes_on = self._pause(min(left, SLICE_SECONDS))
            self.waited_seconds += self._env.monotonic() - began
            if not goes_on:
                return

    def _fill(self) -> float | None:
        """Add what the time since the last call is worth. Return the rate that is in force, or None
        when there is no limit. Requires: the mutex.
        """
        now = self._env.monotonic()
        passed, self._filled_at = now - self._filled_at, now
        urgency = self._urgency()
        if urgency >= 1.0:
            # What is written in need is not made up for later.
            self._tokens = max(self._tokens, 0.0)
            return None
        rate = self._rate / (1.0 - urgency)
        self._tokens = min(self._tokens + passed * rate, self._rate * BURST_SECONDS)
        return rate
