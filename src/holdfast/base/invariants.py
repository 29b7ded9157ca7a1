"""Run-time checks that stay on, and checks that tests turn on.

`require` guards what must hold in production. `check` guards what is too dear for production and
runs when `HOLDFAST_CHECKS=1` is in the environment at import. Neither validates input or bytes from
disk: those have errors of their own. Both raise AssertionError, which library code never catches,
and neither obeys `python -O`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

CHECKS = os.environ.get("HOLDFAST_CHECKS", "") == "1"
"""Whether `check` runs. Constant after import."""


def require(condition: object, message: str) -> None:
    """Raise AssertionError with `message` unless `condition` holds."""
    if not condition:
        raise AssertionError(message)


def check(condition: Callable[[], object], message: str) -> None:
    """Like `require`, of a condition that is only computed when checks are on."""
    if CHECKS and not condition():
        raise AssertionError(message)
