"""The graph of what had to come before what in an append history, its short cycles, their classes.

Edges are: ww (the next version of a key), wr (what was read), rw (what a reader did not see yet),
process (the order of one client) and real time. A history has an order of its transactions that
explains all it saw if and only if the graph has no cycle; which kinds of edges a cycle is made of
decides which isolation level forbids it.

1. A cycle of ww is G0, of ww and wr G1c, with one rw G-single, with several of which no two follow
   each other G-nonadjacent, and any other G2. With process or real time edges the class says so.
2. What snapshot isolation forbids is every cycle without two rw edges behind each other. Such
   cycles are found in a graph that has each node twice: as it is reached by rw, and otherwise; from
   the first no rw edge leaves.
3. Real time needs no edge for each pair: a chain of instants, one between each last end and next
   begin, stands for them. Instants are nodes from `count` on.
4. The components are found in time linear in the edges. Which cycle of a component is shown is
   searched with a bounded effort; that there is one is certain.

Sources: Adya 1999 for the classes; Cerone and Gotsman, Analysing Snapshot Isolation (2016), for 2.

Thread safety: none; one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

WW, WR, RW, PROCESS, REALTIME = range(5)
KIND_NAMES = ("ww", "wr", "rw", "process", "realtime")

STARTS_MOST = 8
"""So many edges of a component are tried as the first of a cycle, spread over all of them."""
STEPS_MOST = 2_000_000
"""So many edges are followed in one stage before the search is content with what it has."""

_Out = list[list[int]]
"""Of each node the edges that leave it: the target, shifted by three, and the kind."""


class Edge(NamedTuple):
    """`source` had to come before `target`."""

    source: int
    kind: int
    target: int


Cycle = tuple[Edge, ...]


class Graph:
    """Nodes below `count` are transactions; those behind them are instants."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.out: _Out = [[] for _ in range(count)]

    def add(self, source: int, kind: int, target: int) -> None:
        """Add an edge."""
        self.out[source].append(target << 3 | kind)

    def add_order(self, ends: Sequence[tuple[int, int]], begins: Sequence[tuple[int, int]]) -> None:
        """Add real time: of (time, node), whatever ended before something else began."""
        waiting = sorted(ends, reverse=True)
        instant = -1
        for time, node in sorted(begins):
            fresh: list[int] = []
            while waiting and waiting[-1][0] < time:
                fresh.append(waiting.pop()[1])
            if fresh:
                self.out.append([])
                if instant >= 0:
                    self.add(instant, REALTIME, len(self.out) - 1)
                instant = len(self.out) - 1
                for ended in fresh:
                    self.add(ended, REALTIME, instant)
            if instant >= 0:
                self.add(instant, REALTIME, node)


class _Stage(NamedTuple):
    """Cycles of these kinds of edges; each has one of the kind `start`."""

    kinds: frozenset[int]
    start: int
    is_split: bool
    """Each node stands there twice, as point 2 says."""


def _stages() -> Iterator[_Stage]:
    versions = frozenset((WW, WR))
    yield _Stage(frozenset((WW,)), WW, is_split=False)
    yield _Stage(versions, WR, is_split=False)
    yield _Stage(versions | {RW}, RW, is_split=True)
    yield _Stage(versions | {RW}, RW, is_split=False)
    for order in (PROCESS, REALTIME):
        yield _Stage(versions | {order}, order, is_split=False)
        yield _Stage(versions | {RW, order}, order, is_split=True)
        yield _Stage(versions | {RW, order}, order, is_split=False)


STAGES = tuple(_stages())


def classify(cycle: Cycle) -> str:
    """Return the class of a cycle.

    >>> classify((Edge(1, RW, 2), Edge(2, WR, 1)))
    'G-single'
    """
    kinds = [edge.kind for edge in cycle]
    count = kinds.count(RW)
    if count == 0:
        name = "G1c" if WR in kinds else "G0"
    elif count == 1:
        name = "G-single"
    elif any(kinds[at - 1] == kinds[at] == RW for at in range(len(kinds))):
        name = "G2"
    else:
        name = "G-nonadjacent"
    if REALTIME in kinds:
        return f"{name}-realtime"
    return f"{name}-process" if PROCESS in kinds else name


def find_cycles(graph: Graph) -> Iterator[Cycle]:
    """Yield cycles: of each component of each stage the shortest that was met of each class."""
    for nodes in components(graph.out):
        place = {node: at for at, node in enumerate(nodes)}
        inner: _Out = [
            [place[edge >> 3] << 3 | edge & 7 for edge in graph.out[node] if edge >> 3 in place]
            for node in nodes
        ]
        for stage in STAGES:
            for walk in _stage_cycles(inner, stage):
                named = [Edge(nodes[edge.source], edge.kind, nodes[edge.target]) for edge in walk]
                yield _without_instants(named, graph.count)


def components(out: _Out) -> list[list[int]]:
    """Return the strongly connected components of more than one node (Tarjan's algorithm)."""
    found: list[list[int]] = []
    order = [0] * len(out)
    lowest = [0] * len(out)
    is_open = bytearray(len(out))
    stack: list[int] = []
    count = 0
    for root in range(len(out)):
        if order[root]:
            continue
        path: list[int] = []
        rest: list[Iterator[int]] = []
        enter = root
        while enter >= 0 or path:
            if enter >= 0:
                count += 1
                order[enter] = lowest[enter] = count
                is_open[enter] = 1
                stack.append(enter)
                path.append(enter)
                rest.append(iter(out[enter]))
                enter = -1
            node = path[-1]
            for edge in rest[-1]:
                target = edge >> 3
                if not order[target]:
                    enter = target
                    break
                if is_open[target] and order[target] < lowest[node]:
                    lowest[node] = order[target]
            if enter >= 0:
                continue
            path.pop()
            rest.pop()
            if path and lowest[node] < lowest[path[-1]]:
                lowest[path[-1]] = lowest[node]
            if lowest[node] == order[node]:
                at = len(stack) - 1
                while stack[at] != node:
                    at -= 1
                members = stack[at:]
                del stack[at:]
                for member in members:
                    is_open[member] = 0
                if len(members) > 1:
                    found.append(members)
    return found


def _stage_cycles(inner: _Out, stage: _Stage) -> Iterator[list[Edge]]:
    out = _stage_out(inner, stage)
    left = STEPS_MOST
    for nodes in components(out):
        members = frozenset(nodes)
        starts = [
            (node, edge)
            for node in sorted(nodes)
            for edge in out[node]
            if edge & 7 == stage.start and edge >> 3 in members
        ]
        best: dict[str, list[Edge]] = {}
        step = max(1, len(starts) // STARTS_MOST)
        for number, (source, edge) in enumerate(starts[::step]):
            if number and left <= 0:
                break
            target = edge >> 3
            path, steps = _shortest_path(out, target, source, members)
            left -= steps
            walk = [Edge(source, stage.start, target), *path]
            if stage.is_split:
                walk = _joined(walk)
            kind = classify(tuple(walk))
            if kind not in best or len(walk) < len(best[kind]):
                best[kind] = walk
        yield from best.values()


def _stage_out(inner: _Out, stage: _Stage) -> _Out:
    if not stage.is_split:
        return [[edge for edge in edges if edge & 7 in stage.kinds] for edges in inner]
    out: _Out = [[] for _ in range(2 * len(inner))]
    for node, edges in enumerate(inner):
        for edge in edges:
            kind = edge & 7
            if kind == RW:
                out[2 * node].append(((edge >> 3) * 2 + 1) << 3 | kind)
            elif kind in stage.kinds:
                target = (edge >> 3) * 2 << 3 | kind
                out[2 * node].append(target)
                out[2 * node + 1].append(target)
    return out


def _shortest_path(
    out: _Out, first: int, last: int, members: frozenset[int]
) -> tuple[list[Edge], int]:
    """Return the edges from `first` to `last`, and how many were looked at; there is a way."""
    came: dict[int, Edge] = {}
    steps = 0
    queue = [first]
    for node in queue:
        if node == last:
            break
        for edge in out[node]:
            steps += 1
            target = edge >> 3
            if target in members and target not in came and target != first:
                came[target] = Edge(node, edge & 7, target)
                queue.append(target)
    path: list[Edge] = []
    while last != first:
        path.append(came[last])
        last = came[last].source
    return path[::-1], steps


def _joined(walk: list[Edge]) -> list[Edge]:
    """Return a cycle of the graph out of one that has nodes twice.

    One that passes a node both ways is cut there: from where it was reached by rw to where it was
    not is a cycle without two rw edges behind each other as well.
    """
    places = {edge.source: at for at, edge in enumerate(walk)}
    for node, at in places.items():
        if node % 2 and node - 1 in places:
            turned = walk[at:] + walk[:at]
            stop = next(end for end, edge in enumerate(turned, 1) if edge.target == node - 1)
            turned[stop - 1] = turned[stop - 1]._replace(target=node)
            return _joined(turned[:stop])
    return [Edge(edge.source // 2, edge.kind, edge.target // 2) for edge in walk]


def _without_instants(walk: list[Edge], count: int) -> Cycle:
    at = next(at for at, edge in enumerate(walk) if edge.source < count)
    cycle: list[Edge] = []
    for edge in walk[at:] + walk[:at]:
        if edge.source >= count:
            cycle[-1] = cycle[-1]._replace(target=edge.target)
        else:
            cycle.append(edge)
    return tuple(cycle)
