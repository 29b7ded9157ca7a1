"""`./dev pool`: hit ratios of the buffer pool and of other policies, on recorded traces.

Each trace of `holdfast.testing.pool_trace` is recorded from a run of the engine, and replayed with
capacities that are a share of all bytes that the trace asks for: by the pool itself and by the
policies of `holdfast.testing.pool_policies`, the last of which knows the future and is a bound.

A request is one of a reader for a page that is not pinned. What is pinned (index roots, and filters
while they have room) is the same for all, and is taken out of the capacity.

`--write` writes docs/results/pool.md. Exit status: 0 good, 2 wrong usage.

Thread safety: one thread, the main one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from holdfast.bufferpool import PAGE_OVERHEAD_BYTES, BufferPool, Page
from holdfast.testing.numbers import one_or_more
from holdfast.testing.pool_policies import NEVER, Arc, Furthest, Key, Lru, Lru2, Policy
from holdfast.testing.pool_trace import ASK, DROP, PEEK, PIN, READS, ROWS, TRACES, Event
from holdfast.testing.result_page import require_commit, result_page, write_page

PAGE = os.path.join("docs", "results", "pool.md")
SHARES = (0.05, 0.1, 0.25, 0.5)
"""Capacities, as parts of all bytes that a trace asks for."""

HOLDFAST = "holdfast"

EXPLANATION = """\
Each figure is the part of all requests for pages that a policy had in memory.
A capacity is a part of all bytes that the trace asks for, less what is pinned.
`holdfast` is the pool of the engine, compiled.
The others are written in src/holdfast/testing/pool_policies.py.
`future` knows what comes and is a bound.
The best of the others is bold.
Compactions ask for pages and put none in; their requests are not counted."""


class OurPool:
    """The buffer pool of the engine, as a policy."""

    def __init__(self, capacity: int) -> None:
        self._pool = BufferPool(capacity)

    def get(self, key: Key) -> bool:
        return self._pool.get(*key) is not None

    def put(self, key: Key, size: int) -> None:
        self._pool.put(*key, Page(bytes(size - PAGE_OVERHEAD_BYTES), 0))

    def drop_file(self, number: int) -> None:
        self._pool.drop_file(number)

    def resize(self, capacity: int) -> None:
        self._pool.resize(capacity)


def recorded(name: str, seed: int, rows: int, reads: int) -> list[Event]:
    """Record a trace in a process of its own, on the plain twins.

    Raises: CalledProcessError when that fails.
    """
    variables = dict(os.environ, HOLDFAST_PURE="1")
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        words = [sys.executable, "-m", "holdfast.testing.pool_trace", name]
        words += [str(seed), str(rows), str(reads), path]
        subprocess.run(words, check=True, env=variables)
        with open(path, encoding="ascii") as file:
            return [tuple(event) for event in json.load(file)]


def asked_bytes(events: Sequence[Event]) -> int:
    """Return what all pages together are charged that readers ask for."""
    return sum({event[1:3]: event[3] for event in events if event[0] in (ASK, PIN)}.values())


def replay(events: Sequence[Event], capacity: int, make: Callable[[int], Policy]) -> float:
    """Return the part of the requests for which a policy had the page."""
    policy = make(capacity)
    hits = 0
    requests = unpinned_requests(events, capacity)
    pinned = 0
    for kind, (file, offset, size) in requests:
        if kind == DROP:
            policy.drop_file(file)
        elif kind == PIN:
            pinned += size
            policy.resize(capacity - pinned)
        elif policy.get((file, offset)):
            hits += kind == ASK
        elif kind == ASK:
            policy.put((file, offset), size)
    return hits / max(1, sum(kind == ASK for kind, _ in requests))


def unpinned_requests(
    events: Sequence[Event], capacity: int
) -> list[tuple[int, tuple[int, int, int]]]:
    """Return what is left for a policy: requests for pages that are not pinned; PIN, with the bytes
    that the policy loses or (below 0) gets back; DROP.

    Pages are pinned while they take at most half of the capacity together, as the engine does it.
    """
    found: list[tuple[int, tuple[int, int, int]]] = []
    pinned: dict[Key, int] = {}
    for kind, file, offset, size in events:
        key = (file, offset)
        if kind == DROP:
            gone = {key: size for key, size in pinned.items() if key[0] == file}
            found.append((DROP, (file, 0, 0)))
            if gone:
                found.append((PIN, (file, 0, -sum(gone.values()))))
            pinned = {key: size for key, size in pinned.items() if key not in gone}
        elif key in pinned:
            continue
        elif kind == PIN and sum(pinned.values()) + size <= capacity // 2:
            pinned[key] = size
            found.append((PIN, (file, offset, size)))
        else:
            found.append((PEEK if kind == PEEK else ASK, (file, offset, size)))
    return found


def next_uses(events: Sequence[Event], capacity: int) -> list[int]:
    """Return for each request and each peek, in order, when the same page is asked for again."""
    kinds = [(kind, what) for kind, what in unpinned_requests(events, capacity) if kind != PIN]
    asked = [(kind, what[:2]) for kind, what in kinds if kind != DROP]
    found = [NEVER] * len(asked)
    later: dict[Key, int] = {}
    for at in range(len(asked) - 1, -1, -1):
        kind, key = asked[at]
        found[at] = later.get(key, NEVER)
        if kind == ASK:
            later[key] = at
    return found


def ratios(events: Sequence[Event], capacity: int) -> dict[str, float]:
    """Return the hit ratio of each policy."""
    coming = next_uses(events, capacity)
    makers: dict[str, Callable[[int], Policy]] = {
        HOLDFAST: OurPool,
        "LRU": Lru,
        "LRU-2": Lru2,
        "ARC": Arc,
        "future": lambda capacity: Furthest(capacity, coming),
    }
    return {name: replay(events, capacity, make) for name, make in makers.items()}


def table(found: dict[str, dict[float, dict[str, float]]]) -> str:
    """Return the ratios as a table: a row for each trace and capacity, the best one marked."""
    policies = list(next(iter(next(iter(found.values())).values())))
    lines = [f"| trace | capacity | {' | '.join(policies)} |"]
    lines.append("|---|--:|" + "--:|" * len(policies))
    for name, by_share in found.items():
        for share, by_policy in by_share.items():
            best = max(ratio for policy, ratio in by_policy.items() if policy != "future")
            cells = [
                f"**{ratio:.1%}**" if ratio == best and policy != "future" else f"{ratio:.1%}"
                for policy, ratio in by_policy.items()
            ]
            lines.append(f"| {name} | {share:.0%} | {' | '.join(cells)} |")
    means = {
        policy: [by[policy] for by_share in found.values() for by in by_share.values()]
        for policy in policies
    }
    cells = [f"{sum(values) / len(values):.1%}" for values in means.values()]
    lines.append(f"| mean of all | | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(command: str, traces: dict[str, str], body: str) -> str:
    """Return the page of the documents."""
    lines = [
        body,
        "",
        "## The traces",
        "",
        *(f"- {name}: {text}" for name, text in traces.items()),
    ]
    return result_page("policies of the buffer pool", command, lines, explanation=EXPLANATION)


def main(arguments: Sequence[str]) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="./dev pool", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="TRACE", help=f"of {', '.join(TRACES)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=one_or_more, default=ROWS)
    parser.add_argument("--reads", type=one_or_more, default=READS)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    given = parser.parse_args(arguments)
    require_commit(parser, writes=given.write)
    names = given.names or list(TRACES)
    unknown = [name for name in names if name not in TRACES]
    if unknown:
        print(f"no such trace: {unknown[0]}; there are {', '.join(TRACES)}", file=sys.stderr)
        return 2
    found: dict[str, dict[float, dict[str, float]]] = {}
    texts: dict[str, str] = {}
    for name in names:
        events = recorded(name, given.seed, given.rows, given.reads)
        total = asked_bytes(events)
        found[name] = {share: ratios(events, int(total * share)) for share in SHARES}
        count = sum(event[0] == ASK for event in events)
        what = (TRACES[name].__doc__ or "").strip()
        texts[name] = f"{what} {count:,} requests for {total:,} bytes of pages."
        print(f"{name}: {texts[name]}\n{table({name: found[name]})}\n", flush=True)
    if given.write:
        body = table(found)
        write_page(PAGE, page(shlex.join(["./dev", "pool", *arguments]), texts, body))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
