"""Pieces of a long piece of work, done in processes beside each other.

Thread safety: none; one thread, and processes of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Done = TypeVar("Done")

AHEAD = 2
"""So many pieces are handed out for each process."""


def do_pieces(
    function: Callable[..., Done],
    pieces: Iterable[tuple[object, ...]],
    jobs: int,
    goes_on: Callable[[], bool],
) -> Iterator[Done]:
    """Yield what `function` returns for each of the `pieces`, its arguments, in their order; as
    long as it `goes_on`, which is asked before each. What has begun by then is yielded
    too, up to the first that has not.

    Raises: what the function raises.
    """
    left = iter(pieces)
    waiting: deque[Future[Done]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while goes_on():
            while len(waiting) < AHEAD * jobs and (piece := next(left, None)) is not None:
                waiting.append(pool.submit(function, *piece))
            if not waiting:
                return
            yield waiting.popleft().result()
        is_over = False
        for future in waiting:
            # Nothing behind one that never began: no piece is left out.
            is_over = future.cancel() or is_over
            if not is_over:
                yield future.result()
