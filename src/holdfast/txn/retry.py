"""Running a function in a transaction until it does not lose.

A transaction that lost is run again after a pause. The pause is drawn at random from a span that
doubles with each attempt, so that those who lost to each other do not meet again. (Full jitter, as
in Brooker, "Exponential backoff and jitter", 2015.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from holdfast.base import ConflictError, LimitError, mark
from holdfast.env import Env
from holdfast.txn.transaction import Transaction

PAUSE_SECONDS_FIRST = 0.0005
PAUSE_SECONDS_MAX = 0.1

Result = TypeVar("Result")


class Retry:
    """Counts the attempts of one function, and says how long to wait between them."""

    def __init__(self, env: Env, attempts: int) -> None:
        if not isinstance(attempts, int):
            raise TypeError(f"attempts is an int, not {type(attempts).__name__}")
        if attempts < 1:
            raise LimitError(f"attempts is {attempts}; there must be at least one")
        self._env = env
        self._attempts = attempts
        self._made = 0

    def pause_after(self, error: ConflictError) -> float:
        """Return how long to wait before the next attempt. Raises: `error` when there is none."""
        self._made += 1
        if self._made >= self._attempts:
            mark("txn.attempts_exhausted")
            times = "once" if self._attempts == 1 else f"{self._attempts} times"
            error.add_note(f"the transaction was run {times} and lost each time")
            raise error
        span: float = min(PAUSE_SECONDS_FIRST * 2 ** min(self._made, 16), PAUSE_SECONDS_MAX)
        return span * int.from_bytes(self._env.random_bytes(4), "little") / (1 << 32)


def run(
    env: Env,
    begin: Callable[[], Transaction],
    function: Callable[[Transaction], Result],
    attempts: int,
) -> Result:
    """Run `function` in a transaction of `begin` and commit it; again when it loses.

    Raises: ConflictError, with a note, when it lost `attempts` times; what `function` raises.
    """
    retry = Retry(env, attempts)
    while True:
        try:
            with begin() as txn:
                result = function(txn)
            return result  # noqa: RET504  the commit is behind the block
        except ConflictError as error:
            pause = retry.pause_after(error)
        env.sleep(pause)
