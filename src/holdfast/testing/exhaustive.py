"""Every workload of up to a few operations from a small alphabet, cut off everywhere.

Most crash bugs need few operations to show, so all short sequences are tried rather than some long
ones. Workload K is the K-th in the order of length, then of the alphabet; 0 is the empty one. Those
with merges come behind all others, so that these keep their numbers, and those with unsynced merges
last, and one operation shorter, so that there are not too many. What the last operation of a
workload adds are the boundaries from there on: those before it are the boundaries of the workload
without that operation, which has a number of its own. The same bytes come up again and again, and
are opened once.

Source: ACE of CrashMonkey (OSDI 2018).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from holdfast.testing.crash import Explorer, Options, Outcome, Verdicts, same_machine
from holdfast.testing.oracle import Wrap
from holdfast.testing.workload import ALPHABET, EXHAUSTIVE, workload

LENGTH = 4
MERGE, UNSYNCED_MERGE = "m", "n"
"""The letters of merges, the last ones of the alphabet."""


def _words(letters: str, length: int, having: str = "") -> Iterator[str]:
    """Yield what can be spelt with so many letters at most, and has one of them."""
    for each in range(length + 1):
        for word in itertools.product(letters, repeat=each):
            if not having or having in word:
                yield "".join(word)


@cache
def workloads(length: int = LENGTH) -> tuple[str, ...]:
    """Return the letters of all workloads of at most this length, in their order."""
    every = "".join(ALPHABET)
    synced = every.removesuffix(UNSYNCED_MERGE)
    plain = synced.removesuffix(MERGE)
    return (
        *_words(plain, length),
        *_words(synced, length, MERGE),
        *_words(every, length - 1, UNSYNCED_MERGE),
    )


def count(length: int = LENGTH) -> int:
    """Return how many workloads have at most this length."""
    return len(workloads(length))


def letters_of(item: int, length: int = LENGTH) -> str:
    """Return the letters of a workload. Raises: IndexError for a number that is none."""
    if item < 0:
        raise IndexError(item)
    return workloads(length)[item]


def explore(
    item: int,
    verdicts: Verdicts,
    options: Options | None = None,
    seed: int = 0,
    wrap: Wrap = same_machine,
    length: int = LENGTH,
) -> Outcome:
    """Cut the power at every boundary that the last operation of workload `item` of those of at
    most `length` operations adds.

    Raises: WorkloadError when it fails without any crash.
    """
    letters = letters_of(item, length)
    chosen = replace(options or Options(depth=1), last_step=bool(letters))
    return Explorer(workload(EXHAUSTIVE + letters, seed), chosen, wrap, verdicts).run()
