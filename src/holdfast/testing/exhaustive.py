"""Every workload of up to a few operations from a small alphabet, cut off everywhere.

Most crash bugs need few operations to show, so all short sequences are tried rather than some long
ones. Workload K is the K-th in the order of length, then of the alphabet; 0 is the empty one. What
its last operation adds are the boundaries from there on: those before it are the boundaries of the
workload without that operation, which has a number of its own. The same bytes come up again and
again, and are opened once.

Source: ACE of CrashMonkey (OSDI 2018).
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.testing.crash import Explorer, Options, Outcome, Verdicts, same_machine
from holdfast.testing.oracle import Wrap
from holdfast.testing.workload import ALPHABET, EXHAUSTIVE, workload

LENGTH = 4


def count(length: int = LENGTH) -> int:
    """Return how many workloads have at most this length."""
    return sum(len(ALPHABET) ** each for each in range(length + 1))


def letters_of(item: int) -> str:
    """Return the letters of a workload. Raises: IndexError for a number that is none."""
    if item < 0:
        raise IndexError(item)
    length, rest = 0, item
    while rest >= len(ALPHABET) ** length:
        rest -= len(ALPHABET) ** length
        length += 1
    digits = []
    for _ in range(length):
        rest, digit = divmod(rest, len(ALPHABET))
        digits.append(list(ALPHABET)[digit])
    return "".join(reversed(digits))


def explore(
    item: int,
    verdicts: Verdicts,
    options: Options | None = None,
    seed: int = 0,
    wrap: Wrap = same_machine,
) -> Outcome:
    """Cut the power at every boundary that the last operation of workload `item` adds.

    Raises: WorkloadError when it fails without any crash.
    """
    letters = letters_of(item)
    chosen = replace(options or Options(depth=1), last_step=bool(letters))
    return Explorer(workload(EXHAUSTIVE + letters, seed), chosen, wrap, verdicts).run()
